//! The reports for scripts: one object a command, numbers as numbers, units in names. `docs/journal.md` is their
//! documentation; a name that stands there is neither taken away nor given another meaning.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    persistence::journal::{
        Damage, DurableReport, Health, IndexState, JournalReport, Lost, RepairReport, SegmentReport, TornWrite,
        VerifyReport, lost_records,
    },
    types::Destination,
};

pub(super) fn inspect(report: &JournalReport) -> Value {
    let (health, problem) = match &report.health {
        Health::Good => ("good", None),
        Health::Torn { what, .. } => ("torn", Some((*what).to_owned())),
        Health::Refused(error) => ("refused", Some(error.to_string())),
    };
    json!({
        "command": "inspect",
        "health": health,
        "problem": problem,
        "term": report.tenure.term.0,
        "token": report.tenure.token.0,
        "last_record": report.last_record,
        "spare": report.spare,
        "reserve": report.reserve,
        "messages": report.live_messages(),
        "messages_bytes": report.live_bytes,
        "segments": report.segments.iter().map(segment).collect::<Vec<_>>(),
        "destinations": report.messages.iter().map(destination).collect::<Vec<_>>(),
        "durable_subscriptions": report.durables.iter().map(durable).collect::<Vec<_>>(),
    })
}

fn destination((destination, messages): &(Destination, u64)) -> Value {
    json!({ "destination": destination.to_string(), "messages": messages })
}

fn durable(durable: &DurableReport) -> Value {
    json!({
        "client_id": durable.client_id.to_string(),
        "name": durable.name.to_string(),
        "topic": durable.topic.as_ref().map(Destination::to_string),
        "messages": durable.messages,
    })
}

fn segment(segment: &SegmentReport) -> Value {
    json!({
        "number": segment.number.0,
        "file": segment.number.file_name(),
        "file_bytes": segment.bytes,
        "written_bytes": segment.written,
        "records": segment.records,
        "batches": segment.batches,
        "messages": segment.live_messages,
        "indexed": segment.indexed,
    })
}

pub(super) fn verify(report: &VerifyReport) -> Value {
    json!({
        "command": "verify",
        "good": report.damage.is_empty(),
        "segments": report.segments,
        "records": report.records,
        "batches": report.batches,
        "last_record": report.last_record,
        "messages": report.messages,
        "term": report.tenure.term.0,
        "token": report.tenure.token.0,
        "torn": report.torn.as_ref().map(torn),
        "good_indexes": indexes(report, |state| *state == IndexState::Good),
        "missing_indexes": indexes(report, |state| *state == IndexState::Missing),
        "wrong_indexes": indexes(report, |state| matches!(state, IndexState::Wrong(_))),
        "lost_records": lost_records(&report.damage),
        "damage": report.damage.iter().map(damage).collect::<Vec<_>>(),
    })
}

fn indexes(report: &VerifyReport, are: impl Fn(&IndexState) -> bool) -> usize {
    report.indexes.iter().filter(|index| are(&index.state)).count()
}

pub(super) fn repair(report: &RepairReport) -> Value {
    let outcome = match (&report.damaged, report.damage.is_empty()) {
        (Some(_), _) => "repaired",
        (None, true) => "nothing to repair",
        (None, false) => "dry run",
    };
    json!({
        "command": "repair",
        "outcome": outcome,
        "messages": report.messages,
        "messages_bytes": report.messages_bytes,
        "needed_bytes": report.needed_bytes,
        "made_up_names": report.made_up,
        "term": report.tenure.term.0,
        "token": report.tenure.token.0,
        "damaged_directory": report.damaged.as_deref().map(Path::to_string_lossy),
        "torn": report.torn.as_ref().map(torn),
        "lost_records": lost_records(&report.damage),
        "damage": report.damage.iter().map(damage).collect::<Vec<_>>(),
    })
}

fn torn(torn: &TornWrite) -> Value {
    json!({ "file": torn.path.to_string_lossy(), "offset_bytes": torn.offset, "what": torn.what })
}

fn damage(damage: &Damage) -> Value {
    let (first, last, records) = match &damage.lost {
        Lost::Nothing => (None, None, Some(0)),
        Lost::Records(lost) => (Some(*lost.start()), Some(*lost.end()), Some(lost.end() - lost.start() + 1)),
        Lost::Unknown => (None, None, None),
    };
    json!({
        "file": damage.path.to_string_lossy(),
        "offset_bytes": damage.offset,
        "damaged_bytes": damage.bytes,
        "what": damage.what,
        "lost_records": records,
        "first_lost_record": first,
        "last_lost_record": last,
    })
}
