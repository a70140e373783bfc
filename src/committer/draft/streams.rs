//! Streams of the registry in a batch.

use sessiond_core::event::Event;
use sessiond_core::ids::{Head, OrganizationNumber, RevocationNumber, StreamId, StreamKind};
use sessiond_core::stream::{Envelope, StreamRefusal};
use sessiond_core::streams::{AnyStream, Registered};
use sessiond_store::SideWrite;

use super::{Draft, Fact};
use crate::committer::Origin;
use crate::error::Error;

impl Draft<'_> {
    pub(super) fn any_stream(&self, stream: StreamId) -> Option<&AnyStream> {
        self.streams.get(&stream).or_else(|| self.known.any_stream(stream))
    }

    /// The fold of a stream of a kind, by its number.
    pub(super) fn stream<S: Registered>(&self, number: impl Into<i64>) -> Option<&S> {
        S::of(self.any_stream(StreamId { kind: S::KIND, number: number.into() })?)
    }

    /// All streams of a kind.
    pub(in crate::committer) fn streams_of<S: Registered>(&self) -> impl Iterator<Item = &S> {
        let known = self.known.any_streams(S::KIND);
        let known = known.filter(|one| !self.streams.contains_key(&one.stream())).filter_map(S::of);
        known.chain(self.drafted::<S>())
    }

    /// Those streams of a kind that this batch begins or changes.
    pub(super) fn drafted<S: Registered>(&self) -> impl Iterator<Item = &S> {
        self.streams.values().filter_map(S::of)
    }

    /// Does what a command wants of a stream; without a number, of a new one.
    pub(in crate::committer) fn change_stream<S: Registered>(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        number: Option<i64>,
        command: &S::Command,
        side: &[SideWrite],
    ) -> Result<S, Error> {
        let refused = |refusal: StreamRefusal| match refusal {
            StreamRefusal::Gone => Error::NotFound(S::KIND.into()),
            StreamRefusal::NeedsCredential => Error::field("credential", refusal.to_string()),
        };
        let id = match number {
            Some(number) => StreamId { kind: S::KIND, number },
            None => {
                self.room_for_another::<S>(organization)?;
                self.next_stream(S::KIND)
            }
        };
        self.concern(id);
        let before = self.any_stream(id).filter(|one| one.organization() == organization);
        let before = before.and_then(S::of).cloned();
        match S::decide(before.as_ref(), command).map_err(refused)? {
            Some(event) => {
                side.iter().for_each(|side| self.write_beside(side.clone()));
                self.stream_event(origin, organization, id.number, &event, None)
            }
            None => before.ok_or(StreamRefusal::Gone).map_err(refused),
        }
    }

    /// A stream of a kind that is not there yet.
    pub(super) fn next_stream(&self, kind: StreamKind) -> StreamId {
        let drafted = self.streams.keys().filter(|stream| stream.kind == kind).map(|stream| stream.number);
        let known = self.known.any_streams(kind).next_back().map(|one| one.stream().number);
        StreamId { kind, number: drafted.chain(known).max().unwrap_or(0) + 1 }
    }

    /// Does what a command wants of a stream that is there, because of a revocation; what it does not apply to any more
    /// stays as it is.
    pub(super) fn change_stream_for<S: Registered>(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        number: i64,
        command: &S::Command,
        revocation: RevocationNumber,
    ) -> Result<(), Error> {
        self.concern(StreamId { kind: S::KIND, number });
        match S::decide(self.stream::<S>(number), command) {
            Ok(Some(event)) => {
                self.stream_event::<S>(origin, organization, number, &event, Some(revocation)).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// Records an event of a stream.
    pub(super) fn stream_event<S: Registered>(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        number: i64,
        event: &S::Event,
        revocation: Option<RevocationNumber>,
    ) -> Result<S, Error> {
        let stream = StreamId { kind: S::KIND, number };
        let head = self.any_stream(stream).map_or_else(Head::default, AnyStream::head);
        // Whose feed it is in has to be known before it has its place in the log.
        let envelope = Envelope { number, organization, occurred_at: self.now, head: self.next_head(head) };
        let after = S::evolve(self.stream(number).cloned(), event, &envelope);
        let after =
            after.ok_or_else(|| Error::Internal(format!("{} {number} folds to nothing", S::KIND.word())))?;
        self.record(Fact {
            origin,
            stream,
            head,
            organization,
            application: after.application(),
            revocation,
            occurred_at: self.now,
            event: Event::Stream(S::event(event.clone())),
            personal: None,
        });
        self.streams.insert(stream, after.clone().any());
        Ok(after)
    }
}
