//! Fills the Gate at start-up with what the store remembers, in slices, so that what is on its way never needs as much
//! memory as what has arrived.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use sessiond_core::Time;
use sessiond_core::change::{Change, IndexEntry, SearchTerms, listed_name};
use sessiond_core::natural_key::natural_key;
use sessiond_store::{Loaded, OpenSession, SessionRow, Store, StoreError};
use tokio::sync::mpsc::{Receiver, channel};

use crate::gate::Gate;
use crate::http::health::Progress;

/// How many changes are handed to the Gate at a time.
const SLICE: usize = 1_024;

/// Fills the Gate with what the store remembers, as of a moment. Nobody may write meanwhile.
pub async fn fill(
    gate: &Gate,
    store: &Arc<dyn Store>,
    now: Time,
    progress: &Progress,
) -> Result<Loaded, StoreError> {
    let mut loaded = store.load().await?;
    progress.expect(loaded.open_sessions);
    gate.expect(loaded.open_sessions);
    let mut filling = Filling { gate, now, waiting: Vec::with_capacity(SLICE) };
    filling.directory(&mut loaded);
    let mut principals = store.all_principals();
    while let Some(principal) = principals.try_next().await? {
        filling.change(Change::Principal(principal));
    }
    let mut tokens = store.all_access_tokens();
    while let Some(token) = tokens.try_next().await? {
        filling.change(Change::AccessToken(token));
    }
    let mut sessions = read_ahead(store.clone());
    while let Some(some) = sessions.recv().await {
        for open in some? {
            filling.session(open);
            progress.loaded();
        }
    }
    filling.flush();
    filling.totals(&mut loaded);
    Ok(loaded)
}

/// Reads the open sessions in a task of its own, because decoding them takes about as long as indexing them.
fn read_ahead(store: Arc<dyn Store>) -> Receiver<Result<Vec<OpenSession>, StoreError>> {
    let (sender, receiver) = channel(1);
    tokio::spawn(async move {
        let mut sessions = store.open_sessions();
        while let Some(some) = sessions.next().await {
            if sender.send(some).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// The changes that are to be handed to the Gate next.
struct Filling<'gate> {
    gate: &'gate Gate,
    now: Time,
    waiting: Vec<Change>,
}

impl Filling<'_> {
    /// Adds a change, and hands on the slice when it is full.
    fn change(&mut self, change: Change) {
        self.waiting.push(change);
        if self.waiting.len() >= SLICE {
            self.flush();
        }
    }

    /// Hands the slice to the Gate.
    fn flush(&mut self) {
        let next = Vec::with_capacity(SLICE);
        self.gate.apply(std::mem::replace(&mut self.waiting, next), self.now);
    }

    /// Adds all streams but sessions, the bars, and the secrets of API keys.
    fn directory(&mut self, loaded: &mut Loaded) {
        let waiting = &mut self.waiting;
        waiting.extend(loaded.streams.drain(..).map(Change::Stream));
        waiting.extend(loaded.bars.drain(..).map(|(position, at)| Change::CredentialsBarred(position, at)));
        let secrets = loaded.key_secrets.drain(..);
        waiting.extend(secrets.map(|secret| Change::ApiKeySecret(secret.id, secret.hashes, secret.used_at)));
        self.flush();
    }

    /// Adds the totals, which come last because each open session has counted itself before.
    fn totals(&mut self, loaded: &mut Loaded) {
        for (application, total) in loaded.session_totals.drain(..) {
            self.change(Change::SessionTotal(application, total));
        }
        for (application, resource, totals) in loaded.resource_totals.drain(..) {
            self.change(Change::ResourceTotals(application, resource, totals));
        }
        self.flush();
    }

    /// Adds an open session, with its index entry and its tokens.
    fn session(&mut self, open: OpenSession) {
        let OpenSession { row: SessionRow { session, detail }, token, mcp_hash } = open;
        let (number, application) = (session.number, session.application);
        let key = natural_key(
            session.principal,
            detail.anchor.as_deref(),
            session.resource.as_deref(),
            detail.client_session_id.as_deref(),
            detail.token_identifier.as_deref(),
        );
        let entry = IndexEntry {
            key: key.map(|key| key.digest(application)),
            terms: SearchTerms {
                name: listed_name(session.kind, detail.client_session_id.as_deref()),
                hostname: detail.hostname,
                client: detail.client,
            },
            loaded_at: Some(self.now),
        };
        self.change(Change::Session(session, Some(entry)));
        token.into_iter().for_each(|token| self.change(Change::SessionToken(number, token)));
        mcp_hash.into_iter().for_each(|hash| self.change(Change::McpSession(number, hash)));
    }
}
