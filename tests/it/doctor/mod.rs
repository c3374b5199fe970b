//! What `batonmq doctor` finds, in stores that are well and in stores that are not.

mod files;
#[cfg(feature = "mysql")]
mod mariadb;
#[cfg(feature = "postgres")]
mod pooler;
#[cfg(feature = "postgres")]
mod postgres;

use std::process::Command;

use serde_json::Value;

use crate::harness::{Broker, Settings};

/// What it found with these settings: its exit code, and each finding.
struct Found {
    code: i32,
    findings: Vec<Value>,
}

impl Found {
    fn with(settings: Settings) -> Self {
        Self::at(&Broker::prepare(settings))
    }

    /// With the configuration of this broker, whether it runs or not.
    fn at(broker: &Broker) -> Self {
        Self::told(doctor(broker, &["--json"]))
    }

    fn told((code, told): (i32, String)) -> Self {
        Self { code, findings: serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}")) }
    }

    /// What is said about a subject: how good, what, and what to do.
    fn about(&self, subject: &str) -> Vec<String> {
        let found = self.findings.iter().filter(|finding| finding["subject"] == subject);
        let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
        let told =
            |finding| format!("{} {}; {}", text(finding, "verdict"), text(finding, "says"), text(finding, "fix"));
        found.map(told).collect()
    }

    /// Something is said about the subject with these words.
    fn says(&self, subject: &str, verdict: &str, words: &[&str]) {
        let told = self.about(subject);
        let fits = |told: &&String| told.starts_with(verdict) && words.iter().all(|word| told.contains(word));
        assert!(told.iter().any(|told| fits(&told)), "{subject}: {verdict} {words:?} is not in {:#?}", self.findings);
    }

    /// Nothing but good is said.
    fn is_well(&self) {
        let is_ok = |finding: &Value| finding["verdict"] == "OK" && finding["fix"].is_null();
        assert!(self.code == 0 && self.findings.iter().all(is_ok), "{} {:#?}", self.code, self.findings);
    }
}

fn doctor(broker: &Broker, flags: &[&str]) -> (i32, String) {
    ask(Command::new(env!("CARGO_BIN_EXE_batonmq")), broker, flags)
}

fn ask(mut command: Command, broker: &Broker, flags: &[&str]) -> (i32, String) {
    let output = command.arg("doctor").arg("--config").arg(broker.write_config()).args(flags).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}
