//! No hot statement scans a table. Every statement that a committer at work and the hot readers prepare is overheard,
//! and SQLite is asked how it would carry it out.

use std::collections::BTreeSet;
use std::process::Command as Process;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use futures_util::future::join_all;
use sessiond::committer::{MeasureSessions, Measurement, WriteBeside};
use sessiond_core::command::Command;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{Position, PrincipalNumber, RevocationNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::phase::{Outcome, Stage};
use sessiond_core::reason::Reason;
use sessiond_core::throughput::Sample;
use sessiond_store::{Confirmation, EndedOrder, EndedPage, EndedSince, FoundBy, Postings, SideWrite, Store};
use sqlx::{AssertSqlSafe, Row};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use uuid::Uuid;

use super::base::{APPLICATION, Base, ORGANIZATION, Opens, Running};

/// Names the child process in which alone the overhearing goes on: a subscriber is the whole process's.
const CHILD: &str = "SESSIOND_TEST_PLANS";

/// Keeps every statement that sqlx tells of.
#[derive(Clone, Default)]
pub struct Overheard(Arc<Mutex<BTreeSet<String>>>);

impl Overheard {
    pub fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    pub fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[derive(Default)]
struct Statement {
    summary: String,
    whole: String,
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.whole),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: tracing::Subscriber> Layer<S> for Overheard {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            let mut statement = Statement::default();
            event.record(&mut statement);
            let whole = if statement.whole.is_empty() { statement.summary } else { statement.whole };
            self.0.lock().unwrap().insert(whole.trim().to_owned());
        }
    }
}

/// Runs a part of the test of this name where every statement is overheard: in a process of its own.
pub fn overhear(test: &str, part: impl AsyncFnOnce(Overheard)) {
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let overheard = Overheard::default();
        let subscriber = tracing_subscriber::registry().with(overheard.clone());
        tracing::subscriber::set_global_default(subscriber).unwrap();
        return runtime.block_on(part(overheard));
    }
    let output = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "there is no test {test}");
}

/// How SQLite would carry out statements, a step each.
pub async fn plans(
    connection: &mut sqlx::SqliteConnection,
    statements: impl IntoIterator<Item = String>,
) -> Vec<(String, String)> {
    let mut plans = vec![];
    for sql in statements {
        let transaction = ["begin", "commit", "rollback", "pragma"];
        if transaction.iter().any(|word| sql.to_lowercase().starts_with(word)) {
            continue;
        }
        let explain = AssertSqlSafe(format!("explain query plan {sql}"));
        let steps = sqlx::query(explain).fetch_all(&mut *connection).await.unwrap();
        plans.extend(steps.iter().map(|step| (sql.clone(), step.get("detail"))));
    }
    plans
}

#[test]
fn no_hot_statement_scans_a_table() {
    overhear("store::plans::no_hot_statement_scans_a_table", hot_statements);
}

async fn hot_statements(overheard: Overheard) {
    let base = Base::new();
    let running = base.founded().await;
    // What was prepared to start up may read whole tables.
    overheard.forget();
    write(&running).await;
    read(&running).await;
    let reader = running.reader.clone();
    running.committer.stop().await;
    let statements = overheard.take();
    reader.close().await;

    for word in [
        "into event",
        "into session ",
        "into session_activity",
        "delete from session_activity",
        "mark",
        "into confirmation",
        "session_ended_by_resource",
        "session_ended_work ",
        "session_ended_work_by_activity",
        "into session_word",
        "from session_word",
    ] {
        assert!(statements.iter().any(|sql| sql.contains(word)), "{word} was not overheard: {statements:#?}");
    }
    assert!(
        statements.iter().filter(|sql| sql.starts_with("select") || sql.starts_with("with")).count() > 10
    );
    let mut raw = base.raw().await;
    for (sql, step) in plans(&mut raw, statements).await {
        assert!(!scans(&step), "{step}: {sql}");
    }
}

/// Whether a step reads a whole table or index. What a statement brings along, and what it has collected before, it
/// may read whole.
pub fn scans(step: &str) -> bool {
    let Some(what) = step.strip_prefix("SCAN ") else { return false };
    let own = [
        "json_each",
        "webhook_progress",
        "pragma_",
        "bounds",
        "page",
        "wanted",
        "chain",
        "(subquery",
        "CONSTANT ROW",
    ];
    !own.iter().any(|own| what.starts_with(own)) && !what.contains("VALUES CLAUSE")
}

/// Everything that the committer does while it is at work.
async fn write(running: &Running) {
    let opens = |index| Opens {
        subject: "ann",
        client_session_id: Some(format!("run-{}", index % 30)),
        expires_in: Some(TimeDelta::minutes(30)),
        ..Opens::default()
    };
    join_all((0..40).map(|index| running.submit(running.opening(&opens(index))))).await;
    for _ in 0..3 {
        join_all((1..=30).map(|number| running.submit(running.activity(SessionNumber(number), 1)))).await;
    }
    running.renew(SessionNumber(1)).await;
    running.disconnect(SessionNumber(2), Reason::Client).await;
    let filter = Filter { session: Some(SessionNumber(3)), ..Filter::default() };
    let revocation = running.begin(filter, Reason::Revoked).await.unwrap();
    running.carry_out(&revocation).await;
    let command = Command::Finish { outcome: Outcome::Failed, message: Some("infeasible".into()) };
    running.command(SessionNumber(4), command).await.unwrap();
    let confirmation = Confirmation { session: SessionNumber(4), at: running.now(), message: None };
    running.submit(WriteBeside(SideWrite::Confirmation(confirmation))).await.unwrap();
    let sample = Sample { at: running.now().timestamp_millis() + 2_000, counter: 9 };
    let measurement = Measurement { sample, presented: running.owner() };
    running.submit(MeasureSessions(vec![(SessionNumber(5), measurement)])).await.unwrap()[0].unwrap();
    running.committer.health().await.unwrap();
    super::retention::fold(running, running.now(), 10).await;
    super::retention::let_sessions_go(running, running.now() + TimeDelta::seconds(1), 1).await;
}

