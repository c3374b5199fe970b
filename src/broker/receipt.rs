//! A client's name for a confirmation.

use std::{fmt, ops::Deref};

use compact_str::CompactString;

use crate::types::{Charge, Meter};

/// A client's name for a confirmation, given back as it came. It may wait for a disk, and then for the client to read
/// it, so a long one is charged like a message (R31).
#[derive(Debug)]
pub struct Receipt {
    text: CompactString,
    _charge: Option<Charge>,
}

impl Receipt {
    /// Counts a long one for as long as it waits. A short one is a part of what it waits in.
    #[must_use]
    pub fn charged(text: &str, meter: &Meter) -> Self {
        let text = CompactString::from(text);
        let charge = text.is_heap_allocated().then(|| meter.charge(text.capacity()));
        Self { text, _charge: charge }
    }
}

impl Deref for Receipt {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl From<&str> for Receipt {
    fn from(text: &str) -> Self {
        CompactString::from(text).into()
    }
}

impl From<CompactString> for Receipt {
    fn from(text: CompactString) -> Self {
        Self { text, _charge: None }
    }
}

impl PartialEq for Receipt {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl PartialEq<&str> for Receipt {
    fn eq(&self, other: &&str) -> bool {
        self.text == *other
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r31_a_long_receipt_counts_while_it_waits() {
        let meter = Meter::unlimited();
        let short = Receipt::charged("message-1234", &meter);
        assert_eq!((&*short, meter.in_use()), ("message-1234", 0));
        let long = Receipt::charged(&"x".repeat(10_000), &meter);
        assert!(meter.in_use() >= 10_000);
        drop(long);
        assert_eq!(meter.in_use(), 0);
    }
}
