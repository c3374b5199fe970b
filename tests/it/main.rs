//! The one integration binary: everything that tests more than one module, through the crate's public face.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop at once")]
#![allow(clippy::indexing_slicing, reason = "a test that can't go on should stop at once")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
#![allow(clippy::cast_sign_loss, reason = "the numbers of tests are small")]

mod core;
