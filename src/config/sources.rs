//! Where options come from: defaults, then the file, then `BATONMQ_…` variables, then flags. The later one counts.
//!
//! figment stays behind this file. A variable or flag is a [`Setting`]: its own source, so that errors can name it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind,
    providers::{Format, Toml},
    util::nest,
    value::{Dict, Map, Value},
};

use super::Options;

/// In front of the variables that are options.
const ENV_PREFIX: &str = "BATONMQ_";

/// Stands for what figment says, which repeats the value.
const SECRET_PROBLEM: &str =
    "is not of the right shape; config/batonmq.toml shows it (what was written is not repeated, it may hold a secret)";

/// Variables with our prefix that are not ours to judge: the tests' own, and what Kubernetes puts into every container
/// for a Service that is named `batonmq`.
const ENV_FOREIGN: [&str; 5] =
    ["BATONMQ_SEED", "BATONMQ_TEST_", "BATONMQ_SERVICE_HOST", "BATONMQ_SERVICE_PORT", "BATONMQ_PORT"];

/// Why the options can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file that an option names can't be read.
    #[error("cannot read {path}, named by {named_by}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The option or flag that names it.
        named_by: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML: {problem}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong.
        problem: String,
    },
    /// There is no such option.
    #[error("unknown option {option} in {origin}; {known}")]
    Unknown {
        /// What was written.
        option: String,
        /// Where.
        origin: String,
        /// What could have been meant.
        known: String,
    },
    /// An option has a value that it can't have.
    #[error("{option} in {origin}: {problem}")]
    Invalid {
        /// The option.
        option: String,
        /// Where it was written.
        origin: String,
        /// What is wrong, and what to write instead.
        problem: String,
    },
}

/// One option that was set outside the file.
#[derive(Clone, Debug)]
pub struct Setting {
    origin: String,
    option: String,
    value: Value,
}

impl Setting {
    /// `--flag` sets `option`, a path with dots, to one value.
    #[must_use]
    pub fn flag(flag: &str, option: &str, value: impl Into<Value>) -> Self {
        Self { origin: format!("flag {flag}"), option: option.to_owned(), value: value.into() }
    }

    /// `--flag` was given a URI for each connector; each is named after its scheme, and its number from the second on.
    #[must_use]
    pub fn connectors(flag: &str, uris: &[String]) -> Self {
        let connector = |(at, uri): (usize, &String)| {
            let scheme = uri.split("://").next().unwrap_or_default();
            let name = if at == 0 { scheme.to_owned() } else { format!("{scheme}-{}", at + 1) };
            Dict::from([("name".to_owned(), Value::from(name)), ("uri".to_owned(), Value::from(uri.as_str()))])
        };
        Self::flag(flag, "connectors", uris.iter().enumerate().map(connector).collect::<Vec<_>>())
    }

    /// An environment variable; `None` if it has not our prefix or is foreign.
    ///
    /// Its value is taken as the text it is, and becomes a number or a switch only where the option is one: `1.10` as
    /// a broker's name stays `1.10`. Lists are written as in TOML on one line.
    fn variable(name: &str, text: &str) -> Option<Self> {
        let option = name.strip_prefix(ENV_PREFIX)?;
        if ENV_FOREIGN.iter().any(|foreign| name.starts_with(foreign)) {
            return None;
        }
        let value = if text.starts_with(['[', '{']) { parse_list(text) } else { Value::from(text) };
        let option = option.to_ascii_lowercase().replace("__", ".");
        Some(Self { origin: format!("environment variable {name}"), option, value })
    }
}

/// TOML's own grammar for what starts with a bracket; what it does not understand stays text and fails by its type.
fn parse_list(text: &str) -> Value {
    let parsed = Toml::from_str::<Dict>(&format!("value = {text}")).ok();
    parsed.and_then(|mut dict| dict.remove("value")).unwrap_or_else(|| Value::from(text))
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = nest(&self.option, self.value.clone()).into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

/// Everything that can say something about options.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// All environment variables; those without our prefix are left alone.
    pub environment: Vec<(String, String)>,
    /// Flags of the command line.
    pub flags: Vec<Setting>,
}

impl Sources {
    pub(super) fn read(&self) -> Result<(Options, Figment), ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = &self.file {
            figment = figment.merge(FileText::read(path)?);
        }
        for (name, text) in &self.environment {
            if let Some(setting) = Setting::variable(name, text) {
                figment = figment.merge(setting);
            }
        }
        for setting in &self.flags {
            figment = figment.merge(setting.clone());
        }
        // Lossy: a variable's text becomes a number or a switch where the option is one.
        let options = figment.extract_lossy::<Options>().map_err(|error| explain(error, &figment))?;
        Ok((options, figment))
    }
}

/// Where `option` was written.
pub(super) fn origin(figment: &Figment, option: &str) -> String {
    let mut path = option.split(['.', '[']).collect::<Vec<_>>();
    while !path.is_empty() {
        if let Some(metadata) = figment.find_metadata(&path.join(".")) {
            return describe(metadata);
        }
        path.pop();
    }
    "the defaults".to_owned()
}

fn describe(metadata: &Metadata) -> String {
    let file = metadata.source.as_ref().and_then(|source| source.file_path());
    file.map_or_else(|| metadata.name.to_string(), |path| path.display().to_string())
}

/// One error, with the option's full name and the place where it was written.
fn explain(error: figment::Error, figment: &Figment) -> ConfigError {
    let error = error.into_iter().next().expect("an error has at least itself");
    let mut option = error.path.join(".");
    match error.kind {
        Kind::UnknownField(name, known) => {
            if error.path.last().map(String::as_str) != Some(name.as_str()) {
                option = if option.is_empty() { name } else { format!("{option}.{name}") };
            }
            let origin = origin(figment, &option);
            ConfigError::Unknown { option, origin, known: format!("known there: {}", known.join(", ")) }
        }
        kind => {
            let origin = error.metadata.as_ref().map_or_else(|| origin(figment, &option), describe);
            let problem = if is_near_secrets(&option) { SECRET_PROBLEM.to_owned() } else { kind.to_string() };
            ConfigError::Invalid { option, origin, problem }
        }
    }
}

/// Whether what is written at `option` may be a secret, or hold one: a slip of the pen turns a whole list into text.
fn is_near_secrets(option: &str) -> bool {
    let section = option.split('.').next().unwrap_or_default();
    (["", "users", "tls"].contains(&section) || option == "store" || option == "store.url")
        && option != "tls.client_cert" // a word of three
}

/// The configuration file. figment's own provider takes a missing file for an empty one; an operator who names a file
/// wants it read.
struct FileText {
    path: PathBuf,
    dict: Dict,
}

impl FileText {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            named_by: "--config".to_owned(),
            source,
        })?;
        let dict = Toml::from_str::<Dict>(&text)
            .map_err(|error| ConfigError::Syntax { path: path.to_owned(), problem: one_line(&error.to_string()) })?;
        Ok(Self { path: path.to_owned(), dict })
    }
}

/// The place and the reason, without the excerpt between them.
fn one_line(text: &str) -> String {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.contains('|'));
    let first = lines.next().unwrap_or_default().trim().replace("TOML parse error ", "");
    lines.next_back().map_or_else(|| first.clone(), |last| format!("{first}: {}", last.trim()))
}

impl Provider for FileText {
    fn metadata(&self) -> Metadata {
        Metadata::from("configuration file", self.path.as_path())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}
