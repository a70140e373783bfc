//! What things are sealed with besides the key: a label that says what they belong to. They open only with the same label, so
//! that nobody who can write to the database makes one thing's secret another's.

use sessiond_core::application::{Application, UpstreamSet};
use uuid::Uuid;

/// The signing secret of a webhook.
pub fn webhook(id: Uuid) -> String {
    format!("webhook {id}")
}

/// The secret of an admission hook.
pub fn hook(id: Uuid) -> String {
    format!("hook {id}")
}

/// What a machine is logged into with.
pub fn machine(id: Uuid) -> String {
    format!("machine {id}")
}

/// What the gateway knows of a session at its upstream.
pub fn mcp_session(id: Uuid) -> String {
    format!("mcp_session {id}")
}

/// The credential of an upstream: it opens for this very upstream of the application, and is sent to no other.
pub fn upstream(application: Uuid, set: &UpstreamSet) -> String {
    // Plain data with string keys: serializing it cannot fail.
    format!("upstream {application} {}", serde_json::to_string(set).unwrap_or_default())
}

/// The upstream of an application as it was set, if there is one.
pub fn upstream_set(application: &Application) -> Option<UpstreamSet> {
    let credential = application.upstream_credential.clone();
    let headers = application.upstream_headers.clone();
    application.upstream.clone().map(|url| UpstreamSet { url, credential, headers })
}
