//! Planted damage: verify finds every piece of it, and finds nothing where there is none.

use sessiond::committer::{ChangeApplication, ChangeStream, MeasureSessions, Measurement, SetUpstream};
use sessiond_core::application::{ApplicationChanged, UpstreamCredential, UpstreamHeaders, UpstreamSet};
use sessiond_core::chain::{Header, body_digest, commit_hash};
use sessiond_core::command::Command;
use sessiond_core::filter::Filter;
use sessiond_core::ids::SessionNumber;
use sessiond_core::kind::Kind;
use sessiond_core::phase::{Outcome, Phase};
use sessiond_core::reason::Reason;
use sessiond_core::service_account::{ServiceAccount, ServiceAccountCommand};
use sessiond_core::stream::SecretRotated;
use sessiond_core::throughput::Sample;
use sessiond_store::SideWrite;
use sessiond_store::check::{Difference, Fault};
use sqlx::{AssertSqlSafe, Column, Connection, Row, SqliteConnection, TypeInfo, ValueRef};

use super::base::{APPLICATION, Base, ORGANIZATION, Opens, Running};

/// A little of everything: each kind of stream, each kind of session, settled, ended, renewed, expired, pruned.
async fn a_little_of_everything() -> Base {
    let base = Base::new();
    let running = base.founded().await;
    let numbers: Vec<SessionNumber> = {
        let mut numbers = vec![];
        for index in 0..5 {
            let client_session_id = Some(format!("run-{index}"));
            let opens = Opens { subject: "ann", client_session_id, ..Opens::default() };
            numbers.push(running.connect(&opens).await.unwrap().number);
        }
        numbers
    };
    for number in &numbers {
        running.record(*number, 2).await;
    }
    running.renew(numbers[1]).await;
    running.record(numbers[0], 1).await;
    super::history::prune(&base).await;
    running.record(numbers[1], 1).await;
    running.renew(numbers[2]).await;
    running.disconnect(numbers[3], Reason::Client).await;
    work_and_a_viewer(&running).await;
    let filter = Filter { session: Some(numbers[4]), ..Filter::default() };
    let revocation = running.begin(filter, Reason::Terminated).await.unwrap();
    running.carry_out(&revocation).await;
    running
        .begin(Filter { application: Some(APPLICATION), ..Filter::default() }, Reason::Revoked)
        .await
        .unwrap();
    let change = ApplicationChanged { name: Some("Lamp".into()), description: Some("light".into()) };
    running.submit(ChangeApplication { number: APPLICATION, changed: change }).await.unwrap();
    let headers = UpstreamHeaders { to_upstream: vec!["x-tenant".into()], to_client: vec![] };
    let credential = Some(UpstreamCredential::Header { name: "X-Api-Key".into() });
    let set = UpstreamSet { url: "http://one".into(), credential, headers: Some(headers) };
    running.submit(SetUpstream { number: APPLICATION, set, sealed: Some(vec![1, 2, 3]) }).await.unwrap();
    let secret =
        SideWrite::ClientSecret { client_id: "operations".into(), secret_hash: [9; 32], before_until: None };
    let (organization, command) =
        (ORGANIZATION, ServiceAccountCommand::RotateSecret(SecretRotated::default()));
    let rotation =
        ChangeStream::<ServiceAccount> { organization, number: Some(1), command, side: vec![secret] };
    running.submit(rotation).await.unwrap();
    let last = running.open().await;
    running.clock.turn(chrono::TimeDelta::hours(2));
    running.command(last.number, Command::Expire).await.unwrap();
    running.stop().await;
    base.verify().await.unwrap();
    base
}

/// Work that was queued, ran and failed, and a viewer whose counter was read.
async fn work_and_a_viewer(running: &Running) {
    let task = Opens {
        kind: Some(Kind::Task),
        resource: Some("2.1".into()),
        phase: Some(Phase::Queued),
        ..Opens::default()
    };
    let task = running.connect(&task).await.unwrap().number;
    let command = Command::ChangePhase { phase: Phase::Running, presented: running.owner() };
    running.command(task, command).await.unwrap();
    let command = Command::Finish { outcome: Outcome::Failed, message: Some("infeasible".into()) };
    running.command(task, command).await.unwrap();
    let viewer = Opens { kind: Some(Kind::Media), resource: Some("camera".into()), ..Opens::default() };
    let viewer = running.connect(&viewer).await.unwrap().number;
    for counter in [1_000, 5_000] {
        running.clock.turn(chrono::TimeDelta::seconds(2));
        let sample = Sample { at: running.now().timestamp_millis(), counter };
        let measurement = Measurement { sample, presented: running.owner() };
        running.submit(MeasureSessions(vec![(viewer, measurement)])).await.unwrap()[0].unwrap();
    }
}

