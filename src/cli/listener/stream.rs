//! The stream of bytes below TLS, HTTP and WebSockets. It holds its connection's place at the listener until it ends, and
//! gives the connection up when a state of it has lasted too long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::connection::Connection;

/// How long a client that is still sending gets to read the response when the connection closes: closing on bytes that were
/// not read would reset the connection, and take the response back.
const LINGER: Duration = Duration::from_millis(500);
/// How many bytes such a client may send meanwhile.
const LINGERED: usize = 1 << 20;

/// A stream with its place at the listener and its time limits.
pub struct TimedStream {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// Goes off no later than the connection has to be looked at. Its deadline may have moved to a later moment by then.
    timer: Pin<Box<Sleep>>,
    closing: Closing,
    _place: OwnedSemaphorePermit,
}

/// How far the closing of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// The connection is not closing.
    No,
    /// The client has closed its side, or was given up: nothing more is sent.
    Closed,
    /// Everything was sent; this many bytes have been read since.
    Lingering(usize),
}

impl TimedStream {
    pub fn new(stream: TcpStream, connection: Arc<Connection>, place: OwnedSemaphorePermit) -> Self {
        let until = connection.until().unwrap_or_else(Instant::now);
        let timer = Box::pin(sleep_until(until));
        Self { stream, connection, timer, closing: Closing::No, _place: place }
    }

    /// Ready with an error once the connection's state has lasted too long. Otherwise the timer has it looked at again in
    /// time.
    fn overdue(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.connection.is_upgraded() {
            return Poll::Pending;
        }
        let until = self.connection.until();
        // A state without a deadline may change into one with a deadline before the timer goes off.
        let look = until.unwrap_or_else(|| Instant::now() + self.connection.longest());
        if self.timer.deadline() > look {
            self.timer.as_mut().reset(look);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if until.is_some_and(|until| Instant::now() >= until) {
                self.connection.count_overdue();
                self.closing = Closing::Closed;
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(look);
        }
        Poll::Pending
    }

    /// Reads on for a while what the client still sends.
    fn linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 4 << 10];
        while let Closing::Lingering(read) = self.closing {
            let mut some = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut some) {
                Poll::Ready(Ok(())) if !some.filled().is_empty() && read < LINGERED => {
                    self.closing = Closing::Lingering(read + some.filled().len());
                }
                Poll::Ready(_) => self.closing = Closing::Closed,
                Poll::Pending => return self.timer.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.overdue(context).map(Err),
            Poll::Ready(read) => {
                if read.is_err() || buffer.filled().len() == before {
                    self.closing = Closing::Closed;
                }
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.overdue(context).map(Err),
            ready => ready,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, parts) {
            Poll::Pending => self.overdue(context).map(Err),
            ready => ready,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing == Closing::No {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.closing = Closing::Closed;
            if self.connection.is_sending() {
                self.closing = Closing::Lingering(0);
                self.timer.as_mut().reset(Instant::now() + LINGER);
            }
        }
        ready!(self.linger(context));
        Poll::Ready(Ok(()))
    }
}

/// The stream as HTTP reads it, after decryption: it tells the connection what has come, and holds back what may not come
/// yet.
pub struct Observed<S> {
    stream: S,
    connection: Arc<Connection>,
}

impl<S> Observed<S> {
    pub fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match self.connection.receive_allowance(context.waker()) {
            Some(usize::MAX) => ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?,
            Some(little) => {
                let most = little.min(buffer.remaining());
                let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
                ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
                let count = part.filled().len();
                buffer.advance(count);
            }
            // The client may be known by the time at which more is read.
            None => return Poll::Pending,
        }
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            self.connection.received(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
