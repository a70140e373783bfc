//! `make run-cluster`, as somebody tries it who has never seen it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::tree::root;

/// Five ports in a row that nobody has, for now.
fn ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let free =
            (first..=first.saturating_add(4)).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        if free && first < u16::MAX - 4 {
            return first;
        }
    }
}

#[test]
fn what_the_cluster_says_to_try_works_and_it_leaves_nothing_running() {
    let directory = TempDir::new().unwrap();
    let port = ports();
    for run in 0..2 {
        let mut cluster = Command::new(root().join("cluster/run"))
            .args([env!("CARGO_BIN_EXE_sessiond"), directory.path().to_str().unwrap()])
            .env("PORT", port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        for line in BufReader::new(cluster.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let last = line.starts_with("Ctrl-C");
            said += &(line + "\n");
            if last {
                break;
            }
        }
        let (_, to_try) = said.split_once("In another terminal:\n").unwrap_or_else(|| panic!("{said}"));
        let (to_try, _) = to_try.split_once("Ctrl-C").unwrap();
        let tried = Command::new("bash").args(["-euc", to_try]).output().unwrap();
        let told = String::from_utf8_lossy(&tried.stdout).into_owned();
        assert!(tried.status.success(), "run {run}: {told} {}", String::from_utf8_lossy(&tried.stderr));
        assert!(told.contains("HTTP/1.1 200 OK"), "{told}");
        // The lease of the one that was killed in the run before may not have run out.
        assert!(told.contains(r#""acknowledged":3,"expired":"#), "{told}");
        assert_eq!(told.matches(r#""code":"session_revoked""#).count(), 3, "{told}");
        assert!(told.contains(r#""name":"goes on""#), "{told}");
        assert!(Command::new("kill").args(["-TERM", &cluster.id().to_string()]).status().unwrap().success());
        cluster.wait().unwrap();
        for port in port..=port + 4 {
            TcpListener::bind(("127.0.0.1", port))
                .unwrap_or_else(|error| panic!("{port} is still taken: {error}"));
        }
    }
}
