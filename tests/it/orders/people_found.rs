//! People found by name and e-mail address, and filters that take what people are called by.

use serde_json::{Value, json};

use super::begin;
use crate::support::Holder;

const PRINCIPALS: &str = "/api/v1/principals";
const REVOCATIONS: &str = "/api/v1/revocations";

async fn person(operator: &Holder, id: &str, name: &str, email: &str) -> String {
    let user = json!({ "id": id, "name": name, "email": email });
    let body = json!({ "name": format!("key of {id}"), "scopes": ["mcp:invoke"], "user": user });
    let (status, made) = operator.post("/api/v1/api-keys", body).await;
    assert_eq!(status, 201, "{made}");
    made["apiKey"]["user"]["principalId"].as_str().unwrap().to_owned()
}

fn names(body: &Value) -> Vec<&str> {
    body["items"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_found_by_how_words_of_their_names_and_addresses_begin_until_they_are_erased() {
    let (server, operator, _) = begin().await;
    let ada = person(&operator, "u1", "Ada Lovelace", "ada@Example.com").await;
    person(&operator, "u2", "Adam Smith", "smith@example.com").await;
    person(&operator, "u3", "\u{c4}nne M\u{fc}ller", "anne@firm.test").await;
    let found = async |q: &str| {
        let (status, body) = operator.get(&format!("{PRINCIPALS}?q={q}")).await;
        assert_eq!(status, 200, "{q}: {body}");
        names(&body).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (q, expected) in [
        ("ada", &["Ada Lovelace", "Adam Smith"][..]),
        ("ADA%20love", &["Ada Lovelace"]),
        ("smith%40exam", &["Adam Smith"]),
        ("%C3%A4n%20m%C3%BC", &["\u{c4}nne M\u{fc}ller"]),
        ("lace", &[]),
    ] {
        assert_eq!(found(q).await, expected, "{q}");
    }
    let (_, first) = operator.get(&format!("{PRINCIPALS}?q=example&limit=1")).await;
    let cursor = first["nextCursor"].as_str().unwrap();
    let (_, second) = operator.get(&format!("{PRINCIPALS}?q=example&limit=1&cursor={cursor}")).await;
    assert_eq!((names(&first), names(&second)), (vec!["Ada Lovelace"], vec!["Adam Smith"]));
    assert!(second["nextCursor"].is_null(), "{second}");
    for wrong in ["q=", "q=a", "q=a%20b%20c%20d%20ee", "q=ada&subject=u1"] {
        let (status, body) = operator.get(&format!("{PRINCIPALS}?{wrong}")).await;
        assert_eq!((status.as_u16(), &body["field"]), (400, &json!("q")), "{wrong}: {body}");
    }
    assert_eq!(operator.delete(&format!("{PRINCIPALS}/{ada}/personal")).await.0, 200);
    assert_eq!(found("ada").await, ["Adam Smith"]);
    let server = server.restart().await;
    let operator = server.operator().await;
    let (_, body) = operator.get(&format!("{PRINCIPALS}?q=ada")).await;
    assert_eq!(names(&body), ["Adam Smith"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_takes_a_subject_or_an_address_and_a_revocation_refuses_one_that_is_nobodys() {
    let (server, operator, application) = begin().await;
    let one = person(&operator, "u1", "Ada", "ada@example.com").await;
    let other = person(&operator, "u2", "Ada too", "ADA@example.com").await;
    for id in ["u1", "u2", "u3"] {
        let body = json!({ "applicationId": application, "authenticatedUserId": id });
        operator.connect(body).await;
        let key = json!({ "name": "own", "scopes": ["mcp:invoke"], "user": { "id": id } });
        let (_, made) = operator.post("/api/v1/api-keys", key).await;
        let own = server.holder(made["key"].as_str().unwrap());
        own.connect(json!({ "applicationId": application, "hostname": id })).await;
    }
    let count = async |principal: &str| {
        let (status, body) = operator.get(&format!("/api/v1/sessions/count?principal={principal}")).await;
        assert_eq!(status, 200, "{body}");
        body["total"].as_u64().unwrap()
    };
    assert_eq!(count(&one).await, 1, "by id");
    assert_eq!(count("u1").await, 2, "a subject of two issuers is two principals");
    assert_eq!(count("ada%40example.com").await, 2, "an address may be several's");
    assert_eq!(count("nobody%40example.com").await, 0);
    let (_, list) = operator.get("/api/v1/sessions?principal=ada%40example.com&sort=-lastActive").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list}");

    let wrong = json!({ "filter": { "principal": "nobody@example.com" } });
    for path in [REVOCATIONS.to_owned(), format!("{REVOCATIONS}?dryRun=true")] {
        let (status, said) = operator.post(&path, wrong.clone()).await;
        assert_eq!((status.as_u16(), &said["field"]), (400, &json!("principal")), "{said}");
        assert!(said["message"].as_str().unwrap().contains("nobody@example.com"), "{said}");
    }
    let body = json!({ "filter": { "principal": "ada@example.com" } });
    let (_, dry) = operator.post(&format!("{REVOCATIONS}?dryRun=true"), body.clone()).await;
    assert_eq!((&dry["matched"], &dry["credentials"]["scope"]), (&json!(2), &json!("principal")), "{dry}");
    let would: Vec<_> = dry["wouldBar"]["principals"].as_array().unwrap().iter().collect();
    assert!(would.contains(&&json!(one)) && would.contains(&&json!(other)) && would.len() == 2, "{dry}");
    let (status, done) = operator.post(REVOCATIONS, body).await;
    assert_eq!((status.as_u16(), &done["revocation"]["disconnectedCount"]), (201, &json!(2)), "{done}");
    let filter = &done["revocation"]["filter"];
    assert_eq!(filter["principals"].as_array().map(Vec::len), Some(2), "{filter}");
    assert_eq!(count("ada%40example.com&status=all").await, 2, "ended ones are found too");
    let (_, ended) = operator.get("/api/v1/sessions?principal=ada%40example.com&status=disconnected").await;
    assert_eq!(ended["items"].as_array().unwrap().len(), 2, "{ended}");
    let id = done["revocation"]["id"].as_str().unwrap();
    assert_eq!(super::caused(&operator, id, "principal_credentials_barred").await.len(), 2);

    let body = json!({ "name": "reader", "scopes": ["management:sessions:read"] });
    let (_, account) = operator.post("/api/v1/service-accounts", body).await;
    let (client, secret) =
        (account["serviceAccount"]["clientId"].as_str().unwrap(), account["clientSecret"].as_str().unwrap());
    let reader = server.holder(server.token_for(client, secret, "").await);
    let (status, said) = reader.get("/api/v1/sessions?principal=ada%40example.com").await;
    assert_eq!((status.as_u16(), &said["code"]), (403, &json!("insufficient_scope")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_names_a_person_by_address_if_that_is_one_persons_alone() {
    let (_server, operator, _) = begin().await;
    let one = person(&operator, "u1", "Ada", "ada@example.com").await;
    let bar = json!({ "principal": "Ada@Example.com" });
    let (status, placed) = operator.post("/api/v1/bars", bar.clone()).await;
    assert_eq!((status.as_u16(), &placed["bar"]["principal"]["id"]), (201, &json!(one)), "{placed}");
    person(&operator, "u2", "Ada too", "ada@example.com").await;
    for principal in ["ada@example.com", "nobody"] {
        let (status, said) = operator.post("/api/v1/bars", json!({ "principal": principal })).await;
        assert_eq!((status.as_u16(), &said["field"]), (400, &json!("principal")), "{said}");
    }
}
