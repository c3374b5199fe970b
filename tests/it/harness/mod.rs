//! What end-to-end tests share: the real binary, raw STOMP connections, foreign clients, seeds.
//!
//! Nothing here waits for a duration. [`PATIENCE`] is the net under what must happen but does not.

mod broker;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod clock;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod database;
mod faulty_disk;
#[cfg(feature = "mysql")]
mod galera;
mod http;
#[cfg(feature = "mysql")]
mod mariadb;
#[cfg(feature = "postgres")]
mod pgbouncer;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod proxy;
mod raw;
mod script;
mod seed;
mod small_disk;

use std::time::Duration;

pub(crate) use broker::{Broker, Settings, own_loopback_address};
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) use database::{DatabaseServer, Stop, own_group, run};
pub(crate) use faulty_disk::{Fault, FaultyDisk, Moment};
#[cfg(feature = "mysql")]
pub(crate) use galera::Galera;
pub(crate) use http::{get, request};
#[cfg(feature = "mysql")]
pub(crate) use mariadb::MariadbServer;
#[cfg(feature = "postgres")]
pub(crate) use pgbouncer::PgBouncer;
#[cfg(feature = "postgres")]
pub(crate) use postgres::PostgresServer;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) use proxy::Proxy;
pub(crate) use raw::{Frame, Raw, Writer, encode};
pub(crate) use script::Script;
pub(crate) use seed::{Rng, number};
pub(crate) use small_disk::SmallDisk;

/// When something that must happen is taken for something that will not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
