//! The project's own files, for tests that read the source or hold a page to what it is written from.

use std::path::{Path, PathBuf};

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file with this ending below a folder of the project, in order.
pub fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let (mut waiting, mut found) = (vec![root().join(folder)], vec![]);
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every file of ours that is compiled into the service.
pub fn sources() -> Vec<PathBuf> {
    [files("src", "rs"), files("crates", "rs")].concat()
}

/// Checks that a file is what the tests make of what they know; writes it first where the environment has this variable.
pub fn hold(file: &str, made: &str, variable: &str, target: &str) {
    let path = root().join(file);
    if std::env::var_os(variable).is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == made, "{file} is not what the table says; write it: make {target}");
}
