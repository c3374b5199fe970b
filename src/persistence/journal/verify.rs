//! Reads every record of a journal, and says all that is wrong with it. Changes nothing.
//!
//! The caller sees to it that no broker writes meanwhile (`election::share_lock`).

use std::{path::Path, sync::Arc};

use super::{
    super::StoreError,
    DIRECTORY,
    disk::Disk,
    tally::Tally,
    walk::{Damage, Findings, Found, TornWrite, Walk, Watch},
};
use crate::types::Tenure;

/// What reading everything brought.
#[derive(Debug)]
pub struct VerifyReport {
    /// How many segments were read.
    pub segments: usize,
    /// How many good records are in them.
    pub records: u64,
    /// How many of them hold a batch.
    pub batches: u64,
    /// The number of the last good record; 0 if there is none.
    pub last_record: u64,
    /// How many messages somebody still holds.
    pub messages: u64,
    /// The highest tenure seen (R17).
    pub tenure: Tenure,
    /// Every place that is damaged, in the order of the journal.
    pub damage: Vec<Damage>,
    /// A last write that a crash has torn; the next start cuts it.
    pub torn: Option<TornWrite>,
}

/// Reads the whole journal below a data directory. It is good if there is no damage in the report.
///
/// # Errors
/// [`StoreError::Io`]; [`StoreError::NewerFormat`].
pub fn verify(disk: &Arc<dyn Disk>, data: &Path, watch: Watch<'_>) -> Result<VerifyReport, StoreError> {
    let walk = Walk::open(disk, &data.join(DIRECTORY))?;
    let mut tally = Tally::default();
    let mut follow = |found: &Found<'_>| {
        tally.follow(found);
        Ok(())
    };
    let findings = walk.run("reading", &mut follow, watch)?;
    Ok(VerifyReport::new(findings, &tally))
}

impl VerifyReport {
    fn new(findings: Findings, tally: &Tally) -> Self {
        Self {
            segments: findings.segments.len(),
            records: findings.segments.iter().map(|segment| segment.records).sum(),
            batches: tally.batches,
            last_record: findings.last.unwrap_or_default(),
            messages: tally.holdings.live().len(),
            tenure: tally.catalog.tenure,
            damage: findings.damage,
            torn: findings.torn,
        }
    }
}
