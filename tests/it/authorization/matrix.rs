//! Every operation, in every role, with ids of one's own organization, of another's and of none.

use std::sync::Mutex;

use reqwest::StatusCode;
use serde_json::Value;

use super::world::{self, Ids, Side, UNKNOWN};
use super::{Door, Role, door};
use crate::openapi::document::{Document, Operation, ask, filled};
use crate::support::{Holder, Server};

struct Matrix {
    server: Server,
    document: Document,
    own: Side,
    other: Side,
    /// What was otherwise than the table says: all of it is told at once.
    faults: Mutex<Vec<String>>,
}

fn path(operation: &Operation<'_>, ids: &Ids) -> String {
    let ids = world::ids_for(operation.id, ids);
    let ids: Vec<_> = ids.iter().map(|(name, id)| (*name, id.as_str())).collect();
    let query = if operation.id == "terminals.searchCommands" { "?q=echo" } else { "" };
    filled(operation.path, &ids, UNKNOWN) + query
}

/// The names of a path's ids.
fn names(operation: &Operation<'_>) -> Vec<&'static str> {
    let known = [
        "applicationId",
        "sessionId",
        "session_id",
        "serviceAccountId",
        "apiKeyId",
        "principalId",
        "organizationId",
        "webhookId",
        "position",
        "revocationId",
        "scheduledRevocationId",
        "machineId",
        "hookId",
        "barId",
        "vhost",
        "app",
        "stream",
        "session",
    ];
    let mut named: Vec<_> =
        known.into_iter().filter(|name| operation.path.contains(&format!("{{{name}}}"))).collect();
    assert_eq!(named.len(), operation.path.matches('{').count(), "{}", operation.path);
    if operation.id.starts_with("terminals.") && named == ["sessionId"] {
        named = vec![world::TERMINAL];
    }
    named
}

/// An answer without what differs from one to the next and tells nothing: the names that were asked for, which the media
/// surface says again, and the name of the request.
fn without(body: &Value, ids: &Ids) -> String {
    let mut body = body.clone();
    body.as_object_mut().and_then(|members| members.remove("errorId"));
    let text = body.to_string();
    if !text.contains("Could not find the") {
        return text;
    }
    let names = ["vhost", "app", "stream", "session"].map(|name| ids[name].as_str());
    names.into_iter().fold(text, |text, name| text.replace(name, "…"))
}

impl Matrix {
    async fn begin() -> Self {
        let server = world::server().await;
        let (own, other) = (Side::found(&server, "Amber").await, Side::found(&server, "Basalt").await);
        Self { server, document: Document::new(), own, other, faults: Mutex::default() }
    }

    /// Asks, holds the answer against the document, and returns it.
    async fn ask(&self, holder: &Holder, operation: &Operation<'_>, ids: &Ids) -> (StatusCode, Value) {
        let body = self.own.body(operation.id);
        let response = ask(holder, operation, &path(operation, ids), body.as_ref()).await;
        (response.status(), self.document.check(operation, response).await)
    }

    /// Ids that nothing else needs any more, and who asks for them: a session's token is that session's.
    async fn fresh(&self, role: Role, operation: &Operation<'_>) -> (Holder, Ids) {
        let mut ids = self.own.ids.clone();
        let names = names(operation);
        let mut holder = None;
        for name in &names {
            match *name {
                "applicationId" if names.contains(&"sessionId") => {}
                // What is sent again must have been sent, and an organization is its other operations' too.
                "webhookId" if names.contains(&"position") => {}
                world::TERMINAL => drop(ids.insert(world::TERMINAL, self.own.terminal(role).await)),
                "vhost" | "app" | "stream" => {}
                "session" => drop(ids.insert("session", self.own.play().await)),
                "sessionId" => {
                    let (own, id) = self.own.open(&self.server, role).await;
                    holder = (role == Role::Session).then_some(own);
                    ids.insert("sessionId", id);
                }
                "session_id" => {
                    let kind = if operation.path.contains("/task") { "task" } else { "webui" };
                    ids.insert("session_id", self.own.begin(kind).await);
                }
                name => {
                    ids.insert(name, self.own.fresh(&self.server, name).await);
                }
            }
        }
        (self.holder(role, holder).await, ids)
    }

    async fn holder(&self, role: Role, known: Option<Holder>) -> Holder {
        match (role, known) {
            (_, Some(holder)) => holder,
            (Role::Session, None) => self.own.open(&self.server, role).await.0,
            _ => self.own.holder(role),
        }
    }

    async fn with_ids_of_its_own(&self, role: Role, operation: &Operation<'_>) {
        let door = door(operation.id);
        let (id, opens) = (operation.id, door.opens(role));
        let (holder, ids) = if opens {
            self.fresh(role, operation).await
        } else {
            (self.holder(role, None).await, self.own.ids.clone())
        };
        let (status, body) = self.ask(&holder, operation, &ids).await;
        match role {
            _ if opens => self.expect(status.is_success(), || format!("{role:?} may {id}: {status} {body}")),
            _ => self.refused(role, operation, (status, &body)),
        }
    }

    fn end(&self) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    }

    fn expect(&self, good: bool, fault: impl FnOnce() -> String) {
        if !good {
            self.faults.lock().unwrap().push(fault());
        }
    }

    fn refused(&self, role: Role, operation: &Operation<'_>, (status, body): (StatusCode, &Value)) {
        let (id, door) = (operation.id, door(operation.id));
        let said = match door {
            _ if matches!(role, Role::Stranger | Role::Invalid) => status == 401,
            Door::Client | Door::Hook => status == 401,
            Door::Media => {
                status == 403 && body["message"] == "[HTTP] Insufficient scope: this needs media (403)"
            }
            Door::Person => status == 403 && body["code"] == "no_person",
            Door::Machines if role == Role::TerminalUserKey => {
                status == 403 && body["error"]["code"] == "FORBIDDEN"
            }
            Door::Terminal | Door::Machines => {
                let message = "Insufficient scope: this needs terminal";
                status == 403 && body["error"]["message"] == message
            }
            Door::Work => status == 403 && body["errorCode"] == 403,
            // OAuth's errors have members of their own.
            _ if id.starts_with("oauth.") => status == 403 && body["error"] == "insufficient_scope",
            // A session's token has the scope, and is for another thing.
            Door::Begin if role == Role::Session => status == 403,
            _ => status == 403 && body["missingScopes"].as_array().is_some_and(|scopes| !scopes.is_empty()),
        };
        self.expect(said, || format!("{role:?} may not {id}: {status} {body}"));
    }

    /// Each id of the path by itself, and all together, as another organization's and as nobody's: no difference shows.
    async fn with_ids_of_others(&self, role: Role, operation: &Operation<'_>) {
        let (id, names) = (operation.id, names(operation));
        let opens = door(id).opens(role);
        let holder = self.holder(role, None).await;
        let mut changed: Vec<Vec<&str>> = names.iter().map(|name| vec![*name]).collect();
        changed.push(names.clone());
        for changed in changed {
            let (mut foreign, mut unknown) = (self.own.ids.clone(), self.own.ids.clone());
            for name in changed {
                *unknown.get_mut(name).unwrap() = world::nobodys(name);
                foreign.get_mut(name).unwrap().clone_from(&self.other.ids[name]);
            }
            let (status, body) = self.ask(&holder, operation, &foreign).await;
            if opens {
                self.expect(status == 404, || format!("{role:?} {id} of others: {status} {body}"));
            } else {
                self.refused(role, operation, (status, &body));
            }
            let body = without(&body, &foreign);
            let (names, unknown) = (unknown.clone(), self.ask(&holder, operation, &unknown).await);
            let unknown = (unknown.0, without(&unknown.1, &names));
            self.expect((status, &body) == (unknown.0, &unknown.1), || {
                format!("{role:?} {id}: another's is told apart from nobody's: {status} {body} {unknown:?}")
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_the_table_says_and_nothing_else() {
    let matrix = Matrix::begin().await;
    for operation in matrix.document.operations() {
        for role in Role::ALL {
            matrix.with_ids_of_its_own(role, &operation).await;
        }
    }
    matrix.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_another_organization_are_answered_as_ids_of_nothing_to_every_role() {
    let matrix = Matrix::begin().await;
    // Its deliveries would be tried again meanwhile.
    let path = format!("/api/v1/webhooks/{}", matrix.other.ids["webhookId"]);
    assert_eq!(matrix.other.manager.patch(&path, serde_json::json!({ "enabled": false })).await.0, 200);
    let before = matrix.other.whole().await;
    for operation in matrix.document.operations() {
        // Organizations are no organization's own: who runs the installation sees all of them.
        if names(&operation).is_empty() || operation.id.starts_with("organizations.") {
            continue;
        }
        // Whatever name is said, it is one's own then.
        if matches!(operation.id, "media.declareStream" | "media.createSessions") {
            continue;
        }
        for role in Role::ALL {
            matrix.with_ids_of_others(role, &operation).await;
        }
    }
    matrix.end();
    assert_eq!(matrix.other.whole().await, before, "nothing of the other organization changed");
}
