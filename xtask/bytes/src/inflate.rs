//! Looks through a large packed member on two cores. DEFLATE (RFC 1951) can only be unpacked from its
//! start on, because every block may copy from the 32 KiB before it. So the second half is begun at a
//! guess, without those bytes: a bit position that reads as the start of a block. What it copies from
//! the unknown bytes is marked, and filled in when the first half has come that far. The guess counts
//! only where the first half ends a block at exactly that bit; else the first half just goes on to the
//! end, and nothing but time is lost. (Knespel and Brunst, "Rapidgzip", HPDC 2023, describe the method.)
//!
//! Marks cost no decoder of our own: zlib unpacks the beginning of the second half three times, with
//! three different dictionaries in place of the unknown bytes. Where the results differ, the byte was
//! copied from the dictionary, and the results spell the position in it.

#![allow(unsafe_code)] // zlib's interface: only it starts at a bit, and says at which bit a block ends

use std::io;
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};

use crc32fast::Hasher;
use libz_rs_sys as z;

use crate::marker::{Hit, Scanner};
use crate::read::{ReadAt, fill};

/// Bytes of a library's beginning that have its headers in them.
pub const HEAD: usize = 32 << 10;

/// Bytes that a copy can reach back (RFC 1951, section 2).
const WINDOW: usize = 32 << 10;
/// Bytes that are compared at a time where they are mostly the same.
const STRETCH: usize = 16;
/// Bytes read and unpacked at a time.
const PIECE: usize = 1 << 20;
/// Packed bytes from which on a second core is worth its while.
const WORTH: u64 = 8 << 20;
/// Bytes searched for the start of a block: in a library they are some 10 KB long.
const SEARCHED: usize = 512 << 10;
/// Unpacked bytes with marks that are kept: where there are still marks after them, the first half does
/// all of it.
const MOST_MARKED: usize = 24 << 20;
/// Marks that are kept, 8 bytes each: fewer than one byte in twenty is one, in a library.
const MOST_MARKS: usize = 2 << 20;
/// Positions that are tried as the start of a block, after the first look at them: hundreds are usual.
const MOST_TRIED: usize = 2048;

/// A packed member of an archive.
pub struct Packed<'a> {
    /// The archive that the member is in.
    pub source: &'a dyn ReadAt,
    /// Where its DEFLATE stream is.
    pub range: Range<u64>,
    /// Bytes, unpacked, as the directory says.
    pub size: u64,
    /// CRC-32 of the unpacked bytes, as the directory says.
    pub crc: u32,
    /// Asked before each piece: an error of it ends the reading.
    pub go_on: &'a (dyn Fn() -> io::Result<()> + Sync),
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Class names, by offset.
    pub hits: Vec<Hit>,
    /// The member's first bytes: 32 KiB, or all.
    pub head: Vec<u8>,
    /// Whether the second half was unpacked beside the first.
    pub halved: bool,
}

/// A stream of DEFLATE data that is being unpacked.
struct Inflate(Box<z::z_stream>);

// SAFETY: the stream's state belongs to it alone; nothing in zlib-rs is tied to a thread.
unsafe impl Send for Inflate {}

/// Where unpacking stopped.
struct Step {
    read: usize,
    written: usize,
    /// The stream's last block has ended.
    ended: bool,
    /// A block has ended here; so many bits of the last byte that was read are still to come.
    block: Option<u8>,
}

impl Inflate {
    fn new() -> Self {
        let mut stream = Box::new(z::z_stream::default());
        // SAFETY: the stream is fresh, and version and size are those of this very library. Negative
        // window bits mean raw DEFLATE.
        let rc = unsafe { z::inflateInit2_(&raw mut *stream, -15, z::zlibVersion(), size_of::<z::z_stream>() as i32) };
        assert_eq!(rc, z::Z_OK, "a stream of zlib's own default");
        Self(stream)
    }

    /// Begins anew after `bit` bits of `first`, with `window` as the bytes before.
    fn begin(&mut self, first: u8, bit: u8, window: &[u8]) -> bool {
        // SAFETY: the stream was set up by `new`; zlib copies the window.
        unsafe {
            z::inflateReset(&raw mut *self.0) == z::Z_OK
                && z::inflateSetDictionary(&raw mut *self.0, window.as_ptr(), window.len() as u32) == z::Z_OK
                && z::inflatePrime(&raw mut *self.0, 8 - i32::from(bit), i32::from(first >> bit)) == z::Z_OK
        }
    }

