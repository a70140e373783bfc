//! The configuration file: under flags and environment, above defaults.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// `sessiond config` in a directory of its own.
fn config(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
    command.current_dir(directory).arg("config").args(arguments);
    command.envs(environment.iter().copied()).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn flags_come_before_the_environment_that_before_the_file_and_that_before_defaults() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("sessiond.toml");
    let written = "idle-after = \"1m\"\nstale_after = 120\nrate-limit = 7\ninsecure-http = true\n\
                   allow-origin = [\"https://a.example\", \"https://b.example\"]\n\
                   bootstrap-client-id = \"one\"\nbootstrap-client-secret = \"hush hush hush hush hush hush hush\"\n";
    std::fs::write(&file, written).unwrap();
    let environment = [("SESSIOND_STALE_AFTER", "3m"), ("SESSIOND_RATE_LIMIT", "8")];
    let said = text(&config(directory.path(), &["--rate-limit", "9"], &environment));
    for line in [
        "idle-after = \"1m\" # sessiond.toml",
        "stale-after = \"3m\" # SESSIOND_STALE_AFTER",
        "rate-limit = 9 # flag",
        "insecure-http = true # sessiond.toml",
        "allow-origin = [\"https://a.example\", \"https://b.example\"] # sessiond.toml",
        "token-lifetime = \"1h\" # default",
        "bootstrap-client-secret = \"(redacted)\" # sessiond.toml",
        "# tls-key is not set",
    ] {
        assert!(said.lines().any(|one| one == line), "{line}:\n{said}");
    }
    assert!(!said.contains("hush"));
    let mut help = Command::new(env!("CARGO_BIN_EXE_sessiond"));
    let help = text(&help.current_dir(directory.path()).args(["serve", "--help"]).output().unwrap());
    assert!(help.contains("[default: 1m]") && !help.contains("hush"), "{help}");
    std::fs::rename(&file, directory.path().join("other.toml")).unwrap();
    assert!(text(&config(directory.path(), &[], &[])).contains("idle-after = \"5m\" # default"));
    let named = text(&config(directory.path(), &["--config", "other.toml"], &[]));
    assert!(named.contains("idle-after = \"1m\" # other.toml"), "{named}");
    let named = text(&config(directory.path(), &[], &[("SESSIOND_CONFIG", "other.toml")]));
    assert!(named.contains("idle-after = \"1m\" # other.toml"), "{named}");
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_a_suggestion() {
    let directory = TempDir::new().unwrap();
    for (written, words) in [
        ("idel-after = \"1m\"", &["unknown key \"idel-after\"", "did you mean \"idle-after\"?"][..]),
        ("colour = \"red\"", &["unknown key \"colour\"", "config --example"][..]),
        ("idle-after = \"soon\"", &["idle-after", "is not a duration"][..]),
        ("listen = \"here\"", &["listen", "invalid"][..]),
        ("insecure-http = \"yes\"", &["insecure-http", "true or false"][..]),
        ("idle-after = [\"1m\"]", &["idle-after", "array"][..]),
        ("idle-after", &["sessiond.toml"][..]),
    ] {
        std::fs::write(directory.path().join("sessiond.toml"), written).unwrap();
        let output = config(directory.path(), &[], &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{written}");
        for word in words.iter().chain(&["in sessiond.toml"]) {
            assert!(said.contains(word), "{written}: {word}: {said}");
        }
    }
    let output = config(directory.path(), &["--config", "none.toml"], &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("none.toml"), "{output:?}");
}

#[test]
fn the_database_of_the_file_is_that_of_every_command() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("sessiond.toml"), "database = \"sqlite:far/away.db\"").unwrap();
    for arguments in [&["verify"][..], &["rebuild"], &["organizations", "create", "x"], &["serve"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
        let output = command.current_dir(directory.path()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("far"), "{arguments:?}: {said}");
    }
}

#[test]
fn the_example_is_what_the_code_says_and_can_be_read() {
    let directory = TempDir::new().unwrap();
    let example = text(&config(directory.path(), &["--example"], &[]));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sessiond.example.toml");
    let written = std::fs::read_to_string(file).unwrap_or_default();
    assert!(example == written, "write it: make example");
    // Every line that is an option, made one, is accepted.
    let options: Vec<_> = example.lines().filter_map(|line| line.strip_prefix('#')).collect();
    let options: Vec<_> = options.into_iter().filter(|line| !line.starts_with(' ')).collect();
    assert!(options.len() > 20);
    let with_defaults = options
        .iter()
        .filter(|line| !line.contains("<") && !line.contains("= \"") || line.contains("= \"5m\""));
    let text_of_defaults: Vec<_> = with_defaults.filter(|line| !line.contains("[\"")).copied().collect();
    std::fs::write(directory.path().join("sessiond.toml"), text_of_defaults.join("\n")).unwrap();
    text(&config(directory.path(), &[], &[]));
}
