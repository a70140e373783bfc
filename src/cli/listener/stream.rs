//! A connection as bytes. Whatever stands above it (TLS, HTTP, a WebSocket), here it takes its place at the listener until
//! it ends, and here it is given up when its state has lasted too long.

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

/// Whoever is in the middle of saying something when the connection closes gets so long to read why: closing on what was
/// not read would take the answer from it.
const LINGER: Duration = Duration::from_millis(500);
/// And may say so much meanwhile.
const LINGERED: usize = 1 << 20;

/// A stream with its place at the listener.
pub struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// Never goes off later than it has to; what it is about may have moved meanwhile.
    timer: Pin<Box<Sleep>>,
    closing: Closing,
    _place: OwnedSemaphorePermit,
}

/// How far a connection is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// It is not.
    No,
    /// The other end has closed, or was given up: nothing more is to be said.
    Over,
    /// All is said; so much more was heard.
    Lingering(usize),
}

impl Watched {
    pub fn new(stream: TcpStream, connection: Arc<Connection>, place: OwnedSemaphorePermit) -> Self {
        let until = connection.until().unwrap_or_else(Instant::now);
        let timer = Box::pin(sleep_until(until));
        Self { stream, connection, timer, closing: Closing::No, _place: place }
    }

    /// Whether the state it is in has lasted too long. Otherwise it is looked at again in time.
    fn overdue(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.connection.is_upgraded() {
            return Poll::Pending;
        }
        let until = self.connection.until();
        // Where nothing has to happen now, it may have to by the time that this goes off.
        let look = until.unwrap_or_else(|| Instant::now() + self.connection.longest());
        if self.timer.deadline() > look {
            self.timer.as_mut().reset(look);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if until.is_some_and(|until| Instant::now() >= until) {
                self.connection.is_overdue();
                self.closing = Closing::Over;
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(look);
        }
        Poll::Pending
    }

    /// Listens to the end of what the other side has to say, for a while.
    fn linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut heap = [0; 4 << 10];
        while let Closing::Lingering(heard) = self.closing {
            let mut some = ReadBuf::new(&mut heap);
            match Pin::new(&mut self.stream).poll_read(context, &mut some) {
                Poll::Ready(Ok(())) if !some.filled().is_empty() && heard < LINGERED => {
                    self.closing = Closing::Lingering(heard + some.filled().len());
                }
                Poll::Ready(_) => self.closing = Closing::Over,
                Poll::Pending => return self.timer.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Watched {
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
                    self.closing = Closing::Over;
                }
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for Watched {
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
            self.closing = Closing::Over;
            if self.connection.is_in_the_middle() {
                self.closing = Closing::Lingering(0);
                self.timer.as_mut().reset(Instant::now() + LINGER);
            }
        }
        ready!(self.linger(context));
        Poll::Ready(Ok(()))
    }
}

/// The same as HTTP and what it is upgraded to hear it, without encryption: tells the connection what has come.
pub struct Heard<S> {
    stream: S,
    connection: Arc<Connection>,
}

impl<S> Heard<S> {
    pub fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match self.connection.may_say(context.waker()) {
            Some(usize::MAX) => ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?,
            Some(little) => {
                let room = little.min(buffer.remaining());
                let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
                ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
                let come = part.filled().len();
                buffer.advance(come);
            }
            // What follows may be said by somebody who is known by then: it waits.
            None => return Poll::Pending,
        }
        let come = &buffer.filled()[before..];
        if !come.is_empty() {
            self.connection.heard(come);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
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
