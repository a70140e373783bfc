//! The frames on the WebSocket of a terminal.
//!
//! Frames are JSON objects in text messages, told apart by `type`. A client that asks for it (`"mode":"binary"` in
//! `auth`) sends and gets the terminal's bytes as binary messages instead of `input` and `output`; all else stays JSON.
//! In text mode output that is not UTF-8 shows as U+FFFD, see [`super::text::Text`]; binary mode hands it on as it is.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sessiond_core::object::Object;

/// The largest message that a client may send: a paste of ten thousand long lines.
pub const LARGEST: usize = 1 << 20;
/// The most columns and rows. No screen has as many; a larger size is a mistake that costs every program memory.
pub const MOST: u16 = 1_000;
/// The longest token that is looked at.
const LONGEST_TOKEN: usize = 1_024;

/// How the terminal's bytes are sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Text,
    Binary,
}

/// How large a terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    pub cols: u16,
    pub rows: u16,
}

impl Size {
    /// The size of a terminal whose client names none.
    pub const USUAL: Self = Self { cols: 80, rows: 24 };

    /// Makes a size that a terminal can have.
    pub fn new(cols: i64, rows: i64) -> Result<Self, FrameError> {
        let within = |name: &'static str, value: i64| match u16::try_from(value) {
            Ok(value @ 1..=MOST) => Ok(value),
            _ => Err(FrameError::invalid(format!("{name} must be a whole number from 1 to {MOST}"))),
        };
        Ok(Self { cols: within("cols", cols)?, rows: within("rows", rows)? })
    }
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// The first frame of a connection. `after` is how many bytes of output the client has had, and it gets what
    /// follows. A client that does not say it gets what is not known to have arrived, and a full-screen program draws
    /// its screen again. A page that is empty says 0, and gets everything that is still held.
    Auth {
        token: String,
        mode: Mode,
        after: Option<u64>,
    },
    Input(String),
    Resize(Size),
}

/// What a client is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame<'a> {
    /// The answer to `auth`, sent again to a viewer that could not keep up: output goes on after this many bytes.
    /// `lost` of the bytes that were asked for are no longer held.
    Ready {
        position: u64,
        cols: u16,
        rows: u16,
        mode: Mode,
        read_only: bool,
        #[serde(skip_serializing_if = "is_zero")]
        lost: u64,
    },
    Output {
        data: Cow<'a, str>,
    },
    Error {
        code: &'a str,
        message: Cow<'a, str>,
    },
    Disconnect {
        reason: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<Cow<'a, str>>,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for it
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl ServerFrame<'_> {
    pub fn to_json(&self) -> String {
        // Serializing cannot fail: this is plain data.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What is wrong with a frame. The connection goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FrameError {
    pub code: &'static str,
    pub message: Cow<'static, str>,
}

impl FrameError {
    fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: "INVALID_FRAME", message: message.into() }
    }

    /// A client sent a binary message without having asked for the binary mode.
    pub fn not_binary() -> Self {
        Self::invalid(r#"a binary message needs the binary mode: send "mode":"binary" in the auth frame"#)
    }

    /// A client that may only watch sent input or a new size.
    pub fn read_only() -> Self {
        Self {
            code: "READ_ONLY",
            message: "this token may watch only: input and resize are for the writer".into(),
        }
    }

    fn too_large() -> Self {
        Self {
            code: "FRAME_TOO_LARGE",
            message: format!("a message must be at most {LARGEST} bytes: send it in parts").into(),
        }
    }

    /// The frame that tells the client of it.
    pub fn to_frame(&self) -> ServerFrame<'_> {
        ServerFrame::Error { code: self.code, message: Cow::Borrowed(&self.message) }
    }
}

/// Reads a text message. Unknown fields are passed over.
pub fn read(text: &str) -> Result<ClientFrame, FrameError> {
    if text.len() > LARGEST {
        return Err(FrameError::too_large());
    }
    let Object(head): Object<Head<'_>> = serde_json::from_str(text).map_err(|error| {
        if error.is_data() {
            FrameError::invalid("a frame must be an object whose type is a text")
        } else {
            FrameError { code: "INVALID_JSON", message: format!("the message is not JSON: {error}").into() }
        }
    })?;
    match head.kind.as_deref() {
        Some("auth") => {
            let Auth { token, mode, after } = body(text)?;
            if token.is_empty() || token.len() > LONGEST_TOKEN {
                return Err(FrameError::invalid(format!("token must have 1 to {LONGEST_TOKEN} bytes")));
            }
            Ok(ClientFrame::Auth { token, mode, after })
        }
        Some("input") => body::<Input>(text).map(|input| ClientFrame::Input(input.data)),
        Some("resize") => {
            let Resize { cols, rows } = body(text)?;
            Size::new(cols, rows).map(ClientFrame::Resize)
        }
        Some(other) => {
            let shown: String = other.chars().take(40).flat_map(char::escape_default).collect();
            Err(FrameError {
                code: "UNKNOWN_TYPE",
                message: format!("there is no frame of type {shown}: auth, input and resize are known")
                    .into(),
            })
        }
        None => Err(FrameError::invalid("a frame must have a type: auth, input or resize")),
    }
}

/// Checks a binary message, which is input as it is.
pub fn read_binary(mode: Mode, bytes: &[u8]) -> Result<(), FrameError> {
    match mode {
        Mode::Text => Err(FrameError::not_binary()),
        Mode::Binary if bytes.len() > LARGEST => Err(FrameError::too_large()),
        Mode::Binary => Ok(()),
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Auth {
    token: String,
    #[serde(default)]
    mode: Mode,
    after: Option<u64>,
}

#[derive(Deserialize)]
struct Input {
    data: String,
}

#[derive(Deserialize)]
struct Resize {
    cols: i64,
    rows: i64,
}

fn body<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, FrameError> {
    let mut from = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.inner().to_string());
        let what = inner.split(" at line ").next().unwrap_or_default().to_owned();
        FrameError::invalid(if path == "." { what } else { format!("{path}: {what}") })
    })
}