    /// Unpacks from `input` to `output` until one of them ends, or the stream; where `blocks` says so, a
    /// block. `None` where it is no DEFLATE data.
    fn step(&mut self, input: &[u8], output: &mut [u8], blocks: bool) -> Option<Step> {
        let stream = &mut *self.0;
        stream.next_in = input.as_ptr();
        stream.avail_in = u32::try_from(input.len()).unwrap_or(u32::MAX);
        stream.next_out = output.as_mut_ptr();
        stream.avail_out = u32::try_from(output.len()).unwrap_or(u32::MAX);
        let (given, room) = (stream.avail_in, stream.avail_out);
        // SAFETY: input and output are as long as said, and outlive the call, which keeps no pointer that
        // is not set anew by the next one.
        let rc = unsafe { z::inflate(&raw mut *stream, if blocks { z::Z_BLOCK } else { z::Z_NO_FLUSH }) };
        // zlib.h: bit 7 after a block's end; the low bits count what is unused of the last byte.
        let state = stream.data_type;
        matches!(rc, z::Z_OK | z::Z_STREAM_END | z::Z_BUF_ERROR).then(|| Step {
            read: (given - stream.avail_in) as usize,
            written: (room - stream.avail_out) as usize,
            ended: rc == z::Z_STREAM_END,
            block: (state & 128 != 0).then_some((state & 63) as u8),
        })
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        // SAFETY: the stream was set up by `new`, and is not used again.
        unsafe { z::inflateEnd(&raw mut *self.0) };
    }
}

/// The second half, begun at a guess.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    /// Looking for the start of a block.
    Searching,
    /// It begins at this bit of the stream.
    From(u64),
    /// None was found, or it is of no use.
    Nowhere,
}

/// Where the halves meet: both know it.
struct Meeting {
    half: Mutex<Half>,
    found: Condvar,
}

impl Meeting {
    fn new(half: Half) -> Self {
        Self { half: Mutex::new(half), found: Condvar::new() }
    }

    fn get(&self) -> Half {
        *self.half.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, half: Half) {
        *self.half.lock().unwrap_or_else(PoisonError::into_inner) = half;
        self.found.notify_all();
    }

    /// Waits until the search is over, which takes milliseconds and is bounded ([`MOST_TRIED`]).
    fn wait(&self) -> Half {
        let half = self.half.lock().unwrap_or_else(PoisonError::into_inner);
        let over = self.found.wait_while(half, |half| *half == Half::Searching);
        *over.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the search with its scope, however that is left: nobody waits for a search that is no more.
struct Over<'a>(&'a Meeting);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if self.0.get() == Half::Searching {
            self.0.set(Half::Nowhere);
        }
    }
}

/// What the second half came to.
#[derive(Default)]
struct Second {
    /// The first bytes: right but for the marks.
    first: Vec<u8>,
    /// Position in `first`, and position in the window before it of the byte that belongs there.
    marks: Vec<(u32, u16)>,
    /// The bytes after `first`, as far as they can be parts of a name that begins before.
    next: Vec<u8>,
    scanner: Scanner,
    crc: Hasher,
    written: u64,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Packed<'_> {
    /// Whether it is so large that looking through it first, and keeping nothing, is worth its while.
    pub fn is_large(&self) -> bool {
        self.range.end - self.range.start >= WORTH
    }
}

/// Looks for class names in all of a packed member, and checks its size and checksum.
///
/// # Errors
/// Reading; data that is no DEFLATE stream, ends early or late, or is not what the directory says.
pub fn scan(packed: &Packed<'_>) -> io::Result<Scanned> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    scan_from(packed, (packed.range.end - packed.range.start) / 100 * 56, cores > 1)
}

/// The same with the second half begun after `offset` packed bytes or a little later; `beside` the first,
/// or not at all.
///
/// # Errors
/// As [`scan`].
pub fn scan_from(packed: &Packed<'_>, offset: u64, beside: bool) -> io::Result<Scanned> {
    let meeting = Meeting::new(if beside { Half::Searching } else { Half::Nowhere });
    std::thread::scope(|scope| {
        let second = beside.then(|| {
            scope.spawn(|| {
                let _over = Over(&meeting);
                let out = second_half(packed, offset, &meeting);
                if !matches!(out, Ok(Some(_))) {
                    meeting.set(Half::Nowhere);
                }
                out
            })
        });
        let first = first_half(packed, offset, &meeting);
        // Where the first half failed or did everything, the second ends by itself at the next piece.
        if !matches!(&first, Ok(f) if f.met) {
            meeting.set(Half::Nowhere);
        }
        let second = second.map(|s| s.join().unwrap_or_else(|_| Err(io::Error::other("the second half panicked"))));
        let mut first = first?;
        if first.met {
            let Some(Ok(Some(second))) = second else {
                // What was wrong with it is told by doing it in order.
                return finish(packed, first_half(packed, offset, &Meeting::new(Half::Nowhere))?);
            };
            first.join(second)?;
        }
        finish(packed, first)
    })
}

