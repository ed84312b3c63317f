//! What a tar archive may ask of its reader. The headers of an archive can name sizes that its reader
//! keeps in memory, or makes out of nothing: they are read on the way, and what asks for too much ends
//! the reading. Everything else passes as it is.

use std::io::{self, BufRead, Read};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{self, Stream};

/// Most bytes of a long name or of extended headers: paths have 4096.
const MOST_EXTENSION: u64 = 1 << 20;
/// Most bytes of all long names and extended headers of an archive.
const MOST_EXTENSIONS: u64 = 128 << 20;
/// Most members, extensions among them.
const MOST_HEADERS: u64 = 1_000_000;
const BLOCK: usize = 512;

/// Memory for unpacking xz, bytes: `xz -9` asks for 65 MiB of its reader.
const MOST_FOR_XZ: u64 = 128 << 20;

/// Unpacks xz, however many streams, within `MOST_FOR_XZ`.
///
/// # Errors
/// There is no memory for it.
pub fn xz<R: BufRead>(reader: R) -> io::Result<impl Read> {
    let stream = Stream::new_auto_decoder(MOST_FOR_XZ, stream::CONCATENATED)?;
    Ok(Xz(XzDecoder::new_stream(reader, stream)))
}

struct Xz<R: BufRead>(XzDecoder<R>);

impl<R: BufRead> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| match e.get_ref().and_then(|e| e.downcast_ref()) {
            Some(stream::Error::MemLimit) => {
                bad(format!("to unpack it takes more memory than the {MOST_FOR_XZ} bytes that xz may have"))
            }
            _ => e,
        })
    }
}

/// A reader of a tar archive (unpacked already) that watches its headers.
pub struct Guarded<R> {
    inner: R,
    header: Vec<u8>,
    /// Bytes of the current member that are still to come, its padding among them.
    left: u64,
    /// The extended header under way, whose records can change what its member is.
    records: Option<Vec<u8>>,
    headers: u64,
    /// Bytes of long names and extended headers so far.
    extensions: u64,
}

impl<R: Read> Guarded<R> {
    /// Reads a plain tar from `inner`; what breaks a bound ends it with an error.
    pub fn new(inner: R) -> Self {
        Self { inner, header: Vec::with_capacity(BLOCK), left: 0, records: None, headers: 0, extensions: 0 }
    }

    fn watch(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                if let Some(records) = &mut self.records {
                    records.extend_from_slice(&bytes[..n]);
                }
                self.left -= n as u64;
                bytes = &bytes[n..];
                if self.left == 0
                    && let Some(records) = self.records.take()
                {
                    check_records(&records)?;
                }
                continue;
            }
            let n = (BLOCK - self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.header.len() == BLOCK {
                self.take_header()?;
                self.header.clear();
            }
        }
        Ok(())
    }

    fn take_header(&mut self) -> io::Result<()> {
        if self.header.iter().all(|b| *b == 0) {
            return Ok(()); // the end, or its padding
        }
        self.headers += 1;
        if self.headers > MOST_HEADERS {
            return Err(bad(format!("it has more than {MOST_HEADERS} members")));
        }
        let size = number(&self.header[124..136]).ok_or_else(|| bad("a member's size is no number".into()))?;
        let kind = self.header[156];
        if matches!(kind, b'L' | b'K' | b'x' | b'g' | b'X') {
            if size > MOST_EXTENSION {
                return Err(bad(format!(
                    "a name or extended header has {size} bytes; at most {MOST_EXTENSION} are read"
                )));
            }
            self.extensions += size;
            if self.extensions > MOST_EXTENSIONS {
                return Err(bad(format!(
                    "its long names and extended headers have more than {MOST_EXTENSIONS} bytes together"
                )));
            }
        }
        if kind == b'S' {
            return Err(bad("it has a sparse member, whose bytes are not in it".into()));
        }
        self.left = size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
        self.records = (matches!(kind, b'x' | b'X') && size > 0).then(Vec::new);
        Ok(())
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.watch(&buffer[..n])?;
        Ok(n)
    }
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A number of a header: octal digits, or base 256 where the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        // Numbers beyond 64 bits, and negative ones, are no sizes.
        let (high, low) = field.split_at(field.len() - 8);
        let zero = high[0] & 0x7f == 0 && high[1..].iter().all(|b| *b == 0);
        return zero.then(|| low.try_into().ok().map(u64::from_be_bytes)).flatten();
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(|c: char| c == '\0' || c == ' ');
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// Extended headers may not give a member another size than its header, nor bytes that are not there.
fn check_records(records: &[u8]) -> io::Result<()> {
    let has = |key: &[u8]| memchr::memmem::find(records, key).is_some();
    if has(b" GNU.sparse.") {
        return Err(bad("it has a sparse member, whose bytes are not in it".into()));
    }
    if has(b" size=") {
        return Err(bad("an extended header gives a member another size than its header".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<u64> {
        io::copy(&mut Guarded::new(bytes), &mut io::sink())
    }

    fn archive(kind: tar::EntryType, size: u64, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_path("x").unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512) + 1024, 0);
        out
    }

    #[test]
    fn what_would_be_kept_in_memory_or_made_of_nothing_is_refused() {
        assert!(read(&archive(tar::EntryType::Regular, 3, b"abc")).is_ok());
        assert!(read(&archive(tar::EntryType::GNULongName, 10, b"a/long/nam")).is_ok());
        for (kind, size, content, says) in [
            (tar::EntryType::GNULongName, 3 << 30, &b""[..], "at most"),
            (tar::EntryType::GNULongLink, 2 << 20, b"", "at most"),
            (tar::EntryType::XHeader, 2 << 20, b"", "at most"),
            (tar::EntryType::XHeader, 20, b"20 size=99999999999\n", "another size"),
            (tar::EntryType::XHeader, 25, b"25 GNU.sparse.major=1.0 \n", "sparse"),
            (tar::EntryType::GNUSparse, 0, b"", "sparse"),
        ] {
            let e = read(&archive(kind, size, content)).unwrap_err();
            assert!(e.to_string().contains(says), "{kind:?}: {e}");
        }
    }

    #[test]
    fn pieces_of_any_size_are_watched_alike() {
        let bytes = archive(tar::EntryType::XHeader, 20, b"20 size=99999999999\n");
        for piece in [1, 7, 511, 512, 513] {
            let mut reader = Guarded::new(&bytes[..]);
            let mut buffer = vec![0; piece];
            let ended = loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break Ok(()),
                    Ok(_) => {}
                    Err(e) => break Err(e),
                }
            };
            assert!(ended.is_err(), "{piece}");
        }
    }
}
