//! How a principal stands: whether it is disabled, and since when its older credentials open no agent-side path. Who it
//! is stands elsewhere and can be erased.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{Head, OrganizationNumber, Position, PrincipalNumber, StreamKind};
use crate::stream::{EMPTY, Envelope, Stream, StreamEvent, StreamRefusal, text};

/// The issuer of people whom an organization names itself.
pub const OWN_USERS: &str = "sessiond:users";

/// The issuer of clients that act for themselves: of OAuth clients by their client ids, of API keys by their ids.
pub const CLIENTS_THEMSELVES: &str = "sessiond";

/// What happens to a principal's standing. A principal of whom nothing was ever said stands well.
#[derive(Debug, Clone, PartialEq)]
pub enum PrincipalEvent {
    /// A revocation began that covers everything of the principal: credentials issued before open no agent-side path.
    CredentialsBarred(Principal),
    /// Nothing more is opened or kept alive for it.
    Disabled(Principal),
    Enabled,
}

/// Which principal, by its public id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Principal {
    pub id: Uuid,
}

/// The fold of a principal's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    pub number: PrincipalNumber,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    #[serde(rename = "barredBefore")]
    pub valid_from: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_at: Option<Time>,
    #[serde(skip)]
    pub head: Head,
}

impl Stream for Standing {
    const KIND: StreamKind = StreamKind::Principal;
    type Event = PrincipalEvent;
    type Command = PrincipalEvent;

    fn decide(
        before: Option<&Self>,
        command: &PrincipalEvent,
    ) -> Result<Option<PrincipalEvent>, StreamRefusal> {
        let disabled = before.is_some_and(|standing| standing.disabled_at.is_some());
        let happens = match command {
            PrincipalEvent::CredentialsBarred(_) => true,
            PrincipalEvent::Disabled(_) => !disabled,
            PrincipalEvent::Enabled => disabled,
        };
        Ok(happens.then(|| command.clone()))
    }

    fn evolve(standing: Option<Self>, event: &PrincipalEvent, envelope: &Envelope) -> Option<Self> {
        let fresh = |principal: &Principal| Standing {
            number: PrincipalNumber(envelope.number),
            id: principal.id,
            organization: envelope.organization,
            valid_from: Position(0),
            disabled_at: None,
            head: envelope.head,
        };
        let head = envelope.head;
        match event {
            PrincipalEvent::CredentialsBarred(principal) => {
                let before = standing.unwrap_or_else(|| fresh(principal));
                Some(Standing { valid_from: head.position, head, ..before })
            }
            PrincipalEvent::Disabled(principal) => {
                let before = standing.unwrap_or_else(|| fresh(principal));
                Some(Standing { disabled_at: Some(envelope.occurred_at), head, ..before })
            }
            PrincipalEvent::Enabled => standing.map(|before| Standing { disabled_at: None, head, ..before }),
        }
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }
}

impl StreamEvent for PrincipalEvent {
    const NAMES: &[&str] = &["principal_credentials_barred", "principal_disabled", "principal_enabled"];

    fn name(&self) -> &'static str {
        match self {
            Self::CredentialsBarred(_) => "principal_credentials_barred",
            Self::Disabled(_) => "principal_disabled",
            Self::Enabled => "principal_enabled",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::CredentialsBarred(body) => text(body),
            Self::Disabled(body) => text(body),
            Self::Enabled => EMPTY.to_owned(),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "principal_credentials_barred" => Self::CredentialsBarred(serde_json::from_str(body)?),
            "principal_disabled" => Self::Disabled(serde_json::from_str(body)?),
            "principal_enabled" => Self::Enabled,
            _ => return Ok(None),
        }))
    }
}
