//! Whether what PostgreSQL confirms survives: a crash of the server, and the loss of its machine.

use tokio_postgres::{Error, Row};

use crate::{db::postgres::Session, doctor::Report};

const DURABILITY: &str = include_str!("../../../sql/postgres/doctor/durability.sql");

/// The session says no more what it wants of a commit, as one that is not a broker's.
pub(super) async fn examine(session: &Session, report: &mut Report) -> Result<(), Error> {
    session.batch_execute("RESET synchronous_commit").await?;
    let settings = Settings::of(&session.query_one(DURABILITY, &[]).await?);
    let troubles = report.troubles();
    settings.disk(report);
    settings.standbys(report);
    settings.sessions(report);
    if report.troubles() == troubles {
        let says =
            if settings.waits_for_standby() { "fsync is on, and a standby is waited for" } else { "fsync is on" };
        report.ok("durability", says);
    }
    Ok(())
}

/// The columns of `durability.sql`.
struct Settings {
    fsync: bool,
    full_page_writes: bool,
    /// `synchronous_standby_names`.
    standbys: String,
    replicas: i64,
    synchronous_commit: String,
    source: String,
}

impl Settings {
    fn of(row: &Row) -> Self {
        Self {
            fsync: row.get("fsync"),
            full_page_writes: row.get("full_page_writes"),
            standbys: row.get("standbys"),
            replicas: row.get("replicas"),
            synchronous_commit: row.get("synchronous_commit"),
            source: row.get("source"),
        }
    }

    fn disk(&self, report: &mut Report) {
        if !self.fsync {
            let says = "fsync is off: when the database's machine fails, what was confirmed is lost, and more";
            report.fail("durability", says, "set it to on");
        }
        if !self.full_page_writes {
            let says = "full_page_writes is off: when the database's machine fails, pages may be torn";
            report.warn("durability", says, "set it to on, unless its file system writes pages whole");
        }
    }

    fn waits_for_standby(&self) -> bool {
        !self.standbys.is_empty()
    }

    fn standbys(&self, report: &mut Report) {
        if names_anybody(&self.standbys) {
            let says = format!(
                "synchronous_standby_names is {}: a pg_basebackup or pg_receivewal that happens to be connected may be \
                 waited for instead of a standby, and what was confirmed is lost with the primary",
                self.standbys
            );
            report.warn("durability", says, "name the standbys there, as in ANY 1 (a, b)");
        }
        if self.replicas > 0 && !self.waits_for_standby() {
            let says =
                "it has standbys and waits for none: when one of them takes over, the last that was confirmed is lost";
            report.warn("durability", says, "name them in synchronous_standby_names");
        }
        if self.replicas == 0 && self.waits_for_standby() {
            let says = "it waits for a standby, and none is connected: nothing is confirmed until one is";
            report.fail("durability", says, "start the standby, or take it out of synchronous_standby_names");
        }
    }

    /// A broker's own sessions are safe from it (`session.sql`).
    fn sessions(&self, report: &mut Report) {
        let is_enough = match &*self.synchronous_commit {
            "on" | "remote_apply" => true,
            "off" => false,
            _ => !self.waits_for_standby(), // local, remote_write
        };
        if is_enough {
            return;
        }
        let (value, place) = (&self.synchronous_commit, self.place());
        let says = format!(
            "synchronous_commit is {value} {place}: a broker sets it to on for its own sessions, and what others write \
             here may be lost after it was confirmed"
        );
        report.warn("durability", says, "set it to on there");
    }

    /// Who says what a session's `synchronous_commit` is.
    fn place(&self) -> &'static str {
        match &*self.source {
            "database user" => "for this role in this database",
            "user" => "for this role",
            "database" => "for this database",
            "client" => "in store.url",
            _ => "in the server's configuration",
        }
    }
}

/// Whether a list of standbys has the entry that fits whoever is connected.
fn names_anybody(standbys: &str) -> bool {
    let names = standbys.split_once('(').map_or(standbys, |(_how_many, names)| names);
    names.trim_end().trim_end_matches(')').split(',').any(|name| name.trim().trim_matches('"') == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_standbys_that_anybody_fits_is_known() {
        for anybody in ["*", " * ", "\"*\"", "2 (*)", "ANY 1 (*)", "FIRST 1 ( a, * )", "any 1 (a,\"*\")"] {
            assert!(names_anybody(anybody), "{anybody}");
        }
        for named in ["", "a", "a, b", "ANY 1 (a, b)", "FIRST 2 (\"a*\", b)"] {
            assert!(!names_anybody(named), "{named}");
        }
    }
}
