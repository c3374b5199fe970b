//! `batonmq check-config`: everything that a start would refuse about the options, without starting.

use super::{Failure, start::Sources};
use crate::server::Doors;

/// Reads the options and the files that TLS needs; says on standard output what they amount to.
pub(super) fn run(sources: Sources) -> Result<(), Failure> {
    let config = sources.load()?;
    Doors::prepare(&config)?;
    for warning in &config.warnings {
        println!("warning: {warning}");
    }
    let origin = sources.file().map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
    println!("{origin}: good");
    for connector in &config.connectors {
        println!("connector {} would listen on {}", connector.name, connector.uri.address());
    }
    Ok(())
}
