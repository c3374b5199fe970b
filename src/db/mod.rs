//! What every database has in common for us: connections, the tables of a group, and the texts of statements.
//!
//! The texts lie in `sql/`, one file a statement, and say `{group}` where the tables of a broker group are meant.
//! Always true: an error names the database and what to do, and no password.

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod columns;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod hosts;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod text;

#[cfg(any(feature = "postgres", feature = "mysql"))]
use std::path::Path;
use std::{error::Error, path::PathBuf};

#[cfg(any(feature = "postgres", feature = "mysql"))]
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use sha2::{Digest as _, Sha256};

#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) use self::text::{Text, texts};
use crate::types::Group;

/// Why there is no connection to the database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL says something that can't be meant.
    #[error("store.url can't be used: {problem}")]
    Url {
        /// What is wrong, without a password.
        problem: String,
    },
    /// The certificates of those that may sign the database's can't be had.
    #[error("cannot read certificates from {path}, named by store.tls_ca_file")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database does not let us in.
    #[error("the database at {address} refuses the connection")]
    Refused {
        /// Hosts, ports and name of the database.
        address: String,
        /// What a human can do.
        fix: &'static str,
        /// What the database or the driver said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database is not there, or not yet.
    #[error("cannot connect to the database at {address}")]
    Failed {
        /// Hosts, ports and name of the database.
        address: String,
        /// What a human can do.
        fix: &'static str,
        /// What the database or the system said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something between gives one session of the database to many in turn, so that locks and settings are nobody's.
    #[error(
        "a pooler in transaction mode stands before the database at {address}, and a broker needs its own sessions"
    )]
    Pooled {
        /// Hosts, ports and name of the database.
        address: String,
    },
    /// The database lacks something that no session can do without.
    #[error("the database at {address} can't be used: {problem}")]
    Unfit {
        /// Hosts, ports and name of the database.
        address: String,
        /// What it lacks.
        problem: String,
        /// What a human can do.
        fix: &'static str,
    },
}

impl ConnectError {
    /// What a human can do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Url { .. } => "correct it",
            Self::Certificates { .. } => "name a good PEM file there",
            Self::Refused { fix, .. } | Self::Failed { fix, .. } | Self::Unfit { fix, .. } => fix,
            Self::Pooled { .. } => "name the database's own address in store.url, or let the pooler use session mode",
        }
    }

    /// Whether waiting does not help: a human has to change something first.
    #[must_use]
    pub fn needs_a_human(&self) -> bool {
        !matches!(self, Self::Failed { .. })
    }
}

/// Why the tables of a group can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A newer version made them.
    #[error("the tables of group {group} have version {found}, and this batonmq knows versions up to {supported}")]
    Newer {
        /// Whose tables.
        group: Group,
        /// Their version.
        found: u32,
        /// The newest version that is known here.
        supported: u32,
    },
    /// This role may not make or change them.
    #[error("the tables of group {group} have to be made or brought up to date, and this role may not do it")]
    Denied {
        /// Whose tables.
        group: Group,
        /// What the database said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Somebody changed them, or took a right away.
    #[error("the tables of group {group} are not as batonmq made them ({statement})")]
    Altered {
        /// Whose tables.
        group: Group,
        /// The statement that failed: the name of its file in `sql/`.
        statement: &'static str,
        /// What the database said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database fails for another reason.
    #[error("cannot {action} the tables of group {group}")]
    Failed {
        /// Whose tables.
        group: Group,
        /// What was tried.
        action: &'static str,
        /// What the database said.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl SchemaError {
    /// What a human can do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "start the newer version of batonmq again",
            Self::Denied { .. } => "run batonmq migrate as a role that may, and grant what docs/databases.md lists",
            Self::Altered { .. } => {
                "compare them with batonmq migrate --print and undo the change, or grant what docs/databases.md lists"
            }
            Self::Failed { .. } => "look into the database's own log",
        }
    }
}

/// A number for a lock of this group that serves `purpose`, the same on every broker: databases lock numbers, or short
/// names.
#[must_use]
pub fn lock_key(purpose: &str, group: &Group) -> i64 {
    let digest = Sha256::digest(format!("batonmq/{purpose}/{group}"));
    digest.first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}

/// The text of a statement for one group, which is written `group` in this database.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn for_group(text: &str, group: &str) -> String {
    text.replace("{group}", group)
}

/// A number as databases keep it; what is beyond their largest becomes that.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that [`big`] made.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn number(big: i64) -> u64 {
    u64::try_from(big).unwrap_or_default()
}

/// Who may sign the certificate that a database shows.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn roots(ca_file: &Path) -> Result<RootCertStore, ConnectError> {
    let unusable =
        |source: Box<dyn Error + Send + Sync>| ConnectError::Certificates { path: PathBuf::from(ca_file), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|error| unusable(error.into()))? {
        let certificate = certificate.map_err(|error| unusable(error.into()))?;
        roots.add(certificate).map_err(|error| unusable(error.into()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it".into()));
    }
    Ok(roots)
}
