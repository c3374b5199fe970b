//! What a server says of itself, by name.

use std::collections::BTreeMap;

use mysql_async::{Error, prelude::Queryable as _};

use crate::db::mysql::Session;

const VARIABLES: &str = include_str!("../../../sql/mysql/doctor/variables.sql");
const STATUS: &str = include_str!("../../../sql/mysql/doctor/status.sql");

/// Settings and counters; what a server does not have is not there.
pub(super) struct Facts(BTreeMap<String, String>);

impl Facts {
    pub(super) async fn of(session: &mut Session) -> Result<Self, Error> {
        let mut facts: Vec<(String, String)> = session.query(VARIABLES).await?;
        facts.extend(session.query::<(String, String), _>(STATUS).await?);
        Ok(Self::from_iter(facts))
    }

    /// The text of one, empty if it is not there.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.text(name) == "ON"
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }
}

impl FromIterator<(String, String)> for Facts {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(facts: T) -> Self {
        Self(facts.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }
}
