//! Starting.

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::StoreError;
use crate::row::{AccessToken, Loaded, OpenSession, Principal};

/// All that the service holds in memory, read once when it starts. Nobody writes meanwhile, so all of these are as of one
/// position, [`Loaded::head`], and may hold a snapshot for as long as they take. What there may be millions of comes as a
/// stream, so that nobody holds all of it twice.
#[async_trait]
pub trait Start: Send + Sync {
    /// The directory, the unfinished revocations, and where the log and its numbers stand.
    async fn load(&self) -> Result<Loaded, StoreError>;

    /// Each principal, in no order.
    fn all_principals(&self) -> BoxStream<'_, Result<Principal, StoreError>>;

    /// Each access token that is kept, in no order.
    fn all_access_tokens(&self) -> BoxStream<'_, Result<AccessToken, StoreError>>;

    /// All open sessions, in the order of their numbers and some at a time, as the last event of each leaves it, also where
    /// its activity has not come into the rows yet ([`Batch::activity`](crate::Batch::activity)).
    fn open_sessions(&self) -> BoxStream<'_, Result<Vec<OpenSession>, StoreError>>;
}
