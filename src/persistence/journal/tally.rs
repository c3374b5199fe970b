//! What the records of a journal add up to, as far as they could be read.
//!
//! Always true: nothing that any record has named is forgotten. A message whose settle is gone is held again; what
//! lies for a destination or a durable subscription whose creation is gone is kept under a name made up for it.

use std::collections::BTreeSet;

use super::{
    holdings::Holdings,
    segment::SegmentNumber,
    sequences::Sequences,
    skim::Written,
    walk::{Found, FoundOp},
};
use crate::types::{Catalog, Destination, DestinationId, Durable, DurableId, Holder, Op, Sequence};

/// What the records so far add up to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) catalog: Catalog,
    pub(super) holdings: Holdings,
    pub(super) placed: Vec<Placed>,
    /// No sequence that was seen is higher.
    pub(super) highest: Sequence,
    pub(super) batches: u64,
    /// The topics, or queues, of those who were to hold a message.
    destinations: BTreeSet<(Holder, DestinationId)>,
}

/// The messages that lie in a segment.
#[derive(Debug)]
pub(super) struct Placed {
    segment: SegmentNumber,
    messages: Sequences,
    /// Unit: bytes.
    bytes: u64,
}

impl Tally {
    /// Follows the next record.
    pub(super) fn follow(&mut self, found: &Found<'_>) {
        self.begin(found);
        for op in &found.ops {
            self.apply(found.header.segment, op);
        }
    }

    /// Follows the next record but for its operations, which have to be applied then.
    pub(super) fn begin(&mut self, found: &Found<'_>) {
        let tenure = self.catalog.tenure.max(found.head.tenure);
        if let Some(catalog) = &found.catalog {
            self.take_over(catalog);
        }
        self.catalog.tenure = tenure;
        self.batches += u64::from(!found.ops.is_empty());
    }

    /// All of the catalog as it stood there: a durable subscription that is not in it was deleted, even if that record
    /// is gone.
    fn take_over(&mut self, catalog: &Catalog) {
        for id in self.catalog.durables.keys().filter(|id| !catalog.durables.contains_key(id)) {
            self.holdings.delete_durable(*id);
        }
        self.catalog = catalog.clone();
    }

    /// Follows an operation of a record; whether it changes what is held.
    pub(super) fn apply(&mut self, segment: SegmentNumber, op: &FoundOp<'_>) -> bool {
        match op {
            FoundOp::Message { written, is_copy, slice, .. } => {
                let is_repeated = !is_copy && self.holdings.live().contains(written.sequence);
                if !is_repeated {
                    self.place(segment, written.sequence, slice.length);
                    self.hold(written, slice.length);
                }
                !is_repeated
            }
            FoundOp::Settle { sequence, holder } => self.holdings.settle(*sequence, *holder),
            FoundOp::Return { sequence, held } => self.holdings.give_back(*sequence, *held),
            FoundOp::Other(op) => {
                match op {
                    Op::DeleteDurable { id } => self.holdings.delete_durable(*id),
                    Op::Purge { holder, upto } => self.holdings.purge(*holder, *upto),
                    _ => {}
                }
                self.catalog.apply(op);
                true
            }
        }
    }

    fn hold(&mut self, written: &Written<'_>, bytes: u32) {
        let (sequence, destination) = (written.sequence, written.destination);
        for held in &written.holders {
            self.holdings.hold(sequence, destination, written.priority, *held, bytes);
            self.destinations.insert((held.holder, destination));
        }
    }

    fn place(&mut self, segment: SegmentNumber, sequence: Sequence, bytes: u32) {
        self.highest = self.highest.max(sequence);
        if self.placed.last().is_none_or(|placed| placed.segment != segment) {
            self.placed.push(Placed { segment, messages: Sequences::default(), bytes: 0 });
        }
        if let Some(placed) = self.placed.last_mut() {
            placed.messages.insert(sequence);
            placed.bytes += u64::from(bytes);
        }
    }

    /// What all messages take that somebody holds, by the average of each segment; each counts where it lies last.
    /// Unit: bytes.
    pub(super) fn live_bytes(&self) -> u64 {
        let mut live = self.holdings.live().clone();
        let mut bytes = 0;
        for placed in self.placed.iter().rev() {
            let average = placed.bytes.div_ceil(placed.messages.len().max(1));
            bytes += placed.messages.common(&live) * average;
            live.remove_all(&placed.messages);
        }
        bytes
    }

    /// Records are gone: whatever they may have said is allowed for. Answers the names that were made up.
    pub(super) fn allow_for_loss(&mut self) -> Vec<String> {
        let mut made_up = Vec::new();
        let holders: Vec<Holder> = self.holdings.backlogs().into_keys().collect();
        for holder in holders {
            let destination = self.destinations.range((holder, DestinationId(0))..).next();
            if let Some((_, destination)) = destination.copied().filter(|(found, _)| *found == holder) {
                made_up.extend(self.name_destination(holder, destination));
            }
            if let Holder::Durable(id) = holder {
                made_up.extend(self.name_durable(id));
            }
            let mark = self.catalog.marks.entry(holder).or_default();
            *mark = self.highest.max(*mark); // a mark may be gone: all may have been delivered before (R9)
        }
        made_up
    }

    fn name_destination(&mut self, holder: Holder, id: DestinationId) -> Option<String> {
        if self.catalog.destinations.contains_key(&id) {
            return None;
        }
        let name = format!("batonmq.repaired.{}", id.0);
        let destination = match holder {
            Holder::Queue(_) => Destination::queue(&name),
            Holder::Durable(_) => Destination::topic(&name),
        };
        let made_up = destination.to_string();
        self.catalog.apply(&Op::CreateDestination { id, destination });
        Some(made_up)
    }

    fn name_durable(&mut self, id: DurableId) -> Option<String> {
        if self.catalog.durables.contains_key(&id) {
            return None;
        }
        let topic = self.destinations.iter().find(|(holder, _)| *holder == Holder::Durable(id))?.1;
        let name = id.0.to_string();
        let durable = Durable { client_id: REPAIRED.into(), name: name.as_str().into(), topic };
        self.catalog.apply(&Op::CreateDurable { id, durable });
        Some(format!("durable subscription {REPAIRED}/{name}"))
    }
}

/// The client-id of a durable subscription whose own is gone.
const REPAIRED: &str = "batonmq.repaired";
