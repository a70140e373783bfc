//! Bars by the other ways in which sessions are revoked: all of an application or one of them, and by a schedule.

use chrono::Timelike;
use serde_json::{Value, json};

use super::kept_out::{BARS, MESSAGE, all, in_seconds, kept_out, theft};
use super::session;
use crate::support::{Holder, Server};

const SCHEDULES: &str = "/api/v1/scheduled-revocations";

/// A path with these in its query.
fn with(path: &str, parameters: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{path}?{query}")
}

async fn bars(server: &Server) -> Vec<Value> {
    let (status, bars) = server.operator().await.get(BARS).await;
    assert_eq!(status, 200, "{bars}");
    bars["items"].as_array().unwrap().clone()
}

/// The revocation of the first run of a schedule.
async fn its_run(server: &Server, schedule: &Value, runs: u64) -> Value {
    let path = format!("{SCHEDULES}/{}", schedule["id"].as_str().unwrap());
    let operator = server.operator().await;
    server
        .until("its run", async || operator.get(&path).await.1["scheduledRevocation"]["runs"] == runs)
        .await;
    let (_, ran) = operator.get(&path).await;
    let revocation = ran["scheduledRevocation"]["lastRevocationId"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/revocations/{revocation}");
    let completed = async || operator.get(&path).await.1["revocation"]["status"] == "completed";
    server.until("its end", completed).await;
    operator.get(&path).await.1["revocation"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_what_fits_in_an_application_keeps_out_whoever_is_behind_it() {
    let (server, thief) = theft().await;
    let operator = server.operator().await;
    let path = format!("/api/v1/applications/{}/sessions", server.application().await);
    let until = in_seconds(&server, 3_600);
    let said = [("hostname", "laptop"), ("bar", "true"), ("until", &*until), ("message", MESSAGE)];
    let (status, dry) = operator.delete(&with(&path, &[&said[..], &[("dryRun", "true")]].concat())).await;
    assert_eq!(status, 200, "{dry}");
    let kept = &dry["credentials"]["keptOut"];
    assert_eq!(kept, &json!({ "principals": 3, "clients": 1, "until": until }), "{dry}");
    assert_eq!(thief.comes_back(&server).await, all(201, ""), "nothing was done");

    let (status, done) = operator.delete(&with(&path, &said)).await;
    assert_eq!((status.as_u16(), &done["credentials"]["keptOut"]), (200, kept), "{done}");
    assert_eq!(thief.comes_back(&server).await, kept_out());
    let (status, told) = server.holder(thief.jwt.clone()).post("/api/v1/agent-sessions", json!({})).await;
    assert_eq!(status, 403, "{told}");
    assert!(told["message"].as_str().unwrap().contains(MESSAGE), "{told}");
    let bars = bars(&server).await;
    assert!(
        bars.iter().all(|bar| bar["revocationId"] == done["revocationId"]) && bars.len() == 3,
        "{bars:?}"
    );
    server.turn(3_600);
    assert_eq!(thief.comes_back(&server).await, all(201, ""), "the bars are over");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_one_session_keeps_its_principal_out_and_nobody_else() {
    let (server, thief) = theft().await;
    let operator = server.operator().await;
    let agent = server.holder(thief.jwt.clone()).connect(json!({ "hostname": "laptop" })).await;
    let (status, done) =
        operator.delete(&with(&agent.path(), &[("bar", "true"), ("message", MESSAGE)])).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["credentials"]["keptOut"], json!({ "principals": 1, "clients": 0 }), "{done}");
    let only_the_jwt = [(201, String::new()), (201, String::new()), (403, "barred".to_owned())];
    assert_eq!(thief.comes_back(&server).await, only_the_jwt);
    server.turn(86_400);
    assert_eq!(thief.comes_back(&server).await, only_the_jwt, "nobody lifted it");
    let [bar] = &bars(&server).await[..] else { panic!("another number of bars") };
    assert_eq!((&bar["message"], &bar["until"]), (&json!(MESSAGE), &Value::Null), "{bar}");
}

#[tokio::test(flavor = "multi_thread")]
async fn until_and_message_are_refused_with_words_where_no_bar_is_asked_for_or_it_would_be_over() {
    let (server, thief) = theft().await;
    let operator = server.operator().await;
    let agent = server.holder(thief.jwt.clone()).connect(json!({ "hostname": "laptop" })).await;
    let all_of = format!("/api/v1/applications/{}/sessions", server.application().await);
    let (later, past) = (in_seconds(&server, 3_600), in_seconds(&server, -1));
    let (later, past) = (later.as_str(), past.as_str());
    let long = "x".repeat(501);
    for (path, said, field) in [
        (&all_of, vec![("hostname", "laptop"), ("until", later)], "until"),
        (&all_of, vec![("hostname", "laptop"), ("message", MESSAGE)], "message"),
        (&all_of, vec![("bar", "true"), ("message", MESSAGE)], "message"),
        (&all_of, vec![("hostname", "laptop"), ("bar", "true"), ("until", past)], "until"),
        (&all_of, vec![("hostname", "laptop"), ("bar", "true"), ("until", "soon")], "until"),
        (&agent.path(), vec![("until", later)], "until"),
        (&agent.path(), vec![("message", MESSAGE)], "message"),
        (&agent.path(), vec![("bar", "true"), ("until", past)], "until"),
        (&agent.path(), vec![("bar", "true"), ("message", &long)], "message"),
    ] {
        for dry in ["false", "true"] {
            let mut said = said.clone();
            if path == &all_of {
                said.push(("dryRun", dry));
            }
            let (status, words) = operator.delete(&with(path, &said)).await;
            assert_eq!((status.as_u16(), &words["field"]), (400, &json!(field)), "{said:?}: {words}");
        }
    }
    let (first_run, before) = (in_seconds(&server, 600), in_seconds(&server, 599));
    for (said, field) in [
        (json!({ "until": later }), "until"),
        (json!({ "message": MESSAGE }), "message"),
        (json!({ "bar": true, "until": before }), "until"),
        (json!({ "bar": true, "until": first_run }), "until"),
        (json!({ "bar": true, "message": long }), "message"),
    ] {
        let mut body = json!({ "name": "n", "filter": { "hostname": "laptop" }, "at": first_run });
        body.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let (status, words) = operator.post(SCHEDULES, body).await;
        assert_eq!((status.as_u16(), &words["field"]), (400, &json!(field)), "{said}: {words}");
    }
    assert!(session(&operator, &agent).await["disconnectReason"].is_null(), "nothing was done");
    assert!(bars(&server).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_keeps_out_at_its_runs_until_its_bars_are_over_and_leaves_out_who_made_it() {
    let (server, thief) = theft().await;
    // Five minutes before the hour, at which it runs.
    let ahead = (60 + 55 - i64::from(server.clock.now().minute())) * 60;
    server.turn(ahead);
    let until = in_seconds(&server, 5_400);
    let body = json!({
        "name": "hourly", "filter": { "hostname": "laptop" }, "cron": "0 * * * *", "bar": true, "until": until,
        "message": MESSAGE, "reason": "stolen",
    });
    let (status, made) = server.operator().await.post(SCHEDULES, body).await;
    assert_eq!(status, 201, "{made}");
    let schedule = &made["scheduledRevocation"];
    assert_eq!((&schedule["until"], &schedule["message"]), (&json!(until), &json!(MESSAGE)), "{made}");
    let server = server.restart_after(ahead).await;
    let laptop = json!({ "applicationId": server.application().await, "hostname": "laptop" });
    let mut holders = thief.holders(&server).await;
    holders.push(server.operator().await);
    for holder in holders {
        holder.connect(laptop.clone()).await;
    }
    server.turn(301);
    let revocation = its_run(&server, schedule, 1).await;
    let kept = json!({ "principals": 3, "clients": 1, "until": until });
    assert_eq!(revocation["credentials"]["keptOut"], kept, "{revocation}");
    let words = revocation["credentials"]["mayComeBack"].to_string();
    assert!(words.contains("left out"), "{words}");
    assert_eq!(thief.comes_back(&server).await, kept_out());
    let placed = bars(&server).await;
    assert_eq!(placed.len(), 3, "{placed:?}");
    for bar in &placed {
        assert_eq!((&bar["message"], &bar["until"]), (&json!(MESSAGE), &json!(until)), "{bar}");
        assert_eq!((&bar["actor"]["kind"], &bar["reason"]), (&json!("system"), &json!("stolen")), "{bar}");
    }
    // Whoever made it is alone on the laptop, and no run fails because of that.
    server.turn(3_300);
    let agent = server.operator().await.connect(laptop.clone()).await;
    server.turn(301);
    its_run(&server, schedule, 2).await;
    assert_eq!(session(&server.operator().await, &agent).await["disconnectReason"], "revoked");
    assert_eq!(bars(&server).await.len(), 3);

    server.turn(3_300);
    assert_eq!(thief.comes_back(&server).await, all(201, ""), "the bars are over");
    let agent = thief.holders(&server).await[2].connect(laptop).await;
    server.turn(301);
    its_run(&server, schedule, 3).await;
    assert_eq!(session(&server.operator().await, &agent).await["disconnectReason"], "revoked");
    assert_eq!(bars(&server).await.len(), 3, "runs after until keep nobody out");
    assert_eq!(thief.comes_back(&server).await, all(201, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_may_not_keep_somebody_out_ends_the_sessions_and_says_that_it_did_not() {
    let (server, thief) = theft().await;
    let operator = server.operator().await;
    let account = async |name: &str, scopes: Value| -> Holder {
        let body = json!({ "name": name, "scopes": scopes });
        let (status, made) = operator.post("/api/v1/service-accounts", body).await;
        assert_eq!(status, 201, "{made}");
        let id = made["serviceAccount"]["clientId"].as_str().unwrap();
        server.holder(server.token_for(id, made["clientSecret"].as_str().unwrap(), "").await)
    };
    let desk = account("desk", json!(["management:sessions:write"])).await;
    let mighty = account("mighty", json!(["management:all", "mcp:invoke"])).await;
    let body = json!({ "applicationId": server.application().await, "hostname": "laptop" });
    let agent = mighty.connect(body).await;
    let body = json!({
        "name": "tonight", "filter": { "hostname": "laptop" }, "at": in_seconds(&server, 60), "bar": true,
        "message": MESSAGE,
    });
    let (status, made) = desk.post(SCHEDULES, body).await;
    assert_eq!(status, 201, "{made}");
    server.turn(61);
    let revocation = its_run(&server, &made["scheduledRevocation"], 1).await;
    let credentials = &revocation["credentials"];
    assert_eq!(revocation["disconnectedCount"], 4, "{revocation}");
    assert_eq!((&credentials["keptOut"], &credentials["scope"]), (&Value::Null, &json!("matched")));
    assert_eq!(session(&operator, &agent).await["disconnectReason"], "revoked");
    assert!(bars(&server).await.is_empty());
    let (status, said) = server.holder(thief.jwt.clone()).post("/api/v1/agent-sessions", json!({})).await;
    assert_eq!(status, 401, "what was issued before is put aside: {said}");
    assert_eq!(thief.comes_back(&server).await, all(201, ""), "who authenticates anew is welcome");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_acts_for_itself_is_kept_out_by_each_form_of_the_bar() {
    let (server, operator, application) = super::begin().await;
    let in_hall = json!({ "applicationId": application, "hostname": "hall" });
    let many = format!("/api/v1/applications/{application}/sessions");
    for (number, form) in ["bar", "filter", "application", "session", "schedule"].into_iter().enumerate() {
        let body =
            json!({ "name": format!("k{number}"), "scopes": ["mcp:invoke", "management:sessions:read"] });
        let (_, made) = operator.post("/api/v1/api-keys", body).await;
        let key = server.holder(made["key"].as_str().unwrap());
        let agent = key.connect(in_hall.clone()).await;
        let principal = session(&operator, &agent).await["principalId"].clone();
        let (status, said) = match form {
            "bar" => operator.post(BARS, json!({ "principal": principal })).await,
            "filter" => {
                let body = json!({ "filter": { "hostname": "hall" }, "bar": true, "message": MESSAGE });
                operator.post("/api/v1/revocations", body).await
            }
            "application" => {
                let said = [("hostname", "hall"), ("bar", "true"), ("message", MESSAGE)];
                operator.delete(&with(&many, &said)).await
            }
            "session" => {
                operator.delete(&with(&agent.path(), &[("bar", "true"), ("message", MESSAGE)])).await
            }
            _ => {
                let body = json!({
                    "name": "soon", "filter": { "hostname": "hall" }, "at": in_seconds(&server, 60), "bar": true,
                    "message": MESSAGE,
                });
                let (status, made) = operator.post(SCHEDULES, body).await;
                server.turn(61);
                its_run(&server, &made["scheduledRevocation"], 1).await;
                (status, made)
            }
        };
        assert!(status.is_success(), "{form}: {said}");
        assert_eq!(session(&operator, &agent).await["disconnectReason"], "revoked", "{form}");
        // On both sides, as a person is.
        let (status, said) = key.post("/api/v1/agent-sessions", in_hall.clone()).await;
        assert_eq!((status.as_u16(), &said["code"]), (403, &json!("barred")), "{form}: {said}");
        let (status, said) = key.get("/api/v1/sessions").await;
        assert_eq!((status.as_u16(), &said["code"]), (403, &json!("barred")), "{form}: {said}");
    }
    assert_eq!(bars(&server).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_after_until_is_answered_as_it_was() {
    let (server, thief) = theft().await;
    let operator = server.operator().await;
    let until = in_seconds(&server, 60);
    let agent = server.holder(thief.jwt.clone()).connect(json!({ "hostname": "desk" })).await;
    let one = with(&agent.path(), &[("bar", "true"), ("until", &until)]);
    let many = format!("/api/v1/applications/{}/sessions", server.application().await);
    let many = with(&many, &[("hostname", "laptop"), ("bar", "true"), ("until", &until)]);
    let requests = [
        ("POST", "/api/v1/revocations".to_owned()),
        ("DELETE", one),
        ("DELETE", many),
        ("POST", BARS.to_owned()),
    ];
    let once = async |number: usize| {
        let (method, path) = &requests[number];
        let request = server.http.request(method.parse().unwrap(), server.url(path));
        let request = request
            .bearer_auth(operator.token.as_ref().unwrap())
            .header("idempotency-key", format!("request-{number}"));
        let body = match path.as_str() {
            BARS => json!({ "principal": thief.people[0], "until": until }),
            _ => json!({ "filter": { "hostname": "laptop" }, "bar": true, "until": until }),
        };
        let request = if *method == "POST" { request.json(&body) } else { request };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let mut first = vec![];
    for number in 0..requests.len() {
        let (status, said) = once(number).await;
        assert!(status == 200 || status == 201, "{said}");
        first.push(said);
    }
    server.turn(61);
    for (number, first) in first.iter().enumerate() {
        let (status, mut again) = once(number).await;
        // How a bar stands is told as it is now.
        if let Some(bar) = again.get_mut("bar") {
            assert_eq!(bar["status"], "ended");
            bar["status"] = json!("standing");
        }
        assert!(status == 200 || status == 201, "{again}");
        assert_eq!(&again, first, "{:?}", requests[number]);
    }
}
