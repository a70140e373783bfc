//! Rows: what the log has made, as it stands now.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::filter::Filter;
use sessiond_core::idempotency::RecordedOutcome;
use sessiond_core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, SessionNumber,
};
use uuid::Uuid;

use crate::StoreError;
use crate::row::{Confirmation, Detail, PrincipalRow, Revocation, SessionRow};

/// What ended sessions are ordered by; what is equal is ordered by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedOrder {
    /// Their number alone: the order in which they connected.
    Connected,
    LastActive,
    /// When their token expired.
    Expires,
}

/// Ended sessions of an application to read, in order.
#[derive(Debug)]
pub struct EndedPage<'a> {
    pub application: ApplicationNumber,
    pub filter: &'a Filter,
    pub order: EndedOrder,
    pub descending: bool,
    /// Only what comes after this one, in the order and its direction; the time is of no account where the number decides.
    pub after: Option<(Time, SessionNumber)>,
    pub limit: usize,
}

/// What statistics want of a terminal session that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedTerminal {
    pub connected_at: Time,
    pub ended_at: Time,
    pub principal: PrincipalNumber,
    /// Its machine, as the session's resource names it.
    pub machine: Option<String>,
}

/// Sessions.
///
/// An open session's figures here (when it was last active, its totals, its head) may be behind the log, each session's at
/// one of its own events ([`Batch::activity`](crate::Batch::activity)): whoever wants them now asks the Gate. All else of a
/// session, and all of an ended one, is as the log says.
///
/// A [`Filter`] says what each of its fields asks for, and all of them have to hold. Here only what can be said of ended
/// sessions counts: `application` is given beside it, and `status` was asked before. An answer costs what fits the narrowest
/// of what is asked for.
#[async_trait]
pub trait SessionRows: Send + Sync {
    /// One session by id, open or ended.
    async fn session(&self, id: Uuid) -> Result<Option<SessionRow>, StoreError>;

    /// One session by number, open or ended.
    async fn session_by_number(&self, number: SessionNumber) -> Result<Option<SessionRow>, StoreError>;

    /// Sessions by number.
    async fn sessions(&self, numbers: &[SessionNumber]) -> Result<Vec<SessionRow>, StoreError>;

    /// What sessions connected with, by number.
    async fn details(&self, numbers: &[SessionNumber]) -> Result<Vec<(SessionNumber, Detail)>, StoreError>;

    /// A page of an application's ended sessions that fit a filter.
    async fn ended(&self, page: &EndedPage<'_>) -> Result<Vec<SessionRow>, StoreError>;

    /// How many ended sessions of an application fit a filter.
    async fn count_ended(&self, application: ApplicationNumber, filter: &Filter) -> Result<u64, StoreError>;

    /// A page of a principal's ended sessions in an application after a number, oldest first.
    async fn ended_of_principal(
        &self,
        application: ApplicationNumber,
        principal: PrincipalNumber,
        after: SessionNumber,
        limit: usize,
    ) -> Result<Vec<SessionNumber>, StoreError>;

    /// An organization's terminal sessions that ended at an instant or later, in no order.
    async fn ended_terminals(
        &self,
        organization: OrganizationNumber,
        since: Time,
    ) -> Result<Vec<EndedTerminal>, StoreError>;

    /// Which of these sessions' ends are known where the work ran.
    async fn confirmations(&self, sessions: &[SessionNumber]) -> Result<Vec<Confirmation>, StoreError>;
}

/// The directory, as far as memory does not hold it; revocations; and what requests have come to.
#[async_trait]
pub trait DirectoryRows: Send + Sync {
    /// One principal with what it is called.
    async fn principal(&self, number: PrincipalNumber) -> Result<Option<PrincipalRow>, StoreError>;

    /// Principals by number, with what they are called.
    async fn principals_numbered(&self, numbers: &[PrincipalNumber])
    -> Result<Vec<PrincipalRow>, StoreError>;

    /// A page of an organization's principals after a number, oldest first; of one issuer, or with one subject, where that
    /// is asked for.
    async fn principals(
        &self,
        organization: OrganizationNumber,
        issuer: Option<&str>,
        subject: Option<&str>,
        after: PrincipalNumber,
        limit: u32,
    ) -> Result<Vec<PrincipalRow>, StoreError>;

    /// The principals of an organization whom their issuer calls so, or whose e-mail address this is, whatever the case of
    /// its letters as far as they are ASCII; oldest first.
    async fn principals_called(
        &self,
        organization: OrganizationNumber,
        called: &str,
        limit: u32,
    ) -> Result<Vec<PrincipalNumber>, StoreError>;

    /// A page of an organization's principals after a number, oldest first: those of whom each of these begins a word of the
    /// name or the e-mail address ([`called::words`](crate::called::words)). It costs what the prefixes find.
    async fn principals_found(
        &self,
        organization: OrganizationNumber,
        prefixes: &[String],
        after: PrincipalNumber,
        limit: u32,
    ) -> Result<Vec<PrincipalRow>, StoreError>;

    /// One revocation by number, finished or not.
    async fn revocation(&self, number: RevocationNumber) -> Result<Option<Revocation>, StoreError>;

    /// One revocation by id, finished or not.
    async fn revocation_by_id(&self, id: Uuid) -> Result<Option<Revocation>, StoreError>;

    /// A page of an organization's revocations before a number, newest first; those of one application alone where that is
    /// asked for.
    async fn revocations(
        &self,
        organization: OrganizationNumber,
        application: Option<ApplicationNumber>,
        before: Option<RevocationNumber>,
        limit: u32,
    ) -> Result<Vec<Revocation>, StoreError>;

    /// The notes of the revocations that events at these positions were done by, by position; without those that have none.
    async fn notes(&self, positions: &[Position]) -> Result<Vec<(Position, String)>, StoreError>;

    /// What a request came to, by its key; whether that still counts is for whoever asks to say.
    async fn outcome(&self, key: &[u8; 32]) -> Result<Option<RecordedOutcome>, StoreError>;

    /// Whether there are outcomes recorded up to an instant.
    async fn has_outcomes(&self, up_to: Time) -> Result<bool, StoreError>;
}
