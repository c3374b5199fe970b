//! The parts of a batch that are not about messages, and why a batch can't be written at all.

use std::collections::BTreeMap;

use crate::types::{Destination, DestinationId, Durable, DurableId, Holder, Op, Sequence};

/// What is not about messages, and comes rarely.
#[derive(Clone, Copy, Debug)]
pub(in crate::persistence) enum CatalogChange<'a> {
    CreateDestination(DestinationId, &'a Destination),
    CreateDurable(DurableId, &'a Durable),
    DeleteDurable(DurableId),
    Purge(Holder, Sequence),
}

impl<'a> CatalogChange<'a> {
    /// What an operation changes, if it is one of these.
    pub(in crate::persistence) fn of(op: &'a Op) -> Option<Self> {
        match op {
            Op::CreateDestination { id, destination } => Some(Self::CreateDestination(*id, destination)),
            Op::CreateDurable { id, durable } => Some(Self::CreateDurable(*id, durable)),
            Op::DeleteDurable { id } => Some(Self::DeleteDurable(*id)),
            Op::Purge { holder, upto } => Some(Self::Purge(*holder, *upto)),
            _ => None,
        }
    }

    /// The highest ids of destinations and durable subscriptions that these changes name; ids are never given twice.
    pub(in crate::persistence) fn highest_ids(changes: &[Self]) -> (DestinationId, DurableId) {
        let mut highest = (DestinationId::default(), DurableId::default());
        for change in changes {
            match change {
                Self::CreateDestination(id, _) => highest.0 = highest.0.max(*id),
                // Who is deleted may never have been made: what is left of it must not meet another one of its id.
                Self::CreateDurable(id, _) | Self::DeleteDurable(id) => highest.1 = highest.1.max(*id),
                Self::Purge(..) => {}
            }
        }
        highest
    }
}

/// The dispatch marks of a batch, one a holder: no statement can write a row twice.
///
/// Who is made gets a mark that covers nothing: on a full disk there may be no room for its row later, and what can't
/// be marked can't be handed out, so nobody could make room.
#[derive(Debug, Default)]
pub(in crate::persistence) struct Marks(BTreeMap<Holder, Sequence>);

impl Marks {
    /// Notes what an operation means for them.
    pub(in crate::persistence) fn note(&mut self, op: &Op) {
        match op {
            Op::Mark { holder, upto } => self.raise(*holder, *upto),
            Op::CreateDestination { id, destination } if destination.kind().is_queue() => {
                self.raise(Holder::Queue(*id), Sequence::ZERO);
            }
            Op::CreateDurable { id, .. } => self.raise(Holder::Durable(*id), Sequence::ZERO),
            Op::DeleteDurable { id } => drop(self.0.remove(&Holder::Durable(*id))),
            _ => {}
        }
    }

    fn raise(&mut self, holder: Holder, upto: Sequence) {
        let mark = self.0.entry(holder).or_insert(upto);
        *mark = (*mark).max(upto);
    }

    /// All of them.
    pub(in crate::persistence) fn all(self) -> impl Iterator<Item = (Holder, Sequence)> {
        self.0.into_iter()
    }
}

/// Why a batch can't be written at all; the same as if the database had refused it (R13).
#[derive(Debug, thiserror::Error)]
pub(in crate::persistence) enum Unfit {
    #[error("message {0} is held by a queue and by others too")]
    Holders(Sequence),
    #[error("the headers of message {0} are no JSON")]
    Headers(Sequence, #[source] serde_json::Error),
    #[cfg(feature = "mysql")]
    #[error("message {0} takes {1} bytes, and the server's max_allowed_packet is {2}")]
    Packet(Sequence, usize, usize),
}
