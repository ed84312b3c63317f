//! Bodies that the kernel sends from memory that it has (`sendfile(2)`): a page of 50 KB is not copied for each client.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::{Arc, Mutex, Weak};

use axum::body::Bytes;
use tokio::net::TcpStream;

use crate::platform;

/// Smaller ones are sooner copied than sent by a call of their own.
const LEAST: usize = 16 << 10;

/// Bytes of all bodies in one file of memory, and such files at a time: bodies may be many, and a client that stands
/// still in the middle of one keeps its file.
const MOST: u64 = 4 << 20;
const MOST_FILES: usize = 8;

/// Where bodies are put.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Files>);

#[derive(Debug, Default)]
struct Files {
    /// The one that is filled, and how far it is.
    filled: Option<(Arc<File>, u64)>,
    /// All that are still there.
    all: Vec<Weak<File>>,
}

impl Memory {
    /// Has the kernel keep `bytes`; `None` for few and for very many, where there is no such file, or where all are in
    /// use. A file goes when the last body in it does.
    pub fn keep(&self, bytes: &Bytes) -> Option<ByKernel> {
        let size = bytes.len() as u64;
        if bytes.len() < LEAST || size > MOST {
            return None;
        }
        let mut files = self.0.lock().ok()?;
        let (file, start) = match files.filled.take() {
            Some((file, end)) if end + size <= MOST => (file, end),
            full => {
                drop(full);
                files.all.retain(|file| file.strong_count() > 0);
                if files.all.len() >= MOST_FILES {
                    return None;
                }
                let file = Arc::new(platform::memory_file().ok()?);
                files.all.push(Arc::downgrade(&file));
                (file, 0)
            }
        };
        // Nobody reads it by its position, which is where it ends.
        (&*file).write_all(bytes).ok()?;
        files.filled = Some((Arc::clone(&file), start + size));
        Some(ByKernel { bytes: bytes.clone(), file, start })
    }
}

/// A body, and where the same is in a file of memory.
#[derive(Debug, Clone)]
pub struct ByKernel {
    bytes: Bytes,
    file: Arc<File>,
    start: u64,
}

impl ByKernel {
    /// Whether the last of `slices` are bytes of this body.
    pub fn is_in(&self, slices: &[IoSlice<'_>]) -> bool {
        slices.last().is_some_and(|last| self.offset(last).is_some())
    }

    /// Writes to `socket` as much of `slices` as it takes, the last of which [are](Self::is_in) this body's. What stands
    /// before them waits in the kernel for the body.
    ///
    /// # Errors
    /// `InvalidInput` for slices of others; whatever writing meets.
    pub fn write(&self, socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let (last, before) = slices.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let at = self.start + self.offset(last).ok_or(io::ErrorKind::InvalidInput)?;
        let mut written = 0;
        // What was written counts; the next call meets what went wrong after it.
        let so_far = |written, e| if written == 0 { Err(e) } else { Ok(written) };
        for head in before.iter().filter(|head| !head.is_empty()) {
            match platform::send_more(socket, head) {
                Ok(n) if n == head.len() => written += n,
                Ok(n) => return Ok(written + n),
                Err(e) => return so_far(written, e),
            }
        }
        match platform::send_of(socket, &self.file, at, last.len()) {
            Ok(n) => Ok(written + n),
            Err(e) => so_far(written, e),
        }
    }

    /// Whether what was just written of `slices`, so many bytes, reaches this body's end.
    pub fn is_done(&self, slices: &[IoSlice<'_>], written: usize) -> bool {
        let all = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let ends = |last: &IoSlice<'_>| last.as_ptr_range().end == self.bytes.as_ptr_range().end;
        written == all && slices.last().is_some_and(ends)
    }

    /// Where in this body `slice` is, if it is a part of it: of these bytes, not of bytes that are equal.
    fn offset(&self, slice: &[u8]) -> Option<u64> {
        let start = (slice.as_ptr() as usize).checked_sub(self.bytes.as_ptr() as usize)?;
        let is_part = !slice.is_empty() && start.checked_add(slice.len())? <= self.bytes.len();
        is_part.then_some(start as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_stands_before_a_body_and_any_part_of_it_arrive_as_they_are() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i / 3) as u8).collect();
        let body = Bytes::from(bytes.clone());
        let memory = Memory::default();
        memory.keep(&Bytes::from(vec![1; 20_000])).unwrap();
        let kept = memory.keep(&body).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = TcpStream::from_std(ours).unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
            all
        });
        let first = kept.write(&ours, &[IoSlice::new(b"he"), IoSlice::new(b"ad"), IoSlice::new(&body)]).unwrap();
        let mut rest = &body[first - 4..];
        while !rest.is_empty() {
            match kept.write(&ours, &[IoSlice::new(b""), IoSlice::new(rest)]) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
        }
        // What is equal and is not this body, what reaches beyond it, and what is small, is not the kernel's.
        assert!(kept.is_in(&[IoSlice::new(b"head"), IoSlice::new(&body)]));
        for others in [&[IoSlice::new(&bytes)][..], &[]] {
            assert!(!kept.is_in(others));
            assert_eq!(kept.write(&ours, others).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert!(memory.keep(&body.slice(..100)).is_none());
        let part = memory.keep(&body.slice(10..90_000)).unwrap();
        assert!(part.offset(&body[..20]).is_none() && part.offset(&body[89_990..]).is_none());
        assert_eq!((part.offset(&body[20..30]), part.start), (Some(10), 120_000));
        let slices = [IoSlice::new(b"head"), IoSlice::new(&body)];
        assert!(kept.is_done(&slices, 100_004) && !kept.is_done(&slices, 100_003) && !part.is_done(&slices, 100_004));
        // A file that is full is followed by another one, of which there are only so many as long as they are in use.
        let large = Bytes::from(vec![2; 4 << 20]);
        let mut held: Vec<ByKernel> = std::iter::from_fn(|| memory.keep(&large)).take(100).collect();
        assert!(held.iter().all(|k| k.start == 0 && !Arc::ptr_eq(&k.file, &kept.file)));
        assert_eq!(held.len(), MOST_FILES - 1);
        held.pop();
        assert!(memory.keep(&large).is_some());
        drop(ours);
        assert_eq!(reader.join().unwrap(), [&b"head"[..], &bytes].concat());
    }
}
