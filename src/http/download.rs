//! Downloads, which end with the credential that they were asked for with, as everything does that lasts.

use std::io;

use futures_util::stream::{self, Stream, StreamExt};
use sessiond_core::ending::{Ending, LAPSED};

use crate::sessions::Registration;

/// Passes on pieces as long as the credential is good. After that the connection breaks off, so that nobody takes a part for
/// the whole: a file of somebody else's format has no place for an error.
pub fn while_good<Piece: Send + 'static>(
    registration: Registration,
    pieces: impl Stream<Item = io::Result<Piece>> + Send + 'static,
) -> impl Stream<Item = io::Result<Piece>> + Send + 'static {
    stream::unfold(Some((pieces.boxed(), registration)), |state| async move {
        let (mut pieces, registration) = state?;
        let ending = tokio::select! {
            biased;
            ending = registration.ended() => ending,
            piece = pieces.next() => return piece.map(|piece| (piece, Some((pieces, registration)))),
        };
        let why = match ending {
            Ending::Credential(end) => end.to_string(),
            Ending::Session(reason) => format!("session disconnected: {reason}"),
            Ending::Lapsed => LAPSED.to_owned(),
        };
        Some((Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)), None))
    })
}