fn finish(packed: &Packed<'_>, first: First) -> io::Result<Scanned> {
    if first.written != packed.size {
        let less = if first.written < packed.size { "less" } else { "more" };
        return Err(bad(&format!("unpacks to {less} than its directory says")));
    }
    if first.crc.finalize() != packed.crc {
        return Err(bad("is damaged: its checksum is not what its directory says"));
    }
    let mut hits = first.scanner.finish();
    hits.sort_by_key(|h| h.offset);
    hits.dedup();
    Ok(Scanned { hits, head: first.head, halved: first.met })
}

/// What the first half came to.
#[derive(Default)]
struct First {
    scanner: Scanner,
    crc: Hasher,
    written: u64,
    head: Vec<u8>,
    /// The last bytes.
    window: Vec<u8>,
    /// It ends where the second half begins.
    met: bool,
}

impl First {
    fn take(&mut self, bytes: &[u8]) {
        self.scanner.feed(bytes);
        self.crc.update(bytes);
        self.written += bytes.len() as u64;
        let missing = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..missing]);
        let keep = &bytes[bytes.len().saturating_sub(WINDOW)..];
        let excess = (self.window.len() + keep.len()).saturating_sub(WINDOW);
        self.window.drain(..excess);
        self.window.extend_from_slice(keep);
    }

    /// Fills in what the second half could not know, and adds it.
    fn join(&mut self, mut second: Second) -> io::Result<()> {
        // A window of less than its full length stands at the end of what was taken for it.
        let before = WINDOW - self.window.len();
        for (at, from) in second.marks {
            let from = usize::from(from).checked_sub(before).ok_or_else(|| bad("is damaged"))?;
            second.first[at as usize] = self.window[from];
        }
        self.take(&second.first);
        let base = self.written;
        // A name may begin here and end in what the second half looked through by itself.
        self.scanner.feed(&second.next);
        self.scanner.add(second.scanner.finish().into_iter().map(|h| Hit { offset: base + h.offset, ..h }));
        self.crc.combine(&second.crc);
        self.written += second.written;
        Ok(())
    }
}

fn first_half(packed: &Packed<'_>, offset: u64, meeting: &Meeting) -> io::Result<First> {
    let mut out = First::default();
    let mut inflate = Inflate::new();
    let (mut input, mut output) = (vec![0u8; PIECE], vec![0u8; PIECE]);
    let mut at = packed.range.start;
    loop {
        (packed.go_on)()?;
        let read = fill(packed.source, at, packed.range.end, &mut input)?;
        // The second half may begin in this piece: that must be known before it is unpacked.
        let here = at - packed.range.start + read as u64 > offset;
        let goal = match if here { meeting.wait() } else { meeting.get() } {
            Half::From(bit) => Some(bit),
            Half::Searching | Half::Nowhere => None,
        };
        // Block by block only in the piece that the second half begins in, or where it may.
        let last = (at - packed.range.start + read as u64) * 8;
        let careful = goal.is_some_and(|bit| ((at - packed.range.start) * 8..=last).contains(&bit));
        let mut used = 0;
        loop {
            let step = inflate.step(&input[used..read], &mut output, careful).ok_or_else(|| bad("is damaged"))?;
            used += step.read;
            out.take(&output[..step.written]);
            if out.written > packed.size {
                return Err(bad("unpacks to more than its directory says"));
            }
            if step.ended {
                return if at + used as u64 == packed.range.end {
                    Ok(out)
                } else {
                    Err(bad("ends before its directory says"))
                };
            }
            if let (Some(goal), Some(unused)) = (goal.filter(|_| careful), step.block)
                && (at + used as u64 - packed.range.start) * 8 - u64::from(unused) == goal
            {
                out.met = true;
                return Ok(out);
            }
            // After a block there may be more in the bits that zlib holds already, the stream's end among them.
            if step.written < output.len() && used == read && step.block.is_none() {
                break;
            }
            if step.read == 0 && step.written == 0 && step.block.is_none() {
                return Err(bad("is damaged"));
            }
        }
        at += read as u64;
        if at == packed.range.end {
            return Err(bad("is cut off"));
        }
    }
}

