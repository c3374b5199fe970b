//! Reads every record of a journal, and says all that is wrong with it. Changes nothing.
//!
//! The caller sees to it that no broker writes meanwhile (`election::share_lock`).

use std::{path::Path, sync::Arc};

use super::{
    super::StoreError,
    DIRECTORY,
    disk::Disk,
    index_check::{Expected, IndexReport},
    segment::SegmentNumber,
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
    /// The indexes of sealed segments without damage.
    pub indexes: Vec<IndexReport>,
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
    let dir = data.join(DIRECTORY);
    let walk = Walk::open(disk, &dir)?;
    let mut reader =
        Reader { disk: disk.as_ref(), dir: &dir, tally: Tally::default(), expected: None, indexes: vec![] };
    let findings = walk.run("reading", &mut |found| reader.follow(found), watch)?;
    Ok(reader.report(findings))
}

/// Adds up what it reads, a segment at a time.
struct Reader<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    tally: Tally,
    /// What the index of the segment has to say that is being read; the newest has none.
    expected: Option<Expected>,
    indexes: Vec<(SegmentNumber, IndexReport)>,
}

impl Reader<'_> {
    fn follow(&mut self, found: &Found<'_>) -> Result<(), StoreError> {
        let expected = match self.expected.take() {
            Some(expected) if expected.header == found.header => expected,
            sealed => {
                self.check_index(sealed);
                Expected::new(found.header)
            }
        };
        self.expected.insert(expected).follow(found, &mut self.tally);
        Ok(())
    }

    fn check_index(&mut self, sealed: Option<Expected>) {
        if let Some(sealed) = sealed {
            self.indexes.push((sealed.header.segment, sealed.check(self.disk, self.dir)));
        }
    }

    fn report(self, findings: Findings) -> VerifyReport {
        let is_whole = |number: SegmentNumber| {
            let path = self.dir.join(number.file_name());
            findings.damage.iter().all(|damage| damage.path != path)
        };
        let indexes = self.indexes.into_iter().filter(|(number, _)| is_whole(*number)).map(|(_, report)| report);
        VerifyReport {
            segments: findings.segments.len(),
            records: findings.segments.iter().map(|segment| segment.records).sum(),
            batches: self.tally.batches,
            last_record: findings.last.unwrap_or_default(),
            messages: self.tally.holdings.live().len(),
            tenure: self.tally.catalog.tenure,
            indexes: indexes.collect(),
            damage: findings.damage,
            torn: findings.torn,
        }
    }
}
