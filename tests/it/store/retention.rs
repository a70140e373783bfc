//! Letting go: what is kept is as it was, both chains go on over what is not, and whoever tampers with that is noticed.

use chrono::TimeDelta;
use sessiond::committer::{FoldActivity, LetSessionsGo, Origin};
use sessiond_core::Time;
use sessiond_core::command::Command;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{Position, PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::organization::Organization;
use sessiond_core::reason::Reason;
use sessiond_core::retention::{Departing, Retention};
use sessiond_core::session::event::ACTIVITY;
use sessiond_store::sqlite::OF_SESSIONS;
use sessiond_store::{Entry, SideWrite};
use sqlx::{AssertSqlSafe, Row};

use super::base::{Base, ORGANIZATION, Opens, Running};
use super::history::{Player, agrees_with_a_slow_fold, all_rows, seeds};
use crate::support::Inside;

/// Lets go of sessions that ended before an instant, a few at a time; returns which.
pub async fn let_sessions_go(running: &Running, before: Time, at_once: u32) -> Vec<Departing> {
    let mut gone = vec![];
    loop {
        let departing = running.reader.departing(ORGANIZATION, before, at_once, 40).await.unwrap();
        let departing = match departing.as_slice() {
            [] => return gone,
            [one] if one.events.len() > 40 => {
                running.reader.departing(ORGANIZATION, before, 1, usize::MAX).await.unwrap()
            }
            _ => departing,
        };
        gone.extend(departing.clone());
        assert!(submit(running, departing).await);
    }
}

async fn submit(running: &Running, departing: Vec<Departing>) -> bool {
    let letting = LetSessionsGo { organization: ORGANIZATION, as_of: version(running), departing };
    running.submit_by(Origin::system(), letting).await.unwrap()
}

/// The organization's version: what is let go by it is let go once.
fn version(running: &Running) -> i64 {
    running.gate.known().stream::<Organization>(ORGANIZATION).unwrap().head.version
}

/// Folds activity that was recorded before an instant, a few events at a time; returns the positions that went.
pub async fn fold(running: &Running, before: Time, at_once: u32) -> Vec<Position> {
    let (mut after, mut gone) = (Position(0), vec![]);
    loop {
        let page = running.reader.foldable(&[ORGANIZATION], after, before, at_once).await.unwrap();
        let Some(up_to) = page.up_to else { return gone };
        gone.extend(page.events.iter().map(|one| one.position));
        let as_of = version(running);
        let folding = FoldActivity { organization: ORGANIZATION, as_of, events: page.events };
        assert!(running.submit_by(Origin::system(), folding).await.unwrap());
        after = up_to;
    }
}

async fn log(running: &Running) -> Vec<Entry> {
    running.reader.log(Position(0), 100_000).await.unwrap()
}

/// A database in which some was let go and some was kept: the sessions that are there still, and those that are not.
async fn partly_let_go(base: &Base) -> (Running, Vec<SessionNumber>, Vec<SessionNumber>) {
    let running = base.founded().await;
    let ann = Opens { subject: "ann", ..Opens::default() };
    let mut sessions = vec![];
    for _ in 0..6 {
        sessions.push(running.connect(&ann).await.unwrap().number);
    }
    let later = running.connect(&Opens { subject: "ben", ..Opens::default() }).await.unwrap().number;
    // Several meet in a commit: of some something is kept in the end.
    for _ in 0..4 {
        let all = sessions.iter().chain([&later]).map(|number| running.record(*number, 1));
        futures_util::future::join_all(all).await;
    }
    let filter = Filter { principal: Some(PrincipalNumber(1)), ..Filter::default() };
    let revocation = running.begin(filter, Reason::Revoked).await.unwrap();
    running.chunk(&revocation, &sessions[..2]).await;
    running.carry_out(&revocation).await;
    running.stop().await;
    let running = base.start().await;
    let gone = let_sessions_go(&running, running.now() + TimeDelta::seconds(1), 2).await;
    assert_eq!(fold(&running, running.now() + TimeDelta::seconds(1), 7).await.len(), 3);
    (running, vec![later], gone.iter().map(|one| one.session).collect())
}

#[tokio::test]
async fn what_is_kept_is_proved_over_what_was_let_go_and_rows_are_made_again_as_they_were() {
    let base = Base::new();
    let (running, kept, gone) = partly_let_go(&base).await;
    assert_eq!(gone.len(), 6);
    for number in gone {
        assert!(running.reader.session_by_number(number).await.unwrap().is_none());
    }
    let [kept] = kept[..] else { panic!() };
    let row = running.reader.session_by_number(kept).await.unwrap().unwrap();
    assert_eq!(row.session.total.requests, 4);
    let kinds = log(&running).await;
    let activity = kinds.iter().filter(|entry| entry.recorded.event.name() == ACTIVITY);
    assert_eq!(activity.count(), 1, "the last of the day");
    let history = running.reader.session_history(kept, row.session.head.position, true, 9).await.unwrap();
    assert_eq!(history.len(), 2, "the way back leads over what was let go");
    running.crash().await;
    let report = base.verify().await.unwrap();
    assert_eq!(report.let_go, 6 * 6 + 3);
    assert_eq!(report.events + report.let_go, report.position.0.unsigned_abs());
    let before = all_rows(&base).await;
    assert_eq!(base.rebuild().await.unwrap(), report);
    assert_eq!(all_rows(&base).await, before);
    agrees_with_a_slow_fold(&base).await;
    // The revocation still says how many it disconnected, and numbers go on.
    let running = base.start().await;
    let mut inside = Inside::of(&base.url()).await;
    assert_eq!(inside.number("select disconnected_count from revocation", &[]).await, 6);
    assert_eq!(running.open().await.number.0, kept.0 + 1);
    running.record(kept, 1).await;
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn whole_commits_that_were_let_go_leave_one_row() {
    let base = Base::new();
    let running = base.founded().await;
    for _ in 0..20 {
        let session = running.open().await;
        running.record(session.number, 1).await;
        running.disconnect(session.number, Reason::Client).await;
    }
    let_sessions_go(&running, running.now() + TimeDelta::seconds(1), 3).await;
    running.stop().await;
    let mut inside = Inside::of(&base.url()).await;
    assert_eq!(inside.number("select count(*) from gone", &[]).await, 1, "stretches");
    assert_eq!(base.verify().await.unwrap().let_go, 60);
}

#[tokio::test]
async fn numbers_and_ids_go_on_from_the_last_session_although_it_was_let_go() {
    let base = Base::new();
    let running = base.founded().await;
    let one = running.open().await;
    running.disconnect(one.number, Reason::Client).await;
    let_sessions_go(&running, running.now() + TimeDelta::seconds(1), 9).await;
    running.crash().await;
    let running = base.start().await;
    let next = running.open().await;
    assert_eq!(next.number.0, one.number.0 + 1);
    assert!(next.id > one.id);
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn nothing_is_let_go_once_the_organization_has_chosen_anew() {
    use sessiond::committer::ChangeOrganization;
    use sessiond_core::organization::OrganizationCommand;
    let base = Base::new();
    let running = base.founded().await;
    let one = running.open().await;
    running.disconnect(one.number, Reason::Client).await;
    let before = running.now() + TimeDelta::seconds(1);
    let departing = running.reader.departing(ORGANIZATION, before, 9, 100).await.unwrap();
    let letting = LetSessionsGo { organization: ORGANIZATION, as_of: version(&running), departing };
    let retention = Retention { ended_after: Some(None), ..Retention::default() };
    let command = OrganizationCommand::SetRetention(retention);
    running.submit(ChangeOrganization { number: ORGANIZATION, command }).await.unwrap();
    assert!(!running.submit_by(Origin::system(), letting).await.unwrap());
    assert!(running.reader.session_by_number(one.number).await.unwrap().is_some());
    running.stop().await;
}

#[tokio::test]
async fn what_two_look_for_at_the_same_time_is_let_go_once() {
    let base = Base::new();
    let running = base.founded().await;
    let one = running.open().await;
    running.disconnect(one.number, Reason::Client).await;
    let (before, as_of) = (running.now() + TimeDelta::seconds(1), version(&running));
    let departing = running.reader.departing(ORGANIZATION, before, 9, 100).await.unwrap();
    let letting = || LetSessionsGo { organization: ORGANIZATION, as_of, departing: departing.clone() };
    assert!(running.submit_by(Origin::system(), letting()).await.unwrap());
    assert!(!running.submit_by(Origin::system(), letting()).await.unwrap(), "somebody else was faster");
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn activity_keeps_its_last_event_of_each_day_and_before_whatever_else_happens() {
    let base = Base::new();
    let running = base.founded().await;
    let one =
        running.connect(&Opens { expires_in: Some(TimeDelta::days(9)), ..Opens::default() }).await.unwrap();
    for _ in 0..3 {
        for _ in 0..3 {
            running.record(one.number, 1).await;
        }
        running.command(one.number, Command::Suspend).await.unwrap();
        running.command(one.number, Command::Resume).await.unwrap();
        running.record(one.number, 1).await;
        running.record(one.number, 1).await;
        running.clock.turn(TimeDelta::hours(6));
    }
    running.stop().await;
    let running = base.start_with(sessiond::clock::Clock::ahead(TimeDelta::hours(18))).await;
    fold(&running, running.now() + TimeDelta::seconds(1), 4).await;
    let log = log(&running).await;
    let kept: Vec<_> = log.iter().filter(|entry| entry.recorded.event.name() == ACTIVITY).collect();
    // One before each suspension, and the last of each day.
    assert!((4..=6).contains(&kept.len()), "{}", kept.len());
    for pair in log.windows(2) {
        let alike = pair.iter().all(|entry| entry.recorded.event.name() == ACTIVITY);
        let day = |entry: &Entry| entry.recorded.occurred_at.date_naive();
        assert!(!alike || day(&pair[0]) != day(&pair[1]), "two of a day in a row");
    }
    assert_eq!(running.reader.session(one.id).await.unwrap().unwrap().session.total.requests, 15);
    running.stop().await;
    base.verify().await.unwrap();
    let before = all_rows(&base).await;
    base.rebuild().await.unwrap();
    assert_eq!(all_rows(&base).await, before);
    agrees_with_a_slow_fold(&base).await;
}

#[tokio::test]
async fn a_change_to_any_column_of_what_was_left_is_found() {
    if crate::support::store::has_no_file("it writes into the file") {
        return;
    }
    for (table, key) in [("gone", "first"), ("cut", "position"), ("organization", "number")] {
        let base = Base::new();
        let (running, ..) = partly_let_go(&base).await;
        running.stop().await;
        super::damage::every_column_in(&base, table, key).await;
    }
}

/// Each of these changes what was let go, or what is said of it, or hides something behind it.
const TAMPERING: [(&str, &str); 12] = [
    ("a stretch is gone", "delete from gone where first = (select min(first) from gone)"),
    ("a stretch begins elsewhere", "update gone set first = first + 1 where hash is null"),
    ("a stretch is longer", "update gone set last = last + 1 where hash is null"),
    ("a stretch ends in another commit", "update gone set commit_hash = zeroblob(32) where hash is null"),
    ("a hash is another", "update gone set hash = zeroblob(32) where hash is not null"),
    ("a kept event went along", "delete from event where type = 'activity_recorded'"),
    ("a cut goes on from elsewhere", "update cut set hash = zeroblob(32)"),
    ("a cut is gone", "delete from cut"),
    ("a cut leads nowhere", "update cut set previous = 0"),
    (
        "the account says less",
        "update event set body = json_set(body, '$.events', 1) where type = 'sessions_let_go'",
    ),
    (
        "a session came back",
        "insert into session select 2, randomblob(16), organization, application, principal, owner_kind, owner_id, kind, \
         0, idle_after, stale_after, absolute_lifetime, connected_at, connected_head, lifetime_ends_at, token_expires_at, \
         expiry_announced, credential, ended_at, ended_reason, last_active_at, requests, bytes_in, bytes_out, version, head, \
         hash, token_lifetime, preset, suspended_at, resumed_at, unused_after, resource, phase, ended_outcome, message, \
         throughput, node from session limit 1",
    ),
    ("what a resource came to is another", "insert into let_go_resource values (1, 'x', 1, 1)"),
];

#[tokio::test]
async fn tampering_with_what_was_let_go_is_noticed() {
    if crate::support::store::has_no_file("it tampers as SQLite spells it") {
        return;
    }
    for (what, sql) in TAMPERING {
        let base = Base::new();
        let (running, ..) = partly_let_go(&base).await;
        running.stop().await;
        base.verify().await.unwrap();
        assert!(base.execute(sql).await > 0, "{what}: nothing was changed");
        assert!(base.verify().await.is_err(), "{what}: not noticed");
    }
}

#[tokio::test]
async fn a_kept_commit_that_is_hidden_behind_a_stretch_is_noticed() {
    if crate::support::store::has_no_file("it tampers as SQLite spells it") {
        return;
    }
    // The commit is cut out, and the stretch before it made to end with that commit's own hash: both chains agree.
    let base = Base::new();
    let running = base.founded().await;
    let one = running.open().await;
    running.disconnect(one.number, Reason::Client).await;
    let_sessions_go(&running, running.now() + TimeDelta::seconds(1), 9).await;
    let hidden = running.open().await;
    running.disconnect(hidden.number, Reason::Client).await;
    running.stop().await;
    let mut raw = base.raw().await;
    let row = sqlx::query("select position, commit_hash from event where stream_kind = 4 order by position")
        .fetch_all(&mut raw)
        .await
        .unwrap();
    let (first, last) = (row.first().unwrap(), row.last().unwrap());
    sqlx::query("insert into gone values (?, ?, null, ?)")
        .bind(first.get::<i64, _>(0))
        .bind(last.get::<i64, _>(0))
        .bind(last.get::<Vec<u8>, _>(1))
        .execute(&mut raw)
        .await
        .unwrap();
    for sql in
        ["delete from event where stream_kind = 4", "delete from session", "delete from session_detail"]
    {
        sqlx::query(sql).execute(&mut raw).await.unwrap();
    }
    drop(raw);
    let fault = base.verify().await.unwrap_err().to_string();
    assert!(fault.contains("events that were let go"), "{fault}");
}

#[tokio::test]
async fn verify_agrees_with_a_log_that_is_let_go_of_while_it_reads() {
    let base = Base::new();
    let running = base.founded().await;
    for _ in 0..60 {
        let session = running.open().await;
        for _ in 0..40 {
            running.record(session.number, 1).await;
        }
        running.disconnect(session.number, Reason::Client).await;
    }
    running.open().await;
    running.stop().await;
    let running = base.start().await;
    let before = running.now() + TimeDelta::seconds(1);
    let (reader, verifying) = (running.reader.clone(), tokio_util::sync::CancellationToken::new());
    let done = verifying.clone();
    let verify = tokio::spawn(async move {
        let mut rounds = 0;
        while !done.is_cancelled() || rounds == 0 {
            reader.verify(&mut |_, _| ()).await.unwrap();
            rounds += 1;
        }
    });
    fold(&running, before, 50).await;
    let_sessions_go(&running, before, 1).await;
    verifying.cancel();
    verify.await.unwrap();
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn no_table_knows_of_a_session_that_was_let_go() {
    if crate::support::store::has_no_file("it looks for the tables of the file") {
        return;
    }
    let base = Base::new();
    let running = base.founded().await;
    let mut ids = vec![];
    for _ in 0..3 {
        let opens = Opens { kind: Some(Kind::Media), resource: Some("camera".into()), ..Opens::default() };
        let session = running.connect(&opens).await.unwrap();
        running.disconnect(session.number, Reason::Client).await;
        ids.push(session.id);
    }
    // What stands beside a session, whoever wrote it.
    for sql in [
        &format!("insert into idempotency values (x'01', x'02', x'03', '\"{}\"', 1, 1)", ids[0]),
        "insert into confirmation values (1, 1, null)",
        "insert into mcp_session values (1, zeroblob(32), x'01')",
        "insert or replace into session_token values (1, zeroblob(32), 1, 1)",
    ] {
        base.execute(sql).await;
    }
    // The last is named by the account, so that ids go on from it.
    let_sessions_go(&running, running.now() + TimeDelta::seconds(1), 2).await;
    running.stop().await;
    let mut raw = base.raw().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%' and name not like '_sqlx%'",
    )
    .fetch_all(&mut raw)
    .await
    .unwrap();
    for table in &tables {
        let columns: Vec<String> = sqlx::query_scalar("select name from pragma_table_info(?)")
            .bind(table)
            .fetch_all(&mut raw)
            .await
            .unwrap();
        for column in &columns {
            let of_session = column == "session" || column == "session_number";
            let listed = OF_SESSIONS.contains(&(table.as_str(), column.as_str()));
            assert!(
                listed || !of_session,
                "{table}.{column} knows of sessions, and letting go does not know of it"
            );
            let sql = format!(
                "select count(*) from \"{table}\" where \"{column}\" = ?1 or instr(\"{column}\", ?2) or instr(\"{column}\", ?3)"
            );
            let found: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
                .bind(ids[0])
                .bind(ids[0].to_string())
                .bind(ids[0].simple().to_string())
                .fetch_one(&mut raw)
                .await
                .unwrap();
            assert_eq!(found, 0, "{table}.{column} names a session that was let go");
        }
    }
    for (table, _) in OF_SESSIONS {
        assert!(tables.iter().any(|one| one == table), "there is no {table}");
        let sql = format!("select count(*) from {table}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut raw).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

#[tokio::test]
async fn what_was_erased_before_and_deliveries_of_what_is_let_go_go_with_it() {
    if crate::support::store::has_no_file("it writes as SQLite spells it") {
        return;
    }
    let base = Base::new();
    let running = base.founded().await;
    let one = running.open().await;
    running
        .submit(sessiond::committer::WriteBeside(SideWrite::ErasePersonal(vec![one.number])))
        .await
        .unwrap();
    running.disconnect(one.number, Reason::Client).await;
    let id = uuid::Uuid::now_v7();
    let head = running.head().0;
    base.execute(&format!("insert into webhook_progress values (x'{0}', 0)", id.simple())).await;
    base.execute(&format!(
        "insert into webhook_delivery values (x'{0}', {head}, 'session/1', 0, 1, null, null, null, null, 1, 1)",
        id.simple()
    ))
    .await;
    let_sessions_go(&running, running.now() + TimeDelta::seconds(1), 2).await;
    running.stop().await;
    let left: i64 = sqlx::query_scalar("select count(*) from webhook_delivery")
        .fetch_one(&mut base.raw().await)
        .await
        .unwrap();
    assert_eq!(left, 0);
    base.verify().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_history_of_which_much_is_let_go_agrees_with_a_slow_fold_and_survives_crashes() {
    for seed in seeds() {
        println!("seed {seed}; run it again with SEED={seed}");
        let base = Base::new();
        let clock = sessiond::clock::Clock::system();
        let mut player = Player::new(seed);
        let mut running = base.start_with(clock.clone()).await;
        running.found().await;
        let mut gone = 0;
        for round in 0..6 {
            for _ in 0..20 {
                player.play(&running).await;
            }
            match round % 3 {
                0 => running.crash().await,
                _ => running.stop().await,
            }
            running = base.start_with(clock.clone()).await;
            let hours = player.dice.roll(4).cast_signed();
            let before = running.now() - TimeDelta::hours(hours);
            let at_once = 1 + player.dice.roll(5) as u32;
            gone += fold(&running, before, 10 * at_once).await.len();
            gone += let_sessions_go(&running, before, at_once).await.len();
            base.verify().await.unwrap_or_else(|fault| panic!("seed {seed}, round {round}: {fault}"));
            running.crash().await;
            base.verify()
                .await
                .unwrap_or_else(|fault| panic!("seed {seed}, round {round}, crashed: {fault}"));
            running = base.start_with(clock.clone()).await;
            running.stop().await;
            agrees_with_a_slow_fold(&base).await;
            let before = all_rows(&base).await;
            base.rebuild().await.unwrap();
            for (before, after) in before.iter().zip(&all_rows(&base).await) {
                assert_eq!(before, after, "seed {seed}, round {round}");
            }
            running = base.start_with(clock.clone()).await;
        }
        running.stop().await;
        assert!(gone > 20, "seed {seed} did too little: {gone}");
        base.verify().await.unwrap();
    }
}
