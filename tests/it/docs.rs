//! What the documents say exists.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use batonmq::cli::EXIT_CODES;

use crate::harness::{Broker, Script};

/// A document of the project.
pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The lines of a document's fenced blocks of this language.
pub(crate) fn fenced(document: &str, language: &str) -> Vec<String> {
    let (mut lines, mut inside) = (Vec::new(), false);
    for line in document.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(tag) if !inside => inside = tag.trim() == language,
            Some(_) => inside = false,
            None if inside => lines.push(line.to_owned()),
            None => {}
        }
    }
    lines
}

#[test]
fn the_first_screen_has_the_two_commands() {
    let readme = read("README.md");
    let first_screen = readme.lines().take(50).collect::<Vec<_>>().join("\n");
    assert_eq!(fenced(&first_screen, "sh"), ["cargo run --release", "tests/run"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run");
    let mode = fs::metadata(script).expect("the second command is there").permissions().mode();
    assert_ne!(mode & 0o111, 0, "tests/run is executable");
}

#[test]
fn the_first_message_of_the_readme_arrives() {
    let broker = Broker::start();
    let program = fenced(&read("README.md"), "python").join("\n");
    let address = broker.address();
    let there = format!("(\"{}\", {})", address.ip(), address.port());
    let program = program.replace("(\"127.0.0.1\", 61613)", &there);
    assert!(program.contains(&there), "the program connects to the default port");
    let file = tempfile::NamedTempFile::with_suffix(".py").unwrap();
    fs::write(file.path(), program).unwrap();
    let mut script = Script::python(file.path().to_str().unwrap(), address, &[]);
    script.wait_for("Hello, baton!");
    assert_eq!(script.line(), None, "it disconnects and ends");
}

#[test]
fn every_batonmq_command_in_the_documents_exists() {
    for document in
        ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "docs/databases.md", "docs/journal.md", "docs/metrics.md"]
    {
        for line in fenced(&read(document), "console") {
            let Some(command) = line.strip_prefix("$ batonmq") else { continue };
            let words = command.split_whitespace().take_while(|word| !matches!(*word, "<" | "|" | "#"));
            let subcommands = words.take_while(|word| !word.starts_with('-')).filter(|word| !word.contains('/'));
            let asked = Command::new(env!("CARGO_BIN_EXE_batonmq")).args(subcommands).arg("--help").output().unwrap();
            assert!(asked.status.success(), "{document}: {line}");
            let help = String::from_utf8(asked.stdout).unwrap();
            let flags = command.split_whitespace().filter(|word| word.starts_with("--"));
            flags.for_each(|flag| assert!(help.contains(flag), "{document}: {line}: no {flag}"));
        }
    }
}

/// The rules that a text names: an `R` and digits, alone.
fn rules(text: &str) -> BTreeSet<u32> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(|word| word.strip_prefix('R')?.parse().ok()).collect()
}

fn rules_below(directory: &Path, rules_found: &mut BTreeSet<u32>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rules_below(&path, rules_found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            rules_found.extend(rules(&fs::read_to_string(path).unwrap()));
        }
    }
}

#[test]
fn architecture_tells_every_rule_that_the_code_names() {
    let architecture = read("ARCHITECTURE.md");
    let told = architecture.lines().filter_map(|line| line.strip_prefix("- **R")?.split("**").next()?.parse().ok());
    let told = told.collect::<BTreeSet<u32>>();
    let mut named = BTreeSet::new();
    for below in ["src", "tests"] {
        rules_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(below), &mut named);
    }
    assert!(named.is_subset(&told), "named in the code: {named:?}, told in ARCHITECTURE.md: {told:?}");
}

#[test]
fn the_readme_has_the_exit_codes_of_the_program() {
    let readme = read("README.md");
    for line in EXIT_CODES.lines().skip(1) {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        let row = format!("| {code} | {} |", meaning.trim());
        assert!(readme.contains(&row), "README.md lacks the row: {row}");
    }
}
