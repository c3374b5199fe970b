//! A producer and a consumer that go on whoever the master is, and what can be said of them at the end.
//!
//! The producer sends 0, 1, 2, …, each until it is confirmed; so one whose receipt was lost may be there twice. The
//! consumer acknowledges what comes, each until that is confirmed or the connection is lost.

use std::{
    collections::{BTreeSet, HashSet},
    convert::Infallible,
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::client::{Client, Message};

const QUEUE: &str = "/queue/demo";

/// A slow producer, so that everybody can follow.
const PAUSE: Duration = Duration::from_millis(1);

/// How far the producer has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Which broker serves it.
    pub(super) broker: usize,
    /// When that one confirmed something first.
    pub(super) since: Instant,
    /// How many messages were confirmed.
    pub(super) confirmed: u64,
}

/// What was promised and not kept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("message {0} was acknowledged, and that was confirmed, and it came again")]
    CameBack(u64),
    #[error("message {1} came behind {0}, and was not marked as redelivered")]
    OutOfOrder(u64, u64),
    #[error("a message came that nobody sent: {0:?}")]
    Strange(String),
}

/// Sends until it is dropped, and tells how far it has come.
pub(super) async fn produce(brokers: Vec<SocketAddr>, progress: watch::Sender<Option<Progress>>) -> Infallible {
    let mut confirmed = 0;
    loop {
        let (broker, mut client) = Client::connect(&brokers).await;
        let mut since = None;
        while client.send(QUEUE, &confirmed.to_string()).await.is_ok() {
            confirmed += 1;
            let since = *since.get_or_insert_with(Instant::now);
            progress.send_replace(Some(Progress { broker, since, confirmed }));
            sleep(PAUSE).await;
        }
    }
}

/// What the consumer saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    numbers: BTreeSet<u64>,
    acknowledged: HashSet<String>,
    last: Option<u64>,
    redelivered: u64,
}

impl Seen {
    /// How many of the first `confirmed` messages never came.
    pub(super) fn missing(&self, confirmed: u64) -> u64 {
        confirmed - self.numbers.range(..confirmed).count() as u64
    }

    /// How many ACKs were confirmed.
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// How many messages came once more, and said so.
    pub(super) fn redelivered(&self) -> u64 {
        self.redelivered
    }

    fn acknowledge(&mut self, id: String) {
        self.acknowledged.insert(id);
    }

    fn take(&mut self, message: &Message) -> Result<(), Broken> {
        let number = message.body.parse().map_err(|_| Broken::Strange(message.body.clone()))?;
        if self.acknowledged.contains(&message.id) {
            return Err(Broken::CameBack(number));
        }
        if message.redelivered {
            self.redelivered += 1;
        } else if let Some(last) = self.last.replace(number).filter(|last| *last > number) {
            return Err(Broken::OutOfOrder(last, number));
        }
        self.numbers.insert(number);
        Ok(())
    }
}

/// Takes and acknowledges what comes, until it is dropped or a promise is broken.
pub(super) async fn consume(brokers: Vec<SocketAddr>, seen: watch::Sender<Seen>) -> Broken {
    loop {
        let (_, mut client) = Client::connect(&brokers).await;
        if client.subscribe(QUEUE).await.is_err() {
            continue;
        }
        while let Ok(message) = client.next().await {
            let mut taken = Ok(());
            seen.send_modify(|seen| taken = seen.take(&message));
            if let Err(broken) = taken {
                return broken;
            }
            if client.ack(&message).await.is_err() {
                break;
            }
            seen.send_modify(|seen| seen.acknowledge(message.id));
        }
    }
}