/// Whether a block with codes of its own may start with these bits: as most positions are ruled out by
/// the first bits, the rest is left to zlib.
fn may_start(bits: u128) -> bool {
    // Not the last one, codes of its own (2), and no more codes than there are (RFC 1951, section 3.2.7).
    if bits & 0b111 != 0b100 || bits >> 3 & 31 > 29 || bits >> 8 & 31 > 29 {
        return false;
    }
    // The lengths of the code for code lengths make a complete code.
    let count = (bits >> 13 & 15) + 4;
    (0..count).map(|i| bits >> (17 + 3 * i) & 7).filter(|l| *l > 0).map(|l| 128u32 >> l).sum::<u32>() == 128
}

/// Begins in the middle. `None` where no block starts there, or too much depends on what comes before.
fn second_half(packed: &Packed<'_>, offset: u64, meeting: &Meeting) -> io::Result<Option<Second>> {
    let (start, end) = (packed.range.start, packed.range.end);
    let mut input = vec![0u8; SEARCHED];
    let read = fill(packed.source, start + offset, end, &mut input)?;
    // Three windows: in the first two, a byte tells its position's low and high half; the third differs
    // from the first everywhere.
    let low: Vec<u8> = (0..WINDOW).map(|i| i as u8).collect();
    let high: Vec<u8> = (0..WINDOW).map(|i| (i >> 8) as u8).collect();
    let other: Vec<u8> = low.iter().map(|b| !b).collect();
    let mut decoders = [Inflate::new(), Inflate::new(), Inflate::new()];
    let mut outputs = [vec![0u8; PIECE], vec![0u8; PIECE], vec![0u8; PIECE]];
    let given_up = || meeting.get() == Half::Nowhere;
    let mut tried = 0;
    let found = (0..read.saturating_sub(SEARCHED / 4) * 8).find(|bit| {
        let (byte, shift) = (bit / 8, (bit % 8) as u8);
        // Numbers and lengths take 74 bits at most.
        let bits = u128::from_le_bytes(input[byte..byte + 16].try_into().unwrap_or_default()) >> shift;
        if !may_start(bits) || tried == MOST_TRIED || given_up() {
            return false;
        }
        tried += 1;
        decoders[0].begin(input[byte], shift, &low) && {
            let mut used = byte + 1;
            let mut blocks = 0;
            // Two blocks that read well, of which the first is not empty.
            loop {
                match decoders[0].step(&input[used..read], &mut outputs[0], true) {
                    Some(step) if step.block.is_some() && !step.ended && step.written > 0 => {
                        used += step.read;
                        blocks += 1;
                        if blocks == 2 {
                            break true;
                        }
                    }
                    _ => break false,
                }
            }
        }
    });
    let Some(bit) = found else { return Ok(None) };
    if given_up() {
        return Ok(None);
    }
    meeting.set(Half::From(offset * 8 + bit as u64));
    for (decoder, window) in decoders.iter_mut().zip([&low, &high, &other]) {
        if !decoder.begin(input[bit / 8], (bit % 8) as u8, window) {
            return Ok(None);
        }
    }
    let mut out = Second::default();
    let mut at = start + offset + bit as u64 / 8 + 1;
    input.resize(PIECE / 4, 0);
    // Since when there are no marks.
    let mut clean = 0usize;
    loop {
        if given_up() {
            return Ok(None);
        }
        let read = fill(packed.source, at, end, &mut input)?;
        let mut used = 0;
        loop {
            let [first, rest @ ..] = &mut decoders;
            let [bytes, copies @ ..] = &mut outputs;
            let Some(step) = first.step(&input[used..read], bytes, false) else { return Ok(None) };
            let new = &bytes[..step.written];
            if clean < WINDOW {
                for (decoder, copy) in rest.iter_mut().zip(copies.iter_mut()) {
                    let same = decoder.step(&input[used..read], copy, false);
                    if same.is_none_or(|s| (s.read, s.written) != (step.read, step.written)) {
                        return Ok(None);
                    }
                }
                let base = out.first.len();
                if base + new.len() > MOST_MARKED || out.marks.len() > MOST_MARKS {
                    return Ok(None);
                }
                let [highs, others] = copies;
                // Most stretches have no mark: they are compared whole.
                let stretches = new.chunks(STRETCH).zip(highs.chunks(STRETCH)).zip(others.chunks(STRETCH));
                for (at, ((bytes, highs), others)) in (base..).step_by(STRETCH).zip(stretches) {
                    if bytes == &others[..bytes.len()] {
                        clean += bytes.len();
                        continue;
                    }
                    for (i, ((b, h), o)) in bytes.iter().zip(highs).zip(others).enumerate() {
                        if b == o {
                            clean += 1;
                        } else {
                            clean = 0;
                            out.marks.push(((at + i) as u32, u16::from(*h) << 8 | u16::from(*b)));
                        }
                    }
                }
                out.first.extend_from_slice(new);
            } else {
                let missing = out.scanner.seam().saturating_sub(out.next.len()).min(new.len());
                out.next.extend_from_slice(&new[..missing]);
                out.scanner.feed(new);
                out.crc.update(new);
                out.written += new.len() as u64;
                if out.written > packed.size {
                    return Ok(None);
                }
            }
            used += step.read;
            if step.ended {
                return Ok((at + used as u64 == end).then_some(out));
            }
            if step.written < bytes.len() && used == read {
                break;
            }
            if step.read == 0 && step.written == 0 {
                return Ok(None);
            }
        }
        at += read as u64;
        if at == end {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::marker::{Class, names};

    /// Bytes of the shape of machine code: few values, with repeats from a little before.
    fn code(length: usize, seed: u64) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut out: Vec<u8> = Vec::with_capacity(length + 64);
        while out.len() < length {
            if out.len() > 100 && random.u8(..) < 90 {
                let (back, n) = (random.usize(1..out.len().min(WINDOW)), random.usize(3..40));
                for _ in 0..n {
                    out.push(out[out.len() - back]);
                }
            } else {
                let n = random.usize(1..9);
                out.extend(std::iter::repeat_with(|| random.u8(0..48)).take(n));
            }
        }
        out.truncate(length);
        out
    }

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn packed<'a>(archive: &'a Vec<u8>, plain: &[u8]) -> Packed<'a> {
        Packed {
            source: archive,
            range: 0..archive.len() as u64,
            size: plain.len() as u64,
            crc: crc32fast::hash(plain),
            go_on: &|| Ok(()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn two_halves_find_what_one_pass_finds(seed in any::<u64>(), at in 10u64..90, places in prop::collection::vec(0.0f64..1.0, 1..30)) {
            let mut plain = code(6 << 20, seed);
            for (i, place) in places.iter().enumerate() {
                let (itanium, msvc) = names(if i % 2 == 0 { Class::LibuvStore } else { Class::Gloo });
                let name = if i % 3 == 0 { msvc } else { itanium }.as_bytes();
                let from = (place * (plain.len() - name.len()) as f64) as usize;
                plain[from..from + name.len()].copy_from_slice(name);
            }
            let archive = pack(&plain);
            let what = packed(&archive, &plain);
            let alone = scan_from(&what, 0, false).unwrap();
            let both = scan_from(&what, archive.len() as u64 * at / 100, true).unwrap();
            prop_assert!(!alone.halved);
            prop_assert_eq!(&alone.hits, &both.hits);
            prop_assert_eq!(&alone.head, &plain[..HEAD]);
            prop_assert_eq!(alone.head, both.head);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn however_it_is_damaged_two_halves_say_what_one_pass_says(seed in any::<u64>(), at in 10u64..90, damage in prop::collection::vec((0.0f64..1.0, any::<u8>()), 1..4)) {
            let plain = code(2 << 20, seed);
            let mut archive = pack(&plain);
            for (place, byte) in damage {
                let at = (place * (archive.len() - 1) as f64) as usize;
                archive[at] = byte;
            }
            let what = packed(&archive, &plain);
            let alone = scan_from(&what, 0, false).map(|s| (s.hits, s.head)).map_err(|e| e.to_string());
            let both = scan_from(&what, archive.len() as u64 * at / 100, true).map(|s| (s.hits, s.head)).map_err(|e| e.to_string());
            prop_assert_eq!(alone, both);
        }
    }

    /// Found by fuzzing: a guess in the stream's last piece that was not met hid the stream's end.
    #[test]
    fn a_stream_of_one_piece_ends_wherever_the_second_half_is_begun() {
        for level in 1..=9 {
            let plain = code(1 << 20, level);
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level as u32));
            encoder.write_all(&plain).unwrap();
            let archive = encoder.finish().unwrap();
            let what = packed(&archive, &plain);
            let alone = scan_from(&what, 0, false).unwrap();
            for at in (0..archive.len() as u64).step_by(archive.len() / 61) {
                assert_eq!(scan_from(&what, at, true).unwrap().head, alone.head, "level {level}, at {at}");
            }
        }
    }

    #[test]
    fn a_name_across_each_seam_is_found_once() {
        // However the second half comes to lie, some of many names lie across its seams.
        let (name, _) = names(Class::LibuvStore);
        let plain: Vec<u8> =
            code(8 << 20, 7).chunks(97).flat_map(|c| [c, &b"N4c10d6detail16LibUVStoreDaemonE"[..]].concat()).collect();
        assert!(plain.windows(name.len()).any(|w| w == name.as_bytes()));
        let archive = pack(&plain);
        let halved = (20..80).step_by(10).filter(|at| {
            let both = scan_from(&packed(&archive, &plain), archive.len() as u64 * at / 100, true).unwrap();
            // The scanner keeps so many of each name; together they keep at most twice as many.
            let first: Vec<u64> = both.hits.iter().take(512).map(|h| h.offset).collect();
            let right: Vec<u64> =
                memchr::memmem::find_iter(&plain, name.as_bytes()).take(512).map(|o| o as u64).collect();
            assert_eq!(first, right);
            both.halved
        });
        // Names that are copied from one another all through are many marks, and may be too many.
        assert!(halved.count() > 3, "the second half was not of use");
    }

    #[test]
    fn the_second_half_is_of_use_on_what_looks_like_code() {
        let plain = code(24 << 20, 3);
        let archive = pack(&plain);
        assert!(scan_from(&packed(&archive, &plain), archive.len() as u64 / 2, true).unwrap().halved);
    }

    /// A stream whose middle is stored as it is, and holds another stream: what starts there is no block.
    #[test]
    fn a_block_inside_of_a_stored_block_is_not_believed() {
        let (name, _) = names(Class::LibuvStore);
        let hidden = pack(&[&code(3 << 20, 1)[..], name.as_bytes()].concat());
        let mut plain = code(1 << 20, 5);
        let mut archive = {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
            encoder.write_all(&plain).unwrap();
            encoder.flush().unwrap(); // ends at a byte
            encoder.get_ref().clone()
        };
        let inside = archive.len() as u64;
        for (i, piece) in hidden.chunks(65535).enumerate() {
            let last = u8::from((i + 1) * 65535 >= hidden.len());
            let length = piece.len() as u16;
            archive.push(last);
            archive.extend(length.to_le_bytes());
            archive.extend((!length).to_le_bytes());
            archive.extend(piece);
            plain.extend(piece);
        }
        let what = packed(&archive, &plain);
        let both = scan_from(&what, inside + 5, true).unwrap();
        assert!(!both.halved);
        assert_eq!(both.hits, scan_from(&what, 0, false).unwrap().hits);
    }

    #[test]
    fn what_is_damaged_cut_off_or_not_what_was_said_is_an_error() {
        let plain = code(5 << 20, 11);
        let archive = pack(&plain);
        let middle = archive.len() as u64 / 2;
        let failure = |archive: &Vec<u8>, size: u64, crc: u32| {
            let range = 0..archive.len() as u64;
            let packed = Packed { source: archive, range, size, crc, go_on: &|| Ok(()) };
            let both = scan_from(&packed, middle.min(archive.len() as u64), true).unwrap_err().to_string();
            let alone = scan_from(&packed, 0, false).unwrap_err().to_string();
            assert_eq!(both, alone);
            both
        };
        let (size, crc) = (plain.len() as u64, crc32fast::hash(&plain));
        assert_eq!(failure(&archive, size, crc ^ 1), "is damaged: its checksum is not what its directory says");
        assert_eq!(failure(&archive, size - 1, crc), "unpacks to more than its directory says");
        assert_eq!(failure(&archive, size + 1, crc), "unpacks to less than its directory says");
        assert_eq!(failure(&archive[..archive.len() - 9].to_vec(), size, crc), "is cut off");
        assert_eq!(failure(&[&archive[..], b"more"].concat(), size, crc), "ends before its directory says");
        assert_eq!(failure(&Vec::new(), size, crc), "is cut off");
        for at in [archive.len() / 4, archive.len() * 3 / 4] {
            let mut broken = archive.clone();
            broken[at..at + 64].fill(0xff);
            failure(&broken, size, crc);
        }
    }
}
