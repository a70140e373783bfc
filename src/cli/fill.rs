//! Start-up: what the store remembers goes into the Gate, in slices, so that what is on its way never needs as much memory
//! as what has arrived.

use futures_util::StreamExt;
use sessiond_core::Time;
use sessiond_core::change::{Change, IndexEntry, ResourceTotals, SearchTerms, listed_name};
use sessiond_core::event::Event;
use sessiond_core::ids::StreamKind;
use sessiond_core::natural_key::natural_key;
use sessiond_core::session::evolve;
use sessiond_store::{Entry, Loaded, OpenSession, Reader, SessionRow, StoreError};
use tokio::sync::mpsc::{Receiver, channel};

use crate::gate::Gate;
use crate::http::health::Progress;

/// Changes handed to the Gate at a time.
const SLICE: usize = 1_024;
/// Events of the log's tail read at a time.
const PAGE: i64 = 2_000;

/// Makes the Gate know what the store remembers, as of a moment. Nobody may write meanwhile.
pub async fn fill(
    gate: &Gate,
    reader: &Reader,
    now: Time,
    progress: &Progress,
) -> Result<Loaded, StoreError> {
    let mut loaded = reader.load().await?;
    progress.expect(loaded.open_sessions);
    gate.expect(loaded.open_sessions);
    let mut filling = Filling { gate, now, waiting: Vec::with_capacity(SLICE) };
    filling.directory(&mut loaded);
    reader.each_principal(|principal| filling.change(Change::Principal(principal))).await?;
    reader.each_access_token(|token| filling.change(Change::AccessToken(token))).await?;
    let mut sessions = read_ahead(reader);
    while let Some(some) = sessions.recv().await {
        for open in some? {
            filling.session(open);
            progress.loaded();
        }
    }
    filling.flush();
    fold_tail(gate, reader, &mut loaded).await?;
    filling.totals(&mut loaded);
    Ok(loaded)
}

/// Reads the open sessions in a task of its own: taking them apart and filing them take about as long.
fn read_ahead(reader: &Reader) -> Receiver<Result<Vec<OpenSession>, StoreError>> {
    let (sender, receiver) = channel(1);
    let reader = reader.clone();
    tokio::spawn(async move {
        let mut sessions = reader.open_sessions();
        while let Some(some) = sessions.next().await {
            if sender.send(some).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Changes on their way into the Gate.
struct Filling<'gate> {
    gate: &'gate Gate,
    now: Time,
    waiting: Vec<Change>,
}

impl Filling<'_> {
    fn change(&mut self, change: Change) {
        self.waiting.push(change);
        if self.waiting.len() >= SLICE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let next = Vec::with_capacity(SLICE);
        self.gate.apply(std::mem::replace(&mut self.waiting, next));
    }

    fn directory(&mut self, loaded: &mut Loaded) {
        let waiting = &mut self.waiting;
        waiting.extend(loaded.organizations.drain(..).map(Change::Organization));
        waiting.extend(loaded.applications.drain(..).map(Change::Application));
        waiting.extend(loaded.service_accounts.drain(..).map(Change::ServiceAccount));
        waiting.extend(loaded.revocations.drain(..).map(Change::Revocation));
        waiting.extend(loaded.streams.drain(..).map(Change::Stream));
        waiting.extend(loaded.bars.drain(..).map(|(position, at)| Change::Bar(position, at)));
        let secrets = loaded.key_secrets.drain(..);
        waiting.extend(secrets.map(|secret| Change::ApiKeySecret(secret.id, secret.hash, secret.used_at)));
        self.flush();
    }

    /// Totals come last: each session that was opened above has counted itself.
    fn totals(&mut self, loaded: &mut Loaded) {
        for (application, total) in loaded.session_totals.drain(..) {
            self.change(Change::SessionTotal(application, total));
        }
        for past in loaded.past.drain(..) {
            let totals = ResourceTotals { sessions: past.sessions, bytes_out: past.bytes_out };
            self.change(Change::ResourceTotals(past.application, past.resource, totals));
        }
        self.flush();
    }

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

/// Folds the log's tail beyond what is settled over the sessions that are in the Gate.
async fn fold_tail(gate: &Gate, reader: &Reader, loaded: &mut Loaded) -> Result<(), StoreError> {
    let mut after = loaded.settled;
    loop {
        let page = reader.log(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.recorded.position;
        for entry in page.iter().filter(|entry| entry.recorded.stream.kind == StreamKind::Session) {
            if let Some(change) = folded(gate, entry, loaded) {
                gate.apply(vec![change]);
            }
        }
    }
}

/// An open session as an event that is newer than its rows leaves it.
fn folded(gate: &Gate, entry: &Entry, loaded: &mut Loaded) -> Option<Change> {
    let envelope = entry.envelope();
    let mut session = gate.known().session(envelope.number).cloned()?;
    if entry.recorded.version <= session.head.version {
        return None;
    }
    loaded.unsettled.insert(session.number);
    match &entry.recorded.event {
        Event::Session(event) => session = evolve(Some(session), event, &envelope)?,
        // What a newer release wrote is passed over, but the next event of the stream builds on it all the same.
        _ => session.head = entry.head(),
    }
    Some(Change::Session(session, None))
}
