//! A file on a server, read by ranges (RFC 9110, section 14): only the bytes that are asked for
//! cross the network. Where the server knows no ranges, the file is fetched whole, once.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use ureq::Agent;

use crate::error::{Error, Result};
use crate::source::{http_body, http_get};
use crate::wheel::{FileAt, ReadAt};

/// Bytes asked for where nobody said how many will be needed.
const WINDOW: u64 = 64 << 10;
/// How often a cut connection is tried again.
const ATTEMPTS: u32 = 4;
/// Largest file that is fetched whole.
const LARGEST_WHOLE: u64 = 8 << 30;

/// A file on a server.
pub struct Remote {
    agent: Agent,
    url: String,
    size: u64,
    /// Where the server knows no ranges.
    whole: Option<FileAt>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// An answer under way: where its next byte belongs, where it ends, and the bytes.
    stream: Option<(u64, u64, Box<dyn Read + Send + Sync>)>,
    /// The bytes that came last, and where they belong: a reader of an archive looks at a header, and then goes on a
    /// little behind it.
    recent: (u64, Vec<u8>),
    expected: Vec<Range<u64>>,
    received: u64,
}

impl Remote {
    /// Opens the file at `url`: asks for its end, where an archive's directory is.
    ///
    /// # Errors
    /// If the server cannot be reached, says no, or sends a web page.
    pub fn open(agent: Agent, url: &str) -> Result<Self> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(std::time::Duration::from_millis(200 << attempt));
            }
            crate::platform::check_cancelled()?;
            let asked = http_get(&agent, url)
                .header("Accept-Encoding", "identity")
                .header("Range", format!("bytes=-{WINDOW}"))
                .call();
            let response = match asked {
                Ok(response) => response,
                Err(e @ (ureq::Error::BadUri(_) | ureq::Error::TooManyRedirects)) => {
                    return Err(Error::misuse("url", format!("{url}: {e}")));
                }
                Err(e @ ureq::Error::RequireHttpsOnly(_)) => {
                    return Err(Error::world("https", format!("{url} leads from https to plain http: {e}"))
                        .next("use an address that stays with https"));
                }
                Err(e) => {
                    last = e.to_string();
                    continue;
                }
            };
            let status = response.status().as_u16();
            let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
            if header("content-type").is_some_and(|t| t.starts_with("text/html")) && matches!(status, 200 | 206) {
                return Err(Error::misuse("web-page", format!("{url} is a web page, not a file"))
                    .next("use the address of the file itself: on an index's page it is what the link leads to"));
            }
            match status {
                206 => {
                    let range = header("content-range").unwrap_or_default();
                    let parsed = range.strip_prefix("bytes ").and_then(|r| {
                        let (part, size) = r.split_once('/')?;
                        let (start, end) = part.split_once('-')?;
                        Some((start.parse::<u64>().ok()?, end.parse::<u64>().ok()?, size.parse::<u64>().ok()?))
                    });
                    let Some((start, end, size)) = parsed.filter(|(s, e, n)| s <= e && e < n) else {
                        last = format!("the server's Content-Range '{range}' cannot be read");
                        continue;
                    };
                    let body = http_body(response, u64::MAX);
                    let state = State { stream: Some((start, end + 1, Box::new(body))), ..State::default() };
                    return Ok(Self { agent, url: url.to_owned(), size, whole: None, state: Mutex::new(state) });
                }
                200 => {
                    let mut body = http_body(response, u64::MAX);
                    match FileAt::spill(&mut body, LARGEST_WHOLE, &mut |_| {}) {
                        Ok(file) => {
                            let state = State { received: file.size(), ..State::default() };
                            let (size, whole) = (file.size(), Some(file));
                            return Ok(Self { agent, url: url.to_owned(), size, whole, state: Mutex::new(state) });
                        }
                        Err(e) => last = e.to_string(),
                    }
                }
                416 => return Err(Error::misuse("empty", format!("{url} is empty"))),
                408 | 425 | 429 | 500..=599 => last = format!("HTTP {status}"),
                _ => {
                    return Err(Error::world("http", format!("{url}: the server answers HTTP {status}"))
                        .next("check the address, and whether the server wants you to log in"));
                }
            }
        }
        Err(Error::world("http", format!("{url}: {last}")).next("check the network, and try again"))
    }

    /// Bytes that came over the network so far, headers not counted.
    pub fn received(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).received
    }

    fn ask(&self, start: u64, end: u64) -> io::Result<Box<dyn Read + Send + Sync>> {
        let response = http_get(&self.agent, &self.url)
            .header("Accept-Encoding", "identity")
            .header("Range", format!("bytes={start}-{}", end - 1))
            .call()
            .map_err(io::Error::other)?;
        let range = response.headers().get("content-range").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let right = range.starts_with(&format!("bytes {start}-")) && range.ends_with(&format!("/{}", self.size));
        if response.status().as_u16() != 206 || !right {
            let what = format!("HTTP {} '{range}' where bytes from {start} were asked for", response.status().as_u16());
            return Err(io::Error::other(what));
        }
        Ok(Box::new(http_body(response, end - start)))
    }
}

