//! Deflate on all cores, as pigz does it: fixed chunks, each compressed on its own and ended on a
//! byte boundary, so that the result depends on the input alone and not on the number of cores.

use std::cell::RefCell;
use std::io::{self, Read, Write};

use flate2::{Compress, Compression, FlushCompress, Status};
use rayon::prelude::*;

/// Bytes a chunk. Part of the output's bytes: never change it without need.
const CHUNK: usize = 1 << 20;
/// Chunks in memory at a time: two for each core, with a bound on what they take. No part of the
/// output's bytes.
pub fn batch() -> usize {
    (2 * rayon::current_num_threads()).clamp(4, 64)
}

/// Compression level.
const LEVEL: u32 = 6;

/// What went through a stream: what a zip entry and a gzip trailer state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// CRC-32 of the input.
    pub crc: u32,
    /// Bytes before compression.
    pub size: u64,
    /// Bytes after compression.
    pub compressed: u64,
}

/// Compresses one chunk; the last one ends the stream.
pub fn chunk(data: &[u8], last: bool) -> Vec<u8> {
    thread_local! {
        // A quarter of a megabyte, cleared: too much to make anew for each of ten thousand headers.
        static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::new(LEVEL), false));
    }
    COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        deflate(compress, data, last)
    })
}

fn deflate(compress: &mut Compress, data: &[u8], last: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() / 2 + 64);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    let more = (data.len() / 8).clamp(64, 1 << 16);
    loop {
        let before = (compress.total_in(), compress.total_out());
        out.reserve(more);
        let consumed = usize::try_from(compress.total_in()).unwrap_or(data.len());
        match compress.compress_vec(&data[consumed..], &mut out, flush) {
            Ok(Status::StreamEnd) => return out,
            Ok(_) => {
                let all_in = compress.total_in() == data.len() as u64;
                let room = out.len() < out.capacity();
                if (!last && all_in && room) || before == (compress.total_in(), compress.total_out()) && room {
                    return out;
                }
            }
            // Deflate of bytes in memory has no way to fail; what is there is all there is.
            Err(_) => return out,
        }
    }
}

/// Compresses all of `input` to `out` as one raw deflate stream. `seen` gets every chunk of input.
///
/// # Errors
/// Whatever `input` or `out` meets.
pub fn stream(input: &mut impl Read, out: &mut impl Write, mut seen: impl FnMut(&[u8])) -> io::Result<Totals> {
    let mut totals = Totals::default();
    let mut crc = crc32fast::Hasher::new();
    let mut pending = read_chunk(input)?;
    let most = batch();
    loop {
        let mut batch = Vec::with_capacity(most);
        let mut end = false;
        while batch.len() < most {
            let next = read_chunk(input)?;
            let last = next.is_empty();
            batch.push((std::mem::replace(&mut pending, next), last));
            if last {
                end = true;
                break;
            }
        }
        let compressed: Vec<(Vec<u8>, crc32fast::Hasher)> = batch
            .par_iter()
            .map(|(data, last)| {
                let mut crc = crc32fast::Hasher::new();
                crc.update(data);
                (chunk(data, *last), crc)
            })
            .collect();
        for ((data, _), (bytes, part)) in batch.iter().zip(compressed) {
            seen(data);
            crc.combine(&part);
            totals.size += data.len() as u64;
            totals.compressed += bytes.len() as u64;
            out.write_all(&bytes)?;
        }
        if end {
            totals.crc = crc.finalize();
            return Ok(totals);
        }
    }
}

fn read_chunk(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    input.take(CHUNK as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

/// A gzip file (RFC 1952) written on all cores, without name and time.
pub struct GzipWriter<W: Write> {
    out: W,
    buffer: Vec<u8>,
    crc: crc32fast::Hasher,
    size: u64,
}

impl<W: Write> GzipWriter<W> {
    /// Begins a gzip file on `out`.
    ///
    /// # Errors
    /// Whatever `out` meets.
    pub fn new(mut out: W) -> io::Result<Self> {
        // Magic, deflate, no flags, no time, no extra flags, unknown system.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
        Ok(Self { out, buffer: Vec::new(), crc: crc32fast::Hasher::new(), size: 0 })
    }

    fn compress(&mut self, end: bool) -> io::Result<()> {
        let data = std::mem::take(&mut self.buffer);
        let whole = if end { data.len() } else { data.len() / CHUNK * CHUNK };
        let (now, later) = data.split_at(whole);
        self.buffer = later.to_vec();
        let chunks: Vec<&[u8]> = if now.is_empty() && end { vec![&[]] } else { now.chunks(CHUNK).collect() };
        let count = chunks.len();
        let parts: Vec<_> = chunks
            .into_par_iter()
            .enumerate()
            .map(|(i, c)| {
                let mut crc = crc32fast::Hasher::new();
                crc.update(c);
                (chunk(c, end && i + 1 == count), crc)
            })
            .collect();
        for (bytes, crc) in parts {
            self.crc.combine(&crc);
            self.out.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Ends the file and gives back what is below.
    ///
    /// # Errors
    /// Whatever is below meets.
    pub fn finish(mut self) -> io::Result<W> {
        self.compress(true)?;
        self.out.write_all(&self.crc.clone().finalize().to_le_bytes())?;
        // Size modulo 2^32, as the format has it.
        self.out.write_all(&((self.size & 0xffff_ffff) as u32).to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        self.size += bytes.len() as u64;
        if self.buffer.len() >= batch() * CHUNK {
            self.compress(false)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_went_in_comes_out(seed in any::<u64>(), len in prop_oneof![0usize..4000, CHUNK-2..CHUNK+2, Just(3*CHUNK+17), Just(17*CHUNK)]) {
            let data: Vec<u8> = (0..len as u64).map(|i| (i.wrapping_mul(seed) >> 5) as u8 & 0x3f).collect();
            let mut w = GzipWriter::new(Vec::new()).unwrap();
            for part in data.chunks(777_777) { w.write_all(part).unwrap(); }
            prop_assert_eq!(gunzip(&w.finish().unwrap()), data.clone());
            let mut raw = Vec::new();
            let totals = stream(&mut data.as_slice(), &mut raw, |_| {}).unwrap();
            let mut back = Vec::new();
            flate2::read::DeflateDecoder::new(raw.as_slice()).read_to_end(&mut back).unwrap();
            prop_assert_eq!(&back, &data);
            prop_assert_eq!(totals.crc, crc32fast::hash(&data));
            prop_assert_eq!(totals.compressed, raw.len() as u64);
        }
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_number_of_cores() {
        let data: Vec<u8> = (0..5 * CHUNK + 3).map(|i| ((i * i) >> 7) as u8).collect();
        let run = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let mut w = GzipWriter::new(Vec::new()).unwrap();
                w.write_all(&data).unwrap();
                w.finish().unwrap()
            })
        };
        assert_eq!(run(1), run(3));
    }
}
