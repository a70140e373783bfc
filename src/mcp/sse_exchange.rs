//! Sends a message of an HTTP+SSE client to the upstream, and puts what comes back onto the client's connection.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use bytes::{Bytes, BytesMut};
use serde_json::Value;
use sessiond_core::session::Session;

use super::budget::Share;
use super::forward::{ExchangeOptions, IncomingResponse, OutgoingRequest, data};
use super::in_flight::{InFlight, StopReason};
use super::message;
use super::reopen::SessionSetting;
use super::reply::RpcError;
use super::sse_connection::SseConnection;
use super::sse_events::Splitter;
use super::upstream::PROTOCOL_VERSION;
use super::{Gateway, RequestContext};
use crate::gate::Pass;

impl Gateway {
    /// Sends a request to the upstream and puts the answer onto the connection; an error has been put there when this
    /// returns it. Returns the id of the upstream's last event with an id.
    pub(super) async fn exchange_over_sse(
        self: &Arc<Self>,
        connection: &SseConnection,
        mut in_flight: InFlight,
        context: &RequestContext,
        session: &Session,
        mut outgoing: OutgoingRequest,
        setting: Option<SessionSetting>,
    ) -> Result<Option<Bytes>, RpcError> {
        let Ok(upstream_session) = self.upstream_sessions.of(&self.sessions.gateway, session).await else {
            let rpc_error = RpcError::upstream_lost();
            connection.refuse(&in_flight.ids, &rpc_error).await;
            return Err(rpc_error);
        };
        in_flight.upstream_work = Some(self.goodbyes.begin_work(
            (session.number, session.id),
            session.application,
            &upstream_session,
        ));
        let work = async {
            if let Ok(version) = HeaderValue::try_from(&upstream_session.state().protocol_version) {
                outgoing.headers.insert(PROTOCOL_VERSION.clone(), version);
            }
            let options = ExchangeOptions { ids: &in_flight.ids, resumes: false, setting };
            let answer = self.exchange(session, &upstream_session, &context.url, outgoing, options).await?;
            convey(
                connection,
                (&in_flight.ids, Some(&in_flight)),
                answer,
                &[],
                self.patience(),
                &in_flight.share,
            )
            .await
        };
        // The end of the session ends the connection too, whose own task tells the client.
        let done = tokio::select! {
            biased;
            stop = in_flight.watch() => {
                let rpc_error = in_flight.rpc_error(stop);
                in_flight.give_up(&rpc_error);
                let own = connection.opener.credential == in_flight.caller.credential;
                let ended = in_flight.pass.as_ref().and_then(Pass::credential_end);
                if stop == StopReason::OverBudget {
                    // The connection goes on, and nobody else would tell its client.
                    connection.refuse(&in_flight.ids, &rpc_error).await;
                } else if let Some(end) = ended.filter(|_| stop == StopReason::Ended && !own) {
                    // The message came with another credential than the stream, which goes on.
                    connection.refuse(&in_flight.ids, &RpcError::credential_ended(end)).await;
                }
                return Ok(None);
            }
            done = work => done,
        };
        match done {
            Ok(conveyed) => {
                in_flight.record_bytes(conveyed.bytes);
                Ok(conveyed.last)
            }
            Err(rpc_error) => {
                if rpc_error.may_leave_work() {
                    in_flight.give_up(&rpc_error);
                }
                connection.refuse(&in_flight.ids, &rpc_error).await;
                Err(rpc_error)
            }
        }
    }
}

/// The upstream already has a standalone stream for the session.
pub(super) fn stream_taken() -> RpcError {
    RpcError::upstream_refused("serves one stream a session")
}

/// The upstream has no standalone stream to give.
pub(super) fn no_stream() -> RpcError {
    RpcError::upstream_refused("has no stream of its own")
}

/// One message is larger than half of what one call may hold: it is held twice, as it came and as it is handed on.
fn too_large() -> RpcError {
    RpcError::upstream_refused("answers with more than a stream of 2024-11-05 can carry")
}

