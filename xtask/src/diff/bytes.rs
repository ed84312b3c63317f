//! Bytes of any size, of which little is in memory at a time.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use crate::wheel::{Cursor, ReadAt};

/// Bytes that are compared at a time.
const PIECE: usize = 1 << 20;
/// Runs of bytes that differ which are remembered, to say in which symbols they are.
const MOST_RUNS: usize = 1 << 20;

/// A part of something that can be read at any offset.
#[derive(Clone)]
pub struct Bytes {
    of: Arc<dyn ReadAt>,
    start: u64,
    size: u64,
}

impl Bytes {
    /// The whole of `of`.
    pub fn all(of: Arc<dyn ReadAt>) -> Self {
        let size = of.size();
        Self { of, start: 0, size }
    }

    /// A part of it: as much of `range` as there is.
    pub fn part(&self, range: Range<u64>) -> Self {
        let (start, end) = (range.start.min(self.size), range.end.min(self.size));
        Self { of: Arc::clone(&self.of), start: self.start + start, size: end.saturating_sub(start) }
    }

    /// All of them; for what is known to be small.
    ///
    /// # Errors
    /// Reading.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Cursor::new(self).take(self.size).read_to_end(&mut out)?;
        Ok(out)
    }
}

impl ReadAt for Bytes {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let n = buffer.len().min(left);
        if n == 0 { Ok(0) } else { self.of.read_at(self.start + offset, &mut buffer[..n]) }
    }
}

/// In what two runs of bytes differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differing {
    /// Offset of the first byte that differs.
    pub first: u64,
    /// How many bytes, up to where the shorter one ends.
    pub count: u64,
    /// Which ones: the first million runs of them.
    pub runs: Vec<Range<u64>>,
}

/// Compares, a piece at a time; `None` where nothing differs.
///
/// # Errors
/// Reading; a source that ends before its size.
pub fn compare(a: &Bytes, b: &Bytes) -> io::Result<Option<Differing>> {
    let both = a.size().min(b.size());
    // Object files have thousands of small sections.
    let piece = usize::try_from(both).unwrap_or(PIECE).min(PIECE);
    let (mut x, mut y) = (vec![0; piece], vec![0; piece]);
    let (mut at, mut out) = (0, Differing::default());
    while at < both {
        let n = crate::wheel::fill(a, at, both, &mut x)?;
        crate::wheel::fill(b, at, both, &mut y)?;
        if x[..n] != y[..n] {
            out.note(at, &x[..n], &y[..n]);
        }
        at += n as u64;
    }
    if out.count == 0 {
        out.first = both;
    }
    Ok((out.count > 0 || a.size() != b.size()).then_some(out))
}

impl Differing {
    fn note(&mut self, at: u64, x: &[u8], y: &[u8]) {
        for (offset, _) in (at..).zip(x.iter().zip(y)).filter(|(_, (x, y))| x != y) {
            if self.count == 0 {
                self.first = offset;
            }
            self.count += 1;
            if let Some(run) = self.runs.last_mut().filter(|run| run.end == offset) {
                run.end += 1;
            } else if self.runs.len() < MOST_RUNS {
                self.runs.push(offset..offset + 1);
            }
        }
    }

    /// Whether some of `range` differs.
    pub fn touches(&self, range: &Range<u64>) -> bool {
        let next = self.runs.partition_point(|run| run.end <= range.start);
        self.runs.get(next).is_some_and(|run| run.start < range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(of: &[u8]) -> Bytes {
        Bytes::all(Arc::new(of.to_vec()))
    }

    #[test]
    fn differences_are_found_wherever_pieces_meet() {
        let a = vec![7; 2 * PIECE + 5];
        let mut b = a.clone();
        for at in [PIECE - 1, PIECE, 2 * PIECE + 4] {
            b[at] = 8;
        }
        let found = compare(&bytes(&a), &bytes(&b)).unwrap().unwrap();
        let (piece, end) = (PIECE as u64, 2 * PIECE as u64 + 5);
        assert_eq!((found.first, found.count), (piece - 1, 3));
        assert_eq!(found.runs, [piece - 1..piece + 1, end - 1..end]);
        assert!(found.touches(&(piece..piece + 1)) && found.touches(&(0..end)));
        assert!(!found.touches(&(0..piece - 1)) && !found.touches(&(piece + 1..end - 1)) && !found.touches(&(0..0)));
        assert_eq!(compare(&bytes(&a), &bytes(&a)).unwrap(), None);
        let longer = compare(&bytes(&a[..9]), &bytes(&a)).unwrap().unwrap();
        assert_eq!((longer.first, longer.count), (9, 0));
    }
}
