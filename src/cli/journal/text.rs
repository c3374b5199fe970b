//! The reports for humans: a table that is as wide as what stands in it, or a few lines.

use std::io::{self, Write};

use crate::persistence::journal::{
    Damage, DurableReport, Health, IndexState, JournalReport, Lost, RepairReport, SegmentReport, TornWrite,
    VerifyReport, lost_records,
};

pub(super) fn inspect(report: &JournalReport, out: &mut dyn Write) -> io::Result<()> {
    write_segments(report, out)?;
    write_messages(report, out)?;
    writeln!(out, "term {}, token {}", report.tenure.term.0, report.tenure.token.0)?;
    writeln!(out, "{}", health(&report.health))?;
    writeln!(out, "(sealed segments by their indexes alone; batonmq journal verify reads every record)")
}

fn write_segments(report: &JournalReport, out: &mut dyn Write) -> io::Result<()> {
    let heads = ["segment", "bytes", "written", "records", "batches", "messages", "index"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(report.segments.iter().map(|segment| {
        let SegmentReport { number, bytes, written, records, batches, live_messages, indexed } = segment;
        let [bytes, written, records, batches, messages] =
            [bytes, written, records, batches, live_messages].map(u64::to_string);
        let index = match indexed {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        [number.0.to_string(), bytes, written, records, batches, messages, index.to_owned()]
    }));
    write_table(&rows, out)?;
    let is_there = |file| if file { "yes" } else { "no" };
    writeln!(out, "spare file: {}, reserve: {}\n", is_there(report.spare), is_there(report.reserve))
}

fn write_messages(report: &JournalReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:>12}  destination", "messages")?;
    for (destination, count) in &report.messages {
        writeln!(out, "{count:>12}  {destination}")?;
    }
    writeln!(out, "{:>12}  in all, about {} bytes\n", report.live_messages(), report.live_bytes)?;
    if report.durables.is_empty() {
        return Ok(());
    }
    writeln!(out, "{:>12}  durable subscription", "messages")?;
    for DurableReport { client_id, name, topic, messages } in &report.durables {
        let topic = topic.as_ref().map_or_else(|| "an unknown topic".to_owned(), ToString::to_string);
        writeln!(out, "{messages:>12}  {client_id}/{name} of {topic}")?;
    }
    writeln!(out)
}

/// Columns of numbers, each as wide as its widest.
fn write_table<const COLUMNS: usize>(rows: &[[String; COLUMNS]], out: &mut dyn Write) -> io::Result<()> {
    let mut widths = [0; COLUMNS];
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.len().max(*width));
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  "))?;
    }
    Ok(())
}

fn health(health: &Health) -> String {
    match health {
        Health::Good => "the journal is good".to_owned(),
        Health::Torn { segment, offset, what } => format!(
            "the journal is good; its last write was torn (segment {}, byte {offset}: {what}), nobody was told of it, \
             and the next start cuts it",
            segment.0
        ),
        Health::Refused(error) => {
            format!("a broker would not start: {error}; batonmq journal verify lists all that is damaged")
        }
    }
}

pub(super) fn verify(report: &VerifyReport, out: &mut dyn Write) -> io::Result<()> {
    write_damage(&report.damage, out)?;
    write_torn(report.torn.as_ref(), out)?;
    for index in &report.indexes {
        if let IndexState::Wrong(why) = &index.state {
            writeln!(out, "{}: {why}; it can be removed, a start reads the segment instead", index.path.display())?;
        }
    }
    let health = if report.damage.is_empty() { "the journal is good" } else { "the journal is damaged" };
    let good_indexes = report.indexes.iter().filter(|index| index.state == IndexState::Good).count();
    let VerifyReport { segments, records, messages, .. } = report;
    writeln!(
        out,
        "{health}; segments: {segments}, good indexes: {good_indexes}, records: {records}, messages: {messages}"
    )
}

pub(super) fn repair(report: &RepairReport, out: &mut dyn Write) -> io::Result<()> {
    write_damage(&report.damage, out)?;
    if report.damage.is_empty() {
        return writeln!(out, "there is nothing to repair: the journal is good");
    }
    write_torn(report.torn.as_ref(), out)?;
    match lost_records(&report.damage) {
        Some(0) => writeln!(out, "no record is gone")?,
        lost => {
            let lost = lost.map_or("an unknown number of".to_owned(), |count| count.to_string());
            writeln!(out, "records that are gone: {lost}")?;
            writeln!(out, "messages that were sent in them are lost; those that were settled in them come back")?;
        }
    }
    for name in &report.made_up {
        writeln!(out, "kept under a made-up name, because its own is gone: {name}")?;
    }
    let RepairReport { messages, needed_bytes, .. } = report;
    match &report.damaged {
        Some(damaged) => {
            writeln!(out, "messages saved: {messages}; the damaged journal is kept in {}", damaged.display())
        }
        None => writeln!(out, "messages to be saved: {messages}, with {needed_bytes} bytes of free space"),
    }
}

fn write_damage(damage: &[Damage], out: &mut dyn Write) -> io::Result<()> {
    damage.iter().try_for_each(|damage| {
        let Damage { path, offset, bytes, what, .. } = damage;
        writeln!(out, "{}: byte {offset}, {bytes} bytes: {what}; {}", path.display(), lost(&damage.lost))
    })
}

fn lost(lost: &Lost) -> String {
    match lost {
        Lost::Nothing => "no record is gone".to_owned(),
        Lost::Records(records) if records.start() == records.end() => format!("record {} is gone", records.start()),
        Lost::Records(records) => format!("records {} to {} are gone", records.start(), records.end()),
        Lost::Unknown => "nobody can tell which records are gone".to_owned(),
    }
}

fn write_torn(torn: Option<&TornWrite>, out: &mut dyn Write) -> io::Result<()> {
    torn.map_or(Ok(()), |TornWrite { path, offset, what }| {
        writeln!(
            out,
            "{}: byte {offset}: the last write was torn ({what}); nobody was told of it, and the next start cuts it",
            path.display()
        )
    })
}