/// What is asked about moments in the past.
async fn past(reader: &dyn Store) {
    let at = Position(3);
    let sessions = [(SessionNumber(1), Position(9)), (SessionNumber(3), Position(9))];
    reader.last_connected(at).await.unwrap();
    reader.sessions_up_to(APPLICATION, SessionNumber(5_000)).await.unwrap();
    reader.earlier_states(&sessions.map(|(number, _)| number), at).await.unwrap();
    reader.making(&sessions, at).await.unwrap();
    for descending in [true, false] {
        let last = SessionNumber(30);
        let page = EndedSince { application: APPLICATION, at, descending, after: None, last, limit: 10 };
        reader.ended_since(&page).await.unwrap();
    }
}

/// What requests and feeds ask.
async fn read(running: &Running) {
    let reader = &running.reader;
    let now = running.now();
    let session = reader.session_by_number(SessionNumber(1)).await.unwrap().unwrap().session;
    reader.session(session.id).await.unwrap();
    let filters = [
        Filter::default(),
        Filter { hostname: Some("desk-17.example".into()), ..Filter::default() },
        Filter { client: Some("inspector".into()), ..Filter::default() },
        Filter { principal: Some(PrincipalNumber(1)), ..Filter::default() },
        Filter { session: Some(SessionNumber(2)), ..Filter::default() },
        Filter { connected_after: Some(now), except: vec![SessionNumber(9)], ..Filter::default() },
        Filter { resource: Some("2.1".into()), kind: Some(Kind::Task), ..Filter::default() },
        Filter { stage: vec![Stage::Failed, Stage::Terminated], ..Filter::default() },
        Filter { kind: Some(Kind::Webui), ..Filter::default() },
        Filter {
            kind: Some(Kind::Task),
            stage: vec![Stage::Terminated],
            settled_by: Some(now),
            ..Filter::default()
        },
    ];
    for filter in &filters {
        for order in [EndedOrder::Connected, EndedOrder::LastActive, EndedOrder::Expires] {
            for after in [None, Some((session.connected_at, session.number))] {
                let page =
                    EndedPage { application: APPLICATION, filter, order, descending: true, after, limit: 10 };
                reader.ended(&page).await.unwrap();
            }
        }
        reader.count_ended(APPLICATION, filter).await.unwrap();
    }
    past(reader.as_ref()).await;
    search(running, session.id).await;
    reader.sessions(&[SessionNumber(1), SessionNumber(2)]).await.unwrap();
    reader.details(&[SessionNumber(1), SessionNumber(2)]).await.unwrap();
    reader.revocation_by_id(Uuid::nil()).await.unwrap();
    reader.revocations(ORGANIZATION, None, None, 10).await.unwrap();
    reader.notes(&[Position(1), Position(2)]).await.unwrap();
    reader.events(&[Position(1), Position(2)]).await.unwrap();
    reader.beginnings(&[RevocationNumber(1)]).await.unwrap();
    reader.principals_called(ORGANIZATION, "ann", 10).await.unwrap();
    reader.principals_numbered(&[PrincipalNumber(1)]).await.unwrap();
    reader.confirmations(&[SessionNumber(1), SessionNumber(2)]).await.unwrap();
    reader.session_token(SessionNumber(1)).await.unwrap();
    reader.mcp_session(SessionNumber(1)).await.unwrap();
    reader.upstream_secret(APPLICATION).await.unwrap();
    reader.client_secret("operations").await.unwrap();
    reader.revocation(RevocationNumber(1)).await.unwrap();
    reader.head().await.unwrap();
    reader.event(Position(1)).await.unwrap();
    reader.log(Position(3), 10).await.unwrap();
    reader.addressed_application_log(APPLICATION, Position(3), false, 10).await.unwrap();
    reader.addressed_session_log(session.number, Position(3), false, 10).await.unwrap();
    reader.addressed_log(Position(3), running.head(), true, 10).await.unwrap();
    reader.foldable(&[ORGANIZATION], Position(3), now, 10).await.unwrap();
    reader.departing(ORGANIZATION, now, 10, 10).await.unwrap();
    reader.foldable_of(ORGANIZATION, SessionNumber(1), 10).await.unwrap();
    reader.ended_before(ORGANIZATION, now).await.unwrap();
}

/// What is asked where sessions are looked for by words.
async fn search(running: &Running, id: Uuid) {
    let reader = &running.reader;
    reader.words_beginning(APPLICATION, "de", 10).await.unwrap();
    reader.numbers_of_ids(id, Uuid::max()).await.unwrap();
    let words = ["desk".to_owned(), "example".to_owned()];
    let principals = [PrincipalNumber(1), PrincipalNumber(2)];
    for by in [
        FoundBy::Words(&words),
        FoundBy::Principals(&principals),
        FoundBy::Numbers(SessionNumber(2), SessionNumber(9)),
    ] {
        for descending in [false, true] {
            let after = Some(SessionNumber(4));
            let page = Postings { application: APPLICATION, by, descending, after, limit: 10 };
            reader.postings(&page).await.unwrap();
        }
    }
}
