//! What a client without a session id is known by.

use sessiond::sessions::{NewSession, Opened};
use sessiond_core::caller::Caller;
use sessiond_core::kind::Kind;
use uuid::Uuid;

use super::House;

impl House {
    fn inside(&self) -> &sessiond::cli::house::House {
        &self.server.running.as_ref().unwrap().house
    }

    async fn caller(&self, token: &str) -> Caller {
        self.inside().auth.bearer(token).await.unwrap()
    }

    async fn open(&self, caller: &Caller, anchor: &str) -> Opened {
        let new = NewSession {
            application: Some(Uuid::try_parse(&self.application).unwrap()),
            anchor: Some(anchor.to_owned()),
            protocol_version: Some("2026-07-28".to_owned()),
            ..NewSession::of(Kind::Mcp)
        };
        self.inside().sessions.lifecycle.connect(caller, new).await.unwrap()
    }
}

#[tokio::test]
async fn an_anchor_finds_its_session_with_a_fresh_token_and_after_a_restart_until_it_ends() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let caller = house.caller(&house.token().await).await;
    let anchor = house.inside().sessions.gateway.anchor(&caller, &["inspector", "trace"]);
    assert!(anchor.len() == 64 && anchor.bytes().all(|byte| byte.is_ascii_hexdigit()), "{anchor}");
    let first = house.open(&caller, &anchor).await;
    assert!(first.opened);
    let application = first.session.application;

    let house = house.restart().await;
    let fresh = house.caller(&house.token().await).await;
    let sessions = &house.inside().sessions;
    assert_eq!(sessions.gateway.anchor(&fresh, &["inspector", "trace"]), anchor);
    let found = sessions.gateway.anchored(application, &anchor).unwrap();
    assert_eq!(found.number, first.session.number);
    assert!(sessions.gateway.belongs_to(&fresh, &found));
    let again = house.open(&fresh, &anchor).await;
    assert_eq!((again.opened, again.session.number), (false, found.number));

    sessions.lifecycle.disconnect(&fresh, found.id).await.unwrap();
    assert_eq!(sessions.gateway.anchored(application, &anchor), None);
    assert!(house.open(&fresh, &anchor).await.opened);
}

#[tokio::test]
async fn an_anchor_is_of_one_client_and_its_parts_in_their_order() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let caller = house.caller(&house.token().await).await;
    let other = house.caller(&house.token_of_another().await).await;
    let sessions = &house.inside().sessions;
    let mut anchors = vec![sessions.gateway.anchor(&other, &["a", "bc"])];
    let all: [&[&str]; 5] = [&["a", "bc"], &["ab", "c"], &["bc", "a"], &["a", "bc", ""], &["a"]];
    anchors.extend(all.map(|parts| sessions.gateway.anchor(&caller, parts)));
    let different: std::collections::BTreeSet<_> = anchors.iter().collect();
    assert_eq!(different.len(), anchors.len(), "{anchors:?}");
}

#[tokio::test]
async fn an_anchor_is_shown_nowhere() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let caller = house.caller(&house.token().await).await;
    let anchor = house.inside().sessions.gateway.anchor(&caller, &["inspector"]);
    let session = house.open(&caller, &anchor).await.session;
    let base = format!("/api/v1/applications/{}", house.application);
    let one = format!("{base}/sessions/{}", session.id);
    let events = "/api/v1/events?types=connected".to_owned();
    for path in [format!("{base}/sessions"), one.clone(), format!("{one}/history"), events] {
        let (status, body) = house.operator.get(&path).await;
        assert!(status.is_success(), "{path}: {body}");
        assert!(body.to_string().contains(&session.id.to_string()), "{path}: {body}");
        assert!(!body.to_string().contains(&anchor), "{path}: {body}");
    }
}
