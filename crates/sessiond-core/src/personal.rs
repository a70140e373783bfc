//! Facts about a session that can be erased.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Facts that can be erased: who and where a session came from. Kept beside the body, with a salt inside, so that
/// the digest in the hashed body tells nothing once this text is gone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Personal {
    pub salt: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_info: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The name the client gives this run of itself; one live session per application may hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_session_id: Option<String>,
    /// What the client calls its credential; the natural key where there is no `clientSessionId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_identifier: Option<String>,
}

impl Personal {
    /// The client's own name: `name` in its metadata, where that is text. One with U+0000 is none, because not every database
    /// keeps it; the metadata are kept as JSON, where it is written otherwise.
    pub fn client(&self) -> Option<&str> {
        self.client_info.as_ref()?.get("name")?.as_str().filter(|name| !name.contains('\0'))
    }
}

/// The digest (hex) of the personal facts as they are stored.
pub fn personal_digest(stored: &str) -> String {
    hex::encode(Sha256::digest(stored.as_bytes()))
}
