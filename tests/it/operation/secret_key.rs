//! Another secret key: nothing that was sealed is lost, people are who they were, and a kill leaves a place that starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::{done, killed, names, refused, take, url};
use crate::mcp::House;
use crate::mcp::upstream::Upstream;
use crate::support::{Daemon, Holder, Server, look_inside};

/// Columns of bytes that are no sealed secrets: ids, hashes of ours, keyed digests that are dealt with by themselves, and
/// what is derived from the log. A new column has to be here or be sealed anew.
const NOT_SEALED: &[&str] = &[
    "access_token.audience",
    "access_token.id",
    "access_token.secret_hash",
    "api_key_secret.before",
    "api_key_secret.id",
    "api_key_secret.secret_hash",
    "application.hash",
    "application.id",
    "client_secret.before",
    "client_secret.secret_hash",
    "cut.hash",
    "event.actor_id",
    "event.body_digest",
    "event.commit_hash",
    "event.hash",
    "gone.commit_hash",
    "gone.hash",
    "idempotency.fingerprint",
    "idempotency.key",
    "idempotency.salt",
    "item.hash",
    "item.id",
    "key_check.digest",
    "machine_secret.id",
    "mcp_session.id_hash",
    "organization.hash",
    "organization.id",
    "principal.kept_id",
    "principal.subject_digest",
    "revocation.hash",
    "revocation.id",
    "service_account.hash",
    "service_account.id",
    "session.credential",
    "session.hash",
    "session.id",
    "session.owner_id",
    "session_activity.hash",
    "session_token.secret_hash",
    "webhook_delivery.webhook",
    "webhook_progress.id",
    "webhook_secret.id",
];

/// Every column of bytes with what is in it.
async fn bytes(connection: &mut SqliteConnection) -> BTreeMap<String, BTreeSet<Vec<u8>>> {
    let columns = "select t.name, c.name from sqlite_schema t, pragma_table_info(t.name) c \
                   where t.type = 'table' and lower(c.type) = 'blob' and t.name not like '_sqlx%'";
    let columns: Vec<(String, String)> = sqlx::query_as(columns).fetch_all(&mut *connection).await.unwrap();
    let mut found = BTreeMap::new();
    for (table, column) in columns {
        let sql = format!("select {column} from {table} where {column} is not null and {column} <> x''");
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *connection).await.unwrap();
        let values = rows.iter().map(|row| row.get::<Vec<u8>, _>(0)).collect();
        found.insert(format!("{table}.{column}"), values);
    }
    found
}

struct Sealing {
    webhook: Uuid,
    hook: Uuid,
}

/// Has everything sealed that can be.
async fn seal_everything(house: &House, upstream: &Upstream) -> Sealing {
    let operator = &house.operator;
    let made = operator.post("/api/v1/webhooks", json!({ "url": "https://receiver.example/in" })).await;
    assert_eq!(made.0, StatusCode::CREATED, "{}", made.1);
    let webhook: Uuid = made.1["webhook"]["id"].as_str().unwrap().parse().unwrap();
    let rotated = operator.post(&format!("/api/v1/webhooks/{webhook}/rotate-secret"), json!({})).await;
    assert!(rotated.0.is_success(), "{}", rotated.1);
    let hook =
        operator.post("/api/v1/hooks", json!({ "name": "edge", "secret": "a-secret-of-a-hook" })).await.1;
    let key = operator.post("/api/v1/api-keys", json!({ "name": "t", "scopes": ["terminal"] })).await.1;
    let terminals = Holder { token: key["key"].as_str().map(str::to_owned), ..operator.clone() };
    let machine = json!({
        "name": "m", "host": "127.0.0.1", "port": 22, "user": "u",
        "credential": { "type": "password", "password": "p" },
    });
    let machine = terminals.post("/v1/machines", machine).await;
    assert!(machine.0.is_success(), "{}", machine.1);
    let credential = json!({ "type": "header", "name": "Authorization", "value": "Key secret" });
    house.set_upstream_with(&upstream.url, credential).await;
    Sealing { webhook, hook: hook["hook"]["id"].as_str().unwrap().parse().unwrap() }
}

