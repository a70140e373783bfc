//! The registry of the kinds of stream whose folds live in memory: all but sessions, of which there may be millions, and
//! whose end takes them out of memory. A kind is added here by its line.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::admission_hook::AdmissionHook;
use crate::api_key::ApiKey;
use crate::application::Application;
use crate::bar::Bar;
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, StreamId, StreamKind};
use crate::machine::Machine;
use crate::media_stream::MediaStream;
use crate::organization::Organization;
use crate::principal::Standing;
use crate::revocation::Revocation;
use crate::schedule::Schedule;
use crate::service_account::ServiceAccount;
use crate::stream::{Envelope, Stream, StreamEvent, text};
use crate::webhook::Webhook;

/// A kind that is in the registry.
pub trait Registered: Stream {
    /// The fold, where it is of this kind.
    fn of(stream: &AnyStream) -> Option<&Self>;
    fn any(self) -> AnyStream;
    fn event(event: Self::Event) -> AnyEvent;
}

/// A fold as it is handed from one process to another: with its head, which its row keeps beside it.
#[derive(Serialize, Deserialize)]
struct Written {
    kind: StreamKind,
    head: Head,
    /// As [`AnyStream::state`] has it.
    state: String,
}

impl From<AnyStream> for Written {
    fn from(stream: AnyStream) -> Self {
        Self { kind: stream.stream().kind, head: stream.head(), state: stream.state() }
    }
}

impl TryFrom<Written> for AnyStream {
    type Error = String;

    fn try_from(Written { kind, head, state }: Written) -> Result<Self, String> {
        let stream = Self::read(kind, &state, head).map_err(|error| error.to_string())?;
        stream.ok_or_else(|| format!("a {} is not in the registry", kind.word()))
    }
}

/// Declares the kinds, each with the type of its fold.
macro_rules! streams {
    ($($kind:ident: $fold:ident,)*) => {
        /// The fold of a stream of any kind.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(try_from = "Written", into = "Written")]
        pub enum AnyStream {
            $($kind(Box<$fold>),)*
        }

        /// An event of a stream of any kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum AnyEvent {
            $($kind(<$fold as Stream>::Event),)*
        }

        $(impl Registered for $fold {
            fn of(stream: &AnyStream) -> Option<&Self> {
                if let AnyStream::$kind(fold) = stream { Some(fold) } else { None }
            }

            fn any(self) -> AnyStream {
                AnyStream::$kind(Box::new(self))
            }

            fn event(event: Self::Event) -> AnyEvent {
                AnyEvent::$kind(event)
            }
        })*

        impl AnyStream {
            /// Which stream it is the fold of.
            pub fn stream(&self) -> StreamId {
                match self {
                    $(Self::$kind(fold) => StreamId { kind: $fold::KIND, number: fold.number.into() },)*
                }
            }

            pub fn id(&self) -> Uuid {
                match self {
                    $(Self::$kind(fold) => fold.id,)*
                }
            }

            pub fn organization(&self) -> OrganizationNumber {
                match self {
                    $(Self::$kind(fold) => Stream::organization(&**fold),)*
                }
            }

            /// The application in whose feed its events are.
            pub fn application(&self) -> Option<ApplicationNumber> {
                match self {
                    $(Self::$kind(fold) => Stream::application(&**fold),)*
                }
            }

            pub fn head(&self) -> Head {
                match self {
                    $(Self::$kind(fold) => fold.head,)*
                }
            }

            pub fn head_mut(&mut self) -> &mut Head {
                match self {
                    $(Self::$kind(fold) => &mut fold.head,)*
                }
            }

            /// The fold as its row keeps it; the head stands beside it.
            pub fn state(&self) -> String {
                match self {
                    $(Self::$kind(fold) => text(fold),)*
                }
            }

            /// Reads a row back; none for a kind that is not in the registry.
            pub fn read(kind: StreamKind, state: &str, head: Head) -> Result<Option<Self>, serde_json::Error> {
                Ok(match kind {
                    $($fold::KIND => Some($fold { head, ..serde_json::from_str(state)? }.any()),)*
                    _ => None,
                })
            }

            /// The fold with one event more; none where the event is of another kind, or comes before the one that begins
            /// the stream.
            pub fn evolve(before: Option<Self>, event: &AnyEvent, envelope: &Envelope) -> Option<Self> {
                match (before, event) {
                    $(
                        (None, AnyEvent::$kind(event)) => $fold::evolve(None, event, envelope).map($fold::any),
                        (Some(Self::$kind(before)), AnyEvent::$kind(event)) => {
                            $fold::evolve(Some(*before), event, envelope).map($fold::any)
                        }
                    )*
                    _ => None,
                }
            }
        }

        /// The codes of what is refused because there is as much of a kind as there may be.
        pub fn limit_codes() -> impl Iterator<Item = &'static str> {
            [$(<$fold as Stream>::MOST,)*].into_iter().flatten().map(|most| most.code)
        }

        impl AnyEvent {
            /// Every type there is.
            pub fn names() -> impl Iterator<Item = &'static str> {
                [$(<$fold as Stream>::Event::NAMES,)*].into_iter().flatten().copied()
            }

            /// The kind of stream it belongs to.
            pub fn kind(&self) -> StreamKind {
                match self {
                    $(Self::$kind(_) => $fold::KIND,)*
                }
            }

            /// The type in the envelope.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$kind(event) => event.name(),)*
                }
            }

            /// The body as it is stored and hashed.
            pub fn body(&self) -> String {
                match self {
                    $(Self::$kind(event) => event.body(),)*
                }
            }

            /// Reads an event back; none for a type that is not of these streams.
            pub fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
                $(
                    if let Some(event) = <$fold as Stream>::Event::parse(name, body)? {
                        return Ok(Some(Self::$kind(event)));
                    }
                )*
                Ok(None)
            }
        }
    };
}

streams! {
    Organization: Organization,
    Application: Application,
    ServiceAccount: ServiceAccount,
    Revocation: Revocation,
    Principal: Standing,
    ApiKey: ApiKey,
    Schedule: Schedule,
    Webhook: Webhook,
    MediaStream: MediaStream,
    Hook: AdmissionHook,
    Machine: Machine,
    Bar: Bar,
}
