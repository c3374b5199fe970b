//! Where a database is in its history (R21).

/// A point in the history of a database: memory that was made before it is trusted only on the same history, later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Another one is another database, or one that went another way: a copy that was restored, a replica.
    pub identity: String,
    /// Grows as the database is written to. What was seen once is never undone, unless an older copy was restored.
    pub position: u64,
}

impl History {
    /// Why what is found now does not follow what was `seen` before. `None`: it does.
    #[must_use]
    pub fn departs_from(&self, seen: &Self) -> Option<String> {
        if self.identity != seen.identity {
            let (was, is) = (&seen.identity, &self.identity);
            return Some(format!("the database went another way: it was {was}, and is {is}"));
        }
        (self.position < seen.position).then(|| "the database was restored from an older copy".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r21_another_identity_or_an_earlier_position_departs() {
        let at = |identity: &str, position| History { identity: identity.to_owned(), position };
        assert_eq!(at("a", 7).departs_from(&at("a", 7)), None);
        assert_eq!(at("a", 8).departs_from(&at("a", 7)), None);
        assert!(at("b", 8).departs_from(&at("a", 7)).unwrap().contains("was a, and is b"));
        assert!(at("a", 6).departs_from(&at("a", 7)).unwrap().contains("older copy"));
    }
}
