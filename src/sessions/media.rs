//! Sessions of media streams: found by the names that people walk through, measured by readings of their counters.

use std::sync::Arc;

use sessiond_core::actor::Actor;
use sessiond_core::caller::Caller;
use sessiond_core::ids::{PrincipalNumber, SessionNumber};
use sessiond_core::media_stream::MediaStream;
use sessiond_core::relation::{MayAct, MayLook, Way};
use sessiond_core::session::Session;
use sessiond_core::throughput::{Reading, Sample};

use crate::committer::{EndSessions, MeasureSessions, Measurement, Origin};
use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::gate::{MediaLookup, Sum};

/// A number that no session has.
const NOBODY: SessionNumber = SessionNumber(-1);

/// A live session, with what a reading of it needs to know.
#[derive(Debug, Clone, Copy)]
pub struct LiveSession {
    number: SessionNumber,
    owner: Actor,
}

/// Sessions of media streams.
#[derive(Clone)]
pub struct MediaSessions {
    pub(super) context: Arc<AppContext>,
}

impl MediaSessions {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Finds the media stream of these names (virtual host, app, stream), or how many of the names lead somewhere.
    pub fn resolve(&self, caller: &Caller, names: [&str; 3]) -> MediaLookup {
        self.context.gate.known().placed(caller.organization, names)
    }

    /// Lists the names one step below the given ones, in order: virtual hosts, apps of one, streams of an app.
    pub fn names_below(&self, caller: &Caller, begin: &[&str]) -> Vec<String> {
        self.context.gate.known().names_below(caller.organization, begin)
    }

    /// Lists the media streams whose names begin with the given ones, in order.
    pub fn streams(&self, caller: &Caller, begin: &[&str]) -> Vec<MediaStream> {
        self.context.gate.known().media_streams(caller.organization, begin).cloned().collect()
    }

    /// Lists the names of a stream's live sessions that the caller may know of, in the order in which they connected.
    pub fn names_at(&self, caller: &Caller, stream: &MediaStream) -> Vec<Arc<str>> {
        let now = self.context.clock.now();
        self.context.gate.known_at(now).names_at(stream, whose(caller), now)
    }

    /// Finds a live session of a stream by its name, if the caller may know of it.
    pub fn find(&self, caller: &Caller, stream: &MediaStream, name: &str) -> Option<MayLook> {
        let found = self.context.gate.known().named(stream, name, self.context.clock.now()).cloned();
        found.and_then(|session| MayLook::judge(caller, Way::Media, session).ok())
    }

    /// Finds the same session, if the caller may act on it.
    pub fn find_to_act_on(&self, caller: &Caller, stream: &MediaStream, name: &str) -> Option<MayAct> {
        let found = self.context.gate.known().named(stream, name, self.context.clock.now()).cloned();
        found.and_then(|session| MayAct::judge(caller, Way::Media, session).ok())
    }

    /// Finds live sessions of streams by their names, for readings of them; none where the caller may not report on one.
    pub fn find_to_measure<'a>(
        &self,
        caller: &Caller,
        names: impl IntoIterator<Item = (&'a MediaStream, &'a str)>,
    ) -> Vec<Option<LiveSession>> {
        let now = self.context.clock.now();
        let known = self.context.gate.known();
        let found = |(stream, name)| {
            let session = known.named(stream, name, now)?;
            let session = MayAct::judge(caller, Way::Media, session.clone()).ok()?;
            Some(LiveSession { number: session.number, owner: session.owner })
        };
        names.into_iter().map(found).collect()
    }

    /// Whether this connection opened the session: a connection is the `tokenIdentifier` of the sessions that it opens.
    pub async fn is_of_connection(&self, session: &Session, connection: &str) -> Result<bool, Error> {
        let row = self.context.store.session_by_number(session.number).await?;
        Ok(row.is_some_and(|row| row.detail.token_identifier.as_deref() == Some(connection)))
    }

    /// Whether the request ended a session when it was first sent: then it is answered as it was, though no session of that
    /// name is left.
    pub fn ended_before(&self, caller: &Caller) -> Result<bool, Error> {
        Ok(matches!(Origin::caller(caller).recorded::<EndSessions>()?, Some(1..)))
    }

    /// Adds up the sessions of streams that the caller may know of.
    pub fn sum(&self, caller: &Caller, streams: &[MediaStream]) -> Sum {
        let now = self.context.clock.now();
        self.context.gate.known_at(now).sum(streams, whose(caller), now)
    }

    /// Makes a name for a session that came without one. It is the same for whoever brings the same parts, and nobody else can
    /// make it: a UUID of version 4 by its shape.
    pub fn name_for(&self, parts: &[&[u8]]) -> String {
        let digest = self.context.key.digest("media session name", parts);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// Takes readings of sessions' counters; durable when this returns. Each is answered for itself, in the order given;
    /// one without a session as not found.
    pub async fn measure(
        &self,
        caller: &Caller,
        items: Vec<(Option<LiveSession>, Sample)>,
    ) -> Vec<Result<Reading, Error>> {
        // A request that is sent again is cut into the same parts, whatever ended since, so readings of no session have their
        // place too.
        let nobody = caller.once.is_some().then_some(LiveSession { number: NOBODY, owner: caller.actor });
        let items = items.into_iter().map(|(found, sample)| {
            let found = found.or(nobody).ok_or(Error::NotFound(Thing::Session))?;
            let presented = caller.presented(found.owner);
            Ok((found.number, Measurement { sample, presented }))
        });
        self.context.in_parts(caller, items.collect(), MeasureSessions, |readings| readings).await
    }
}

/// Returns the person whose sessions are all that a caller may know of, if there is one.
pub(super) fn whose(caller: &Caller) -> Option<PrincipalNumber> {
    caller.principal.filter(|_| !caller.looks_at_all())
}
