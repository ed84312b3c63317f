//! Reading at an offset: all that reading wheels, and inspecting, asks of where the bytes are.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::mpsc;

/// Something of known size that can be read at any offset.
pub trait ReadAt: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Reads up to `buffer.len()` bytes at `offset`; fewer at the end, or when it likes.
    ///
    /// # Errors
    /// Whatever reading the source can meet; never for an offset past the end, which reads nothing.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Whether reading the same bytes again costs next to nothing.
    fn is_near(&self) -> bool {
        true
    }

    /// Says that `range` is about to be read from its start on: a remote source asks for just that.
    fn expect(&self, _range: Range<u64>) {}
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|o| self.get(o..)).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buffer)
    }
}

/// A file on disk, read at any place; its size is that of when it was opened.
#[derive(Debug)]
pub struct FileAt {
    file: File,
    size: u64,
}

impl FileAt {
    /// Takes an open file.
    ///
    /// # Errors
    /// If its size cannot be read.
    pub fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }

    /// Copies all of `reader` to a file without a name, which vanishes with the value, showing each
    /// piece to `seen` on the way. Fails where there are more than `limit` bytes. Reading (which unpacks)
    /// and the rest go on side by side.
    ///
    /// # Errors
    /// Reading, writing, or too many bytes ([`io::ErrorKind::FileTooLarge`]).
    pub fn spill(reader: &mut dyn Read, limit: u64, seen: &mut (dyn FnMut(&[u8]) + Send)) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        let size = pump(reader, limit, &mut |piece| {
            seen(piece);
            file.write_all(piece)
        })?;
        Ok(Self { file, size })
    }
}

/// Hands all of `reader` to `sink`, in pieces, and returns how many bytes there were; fails where there
/// are more than `limit` ([`io::ErrorKind::FileTooLarge`]). Reading (which often unpacks) and what the
/// sink does go on side by side.
///
/// # Errors
/// Reading, too many bytes, or what the sink says.
pub fn pump(
    reader: &mut dyn Read,
    limit: u64,
    sink: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
) -> io::Result<u64> {
    const PIECE: usize = 1 << 18;
    let (full, filled) = mpsc::sync_channel::<Vec<u8>>(4);
    // Pieces come back to be filled again.
    let (give_back, empty) = mpsc::channel::<Vec<u8>>();
    std::thread::scope(|scope| {
        let consumer = scope.spawn(|| -> io::Result<()> {
            let (filled, give_back) = (filled, give_back);
            for piece in filled {
                sink(&piece)?;
                let _ = give_back.send(piece);
            }
            Ok(())
        });
        let mut size = 0u64;
        let read = loop {
            let mut piece = empty.try_recv().unwrap_or_default();
            piece.resize(PIECE, 0);
            let n = match read_up_to(reader, &mut piece) {
                Ok(n) => n,
                Err(e) => break Err(e),
            };
            size += n as u64;
            if n == 0 {
                break Ok(size);
            }
            if size > limit {
                break Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
            }
            piece.truncate(n);
            if full.send(piece).is_err() {
                break Ok(size); // the sink failed, and says why
            }
        };
        drop(full);
        consumer.join().unwrap_or_else(|_| Err(io::Error::other("the sink panicked")))?;
        read
    })
}

impl ReadAt for FileAt {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(&self.file, buffer, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(&self.file, buffer, offset);
    }
}

/// `Read` and `Seek` over a [`ReadAt`].
#[derive(Clone)]
pub struct Cursor<'a> {
    source: &'a dyn ReadAt,
    at: u64,
}

impl<'a> Cursor<'a> {
    /// Begins at the start of `source`.
    pub fn new(source: &'a dyn ReadAt) -> Self {
        Self { source, at: 0 }
    }

    /// Goes on at the offset `at`, in bytes from the start.
    pub fn go_to(&mut self, at: u64) {
        self.at = at;
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read_at(self.at, buffer)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.source.size().checked_add_signed(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
        };
        self.at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a seek before the start"))?;
        Ok(self.at)
    }
}

/// Reads exactly `length` bytes at `offset`; `None` where they are not all there, or are more than
/// fits in memory with good manners.
pub fn slice(source: &dyn ReadAt, offset: u64, length: u64) -> Option<Vec<u8>> {
    const MOST: u64 = 64 << 20;
    if length > MOST || offset.checked_add(length)? > source.size() {
        return None;
    }
    let mut out = vec![0u8; usize::try_from(length).ok()?];
    fill(source, offset, offset + length, &mut out).ok()?;
    Some(out)
}

/// Fills `buffer` from `at` on, up to `end`; returns how much there was.
///
/// # Errors
/// Reading; a source that ends before `end`, where the buffer has room for more.
pub fn fill(source: &dyn ReadAt, at: u64, end: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let room = buffer.len().min(usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX));
    let mut done = 0;
    while done < room {
        match source.read_at(at + done as u64, &mut buffer[done..room])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(done)
}

/// Reads until `buffer` is full or the reader ends; returns how much there was.
///
/// # Errors
/// Reading.
pub fn read_up_to(file: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..])? {
            0 => break,
            m => n += m,
        }
    }
    Ok(n)
}

/// The number at `at` of a header, least significant byte first; 0 where the header ends before it.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

/// As [`u16_at`].
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// As [`u16_at`].
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}
