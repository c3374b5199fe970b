//! Everything at once, from one seed: processes, their database, clients, and what goes wrong.
//!
//! A step lets some time pass, lets processes and statements go on in any order, and now and then breaks something. At
//! each take-over and at the end the ledger is held against what the database has.

use std::{sync::Arc, time::Duration};

use batonmq::{
    broker::CoreOptions,
    config::{Limits, RedeliveryPolicy},
    types::{Broken, Footing, Rule},
};

use super::{
    client::{CLIENTS, Client, Habits, RIVALS, Standing},
    database::{Database, Server, Weakness},
    ledger::{Ledger, QUEUES},
    process::{Process, Serving, Setup, Strategy},
};
use crate::{engine::broker::options, harness::Rng};

/// So many steps things go wrong.
const STEPS: usize = 500;

/// What a broker may use. Unit: bytes.
const MEMORY: usize = 4 << 20;

/// If so much of it is taken, what is durable and waits leaves memory; with more of it there is soon none at all.
/// Unit: bytes.
const SCARCE_FROM: &[usize] = &[3_300 << 10, 4_000 << 10];

/// How much time passes in a step, in a database that is quick. Unit: milliseconds.
const FAST: &[u64] = &[0, 0, 1, 1, 2, 5, 20];

/// So many steps everything has to be delivered in afterwards.
const CALM_STEPS_MAX: usize = 3_000;

/// Nobody has anything to do for so long: longer than four reads are waited for, each on a session that is dead.
const CALM_MILLIS: u64 = 26_000;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    /// The broker's part of a rule.
    Rule(Rule),
    /// The database's.
    Database(Weakness),
    /// Whoever writes to a socket does not ask for the lease (R24).
    LeaseIgnored,
    /// Nor waits until it is written, before it says so (R3).
    WrittenTooEarly,
}

/// What happened in a run, or in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    receipts: u64,
    deliveries: u64,
    commits: u64,
    pages: u64,
    take_overs: u64,
    /// Unit: milliseconds.
    time: u64,
}

impl Outcome {
    pub(super) fn add(&mut self, other: Self) {
        self.receipts += other.receipts;
        self.deliveries += other.deliveries;
        self.commits += other.commits;
        self.pages += other.pages;
        self.take_overs += other.take_overs;
        self.time += other.time;
    }

    /// Whether enough has happened in so many runs to prove something.
    pub(super) fn is_eventful(&self, runs: u64) -> bool {
        let often = 20 * runs;
        self.take_overs > runs && [self.receipts, self.deliveries, self.pages].into_iter().all(|count| count > often)
    }
}

/// What a seed lets go wrong: only some of it, so that each gets its turn without the others.
#[derive(Clone, Copy, Debug)]
struct Faults {
    crashes: bool,
    freezes: bool,
    cuts: bool,
    ends: bool,
    restarts: bool,
    fills: bool,
    again: bool,
    stalls: bool,
    /// The standby is away now and then, and takes the database's place.
    fails_over: bool,
    /// An older copy is put back.
    goes_back: bool,
}

pub(super) struct World {
    seed: Rng,
    pub(super) now: u64,
    pub(super) database: Database,
    pub(super) processes: Vec<Process>,
    pub(super) clients: Vec<Client>,
    pub(super) ledger: Ledger,
    setup: Setup,
    faults: Faults,
    prefetch: u32,
    /// A client leaves every so many times that it acts.
    leaves: usize,
    /// Who acts.
    active: &'static [usize],
    /// How much time passes in a step while somebody is served. Unit: milliseconds.
    pace: &'static [u64],
    lease_ignored: bool,
    written_too_early: bool,
    instances: u64,
    take_overs: usize,
    /// Nothing goes wrong any more.
    is_calm: bool,
}

/// One run; panics when a promise is broken.
pub(super) fn run(seed: u64, mutation: Option<Mutation>) -> Outcome {
    let mut world = World::new(seed, None, mutation);
    for _ in 0..STEPS {
        world.disturb();
        world.step();
    }
    world.calm();
    world.outcome()
}

impl World {
    /// In which nothing goes wrong by itself.
    pub(super) fn of(seed: u64, strategy: Strategy, mutation: Option<Mutation>) -> Self {
        Self::new(seed, Some(strategy), mutation)
    }

