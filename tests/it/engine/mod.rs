//! The engine over a store of the tests' own that refuses, fills up and loses its connection. Time is paused: it passes
//! only when nobody works.

mod backlog;
pub(crate) mod broker;
mod browsing;
mod errors;
mod journal;
mod life;
mod limits;
mod looks;
mod pages;
mod pause;
mod promises;
mod purging;
mod receipts;
mod simulation;
mod spool;
mod store;
