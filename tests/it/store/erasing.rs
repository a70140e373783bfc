//! Personal facts in events of older releases, where some of them stood in the hashed body.

use serde_json::{Value, json};
use sessiond::committer::WriteBeside;
use sessiond_core::chain::{Header, body_digest, commit_hash};
use sessiond_core::ids::SessionNumber;
use sessiond_core::personal::personal_digest;
use sessiond_store::SideWrite;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use super::base::{Base, Opens};

/// The last event, a `connected`, as it would have been written before the client's names stood beside it; with its hashes.
async fn as_before(raw: &mut SqliteConnection) {
    let last = "select * from event order by position desc limit 1";
    let event = sqlx::query(last).fetch_one(&mut *raw).await.unwrap();
    assert_eq!(event.get::<String, _>("type"), "connected");
    let mut personal: Value = serde_json::from_str(event.get("personal")).unwrap();
    let names = personal.as_object_mut().unwrap();
    let [name, token] = ["clientSessionId", "tokenIdentifier"].map(|field| names.remove(field).unwrap());
    let personal = personal.to_string();
    let body: String = event.get("body");
    let digest = json!({ "personal": personal_digest(&personal) }).to_string();
    let digest = digest.trim_start_matches('{');
    let (before, _) = body.split_once("\"personal\":").unwrap();
    let body = format!("{before}{digest}");
    let names = format!("\"principal\":1,\"clientSessionId\":{name},\"tokenIdentifier\":{token},");
    let body = body.replacen("\"principal\":1,", &names, 1);
    let hash = header(&event).hash(&[0; 32], &body_digest(&body));
    let commit =
        "select commit_hash from event where commit_hash is not null order by position desc limit 1 offset 1";
    let commit: Vec<u8> = sqlx::query_scalar(commit).fetch_one(&mut *raw).await.unwrap();
    let commit = commit_hash(&commit.try_into().unwrap(), [&hash]);
    sqlx::query("update event set body = ?, personal = ?, hash = ?, commit_hash = ? where position = ?")
        .bind(body)
        .bind(personal)
        .bind(hash.as_slice())
        .bind(commit.as_slice())
        .bind(event.get::<i64, _>("position"))
        .execute(&mut *raw)
        .await
        .unwrap();
    let number: i64 = event.get("stream_number");
    let sql = "update session set hash = ? where number = ?";
    sqlx::query(sql).bind(hash.as_slice()).bind(number).execute(raw).await.unwrap();
}

fn header(event: &SqliteRow) -> Header<'_> {
    Header {
        position: event.get("position"),
        stream_kind: event.get("stream_kind"),
        stream_number: event.get("stream_number"),
        version: event.get("version"),
        previous_position: event.get("previous_position"),
        occurred_at: event.get("occurred_at"),
        recorded_at: event.get("recorded_at"),
        name: event.get("type"),
        type_version: event.get("type_version"),
        organization: event.get("organization"),
        application: event.get("application"),
        actor_kind: event.get("actor_kind"),
        actor_id: event.get("actor_id"),
        revocation: event.get("revocation"),
        request_id: event.get("request_id"),
        traceparent: event.get("traceparent"),
    }
}

#[tokio::test]
async fn names_in_a_hashed_body_are_erased_too_and_the_log_still_proves_itself() {
    let base = Base::new();
    let running = base.founded().await;
    let opens = Opens {
        client_session_id: Some("zaphod's laptop".into()),
        token_identifier: Some("zaphod's key".into()),
        ..Opens::default()
    };
    let number: SessionNumber = running.connect(&opens).await.unwrap().number;
    running.stop().await;
    let mut raw = base.raw().await;
    as_before(&mut raw).await;
    let before = base.verify().await.unwrap();
    assert_eq!(before.erased, 0, "as an older release has left it");

    let running = base.start().await;
    for _ in 0..2 {
        running.submit(WriteBeside(SideWrite::ErasePersonal(vec![number]))).await.unwrap();
    }
    running.record(number, 1).await;
    running.stop().await;
    let bodies: Vec<Option<String>> =
        sqlx::query_scalar("select body from event").fetch_all(&mut raw).await.unwrap();
    assert!(bodies.iter().flatten().all(|body| !body.contains("zaphod")), "{bodies:?}");
    assert_eq!(base.verify().await.unwrap().erased, 1);
    base.rebuild().await.unwrap();
    assert_eq!(base.verify().await.unwrap().erased, 1);
    // What a body says otherwise cannot be changed unnoticed where there is still something beside it.
    let sql = "update event set body_digest = ?, personal = '{}' where type = 'connected'";
    sqlx::query(sql).bind([7_u8; 32].as_slice()).execute(&mut raw).await.unwrap();
    assert!(base.verify().await.is_err());
    raw.close().await.unwrap();
}