impl ReadAt for Remote {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(whole) = &self.whole {
            return whole.read_at(offset, buffer);
        }
        if offset >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, bytes) = &state.recent;
        if let Some(known) = offset.checked_sub(*start).and_then(|i| bytes.get(usize::try_from(i).ok()?..))
            && !known.is_empty()
        {
            let n = known.len().min(buffer.len());
            buffer[..n].copy_from_slice(&known[..n]);
            return Ok(n);
        }
        let mut last = io::Error::other("no attempt was made");
        for attempt in 0..ATTEMPTS {
            if crate::platform::cancelled() {
                return Err(io::Error::from(io::ErrorKind::Interrupted).kind().into());
            }
            if !state.stream.as_ref().is_some_and(|(at, end, _)| *at == offset && *at < *end) {
                if attempt > 0 {
                    std::thread::sleep(std::time::Duration::from_millis(200 << attempt));
                }
                let hint = state.expected.iter().find(|r| r.contains(&offset)).map(|r| r.end);
                let end = hint.unwrap_or(offset.saturating_add(WINDOW.max(buffer.len() as u64))).min(self.size);
                match self.ask(offset, end) {
                    Ok(stream) => state.stream = Some((offset, end, stream)),
                    Err(e) => {
                        last = e;
                        continue;
                    }
                }
            }
            let Some((at, _, stream)) = &mut state.stream else { continue };
            match stream.read(buffer) {
                Ok(0) => last = io::Error::new(io::ErrorKind::UnexpectedEof, "the server cut the answer short"),
                Ok(n) => {
                    *at += n as u64;
                    state.received += n as u64;
                    state.recent.0 = offset;
                    state.recent.1.clear();
                    state.recent.1.extend_from_slice(&buffer[..n]);
                    return Ok(n);
                }
                Err(e) => last = e,
            }
            state.stream = None;
        }
        Err(io::Error::new(last.kind(), format!("{}: {last}", self.url)))
    }

    fn is_near(&self) -> bool {
        self.whole.is_some()
    }

    fn expect(&self, range: Range<u64>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The latest word counts, and a few words are enough.
        state.expected.insert(0, range);
        state.expected.truncate(4);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_file_of_any_size_has_an_end() {
        const SIZE: u64 = u64::MAX - 1;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/demo.whl", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
                let range = format!("Content-Range: bytes {}-{}/{SIZE}", SIZE - 4, SIZE - 1);
                let head = format!("HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Length: 4\r\n{range}");
                let _ = write!(stream, "{head}\r\n\r\nlast");
            }
        });
        let remote = Remote::open(crate::source::http_agent(), &url).unwrap();
        let mut bytes = [0; 22];
        assert_eq!(remote.read_at(SIZE - 4, &mut bytes).unwrap(), 4);
        // It sends its last four bytes, whatever it is asked for.
        assert!(remote.read_at(SIZE - 22, &mut bytes).is_err());
    }
}
