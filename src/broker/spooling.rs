//! What the store does not keep and memory has no room for: it goes to the spool, a local file of the term (R32).
//!
//! Messages that are not persistent, and those of topic subscriptions that end with their consumer. While memory is
//! scarce, one that no consumer takes at once is spooled as it comes, once for all queues that it lies in; and so is
//! what comes behind something that has left memory. What lay in memory before that stays there, at most the part of
//! the budget that is not scarce yet.

use smallvec::SmallVec;

use super::{
    Core, Effects, QueueKey,
    entry::{Entry, Storage},
    queue::{Keeper, Queue},
};
use crate::types::{
    Destination, DestinationId, Durable, DurableId, Held, Holder, Op, Priority, Sequence, Stored, Text, Timestamp,
};

/// To the spool everything lies in one place, and queues are its subscriptions.
const PLACE: DestinationId = DestinationId(1);

/// The names that queues have there begin here, so that none is ever a durable subscription's in the store.
const FIRST_SPOOLER: u64 = 1 << 62;

impl Core {
    /// Spools a message where it lies in these queues and nowhere else, if memory is scarce or something before it has
    /// left.
    pub(super) fn spool(
        &mut self,
        now: Timestamp,
        targets: &[QueueKey],
        priority: Priority,
        sequence: Sequence,
        effects: &mut Effects,
    ) {
        let scarce = self.memory.is_over_half();
        let mut holders: SmallVec<[Held; 1]> = SmallVec::new();
        let mut message = None;
        for key in targets {
            let Some(queue) = self.queues.get_mut(*key) else { continue };
            if !scarce && !queue.lane(priority).is_some_and(|lane| lane.has_gap()) {
                continue;
            }
            let Some(entry) = queue.unspooled_mut(priority, sequence) else { continue };
            (entry.storage, entry.changed) = (Storage::Spooled, now);
            message = Some(entry.message.clone());
            holders.push(Held::fresh(Holder::Durable(self.spooler(*key, effects))));
        }
        if let Some(message) = message {
            effects.spool.push(Op::Insert(Stored { sequence, destination: PLACE, holders, message }));
        }
    }

    /// The name of a queue in the spool, given when it is needed first.
    fn spooler(&mut self, key: QueueKey, effects: &mut Effects) -> DurableId {
        let queue = self.queues.get_mut(key).expect("the caller has just looked at it");
        *queue.spooler.get_or_insert_with(|| {
            if self.spoolers == 0 {
                let destination = Destination::topic("spool");
                effects.spool.push(Op::CreateDestination { id: PLACE, destination });
            }
            let id = DurableId(FIRST_SPOOLER + self.spoolers);
            self.spoolers += 1;
            let durable = Durable { client_id: Text::default(), name: Text::default(), topic: PLACE };
            effects.spool.push(Op::CreateDurable { id, durable });
            id
        })
    }
}

/// The spool need not keep a message for this queue any more.
pub(super) fn unspool(queue: &Queue, entry: &Entry, effects: &mut Effects) {
    if let Some(Keeper::Spool(holder)) = queue.keeper(entry.storage) {
        effects.spool.push(Op::Settle { sequence: entry.sequence, holder });
    }
}
