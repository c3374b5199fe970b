//! The one integration binary: everything that tests more than one module, through the crate's public face.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says so"
)]

mod persistence;
