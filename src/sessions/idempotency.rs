//! Requests that take effect once: which of them are under way, and what the others came to.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use sessiond_core::caller::Caller;
use sessiond_core::idempotency::{IdempotencyKey, KEPT, RecordedOutcome};
use sessiond_store::SideWrite;

use crate::committer::Origin;
use crate::context::AppContext;
use crate::error::Error;
use crate::secret;

/// Requests that take effect once.
#[derive(Clone)]
pub struct Idempotency {
    context: Arc<AppContext>,
    under_way: Arc<UnderWay>,
}

/// The requests under way, by their keys. A mark is over when its last holder lets go of it: the request, whether or not its
/// client is still there, or the operation that it handed in.
#[derive(Default)]
struct UnderWay(Mutex<Marks>);

#[derive(Default)]
struct Marks {
    marks: HashMap<[u8; 32], Weak<()>>,
    /// Marks that are over are dropped when there are so many.
    tidy_at: usize,
}

impl UnderWay {
    fn enter(&self, key: [u8; 32]) -> Option<Arc<()>> {
        let mut all = self.0.lock();
        if all.marks.get(&key).is_some_and(|mark| mark.strong_count() > 0) {
            return None;
        }
        if all.marks.len() >= all.tidy_at {
            all.marks.retain(|_, mark| mark.strong_count() > 0);
            all.tidy_at = (2 * all.marks.len()).max(1_024);
        }
        let mark = Arc::new(());
        all.marks.insert(key, Arc::downgrade(&mark));
        Some(mark)
    }
}

impl Idempotency {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context, under_way: Arc::default() }
    }

    /// Makes a caller's request one that takes effect once, under a key of the client's own. It is refused while one of this
    /// key is under way, or where the key was another request's; if it took effect before, its outcome comes along.
    pub async fn begin(
        &self,
        caller: &Caller,
        key: &str,
        fingerprint: [u8; 32],
    ) -> Result<Arc<IdempotencyKey>, Error> {
        let context = &self.context;
        let (organization, kind) =
            (caller.organization.0.to_be_bytes(), (caller.actor.kind as i64).to_be_bytes());
        let who: [&[u8]; 4] = [&organization, &kind, caller.actor.id.as_bytes(), key.as_bytes()];
        let digest = context.key.digest("idempotency key", &who);
        // First the mark, then the look: what ends in between is on record.
        let under_way = self.under_way.enter(digest).ok_or_else(|| Error::Conflict {
            code: "idempotency_in_flight",
            message: "A request with this Idempotency-Key is under way: wait for its answer, or ask again"
                .to_owned(),
        })?;
        let (salt, recorded) = match context.outcome(&digest, &fingerprint).await? {
            Some(outcome) => (outcome.salt, Some(outcome.done)),
            None => (secret::request_salt(), None),
        };
        let [organization, kind, actor, key] = who;
        let request = [organization, kind, actor, key, &fingerprint, &salt];
        let seed = context.key.digest("secrets of a request", &request);
        Ok(Arc::new(IdempotencyKey { key: digest, fingerprint, salt, seed, recorded, under_way }))
    }

    /// The origin of a part of a request that hands in several operations: each part takes effect once.
    pub async fn part(&self, caller: &Caller, index: usize) -> Result<Origin, Error> {
        self.context.part_of_request(caller, index).await
    }

    /// Forgets outcomes that are not replayed any more, a page at a time. Returns how many pages.
    pub async fn forget_outcomes(&self) -> Result<usize, Error> {
        let up_to = self.context.clock.now() - KEPT;
        let mut pages = 0;
        while self.context.store.has_outcomes(up_to).await? {
            self.context.write_beside(SideWrite::ForgetOutcomes(up_to)).await?;
            pages += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(pages)
    }
}

impl AppContext {
    /// The origin of a part of a request. Parts are counted from 0; the first stands under the request's own key, so that
    /// the key is bound to the request.
    pub(super) async fn part_of_request(&self, caller: &Caller, index: usize) -> Result<Origin, Error> {
        let origin = Origin::caller(caller);
        let Some(once) = origin.once.as_deref().filter(|_| index > 0) else { return Ok(origin) };
        let key = self.key.digest("part of a request", &[&once.key, &index.to_be_bytes()]);
        let recorded = self.outcome(&key, &once.fingerprint).await?.map(|outcome| outcome.done);
        let part = IdempotencyKey { key, recorded, ..once.clone() };
        Ok(Origin { once: Some(Arc::new(part)), ..origin })
    }

    async fn outcome(
        &self,
        key: &[u8; 32],
        fingerprint: &[u8; 32],
    ) -> Result<Option<RecordedOutcome>, Error> {
        let forgotten = self.clock.now() - KEPT;
        let found = self.store.outcome(key).await?.filter(|outcome| outcome.recorded_at > forgotten);
        if found.as_ref().is_some_and(|outcome| outcome.fingerprint != *fingerprint) {
            return Err(reused());
        }
        Ok(found)
    }
}

/// The error for a key that was another request's.
pub(super) fn reused() -> Error {
    let message = "Another request came with this Idempotency-Key; each needs a key of its own".to_owned();
    Error::Unprocessable { code: "idempotency_key_reused", message }
}
