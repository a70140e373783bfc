//! Reading the log.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, RevocationNumber, SessionNumber};

use crate::StoreError;
use crate::row::{Addressed, Entry};

/// The events. Positions count from 1, over all streams; `recorded_at` never falls along them. Events that were let go leave
/// their positions free: whoever reads in pages does not notice, and the last position always has its event.
///
/// An event comes back as it was committed, to the byte of its body, with two exceptions: a body that an earlier release pruned
/// is empty, and its event is an `Unknown` without content; and personal facts that were erased are gone from beside it. Its
/// hashes stay as they were. An event of a type that this release does not know is an `Unknown` with what it holds.
///
/// `activity` says whether events of the type `activity_recorded` are wanted, of which there may be a thousand times as many
/// as of all others: a page without them costs nothing for those that it leaves out, but where it says otherwise.
#[async_trait]
pub trait Log: Send + Sync {
    /// The last position; 0 where there is no event yet.
    async fn head(&self) -> Result<Position, StoreError>;

    /// The event at a position.
    async fn event(&self, position: Position) -> Result<Option<Entry>, StoreError>;

    /// The events at these positions, in no order; without those that are not there.
    async fn events(&self, positions: &[Position]) -> Result<Vec<Entry>, StoreError>;

    /// The first event of each of these revocations, in no order; without those that are not there.
    async fn beginnings(&self, revocations: &[RevocationNumber]) -> Result<Vec<Entry>, StoreError>;

    /// A page of the log after a position, oldest first.
    async fn log(&self, after: Position, limit: u32) -> Result<Vec<Entry>, StoreError>;

    /// The last position that was recorded before an instant; 0 where there is none.
    async fn last_recorded_before(&self, instant: Time) -> Result<Position, StoreError>;

    // ---- with the public ids of what events are about, for feeds and histories ----

    /// A page of the log after a position and up to another, oldest first. Reads over the activity that it leaves out: it is
    /// for whoever follows the log's end.
    async fn addressed_log(
        &self,
        after: Position,
        up_to: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError>;

    /// A page of an application's events, those of its sessions among them, after a position, oldest first.
    async fn addressed_application_log(
        &self,
        application: ApplicationNumber,
        after: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError>;

    /// A page of a session's events after a position, oldest first. With activity it may read over events of others.
    async fn addressed_session_log(
        &self,
        session: SessionNumber,
        after: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError>;

    /// A page of a session's events, newest first, from one of its own events on, which is in it. With activity it goes from
    /// each event to the one before it in its stream, and so costs what it returns all the same.
    async fn session_history(
        &self,
        session: SessionNumber,
        newest: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError>;

    /// A page of an organization's events after a position and up to another, oldest first; of one application alone where
    /// that is asked for. With activity it may read over events of others.
    async fn organization_log(
        &self,
        organization: OrganizationNumber,
        application: Option<ApplicationNumber>,
        after: Position,
        up_to: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError>;
}
