//! Lists as files: whole, in any format, and provably so.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Agent, Holder, Server};

/// Sessions of which an export takes a while.
const MANY: usize = 12_000;

async fn text(holder: &Holder, path: &str) -> String {
    let answer = holder.send(Method::GET, path, None).await;
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    text
}

/// The lines of a file and its manifest, which has to be true.
fn whole(file: &str) -> (Vec<Value>, Value) {
    let body = file.trim_end_matches('\n');
    let (before, last) = body.rsplit_once('\n').map_or(("", body), |(before, last)| (before, last));
    let manifest = serde_json::from_str::<Value>(last).unwrap()["manifest"].clone();
    let lines: Vec<Value> = before.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(manifest["count"], lines.len(), "{manifest}");
    let hashed = if before.is_empty() { String::new() } else { format!("{before}\n") };
    assert_eq!(manifest["sha256"], hex::encode(Sha256::digest(hashed)), "{manifest}");
    (lines, manifest)
}

async fn walk(holder: &Holder, list: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (vec![], String::new());
    loop {
        let (status, body) = holder.get(&format!("{list}&limit=100{cursor}")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        found.extend(body["items"].as_array().unwrap().iter().cloned());
        let Some(next) = body["nextCursor"].as_str() else { return found };
        cursor = format!("&cursor={next}");
    }
}

/// Agents of which some have ended; their names are hard on formats.
async fn agents(operator: &Holder, count: usize) -> Vec<Agent> {
    let names = ["=1+1", "a \"quoted\", name", "a, b; c", "@sum", "plain", "größer 😀"];
    let connect = |number: usize| {
        let (name, host) = (names[number % names.len()], ["laptop", "desk"][number % 2]);
        operator.connect(json!({ "name": name, "hostname": host }))
    };
    let agents = join_all((0..count).map(connect)).await;
    for agent in agents.iter().step_by(3) {
        agent.call("disconnect").await;
    }
    agents
}

#[tokio::test]
async fn an_export_has_what_the_list_has_and_its_manifest_proves_it() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = agents(&operator, 130).await;
    let tip = server.look_inside().await.number("select max(position) from event", &[]).await;
    let one = format!("/api/v1/applications/{}/sessions", agents[0].application);
    for (list, query) in [
        (one.as_str(), "status=all"),
        (one.as_str(), "status=disconnected"),
        (one.as_str(), "hostname=desk"),
        ("/api/v1/sessions", "includeInactive=true"),
        ("/api/v1/sessions", "status=all&asOf=60"),
        ("/api/v1/sessions", "hostname=nowhere"),
    ] {
        let listed = walk(&operator, &format!("{list}?{query}&sort=created")).await;
        let file = text(&operator, &format!("{list}/export?{query}")).await;
        let (lines, manifest) = whole(&file);
        assert_eq!(lines, listed, "{list} {query}");
        assert_eq!(manifest["position"], if query.contains("asOf") { 60 } else { tip }, "{manifest}");
    }
    let (events, _) = whole(&text(&operator, "/api/v1/events/export").await);
    assert_eq!(events, walk(&operator, "/api/v1/events?").await);
    let (ended, _) = whole(&text(&operator, "/api/v1/events/export?types=disconnected").await);
    assert_eq!(ended.len(), 44);
    let (history, _) =
        whole(&text(&operator, &format!("{}/history/export?activity=true", agents[0].path())).await);
    assert_eq!(history, walk(&operator, &format!("{}/history?activity=true", agents[0].path())).await);
    // Whoever may see nothing of it gets none of it.
    let other = server.another_organization().await;
    let answer = other.send(Method::GET, &format!("{one}/export"), None).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let (lines, _) = whole(&text(&other, "/api/v1/sessions/export?status=all").await);
    assert_eq!(lines, Vec::<Value>::new());
}

#[tokio::test]
async fn an_export_that_broke_off_goes_on_after_its_last_line() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = agents(&operator, 50).await;
    let sessions = "/api/v1/sessions/export?status=all";
    let (all, _) = whole(&text(&operator, sessions).await);
    let id = all[20]["id"].as_str().unwrap();
    let (rest, manifest) = whole(&text(&operator, &format!("{sessions}&after={id}")).await);
    assert_eq!(rest, all[21..]);
    assert_eq!(manifest["count"], 29);
    let (all, _) = whole(&text(&operator, "/api/v1/events/export").await);
    let (rest, _) =
        whole(&text(&operator, &format!("/api/v1/events/export?after={}", all[30]["position"])).await);
    assert_eq!(rest, all[31..]);
    let history = format!("{}/history/export", agents[0].path());
    let (all, _) = whole(&text(&operator, &history).await);
    let (rest, _) = whole(&text(&operator, &format!("{history}?after={}", all[0]["position"])).await);
    assert_eq!(rest, all[1..]);
    for (path, field) in [
        (format!("{sessions}&after=7"), "after"),
        (format!("{sessions}&format=xml"), "format"),
        (format!("{sessions}&limit=7"), "limit"),
        ("/api/v1/events/export?after=x".to_owned(), "cursor"),
        (format!("{history}?after=-1"), "after"),
    ] {
        let (status, body) = operator.get(&path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {body}");
        assert!(body.to_string().contains(field), "{path}: {body}");
    }
}