async fn difference(base: &Base) -> Option<Difference> {
    match base.verify().await {
        Ok(_) => None,
        Err(Fault::Difference(difference)) => Some(difference),
        Err(Fault::Store(error)) => panic!("verify broke instead of finding it: {error}"),
    }
}

/// An expression that is not what the column holds.
fn another(row: &sqlx::sqlite::SqliteRow, index: usize) -> String {
    let raw = row.try_get_raw(index).unwrap();
    match raw.type_info().name() {
        _ if raw.is_null() => match row.columns()[index].type_info().name() {
            "INTEGER" => "1".into(),
            "TEXT" => "'x'".into(),
            _ => "zeroblob(32)".into(),
        },
        "INTEGER" => (row.get::<i64, _>(index) + 1000).to_string(),
        kind => {
            // One bit of one byte.
            let mut bytes: Vec<u8> = row.get_unchecked(index);
            let middle = bytes.len() / 2;
            match bytes.get_mut(middle) {
                Some(byte) => *byte ^= 1,
                None => bytes.push(b'x'),
            }
            let literal = format!("x'{}'", hex::encode(bytes));
            if kind == "TEXT" { format!("cast({literal} as text)") } else { literal }
        }
    }
}

/// Changes each column of each row of a table, one at a time, and expects verify to find it every time.
async fn every_column_of(table: &str, key: &str) {
    every_column_in(&a_little_of_everything().await, table, key).await;
}

pub async fn every_column_in(base: &Base, table: &str, key: &str) {
    let mut raw = base.raw().await;
    let rows =
        sqlx::query(AssertSqlSafe(format!("select * from {table}"))).fetch_all(&mut raw).await.unwrap();
    assert!(!rows.is_empty(), "{table} is empty");
    for row in &rows {
        let number: i64 = row.get(key);
        for column in row.columns() {
            let (name, mut at) = (column.name(), number);
            let sql =
                format!("update {table} set {name} = {} where {key} = {at}", another(row, column.ordinal()));
            sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut raw).await.unwrap();
            let found = difference(base).await;
            let found = found.unwrap_or_else(|| panic!("not found: {sql}"));
            assert!(found.expected != found.found, "{found}");
            if name == key {
                at += 1000;
            }
            restore(&mut raw, table, key, at, row, column.ordinal()).await;
        }
    }
    assert_eq!(difference(base).await, None, "{table} was not restored");
}

async fn restore(
    raw: &mut SqliteConnection,
    table: &str,
    key: &str,
    at: i64,
    row: &sqlx::sqlite::SqliteRow,
    index: usize,
) {
    let sql = format!("update {table} set {} = ? where {key} = {at}", row.columns()[index].name());
    let query = sqlx::query(AssertSqlSafe(sql));
    let query = match row.try_get_raw(index).unwrap().type_info().name() {
        "INTEGER" => query.bind(row.get::<Option<i64>, _>(index)),
        "TEXT" => query.bind(row.get::<Option<String>, _>(index)),
        _ => query.bind(row.get_unchecked::<Option<Vec<u8>>, _>(index)),
    };
    query.execute(raw).await.unwrap();
}

#[tokio::test]
async fn a_change_to_any_column_of_any_event_is_found() {
    every_column_of("event", "position").await;
}

#[tokio::test]
async fn a_change_to_any_column_of_any_directory_row_is_found() {
    for table in ["organization", "application", "service_account", "revocation"] {
        every_column_of(table, "number").await;
    }
}

#[tokio::test]
async fn a_change_to_any_column_of_any_session_row_is_found() {
    for table in ["session", "session_activity", "session_detail"] {
        every_column_of(table, "number").await;
    }
}

#[tokio::test]
async fn every_event_that_is_taken_out_is_found() {
    let base = a_little_of_everything().await;
    let head = base.verify().await.unwrap().position.0;
    for position in 1..=head {
        base.execute("create table kept as select * from event").await;
        base.execute(&format!("delete from event where position = {position}")).await;
        let found = difference(&base).await.unwrap_or_else(|| panic!("not found: {position}"));
        if position < head {
            assert_eq!((found.what.as_str(), found.expected), ("position", position.to_string()));
        }
        base.execute("delete from event").await;
        base.execute("insert into event select * from kept").await;
        base.execute("drop table kept").await;
    }
    assert_eq!(difference(&base).await, None);
}

