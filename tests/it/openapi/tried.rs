//! The document and the service, held against each other by Schemathesis, which others wrote. `make clients` installs it.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::Server;

/// Operations that it does not ask for, and why.
const NOT_ASKED: [(&str, &str); 4] = [
    ("agentSessions.events", "a feed does not end"),
    ("agent.events", "a feed does not end"),
    ("terminals.testMachine", "a machine that is not there is 502, and to it that is a fault of the server"),
    ("terminals.createSession", "the same"),
];

/// Checks that it does not make, and why.
const NOT_CHECKED: [(&str, &str); 2] = [
    (
        "positive_data_acceptance",
        "rules that no schema says: URLs that are allowed, cron expressions, moments in the future, one's own ids",
    ),
    (
        "ignored_auth",
        "it takes what asks for no credential for what ignores one; the matrix of rights asks without",
    ),
];

/// The operations that would end the key that all others are asked with; as one pattern.
const ENDS_KEYS: &str = "apiKeys\\.(revoke|rotateSecret)";

/// Checks that the media surface is to fail, because it does as OvenMediaEngine does: what is not described is 404, and
/// anybody may ask by OPTIONS. Its actions share a route with what they are of.
const NOT_OF_MEDIA: &str = "unsupported_method,allow_header_conformance";

/// Asks for operations with a credential, and fails with all that was found.
async fn tried(server: &Server, headers: &[String], which: &[&str], not_checked: &str) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/.venv/bin/schemathesis");
    assert!(program.exists(), "run `make clients` first: it installs what this test speaks with");
    let mut command = Command::new(program);
    command.arg("run").arg(server.url("/openapi.json"));
    for header in headers {
        command.args(["--header", header]);
    }
    command.args(["--checks", "all"]).args(which);
    let checks = format!("{},{not_checked}", NOT_CHECKED.map(|(check, _)| check).join(","));
    let checks = checks.trim_end_matches(',').to_owned();
    command.args(["--exclude-checks", &checks]);
    for (operation, _) in NOT_ASKED {
        command.args(["--exclude-operation-id", operation]);
    }
    // Bounded, and the same each time.
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "8", "--seed", "1"]);
    // One worker: before 3.11.8, CPython fails at random where two threads parse Python, as Hypothesis does (gh-106905).
    command.args([
        "--workers",
        "1",
        "--continue-on-failure",
        "--no-shrink",
        "--warnings",
        "off",
        "--no-color",
    ]);
    // What it would remember of one run for the next has no place in the repository.
    command.current_dir(server.directory.path()).env("PYTHONUTF8", "1");
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_that_is_not_as_the_document_says() {
    let server = Server::start().await;
    let operator = server.holder(server.token("management:all platform:admin mcp:invoke").await);
    // Keys, because no revocation bars them, and no service account that is archived or given a new secret takes them along.
    let scopes = ["management:all", "platform:admin", "mcp:invoke", "session", "terminal"];
    let body = json!({ "name": "tried", "scopes": scopes });
    let (_, made) = operator.post("/api/v1/api-keys", body.clone()).await;
    let (_, spare) = operator.post("/api/v1/api-keys", body).await;
    let key = server.holder(made["key"].as_str().unwrap());
    // Each surface with the header of its own: two credentials at once are refused.
    let bearer = |token: &str| [format!("Authorization: Bearer {token}")];
    let text = key.token.clone().unwrap();
    let others =
        ["--exclude-operation-id-regex", ENDS_KEYS, "--exclude-tag", "media", "--exclude-tag", "workloads"];
    tried(&server, &bearer(&text), &others, "").await;
    tried(&server, &[format!("apiKey: {text}")], &["--include-tag", "workloads"], "").await;
    assert_eq!(key.get("/api/v1/applications").await.0, 200, "it was asked with a good key to the end");
    tried(&server, &bearer(spare["key"].as_str().unwrap()), &["--include-operation-id-regex", ENDS_KEYS], "")
        .await;
    let body = json!({ "name": "tried", "scopes": ["media"] });
    let (_, media) = key.post("/api/v1/api-keys", body).await;
    let basic = crate::media::basic(media["key"].as_str().unwrap());
    tried(&server, &[format!("Authorization: {basic}")], &["--include-tag", "media"], NOT_OF_MEDIA).await;
}
