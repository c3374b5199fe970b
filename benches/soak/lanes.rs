//! The kinds of traffic, one lane each, and what is promised for its messages.

use std::{io, thread::Scope, time::Duration};

use crate::{
    kit::{Consumer, Label, Ledger, Subscription, Witness},
    stage::{Chance, Stage},
    workers::{Sizes, Stays, Work, consume, is_poison, produce, return_some, transfer},
};

/// What must not be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Persistent, and held by a queue or a durable subscription.
    Always,
    /// Not persistent: until the broker is killed.
    UntilKilled,
    /// For a plain topic's subscribers: whatever comes while they are there.
    WhileSubscribed,
}

/// The ledgers of all lanes.
pub(crate) struct Lanes {
    orders: Ledger,
    prices_near: Ledger,
    prices_far: Ledger,
    ticks: Ledger,
    more_ticks: Ledger,
    transfers: Ledger,
    returns: Ledger,
    offers: Ledger,
    fleeting: Ledger,
}

const ORDERS: u8 = 0;
const PRICES: u8 = 1;
const TICKS: u8 = 2;
const TRANSFERS: u8 = 3;
const RETURNS: u8 = 4;
const OFFERS: u8 = 5;
const FLEETING: u8 = 6;

/// The options that the lanes need; so little memory that a backlog is paged, and segments so small that a journal that
/// grows shows.
pub(crate) const OPTIONS: &str = "limits.memory_bytes_max = \"64MiB\"
store.segment_bytes = \"8MiB\"
[[redelivery]]
destination = \"soak.returns\"
attempts = 2
delay = \"300ms\"
";

impl Lanes {
    pub(crate) fn new() -> Self {
        Self {
            orders: Ledger::new("orders", ORDERS, 2),
            prices_near: Ledger::new("prices, durable", PRICES, 1),
            prices_far: Ledger::new("prices, durable, often away", PRICES, 1),
            ticks: Ledger::new("ticks", TICKS, 1),
            more_ticks: Ledger::new("ticks, another subscriber", TICKS, 1),
            transfers: Ledger::new("transfers", TRANSFERS, 1),
            returns: Ledger::new("returns", RETURNS, 1),
            offers: Ledger::new("offers", OFFERS, 1),
            fleeting: Ledger::new("fleeting", FLEETING, 1),
        }
    }

    /// All ledgers, with what is promised.
    pub(crate) fn ledgers(&self) -> [(&Ledger, Kept); 9] {
        [
            (&self.orders, Kept::Always),
            (&self.prices_near, Kept::Always),
            (&self.prices_far, Kept::Always),
            (&self.transfers, Kept::Always),
            (&self.returns, Kept::Always),
            (&self.offers, Kept::Always),
            (&self.fleeting, Kept::UntilKilled),
            (&self.ticks, Kept::WhileSubscribed),
            (&self.more_ticks, Kept::WhileSubscribed),
        ]
    }

    pub(crate) fn settled(&self) -> u64 {
        self.ledgers().iter().map(|(ledger, _)| ledger.settled_count()).sum()
    }

    /// What must come still.
    pub(crate) fn missing(&self) -> u64 {
        self.ledgers()
            .iter()
            .filter(|(_, kept)| *kept != Kept::WhileSubscribed)
            .map(|(ledger, _)| ledger.tally().missing)
            .sum()
    }

    /// The broker was killed.
    pub(crate) fn forgive(&self) {
        self.fleeting.forgive();
    }
}

/// What comes from the dead letters.
struct DeadLetters<'a>(&'a Lanes);

impl DeadLetters<'_> {
    fn ledger(&self, label: Label) -> Option<&Ledger> {
        match label.lane {
            RETURNS if is_poison(label) => Some(&self.0.returns),
            OFFERS => Some(&self.0.offers),
            _ => None,
        }
    }
}

impl Witness for DeadLetters<'_> {
    fn delivered(&self, label: Label, is_redelivered: bool) {
        match self.ledger(label) {
            Some(ledger) => ledger.delivered_dead(label, is_redelivered),
            None => self.wrong(format!("{label:?} became a dead letter without a reason")),
        }
    }

    fn acked(&self, labels: &[Label]) {
        for label in labels {
            if let Some(ledger) = self.ledger(*label) {
                ledger.acked(&[*label]);
            }
        }
    }

    fn settled(&self, labels: &[Label]) {
        for label in labels {
            if let Some(ledger) = self.ledger(*label) {
                ledger.settled(&[*label]);
            }
        }
    }

    fn wrong(&self, what: String) {
        self.0.returns.wrong(what);
    }
}

const FAR: &str = "far";
const NEAR: &str = "near";