    fn new(seed: u64, strategy: Option<Strategy>, mutation: Option<Mutation>) -> Self {
        let mut seed = Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut flag = |times| seed.one_in(times);
        let faults = Faults {
            crashes: flag(2),
            freezes: flag(2),
            cuts: flag(3),
            ends: flag(3),
            restarts: flag(4),
            fills: flag(4),
            again: flag(4),
            stalls: flag(2),
            fails_over: flag(4),
            goes_back: flag(8),
        };
        let few = flag(4);
        let is_scarce = flag(2);
        let habits = Habits {
            only_first_queue: few,
            store_may_fill: faults.fills || is_scarce,
            automatic: flag(3),
            messages_expire: flag(3),
            purge: flag(4),
            unsubscribe: flag(4),
        };
        let drawn = if flag(3) { Strategy::Lease } else { Strategy::SessionLock };
        let setup = Setup {
            strategy: strategy.unwrap_or(drawn),
            options: core_options(mutation),
            memory_taken: if is_scarce { seed.pick(SCARCE_FROM) } else { 0 },
            page_max: seed.pick(&[2, 2, 100]),
        };
        let database = Database::default();
        if let Some(Mutation::Database(weakness)) = mutation {
            database.server().weakness = Some(weakness);
        }
        let clients = (0..CLIENTS).map(|number| Client::new(number, habits)).collect();
        let mut world = Self {
            now: 1_000,
            database,
            processes: Vec::new(),
            clients,
            ledger: Ledger::default(),
            setup,
            faults,
            pace: seed.pick(&[FAST, &[0, 1, 5, 20, 50, 150]]),
            active: if few { RIVALS } else { &[0, 1, 2, 3, 4, 5, 6] },
            leaves: seed.pick(&[8, 60]),
            prefetch: if is_scarce { seed.pick(&[1, 3, 8]) } else { seed.pick(&[1, 3, 100]) },
            lease_ignored: mutation == Some(Mutation::LeaseIgnored),
            written_too_early: mutation == Some(Mutation::WrittenTooEarly),
            instances: 0,
            take_overs: 0,
            is_calm: false,
            seed,
        };
        for number in 0..2 + world.seed.below(2) {
            let process = world.start(number);
            world.processes.push(process);
        }
        world
    }

    fn start(&mut self, number: usize) -> Process {
        self.instances += 1;
        Process::start(&self.database, number, self.instances, self.setup.clone(), self.now)
    }

    /// Some time passes, and everybody may go on.
    pub(super) fn step(&mut self) {
        let is_served = (0..self.clients.len()).any(|client| self.is_served(client));
        let passes = self.seed.pick(if is_served { self.pace } else { &[1, 20, 100] });
        self.pass(passes);
        for process in self.shuffled(self.processes.len()) {
            if passes >= 20 || self.processes[process].serving().is_some() || self.seed.one_in(3) {
                self.run_process(process);
            }
        }
        let busy = self.database.server().busy();
        let most = if self.is_calm { &[8][..] } else { &[0, 1, 1, 2, 4] };
        for session in busy {
            for _ in 0..self.seed.pick(most) {
                self.database.server().step(session);
            }
        }
        self.see_take_overs();
        for process in self.shuffled(self.processes.len()) {
            if !self.seed.one_in(3) {
                self.let_leave(process);
            }
        }
        self.clients.iter_mut().for_each(|client| client.hear_of_purge(&mut self.ledger));
        let client = self.seed.pick(self.active);
        self.act(client);
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.ledger.now = self.now;
        self.database.server().advance(self.now);
        for process in &mut self.processes {
            process.frozen_until.take_if(|until| *until <= self.now);
        }
    }

    fn run_process(&mut self, process: usize) {
        let process = &mut self.processes[process];
        if process.frozen_until.is_none() {
            process.run(self.now);
        }
    }

    fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            order.swap(at, self.seed.below(at + 1));
        }
        order
    }

    /// Who takes over has waited for what was being written: nothing can follow that was promised before.
    fn see_take_overs(&mut self) {
        let server = self.database.server();
        if server.take_overs.len() != self.take_overs {
            self.take_overs = server.take_overs.len();
            self.ledger.is_kept_by(&server);
        }
    }

    /// What a process has for its clients leaves it, if it may; as `session/connection.rs` does it (R24).
    fn let_leave(&mut self, number: usize) {
        let process = &self.processes[number];
        let serving = process.serving();
        let is_frozen = process.frozen_until.is_some();
        for client in &mut self.clients {
            let Some(connection) = client.connection.as_mut().filter(|connection| connection.process == number) else {
                continue;
            };
            let Some(serving) = serving.as_ref().filter(|serving| serving.tenure == connection.tenure) else {
                client.connection = None; // its term is over
                continue;
            };
            if is_frozen {
                continue;
            }
            client.take_in_hand(&serving.mandate, self.written_too_early);
            if (self.lease_ignored || serving.mandate.holds()) && !self.seed.one_in(8) {
                let server = self.database.server();
                client.hear(standing(&server, serving), &mut self.ledger, &server);
            }
        }
    }

    fn act(&mut self, client: usize) {
        if self.clients[client].connection.is_none() {
            return self.connect(client);
        }
        let tenure = self.clients[client].connection.as_ref().map(|connection| connection.tenure.term);
        self.ledger.speaks_to_master = tenure == Some(self.database.server().tenure().term);
        if (!self.clients[client].only_consumes && self.seed.one_in(self.leaves))
            || (!self.is_served(client) && self.seed.one_in(20))
        {
            return self.leave(client);
        }
        if self.now < self.clients[client].rests_until && !self.is_calm {
            return;
        }
        if self.seed.one_in(15) {
            self.clients[client].rests_until = self.now + self.seed.pick(&[100, 300, 1_500]);
        }
        self.clients[client].act(&mut self.seed, &mut self.ledger);
    }

    /// Often right after an answer or two, and now and then for a while.
    fn leave(&mut self, client: usize) {
        for _ in 0..self.seed.below(3) {
            self.clients[client].answer(&mut self.seed, &mut self.ledger);
        }
        self.clients[client].away_until = self.now + self.seed.pick(&[0, 0, 1_500, 3_000]);
        self.clients[client].leave();
    }

    fn is_served(&self, client: usize) -> bool {
        let process = self.clients[client].connection.as_ref().map(|connection| connection.process);
        process.is_some_and(|process| self.processes[process].frozen_until.is_none())
    }

    fn connect(&mut self, client: usize) {
        let open: Vec<(usize, Serving)> = self.processes.iter().filter_map(open_door).collect();
        if open.is_empty() || self.now < self.clients[client].away_until {
            return;
        }
        let (process, serving) = &open[self.seed.below(open.len())];
        let since = self.ledger.next_moment();
        self.clients[client].connect(&mut self.seed, *process, serving, self.prefetch, since);
    }

    /// Breaks something, now and then.
    fn disturb(&mut self) {
        if !self.seed.one_in(12) {
            return;
        }
        let number = self.seed.below(self.processes.len());
        match self.seed.below(12) {
            0 if self.faults.crashes => self.crash(number),
            1 if self.faults.freezes => {
                let most = self.seed.pick(&[100, 1_200, 2_500, 6_000]);
                self.freeze(number, most);
            }
            2 if self.faults.cuts => {
                let mut server = self.database.server();
                let sessions = server.sessions_of(Some(number));
                for session in sessions {
                    match self.seed.below(4) {
                        0 | 1 => {}
                        2 => server.cut(session),
                        _ => server.lose(session, self.seed.pick(&[0, 50, 400, 1_500])),
                    }
                }
            }
            3 if self.faults.cuts => drop(self.database.server().cut_off.insert(number)),
            4 if self.faults.ends => {
                let mut server = self.database.server();
                let sessions = server.sessions_of(Some(number));
                sessions.into_iter().filter(|_| self.seed.one_in(2)).for_each(|session| server.end_session(session));
            }
            5 if self.faults.restarts => {
                let mut server = self.database.server();
                server.restart();
                server.is_down = self.seed.one_in(2);
            }
            6 if self.faults.fills => {
                let mut server = self.database.server();
                server.is_full = !server.is_full;
            }
            8 if self.faults.stalls => {
                let mut server = self.database.server();
                for session in server.busy() {
                    if self.seed.one_in(2) {
                        server.stall(session, self.seed.pick(&[50, 400, 3_000, 8_000]));
                    }
                }
            }
            7 if self.faults.again => self.database.server().again += 1,
            9 if self.faults.fails_over => self.fail_over(),
            10 if self.faults.goes_back => self.database.server().back_up(),
            11 if self.faults.goes_back => self.go_back(),
            _ => {
                let mut server = self.database.server();
                server.is_down = false;
                server.standby_returns();
                server.cut_off.clear();
            }
        }
    }

    /// The standby goes away; who waits for it may not want to any more; it takes the database's place.
    fn fail_over(&mut self) {
        let mut server = self.database.server();
        match self.seed.below(3) {
            0 => server.standby_is_away = true,
            1 => server.cancels += 1,
            _ => server.fail_over(),
        }
    }

    /// An older copy is put back: what was promised since is lost, and what is promised from now on is not.
    fn go_back(&mut self) {
        if self.database.server().put_back() {
            self.ledger.forget();
            self.clients.iter_mut().for_each(Client::forget_promises);
        }
    }

    /// kill -9, and a start.
    pub(super) fn crash(&mut self, number: usize) {
        self.processes[number] = self.start(number);
        self.hang_up(number);
    }

    /// Nothing passes any more on the sessions of a process.
    pub(super) fn cut(&mut self, process: usize) {
        let mut server = self.database.server();
        server.sessions_of(Some(process)).into_iter().for_each(|session| server.cut(session));
    }

    fn hang_up(&mut self, process: usize) {
        let is_there =
            |client: &&mut Client| client.connection.as_ref().is_some_and(|connection| connection.process == process);
        self.clients.iter_mut().filter(is_there).for_each(|client| client.connection = None);
    }

    pub(super) fn freeze(&mut self, process: usize, millis: u64) {
        self.processes[process].frozen_until = Some(self.now + millis);
    }

    /// Nothing goes wrong any more: everything is delivered in the terms that are, and nothing else is left.
    pub(super) fn calm(&mut self) {
        (self.is_calm, self.pace) = (true, FAST);
        {
            let mut server = self.database.server();
            (server.is_full, server.is_down, server.again) = (false, false, 0);
            server.standby_returns();
            server.cut_off.clear();
        }
        for client in &mut self.clients {
            client.only_consumes = true;
        }
        let mut steps = 0;
        let mut quiet_since = self.now;
        while self.now - quiet_since < CALM_MILLIS {
            assert!(steps < CALM_STEPS_MAX, "it does not come to rest");
            steps += 1;
            self.step();
            (0..self.clients.len()).for_each(|client| self.act(client));
            if !self.is_quiet() {
                quiet_since = self.now;
            }
            self.pass(if quiet_since < self.now { 200 } else { 20 });
        }
        let server = self.database.server();
        self.ledger.is_kept_by(&server);
        self.ledger.is_empty_with(&server);
        drop(server);
        for client in &self.clients {
            let awaited = client.connection.as_ref().map_or(0, |connection| connection.awaited.len());
            assert_eq!(awaited, 0, "every frame is answered in the end");
        }
    }

    fn outcome(&self) -> Outcome {
        let server = self.database.server();
        let (receipts, deliveries) = (self.ledger.receipts, self.ledger.deliveries);
        let take_overs = server.take_overs.len() as u64;
        Outcome { receipts, deliveries, commits: server.version, pages: server.pages, take_overs, time: self.now }
    }

    /// Every client is connected to a master that has no doubts, has nothing and waits for nothing.
    fn is_quiet(&self) -> bool {
        let term = self.database.server().tenure().term;
        let is_served = |client: &Client| {
            client.connection.as_ref().is_some_and(|connection| {
                open_door(&self.processes[connection.process]).is_some() && connection.tenure.term == term
            })
        };
        self.clients.iter().all(|client| is_served(client) && client.is_quiet())
    }
}

