//! One subscription of a session: its credit, and what it has been given and not settled.
//!
//! Always true: deliveries lie in the order of their tags; `unsettled` of them are still held; what a transaction
//! acknowledged is not here but with the transaction, until that ends.

use std::collections::VecDeque;

use super::{AckMode, AckTarget, QueueKey, entry::Entry};
use crate::types::{ConsumerNo, DeliveryTag, SessionId};

/// Room for deliveries that is kept while there are none.
const ROOM_KEPT_MAX: usize = 16;

/// One delivery that is not settled.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) tag: DeliveryTag,
    pub(super) entry: Entry,
}

/// A consumer and its deliveries.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) session: SessionId,
    pub(super) number: ConsumerNo,
    pub(super) queue: QueueKey,
    pub(super) ack: AckMode,
    pub(super) priority: u8,
    /// Whether it waits for its turn, at its queue or for its session's outbox.
    pub(super) waiting: bool,
    /// Whether it is among those that wait for memory.
    pub(super) starves: bool,
    prefetch: usize,
    last_tag: DeliveryTag,
    /// Settled ones leave a hole, so that settling out of order stays cheap.
    deliveries: VecDeque<(DeliveryTag, Option<Entry>)>,
    unsettled: usize,
}

impl Consumer {
    pub(super) fn new(session: SessionId, queue: QueueKey, subscribe: &super::Subscribe) -> Self {
        Self {
            session,
            number: subscribe.consumer,
            queue,
            ack: subscribe.ack,
            priority: subscribe.priority,
            waiting: false,
            starves: false,
            prefetch: usize::try_from(subscribe.prefetch).unwrap_or(usize::MAX).max(1),
            last_tag: DeliveryTag(0),
            deliveries: VecDeque::new(),
            unsettled: 0,
        }
    }

    /// Whether another delivery fits its prefetch.
    pub(super) fn has_credit(&self) -> bool {
        self.unsettled < self.prefetch
    }

    /// Whether it holds a delivery.
    pub(super) fn has_unsettled(&self) -> bool {
        self.unsettled > 0
    }

    /// How many deliveries it holds.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Keeps a delivery until it is settled; its tag.
    pub(super) fn hold(&mut self, entry: Entry) -> DeliveryTag {
        self.last_tag = DeliveryTag(self.last_tag.0 + 1);
        self.deliveries.push_back((self.last_tag, Some(entry)));
        self.unsettled += 1;
        self.last_tag
    }

    /// The delivery that a client names, if it is held.
    pub(super) fn find(&self, target: &AckTarget) -> Option<DeliveryTag> {
        match target {
            AckTarget::Tag { tag, .. } => {
                let at = self.position(*tag)?;
                self.deliveries.get(at)?.1.as_ref().map(|_| *tag)
            }
            AckTarget::MessageId { id, .. } => self
                .deliveries
                .iter()
                .find(|(_, entry)| entry.as_ref().is_some_and(|entry| entry.message.id == *id))
                .map(|(tag, _)| *tag),
        }
    }

    /// Takes one delivery out.
    pub(super) fn take(&mut self, tag: DeliveryTag) -> Option<InFlight> {
        let at = self.position(tag)?;
        let entry = self.deliveries.get_mut(at)?.1.take()?;
        self.unsettled -= 1;
        self.close_holes();
        Some(InFlight { tag, entry })
    }

    /// Takes out the oldest delivery if its tag is at most `upto`: an ACK's reach is drained one by one.
    pub(super) fn take_first(&mut self, upto: DeliveryTag) -> Option<InFlight> {
        while let Some((tag, _)) = self.deliveries.front() {
            if *tag > upto {
                return None;
            }
            let (tag, entry) = self.deliveries.pop_front()?;
            if let Some(entry) = entry {
                self.unsettled -= 1;
                self.give_room_back();
                return Some(InFlight { tag, entry });
            }
        }
        None
    }

