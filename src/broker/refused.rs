//! What the store refuses to make for a client: destinations and durable subscriptions (R13).
//!
//! Always true: nothing is stored that names a destination which the store has not got, or a recovery would not find
//! it. The engine refuses what is on its way already with the destination; what comes later asks for it once more.

use super::{Change, Core, Effects};
use crate::types::{Destination, DestinationId, DurableId, Op, Timestamp};

impl Core {
    /// The store refused to make a destination. It serves on for what is not stored, and for who consumes from it.
    pub fn destination_refused(&mut self, id: DestinationId, destination: &Destination) {
        self.unmade.insert(id, destination.clone());
    }

    /// Asks for a destination once more that the store refused to make, because something names it now.
    pub(super) fn make_again(&mut self, id: DestinationId, effects: &mut Effects) {
        if let Some(destination) = self.unmade.remove(&id) {
            effects.changes.push(Change::One { origin: None, op: Op::CreateDestination { id, destination } });
        }
    }

    /// The store refused to make a durable subscription: it never was. Who asked for it, or relied on it since, gets
    /// ERROR.
    pub fn durable_refused(&mut self, now: Timestamp, id: DurableId, effects: &mut Effects) {
        let found = self.durables.iter().find(|(_, durable)| durable.id == id);
        let Some(identity) = found.map(|(identity, _)| identity.clone()) else { return }; // it was deleted since
        self.remove_durable(now, &identity, effects);
    }
}
