//! A lost administrator's secret.

use serde_json::json;
use sqlx::Row;
use tempfile::TempDir;

use super::{done, refused, url};
use crate::support::daemon::command;
use crate::support::{CLIENT_ID, CLIENT_SECRET, Daemon, look_inside};

/// The value of a line of what is shown.
fn shown(said: &str, what: &str) -> String {
    let line = said.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().to_owned()
}

/// The id and the name of the first organization.
async fn organization(database: &str) -> (String, String) {
    let row = sqlx::query("select id, name from organization")
        .fetch_one(&mut look_inside(database).await)
        .await
        .unwrap();
    (row.get::<uuid::Uuid, _>(0).to_string(), row.get(1))
}

async fn token(daemon: &Daemon, id: &str, secret: &str) -> reqwest::StatusCode {
    let form = [("grant_type", "client_credentials"), ("scope", "management:all")];
    let request = reqwest::Client::new().post(format!("{}/oauth2/token", daemon.base)).form(&form);
    request.basic_auth(id, Some(secret)).send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_secret_is_replaced_while_the_service_is_stopped_and_what_was_before_opens_nothing() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let old = daemon.operator().await;
    let database = url(directory.path());
    let (id, _) = organization(&database).await;
    let said = refused(&["organizations", "recover", &id, "--database", &database]);
    assert!(said.contains("another sessiond works on") && said.contains("stop it first"), "{said}");
    assert_eq!(old.get("/api/v1/applications").await.0, 200);
    assert!(daemon.terminate().success());
    let said = refused(&["organizations", "recover", "nobody", "--database", &database]);
    assert!(
        said.contains("there is no organization \"nobody\"; there are: ") && said.contains(&id),
        "{said}"
    );
    let said = done(&["organizations", "recover", &id, "--database", &database]);
    let (client, secret) = (shown(&said, "client id"), shown(&said, "client secret"));
    assert_eq!(client, CLIENT_ID);
    let daemon = Daemon::start(directory.path(), &[]);
    assert_eq!(token(&daemon, CLIENT_ID, CLIENT_SECRET).await, 401);
    assert_eq!(token(&daemon, &client, &secret).await, 200);
    let old = crate::support::Holder { base: daemon.base.clone(), ..old };
    assert_eq!(old.get("/api/v1/applications").await.0, 401);
    let mut inside = look_inside(&database).await;
    let sql = "select actor_kind from event where type = 'service_account_secret_rotated'";
    let actor: i64 = sqlx::query(sql).fetch_one(&mut inside).await.unwrap().get(0);
    assert_eq!(actor, 1, "whoever stands at the console");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_administrators_one_is_named_and_where_none_is_left_one_is_made() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let (_, made) = operator.post("/api/v1/service-accounts", json!({ "name": "deputy" })).await;
    assert!(daemon.terminate().success());
    let database = url(directory.path());
    let (_, name) = organization(&database).await;
    let recover = ["organizations", "recover", &name, "--database", &database];
    let said = refused(&recover);
    assert!(said.contains("several administrators") && said.contains("deputy"), "{said}");
    let file = directory.path().join("credentials");
    let named = ["--service-account", "deputy", "--credentials-file", file.to_str().unwrap()];
    assert_eq!(done(&[&recover[..], &named].concat()), "", "they are in the file");
    let said = std::fs::read_to_string(&file).unwrap();
    let (client, secret) = (shown(&said, "client id"), shown(&said, "client secret"));
    assert_eq!(made["serviceAccount"]["clientId"], client);
    // What is there is not written over, and nothing is changed then.
    assert!(refused(&[&recover[..], &named].concat()).contains("cannot be written"));
    let daemon = Daemon::start(directory.path(), &[]);
    assert_eq!(token(&daemon, &client, &secret).await, 200);
    // Whoever may do all of it archives the deputy, and last of all itself.
    let form = [("grant_type", "client_credentials"), ("scope", "management:all platform:admin")];
    let request = reqwest::Client::new().post(format!("{}/oauth2/token", daemon.base)).form(&form);
    let answer = request.basic_auth(CLIENT_ID, Some(CLIENT_SECRET)).send().await.unwrap();
    let told: serde_json::Value = answer.json().await.unwrap();
    let all = told["access_token"].as_str().map(str::to_owned);
    let operator = crate::support::Holder { token: all, ..daemon.operator().await };
    let (_, accounts) = operator.get("/api/v1/service-accounts").await;
    assert_eq!(accounts["items"][1]["name"], "bootstrap", "the newest is first");
    for account in accounts["items"].as_array().unwrap() {
        let path = format!("/api/v1/service-accounts/{}", account["id"].as_str().unwrap());
        let (status, body) = operator.delete(&path).await;
        assert!(status.is_success(), "{body}");
    }
    assert!(daemon.terminate().success());
    let said = done(&recover);
    let (client, secret) = (shown(&said, "client id"), shown(&said, "client secret"));
    let daemon = Daemon::spawn(command(directory.path(), &[]));
    assert_eq!(token(&daemon, &client, &secret).await, 200);
}
