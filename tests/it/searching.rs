//! Sessions are found by words: of what they are called, of whose they are, and by the beginning of their id.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use url::form_urlencoded::byte_serialize;

use crate::support::daemon::sessiond;
use crate::support::{Agent, Holder, Server, rounds};

const ALL: &str = "/api/v1/sessions";

/// The items of all pages, and how many there were.
async fn pages(holder: &Holder, path: &str, q: &str, more: &str) -> (Vec<Value>, usize) {
    let q: String = byte_serialize(q.as_bytes()).collect();
    let (mut items, mut cursor, mut count) = (vec![], String::new(), 0);
    loop {
        let (status, page) = holder.get(&format!("{path}?q={q}{more}{cursor}")).await;
        assert_eq!(status, StatusCode::OK, "{q}: {page}");
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        count += 1;
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (items, count),
        }
    }
}

/// The names of the sessions that are found, the first to connect first.
async fn found(holder: &Holder, q: &str) -> Vec<String> {
    let (items, _) = pages(holder, ALL, q, "&status=all&sort=created").await;
    items.iter().map(|one| one["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Which field of a question is refused.
async fn refused(holder: &Holder, query: &str) -> String {
    let (status, problem) = holder.get(&format!("{ALL}?{query}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {problem}");
    problem["errors"].to_string() + problem["message"].as_str().unwrap_or_default()
}

async fn call(operator: &Holder, name: &str, hostname: &str, client: &str) -> Agent {
    let info = json!({ "name": client, "version": "1" });
    operator.connect(json!({ "name": name, "hostname": hostname, "clientInfo": info })).await
}

/// What is filed under words is what the log says.
async fn verify(mut server: Server) {
    server.stop().await;
    let verified = sessiond(&["verify", "--database", &server.database()]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

/// A person with a credential of the person's own.
async fn somebody(operator: &Holder, id: &str, name: &str) -> (String, Holder) {
    let user = json!({ "id": id, "name": name, "email": format!("{id}@example.com") });
    let body = json!({ "name": id, "scopes": ["mcp:invoke"], "user": user });
    let (status, made) = operator.post("/api/v1/api-keys", body).await;
    assert_eq!(status, 201, "{made}");
    let holder = Holder { token: made["key"].as_str().map(str::to_owned), ..operator.clone() };
    (made["apiKey"]["user"]["principalId"].as_str().unwrap().to_owned(), holder)
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_found_by_the_beginnings_of_words_of_their_name_their_host_and_their_client() {
    let server = Server::start().await;
    let operator = server.operator().await;
    call(&operator, "Night Build", "desk-17.example", "claude-code").await;
    let second = call(&operator, "Day build", "desk-18.example", "Inspector").await;
    call(&operator, "Überprüfung", "rack-17.example", "inspector").await;
    for (q, names) in [
        ("build", vec!["Night Build", "Day build"]),
        ("BUI", vec!["Night Build", "Day build"]),
        ("uild", vec![]),
        ("desk-17", vec!["Night Build"]),
        ("17", vec!["Night Build", "Überprüfung"]),
        ("insp", vec!["Day build", "Überprüfung"]),
        ("code", vec!["Night Build"]),
        ("überp", vec!["Überprüfung"]),
        ("insp rack", vec!["Überprüfung"]),
        ("build desk insp", vec!["Day build"]),
        ("build rack", vec![]),
        ("  example   day ", vec!["Day build"]),
    ] {
        assert_eq!(found(&operator, q).await, names, "{q}");
    }
    // Of those that are open unless more is asked for, in either order, and counted alike.
    assert_eq!(second.call("disconnect").await.0, StatusCode::OK);
    let (open, _) = pages(&operator, ALL, "build", "").await;
    assert_eq!(open.len(), 1);
    assert_eq!(found(&operator, "build").await, ["Night Build", "Day build"]);
    let (ended, _) = pages(&operator, ALL, "build", "&status=disconnected").await;
    assert_eq!((ended.len(), &ended[0]["id"]), (1, &json!(second.id)));
    let (_, counted) = operator.get(&format!("{ALL}/count?q=build")).await;
    assert_eq!(counted["counts"], json!({ "active": 1, "idle": 0, "expired": 0, "disconnected": 1 }));
    let own = format!(
        "/api/v1/applications/{}/sessions/count?q=example&hostname=rack-17.example",
        second.application
    );
    assert_eq!(operator.get(&own).await.1["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_found_by_their_people_where_the_caller_may_know_them() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (ada, holder) = somebody(&operator, "ada|7", "Ada Lovelace").await;
    holder.connect(json!({ "name": "analysis" })).await;
    let (_, other) = somebody(&operator, "grace|8", "Grace Hopper").await;
    other.connect(json!({ "name": "lovely" })).await.call("disconnect").await;
    let body = json!({ "name": "reader", "scopes": ["management:sessions:read"] });
    let (_, key) = operator.post("/api/v1/api-keys", body).await;
    let reader = Holder { token: key["key"].as_str().map(str::to_owned), ..operator.clone() };
    for (q, names) in [
        ("love", vec!["analysis", "lovely"]),
        ("lovel", vec!["analysis", "lovely"]),
        ("lovelace", vec!["analysis"]),
        ("hopper lovely", vec!["lovely"]),
        ("ada|7", vec!["analysis"]),
        ("ADA|7@example.com", vec!["analysis"]),
        ("grace|8", vec!["lovely"]),
        ("hopper analysis", vec![]),
    ] {
        assert_eq!(found(&operator, q).await, names, "{q}");
    }
    assert_eq!(found(&reader, "love").await, ["lovely"], "by the name of the session alone");
    for q in ["lovelace", "ada|7", "hopper"] {
        assert_eq!(found(&reader, q).await, Vec::<String>::new(), "{q}");
    }
    // Whoever is erased is not found any more, and neither are the names of their sessions.
    let (status, body) = operator.delete(&format!("/api/v1/principals/{ada}/personal")).await;
    assert!(status.is_success(), "{body}");
    for q in ["lovelace", "ada|7", "analysis"] {
        assert_eq!(found(&operator, q).await, Vec::<String>::new(), "{q}");
    }
    assert_eq!(found(&operator, "love").await, ["lovely"]);
    verify(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_found_by_the_beginning_of_their_id_with_and_without_hyphens() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let first = operator.connect(json!({ "name": "first" })).await;
    let second = operator.connect(json!({ "name": "second" })).await;
    second.call("disconnect").await;
    let bare = |agent: &Agent| agent.id.replace('-', "");
    for (agent, name) in [(&first, "first"), (&second, "second")] {
        for q in [agent.id.clone(), bare(agent), agent.id.to_uppercase(), agent.id[..35].to_owned()] {
            assert_eq!(found(&operator, &q).await, [name], "{q}");
        }
        assert!(found(&operator, &agent.id[..8]).await.contains(&name.to_owned()));
        assert!(found(&operator, &bare(agent)[..7]).await.is_empty(), "too little of it");
        assert!(found(&operator, &format!("{}0", bare(agent))).await.is_empty(), "no id is so long");
    }
    assert_eq!(found(&operator, &format!("{} sec", &first.id[..8])).await, ["second"]);
    let stranger = server.another_organization().await;
    assert!(found(&stranger, &first.id).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_looked_for_is_refused_by_its_field() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let long = format!("q={}", "a".repeat(201));
    for query in ["q=", "q=%20", "q=a+b+c+d+e+f+g+h+i", "q=desk+--", long.as_str(), "q=a&asOf=1"] {
        let refusal = refused(&operator, query).await;
        assert!(refusal.contains('q'), "{query}: {refusal}");
    }
    for sort in ["lastActive", "-lastActive", "expires"] {
        assert!(refused(&operator, &format!("q=a&sort={sort}")).await.contains("sort"));
    }
    let (status, _) =
        operator.delete(&format!("/api/v1/applications/{}/sessions?q=a", server.application().await)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "nothing is ended by words");
    let names = (0..501).map(|number| json!({ "name": format!("w{number:03}x") }));
    let made: Vec<_> = names.map(|body| operator.connect(body)).collect();
    join_all(made).await;
    let refusal = refused(&operator, "q=w").await;
    assert!(refusal.contains("more than 500 words begin with w"), "{refusal}");
    assert_eq!(found(&operator, "w12").await.len(), 10);
    assert_eq!(found(&operator, "w w123x").await, ["w123x"], "the other term leads to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_of_other_organizations_and_applications_or_of_what_was_let_go() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (_, other) = operator.post("/api/v1/applications", json!({ "name": "other" })).await;
    let other = other["application"]["id"].as_str().unwrap().to_owned();
    let gone = call(&operator, "common gone", "h", "c").await;
    operator.connect(json!({ "name": "common there", "applicationId": other })).await;
    server.another_organization().await.connect(json!({ "name": "common elsewhere" })).await;
    assert_eq!(found(&operator, "common").await, ["common gone", "common there"]);
    let (items, _) = pages(&operator, &format!("/api/v1/applications/{other}/sessions"), "common", "").await;
    assert_eq!((items.len(), &items[0]["name"]), (1, &json!("common there")));
    gone.call("disconnect").await;
    server.turn(120);
    let (status, body) = operator.put("/api/v1/organization/retention", json!({ "endedAfter": 60 })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    server
        .until_within(30, "the session to be let go", async || {
            operator.get(&gone.path()).await.0 == StatusCode::NOT_FOUND
        })
        .await;
    assert!(found(&operator, "gone").await.is_empty());
    let left =
        server.look_inside().await.number("select count(*) from session_word where word = 'gone'", &[]).await;
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_complete_and_without_doubles_while_sessions_end() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(300).await;
    let ending = async {
        for chunk in agents.chunks(10) {
            join_all(chunk.iter().map(|agent| agent.call("disconnect"))).await;
        }
    };
    let looking = async {
        for sort in ["created", "-created"].into_iter().cycle().take(8) {
            let more = format!("&status=all&limit=17&sort={sort}");
            let (items, count) = pages(&operator, ALL, "agent", &more).await;
            let ids: BTreeSet<_> = items.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
            assert_eq!((items.len(), ids.len(), count), (300, 300, 18));
        }
    };
    tokio::join!(ending, looking);
    let (open, _) = pages(&operator, ALL, "agent", "&limit=17").await;
    assert!(open.is_empty());
}

// ---- against a matcher that looks at every session ----

/// The same sessions and questions for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

const NAMES: [&str; 6] = ["Night build", "Day-build", "Nightly", "Deploy of day", "naïve Über", "x"];
const HOSTS: [&str; 5] = ["desk-17.example", "desk-18.example", "rack1.night.example", "abcdef12-3456", "d"];
const CLIENTS: [&str; 4] = ["claude-code", "Inspector", "in-house", "code"];
const PEOPLE: [(&str, &str); 3] =
    [("ada|7", "Ada Lovelace"), ("night|2", "Knight Day"), ("desk", "Desk Ada")];
const TERMS: [&str; 16] = [
    "night", "nigh", "day", "build", "desk-1", "desk", "17", "example", "co", "in", "ada", "ada|7", "über",
    "abcdef12", "love", "ght",
];

/// Whether a session as it is shown fits, by the rules as the page about questions has them.
fn fits(shown: &Value, q: &str) -> bool {
    let cut = |text: &Value| -> Vec<String> {
        let text = text.as_str().unwrap_or_default().to_lowercase();
        text.split(|one: char| !one.is_alphanumeric()).map(str::to_owned).collect()
    };
    let person = &shown["principal"];
    let texts = [&shown["name"], &shown["hostname"], &shown["client"], &person["name"], &person["email"]];
    let words: Vec<String> = texts.into_iter().flat_map(cut).collect();
    let id = shown["id"].as_str().unwrap().replace('-', "");
    q.split_whitespace().all(|term| {
        let digits = term.replace('-', "").to_lowercase();
        let begun = |part: &str| words.iter().any(|word| word.starts_with(&part.to_lowercase()));
        term.split(|one: char| !one.is_alphanumeric()).all(begun)
            || (digits.len() >= 8
                && digits.chars().all(|one| one.is_ascii_hexdigit())
                && id.starts_with(&digits))
            || PEOPLE.iter().any(|(subject, name)| person["name"] == *name && *subject == term)
            || person["email"].as_str().is_some_and(|email| email.eq_ignore_ascii_case(term))
    })
}

async fn fill(operator: &Holder, dice: &mut Dice, applications: &[String], count: usize) {
    let mut holders = vec![operator.clone()];
    for (id, name) in PEOPLE {
        holders.push(somebody(operator, id, name).await.1);
    }
    let mut made = 0;
    while made < count {
        let batch: Vec<_> = (0..50)
            .map(|_| {
                let holder = holders[dice.below(holders.len())].clone();
                let body = json!({
                    "name": NAMES[dice.below(NAMES.len())],
                    "hostname": HOSTS[dice.below(HOSTS.len())],
                    "clientInfo": { "name": CLIENTS[dice.below(CLIENTS.len())], "version": "1" },
                    "applicationId": applications[dice.below(applications.len())],
                });
                let ends = dice.below(2) == 0;
                async move {
                    let agent = holder.connect(body).await;
                    if ends {
                        agent.call("disconnect").await;
                    }
                }
            })
            .collect();
        made += join_all(batch).await.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_questions_find_what_a_look_at_every_session_finds() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let mut applications = vec![server.application().await];
    let (_, other) = operator.post("/api/v1/applications", json!({ "name": "other" })).await;
    applications.push(other["application"]["id"].as_str().unwrap().to_owned());
    let mut dice = Dice(15);
    fill(&operator, &mut dice, &applications, rounds(1_000, 4_000)).await;
    let mut everything = vec![];
    let mut cursor = String::new();
    loop {
        let (_, page) = operator.get(&format!("{ALL}?status=all&sort=created&limit=100{cursor}")).await;
        everything.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    for round in 0..rounds(60, 400) {
        let mut q: Vec<String> =
            (0..=dice.below(3)).map(|_| TERMS[dice.below(TERMS.len())].to_owned()).collect();
        if round % 6 == 0 {
            let id = everything[dice.below(everything.len())]["id"].as_str().unwrap();
            q = vec![id[..9 + dice.below(27)].to_owned()];
        }
        let q = q.join(" ");
        let status = ["all", "active", "inactive", "disconnected"][dice.below(4)];
        let sort = ["created", "-created"][dice.below(2)];
        let application = &applications[dice.below(2)];
        let within = (dice.below(2) == 0).then(|| format!("&applicationId={application}"));
        let mut expected: Vec<&Value> = everything
            .iter()
            .filter(|one| fits(one, &q))
            .filter(|one| within.is_none() || one["agentId"] == application.as_str())
            .filter(|one| match status {
                "all" => true,
                "active" => one["derivedStatus"] == "active" || one["derivedStatus"] == "idle",
                _ => one["derivedStatus"] == "disconnected",
            })
            .map(|one| &one["id"])
            .collect();
        if sort == "-created" {
            expected.reverse();
        }
        let within = within.unwrap_or_default();
        let limit = 7 + dice.below(94);
        let (items, _) =
            pages(&operator, ALL, &q, &format!("&status={status}&sort={sort}&limit={limit}{within}")).await;
        let ids: Vec<_> = items.iter().map(|one| &one["id"]).collect();
        assert_eq!(ids, expected, "{q}, {status}, {sort}{within}");
        let words: String = byte_serialize(q.as_bytes()).collect();
        let (_, counted) = operator.get(&format!("{ALL}/count?q={words}&status={status}{within}")).await;
        assert_eq!(counted["total"], expected.len(), "{q}, {status}{within}");
    }
    verify(server).await;
}
