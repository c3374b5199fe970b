//! What a store keeps: operations, the batches they travel in, and the catalog they add up to.

use std::{collections::BTreeMap, sync::Arc};

use smallvec::SmallVec;

use super::{BatchNumber, Destination, DestinationId, DurableId, Message, Sequence, Tenure, Text, Timestamp};

/// Who keeps a message until it is settled: a queue, or one durable subscription of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// The queue itself.
    Queue(DestinationId),
    /// One durable subscription; the message's body is stored once for all of them.
    Durable(DurableId),
}

/// One holder's part in a stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who keeps it.
    pub holder: Holder,
    /// How often it had been delivered when it last returned, an absolute number (R9).
    pub deliveries: u32,
    /// How many of these count towards a redelivery policy's attempts.
    pub failures: u32,
    /// Not to be delivered again before this.
    pub due: Option<Timestamp>,
}

impl Held {
    /// A holder's part in a message that it has not delivered yet.
    #[must_use]
    pub fn fresh(holder: Holder) -> Self {
        Self { holder, deliveries: 0, failures: 0, due: None }
    }
}

/// A message as a store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its place in the order of acceptance, and its key.
    pub sequence: Sequence,
    /// Where it lies.
    pub destination: DestinationId,
    /// Who has not settled it yet; never empty. When the last one settles, the message is gone.
    pub holders: SmallVec<[Held; 1]>,
    /// The message.
    pub message: Arc<Message>,
}

/// A durable topic subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The client-id that owns it.
    pub client_id: Text,
    /// Its name, unique within the client-id.
    pub name: Text,
    /// The topic.
    pub topic: DestinationId,
}

/// One change to what a store keeps. A new feature adds an `Op`, not a method.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A message is there from now on. Repeating it changes nothing.
    Insert(Stored),
    /// One holder is done with a message; nothing if it never held it.
    Settle {
        /// The message.
        sequence: Sequence,
        /// Who is done.
        holder: Holder,
    },
    /// A message came back to its holder after a delivery; absolute numbers (R9).
    Return {
        /// The message.
        sequence: Sequence,
        /// The holder's part from now on.
        held: Held,
    },
    /// What lies at or below `upto` may have been delivered before (R9); never falls.
    Mark {
        /// Whose mark.
        holder: Holder,
        /// The mark.
        upto: Sequence,
    },
    /// A destination is there from now on.
    CreateDestination {
        /// Its id.
        id: DestinationId,
        /// Its kind and name.
        destination: Destination,
    },
    /// A durable subscription is there from now on.
    CreateDurable {
        /// Its id.
        id: DurableId,
        /// Whose, and of what.
        durable: Durable,
    },
    /// A durable subscription is gone, and with it its part in every message.
    DeleteDurable {
        /// Its id.
        id: DurableId,
    },
    /// Everything is gone that a holder holds at or below `upto`, of whatever priority, however much it is (R29).
    /// Nothing at or below it is given to that holder later.
    Purge {
        /// Whose messages.
        holder: Holder,
        /// The last that goes.
        upto: Sequence,
    },
}

impl Op {
    /// What it is, for a log that must not show what it holds.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Insert(_) => "insert",
            Self::Settle { .. } => "settle",
            Self::Return { .. } => "return",
            Self::Mark { .. } => "mark",
            Self::CreateDestination { .. } => "create destination",
            Self::CreateDurable { .. } => "create durable subscription",
            Self::DeleteDurable { .. } => "delete durable subscription",
            Self::Purge { .. } => "purge",
        }
    }
}

/// Operations that a store applies in order, all or none. A transaction, a group commit, a journal record and a step
/// of a model test are this.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Its number within the term; a repeated batch keeps it.
    pub number: BatchNumber,
    /// What it does. No two of them on one message and holder (R1), a purge that covers it included.
    pub ops: Vec<Op>,
}

/// What a term starts from: everything but messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// The highest tenure ever proven here (R17).
    pub tenure: Tenure,
    /// Every destination.
    pub destinations: BTreeMap<DestinationId, Destination>,
    /// Every durable subscription.
    pub durables: BTreeMap<DurableId, Durable>,
    /// The dispatch marks (R9).
    pub marks: BTreeMap<Holder, Sequence>,
    /// Ids at or below these were given before, even if what they named is gone (R29).
    pub last_destination: DestinationId,
    /// See `last_destination`.
    pub last_durable: DurableId,
}

impl Catalog {
    /// Follows an operation that was made durable; those on messages change nothing here.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Insert(_) | Op::Settle { .. } | Op::Return { .. } | Op::Purge { .. } => {}
            Op::Mark { holder, upto } => {
                let mark = self.marks.entry(*holder).or_default();
                *mark = (*mark).max(*upto);
            }
            Op::CreateDestination { id, destination } => {
                self.destinations.insert(*id, destination.clone());
                self.last_destination = self.last_destination.max(*id);
            }
            Op::CreateDurable { id, durable } => {
                self.durables.insert(*id, durable.clone());
                self.last_durable = self.last_durable.max(*id);
            }
            Op::DeleteDurable { id } => {
                self.durables.remove(id);
                self.marks.remove(&Holder::Durable(*id));
            }
        }
    }
}
