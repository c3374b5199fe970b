//! The core: queues, topics, subscriptions, transactions. A plain value without clock, I/O or randomness.

mod command;

pub use command::{
    Ack, AckMode, AckTarget, CloseReason, Command, Connect, Delivery, Outgoing, Receipt, Refusal, Request, Send,
    Subscribe, TransactionName, Unsubscribe, Verdict,
};
