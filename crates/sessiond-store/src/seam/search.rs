//! Sessions by words of what they are called, by whose they are, and by the beginning of their id.

use async_trait::async_trait;
use sessiond_core::ids::{ApplicationNumber, PrincipalNumber, SessionNumber};
use uuid::Uuid;

use crate::StoreError;

/// What sessions have in common that are looked for.
#[derive(Debug, Clone, Copy)]
pub enum FoundBy<'a> {
    /// Open and ended ones with one of these words ([`called::of_session`](crate::called::of_session)), as they are filed.
    Words(&'a [String]),
    /// Ended ones of one of these principals.
    Principals(&'a [PrincipalNumber]),
    /// Ended ones from one number up to another.
    Numbers(SessionNumber, SessionNumber),
}

/// A page of the postings of an application's sessions.
#[derive(Debug, Clone, Copy)]
pub struct Postings<'a> {
    pub application: ApplicationNumber,
    pub by: FoundBy<'a>,
    pub descending: bool,
    /// Only those beyond this one, in the direction; it need not be there.
    pub after: Option<SessionNumber>,
    /// Most of each word, of each principal, or of the numbers.
    pub limit: usize,
}

/// What leads from a word to sessions.
#[async_trait]
pub trait Search: Send + Sync {
    /// The words under which an application's sessions are filed and that begin so, in the order of their bytes. It costs a
    /// look-up for each word that is returned, however many sessions have it.
    async fn words_beginning(
        &self,
        application: ApplicationNumber,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError>;

    /// The next sessions of each word, of each principal, or of the numbers: a list each, in the order of their numbers. It costs
    /// a look-up for each list, and what is in it.
    async fn postings(&self, page: &Postings<'_>) -> Result<Vec<Vec<SessionNumber>>, StoreError>;

    /// The first and the last number of the sessions, whosever they are, whose ids are from one up to another: later sessions
    /// have greater ids. It costs two look-ups.
    async fn numbers_of_ids(
        &self,
        first: Uuid,
        last: Uuid,
    ) -> Result<Option<(SessionNumber, SessionNumber)>, StoreError>;
}
