//! Holds the import table: which module may use which, and which crates are whose alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each module may use, beside itself. `cli` and `main` may use everything.
const TABLE: &[(&str, &[&str])] = &[
    ("api", &["app", "domain", "clock", "config", "telemetry"]),
    ("app", &["store", "executor", "objects", "metrics", "search", "domain", "clock", "config", "telemetry"]),
    ("scheduler", &["store", "executor", "objects", "search", "metrics", "domain", "clock", "config", "telemetry"]),
    ("store", &["domain", "clock", "config", "telemetry"]),
    ("executor", &["domain", "clock", "config", "telemetry"]),
    ("objects", &["domain", "clock", "config", "telemetry"]),
    ("search", &["domain"]),
    ("metrics", &["domain"]),
    ("domain", &[]),
    ("clock", &["domain"]),
    ("config", &["domain"]),
    ("telemetry", &["config"]),
];

/// Crates that only one part of the tree may name.
const OWNED: &[(&str, &str)] = &[
    ("sqlx", "store"),
    ("axum", "api"),
    ("object_store", "objects"),
    ("clap", "cli"),
    ("anyhow", "cli"),
    ("bollard", "executor/docker"),
    ("kube", "executor/kubernetes"),
];

/// Modules without async and I/O.
const PURE: &[&str] = &["domain", "search", "metrics"];
const IMPURE: &[&str] = &["tokio::", "std::fs::", "std::net::", "std::process::", "std::thread::", "async fn"];

#[test]
fn modules_use_only_what_the_table_grants() {
    let mut violations = Vec::new();
    for file in sources() {
        let Some((_, granted)) = TABLE.iter().find(|(module, _)| *module == file.module) else {
            let free = ["main", "cli", "lib"].contains(&file.module.as_str());
            assert!(free, "the module {} has no row in the import table", file.module);
            continue;
        };
        for used in modules_used(&file.text) {
            if used != file.module && !granted.contains(&used.as_str()) {
                violations.push(format!("{} uses crate::{used}", file.path.display()));
            }
        }
    }
    assert!(violations.is_empty(), "the import table grants none of these:\n{}", violations.join("\n"));
}

#[test]
fn crates_are_named_only_by_their_owners() {
    let mut violations = Vec::new();
    for file in sources() {
        let names =
            |name: &str| positions(&file.text, name).any(|rest| rest.starts_with("::") || rest.starts_with(';'));
        for (name, owner) in OWNED {
            if names(name) && !file.path.starts_with(owner) {
                violations.push(format!("{} names {name}, which is {owner}'s alone", file.path.display()));
            }
        }
        for word in IMPURE.iter().filter(|_| PURE.contains(&file.module.as_str())) {
            if production(&file.text).contains(word) {
                violations.push(format!("{} is pure and names {word}", file.path.display()));
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn every_import_form_is_read() {
    let text = "use crate::{api::{self, x}, store};\nuse crate::domain::{time, names};\nfn f() { crate::app::g(); }\n";
    let expected = ["api", "app", "domain", "store"].map(str::to_owned);
    assert_eq!(modules_used(text), BTreeSet::from(expected));
}

struct SourceFile {
    /// Relative to `src`.
    path: PathBuf,
    /// The top-level module.
    module: String,
    /// Without comment lines.
    text: String,
}

fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let text =
                    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
                let path = path.strip_prefix(&root).unwrap().to_owned();
                let module = path.components().next().unwrap().as_os_str().to_str().unwrap();
                let module = module.trim_end_matches(".rs").to_owned();
                found.push(SourceFile { path, module, text });
            }
        }
    }
    assert!(found.len() > 30, "the sources were not found");
    found
}

/// The text before the file's tests.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

/// What follows each occurrence of `word` as a whole word.
fn positions<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = &'t str> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '"' || c == ':';
    text.match_indices(word)
        .filter(move |(at, _)| !text[..*at].ends_with(part_of_name))
        .map(move |(at, _)| &text[at + word.len()..])
}

/// The top-level modules that a file names by `crate::…`, grouped or not.
fn modules_used(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for rest in positions(text, "crate").filter_map(|rest| rest.strip_prefix("::")) {
        match rest.strip_prefix('{') {
            None => used.extend(leading_name(rest)),
            Some(group) => used.extend(group_members(group).filter_map(leading_name)),
        }
    }
    // `crate::Something` with a capital is an item of the root, not a module.
    used.retain(|name| name.starts_with(char::is_lowercase));
    used
}

fn leading_name(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The members of a `use` group, whose opening brace is already behind; members of inner groups are not its own.
fn group_members(group: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut end) = (1_usize, group.len());
    let mut starts = vec![0];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => starts.push(at + 1),
            _ => {}
        }
        if depth == 0 {
            end = at;
            break;
        }
    }
    starts.into_iter().map(move |start| &group[start..end.max(start)])
}
