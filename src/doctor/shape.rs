//! Tables, held against how batonmq made them: each a list of lines.

use std::collections::BTreeSet;

use super::Report;

/// What to do about tables that were altered.
const FIX: &str = "stop the brokers, compare with batonmq migrate --print, and undo the change";

/// So many lines are told.
const LINES_MAX: usize = 5;

/// Tells how the tables differ from `made`, a line for each thing.
pub(super) fn compare(version: u32, made: &str, found: &BTreeSet<String>, report: &mut Report) {
    let made: BTreeSet<String> = made.lines().map(ToOwned::to_owned).collect();
    let missing: Vec<&String> = made.difference(found).collect();
    let added: Vec<&String> = found.difference(&made).collect();
    if missing.is_empty() && added.is_empty() {
        report.ok("tables", format!("version {version}, as batonmq made them"));
    } else if missing.is_empty() && !added.iter().any(|line| is_in_the_way(line)) {
        report.warn("tables", format!("somebody added to them: {}", list(&added)), FIX);
    } else {
        let changes = [("missing", &missing), ("not ours", &added)];
        let told = changes.iter().filter(|(_, lines)| !lines.is_empty());
        let told = told.map(|(what, lines)| format!("{what}: {}", list(lines))).collect::<Vec<_>>().join("; ");
        report.fail("tables", format!("they were altered; {told}"), FIX);
    }
}

/// A broker's rows do not have it.
fn is_in_the_way(added: &str) -> bool {
    added.starts_with("column ") && added.ends_with(" not null")
}

fn list(lines: &[&String]) -> String {
    let mut told = lines.iter().take(LINES_MAX).map(|line| line.as_str()).collect::<Vec<_>>().join(", ");
    if lines.len() > LINES_MAX {
        told.push_str(&format!(" and {} more", lines.len() - LINES_MAX));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn what_is_missing_or_in_the_way_is_a_failure_and_what_was_added_a_warning() {
        let made = "column m.a bigint not null\nindex i btree (a)";
        for (found, verdict, says) in [
            (made, Verdict::Ok, "as batonmq made them"),
            ("column m.a bigint not null", Verdict::Fail, "missing: index i btree (a)"),
            (&format!("{made}\nindex j btree (b)"), Verdict::Warn, "added to them: index j btree (b)"),
            (&format!("{made}\ncolumn m.b text"), Verdict::Warn, "column m.b text"),
            (&format!("{made}\ncolumn m.b text not null"), Verdict::Fail, "not ours: column m.b text not null"),
        ] {
            let mut report = Report::default();
            compare(1, made, &found.lines().map(ToOwned::to_owned).collect(), &mut report);
            let [finding] = report.0.try_into().unwrap();
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.says.contains(says), "{finding:?}");
        }
    }
}