#[tokio::test]
async fn a_stream_that_is_cut_out_whole_is_found_even_with_its_rows_and_with_the_gap_closed() {
    let base = a_little_of_everything().await;
    for table in ["session", "session_activity", "session_detail"] {
        base.execute(&format!("delete from {table} where number = 2")).await;
    }
    base.execute("delete from event where stream_kind = 4 and stream_number = 2").await;
    assert!(difference(&base).await.is_some());
    // Moving up what lies behind it does not help either.
    base.execute(
        "create table moved as select *, row_number() over (order by position) as new_position from event",
    )
    .await;
    base.execute(
        "update moved set previous_position = coalesce((select m.new_position from moved m \
         where m.position = moved.previous_position), 0)",
    )
    .await;
    base.execute("update moved set position = new_position").await;
    base.execute("alter table moved drop column new_position").await;
    base.execute("delete from event").await;
    base.execute("insert into event select * from moved").await;
    let found = difference(&base).await.unwrap();
    assert_eq!(found.what, "hash");
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_found() {
    // The last commit has two events; without its second, the log ends in the middle of it.
    let base = Base::new();
    let running = base.founded().await;
    running
        .begin(Filter { application: Some(APPLICATION), ..Filter::default() }, Reason::Revoked)
        .await
        .unwrap();
    let head = running.head().0;
    running.stop().await;
    base.execute(&format!("delete from event where position = {head}")).await;
    let found = difference(&base).await.unwrap();
    assert!(found.found.contains("tail was cut off"), "{found}");
    // Without the whole commit, the rows know more than the log.
    base.execute(&format!("delete from event where position = {}", head - 1)).await;
    let found = difference(&base).await.unwrap();
    assert!(found.place.starts_with("row of "), "{found}");
    base.execute("delete from event").await;
    assert!(difference(&base).await.is_some());
}

#[tokio::test]
async fn a_row_too_many_or_too_few_is_found() {
    let base = a_little_of_everything().await;
    for table in [
        "organization",
        "application",
        "service_account",
        "revocation",
        "session",
        "session_activity",
        "session_detail",
    ] {
        base.execute(&format!("create table kept as select * from {table}")).await;
        base.execute(&format!("delete from {table} where number = (select min(number) from {table})")).await;
        assert!(difference(&base).await.is_some(), "{table}: one too few");
        base.execute(&format!("delete from {table}")).await;
        base.execute(&format!("insert into {table} select * from kept")).await;
        base.execute("update kept set number = number + 1000 where number = (select min(number) from kept)")
            .await;
        if !matches!(table, "session_activity" | "session_detail") {
            base.execute("update kept set id = randomblob(16)").await;
        }
        if table == "service_account" {
            base.execute("update kept set client_id = 'another'").await;
        }
        base.execute(&format!("insert into {table} select * from kept where number > 1000")).await;
        let found = difference(&base).await.unwrap_or_else(|| panic!("{table}: one too many"));
        assert_eq!(found.what, "row", "{found}");
        base.execute(&format!("delete from {table} where number > 1000")).await;
        base.execute("drop table kept").await;
        assert_eq!(difference(&base).await, None);
    }
}

#[tokio::test]
async fn a_last_activity_whose_body_is_gone_is_found() {
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    running.record(session.number, 1).await;
    let entry = running.reader.event(running.head()).await.unwrap().unwrap();
    running.stop().await;
    let digest = hex::encode(entry.digest);
    let sql = format!(
        "update event set body = null, body_digest = x'{digest}' where position = {}",
        entry.recorded.position
    );
    base.execute(&sql).await;
    let found = difference(&base).await.unwrap();
    assert!(found.expected.contains("never pruned"), "{found}");
}

#[tokio::test]
async fn personal_facts_may_be_erased_and_only_whole() {
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    running.stop().await;
    let at = session.head.position;
    base.execute(&format!("update event set personal = null where position = {at}")).await;
    assert!(difference(&base).await.is_some(), "the row still has them");
    base.execute(
        "update session_detail set name = null, hostname = null, user_agent = null, client_info = null, ip = null, client = null",
    )
    .await;
    let found = difference(&base).await.unwrap();
    assert!(found.place.contains("session_word"), "it is still found by them: {found}");
    base.execute("delete from session_word").await;
    base.verify().await.unwrap();
    base.rebuild().await.unwrap();
    base.verify().await.unwrap();
}

#[tokio::test]
async fn a_damaged_log_is_not_rebuilt_from_and_nothing_is_changed() {
    let base = a_little_of_everything().await;
    base.execute("update event set body = replace(body, 'Acme', 'Acne') where position = 1").await;
    assert!(matches!(base.rebuild().await, Err(Fault::Difference(_))));
    base.execute("update event set body = replace(body, 'Acne', 'Acme') where position = 1").await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn rebuild_leaves_alone_what_does_not_come_from_the_log() {
    let base = a_little_of_everything().await;
    let mut before = Vec::new();
    let beside =
        ["client_secret", "access_token", "session_token", "principal", "mcp_session", "upstream_secret"];
    let count = async |table: &str| {
        let mut raw = base.raw().await;
        let sql = format!("select count(*) from {table}");
        sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).fetch_one(&mut raw).await.unwrap()
    };
    for table in beside {
        before.push(count(table).await);
    }
    assert!(before.iter().sum::<i64>() > 5);
    base.rebuild().await.unwrap();
    for (table, before) in beside.into_iter().zip(before) {
        assert_eq!(count(table).await, before, "{table}");
    }
    assert_eq!(base.mark("settled").await, base.store().await.head().await.unwrap());
}

/// Appends an event to a session's stream, as a newer release would write it.
async fn append_from_tomorrow(base: &Base, session: SessionNumber) {
    let mut raw = base.raw().await;
    let row =
        sqlx::query("select * from event order by position desc limit 1").fetch_one(&mut raw).await.unwrap();
    let last_commit: Vec<u8> = row.get("commit_hash");
    let sql =
        "select * from event where stream_kind = 4 and stream_number = ? order by position desc limit 1";
    let before = sqlx::query(sql).bind(session.0).fetch_one(&mut raw).await.unwrap();
    let body = r#"{"until":1,"by":{"zebra":1,"apple":2}}"#;
    let header = Header {
        position: row.get::<i64, _>("position") + 1,
        stream_kind: 4,
        stream_number: session.0,
        version: before.get::<i64, _>("version") + 1,
        previous_position: before.get("position"),
        occurred_at: row.get("recorded_at"),
        recorded_at: row.get("recorded_at"),
        name: "hibernated",
        type_version: 2,
        organization: 1,
        application: Some(1),
        actor_kind: 77,
        actor_id: None,
        revocation: None,
        request_id: None,
        traceparent: None,
    };
    let before: [u8; 32] = before.get::<Vec<u8>, _>("hash").try_into().unwrap();
    let hash = header.hash(&before, &body_digest(body));
    let commit = commit_hash(&last_commit.try_into().unwrap(), [&hash]);
    let sql = "insert into event (position, stream_kind, stream_number, version, previous_position, occurred_at, \
               recorded_at, type, type_version, organization, application, actor_kind, body, hash, commit_hash) \
               values (?, 4, ?, ?, ?, ?, ?, 'hibernated', 2, 1, 1, 77, ?, ?, ?)";
    sqlx::query(sql)
        .bind(header.position)
        .bind(session.0)
        .bind(header.version)
        .bind(header.previous_position)
        .bind(header.occurred_at)
        .bind(header.recorded_at)
        .bind(body)
        .bind(hash.as_slice())
        .bind(commit.as_slice())
        .execute(&mut raw)
        .await
        .unwrap();
    raw.close().await.unwrap();
}

#[tokio::test]
async fn an_event_from_a_newer_release_is_passed_over_but_its_bytes_are_checked() {
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    running.stop().await;
    append_from_tomorrow(&base, session.number).await;
    assert_eq!(base.verify().await.unwrap().unknown, 1);
    base.rebuild().await.unwrap();
    assert_eq!(base.verify().await.unwrap().unknown, 1);
    base.execute("update event set body = replace(body, 'zebra', 'zebrb') where type = 'hibernated'").await;
    assert_eq!(difference(&base).await.unwrap().what, "hash");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_runs_beside_a_busy_writer() {
    let base = Base::new();
    let running = base.founded().await;
    for _ in 0..20 {
        running.open().await;
    }
    let busy = async {
        for round in 0..60 {
            let works = (1..=20).map(|number| running.activity(SessionNumber(number), 1));
            futures_util::future::join_all(works.map(|work| running.submit(work))).await;
            running.renew(SessionNumber(1 + round % 20)).await;
            running.open().await;
            running.disconnect(SessionNumber(21 + round), Reason::Client).await;
        }
    };
    let check = async {
        for _ in 0..30 {
            base.verify().await.unwrap();
        }
    };
    tokio::join!(busy, check);
    running.stop().await;
    base.verify().await.unwrap();
}