/// Makes the durable subscriptions, before anything is sent.
pub(crate) fn subscribe_durably(stage: &Stage, lanes: &Lanes) -> io::Result<()> {
    for (name, ledger) in [(NEAR, &lanes.prices_near), (FAR, &lanes.prices_far)] {
        Consumer::subscribe(stage.address, prices(name), ledger)?.leave()?;
    }
    Ok(())
}

/// Starts all clients.
pub(crate) fn spawn<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    stage: &'env Stage,
    lanes: &'env Lanes,
    seed: u64,
) {
    let mut seeds = (0..).map(move |client| Chance::new(seed + client));
    let mut chance = move || seeds.next().unwrap_or(Chance::new(seed));

    for (work, producers) in works(lanes) {
        for number in 0..producers {
            let (work, chance) = (work.clone(), chance());
            scope.spawn(move || produce(stage, &work, number, chance));
        }
    }
    for (subscription, ledger, stays) in subscriptions(lanes) {
        let chance = chance();
        scope.spawn(move || consume(stage, subscription, ledger, stays, chance));
    }
    let dead_letters = queue("/queue/ActiveMQ.DLQ", false);
    let dead_letters_chance = chance();
    scope.spawn(move || consume(stage, dead_letters, &DeadLetters(lanes), Stays::Sometimes, dead_letters_chance));
    let transfer_chance = chance();
    scope.spawn(move || transfer(stage, "/queue/soak.transfers.in", "/queue/soak.transfers.out", transfer_chance));
    let return_chance = chance();
    scope.spawn(move || return_some(stage, "/queue/soak.returns", &lanes.returns, return_chance));
}

/// What is sent, and by how many producers.
fn works(lanes: &Lanes) -> [(Work<'_>, u8); 7] {
    let work = |destination, ledgers: &[_], rate, sizes| Work {
        destination,
        ledgers: ledgers.to_vec(),
        rate,
        sizes,
        is_persistent: true,
        time_to_live: None,
    };
    let passing = |work| Work { is_persistent: false, ..work };
    let orders = work("/queue/soak.orders", &[&lanes.orders], 300, Sizes::Mixed);
    let prices = work(PRICES_TOPIC, &[&lanes.prices_near, &lanes.prices_far], 300, Sizes::Of(500));
    let ticks = work(TICKS_TOPIC, &[&lanes.ticks, &lanes.more_ticks], 500, Sizes::Of(100));
    let transfers = work("/queue/soak.transfers.in", &[&lanes.transfers], 200, Sizes::Of(300));
    let returns = work("/queue/soak.returns", &[&lanes.returns], 100, Sizes::Of(1_000));
    let offers = work("/queue/soak.offers", &[&lanes.offers], 50, Sizes::Of(1_000));
    let fleeting = work("/queue/soak.fleeting", &[&lanes.fleeting], 500, Sizes::Of(2_000));
    [
        (orders, 2),
        (prices, 1),
        (passing(ticks), 1),
        (transfers, 1),
        (returns, 1),
        (Work { time_to_live: Some(Duration::from_secs(1)), ..offers }, 1), // nobody consumes: all become dead letters
        (passing(fleeting), 1),
    ]
}

/// Who consumes; but for those who do something special.
fn subscriptions(lanes: &Lanes) -> Vec<(Subscription<'static>, &Ledger, Stays)> {
    let orders = (queue("/queue/soak.orders", true), &lanes.orders, Stays::Sometimes);
    let fleeting = (queue("/queue/soak.fleeting", true), &lanes.fleeting, Stays::Sometimes);
    let ticks = Subscription { destination: TICKS_TOPIC, ..queue("", true) };
    vec![
        orders,
        orders,
        orders,
        fleeting,
        fleeting,
        (queue("/queue/soak.transfers.out", true), &lanes.transfers, Stays::Sometimes),
        (prices(NEAR), &lanes.prices_near, Stays::Always),
        (prices(FAR), &lanes.prices_far, Stays::Sometimes),
        (ticks, &lanes.ticks, Stays::Always),
        (ticks, &lanes.more_ticks, Stays::Sometimes),
    ]
}

const PRICES_TOPIC: &str = "/topic/soak.prices";
const TICKS_TOPIC: &str = "/topic/soak.ticks";

fn queue(destination: &str, is_ordered: bool) -> Subscription<'_> {
    Subscription { destination, durable: None, prefetch: 100, ack_every: 20, is_ordered }
}

fn prices(name: &str) -> Subscription<'_> {
    Subscription { destination: PRICES_TOPIC, durable: Some(name), prefetch: 100, ack_every: 20, is_ordered: true }
}
