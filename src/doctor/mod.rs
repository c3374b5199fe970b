//! What could go wrong with a store and an election, asked before it does.
//!
//! Owns the questions of `batonmq doctor`. Always true: whatever is asked changes nothing that stays; a broker may run
//! meanwhile. An answer that needs somebody to act says what to do.
//! On failure: a question that can't be asked is an answer too, and the questions that need it are left out.

mod files;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod group;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod shape;

use std::error::Error;

use serde::Serialize;

use crate::{
    config::{Backend, Config},
    types::with_causes,
};

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub verdict: Verdict,
    /// About what, in a word or two.
    pub subject: &'static str,
    /// What was found.
    pub says: String,
    /// What to do about it; there unless all is well.
    pub fix: Option<String>,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// A broker works, and somebody should know.
    Warn,
    /// A broker can't work here, or what it promises is not so.
    Fail,
}

impl Verdict {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// Asks everything about the store, the election and the data directory of a configuration.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut report = Report::default();
    match config.store.backend {
        Backend::Journal | Backend::Memory => {}
        #[cfg(feature = "postgres")]
        Backend::Postgres => postgres::examine(config, &mut report).await,
        #[cfg(feature = "mysql")]
        Backend::Mysql => mysql::examine(config, &mut report).await,
        #[cfg(not(all(feature = "postgres", feature = "mysql")))]
        _ => unreachable!("the configuration was checked"),
    }
    files::examine(config, &mut report);
    report.0
}

/// The answers so far.
#[derive(Default)]
struct Report(Vec<Finding>);

impl Report {
    fn ok(&mut self, subject: &'static str, says: impl Into<String>) {
        self.0.push(Finding { verdict: Verdict::Ok, subject, says: says.into(), fix: None });
    }

    fn warn(&mut self, subject: &'static str, says: impl Into<String>, fix: impl Into<String>) {
        self.tell(Verdict::Warn, subject, says, fix);
    }

    fn fail(&mut self, subject: &'static str, says: impl Into<String>, fix: impl Into<String>) {
        self.tell(Verdict::Fail, subject, says, fix);
    }

    fn tell(&mut self, verdict: Verdict, subject: &'static str, says: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Finding { verdict, subject, says: says.into(), fix: Some(fix.into()) });
    }

    /// How much is not well so far.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    fn troubles(&self) -> usize {
        self.0.iter().filter(|finding| finding.verdict != Verdict::Ok).count()
    }

    /// Of a question that could not be asked, or whose answer is an error.
    fn failed(&mut self, subject: &'static str, error: &(dyn Error + 'static), fix: impl Into<String>) {
        self.fail(subject, with_causes(error), fix);
    }
}
