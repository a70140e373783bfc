//! One keep-alive connection, and an HTTP client that does no more than the rows need.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    head: Head,
    /// Where the next chunk's length stands, of a body in chunks.
    chunk: usize,
}

#[derive(Default)]
struct Head {
    status: u16,
    /// Bytes until the body.
    length: usize,
    /// Of the body; `None`: it comes in chunks.
    body: Option<usize>,
}

/// An answer, as it came: a body in chunks still has their lengths in it.
pub struct Answer<'a> {
    pub status: u16,
    pub head: &'a [u8],
    pub body: &'a [u8],
    chunked: bool,
}

impl Answer<'_> {
    /// A header's value, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(self.head);
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    /// The body, put together.
    pub fn whole(&self) -> Vec<u8> {
        if !self.chunked {
            return self.body.to_vec();
        }
        let (mut whole, mut at) = (vec![], 0);
        while let Some((from, length)) = chunk(self.body, at).filter(|(_, length)| *length > 0) {
            whole.extend_from_slice(&self.body[from..from + length]);
            at = from + length + 2;
        }
        whole
    }
}

impl Connection {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4_096), head: Head::default(), chunk: 0 })
    }

    /// Sends a request and returns the answer's body. Anything but a success is an error.
    pub async fn call(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        let answer = self.exchange(request).await?;
        if !(200..300).contains(&answer.status) {
            bail!("answered with {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        }
        Ok(answer.body)
    }

    /// Sends a request and returns the answer, whatever it is.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.send(request).await?;
        ensure!(self.rest().await?, "the server hung up");
        let (head, body) = self.buffer.split_at(self.head.length);
        Ok(Answer { status: self.head.status, head, body, chunked: self.head.body.is_none() })
    }

    /// Sends a request and waits for the head of the answer: its status.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        self.head = loop {
            ensure!(self.receive().await?, "the server hung up");
            if let Some(head) = Head::read(&self.buffer) {
                break head;
            }
        };
        self.chunk = self.head.length;
        Ok(self.head.status)
    }

    /// Waits until a text has come in the body.
    pub async fn until(&mut self, text: &[u8]) -> anyhow::Result<()> {
        while !contains(&self.buffer[self.head.length..], text) {
            ensure!(self.receive().await?, "the server hung up");
        }
        Ok(())
    }

    /// Reads the answer to its end: whether it was ended, and not broken off.
    pub async fn rest(&mut self) -> anyhow::Result<bool> {
        while !self.ended() {
            if !self.receive().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether all of the body has come.
    fn ended(&mut self) -> bool {
        if let Some(body) = self.head.body {
            return self.buffer.len() >= self.head.length + body;
        }
        while let Some((from, length)) = chunk(&self.buffer, self.chunk) {
            // What follows the last chunk, and any other, is an empty line.
            let next = from + length + 2;
            if length == 0 || next > self.buffer.len() {
                return length == 0 && next <= self.buffer.len();
            }
            self.chunk = next;
        }
        false
    }

    async fn receive(&mut self) -> anyhow::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

/// The chunk whose length stands here: where it begins, and that length. `None` until the length has come.
fn chunk(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let line = bytes.get(at..)?;
    let end = line.iter().position(|byte| *byte == b'\n')?;
    let digits = line[..end].split(|byte| matches!(byte, b'\r' | b';')).next()?;
    let length = usize::from_str_radix(std::str::from_utf8(digits).ok()?.trim(), 16).ok()?;
    Some((at + end + 1, length))
}

pub fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Bytes with the first occurrence of a text replaced.
pub fn replaced(bytes: &[u8], text: &[u8], by: &[u8]) -> Vec<u8> {
    let at = bytes.windows(text.len()).position(|window| window == text).expect("it is in there");
    [&bytes[..at], by, &bytes[at + text.len()..]].concat()
}

impl Head {
    /// `None` until all of it has come.
    fn read(bytes: &[u8]) -> Option<Self> {
        let length = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
        let mut body = Some(0);
        for line in bytes[..length].split(|byte| *byte == b'\n') {
            if line.len() > 15 && line[..15].eq_ignore_ascii_case(b"content-length:") {
                body = Some(std::str::from_utf8(&line[15..]).ok()?.trim().parse().ok()?);
            } else if line.len() > 18 && line[..18].eq_ignore_ascii_case(b"transfer-encoding:") {
                body = None;
            }
        }
        Some(Self { status, length, body })
    }
}

/// Runs on a runtime of this thread alone.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// One request on a connection of its own, answered with JSON.
pub fn ask(address: SocketAddr, request: &[u8]) -> anyhow::Result<Value> {
    block_on(async {
        let mut connection = Connection::open(address).await?;
        Ok(serde_json::from_slice(connection.call(request).await?)?)
    })
}

/// The bytes of a request; no authorization where that is empty.
pub fn request(line: &str, authorization: &str, content: Option<(&str, &str)>) -> Vec<u8> {
    let (kind, body) = content.unwrap_or_default();
    let header = |name: &str, value: &str| match value {
        "" => String::new(),
        value => format!("{name}: {value}\r\n"),
    };
    let (authorization, kind) = (header("authorization", authorization), header("content-type", kind));
    format!(
        "{line} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: python-httpx/0.28.1\r\naccept: */*\r\n\
         {authorization}{kind}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
