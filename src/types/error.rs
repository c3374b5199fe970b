//! How errors are told.

use std::{error::Error, iter::successors};

/// `error` and what caused it, in one line.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = successors(Some(error), |&cause| cause.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ").replace('\n', " ")
}
