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

/// Messages expire by the clock of the broker that is the master; people compare it with the database's.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(5);

/// A broker gives a sign of life every three seconds. Unit: milliseconds.
const ALIVE: i64 = 3_500;

/// Until then a broker that is alive has given its next sign.
const NEXT_SIGN: Duration = Duration::from_secs(4);

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

/// Who is there. The tables are.
pub(super) async fn brokers(config: &Config, report: &mut Report) {
    match alive(config).await {
        Ok((_, alive)) if alive.is_empty() => report.ok("brokers", "none of the group is running"),
        Ok((survey, alive)) => {
            for name in names_given_twice(&alive) {
                let says = format!("two that run are called {name}");
                report.warn("brokers", says, "give each broker of a group a broker_name of its own");
            }
            let master = survey.master().unwrap_or("nobody");
            let told = alive.iter().map(|broker| format!("{} on {}", broker.name, broker.addresses));
            let told = told.collect::<Vec<_>>().join(", ");
            report.ok("brokers", format!("{master} is the master; alive: {told}. All of them share these messages"));
        }
        Err(error) => report.failed("brokers", &error, error.fix()),
    }
}

/// Those that gave a sign of life just now. Who was killed a moment ago and started again is there twice; so if a name
/// is, it is looked at once more.
async fn alive(config: &Config) -> Result<(Survey, Vec<BrokerSeen>), LockError> {
    let (survey, alive) = look(config).await?;
    if names_given_twice(&alive).is_empty() {
        return Ok((survey, alive));
    }
    sleep(NEXT_SIGN).await;
    look(config).await
}

async fn look(config: &Config) -> Result<(Survey, Vec<BrokerSeen>), LockError> {
    let Some(survey) = node::survey(config).await? else { unreachable!("there are tables") };
    let alive = survey.brokers.iter().filter(|broker| broker.seen_ms_ago < ALIVE).cloned().collect();
    Ok((survey, alive))
}

fn names_given_twice(brokers: &[BrokerSeen]) -> Vec<&str> {
    let mut times = BTreeMap::<&str, usize>::new();
    for broker in brokers {
        *times.entry(&broker.name).or_default() += 1;
    }
    times.into_iter().filter(|(_, times)| *times > 1).map(|(name, _)| name).collect()
}
