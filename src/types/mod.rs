//! The words that every layer shares: destinations, messages, ids, time, and the operations that a store keeps.
//!
//! Plain values without I/O. Everything else in the crate may import this module; it imports nothing of the crate.

mod broken;
mod context;
mod destination;
mod error;
mod group;
mod history;
mod ids;
mod mandate;
mod message;
mod meter;
mod page;
mod properties;
mod record;
mod role;
mod text;
mod time;

#[doc(hidden)]
pub use broken::{Broken, Rule};
pub use context::TermContext;
pub use destination::{Destination, DestinationKind};
pub use error::with_causes;
pub use group::Group;
pub use history::History;
pub use ids::{
    BatchNumber, ConsumerNo, DeliveryTag, DestinationId, DurableId, FencingToken, Priority, Sequence, SessionId,
    Tenure, Term,
};
pub use mandate::{BatonLost, BootClock, BootTime, Footing, Mandate, MandateKeeper, OUTAGE_PATIENCE};
pub use message::{BodyKind, Message, MessageDraft};
pub use meter::{Charge, Meter};
pub use page::{Backlog, DueMessage, DuePage, DueReason, Page, PageRange, Window};
pub(crate) use properties::append_property;
pub use properties::{Properties, PropertiesBuilder, PropertyValue};
pub use record::{Batch, Catalog, Durable, Held, Holder, Op, Stored};
pub use role::Role;
pub use text::Text;
pub use time::{Clock, Timestamp};