    /// Puts a delivery back that an aborted transaction had taken.
    pub(super) fn put_back(&mut self, in_flight: InFlight) {
        self.unsettled += 1;
        match self.deliveries.binary_search_by_key(&in_flight.tag, |(tag, _)| *tag) {
            Ok(at) => {
                if let Some((_, hole)) = self.deliveries.get_mut(at) {
                    *hole = Some(in_flight.entry);
                }
            }
            Err(at) => self.deliveries.insert(at, (in_flight.tag, Some(in_flight.entry))),
        }
    }

    /// A delivery's entry, if it is held.
    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.deliveries.iter_mut().filter_map(|(_, entry)| entry.as_mut())
    }

    /// The last tag that was given.
    pub(super) fn last_tag(&self) -> DeliveryTag {
        self.last_tag
    }

    fn position(&self, tag: DeliveryTag) -> Option<usize> {
        self.deliveries.binary_search_by_key(&tag, |(tag, _)| *tag).ok()
    }

    /// Holes in front go at once; when most of the rest is holes, all go, so that they never outnumber what is held.
    fn close_holes(&mut self) {
        while matches!(self.deliveries.front(), Some((_, None))) {
            self.deliveries.pop_front();
        }
        if self.deliveries.len() > 2 * self.unsettled + 16 {
            self.deliveries.retain(|(_, entry)| entry.is_some());
        }
        self.give_room_back();
    }

    /// Idle consumers are many.
    fn give_room_back(&mut self) {
        if self.unsettled == 0 {
            self.deliveries.shrink_to(ROOM_KEPT_MAX);
        }
    }

    /// Panics if an invariant of this module does not hold.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        assert_eq!(self.unsettled, self.deliveries.iter().filter(|(_, entry)| entry.is_some()).count());
        assert!(self.deliveries.iter().is_sorted_by_key(|(tag, _)| *tag));
        assert!(self.deliveries.len() <= 2 * self.unsettled + 17, "holes are bounded");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        broker::Subscribe,
        types::{Destination, Message, MessageDraft, Sequence, Term, Timestamp},
    };

    fn consumer(prefetch: u32) -> Consumer {
        let subscribe = Subscribe {
            consumer: ConsumerNo(1),
            destination: Destination::queue("orders"),
            ack: AckMode::Individual,
            prefetch,
            priority: 0,
            durable: None,
        };
        Consumer::new(SessionId(1), QueueKey::default(), &subscribe)
    }

    fn entry(counter: u64) -> Entry {
        let draft = MessageDraft { id: format!("m{counter}").into(), ..MessageDraft::default() };
        Entry::new(Timestamp(0), Sequence::new(Term(1), counter), Arc::new(Message::new(draft)))
    }

    #[test]
    fn credit_is_prefetch_less_what_is_unsettled() {
        let mut consumer = consumer(2);
        let first = consumer.hold(entry(1));
        assert!(consumer.has_credit());
        consumer.hold(entry(2));
        assert!(!consumer.has_credit());
        assert!(consumer.take(first).is_some());
        assert!(consumer.has_credit());
        assert!(consumer.take(first).is_none(), "a second ack finds nothing (R7)");
    }

    #[test]
    fn settling_out_of_order_keeps_holes_bounded() {
        let mut consumer = consumer(1_000);
        let stuck = consumer.hold(entry(0));
        for counter in 1..10_000 {
            let tag = consumer.hold(entry(counter));
            assert!(consumer.take(tag).is_some());
            consumer.check();
        }
        assert!(consumer.take(stuck).is_some());
    }

    #[test]
    fn a_delivery_is_found_by_tag_and_by_message_id() {
        let mut consumer = consumer(10);
        consumer.hold(entry(1));
        let second = consumer.hold(entry(2));
        let by_id = AckTarget::MessageId { consumer: None, id: "m2".into() };
        assert_eq!(consumer.find(&by_id), Some(second));
        let held = consumer.take(second).unwrap();
        assert_eq!(consumer.find(&by_id), None);
        consumer.put_back(held);
        assert_eq!(consumer.find(&AckTarget::Tag { consumer: ConsumerNo(1), tag: second }), Some(second));
        consumer.check();
    }
}
