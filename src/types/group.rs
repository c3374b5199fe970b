//! The name of a broker group.

use std::fmt;

/// Brokers of one group share one store and elect one master. Several groups may share a database.
///
/// Always true: 1 to 32 of `a` to `z`, `0` to `9` and `_`, beginning with a letter, and not with `pg_`, which
/// PostgreSQL keeps for itself. So it is the same name in every database, and needs no escaping within quotes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(String);

impl Group {
    /// The longest name; with a table's name behind it, it fits every database's bound.
    pub const BYTES_MAX: usize = 32;

    /// The group of this name; `None` if it can't be one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let good = name.len() <= Self::BYTES_MAX
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.starts_with("pg_")
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        good.then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Group {
    fn default() -> Self {
        Self("batonmq".to_owned())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_needs_no_escaping_anywhere() {
        for good in ["batonmq", "a", "orders_2", "user"] {
            assert_eq!(Group::new(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(33);
        for bad in ["", "Orders", "2nd", "_a", "a-b", "a\"b", "a.b", "größe", "pg_a", &long] {
            assert_eq!(Group::new(bad), None, "{bad}");
        }
        assert_eq!(Group::new("batonmq"), Some(Group::default()));
    }
}
