//! The integration tests: one binary, so that it links once. Parts of the broker by their public names, and the built
//! binary driven from outside.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop at once")]
#![allow(clippy::indexing_slicing, reason = "a test that can't go on should stop at once")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
#![allow(clippy::cast_sign_loss, reason = "the numbers of tests are small")]

mod backlog;
mod bad_input;
mod bounded;
mod browse;
mod cli;
mod codec;
mod console;
mod core;
mod crash;
#[cfg(feature = "postgres")]
mod demo;
mod docs;
mod doctor;
mod engine;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod failover;
mod full;
mod full_disk;
mod haproxy;
mod harness;
mod layering;
mod memory;
#[cfg(feature = "mysql")]
mod mysql;
mod own_messages;
mod persistence;
mod polite_stop;
#[cfg(feature = "postgres")]
mod postgres;
mod process;
mod simulation;
mod stomp_py;
mod stompjs;
mod systemd;
#[cfg(feature = "tls")]
mod tls;