/// What Python's `csv` makes of a table: its rows as objects, and the manifest.
fn read_by_python(table: &str) -> (Vec<Value>, Value) {
    const SCRIPT: &str = "import csv, io, json, sys, hashlib\n\
        raw = sys.stdin.buffer.read()\n\
        rows = list(csv.reader(io.StringIO(raw.decode(), newline=''), strict=True))\n\
        assert all(len(row) == len(rows[0]) for row in rows), 'each row has as many cells'\n\
        manifest = json.loads(rows[-1][1])\n\
        before = raw[:raw.rindex(b'#manifest')]\n\
        assert hashlib.sha256(before).hexdigest() == manifest['sha256'], 'the manifest is true'\n\
        assert rows[-1][0] == '#manifest' and len(rows) - 2 == manifest['count']\n\
        print(json.dumps({'rows': [dict(zip(rows[0], row)) for row in rows[1:-1]], 'manifest': manifest}))\n";
    let mut python = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    (read["rows"].as_array().unwrap().clone(), read["manifest"].clone())
}

#[tokio::test]
async fn a_table_is_read_by_others_and_holds_no_formula() {
    let server = Server::start().await;
    let operator = server.operator().await;
    agents(&operator, 40).await;
    let (lines, _) = whole(&text(&operator, "/api/v1/sessions/export?status=all").await);
    let (rows, manifest) =
        read_by_python(&text(&operator, "/api/v1/sessions/export?status=all&format=csv").await);
    assert_eq!(rows.len(), lines.len());
    assert_eq!(manifest["count"], 40);
    for (row, line) in rows.iter().zip(&lines) {
        assert_eq!(row["id"], line["id"]);
        let name = line["name"].as_str().unwrap();
        let defused = if name.starts_with(['=', '@']) { format!("'{name}") } else { name.to_owned() };
        assert_eq!(row["name"], defused);
        assert_eq!(row["requests"], line["activity"]["requests"].to_string());
        assert_eq!(row["suspended"], "false");
        assert_eq!(row["disconnectReason"], line["disconnectReason"].as_str().unwrap_or(""));
    }
    let (rows, _) = read_by_python(&text(&operator, "/api/v1/events/export?format=csv").await);
    let (lines, _) = whole(&text(&operator, "/api/v1/events/export").await);
    let events: Vec<Value> =
        rows.iter().map(|row| serde_json::from_str(row["event"].as_str().unwrap()).unwrap()).collect();
    assert_eq!(events, lines);
    // An empty table has its columns and its manifest.
    let (rows, _) =
        read_by_python(&text(&operator, "/api/v1/sessions/export?hostname=none&format=csv").await);
    assert!(rows.is_empty());
}

#[tokio::test]
async fn whoever_takes_gzip_gets_it_and_others_do_not() {
    let server = Server::start().await;
    let operator = server.operator().await;
    agents(&operator, 60).await;
    let path = "/api/v1/sessions/export?status=all";
    let plain = text(&operator, path).await;
    let ask = async |accepted: &str| {
        let request = operator.http.get(server.url(path)).bearer_auth(operator.token.as_ref().unwrap());
        request.header("accept-encoding", accepted).send().await.unwrap()
    };
    let answer = ask("br, gzip;q=0.8").await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    assert_eq!(answer.headers()["content-disposition"], "attachment; filename=\"sessions.ndjson\"");
    let bytes = answer.bytes().await.unwrap();
    assert!(bytes.len() * 3 < plain.len(), "{} of {}", bytes.len(), plain.len());
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(bytes.as_ref()).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
    for refused in ["identity", "gzip;q=0", "br"] {
        assert!(!ask(refused).await.headers().contains_key("content-encoding"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_with_its_credential_takes_a_place_meanwhile_and_is_then_not_whole() {
    let server = Server::with(&["--max-exports", "1"]).await;
    let operator = server.operator().await;
    for _ in 0..MANY / 500 {
        operator.connect_many(500).await;
    }
    let path = "/api/v1/sessions/export";
    let (lines, _) = whole(&text(&operator, path).await);
    assert_eq!(lines.len(), MANY);

    let reader = server.holder(server.token("management:all").await);
    let answer = reader.send(Method::GET, path, None).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let mut pieces = answer.bytes_stream();
    let mut taken = pieces.next().await.unwrap().unwrap().to_vec();
    // It is not read on, so it is under way, and there is no place for another.
    let busy = operator.send(Method::GET, path, None).await;
    assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(busy.headers().contains_key("retry-after"));
    assert!(busy.text().await.unwrap().contains("1 exports are under way"));
    let form = [("token", reader.token.clone().unwrap())];
    let revoke = server.stranger().http.post(server.url("/oauth2/revoke"));
    let revoked =
        revoke.basic_auth(crate::support::CLIENT_ID, Some(crate::support::CLIENT_SECRET)).form(&form);
    assert_eq!(revoked.send().await.unwrap().status(), StatusCode::OK);
    let mut broken = false;
    while let Some(piece) = tokio::time::timeout(Duration::from_secs(30), pieces.next()).await.unwrap() {
        match piece {
            Ok(piece) => taken.extend(piece),
            Err(_) => broken = true,
        }
    }
    assert!(broken, "the connection broke off");
    assert!(!String::from_utf8_lossy(&taken).contains("manifest"), "and nobody takes it for whole");
    // Its place is free again.
    server
        .until("there is a place", || async {
            operator.send(Method::GET, path, None).await.status() == StatusCode::OK
        })
        .await;
}
