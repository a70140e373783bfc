//! Copies of a store, from a file to a server and back: they hold the same, and are proved before they are of use.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use sessiond_store::check::Fault;
use sessiond_store::{Copied, StoreError, Whereabouts};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use super::base::{Base, Opens};
use super::history::Player;
use crate::support::postgres::Database;
use crate::support::store::has_no_file;
use crate::support::{Dice, rounds};

/// Tables of which each store has its own rows: how far housekeeping has come, and what only a server has.
const OWN: [&str; 8] =
    ["mark", "_sqlx_migrations", "log_head", "log_commit", "node", "job", "cut_off", "journal_bytes"];
/// Tables that are made from the log, or that prove it: nothing can be made up in them.
const OF_THE_LOG: [&str; 12] = [
    "event",
    "gone",
    "cut",
    "organization",
    "application",
    "service_account",
    "session",
    "session_activity",
    "session_detail",
    "revocation",
    "item",
    "let_go_resource",
];

async fn copy(from: (&str, &str), to: (&str, &str)) -> Result<Copied, Fault> {
    let [from, to] = [from, to].map(|(store, journals)| Whereabouts { store, journals });
    sessiond_store::copy(from, to, &mut |_, _, _| ()).await
}

/// Makes up rows of all that stands beside a log, by what the tables of a server say of their columns: in two of them more
/// than are copied at a time.
async fn make_up(store: &str, journals: &str, dice: &mut Dice) {
    let server = Database::new();
    let open = sessiond_store::open(&server.url).await.unwrap();
    open.store.close().await;
    open.writer.close().await.unwrap();
    sessiond_store::open_journals(journals).await.unwrap();
    let mut described = PgConnection::connect(&server.url).await.unwrap();
    let sql = "select c.table_name::text, c.column_name::text, c.data_type::text, c.is_nullable = 'YES' \
               from information_schema.columns c where c.table_schema = 'public' order by c.table_name, c.column_name";
    let all: Vec<(String, String, String, bool)> =
        sqlx::query_as(sql).fetch_all(&mut described).await.unwrap();
    let mut tables: BTreeMap<String, Vec<(String, String, bool)>> = BTreeMap::new();
    for (table, column, kind, nullable) in all {
        tables.entry(table).or_default().push((column, kind, nullable));
    }
    for (table, columns) in tables {
        if OWN.contains(&table.as_str()) || OF_THE_LOG.contains(&table.as_str()) {
            continue;
        }
        let url = if ["block", "tail"].contains(&table.as_str()) { journals } else { store };
        let mut file = SqliteConnection::connect(url).await.unwrap();
        let mut transaction = file.begin().await.unwrap();
        let count = match table.as_str() {
            "key_check" => 1,
            // What it says is compared with the log, and nothing of this was counted.
            "statistic_mark" => 0,
            "principal" | "block" => 1_500,
            _ => 5,
        };
        for row in 0..count {
            let names: Vec<_> = columns.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
            let values = columns.iter().map(|(name, kind, nullable)| match kind.as_str() {
                _ if name == "only_one" => "1".to_owned(),
                _ if *nullable && dice.roll(3) == 0 => "null".to_owned(),
                "bigint" => (1_000_000 + row * 1_000_003 + dice.roll(1_000) as i64).to_string(),
                "boolean" => dice.roll(2).to_string(),
                "text" => format!("'é {row} \u{1f980} {}'", "x".repeat(dice.roll(200) as usize)),
                "bytea" if name.contains("hash") || name.contains("digest") => "randomblob(32)".to_owned(),
                "bytea" => format!("randomblob({})", dice.roll(100)),
                "uuid" => "randomblob(16)".to_owned(),
                other => panic!("{table}.{name} is of the type {other}"),
            });
            let values: Vec<_> = values.collect();
            let sql = format!("insert into {table} ({}) values ({})", names.join(", "), values.join(", "));
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await.unwrap();
        }
        transaction.commit().await.unwrap();
        file.close().await.unwrap();
    }
}

/// That two files have the same rows in every table, but for what is each one's own.
async fn are_equal(one: &str, other: &str) {
    let mut both = SqliteConnection::connect(one).await.unwrap();
    let path = other.strip_prefix("sqlite:").unwrap();
    sqlx::query("attach ? as other").bind(path).execute(&mut both).await.unwrap();
    let sql = "select name from main.sqlite_schema where type = 'table' and name not like 'sqlite%'";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut both).await.unwrap();
    for table in tables.iter().filter(|table| !OWN.contains(&table.as_str())) {
        let sql = format!(
            "select (select count(*) from main.{table}) - (select count(*) from other.{table}), \
             (select count(*) from (select * from main.{table} except select * from other.{table})), \
             (select count(*) from (select * from other.{table} except select * from main.{table}))"
        );
        let differences: (i64, i64, i64) =
            sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut both).await.unwrap();
        assert_eq!(differences, (0, 0, 0), "{table}");
    }
    both.close().await.unwrap();
}

