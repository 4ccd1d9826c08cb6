//! The suites call every function of the store.

use std::path::Path;

#[test]
fn every_store_function_is_called() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests: String = files(&root.join("tests/it/store")).into_iter().map(|(_, text)| text).collect();
    let mut uncalled = Vec::new();
    for (module, text) in files(&root.join("src/store")) {
        for line in text.lines() {
            let Some(rest) = line.trim_start().strip_prefix("pub async fn ") else { continue };
            let name = rest.split(['(', '<']).next().unwrap();
            let is_called = if module == "db" {
                tests.contains(&format!(".{name}(")) || tests.contains(&format!("Db::{name}("))
            } else {
                tests.contains(&format!("{module}::{name}("))
            };
            if !is_called {
                uncalled.push(format!("{module}::{name}"));
            }
        }
    }
    assert!(uncalled.is_empty(), "no test of the store calls {uncalled:?}");
}

fn files(folder: &Path) -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}
