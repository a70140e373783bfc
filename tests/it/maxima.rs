//! How many there may be, and what may be there once: of many who ask at once, as many get it as there is room for. What is made
//! on the way is in `made.rs`.

use futures_util::future::join_all;
use serde_json::{Value, json};
use sessiond::directory::Chosen;
use sessiond::error::Error;
use sqlx::Connection;

use crate::support::{Holder, Server, store};

/// How many more there may be when the race begins.
const ROOM: usize = 5;

/// A kind of which an organization may have so many.
struct Limited {
    /// As it stands in the log.
    kind: i64,
    most: i64,
    path: &'static str,
    body: fn(usize) -> Value,
    code: &'static str,
}

const LIMITED: [Limited; 5] = [
    Limited {
        kind: 7,
        most: 10_000,
        path: "/api/v1/api-keys",
        body: |number| json!({ "name": format!("k{number}"), "scopes": ["terminal"] }),
        code: "api_key_limit_reached",
    },
    Limited {
        kind: 8,
        most: 1_000,
        path: "/api/v1/scheduled-revocations",
        body: |number| json!({ "name": format!("s{number}"), "at": "2099-01-01T00:00:00Z", "filter": { "organization": true } }),
        code: "too_many_schedules",
    },
    Limited {
        kind: 9,
        most: 100,
        path: "/api/v1/webhooks",
        body: |number| json!({ "url": format!("https://receiver.example/{number}") }),
        code: "webhook_limit_reached",
    },
    Limited {
        kind: 11,
        most: 100,
        path: "/api/v1/hooks",
        body: |number| json!({ "name": format!("h{number}") }),
        code: "hook_limit_reached",
    },
    Limited {
        kind: 12,
        most: 10_000,
        path: "/v1/machines",
        body: |number| {
            json!({
                "name": format!("m{number}"), "host": "127.0.0.1", "port": 22, "user": "u",
                "credential": { "type": "password", "password": "p" },
            })
        },
        code: "MACHINE_LIMIT_REACHED",
    },
];

/// Whoever may make one: terminals are for keys.
async fn maker(operator: &Holder, limited: &Limited) -> Holder {
    if !limited.path.starts_with("/v1/") {
        return operator.clone();
    }
    let made = operator.post("/api/v1/api-keys", json!({ "name": "t", "scopes": ["terminal"] })).await.1;
    Holder { token: made["key"].as_str().map(str::to_owned), ..operator.clone() }
}

/// Copies the first row of a kind until there are so many, with what only SQLite can do: their log is not looked at here.
async fn fill(server: &Server, kind: i64, count: i64) {
    let options: sqlx::sqlite::SqliteConnectOptions = server.database().parse().unwrap();
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let copied = sqlx::query(
        "with recursive more(number, id) as ( \
             select 1000000, null \
             union all \
             select number + 1, printf('%08x-0000-4000-8000-%012x', ?1, number) from more \
         ), \
         first as (select * from item where kind = ?1 order by number limit 1) \
         insert into item (kind, number, id, organization, state, version, head, hash) \
         select kind, more.number, unhex(replace(more.id, '-', '')), organization, \
             json_set(state, '$.number', more.number, '$.id', more.id), version, head, hash \
         from first, (select * from more where id is not null limit ?2) as more",
    )
    .bind(kind)
    .bind(count - 1)
    .execute(&mut connection)
    .await
    .unwrap();
    assert_eq!(copied.rows_affected() as i64, count - 1);
    connection.close().await.unwrap();
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|one| **one == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_make_the_last_one_at_once_as_many_do_as_there_is_room_for() {
    if store::has_no_file("it fills the file with rows") {
        return;
    }
    let mut server = Server::start().await;
    let operator = server.operator().await;
    for limited in &LIMITED {
        let (status, made) = maker(&operator, limited).await.post(limited.path, (limited.body)(0)).await;
        assert_eq!(status, 201, "{}: {made}", limited.path);
    }
    server.stop().await;
    // Another key is made for the machine above, and one below.
    let keys = 1;
    for limited in &LIMITED {
        let others = if limited.kind == 7 { keys + 1 } else { 0 };
        fill(&server, limited.kind, limited.most - ROOM as i64 - others).await;
    }
    let server = server.restart().await;
    let operator = server.operator().await;
    for limited in LIMITED.iter().rev() {
        let maker = maker(&operator, limited).await;
        let answers = join_all((1..=20).map(|number| maker.post(limited.path, (limited.body)(number)))).await;
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| status.as_u16()).collect();
        assert_eq!((count(&statuses, 201), count(&statuses, 409)), (ROOM, 20 - ROOM), "{}", limited.path);
        let (_, refused) = answers.iter().find(|(status, _)| *status == 409).unwrap();
        let code = refused["code"].as_str().or_else(|| refused["error"]["code"].as_str());
        assert_eq!(code, Some(limited.code), "{refused}");
        // Whatever is deleted makes room for one more.
        let (_, made) = answers.iter().find(|(status, _)| *status == 201).unwrap();
        let ids = ["/apiKey/id", "/scheduledRevocation/id", "/webhook/id", "/hook/id", "/data/id"];
        let id = ids.iter().find_map(|at| made.pointer(at)).and_then(Value::as_str).unwrap();
        let (status, said) = maker.delete(&format!("{}/{id}", limited.path)).await;
        assert!(status.is_success(), "{said}");
        let answers = join_all((0..4).map(|number| maker.post(limited.path, (limited.body)(number)))).await;
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| status.as_u16()).collect();
        assert_eq!((count(&statuses, 201), count(&statuses, 409)), (1, 3), "{}", limited.path);
    }
}