/// A store in a file that much has happened to, with all that can stand beside it.
async fn eventful(seed: u64) -> (Base, [String; 2]) {
    let base = Base::new();
    let urls = [base.url(), format!("{}.lines", base.url())];
    let mut player = Player::new(seed);
    let running = base.start().await;
    running.found().await;
    for _ in 0..100 {
        player.play(&running).await;
    }
    super::retention::fold(&running, running.now() + TimeDelta::seconds(1), 100).await;
    for _ in 0..20 {
        player.play(&running).await;
    }
    // What is not settled has to be in the copies too.
    running.crash().await;
    make_up(&urls[0], &urls[1], &mut player.dice).await;
    (base, urls)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_copied_to_a_server_and_on_and_back_holds_the_same() {
    if has_no_file("copies go from a file and back to one") {
        return;
    }
    for seed in 1..=rounds(2, 20) as u64 {
        let (_base, [first, first_lines]) = eventful(seed).await;
        let (servers, files) = ([Database::new(), Database::new()], TempDir::new().unwrap());
        let file = |name| {
            let url = format!("sqlite:{}", files.path().join(name).display());
            let lines = format!("{url}.lines");
            (url, lines)
        };
        let (last, another) = (file("last"), file("another"));
        let mut from = (first.as_str(), first_lines.as_str());
        let mut seen = None;
        for to in [
            (servers[0].url.as_str(), servers[0].url.as_str()),
            (servers[1].url.as_str(), servers[1].url.as_str()),
            (&last.0, &last.1),
            (&another.0, &another.1),
        ] {
            let copied = copy(from, to).await.unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
            assert_eq!(*seen.get_or_insert(copied.clone()), copied, "seed {seed}");
            assert!(!sessiond_store::look(to.0).await.unwrap().unfinished);
            from = to;
        }
        assert!(seen.unwrap().report.events > 100, "seed {seed} did too little");
        // The rows that were made before may have lagged behind.
        sessiond_store::rebuild(&first, &mut |_, _| ()).await.unwrap();
        for copy in [&last, &another] {
            are_equal(&first, &copy.0).await;
            are_equal(&first_lines, &copy.1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_copy_the_log_goes_on_where_it_was() {
    if has_no_file("a copy goes from a file") {
        return;
    }
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    running.record(session.number, 3).await;
    let head = running.head();
    running.stop().await;
    let server = Database::new();
    let lines = format!("{}.lines", base.url());
    copy((&base.url(), &lines), (&server.url, &server.url)).await.unwrap();
    let on_server = base
        .start_on(sessiond_store::open(&server.url).await.unwrap(), sessiond::clock::Clock::system())
        .await;
    assert_eq!(on_server.head(), head);
    on_server.record(session.number, 1).await;
    assert_eq!(on_server.gate.known().session(session.number).unwrap().total.requests, 4);
    let opened = on_server.connect(&Opens::default()).await.unwrap();
    assert_eq!(opened.number.0, session.number.0 + 1, "no number is given out twice");
    on_server.stop().await;
    let store = sessiond_store::open_to_look(&server.url).await.unwrap();
    store.verify(&mut |_, _| ()).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_only_where_nothing_is_and_only_from_what_nobody_writes_to() {
    if has_no_file("copies go from a file and back to one") {
        return;
    }
    let base = Base::new();
    let (url, lines) = (base.url(), format!("{}.lines", base.url()));
    let server = Database::new();
    let refused = async |from: (&str, &str), to: (&str, &str)| match copy(from, to).await {
        Err(Fault::Store(StoreError::Failed(what))) => what,
        other => panic!("{other:?}"),
    };
    let (of_file, of_server) = ((url.as_str(), lines.as_str()), (server.url.as_str(), server.url.as_str()));
    assert!(refused(of_file, of_server).await.contains("there is nothing"));
    let running = base.founded().await;
    running.open().await;
    running.stop().await;
    // A server on which somebody works is left alone, whether as the one or as the other.
    let open = sessiond_store::open(&server.url).await.unwrap();
    assert!(refused(of_file, of_server).await.contains("another process"));
    open.store.close().await;
    open.writer.close().await.unwrap();
    copy(of_file, of_server).await.unwrap();
    // What holds anything is not written over.
    assert!(refused(of_file, of_server).await.contains("not empty"));
    assert!(refused(of_file, of_file).await.contains("not empty"));
    let open = sessiond_store::open(&server.url).await.unwrap();
    let elsewhere = TempDir::new().unwrap();
    let elsewhere = ["a", "b"].map(|name| format!("sqlite:{}", elsewhere.path().join(name).display()));
    let to = (elsewhere[0].as_str(), elsewhere[1].as_str());
    assert!(refused(of_server, to).await.contains("another process"));
    open.store.close().await;
    open.writer.close().await.unwrap();
    let node = sessiond_store::open_to_serve(&server.url).await.unwrap();
    let node = base.start_on(node, sessiond::clock::Clock::system()).await;
    node.gate.lease().begun().await;
    assert!(refused(of_server, to).await.contains("stop the others first"));
    node.crash().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_cannot_keep_is_said_and_the_copy_stays_of_no_use() {
    if has_no_file("copies go from a file") {
        return;
    }
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await.number.0;
    running.stop().await;
    let sql = format!(
        "insert into confirmation (session, at, message) values ({session}, 1, 'a' || char(0) || 'b')"
    );
    base.execute(&sql).await;
    let server = Database::new();
    let (url, lines) = (base.url(), format!("{}.lines", base.url()));
    let of_server = (server.url.as_str(), server.url.as_str());
    let told = copy((&url, &lines), of_server).await.unwrap_err().to_string();
    assert!(told.contains("confirmation.message has the character U+0000"), "{told}");
    assert!(sessiond_store::look(&server.url).await.unwrap().unfinished);
    // Another try overwrites what it has left.
    base.execute("update confirmation set message = 'ab'").await;
    copy((&url, &lines), of_server).await.unwrap();
    assert!(!sessiond_store::look(&server.url).await.unwrap().unfinished);
}
