//! What the clients do. Each goes on until the script ends it, and connects again whenever its connection is lost.

use std::{
    collections::VecDeque,
    io, thread,
    time::{Duration, Instant},
};

use crate::{
    kit::{Client, Consumer, Label, Ledger, Outlet, Producer, Subscription, Witness, put_send},
    stage::{Chance, Stage},
};

/// How long a client waits for one message before it looks what the script says.
const LULL: Duration = Duration::from_millis(200);
/// How long a receipt may take.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(60);
/// Messages that a producer sends at once; the last one asks for a receipt.
const BATCH: u16 = 25;
/// A producer stops while so many of its lane wait, so that it is not the backlog that fills the disk.
const WAITING_MAX: u64 = 30_000;

/// What a producer sends.
#[derive(Clone)]
pub(crate) struct Work<'a> {
    pub(crate) destination: &'a str,
    pub(crate) ledgers: Vec<&'a Ledger>,
    /// Messages a second.
    pub(crate) rate: u32,
    pub(crate) sizes: Sizes,
    pub(crate) is_persistent: bool,
    pub(crate) time_to_live: Option<Duration>,
}

/// Sizes of bodies.
#[derive(Clone, Copy)]
pub(crate) enum Sizes {
    Of(usize),
    /// Mostly small, some of some KiB, few of some hundred: 14 KiB on average.
    Mixed,
}

impl Sizes {
    fn draw(self, chance: &mut Chance) -> usize {
        let drawn = |bound, chance: &mut Chance| usize::try_from(chance.below(bound)).unwrap_or_default();
        match self {
            Self::Of(bytes) => bytes,
            Self::Mixed if chance.one_in(20) => (64 << 10) + drawn(400 << 10, chance),
            Self::Mixed if chance.one_in(4) => (4 << 10) + drawn(16 << 10, chance),
            Self::Mixed => 100 + drawn(900, chance),
        }
    }
}

impl Work<'_> {
    fn headers(&self) -> String {
        let persistent = format!("persistent:{}\n", self.is_persistent);
        match self.time_to_live {
            None => persistent,
            Some(time_to_live) => format!("{persistent}expires:{}\n", unix_millis() + time_to_live.as_millis()),
        }
    }

    fn has_too_many_waiting(&self) -> bool {
        let waiting = |ledger: &&Ledger| ledger.confirmed_count().saturating_sub(ledger.settled_count());
        self.is_persistent && self.ledgers.iter().map(waiting).max() > Some(WAITING_MAX)
    }
}

#[expect(clippy::disallowed_methods, reason = "a client tells the broker a time of the calendar")]
fn unix_millis() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

/// A producer of the lane.
pub(crate) fn produce(stage: &Stage, work: &Work<'_>, number: u8, mut chance: Chance) {
    while stage.producers_go_on() {
        if let Err(error) = produce_until_lost(stage, work, number, &mut chance) {
            stage.lost("a producer", &error);
        }
    }
}

fn produce_until_lost(stage: &Stage, work: &Work<'_>, number: u8, chance: &mut Chance) -> io::Result<()> {
    let mut producer = Producer::connect(stage.address, number)?;
    let pace = Duration::from_secs(1) * u32::from(BATCH) / work.rate;
    while stage.producers_go_on() {
        let began = Instant::now();
        if stage.disk_is_full() || !work.has_too_many_waiting() {
            let sizes: Vec<_> = (0..BATCH).map(|_| work.sizes.draw(chance)).collect();
            let headers = work.headers();
            let outlet = Outlet { destination: work.destination, headers: &headers, ledgers: &work.ledgers };
            producer.send(outlet, &sizes)?;
            stage.note_confirmed(producer.confirmed()?);
        }
        thread::sleep(pace.saturating_sub(began.elapsed()));
    }
    Ok(())
}

/// Whether a consumer stays while others are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stays {
    Always,
    Sometimes,
}

/// A consumer that comes and goes.
pub(crate) fn consume(
    stage: &Stage,
    subscription: Subscription<'_>,
    witness: &dyn Witness,
    stays: Stays,
    mut chance: Chance,
) {
    let may_stay = || stays == Stays::Always || !stage.consumers_are_away();
    while stage.consumers_go_on() {
        if !may_stay() {
            thread::sleep(LULL);
            continue;
        }
        if let Err(error) = consume_for_a_while(stage, subscription, witness, may_stay, &mut chance) {
            stage.lost("a consumer", &error);
        }
    }
}

/// Some leave with a word and some without.
fn consume_for_a_while(
    stage: &Stage,
    subscription: Subscription<'_>,
    witness: &dyn Witness,
    may_stay: impl Fn() -> bool,
    chance: &mut Chance,
) -> io::Result<()> {
    let mut consumer = Consumer::subscribe(stage.address, subscription, witness)?;
    let until = Instant::now() + stay(chance);
    while stage.consumers_go_on() && may_stay() && Instant::now() < until {
        consumer.step(LULL)?;
    }
    if chance.one_in(2) { consumer.leave() } else { Ok(()) }
}

/// How long a consumer stays.
fn stay(chance: &mut Chance) -> Duration {
    Duration::from_millis(2_000 + chance.below(8_000))
}

/// What a worker took and has not answered yet.
struct Taken {
    ack_id: String,
    label: Label,
    body: Vec<u8>,
    is_redelivered: bool,
}

