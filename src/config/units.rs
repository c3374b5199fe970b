//! Human durations ("30s", "5ms") and sizes ("64MiB", "100MB"), for use with serde's `with`.
//!
//! Always true: what is written is read back as the same value. A duration needs its unit; a size without one is bytes.

use std::{fmt, time::Duration};

use serde::de::{self, Visitor};

/// Units of time, the largest first, in microseconds.
const TIME_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// Units of size, in bytes. The powers of two stand first, each half the largest first: writing takes the first fit.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a duration: a whole number and one of `us`, `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// What is wrong with the text, as a sentence's end: "is not a duration …".
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write a whole number and a unit, such as \"30s\" or \"5ms\"");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let (_, micros) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*micros).map(Duration::from_micros).ok_or_else(wrong)
}

/// Reads a size: a whole number and one of `B`, `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`; without one it is bytes.
///
/// # Errors
/// What is wrong with the text, as a sentence's end: "is not a size …".
pub fn parse_size(text: &str) -> Result<usize, String> {
    let wrong = || format!("{text:?} is not a size; write a whole number and a unit, such as \"64MiB\" or \"100MB\"");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let unit = if unit.is_empty() { "B" } else { unit };
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*bytes).and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(wrong)
}

/// Writes a duration in the largest unit that holds it whole.
#[must_use]
pub fn write_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    write_in(&TIME_UNITS, micros, "s")
}

/// Writes a size in the largest unit that holds it whole.
#[must_use]
pub fn write_size(bytes: usize) -> String {
    write_in(&SIZE_UNITS, bytes as u64, "B")
}

fn write_in(units: &[(&str, u64)], number: u64, zero: &str) -> String {
    let fit = units.iter().find(|(_, size)| number != 0 && number.is_multiple_of(*size));
    fit.map_or_else(|| format!("0{zero}"), |(name, size)| format!("{}{name}", number / size))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// `#[serde(with = "units::duration")]` for a [`Duration`].
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::write_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_any(super::DurationText)
    }
}

/// `#[serde(with = "units::size")]` for a number of bytes.
pub(super) mod size {
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &usize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::write_size(*bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        from.deserialize_any(super::SizeText)
    }
}

/// `#[serde(with = "units::optional_size")]` for a number of bytes that need not be there.
pub(super) mod optional_size {
    use serde::{Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &Option<usize>, to: S) -> Result<S::Ok, S::Error> {
        bytes.map(super::write_size).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
        super::size::deserialize(from).map(Some)
    }
}

struct DurationText;

impl Visitor<'_> for DurationText {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"30s\" or \"5ms\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).map_err(E::custom)
    }
}

struct SizeText;

impl Visitor<'_> for SizeText {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size, such as \"64MiB\" or \"100MB\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<usize, E> {
        parse_size(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(bytes), &self))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_back() {
        for (text, duration) in [
            ("30s", Duration::from_secs(30)),
            ("5ms", Duration::from_millis(5)),
            ("2m", Duration::from_secs(120)),
            ("1d", Duration::from_secs(86_400)),
            ("1500us", Duration::from_micros(1_500)),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(parse_duration(text), Ok(duration));
            assert_eq!(write_duration(duration), text);
        }
        for bad in ["", "30", "s", "-1s", "1.5s", "30 parsecs", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse_duration(bad).unwrap_err().contains("is not a duration"), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_back() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("100MB", 100_000_000),
            ("10KiB", 10_240),
            ("3GiB", 3 << 30),
            ("5kB", 5_000),
            ("1B", 1),
            ("0B", 0),
        ] {
            assert_eq!(parse_size(text), Ok(bytes));
            assert_eq!(write_size(bytes), text);
        }
        assert_eq!(parse_size("104857600"), Ok(104_857_600), "as ActiveMQ's URIs write it");
        for bad in ["", "MiB", "1.5MiB", "-1", "64mib", "99999999999GiB"] {
            assert!(parse_size(bad).unwrap_err().contains("is not a size"), "{bad}");
        }
    }
}
