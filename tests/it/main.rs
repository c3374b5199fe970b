//! End-to-end tests: the built binary, driven from outside.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop at once")]
#![allow(clippy::indexing_slicing, reason = "a test that can't go on should stop at once")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
#![allow(clippy::cast_sign_loss, reason = "the numbers of tests are small")]

mod bad_input;
mod crash;
mod harness;
mod polite_stop;
mod stomp_py;
mod stompjs;
