//! How a set of sequences is written: as runs, whatever it is in memory.

use std::ops::RangeInclusive;

use prost::encoding::{decode_varint, encode_varint};

/// Writes numbers that come in order: how many runs they are, then for each the distance from the end of the one before
/// and its length.
pub(super) fn encode_runs(numbers: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
    let runs = runs(numbers);
    encode_varint(runs.len() as u64, out);
    let mut end = 0;
    for run in runs {
        encode_varint(run.start() - end, out);
        encode_varint(run.end() - run.start(), out);
        end = *run.end();
    }
}

/// Reads what `encode_runs` wrote, a run at a time. `None`: these bytes are something else.
pub(super) fn decode_runs(bytes: &mut &[u8], mut take: impl FnMut(RangeInclusive<u64>)) -> Option<()> {
    let mut end = None;
    for _ in 0..decode_varint(bytes).ok()? {
        let first = end.unwrap_or(0_u64).checked_add(decode_varint(bytes).ok()?)?;
        if end.is_some_and(|end| first <= end) {
            return None;
        }
        let last = first.checked_add(decode_varint(bytes).ok()?)?;
        take(first..=last);
        end = Some(last);
    }
    Some(())
}

fn runs(numbers: impl Iterator<Item = u64>) -> Vec<RangeInclusive<u64>> {
    let mut runs: Vec<RangeInclusive<u64>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.end() + 1 == number => *run = *run.start()..=number,
            _ => runs.push(number..=number),
        }
    }
    runs
}
