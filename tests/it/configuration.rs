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

/// A start that must fail, or must not come to that, with what it says.
fn serve(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
    command.current_dir(directory).args(["serve", "--listen", "127.0.0.1:0"]).args(arguments);
    command.envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn what_cannot_be_meant_is_refused_with_how_to_write_it() {
    let directory = TempDir::new().unwrap();
    let secret = "--bootstrap-client-secret=a secret of thirty-two characters or more";
    for (arguments, words) in [
        (&["--public-url", "foo"][..], &["--public-url", "https://sessions.example.com"][..]),
        (&["--public-url", "ftp://x"], &["neither http nor https"]),
        (&["--public-url", "https://x/?a=b"], &["no user, query or fragment"]),
        (&["--public-url", "https://me:pass@x/"], &["no user, query or fragment"]),
        (&["--bootstrap-client-id", "an id", secret], &["without spaces and colons"]),
        (&["--bootstrap-client-id", "an:id", secret], &["without spaces and colons"]),
        (&["--listen", ":80000"], &["80000 is no port", "0 to 65535"]),
        (&["--listen", ":8080"], &["127.0.0.1:8080", "0.0.0.0:8080"]),
        (&["--listen", "8080"], &["127.0.0.1:8080"]),
        (&["--listen", "127.0.0.1"], &["a port is missing", "127.0.0.1:8080"]),
        (&["--listen", "example.com:8080"], &["not a name"]),
        (&["--listen", "::1"], &["[::1]:8080"]),
        (&["--metrics-listen", ":80000"], &["80000 is no port"]),
        (&["--trusted-proxy", "proxy.example.com"], &["10.0.0.1, 10.0.0.0/8"]),
        (&["--trusted-proxy", "10.0.0.0/33"], &["10.0.0.1, 10.0.0.0/8"]),
        (&["--allow-origin", "app.example.com"], &["https://app.example.com"]),
        (&["--allow-origin", "https://app.example.com/path"], &["as browsers send them"]),
    ] {
        let output = serve(directory.path(), arguments, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn an_address_alone_is_a_network_of_one_and_localhost_is_this_machine() {
    let directory = TempDir::new().unwrap();
    let one = "10.0.0.1";
    let networks = ["trusted-proxy", "allow-upstream", "webhook-allow", "issuer-allow", "allow-machine"];
    let mut arguments = vec!["--listen".to_owned(), "localhost:8080".to_owned()];
    arguments.extend(networks.iter().flat_map(|name| [format!("--{name}"), one.to_owned()]));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    text(&config(directory.path(), &arguments, &[]));
}

#[test]
fn a_variable_that_is_no_option_is_named_with_the_one_that_may_be_meant() {
    let directory = TempDir::new().unwrap();
    let output =
        serve(directory.path(), &[], &[("SESSIOND_LISTNE", "127.0.0.1:1"), ("SESSIOND_ELEPHANT", "1")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for word in ["SESSIOND_LISTNE (did you mean SESSIOND_LISTEN?)", "SESSIOND_ELEPHANT"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    // What Kubernetes sets for a service of this name is nobody's mistake.
    let environment =
        [("SESSIOND_SERVICE_HOST", "10.0.0.1"), ("SESSIOND_PORT_8080_TCP", "tcp://10.0.0.1:8080")];
    text(&config(directory.path(), &[], &environment));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hardly_meant_is_said_and_done() {
    use crate::support::Daemon;
    use crate::support::daemon::command;
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &["--idle-after", "20m", "--token-lifetime", "48h"]);
    for words in [
        "--idle-after is 20m, longer than --stale-after with 15m",
        "--token-lifetime is 2d, longer than --absolute-lifetime with 1d",
    ] {
        assert!(daemon.log().contains(words), "{words}: {}", daemon.log());
    }
    let unused = "--bootstrap-client-id and its secret are not used";
    assert!(daemon.terminate().success());
    // The same ones again are those that were used; others are not.
    let daemon = Daemon::start(directory.path(), &[]);
    assert!(!daemon.log().contains(unused) && !daemon.log().contains("longer than"), "{}", daemon.log());
    assert!(daemon.terminate().success());
    let mut other = command(directory.path(), &[]);
    other.env("SESSIOND_BOOTSTRAP_CLIENT_SECRET", "another secret of thirty-two characters or more");
    let daemon = Daemon::spawn(other);
    assert!(daemon.log().contains(unused), "{}", daemon.log());
    assert!(daemon.terminate().success());
}
