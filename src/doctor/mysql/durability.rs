//! Whether what MySQL or MariaDB confirms survives: a crash of the server, and the loss of its machine.

use std::time::Duration;

use super::facts::Facts;
use crate::{config::write_duration, db::mysql::Server, doctor::Report};

/// Whoever waits for a replica for a shorter time goes on without it some day.
const REPLICA_PATIENCE_MIN: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn examine(server: &Server, facts: &Facts, report: &mut Report) {
    let troubles = report.troubles();
    for warning in server.warnings() {
        let (says, fix) = warning.rsplit_once("; ").unwrap_or((&warning, "see docs/databases.md"));
        report.warn("durability", says, fix);
    }
    disk(facts, report);
    replicas(facts, report);
    if report.troubles() == troubles {
        report.ok("durability", "what is committed is synced");
    }
}

fn disk(facts: &Facts, report: &mut Report) {
    let method = facts.text("innodb_flush_method");
    if ["nosync", "littlesync"].contains(&method) {
        let says = format!(
            "innodb_flush_method is {method}: when the database's machine fails, what was confirmed is lost, and more"
        );
        report.fail("durability", says, "take it out of the server's configuration");
    }
    let doublewrite = facts.text("innodb_doublewrite");
    if ["OFF", "DETECT_ONLY"].contains(&doublewrite) {
        let says = format!("innodb_doublewrite is {doublewrite}: when the database's machine fails, pages may be torn");
        report.warn("durability", says, "set it to ON, unless its file system writes pages whole");
    }
}

/// MySQL tells nobody but an administrator whether it has replicas; MariaDB does.
fn replicas(facts: &Facts, report: &mut Report) {
    let [enabled, status, timeout] = ["enabled", "status", "timeout"].map(|part| {
        ["master", "source"].map(|role| format!("rpl_semi_sync_{role}_{part}")) // MariaDB's name, and MySQL's
    });
    let is_on = |names: &[String]| names.iter().any(|name| facts.is_on(name));
    if is_on(&status) {
        let patience = timeout.iter().find_map(|name| facts.number(name)).map(Duration::from_millis);
        if let Some(patience) = patience.filter(|patience| *patience < REPLICA_PATIENCE_MIN) {
            let says = format!(
                "it waits for a replica for {} and then goes on alone: when a replica takes over later, what was \
                 confirmed meanwhile is lost",
                write_duration(patience)
            );
            report.warn("durability", says, format!("raise {}", timeout.join(" or ")));
        }
    } else if facts.number("slaves_connected").is_some_and(|replicas| replicas > 0) || is_on(&enabled) {
        let says =
            "it has replicas and waits for none: when one of them takes over, the last that was confirmed is lost";
        report.warn("durability", says, "use semi-synchronous replication, with a timeout that is never reached");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MySQL has other names than MariaDB, on which the tests run.
    #[test]
    fn replicas_of_mysql_are_known_by_its_own_names() {
        let told = |facts: &[(&str, &str)]| {
            let facts = facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let mut report = Report::default();
            replicas(&facts, &mut report);
            report.0.pop().map(|finding| finding.says)
        };
        let [enabled, status, timeout] =
            ["enabled", "status", "timeout"].map(|part| format!("rpl_semi_sync_source_{part}"));
        assert_eq!(told(&[]), None);
        assert!(told(&[(&enabled, "ON"), (&status, "OFF")]).unwrap().contains("waits for none"));
        assert!(told(&[(&status, "ON"), (&timeout, "10000")]).unwrap().contains("for 10s and then goes on alone"));
        assert_eq!(told(&[(&status, "ON"), (&timeout, "86400000")]), None);
    }
}
