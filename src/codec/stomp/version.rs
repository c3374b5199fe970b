//! The three versions, and how a client's list of them becomes one.

use std::fmt;

/// What the broker speaks, as it is told to a client that speaks none of it.
pub const SUPPORTED_VERSIONS: &str = "1.0,1.1,1.2";

/// A version of STOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// No escapes, no NACK, no heart-beats; subscription ids are optional.
    V1_0,
    /// Escapes for LF, colon and backslash.
    V1_1,
    /// CR may stand before LF and has an escape; ACK and NACK name a delivery by its own id.
    V1_2,
}

impl Version {
    /// The highest version that both sides speak; a client that sends no `accept-version` speaks 1.0.
    #[must_use]
    pub fn negotiate(accept_version: Option<&str>) -> Option<Self> {
        let Some(list) = accept_version else { return Some(Self::V1_0) };
        list.split(',').filter_map(|name| Self::named(name.trim())).max()
    }

    /// As it stands in a header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// The name under which a rendering of this version is kept with a message; other protocols use other numbers.
    #[must_use]
    pub fn dialect(self) -> u8 {
        match self {
            Self::V1_0 => 10,
            Self::V1_1 => 11,
            Self::V1_2 => 12,
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "1.0" => Some(Self::V1_0),
            "1.1" => Some(Self::V1_1),
            "1.2" => Some(Self::V1_2),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(Version::negotiate(None), Some(Version::V1_0));
        assert_eq!(Version::negotiate(Some("1.0")), Some(Version::V1_0));
        assert_eq!(Version::negotiate(Some("1.2,1.0,1.1")), Some(Version::V1_2));
        assert_eq!(Version::negotiate(Some(" 1.1 , 2.0")), Some(Version::V1_1));
        assert_eq!(Version::negotiate(Some("2.0")), None);
        assert_eq!(Version::negotiate(Some("")), None);
    }
}