/// A process that serves and does not know better.
fn open_door(process: &Process) -> Option<(usize, Serving)> {
    let serving = process.serving().filter(|_| process.frozen_until.is_none())?;
    (serving.mandate.footing() == Footing::Firm).then_some((process.number, serving))
}

fn standing(server: &Server, serving: &Serving) -> Standing {
    match server.take_overs.iter().find(|take_over| take_over.tenure.term > serving.tenure.term) {
        _ if server.timeline != serving.timeline => Standing::OfThePast,
        None => Standing::Master,
        Some(take_over) if take_over.was_foreseen => Standing::Deposed,
        Some(_) => Standing::Unaware,
    }
}

/// What is rejected comes back to the first queue once; from the second it is dead at once.
fn core_options(mutation: Option<Mutation>) -> CoreOptions {
    let policy = RedeliveryPolicy {
        destination: QUEUES[0].to_owned(),
        attempts: 2,
        delay: Duration::from_millis(5),
        ..RedeliveryPolicy::default()
    };
    let broken = match mutation {
        Some(Mutation::Rule(rule)) => Broken::on_purpose(rule),
        _ => Broken::default(),
    };
    let limits = Limits { memory_bytes_max: MEMORY, ..Limits::default() };
    CoreOptions { limits, redelivery: vec![Arc::new(policy)], broken, ..options() }
}
