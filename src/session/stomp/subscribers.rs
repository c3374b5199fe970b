//! What the two sides of a session tell each other of its subscriptions. The reading side adds and removes, the writing
//! side looks up, and notes what the core declined; nobody waits under the lock.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::claims::Claim;
use crate::{
    codec::stomp::{FrameWriter, Verb, Version},
    types::ConsumerNo,
};

/// A session's subscriptions as its writer sees them.
#[derive(Debug, Default)]
pub(in crate::session) struct Subscribers(Mutex<Known>);

/// What is under the lock.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// A subscription that has ended is unknown at once: what is still on its way to it is not written, and the engine,
    /// which has not heard that it was, gives it to others.
    subscribers: HashMap<ConsumerNo, Subscriber, foldhash::fast::RandomState>,
    /// For the reading side; bounded by what a session may have under way.
    declined: Vec<Claim>,
}

impl Known {
    pub(super) fn find(&self, consumer: ConsumerNo) -> Option<&Subscriber> {
        self.subscribers.get(&consumer)
    }

    /// The core declined what the session took for granted.
    pub(super) fn decline(&mut self, claim: Claim) {
        self.declined.push(claim);
    }
}

/// The beginning of each MESSAGE of one subscription.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// Command and the headers that never change, ready to be copied.
    pub(super) beginning: Vec<u8>,
    /// Whether deliveries carry an `ack` header (1.2, unless acknowledged by the broker).
    pub(super) with_ack: bool,
}

impl Subscriber {
    /// `destination` is repeated as the subscriber wrote it.
    pub(super) fn new(version: Version, id: Option<&str>, destination: &str, with_ack: bool) -> Self {
        let mut beginning = Vec::new();
        let mut frame = FrameWriter::begin(&mut beginning, version, Verb::Message);
        if let Some(id) = id {
            frame.header("subscription", id);
        }
        frame.header("destination", destination);
        Self { beginning, with_ack }
    }
}

impl Subscribers {
    pub(super) fn add(&self, consumer: ConsumerNo, subscriber: Subscriber) {
        let before = self.lock().subscribers.insert(consumer, subscriber);
        debug_assert!(before.is_none(), "a consumer's number is never used again");
    }

    pub(super) fn remove(&self, consumer: ConsumerNo) {
        self.lock().subscribers.remove(&consumer);
    }

    pub(super) fn take_declined(&self) -> Vec<Claim> {
        std::mem::take(&mut self.lock().declined)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
