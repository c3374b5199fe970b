//! What the benches share that run the built broker as a process: the process itself, a blocking STOMP client, and
//! ledgers that hold what is known of every message.

#![allow(dead_code, unused_imports, reason = "no bench needs all of it")]

mod broker;
mod client;
mod consumer;
mod label;
mod ledger;
mod process;
mod producer;
mod traffic;

pub(crate) use broker::{Broker, Site};
pub(crate) use client::{Client, put_send};
pub(crate) use consumer::{Consumer, Step, Subscription};
pub(crate) use label::Label;
pub(crate) use ledger::{Ledger, Tally, Witness};
pub(crate) use process::{count_of, disk_used, in_memory, metric};
pub(crate) use producer::{Outlet, Producer};
pub(crate) use traffic::{Load, Rate, drain, fill, fill_until_killed};
