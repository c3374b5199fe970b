//! A broker whose spool fails, at any call to the disk (R32): it goes on serving, and everything that was sent arrives
//! once, whole and in order. Here time is not paused: the spool has a thread.

use std::{io, path::Path, sync::Arc, time::Duration};

use batonmq::{
    broker::{Command, Request},
    persistence::{SpoolAdapter, journal::JournalOptions},
    types::{Charge, Destination, MessageDraft, Meter},
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    broker::{Broker, Client, ack, asking, options, send, send_draft},
    store::{PATIENCE, Store},
};
use crate::harness::{Fault, FaultyDisk, Moment, Rng};

const MESSAGES: u32 = 40;
const SEGMENT_BYTES: u64 = 24 << 10;
const MEMORY_BYTES: usize = 1 << 20;

/// So many brokers meet their fault at a time.
const AT_ONCE: u64 = 64;

/// A broker whose memory is scarce, and not full: what is not persistent is spooled.
struct Spooling {
    broker: Broker,
    store: Store,
    meter: Meter,
    _scarce: Charge,
}

impl Spooling {
    async fn start(disk: &FaultyDisk) -> Self {
        let journal = JournalOptions {
            disk: Arc::new(disk.clone()),
            segment_bytes: SEGMENT_BYTES,
            fill_in_background: false,
            ..SpoolAdapter::options()
        };
        let spool = SpoolAdapter::open(Path::new("/data"), journal);
        let (store, meter) = (Store::default(), Meter::new(MEMORY_BYTES));
        let scarce = meter.charge(600 << 10);
        let broker = Broker::start_on(store.clone(), spool, options(), meter.clone()).await;
        Self { broker, store, meter, _scarce: scarce }
    }

    /// A body of 3 KB that no other message has; every fifth message is persistent.
    fn send(&self, number: u32) -> Request {
        let persistent = number.is_multiple_of(5);
        let draft = MessageDraft {
            id: id(number).as_str().into(),
            body: body(number).into(),
            persistent,
            ..MessageDraft::default()
        };
        let request = send_draft(Destination::queue("q"), draft, None);
        if let Command::Send(send) = &request.command {
            send.message.charge(&self.meter);
        }
        asking("sent", request)
    }

    async fn fill(&self, numbers: std::ops::Range<u32>) {
        let mut producer = self.broker.client().await;
        for number in numbers {
            producer.submit([self.send(number)]).await;
            producer.gets_receipts(&["sent"]).await;
        }
        producer.link.close().await;
    }

    async fn drain(&self, numbers: std::ops::Range<u32>) {
        let mut consumer = self.broker.client().await;
        consumer.subscribe(1, "q").await;
        for number in numbers {
            let delivery = consumer.gets(&id(number)).await;
            assert!(delivery.message.body == body(number), "message {number} is whole");
            consumer.submit([ack(&delivery)]).await;
        }
        consumer.gets_nothing().await;
        consumer.link.close().await;
    }

    /// Somebody whom none of this concerns.
    async fn serves(&self) {
        let mut other: Client = self.broker.client().await;
        other.subscribe(1, "other").await;
        other.submit([asking("stored", send("other", "m"))]).await;
        let delivery = other.gets("m").await;
        other.gets_receipts(&["stored"]).await;
        other.submit([asking("done", ack(&delivery))]).await;
        other.gets_receipts(&["done"]).await;
        other.link.close().await;
    }

    /// So many bytes more are written to the spool.
    async fn has_spooled(&self, disk: &FaultyDisk, bytes: u64) {
        let before = disk.bytes_written();
        let written = async {
            while disk.bytes_written() < before + bytes {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, written).await.expect("what is sent is spooled");
    }

    async fn stop(mut self) {
        self.broker.stop.cancel();
        self.broker.ended().await.unwrap();
        self.broker.closed().await.unwrap();
        assert!(self.store.ids().is_empty(), "{:?}", self.store.ids());
    }
}

fn id(number: u32) -> String {
    format!("m{number}")
}

fn body(number: u32) -> Vec<u8> {
    format!("{number:03} ").repeat(3_000 / 4).into_bytes()
}

/// From the first message to a polite end on a disk that meets this fault.
async fn live_through(fault: Fault, seed: u64) -> u64 {
    let disk = FaultyDisk::new(fault, seed);
    let spooling = Spooling::start(&disk).await;
    for first in [0, MESSAGES] {
        spooling.fill(first..first + MESSAGES).await;
        if let Fault::FailFrom(_) = fault {
            spooling.serves().await;
            disk.clone().with_fault(Fault::Never); // what was spooled can be read again
        }
        spooling.drain(first..first + MESSAGES).await;
    }
    spooling.serves().await;
    spooling.stop().await;
    disk.calls()
}

async fn assert_serves_through(fault: fn(u64) -> Fault) {
    let seed = Rng::from_env().seed();
    let calls = live_through(Fault::Never, seed).await;
    assert!(calls > 15, "{calls} calls"); // a busy machine spools more at once
    let mut lives = JoinSet::new();
    for call in 0..calls + AT_ONCE {
        if call >= AT_ONCE {
            lives.join_next().await.unwrap().unwrap();
        }
        if call < calls {
            lives.spawn(live_through(fault(call), seed ^ call));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r32_a_broker_serves_through_a_failure_of_every_call_of_its_spool() {
    assert_serves_through(|call| Fault::Fail(call, Moment::Before, io::ErrorKind::Other)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r32_a_broker_serves_through_a_short_write_at_every_call_of_its_spool() {
    assert_serves_through(|call| Fault::Fail(call, Moment::Halfway, io::ErrorKind::Other)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r32_a_broker_serves_through_a_full_disk_at_every_call_of_its_spool() {
    assert_serves_through(|call| Fault::Fail(call, Moment::Halfway, io::ErrorKind::StorageFull)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r32_a_broker_serves_while_its_spool_fails_from_any_call_on() {
    assert_serves_through(Fault::FailFrom).await;
}

/// What is settled goes ahead of what finds no room: else nothing would ever make room again.
#[tokio::test(flavor = "multi_thread")]
async fn r32_a_full_spool_has_room_again_when_its_messages_were_consumed() {
    let disk = FaultyDisk::new(Fault::Never, 1);
    disk.limit(Some(6 * SEGMENT_BYTES));
    let spooling = Spooling::start(&disk).await;
    spooling.fill(0..100).await;
    spooling.serves().await;
    spooling.drain(0..100).await;
    tokio::join!(spooling.has_spooled(&disk, 16 * 3_000), spooling.fill(100..120));
    spooling.drain(100..120).await;
    spooling.stop().await;
}
