//! A reader of server-sent events.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::Value;

use super::Holder;

/// One event of a feed.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub id: Option<i64>,
    pub event: String,
    pub data: Value,
}

/// An open feed.
pub struct Feed {
    bytes: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Feed {
    /// Opens a feed, from a position on if one is given.
    pub async fn open(holder: &Holder, path: &str, after: Option<i64>) -> Self {
        let mut request = reqwest::Client::new().get(format!("{}{path}", holder.base));
        if let Some(token) = &holder.token {
            request = request.bearer_auth(token);
        }
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{:?}", response.text().await);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { bytes: response.bytes_stream().boxed(), text: String::new() }
    }

    /// The next event; `None` when the stream has ended. Fails after ten seconds of nothing.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                if let Some(frame) = parse(&block) {
                    return Some(frame);
                }
            }
            let more = tokio::time::timeout(Duration::from_secs(10), self.bytes.next());
            match more.await.expect("nothing came for ten seconds") {
                Some(Ok(bytes)) => self.text.push_str(std::str::from_utf8(&bytes).unwrap()),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next event of this name, passing over others.
    pub async fn next_named(&mut self, name: &str) -> Frame {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if frame.event == name {
                return frame;
            }
        }
    }

    /// All events until the stream ends.
    pub async fn rest(mut self) -> Vec<Frame> {
        let mut frames = vec![];
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}

fn parse(block: &str) -> Option<Frame> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let event = field("event")?.to_owned();
    Some(Frame {
        id: field("id").map(|id| id.parse().unwrap()),
        event,
        data: serde_json::from_str(field("data").unwrap_or("null")).unwrap(),
    })
}
