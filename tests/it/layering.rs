//! A module imports modules of lower layers only: never a sibling on its own layer, never one above.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The layers of ARCHITECTURE.md, the lowest first.
const LAYERS: [&[&str]; 9] = [
    &["types"],
    &["codec", "config", "db", "tasks", "telemetry"],
    &["broker", "election", "persistence"],
    &["engine"],
    &["session"],
    &["console", "server"],
    &["node"],
    &["doctor"],
    &["cli"],
];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The first name of each path in `{a::b, c::{d, e}}`.
fn heads_of_group(text: &str) -> Vec<String> {
    let (mut depth, mut at_head, mut heads) = (0, false, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => {
                depth += 1;
                at_head = depth == 1;
            }
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' => at_head = depth == 1,
            c if at_head && !c.is_whitespace() => {
                heads.push(identifier(&text[at..]).to_owned());
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

/// Every module of the crate's root that a file names, by `crate::` or by as many `super::` as lead there.
fn imports(text: &str, depth: usize) -> Vec<String> {
    let text = without_comments(text);
    let mut found = Vec::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in text.match_indices(&root) {
            if text[..at].ends_with("super::") {
                continue;
            }
            let rest = &text[at + root.len()..];
            if rest.starts_with('{') {
                found.extend(heads_of_group(rest));
            } else {
                found.push(identifier(rest).to_owned());
            }
        }
    }
    found
}

/// `src/engine/task.rs` is the module `engine::task`, two below the root.
fn module_path(root: &Path, file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(root).unwrap().with_extension("");
    let mut path = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect::<Vec<_>>();
    path.pop_if(|last| last == "mod");
    path
}

#[test]
fn a_module_imports_lower_layers_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = BTreeMap::new();
    for file in files {
        let path = module_path(&root, &file);
        let module = path[0].as_str();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let layer = layer_of(module).unwrap_or_else(|| panic!("give the module {module} a layer in this test"));
        for import in imports(&fs::read_to_string(&file).unwrap(), path.len()) {
            if import != module && layer_of(&import).is_some_and(|below| below >= layer) {
                wrong.entry(path.join("::")).or_insert_with(Vec::new).push(import);
            }
        }
    }
    assert!(wrong.is_empty(), "these modules import siblings on their own layer, or above: {wrong:#?}");
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "
        use crate::{
            config::{Config, tasks},
            engine::EngineHandle, // crate::cli in a comment
            types,
        };
        use crate::session::serve;
        use super::super::broker::Core;
        fn f() { crate::node::run() }
        pub(crate) fn g() {}
    ";
    assert_eq!(imports(text, 2), ["config", "engine", "types", "session", "node", "broker"]);
    assert!(imports("use super::super::options;", 3).is_empty(), "still within its own module");
}
