//! The one integration binary: everything that tests more than one module, through the crate's public face.

mod persistence;
