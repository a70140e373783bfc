//! Bars: who is barred is kept out, whatever it presents and however new that is, until the bar is lifted or its time is
//! over. That is more than credentials put aside ([`crate::barring`]), after which whoever authenticates anew is welcome.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::actor::ActorKind;
use crate::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, RevocationNumber,
    ServiceAccountNumber, StreamKind,
};
use crate::scope::Scopes;
use crate::shown;
use crate::stream::{EMPTY, Envelope, Most, Stream, StreamEvent, StreamRefusal, text};

/// Most characters of the message of a bar.
pub const LONGEST_MESSAGE: usize = 500;

/// What happens to a bar.
#[derive(Debug, Clone, PartialEq)]
pub enum BarEvent {
    Placed(Box<BarPlaced>),
    Lifted,
}

/// Somebody is kept out from here on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BarPlaced {
    pub id: Uuid,
    pub principal: PrincipalNumber,
    /// What the principal is the own one of: it is kept out too where it acts for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<BarredClient>,
    /// It is over at this instant, by the clock alone; without one it stands until it is lifted.
    #[serde(
        default,
        with = "chrono::serde::ts_milliseconds_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub until: Option<Time>,
    /// What whoever is kept out reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The operator's own words, for operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The revocation that ended what there was.
    pub revocation: RevocationNumber,
}

/// The bars that a revocation is to place on the principals behind what it covers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeepOut {
    /// They are over at this instant.
    #[serde(with = "chrono::serde::ts_milliseconds_option", skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// What whoever is kept out reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub placer: Placer,
}

/// Whoever wants bars placed, now or by a schedule. That one is left out, because whoever is barred lifts no bar; and to bar
/// somebody is to take the rights of the credentials that it closes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Placer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<BarredClient>,
    pub scopes: Scopes,
}

/// A client that is a principal by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BarredClient {
    Application(ApplicationNumber),
    ServiceAccount(ServiceAccountNumber),
    /// By its number.
    ApiKey(i64),
}

/// Whom a bar keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Barred {
    Principal(PrincipalNumber),
    Client(BarredClient),
}

/// The fold of a bar's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bar {
    pub number: i64,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub principal: PrincipalNumber,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<BarredClient>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub revocation: RevocationNumber,
    pub placed_at: Time,
    /// Position of its first event.
    pub placed: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifted_at: Option<Time>,
    #[serde(skip)]
    pub head: Head,
}

/// What whoever is kept out is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BarTold {
    pub until: Option<Time>,
    pub message: Option<String>,
}

impl Bar {
    /// Whether it keeps anybody out at an instant. The clock decides.
    pub fn stands(&self, at: Time) -> bool {
        self.lifted_at.is_none() && self.until.is_none_or(|until| at < until)
    }

    /// Whom it keeps out.
    pub fn barred(&self) -> impl Iterator<Item = Barred> + use<> {
        [Some(Barred::Principal(self.principal)), self.client.map(Barred::Client)].into_iter().flatten()
    }

    /// What whoever it keeps out is told.
    pub fn told(&self) -> BarTold {
        BarTold { until: self.until, message: self.message.clone() }
    }

    /// Which of two keeps out for longer.
    pub fn outlasts(&self, other: &Self) -> bool {
        let end = |bar: &Self| bar.until.unwrap_or(Time::MAX_UTC);
        end(self) > end(other)
    }
}

impl BarTold {
    /// In one sentence.
    pub fn sentence(&self) -> String {
        let end = match self.until {
            Some(until) => format!("until {}", until.format("%Y-%m-%d %H:%M:%S UTC")),
            None => "until an operator lifts the bar".to_owned(),
        };
        match &self.message {
            Some(message) => format!("Barred {end}: {}", shown::line(message)),
            None => format!("Barred {end}"),
        }
    }
}

impl BarredClient {
    /// Which kind of actor it is, by its code, and its number.
    pub fn stored(self) -> (i64, i64) {
        match self {
            Self::Application(number) => (ActorKind::Application as i64, number.0),
            Self::ServiceAccount(number) => (ActorKind::ServiceAccount as i64, number.0),
            Self::ApiKey(number) => (ActorKind::ApiKey as i64, number),
        }
    }
}

impl Stream for Bar {
    const KIND: StreamKind = StreamKind::Bar;
    type Event = BarEvent;
    type Command = BarEvent;

    fn decide(before: Option<&Self>, command: &BarEvent) -> Result<Option<BarEvent>, StreamRefusal> {
        match (before, command) {
            (None, BarEvent::Placed(_)) => Ok(Some(command.clone())),
            // Lifting twice is success.
            (Some(bar), BarEvent::Lifted) => Ok(bar.exists().then(|| command.clone())),
            _ => Err(StreamRefusal::Gone),
        }
    }

    fn evolve(bar: Option<Self>, event: &BarEvent, envelope: &Envelope) -> Option<Self> {
        let head = envelope.head;
        match event {
            BarEvent::Placed(placed) => Some(Bar {
                number: envelope.number,
                id: placed.id,
                organization: envelope.organization,
                principal: placed.principal,
                client: placed.client,
                until: placed.until,
                message: placed.message.clone(),
                note: placed.note.clone(),
                revocation: placed.revocation,
                placed_at: envelope.occurred_at,
                placed: head.position,
                lifted_at: None,
                head,
            }),
            BarEvent::Lifted => {
                bar.map(|before| Bar { lifted_at: Some(envelope.occurred_at), head, ..before })
            }
        }
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }

    fn exists(&self) -> bool {
        self.lifted_at.is_none()
    }

    fn exists_at(&self, at: Time) -> bool {
        self.stands(at)
    }

    const MOST: Option<Most> = Some(Most { count: 10_000, plural: "bars", code: "too_many_bars" });
}

impl StreamEvent for BarEvent {
    const NAMES: &[&str] = &["bar_placed", "bar_lifted"];

    fn name(&self) -> &'static str {
        match self {
            Self::Placed(_) => "bar_placed",
            Self::Lifted => "bar_lifted",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Placed(body) => text(body),
            Self::Lifted => EMPTY.to_owned(),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "bar_placed" => Self::Placed(serde_json::from_str(body)?),
            "bar_lifted" => Self::Lifted,
            _ => return Ok(None),
        }))
    }
}
