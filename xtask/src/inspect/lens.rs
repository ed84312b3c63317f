//! A view of a file for the parser of its headers and tables, which keeps what it was shown, and of which there is a
//! bound: a table that claims to be huge ends in an error and not in the machine's memory.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;

use object::ReadRef;

use crate::wheel::{ReadAt, fill};

/// Bytes that parsing one library may read: many times what a real one needs.
pub(super) const READ_BUDGET: u64 = 192 << 20;
/// Bytes that are read at least.
const PAGE: u64 = 4 << 10;
/// Most bytes of a name in a table; those that C++ templates make have a few thousand.
const LONGEST_NAME: u64 = 64 << 10;

/// A view of a file that ends where its bound is: [`Lens::is_full`] says so.
pub struct Lens<'a> {
    source: &'a dyn ReadAt,
    /// Bytes that may still be read.
    left: Cell<u64>,
    /// What was read, in its order: each stays where it is, so that the parser can refer to it.
    kept: Vec<OnceCell<Vec<u8>>>,
    /// Which of them begins where, and how many there are.
    places: RefCell<(BTreeMap<u64, usize>, usize)>,
}

impl<'a> Lens<'a> {
    /// Of `source`, of which at most `most` bytes are kept.
    pub fn new(source: &'a dyn ReadAt, most: u64) -> Self {
        // Twice as many as there are pages, for those that are read again as the beginning of something longer.
        let pieces = 64 + 2 * most.min(source.size()) / PAGE;
        let kept = (0..pieces).map(|_| OnceCell::new()).collect();
        Self { source, left: Cell::new(most), kept, places: RefCell::default() }
    }

    /// Whether something was not shown because it would have been too much.
    pub fn is_full(&self) -> bool {
        self.left.get() == 0
    }

    /// What is kept from `at` on, if it is at least `least` bytes.
    fn kept(&self, at: u64, least: u64) -> Option<&[u8]> {
        let (start, i) = self.places.borrow().0.range(..=at).next_back().map(|(start, i)| (*start, *i))?;
        let rest = self.kept.get(i)?.get()?.get(usize::try_from(at - start).ok()?..)?;
        (rest.len() as u64 >= least).then_some(rest)
    }

    /// At least `least` bytes from `at` on.
    fn show(&self, at: u64, least: u64) -> Option<&[u8]> {
        let size = self.source.size();
        let end = at.checked_add(least).filter(|end| *end <= size)?;
        if let Some(kept) = self.kept(at, least) {
            return Some(kept);
        }
        let (start, end) = (at / PAGE * PAGE, end.checked_next_multiple_of(PAGE)?.min(size));
        let i = self.places.borrow().1;
        let room = self.left.get().checked_sub(end - start);
        let (Some(left), Some(place)) = (room, self.kept.get(i)) else {
            self.left.set(0);
            return None;
        };
        self.left.set(left);
        let mut bytes = vec![0; usize::try_from(end - start).ok()?];
        fill(self.source, start, end, &mut bytes).ok()?;
        let bytes = place.get_or_init(|| bytes);
        let (places, count) = &mut *self.places.borrow_mut();
        *count += 1;
        // What is in this one is looked for in this one; the others stay for who refers to them.
        let is_in_it = |(at, i): &(&u64, &usize)| self.kept[**i].get().is_none_or(|b| **at + b.len() as u64 <= end);
        let within: Vec<u64> = places.range(start..end).filter(is_in_it).map(|(at, _)| *at).collect();
        for at in within {
            places.remove(&at);
        }
        places.insert(start, i);
        bytes.get(usize::try_from(at - start).ok()?..)
    }
}

impl<'l> ReadRef<'l> for &'l Lens<'_> {
    fn len(self) -> Result<u64, ()> {
        Ok(self.source.size())
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'l [u8], ()> {
        if size == 0 {
            return Ok(&[]);
        }
        let bytes = self.show(offset, size).ok_or(())?;
        bytes.get(..usize::try_from(size).map_err(drop)?).ok_or(())
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'l [u8], ()> {
        let most = range.end.min(self.source.size()).checked_sub(range.start).ok_or(())?.min(LONGEST_NAME);
        // Mostly the name is in what was read already, or on its page.
        for least in [1.min(most), PAGE.min(most), most] {
            let bytes = self.show(range.start, least).ok_or(())?;
            let bytes = &bytes[..bytes.len().min(usize::try_from(most).map_err(drop)?)];
            if let Some(end) = memchr::memchr(delimiter, bytes) {
                return Ok(&bytes[..end]);
            }
        }
        Err(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lens_shows_what_is_there_and_keeps_no_more_than_it_may() {
        let text = [&b"one\0two\0"[..], &vec![b'x'; 100_000], b"\0end\0"].concat();
        let lens = Lens::new(&text, 1 << 20);
        let end = text.len() as u64;
        assert_eq!((&lens).read_bytes_at(4, 3), Ok(&b"two"[..]));
        assert_eq!((&lens).read_bytes_at_until(0..end, 0), Ok(&b"one"[..]));
        assert_eq!((&lens).read_bytes_at_until(end - 4..end, 0), Ok(&b"end"[..]));
        assert_eq!((&lens).read_bytes_at_until(8..end, 0), Err(()), "a name of 100,000 bytes");
        assert_eq!((&lens).read_bytes_at(end - 1, 2), Err(()));
        assert_eq!((&lens).read_bytes_at(u64::MAX, 2), Err(()));
        assert!(!lens.is_full());
        assert_eq!((&lens).read_bytes_at(0, end).map(<[u8]>::len), Ok(text.len()));
        let bounded = Lens::new(&text, 50_000);
        assert_eq!((&bounded).read_bytes_at(0, end), Err(()));
        assert!(bounded.is_full());
    }
}