/// A client that answers each message on its own.
struct Worker {
    client: Client,
    taken: VecDeque<Taken>,
}

impl Worker {
    fn subscribe(stage: &Stage, queue: &str) -> io::Result<Self> {
        let mut client = Client::connect(stage.address, None)?;
        let headers = format!("id:1\ndestination:{queue}\nack:client-individual\nactivemq.prefetchSize:50\n");
        client.say("SUBSCRIBE", &headers)?;
        Ok(Self { client, taken: VecDeque::new() })
    }

    /// Takes the next frame: keeps a message, gives the id of a receipt.
    fn take(&mut self, patience: Duration) -> io::Result<Took> {
        let Some(frame) = self.client.frame(patience)? else { return Ok(Took::Nothing) };
        if frame.command == "RECEIPT" {
            return Ok(Took::Receipt(frame.header("receipt-id").to_owned()));
        }
        let label = Label::read(frame.body).ok_or(io::ErrorKind::InvalidData)?;
        let (ack_id, body) = (frame.header("ack").to_owned(), frame.body.to_vec());
        self.taken.push_back(Taken { ack_id, label, body, is_redelivered: frame.is_redelivered() });
        Ok(Took::Message)
    }

    fn wait_for_receipt(&mut self) -> io::Result<()> {
        loop {
            match self.take(RECEIPT_PATIENCE)? {
                Took::Receipt(_) => return Ok(()),
                Took::Message => {}
                Took::Nothing => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Took {
    Message,
    Receipt(String),
    Nothing,
}

/// Moves messages from one queue to another in transactions that acknowledge and send; some it aborts first.
pub(crate) fn transfer(stage: &Stage, from: &str, to: &str, mut chance: Chance) {
    while stage.consumers_go_on() {
        if stage.consumers_are_away() {
            thread::sleep(LULL);
        } else if let Err(error) = transfer_for_a_while(stage, from, to, &mut chance) {
            stage.lost("a worker", &error);
        }
    }
}

fn transfer_for_a_while(stage: &Stage, from: &str, to: &str, chance: &mut Chance) -> io::Result<()> {
    const MOST: usize = 10;
    let mut worker = Worker::subscribe(stage, from)?;
    let until = Instant::now() + stay(chance);
    while stage.consumers_go_on() && !stage.consumers_are_away() && Instant::now() < until {
        while worker.taken.len() < MOST && worker.take(LULL)? == Took::Message {}
        let taken: Vec<_> = worker.taken.drain(..worker.taken.len().min(MOST)).collect();
        if taken.is_empty() {
            continue;
        }
        if chance.one_in(8) {
            worker.client.write(&transaction(&taken, to, "ABORT"))?;
        }
        worker.client.write(&transaction(&taken, to, "COMMIT"))?;
        worker.wait_for_receipt()?;
    }
    Ok(())
}

/// The whole transaction; only a COMMIT asks for a receipt.
fn transaction(taken: &[Taken], to: &str, end: &str) -> Vec<u8> {
    let mut out = b"BEGIN\ntransaction:t\n\n\0".to_vec();
    for Taken { ack_id, body, .. } in taken {
        out.extend_from_slice(format!("ACK\nid:{ack_id}\ntransaction:t\n\n\0").as_bytes());
        put_send(&mut out, to, "persistent:true\ntransaction:t\n", body.len(), |out| out.extend_from_slice(body));
    }
    let receipt = if end == "COMMIT" { "receipt:t\n" } else { "" };
    out.extend_from_slice(format!("{end}\ntransaction:t\n{receipt}\n\0").as_bytes());
    out
}

/// Whether a message is given back until it is a dead letter.
pub(crate) fn is_poison(label: Label) -> bool {
    label.number % 50 == 7
}

/// Whether a message is given back once.
fn is_refused_once(label: Label) -> bool {
    label.number % 10 == 3
}

/// Gives some messages back with NACK: some once, some always.
pub(crate) fn return_some(stage: &Stage, queue: &str, ledger: &Ledger, mut chance: Chance) {
    while stage.consumers_go_on() {
        if stage.consumers_are_away() {
            thread::sleep(LULL);
        } else if let Err(error) = return_some_for_a_while(stage, queue, ledger, &mut chance) {
            stage.lost("a worker", &error);
        }
    }
}

fn return_some_for_a_while(stage: &Stage, queue: &str, ledger: &Ledger, chance: &mut Chance) -> io::Result<()> {
    let mut worker = Worker::subscribe(stage, queue)?;
    let until = Instant::now() + stay(chance);
    // Receipts come in the order of the ACKs.
    let mut unconfirmed = VecDeque::new();
    while stage.consumers_go_on() && !stage.consumers_are_away() && Instant::now() < until {
        if let Took::Receipt(_) = worker.take(LULL)? {
            ledger.settled(unconfirmed.pop_front().as_slice());
        }
        while let Some(taken) = worker.taken.pop_front() {
            let Taken { ack_id, label, is_redelivered, .. } = taken;
            ledger.delivered(label, is_redelivered);
            if is_poison(label) || (is_refused_once(label) && !is_redelivered) {
                worker.client.say("NACK", &format!("id:{ack_id}\n"))?;
            } else {
                ledger.acked(&[label]);
                worker.client.say("ACK", &format!("id:{ack_id}\nreceipt:{ack_id}\n"))?;
                unconfirmed.push_back(label);
            }
        }
    }
    Ok(())
}
