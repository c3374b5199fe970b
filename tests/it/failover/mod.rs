//! Several brokers, one database: who serves when one of them is killed, frozen, stopped or cut off, and when the
//! database is. Real processes on real servers, every scenario on each of them.

/// Runs each scenario on each database.
macro_rules! on_each_database {
    ($($scenario:ident)*) => {
        #[cfg(feature = "postgres")]
        mod postgres {
            $(
                #[test]
                fn $scenario() {
                    super::$scenario::<crate::harness::PostgresServer>();
                }
            )*
        }

        #[cfg(feature = "mysql")]
        mod mariadb {
            $(
                #[test]
                fn $scenario() {
                    super::$scenario::<crate::harness::MariadbServer>();
                }
            )*
        }
    };
}

mod backlog;
mod clock;
mod copies;
mod database;
mod doubt;
mod freezes;
mod full_disk;
mod kills;
mod lease;
mod machines;
mod network;
mod operators;
mod pressure;
mod readme;
mod refused;
mod silence;
mod terms;

use std::{
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use batonmq::types::Group;

use crate::harness::{Broker, DatabaseServer, PATIENCE, Raw, Settings, own_group};

/// How often a client tries its list.
const CLIENT_POLL: Duration = Duration::from_millis(10);

/// The brokers of one group, each with a port that it keeps.
struct Brokers {
    group: Group,
    brokers: Vec<Broker>,
    addresses: Vec<SocketAddr>,
}

impl Brokers {
    /// So many brokers; the first one serves, the others wait.
    fn start(server: &impl DatabaseServer, count: usize, settings: impl Fn(Settings) -> Settings) -> Self {
        Self::start_each(count, |_, group| settings(server.settings(group)))
    }

    /// The same, each with settings of its own.
    fn start_each(count: usize, settings: impl Fn(usize, &Group) -> Settings) -> Self {
        let group = own_group();
        let mut brokers = Self { group: group.clone(), brokers: Vec::new(), addresses: Vec::new() };
        for number in 0..count {
            let named = settings(number, &group).option("broker_name", &format!("\"broker-{number}\""));
            let mut broker = Broker::prepare(named);
            brokers.addresses.push(broker.reserve_port());
            broker.launch();
            broker.logged(if number == 0 { "ready" } else { "standby: another broker holds" });
            brokers.brokers.push(broker);
        }
        brokers
    }

    /// The number of the one that serves, and a connection to it; how a client with a list finds it.
    fn master(&self) -> (usize, Raw) {
        self.master_but(None)
    }

    /// The one that serves after this one did; how long a client was without one is told.
    fn next_master(&self, last: usize, what: &str) -> (usize, Raw) {
        let since = Instant::now();
        let found = self.master_but(Some(last));
        println!("{what}: another broker served after {:?}", since.elapsed());
        found
    }

    fn master_but(&self, not: Option<usize>) -> (usize, Raw) {
        one_that_serves(&self.addresses, not)
    }

    /// The number of the first one whose log has a line that contains this text.
    fn who_says(&self, text: &str) -> usize {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(number) = self.brokers.iter().position(|broker| broker.has_logged(text)) {
                return number;
            }
            sleep(CLIENT_POLL);
        }
        panic!("nobody says: {text}");
    }

    /// Starts a broker that has ended; it waits.
    fn return_as_standby(&mut self, number: usize) {
        self.brokers[number].launch();
        self.brokers[number].logged("standby: another broker holds");
    }

    /// Announces what brokers say when something happens to their lock.
    fn announce(&mut self, texts: &[&str]) {
        for broker in &mut self.brokers {
            texts.iter().for_each(|text| broker.announce(text));
        }
    }

    /// A value of the row of the baton.
    fn baton(&self, server: &impl DatabaseServer, column: &str) -> String {
        server.ask(&self.group, &format!("SELECT {column} FROM {{group}}baton"))
    }

    /// Why masterships ended, the first one first; `-`: not yet.
    fn reasons(&self, server: &impl DatabaseServer) -> Vec<String> {
        let reasons = server.ask(&self.group, "SELECT coalesce(reason, '-') FROM {group}tenure ORDER BY token");
        reasons.lines().map(ToOwned::to_owned).collect()
    }

    /// All of it ended, masters last, so that nobody takes over from who ends.
    fn stop(mut self) {
        let (master, _) = self.master();
        for number in (0..self.brokers.len()).filter(|number| *number != master) {
            self.brokers[number].sigterm();
        }
        self.brokers[master].sigterm();
    }
}

/// Tries a list of addresses until there is a broker at one of them, and not at that which is left out.
fn one_that_serves(addresses: &[SocketAddr], not: Option<usize>) -> (usize, Raw) {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let mut others = addresses.iter().enumerate().filter(|(number, _)| Some(*number) != not);
        let connect = |(number, address): (usize, &SocketAddr)| Some((number, Raw::try_connect(*address)?));
        if let Some(master) = others.find_map(connect) {
            return master;
        }
        sleep(CLIENT_POLL);
    }
    panic!("no broker serves");
}

/// Waits for what nobody tells: only the console or the database knows it.
fn wait_for(mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "it does not happen");
        sleep(CLIENT_POLL);
    }
}

/// A lease that a test can wait for.
const LEASE: Duration = Duration::from_secs(2);

fn short_lease(settings: Settings) -> Settings {
    settings.option("election.lease", &format!("\"{}s\"", LEASE.as_secs()))
}

/// What a master says that loses its lock, or may have lost it; and what one says that stands still as it takes over.
const DOUBTS: [&str; 12] = [
    "the take-over takes long",
    "the database has taken",
    "the store takes more than",
    "the lock is in doubt",
    "it is in doubt whether",
    "the outcome of a batch is unknown",
    "the token can't be raised",
    "the term is over",
    "turned a connection away",
    "deadpool.postgres",
    "reads wait until the store can be read again",
    "what was stored before can't be counted",
];
