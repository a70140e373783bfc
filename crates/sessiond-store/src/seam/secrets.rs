//! Secrets: ours as hashes, others' sealed with a key that no store ever sees.

use async_trait::async_trait;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use uuid::Uuid;

use crate::StoreError;
use crate::row::{ClientSecret, McpSession, SessionToken, WebhookSecret};

/// What something was sealed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedFor {
    /// A webhook or a hook: both keep their signing secrets in one place.
    Webhook,
    Machine,
    McpSession,
}

/// Something sealed, and the public id of what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub kind: SealedFor,
    pub id: Uuid,
    pub bytes: Vec<u8>,
}

/// What only the right secret key fits.
#[derive(Debug, Default)]
pub struct Witnesses {
    /// Issuer, subject and the keyed digest of both.
    pub people: Vec<(String, String, [u8; 32])>,
    pub sealed: Vec<Sealed>,
}

/// Look-ups of secrets. Once what they belong to has ended, or was deleted, they may be gone or still there.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The hash of an OAuth client's secret, and of the one before while it may still be good.
    async fn client_secret(&self, client_id: &str) -> Result<Option<ClientSecret>, StoreError>;

    /// The current token of a session, open or ended.
    async fn session_token(&self, session: SessionNumber) -> Result<Option<SessionToken>, StoreError>;

    /// The gateway's side of a session; with empty `sealed` once it is forgotten.
    async fn mcp_session(&self, session: SessionNumber) -> Result<Option<McpSession>, StoreError>;

    /// A page of the sessions after this one that have ended and of which something is still kept to speak to their
    /// upstream, in the order of their numbers.
    async fn untold_mcp(
        &self,
        after: SessionNumber,
        limit: usize,
    ) -> Result<Vec<(SessionNumber, Uuid, ApplicationNumber)>, StoreError>;

    /// The secret of an upstream's credential, sealed.
    async fn upstream_secret(&self, application: ApplicationNumber) -> Result<Option<Vec<u8>>, StoreError>;

    /// What a machine is logged into with, sealed.
    async fn machine_secret(&self, id: Uuid) -> Result<Option<Vec<u8>>, StoreError>;

    /// The signing secrets of a webhook or hook.
    async fn webhook_secret(&self, id: Uuid) -> Result<Option<WebhookSecret>, StoreError>;

    /// A few samples, the newest, of whatever only the right secret key fits: for a store from before there was a
    /// [check](crate::SideWrite::KeyCheck). One that fits would do, if it is not damaged.
    async fn witnesses(&self) -> Result<Witnesses, StoreError>;
}