/// Reads the whole of an answer that is no stream.
async fn gather(
    mut body: Body,
    read: &[u8],
    patience: Duration,
    share: &Share,
) -> Result<BytesMut, RpcError> {
    let mut whole = BytesMut::from(read);
    let gathering = async {
        while let Some(data) = data(&mut body).await {
            whole.extend_from_slice(&data.map_err(|_| RpcError::upstream_lost())?);
            share.set(whole.capacity());
            if whole.len() > share.most() / 2 {
                return Err(too_large());
            }
        }
        Ok(())
    };
    let gathered = tokio::time::timeout(patience, gathering).await;
    gathered.map_err(|_| RpcError::upstream_slow_to_finish())??;
    share.set(whole.capacity() + whole.len());
    Ok(whole)
}

/// What an upstream's answer has come to.
#[derive(Default)]
pub(super) struct Conveyed {
    /// How many bytes of messages were put onto the connection.
    bytes: u64,
    /// The id of the last event that had one.
    last: Option<Bytes>,
    /// An error that answers no call of this connection.
    stray: Option<RpcError>,
}

impl Conveyed {
    /// Puts one message of the upstream onto the connection. The answer to a call that nobody waits for is left out,
    /// and an error that answers no call is kept, because it may be about this one.
    async fn message(&mut self, connection: &SseConnection, in_flight: Option<&InFlight>, data: &[u8]) {
        let answered = message::answered(data);
        let wanted =
            if answered.is_empty() { message::asks(data) } else { connection.has_pending(&answered) };
        if wanted {
            self.bytes += data.len() as u64;
            in_flight.iter().for_each(|in_flight| in_flight.count_bytes(data.len() as u64));
            connection.send(data).await;
        } else if let Some(rpc_error) = message::error_in(data) {
            self.stray.get_or_insert(rpc_error);
        }
    }

    /// Ends the answer: a call that still waits for its answer gets the stray error, or else this one.
    fn finish(
        self,
        connection: &SseConnection,
        ids: &[Value],
        otherwise: impl FnOnce() -> RpcError,
    ) -> Result<Self, RpcError> {
        match connection.has_pending(ids) {
            true => Err(self.stray.unwrap_or_else(otherwise)),
            false => Ok(self),
        }
    }
}

/// Puts an upstream's answer onto a connection: each message of a stream as it comes, anything else whole. A call that
/// the answer does not answer is an error: its client was told 202, and nobody else can tell it.
pub(super) async fn convey(
    connection: &SseConnection,
    (ids, in_flight): (&[Value], Option<&InFlight>),
    answer: IncomingResponse,
    read: &[u8],
    patience: Duration,
    share: &Share,
) -> Result<Conveyed, RpcError> {
    let events = answer.is_events();
    let IncomingResponse { head, mut body } = answer;
    let mut conveyed = Conveyed::default();
    if !events {
        let whole = gather(body, read, patience, share).await?;
        for message in message::messages_in(&whole) {
            conveyed.message(connection, in_flight, message.as_bytes()).await;
        }
        let conveyed = conveyed.finish(connection, ids, || RpcError::unanswered(head.status))?;
        return match head.status {
            // The answer held a message, or nothing was asked.
            _ if conveyed.bytes > 0 || head.status.is_success() => Ok(conveyed),
            StatusCode::CONFLICT => Err(stream_taken()),
            status if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED => Err(no_stream()),
            status => Err(RpcError::upstream_refused(format_args!("failed (HTTP {})", status.as_u16()))),
        };
    }
    let mut splitter = Splitter::default();
    splitter.push(read);
    loop {
        while let Some(event) = splitter.next() {
            conveyed.last = event.id.or(conveyed.last);
            if event.is_message && !event.data.is_empty() {
                let data = event.data;
                drop(event.raw);
                // The message is held twice: as it was read, and as it is handed on.
                share.set(2 * data.len());
                conveyed.message(connection, in_flight, &data).await;
            }
        }
        if splitter.waiting() > share.most() / 2 {
            return Err(too_large());
        }
        match data(&mut body).await {
            Some(Ok(data)) => {
                splitter.push(&data);
                share.set(splitter.memory());
            }
            Some(Err(_)) | None => return conveyed.finish(connection, ids, RpcError::upstream_lost),
        }
    }
}
