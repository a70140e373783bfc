//! What another node answers, on its way to the client. Nothing of it is handed on here after whatever it belongs to has
//! ended and that was answered, although this node knows nothing of what it is: the other node says the last words, and gets a
//! moment for them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sessiond_core::ending::Ending;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::peers::of_end_to_end;
use crate::gate::{Lease, Pass, YIELD};

/// How long the other node has for its last words: less than whoever ends something waits for this node.
const LAST_WORDS: Duration = Duration::from_millis(YIELD.as_millis() as u64 * 3 / 4);
/// How many bytes of an upgraded connection are handed on at once.
const READ: usize = 16 << 10;

/// Says when nothing more may be handed on.
struct Watch {
    over: CancellationToken,
    lease: Arc<Lease>,
    /// Lets go of the pass when the way is given up.
    _done: DropGuard,
}

impl Watch {
    /// Asked in the moment in which something is handed on: a process that was paused goes on there before anybody could tell it.
    fn is_over(&self) -> bool {
        self.over.is_cancelled() || !self.lease.holds()
    }
}

/// Holds a pass until the way is given up, or its end and the last words are over.
fn watch(pass: Pass) -> Watch {
    let pass = pass.escorting();
    let (over, done) = (CancellationToken::new(), CancellationToken::new());
    let lease = pass.lease();
    let watch = Watch { over: over.clone(), lease: lease.clone(), _done: done.clone().drop_guard() };
    tokio::spawn(async move {
        tokio::select! {
            ending = pass.ended() => {
                if ending != Ending::Lapsed && lease.holds() {
                    tokio::time::timeout(LAST_WORDS, done.cancelled()).await.ok();
                }
            }
            () = done.cancelled() => {}
        }
        // First this, and then whoever waits for the pass goes on.
        over.cancel();
        drop(pass);
    });
    watch
}

/// The response of another node as this one gives it, good for as long as a pass.
pub fn escorted(response: Response<Incoming>, pass: Pass) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers = of_end_to_end(&parts.headers);
    let chunks = stream::unfold((body, watch(pass)), |(mut body, watch)| async move {
        let chunk = next(&mut body, &watch).await?;
        Some((chunk, (body, watch)))
    });
    Response::from_parts(parts, Body::from_stream(chunks))
}

/// The next bytes; none at the end, or once nothing more may be handed on.
async fn next(body: &mut Incoming, watch: &Watch) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        let frame = tokio::select! {
            biased;
            () = watch.over.cancelled() => return None,
            frame = body.frame() => frame?,
        };
        if watch.is_over() {
            return None;
        }
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// The response of another node whose connection changes to another protocol, if it does; both connections are then joined.
pub fn upgraded(mut response: Response<Incoming>, client: OnUpgrade, pass: Pass) -> Response<Body> {
    if response.status() != axum::http::StatusCode::SWITCHING_PROTOCOLS {
        return escorted(response, pass);
    }
    let peer = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let Ok((client, peer)) = tokio::try_join!(client, peer) else { return };
        join(client, peer, watch(pass)).await;
    });
    let (mut parts, _) = response.into_parts();
    parts.headers = of_end_to_end(&parts.headers);
    Response::from_parts(parts, Body::empty())
}

/// Hands on in both directions until one side has closed, or nothing more may be.
async fn join(client: Upgraded, peer: Upgraded, watch: Watch) {
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    let (mut from_peer, mut to_peer) = tokio::io::split(TokioIo::new(peer));
    let up = async {
        copy(&mut from_client, &mut to_peer).await.ok();
        to_peer.shutdown().await.ok();
        // What the other node still says is for a client that may only have closed its own side.
        std::future::pending::<()>().await;
    };
    let down = down(&mut from_peer, &mut to_client, &watch);
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    to_client.shutdown().await.ok();
}

/// Hands on what the other node sends.
async fn down(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), watch: &Watch) {
    let mut bytes = vec![0; READ];
    loop {
        let read = tokio::select! {
            biased;
            () = watch.over.cancelled() => return,
            read = from.read(&mut bytes) => read,
        };
        let Ok(some @ 1..) = read else { return };
        if watch.is_over() {
            return;
        }
        let Some(some) = bytes.get(..some) else { return };
        tokio::select! {
            biased;
            () = watch.over.cancelled() => return,
            written = to.write_all(some) => if written.is_err() { return },
        }
    }
}