async fn restarted(mut house: House, between: impl FnOnce(&Path, &str)) -> House {
    house.server.stop().await;
    between(house.server.directory.path(), &house.server.database());
    house.restart().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_another_key_everything_sealed_opens_and_people_are_who_they_were() {
    let (house, upstream) = House::with_fake(&[]).await;
    let sealing = seal_everything(&house, &upstream).await;
    let client = house.connect().await;
    for subject in ["ann", "bob"] {
        let body = json!({ "name": subject, "authenticatedUserId": subject });
        house.operator.connect(body).await;
    }
    let principals = house.operator.get("/api/v1/principals?limit=50").await.1["items"].clone();
    let id = |subject: &str| {
        let all = principals.as_array().unwrap();
        all.iter().find(|one| one["subject"] == subject).unwrap()["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(house.operator.delete(&format!("/api/v1/principals/{}/personal", id("bob"))).await.0, 200);
    let database = house.server.database();
    let said = refused(&["rotate-key", "--database", &database]);
    assert!(said.contains("stop it first"), "{said}");
    let before = bytes(&mut look_inside(&database).await).await;
    let old_key = fs::read_to_string(house.server.directory.path().join("sessiond.db.key")).unwrap();
    let house = restarted(house, |directory, database| {
        let said = done(&["rotate-key", "--database", database]);
        assert!(said.contains("6 secrets are sealed with it"), "{said}");
        assert!(said.contains("1 people whose names were erased"), "{said}");
        let kept: Vec<_> = names(directory).into_iter().filter(|name| name.contains(".key")).collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert_eq!(fs::read_to_string(directory.join(&kept[1])).unwrap(), old_key);
        assert_ne!(fs::read_to_string(directory.join(&kept[0])).unwrap(), old_key);
    })
    .await;
    // What is in a column of bytes is sealed anew, all of it, or known to be no sealed secret.
    let after = bytes(&mut look_inside(&database).await).await;
    for (column, values) in before.iter().filter(|(column, _)| !NOT_SEALED.contains(&column.as_str())) {
        assert!(
            !values.is_empty(),
            "{column} is empty: have something sealed there, or say that it holds none"
        );
        assert!(values.is_disjoint(&after[column]), "{column} was forgotten");
    }
    // And all of it is of use.
    let directory = &house.server.running.as_ref().unwrap().house.directory;
    let keys = directory.webhooks.signing_keys(sealing.webhook).await.unwrap().unwrap();
    assert!(keys.before.is_some());
    assert_eq!(
        directory.admission_hooks.called(sealing.hook).await.unwrap().unwrap().2,
        [b"a-secret-of-a-hook".to_vec()]
    );
    let application = house.application.parse().unwrap();
    let number = {
        let caller = house.server.operator().await;
        let known = house.server.running.as_ref().unwrap().house.gate.known();
        drop(caller);
        known.application(application).unwrap().number
    };
    let secret = directory.upstream_settings.secret(number, &upstream.url).await.unwrap().unwrap();
    assert_eq!(secret.secret, "Key secret");
    let machines = {
        let known = house.server.running.as_ref().unwrap().house.gate.known();
        known.streams::<sessiond_core::machine::Machine>().cloned().collect::<Vec<_>>()
    };
    directory.machines.secret(&machines[0]).await.unwrap();
    // The client goes on in its session, which only its upstream's session id, sealed, makes possible.
    let client = crate::mcp::Client { url: house.server.url(&house.path()), ..client };
    let client = crate::mcp::Client { token: house.token().await, ..client };
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    // People keep their ids and are recognised; whose name was erased is somebody new.
    let body = json!({ "name": "again", "authenticatedUserId": "ann" });
    house.operator.connect(body).await;
    house.operator.connect(json!({ "name": "again", "authenticatedUserId": "bob" })).await;
    let now = house.operator.get("/api/v1/principals?limit=50").await.1["items"].clone();
    let named = |subject: &str| {
        let all = now.as_array().unwrap();
        all.iter().filter(|one| one["subject"] == subject).map(|one| one["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(named("ann"), [id("ann")]);
    assert_eq!(named("bob").len(), 1);
    assert_ne!(named("bob")[0], id("bob"));
    let house = restarted(house, |_, database| {
        done(&["verify", "--database", database]);
        done(&["rotate-key", "--database", database]);
        done(&["rebuild", "--database", database]);
    })
    .await;
    let (status, one) = house.operator.get(&format!("/api/v1/principals/{}", id("ann"))).await;
    assert_eq!(status, StatusCode::OK, "its id outlives a second key: {one}");
}

/// The key file, and the one that is to take its place.
fn keys(directory: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    (directory.join("sessiond.db.key"), directory.join("sessiond.db.key.new"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_step_a_rotation_was_killed_at_the_next_start_settles_which_key_it_is() {
    let directory = TempDir::new().unwrap();
    drop(Daemon::start(directory.path(), &[]));
    let (key, new) = keys(directory.path());
    // Before the transaction: the new key is there, whole or in part, and the database knows the old one.
    for text in ["11".repeat(32), "11".to_owned(), String::new()] {
        let old = fs::read_to_string(&key).unwrap();
        fs::copy(&key, &new).unwrap();
        fs::write(&new, text).unwrap();
        drop(Daemon::start(directory.path(), &[]));
        assert!(!new.exists());
        assert_eq!(fs::read_to_string(&key).unwrap(), old);
    }
    // After it: the database knows the new key, and the old one is still in its place, or in none.
    for old_in_place in [true, false] {
        let old = fs::read_to_string(&key).unwrap();
        done(&["rotate-key", "--database", &url(directory.path())]);
        let rotated = fs::read_to_string(&key).unwrap();
        fs::rename(&key, &new).unwrap();
        if old_in_place {
            fs::copy(&new, &key).unwrap();
            fs::write(&key, &old).unwrap();
        }
        // A backup that is taken in between finds the right one.
        let backup = TempDir::new().unwrap();
        take(directory.path(), backup.path(), &["--with-key"]);
        assert_eq!(fs::read_to_string(super::file(backup.path(), "key")).unwrap(), rotated);
        drop(Daemon::start(directory.path(), &[]));
        assert!(!new.exists());
        assert_eq!(fs::read_to_string(&key).unwrap(), rotated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_at_random_leaves_a_place_that_starts_and_opens_what_is_sealed() {
    let mut server = Server::start().await;
    let operator = server.operator().await;
    let made = operator.post("/api/v1/webhooks", json!({ "url": "https://receiver.example/in" })).await.1;
    let webhook: Uuid = made["webhook"]["id"].as_str().unwrap().parse().unwrap();
    for round in 0..12 {
        server.stop().await;
        killed(&["rotate-key", "--database", &server.database()], Duration::from_millis(round * 7));
        server = server.restart().await;
        let directory = &server.running.as_ref().unwrap().house.directory;
        assert!(directory.webhooks.signing_keys(webhook).await.unwrap().is_some());
    }
}
