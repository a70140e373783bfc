//! The bytes of an export: lines or rows, and the manifest by which whoever has them can tell that they are all.

use std::io::{self, Write};

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::{Value, json};
use sessiond_core::ids::Position;
use sha2::{Digest, Sha256};

use super::ExportFormat;
use super::source::Page;
use crate::error::Error;

/// What is sent so far.
pub struct File {
    format: ExportFormat,
    columns: &'static [(&'static str, &'static str)],
    out: Out,
    /// What the page at hand has made, before it is compressed.
    text: Vec<u8>,
    sha256: Sha256,
    count: u64,
    position: Position,
}

enum Out {
    Plain,
    Gzip(GzEncoder<Vec<u8>>),
}

impl File {
    pub fn begin(
        format: ExportFormat,
        columns: &'static [(&'static str, &'static str)],
        gzip: bool,
    ) -> Result<Self, Error> {
        let out = match gzip {
            true => Out::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            false => Out::Plain,
        };
        let (text, sha256) = (Vec::new(), Sha256::new());
        let mut file = Self { format, columns, out, text, sha256, count: 0, position: Position(0) };
        if format == ExportFormat::Csv {
            file.row(columns.iter().map(|(name, _)| *name)).map_err(|_| Error::Busy)?;
        }
        Ok(file)
    }

    /// Adds a page; returns what is to be sent.
    pub fn page(&mut self, page: &Page, position: Position) -> io::Result<Bytes> {
        match page {
            Page::Sessions(sessions) => sessions.iter().try_for_each(|one| self.one(one))?,
            Page::Events(events) => events.iter().try_for_each(|one| self.one(one))?,
        }
        self.position = position;
        self.sha256.update(&self.text);
        self.send(false)
    }

    /// Adds the manifest, after at least one page; returns what is still to be sent.
    pub fn end(mut self) -> io::Result<Bytes> {
        let manifest = json!({
            "count": self.count,
            "position": self.position,
            "sha256": hex::encode(std::mem::take(&mut self.sha256).finalize()),
        });
        match self.format {
            ExportFormat::Ndjson => {
                serde_json::to_writer(&mut self.text, &json!({ "manifest": manifest }))?;
                self.text.push(b'\n');
            }
            ExportFormat::Csv => {
                let mut cells = vec![String::new(); self.columns.len()];
                cells[..2].clone_from_slice(&["#manifest".to_owned(), manifest.to_string()]);
                self.row(cells.iter().map(String::as_str))?;
            }
        }
        self.send(true)
    }

    fn one(&mut self, item: &impl Serialize) -> io::Result<()> {
        self.count += 1;
        if self.format == ExportFormat::Ndjson {
            serde_json::to_writer(&mut self.text, item)?;
            self.text.push(b'\n');
            return Ok(());
        }
        let item = serde_json::to_value(item)?;
        let cells: Vec<_> = self.columns.iter().map(|(_, place)| cell(item.pointer(place))).collect();
        self.row(cells.iter().map(String::as_str))
    }

    fn row<'cell>(&mut self, cells: impl Iterator<Item = &'cell str>) -> io::Result<()> {
        let mut writer =
            csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(&mut self.text);
        writer.write_record(cells)?;
        writer.flush()
    }

    fn send(&mut self, last: bool) -> io::Result<Bytes> {
        let text = std::mem::take(&mut self.text);
        match &mut self.out {
            Out::Plain => Ok(text.into()),
            Out::Gzip(encoder) => {
                encoder.write_all(&text)?;
                if last {
                    encoder.try_finish()?;
                } else {
                    encoder.flush()?;
                }
                Ok(std::mem::take(encoder.get_mut()).into())
            }
        }
    }
}

/// What stands in a table for a value.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => defused(text),
        Some(other) => other.to_string(),
    }
}

/// A text that no spreadsheet takes for a formula (OWASP, CSV Injection).
fn defused(text: &str) -> String {
    let dangerous = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    if dangerous { format!("'{text}") } else { text.to_owned() }
}
