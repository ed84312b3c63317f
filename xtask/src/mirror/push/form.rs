//! The form of the upload API: the fields of METADATA that servers ask for, then the file. The file is
//! streamed, never held.

use std::io::{Cursor, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::event::{Event, Sink};
use crate::mirror::wheel::Wheel;
use crate::wheel::Metadata;

/// A form with one file.
pub struct Form {
    boundary: String,
    head: Vec<u8>,
    tail: Vec<u8>,
    size: u64,
    sha256: String,
    filename: String,
}

/// Why a form does not come to its end: the file is not the one that was looked at.
#[derive(Debug)]
pub struct Changed;

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it changed while it was sent")
    }
}

impl std::error::Error for Changed {}

impl Form {
    /// The form for a wheel.
    pub fn new(wheel: &Wheel) -> Self {
        // Its own digest: a file cannot hold its own SHA-256.
        let boundary = format!("torchmill-{}", &wheel.sha256[..32]);
        let metadata = Metadata::lenient(&String::from_utf8_lossy(&wheel.metadata));
        let mut head = Vec::new();
        let mut field = |name: &str, value: &str| {
            let part = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            head.extend_from_slice(part.as_bytes());
        };
        field(":action", "file_upload");
        field("protocol_version", "1");
        field("filetype", "bdist_wheel");
        field("pyversion", &wheel.name.python);
        field("sha256_digest", &wheel.sha256);
        // What METADATA says, under the names that the API has for it.
        for (key, value) in metadata.iter() {
            let name = match key.to_ascii_lowercase().as_str() {
                "metadata-version" | "name" | "version" | "summary" | "requires-python" | "license" | "home-page" => {
                    key.to_ascii_lowercase().replace('-', "_")
                }
                "classifier" => "classifiers".to_owned(),
                "requires-dist" => "requires_dist".to_owned(),
                _ => continue,
            };
            // Of a licence's whole text, the first line.
            field(&name, value.lines().next().unwrap_or_default());
        }
        let file = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{}\"\r\nContent-Type: application/octet-stream\r\n\r\n",
            wheel.filename
        );
        head.extend_from_slice(file.as_bytes());
        let tail = format!("\r\n--{boundary}--\r\n").into_bytes();
        let (sha256, filename) = (wheel.sha256.clone(), wheel.filename.clone());
        Self { boundary, head, tail, size: wheel.size, sha256, filename }
    }

    /// The request's content type, with the boundary (RFC 7578).
    pub fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// Bytes of the whole body: what `Content-Length` says.
    pub fn length(&self) -> u64 {
        self.head.len() as u64 + self.size + self.tail.len() as u64
    }

    /// The body, read from the wheel at `path` while it is sent: a wheel may be larger than memory. Where that is another
    /// file than the one that was looked at, it ends with the error [`Changed`], before its last line.
    ///
    /// # Errors
    /// Whatever keeps the wheel from being opened.
    pub fn open<'e>(&self, path: &Path, events: &'e dyn Sink) -> std::io::Result<impl Read + 'e> {
        let file = Watched {
            inner: std::fs::File::open(path)?.take(self.size),
            hash: Sha256::new(),
            sha256: self.sha256.clone(),
            sent: 0,
            shown: 0,
            name: self.filename.clone(),
            events,
        };
        Ok(Cursor::new(self.head.clone()).chain(file).chain(Cursor::new(self.tail.clone())))
    }
}

/// Tells how far a file is read, and holds it against its SHA-256.
struct Watched<'e, R> {
    inner: R,
    hash: Sha256,
    sha256: String,
    sent: u64,
    shown: u64,
    name: String,
    events: &'e dyn Sink,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.sent += n as u64;
        self.hash.update(&buffer[..n]);
        if n == 0 && !buffer.is_empty() && hex::encode(self.hash.clone().finalize()) != self.sha256 {
            return Err(std::io::Error::other(Changed));
        }
        if n == 0 || self.sent - self.shown > 1 << 18 {
            self.shown = self.sent;
            self.events.emit(Event::DownloadProgress { file: self.name.clone(), bytes: self.sent });
        }
        Ok(n)
    }
}
