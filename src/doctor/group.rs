//! Questions about a group of brokers and its lease, the same for all databases.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;

use super::Report;
use crate::{
    config::{Config, write_duration},
    election::{BrokerSeen, Lease, LockError, Survey},
    node,
    types::Clock,
};

/// What a broker that is the master uses, with some to spare.
const CONNECTIONS: u64 = 10;

/// Messages expire by the clock of the broker that is the master; people compare it with the database's.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(5);

/// A broker gives a sign of life every three seconds. Unit: milliseconds.
const ALIVE: i64 = 3_500;

/// Until then a broker that is alive has given its next sign.
const NEXT_SIGN: Duration = Duration::from_secs(4);

/// Whether there are connections for a master, of so many that are left.
pub(super) fn room(left: u64, report: &mut Report) {
    if left < CONNECTIONS {
        let says = format!("{left} connections are free, and a master takes up to {CONNECTIONS}");
        report.warn("room", says, "raise max_connections, or close what nobody uses");
    }
}

/// How far the database's clock (`theirs`, in milliseconds since 1970) is from ours.
pub(super) fn clock(ours: &Clock, theirs: i64, report: &mut Report) {
    let ours = i64::try_from(ours.now().0).unwrap_or(i64::MAX);
    let apart = Duration::from_millis(ours.abs_diff(theirs));
    let side = if theirs > ours { "ahead of" } else { "behind" };
    if apart > CLOCKS_APART_MAX {
        let says = format!("the database's is {} s {side} this machine's", apart.as_secs());
        report.warn("clock", says, "let both follow the same time servers: messages expire by the broker's clock");
    } else {
        report.ok("clock", format!("the database's is {} ms {side} this machine's", apart.as_millis()));
    }
}

/// Whether the lease leaves room for the answers of this database.
pub(super) fn lease(config: &Config, round_trip: Duration, report: &mut Report) {
    let lease = Lease::new(config.election.lease);
    let [length, heartbeat, relied_on] = [lease.length(), lease.heartbeat(), lease.relied_on()].map(write_duration);
    let says = format!(
        "{length}: a heartbeat every {heartbeat}, relied on for {relied_on}; the database answers within {:.1} ms",
        round_trip.as_secs_f64() * 1_000.0
    );
    if round_trip > lease.heartbeat() / 4 {
        report.warn("lease", says, "raise election.lease, or bring the database nearer");
    } else {
        report.ok("lease", says);
    }
}

/// Who is there; nothing is said while there are no tables.
pub(super) async fn brokers(config: &Config, report: &mut Report) {
    match survey(config).await {
        Ok(Some(survey)) => tell_brokers(&survey, report),
        Ok(None) => {}
        Err(error) => report.failed("brokers", &error, error.fix()),
    }
}

fn tell_brokers(survey: &Survey, report: &mut Report) {
    let alive = alive(survey);
    if alive.is_empty() {
        return report.ok("brokers", "none of the group is running");
    }
    for name in names_given_twice(&alive) {
        let says = format!("two that run are called {name}");
        report.warn("brokers", says, "give each broker of a group a broker_name of its own");
    }
    let master = survey.master().unwrap_or("nobody");
    let told = alive.iter().map(|broker| format!("{} on {}", broker.name, broker.addresses));
    let told = told.collect::<Vec<_>>().join(", ");
    let says = format!(
        "{master} is the master; alive: {told}. They share all messages: one that you do not know has your store.group by \
         mistake"
    );
    report.ok("brokers", says);
}

/// Who was killed a moment ago and started again is there twice; so if a name is, it is looked at once more.
async fn survey(config: &Config) -> Result<Option<Survey>, LockError> {
    let survey = node::survey(config).await?;
    let is_doubtful = survey.as_ref().is_some_and(|survey| !names_given_twice(&alive(survey)).is_empty());
    if is_doubtful {
        sleep(NEXT_SIGN).await;
        return node::survey(config).await;
    }
    Ok(survey)
}

/// Those that gave a sign of life just now.
fn alive(survey: &Survey) -> Vec<&BrokerSeen> {
    survey.brokers.iter().filter(|broker| broker.seen_ms_ago < ALIVE).collect()
}

fn names_given_twice<'a>(brokers: &[&'a BrokerSeen]) -> Vec<&'a str> {
    let mut times = BTreeMap::<&str, usize>::new();
    for broker in brokers {
        *times.entry(&broker.name).or_default() += 1;
    }
    times.into_iter().filter(|(_, times)| *times > 1).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn clocks_that_are_apart_are_told_with_how_far() {
        let ours = Clock::start();
        let now = i64::try_from(ours.now().0).unwrap();
        for (apart, verdict, says) in [
            (0, Verdict::Ok, "ms"),
            (3_600_000, Verdict::Warn, "s ahead of this machine's"),
            (-3_600_000, Verdict::Warn, "s behind this machine's"),
        ] {
            let mut report = Report::default();
            clock(&ours, now + apart, &mut report);
            let [finding] = report.0.try_into().unwrap();
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.says.contains(says), "{finding:?}");
        }
    }

    #[test]
    fn a_database_that_answers_slowly_for_its_lease_is_told() {
        let config = Config::default();
        for (round_trip, verdict) in [(1, Verdict::Ok), (900, Verdict::Warn)] {
            let mut report = Report::default();
            lease(&config, Duration::from_millis(round_trip), &mut report);
            assert_eq!(report.0.first().map(|finding| finding.verdict), Some(verdict));
        }
    }
}
