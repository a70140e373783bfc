//! The document and generators: clients are made of it without a warning, and work.

use std::process::Command;

use serde_json::{Value, json};

use super::UNKNOWN;
use crate::support::Server;

/// Runs a command of `tests/clients` to its end and returns what it printed.
async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{complaint}\n(`make clients` installs what this needs)");
    printed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_typescript_client_lists_gets_and_revokes() {
    let root = env!("CARGO_MANIFEST_DIR");
    let directory = tempfile::TempDir::new().unwrap();
    let document = directory.path().join("openapi.yaml");
    std::fs::write(&document, sessiond::http::openapi_yaml()).unwrap();
    let mut generate = Command::new("sh");
    generate.arg(format!("{root}/tests/clients/generate_client.sh")).env("OPENAPI", &document);
    let said = run(generate).await.to_lowercase();
    assert!(!said.contains("warn") && !said.contains('⚠'), "{said}");

    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(3).await;
    let (application, token) = (agents[0].application.clone(), server.token("management:all").await);
    let base = server.url("");
    let call = async |arguments: &[&str]| -> Value {
        let mut node = Command::new("node");
        node.arg(format!("{root}/target/clients/typescript/js/ts_client.js")).args(arguments);
        node.env("SESSIOND_URL", &base).env("SESSIOND_TOKEN", &token);
        serde_json::from_str(&run(node).await).unwrap()
    };
    let listed = call(&["list", &application, r#"{"status":"active","limit":2}"#]).await;
    assert_eq!(listed["status"], 200, "{listed}");
    assert_eq!(listed["data"]["items"].as_array().unwrap().len(), 2);
    let got = call(&["get", &application, &agents[0].id]).await;
    assert_eq!(got["data"], operator.get(&agents[0].path()).await.1);
    for (kind, count) in [(got["data"]["session"]["kind"].as_str().unwrap(), 3), ("terminal", 0)] {
        let filter = json!({ "kind": kind }).to_string();
        let listed = call(&["list", &application, &filter]).await;
        assert_eq!(listed["data"]["items"].as_array().unwrap().len(), count, "{listed}");
    }
    let missing = call(&["get", &application, UNKNOWN]).await;
    assert_eq!(
        (&missing["status"], &missing["error"]["message"]),
        (&json!(404), &json!("Session not found"))
    );
    let revoked = call(&["revokeAll", &application]).await;
    assert_eq!(
        (&revoked["status"], &revoked["data"]["disconnectedCount"]),
        (&json!(200), &json!(3)),
        "{revoked}"
    );
    let (_, left) = operator.get(&format!("/api/v1/applications/{application}/sessions")).await;
    assert_eq!(left["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_is_generated_without_a_warning_and_lists_by_kind() {
    let root = env!("CARGO_MANIFEST_DIR");
    let directory = tempfile::TempDir::new().unwrap();
    let document = directory.path().join("openapi.yaml");
    std::fs::write(&document, sessiond::http::openapi_yaml()).unwrap();
    let programs = format!("{root}/tests/clients/.venv/bin");
    // It formats what it writes with the program beside it.
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut generate = Command::new(format!("{programs}/openapi-python-client"));
    generate.args(["generate", "--fail-on-warning", "--meta", "none", "--path"]).arg(&document);
    generate.arg("--output-path").arg(directory.path().join("sessiond_client")).env("PATH", path);
    let said = run(generate).await.to_lowercase();
    assert!(!said.contains("warn") && !said.contains("error"), "{said}");

    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(2).await;
    let kind = operator.get(&agents[0].path()).await.1["session"]["kind"].as_str().unwrap().to_owned();
    let mut python = Command::new(format!("{programs}/python"));
    python.arg(format!("{root}/tests/clients/py_client.py")).args([&agents[0].application, &kind, UNKNOWN]);
    python.env("PYTHONPATH", directory.path()).env("SESSIOND_URL", server.url(""));
    python.env("SESSIOND_TOKEN", server.token("management:all").await);
    let said: Value = serde_json::from_str(&run(python).await).unwrap();
    assert_eq!(said, json!({ "all": 2, "terminals": 0, "missing": [404, "not_found"] }));
}
