//! Purging: what waits in a queue is gone, however much it is (R29).
//!
//! The store is told one mark and the spool one operation; what lies in memory goes in slices, see `garbage.rs`. What
//! is out stays with its consumer or transaction, and is gone when they are done with it. What belongs to a
//! transaction that is not durable yet stays: it is not there yet. Who browses the queue has come to its end.
//!
//! Always true: no gap of a purged queue reaches back to the mark, so no page and nothing that comes due brings back what
//! it covers, whenever it was read (R26).

use super::{
    Change, Core, Effects, QueueKey, UnitId,
    core::PlaceRole,
    entry::{Entry, Storage},
    queue::{Keeper, Remains},
};
use crate::types::{Destination, Holder, Op, Priority, Rule, Sequence, Timestamp};

/// What became of a queue that was purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// How many messages are gone, without what the store had at the start of the term and is not counted yet (R28).
    pub messages: usize,
    /// The mark that has to be durable before they are gone for good; `None`: it need not.
    pub mark: Option<(Holder, Sequence)>,
    /// What has to be durable too: the settles of what the mark does not cover.
    pub behind: Option<UnitId>,
}

impl Core {
    /// Removes what waits in a queue. `None`: there is no such queue.
    pub fn purge(&mut self, now: Timestamp, destination: &Destination, effects: &mut Effects) -> Option<Purged> {
        let PlaceRole::Queue(key) = self.places.get(destination)?.role else { return None };
        let hidden = self.hidden_in(key);
        let given = self.sequences.peek().before();
        let before_hidden = hidden.iter().map(|(_, sequence)| sequence.before()).min();
        let upto = before_hidden.filter(|_| !self.options.broken.is(Rule::PurgesWhatIsHidden)).unwrap_or(given);
        let queue = self.queues.get_mut(key)?; // if it is empty, what it had need not be durably gone
        let before = queue.messages;
        let stays: Vec<Entry> =
            hidden.into_iter().filter_map(|(priority, sequence)| queue.take(priority, sequence)).collect();
        let remains = queue.take_all(given);
        stays.into_iter().for_each(|entry| queue.push(entry));
        effects.spool.extend(queue.spooler.take().map(|id| Op::DeleteDurable { id }));
        let mark = queue.holder.map(|holder| (holder, upto));
        effects.changes.extend(mark.map(|(holder, upto)| Change::Purge { holder, upto }));
        let behind = self.settle_behind(now, key, upto, &remains, effects);
        self.disown_what_is_out(key);
        self.end_browses_of(key, effects);
        self.throw_away(key, remains);
        let left = self.queues.get(key).map_or(0, |queue| queue.messages);
        Some(Purged { messages: before.saturating_sub(left), mark, behind })
    }

    /// What lies in a queue and nobody may see yet, oldest first.
    fn hidden_in(&self, key: QueueKey) -> Vec<(Priority, Sequence)> {
        let hidden = self.committing.values().flat_map(|committing| &committing.hidden);
        let mut here: Vec<_> = hidden.filter(|(queue, ..)| *queue == key).map(|(_, at, of)| (*at, *of)).collect();
        here.sort_by_key(|(_, sequence)| *sequence);
        here
    }

    /// What came behind something hidden is not covered by the mark. It is in memory, because it is as little durable as
    /// what is hidden.
    fn settle_behind(
        &mut self,
        now: Timestamp,
        key: QueueKey,
        upto: Sequence,
        remains: &Remains,
        effects: &mut Effects,
    ) -> Option<UnitId> {
        let queue = self.queues.get(key)?;
        let mut sequences = Vec::new();
        for entry in remains.behind(upto) {
            self.schedule.settled(now, queue.holder, entry);
            if let Some(Keeper::Store(_)) = queue.keeper(entry.storage) {
                sequences.push(entry.sequence);
            }
        }
        let holder = queue.holder.filter(|_| !sequences.is_empty())?;
        let id = self.next_unit();
        effects.changes.push(Change::SettleAll { holder, sequences, id });
        Some(id)
    }

    /// What is out is the queue's no more, but counts until it is answered.
    fn disown_what_is_out(&mut self, key: QueueKey) {
        let (mut messages, mut bytes) = (0, 0);
        for entry in self.entries_out(key) {
            entry.storage = match entry.storage {
                Storage::Stored | Storage::Purged => Storage::Purged,
                Storage::Never | Storage::Spooled | Storage::Withdrawn => Storage::Withdrawn,
            };
            messages += 1;
            bytes += entry.size();
        }
        if let Some(queue) = self.queues.get_mut(key) {
            queue.messages += messages;
            queue.bytes += bytes;
        }
    }
}