/// The kind of a bar in the log, and how many may keep somebody out.
const BAR: i64 = 13;
const MOST_BARS: i64 = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn at_the_most_bars_the_next_is_refused_with_words_and_nothing_of_its_revocation_is_done() {
    const BARS: &str = "/api/v1/bars";
    let mut server = Server::start().await;
    let operator = server.operator().await;
    let mut people = vec![];
    for name in ["ada", "bob", "carl"] {
        let body = json!({ "name": name, "scopes": ["mcp:invoke"], "user": { "id": name } });
        let (status, made) = operator.post("/api/v1/api-keys", body).await;
        assert_eq!(status, 201, "{made}");
        let id = made["apiKey"]["user"]["principalId"].as_str().unwrap().to_owned();
        people.push((made["key"].as_str().unwrap().to_owned(), id));
    }
    let [(ada_key, ada), (bob_key, bob), (_, carl)] = &people[..] else { panic!() };
    assert_eq!(operator.post(BARS, json!({ "principal": carl })).await.0, 201);
    server.stop().await;
    fill(&server, BAR, MOST_BARS - 1).await;
    let server = server.restart().await;
    let operator = server.operator().await;
    let in_hall = json!({ "applicationId": server.application().await, "hostname": "hall" });
    let agents = [
        server.holder(ada_key).connect(in_hall.clone()).await,
        server.holder(bob_key).connect(in_hall.clone()).await,
    ];
    let log = server.log().await.len();
    let refused = async |path: &str, body: Value| {
        let (status, said) = operator.post(path, body).await;
        assert_eq!((status.as_u16(), &said["code"]), (409, &json!("too_many_bars")), "{said}");
        assert!(said["message"].as_str().unwrap().contains("at most 10000 bars"), "{said}");
    };
    let both = json!({ "filter": { "hostname": "hall" }, "bar": true, "message": "out" });
    refused("/api/v1/revocations", both.clone()).await;
    assert_eq!(server.log().await.len(), log, "nothing was done");
    for agent in &agents {
        assert_eq!(agent.call("heartbeat").await.0, 200);
    }
    // There is room for one.
    let (status, placed) = operator.post(BARS, json!({ "principal": ada })).await;
    assert_eq!((status.as_u16(), &placed["disconnectedCount"]), (201, &json!(1)), "{placed}");
    let log = server.log().await.len();
    refused(BARS, json!({ "principal": bob })).await;
    assert_eq!(server.log().await.len(), log, "nothing was done");
    assert_eq!(agents[1].call("heartbeat").await.0, 200);
    server.holder(bob_key).connect(in_hall.clone()).await;

    // A run of a schedule ends the sessions all the same.
    let at = (server.clock.now() + chrono::TimeDelta::seconds(60)).to_rfc3339();
    let mut body = both.clone();
    (body["name"], body["at"]) = (json!("tonight"), json!(at));
    let (status, made) = operator.post("/api/v1/scheduled-revocations", body).await;
    assert_eq!(status, 201, "{made}");
    let path =
        format!("/api/v1/scheduled-revocations/{}", made["scheduledRevocation"]["id"].as_str().unwrap());
    server.turn(61);
    server.until("its run", async || operator.get(&path).await.1["scheduledRevocation"]["runs"] == 1).await;
    server.until("the end", async || agents[1].call("heartbeat").await.0 == 401).await;
    server.holder(bob_key).connect(in_hall).await;

    // Whatever is lifted makes room, and so does what is over by the clock.
    let path = format!("{BARS}/{}", placed["bar"]["id"].as_str().unwrap());
    assert_eq!(operator.delete(&path).await.0, 200);
    let until = (server.clock.now() + chrono::TimeDelta::seconds(60)).to_rfc3339();
    assert_eq!(operator.post(BARS, json!({ "principal": bob, "until": until })).await.0, 201);
    refused(BARS, json!({ "principal": ada })).await;
    server.turn(61);
    assert_eq!(operator.post(BARS, json!({ "principal": ada })).await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_one_name_for_an_application_at_once_one_gets_it() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for round in 0..5 {
        let body = json!({ "name": format!("made {round}") });
        let answers = join_all((0..10).map(|_| operator.post("/api/v1/applications", body.clone()))).await;
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| status.as_u16()).collect();
        assert_eq!((count(&statuses, 201), count(&statuses, 409)), (1, 9), "{statuses:?}");
        assert!(answers.iter().all(|(status, told)| *status == 201 || told["code"] == "name_taken"));
        // Two are renamed to it, and two made.
        let mut paths = vec![];
        for number in 0..2 {
            let name = json!({ "name": format!("other {round} {number}") });
            let made = operator.post("/api/v1/applications", name).await.1;
            paths.push(format!("/api/v1/applications/{}", made["application"]["id"].as_str().unwrap()));
        }
        let body = json!({ "name": format!("renamed {round}") });
        let renamed = join_all(paths.iter().map(|path| operator.patch(path, body.clone())));
        let made = join_all((0..2).map(|_| operator.post("/api/v1/applications", body.clone())));
        let (renamed, made) = tokio::join!(renamed, made);
        let statuses: Vec<u16> = renamed.iter().chain(&made).map(|(status, _)| status.as_u16()).collect();
        assert_eq!(count(&statuses, 200) + count(&statuses, 201), 1, "{statuses:?}");
        assert_eq!(count(&statuses, 409), 3, "{statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_name_at_once_on_the_way_is_made_once() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let body = json!({ "name": "k", "scopes": ["media", "session"], "user": { "id": "ada" } });
    let made = operator.post("/api/v1/api-keys", body).await.1;
    let key = made["key"].as_str().unwrap().to_owned();
    let watch = async || {
        let url = server.url("/v1/vhosts/v/apps/a/streams/s/sessions");
        let request = server.http.post(url).header("authorization", crate::media::basic(&key));
        request.json(&json!({})).send().await.unwrap().status().as_u16()
    };
    let begin = async || {
        let url = server.url("/pro/session-manager/v1/sessions/task");
        let request = server.http.post(url).header("apiKey", &key);
        request.json(&json!({ "app": { "name": "work" } })).send().await.unwrap().status().as_u16()
    };
    let watching = join_all((0..20).map(|_| watch()));
    let (watching, working) = tokio::join!(watching, join_all((0..20).map(|_| begin())));
    assert_eq!((count(&watching, 201), count(&working, 201)), (20, 20), "{watching:?} {working:?}");
    let log = server.log().await;
    let made = |name: &str| log.iter().filter(|(one, _)| one == name).count();
    assert_eq!(made("media_stream_declared"), 1);
    assert_eq!(made("application_created"), 3, "the first, the portal's and the app's");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_organizations_founded_at_once_with_one_client_id_one_is() {
    let server = Server::start().await;
    let directory = &server.running.as_ref().unwrap().house.directory;
    for round in 0..5 {
        let chosen = Chosen {
            client_id: format!("client {round}"),
            client_secret: "a secret of thirty-two characters or more".to_owned(),
        };
        let founded =
            join_all((0..10).map(|_| directory.organizations.create("another", Some(chosen.clone())))).await;
        assert_eq!(founded.iter().filter(|one| one.is_ok()).count(), 1);
        for refused in founded.into_iter().filter_map(Result::err) {
            assert!(matches!(refused, Error::Conflict { code: "client_id_taken", .. }), "{refused:?}");
        }
    }
    let log = server.log().await;
    for made in ["organization_created", "service_account_created", "application_created"] {
        assert_eq!(log.iter().filter(|(name, _)| name == made).count(), 6, "{made}: nothing of the others");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_organizations_that_trust_an_issuer_for_one_audience_at_once_one_does() {
    const ISSUERS: &str = "/api/v1/organization/issuers";
    let mut server = Server::start().await;
    let mut clients = vec![];
    for number in 0..6 {
        let directory = &server.running.as_ref().unwrap().house.directory;
        let founded = directory.organizations.create(&format!("o{number}"), None).await.unwrap();
        let claim = format!("{} https://issuer.example everybody", founded.organization.id);
        server.flags.extend(["--issuer-claim".to_owned(), claim]);
        clients.push((founded.client_id, founded.client_secret));
    }
    let server = server.restart().await;
    let tokens = join_all(clients.iter().map(|(id, secret)| server.token_for(id, secret, ""))).await;
    let holders: Vec<Holder> = tokens.into_iter().map(|token| server.holder(token)).collect();
    let issuer = json!({
        "issuer": "https://issuer.example", "audience": "everybody", "algorithms": ["ES256"],
        "scopes": ["mcp:invoke"],
    });
    for round in 0..5 {
        let trust = holders.iter().map(|holder| holder.put(ISSUERS, json!({ "issuers": [issuer] })));
        let answers = join_all(trust).await;
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| status.as_u16()).collect();
        assert_eq!((count(&statuses, 200), count(&statuses, 409)), (1, 5), "{round}: {answers:?}");
        let one = statuses.iter().position(|status| *status == 200).unwrap();
        assert_eq!(holders[one].put(ISSUERS, json!({ "issuers": [] })).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_bound_to_an_application_after_it_was_archived() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (mut bound, mut refused) = (0, 0);
    for round in 0..12 {
        let made = operator.post("/api/v1/applications", json!({ "name": format!("a{round}") })).await.1;
        let id = made["application"]["id"].as_str().unwrap();
        let webhook = json!({ "url": "https://receiver.example/", "applicationId": id });
        let account = json!({ "name": "a", "scopes": ["mcp:invoke"], "applicationId": id });
        let path = format!("/api/v1/applications/{id}");
        let (archived, webhooks, accounts) = tokio::join!(
            operator.delete(&path),
            join_all((0..4).map(|_| operator.post("/api/v1/webhooks", webhook.clone()))),
            join_all((0..4).map(|_| operator.post("/api/v1/service-accounts", account.clone()))),
        );
        assert_eq!(archived.0, 204);
        for (status, told) in webhooks.iter().chain(&accounts) {
            assert!(matches!(status.as_u16(), 201 | 404), "{told}");
        }
        bound += webhooks.iter().chain(&accounts).filter(|(status, _)| *status == 201).count();
        refused += webhooks.iter().chain(&accounts).filter(|(status, _)| *status == 404).count();
    }
    assert_eq!(bound + refused, 96);
    let mut archived = std::collections::BTreeSet::new();
    let sql = "select type, stream_number, application, coalesce(body, '') from event order by position";
    let log: Vec<(String, i64, Option<i64>, String)> = server.look_inside().await.rows(sql, &[]).await;
    for (name, stream, application, body) in log {
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        match name.as_str() {
            "application_archived" => drop(archived.insert(stream)),
            "webhook_created" => assert!(!archived.contains(&application.unwrap())),
            "service_account_created" => {
                assert!(body["application"].as_i64().is_none_or(|one| !archived.contains(&one)), "{body}");
            }
            _ => {}
        }
    }
    assert_eq!(archived.len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_where_a_machine_is_and_its_credential_has_both_or_neither() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let keys = maker(&operator, &LIMITED[4]).await;
    let made = keys.post("/v1/machines", (LIMITED[4].body)(1)).await.1;
    let path = format!("/v1/machines/{}", made["data"]["id"].as_str().unwrap());
    let change = |host: &str| json!({ "host": host, "port": 22, "credential": { "type": "password", "password": host } });
    let (here, there) = (change("127.0.0.1"), change("127.0.0.2"));
    for _ in 0..20 {
        let (one, other) = tokio::join!(keys.patch(&path, there.clone()), keys.patch(&path, here.clone()));
        assert_eq!((one.0.as_u16(), other.0.as_u16()), (200, 200), "{} {}", one.1, other.1);
        assert_eq!(keys.patch(&path, here.clone()).await.0, 200);
    }
    // Whatever was brought for this machine was kept while it was this machine, whoever was faster.
    let mut host = "127.0.0.1".to_owned();
    for (name, body) in server.log().await {
        if name == "machine_changed" {
            assert!(body["host"].is_string() || host == "127.0.0.1", "what was brought for here went there");
            host = body["host"].as_str().unwrap_or(&host).to_owned();
        }
    }
}
