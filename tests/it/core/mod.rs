//! The rules of the core, held against its public face: scenarios that name their rule, and a naive model under random
//! commands.

mod acks;
mod browsing;
mod dispatch;
mod fixture;
mod marks;
mod model;
mod paging;
mod purging;
mod random;
mod rejections;
mod sessions;
mod statistics;
mod store;
mod topics;
mod transactions;
