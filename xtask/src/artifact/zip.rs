//! A deterministic zip writer: sorted by the caller, one time, fixed modes, compressed on all
//! cores, SHA-256 of each member in the same pass. Nothing is held in memory but a few chunks.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::deflate;
use crate::error::{Error, Result};

/// Members smaller than this are compressed many at a time, larger ones chunk by chunk.
const SMALL: u64 = 1 << 20;

/// Where a member's bytes come from.
#[derive(Debug, Clone)]
pub enum Content {
    /// The file at this path, read while the archive is written.
    File(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// A file that is to go into an archive.
#[derive(Debug, Clone)]
pub struct Member {
    /// Path in the archive, with `/`.
    pub name: String,
    /// Where its bytes come from.
    pub content: Content,
    /// Whether it gets mode 0755 instead of 0644.
    pub executable: bool,
}

/// Digest and size of a member that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Path in the archive.
    pub name: String,
    /// SHA-256 of the contents; RECORD has it in URL-safe base64.
    pub sha256: [u8; 32],
    /// Bytes, uncompressed.
    pub size: u64,
}

struct Entry {
    name: String,
    crc: u32,
    size: u32,
    compressed: u32,
    offset: u32,
    mode: u32,
}

/// Writes a zip archive.
pub struct ZipWriter<W: Write + Seek> {
    out: BufWriter<W>,
    offset: u64,
    entries: Vec<Entry>,
    time: (u16, u16),
}

impl<W: Write + Seek> ZipWriter<W> {
    /// Begins an archive; all members get the time `epoch` (seconds since 1970, UTC).
    pub fn new(out: W, epoch: i64) -> Self {
        Self { out: BufWriter::with_capacity(1 << 20, out), offset: 0, entries: Vec::new(), time: dos_time(epoch) }
    }

    /// Adds `members` in their order.
    ///
    /// # Errors
    /// The world: a file cannot be read, the archive cannot be written, or the format does not hold so many members or
    /// bytes. Or somebody asked to stop.
    pub fn add_all(&mut self, members: &[Member]) -> Result<Vec<Written>> {
        let mut written = Vec::with_capacity(members.len());
        let mut rest = members;
        while let Some(first) = rest.first() {
            if size_of(first)? >= SMALL {
                written.push(self.add_large(first)?);
                rest = &rest[1..];
                continue;
            }
            // A run of small ones, with a bound on what is in memory.
            let (mut run, mut bytes) = (0, 0);
            while run < rest.len() && bytes < deflate::batch() as u64 * SMALL {
                let size = size_of(&rest[run])?;
                if size >= SMALL {
                    break;
                }
                // Every member costs something, be it empty.
                bytes += size.max(4096);
                run += 1;
            }
            let packed: Vec<Result<(Vec<u8>, Written, u32)>> = rest[..run].par_iter().map(pack_small).collect();
            for (member, packed) in rest[..run].iter().zip(packed) {
                crate::platform::check_cancelled()?;
                let (bytes, digest, crc) = packed?;
                self.entry(member, crc, digest.size, bytes.len() as u64, |out| out.write_all(&bytes))?;
                written.push(digest);
            }
            rest = &rest[run..];
        }
        Ok(written)
    }

    fn entry(
        &mut self,
        member: &Member,
        crc: u32,
        size: u64,
        compressed: u64,
        body: impl FnOnce(&mut BufWriter<W>) -> io::Result<()>,
    ) -> Result<()> {
        let entry = self.header(member, crc, size, compressed)?;
        body(&mut self.out)?;
        self.offset += compressed;
        self.entries.push(entry);
        Ok(())
    }

    fn header(&mut self, member: &Member, crc: u32, size: u64, compressed: u64) -> Result<Entry> {
        let fits = |n: u64| {
            u32::try_from(n).map_err(|_| {
                Error::world(
                    "zip-size",
                    format!("'{}' takes the archive beyond 4 GiB, which this format does not hold", member.name),
                )
            })
        };
        if self.entries.len() >= 65_535 || member.name.len() > 65_535 {
            return Err(Error::world("zip-size", "more than 65535 members do not fit into this format"));
        }
        let entry = Entry {
            name: member.name.clone(),
            crc,
            size: fits(size)?,
            compressed: fits(compressed)?,
            offset: fits(self.offset)?,
            mode: if member.executable { 0o100_755 } else { 0o100_644 },
        };
        let mut h = Vec::with_capacity(30 + entry.name.len());
        h.extend_from_slice(b"PK\x03\x04");
        h.extend_from_slice(&20u16.to_le_bytes());
        self.common(&mut h, &entry);
        h.extend_from_slice(&0u16.to_le_bytes());
        h.extend_from_slice(entry.name.as_bytes());
        self.out.write_all(&h)?;
        self.offset += h.len() as u64;
        Ok(entry)
    }

    /// The fields that local header and directory share, from the flags to the name's length.
    fn common(&self, h: &mut Vec<u8>, e: &Entry) {
        h.extend_from_slice(&0x0800u16.to_le_bytes()); // names are UTF-8
        h.extend_from_slice(&8u16.to_le_bytes()); // deflate
        h.extend_from_slice(&self.time.0.to_le_bytes());
        h.extend_from_slice(&self.time.1.to_le_bytes());
        h.extend_from_slice(&e.crc.to_le_bytes());
        h.extend_from_slice(&e.compressed.to_le_bytes());
        h.extend_from_slice(&e.size.to_le_bytes());
        h.extend_from_slice(&(e.name.len() as u16).to_le_bytes());
    }

    /// A large member: its header is written again once its sizes are known.
    fn add_large(&mut self, member: &Member) -> Result<Written> {
        crate::platform::check_cancelled()?;
        let Content::File(path) = &member.content else {
            let (bytes, digest, crc) = pack_small(member)?;
            self.entry(member, crc, digest.size, bytes.len() as u64, |out| out.write_all(&bytes))?;
            return Ok(digest);
        };
        let start = self.offset;
        self.header(member, 0, 0, 0)?;
        let mut hash = Sha256::new();
        let mut input = fs_err::File::open(path)?;
        let totals = deflate::stream(&mut input, &mut self.out, |data| hash.update(data))?;
        let end = self.offset + totals.compressed;
        self.out.seek(SeekFrom::Start(start))?;
        self.offset = start;
        let entry = self.header(member, totals.crc, totals.size, totals.compressed)?;
        self.entries.push(entry);
        self.out.seek(SeekFrom::Start(end))?;
        self.offset = end;
        Ok(Written { name: member.name.clone(), sha256: hash.finalize().into(), size: totals.size })
    }

    /// Writes the directory and gives back what is below.
    ///
    /// # Errors
    /// The world: it cannot be written, or is larger than 4 GiB.
    pub fn finish(mut self) -> Result<W> {
        let start = self.offset;
        let mut directory = Vec::new();
        for e in &self.entries {
            directory.extend_from_slice(b"PK\x01\x02");
            directory.extend_from_slice(&(3u16 << 8 | 20).to_le_bytes()); // made on Unix
            directory.extend_from_slice(&20u16.to_le_bytes());
            self.common(&mut directory, e);
            directory.extend_from_slice(&[0; 8]); // extra, comment, disk, internal attributes
            directory.extend_from_slice(&(e.mode << 16).to_le_bytes());
            directory.extend_from_slice(&e.offset.to_le_bytes());
            directory.extend_from_slice(e.name.as_bytes());
        }
        let count = self.entries.len() as u16;
        let (size, at) = (u32::try_from(directory.len()), u32::try_from(start));
        let (Ok(size), Ok(at)) = (size, at) else {
            return Err(Error::world("zip-size", "the archive is larger than 4 GiB, which this format does not hold"));
        };
        directory.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        directory.extend_from_slice(&count.to_le_bytes());
        directory.extend_from_slice(&count.to_le_bytes());
        directory.extend_from_slice(&size.to_le_bytes());
        directory.extend_from_slice(&at.to_le_bytes());
        directory.extend_from_slice(&0u16.to_le_bytes());
        self.out.write_all(&directory)?;
        self.out.into_inner().map_err(|e| e.into_error().into())
    }
}

fn size_of(member: &Member) -> Result<u64> {
    Ok(match &member.content {
        Content::File(path) => fs_err::metadata(path)?.len(),
        Content::Bytes(bytes) => bytes.len() as u64,
    })
}

fn pack_small(member: &Member) -> Result<(Vec<u8>, Written, u32)> {
    let read;
    let data = match &member.content {
        Content::File(path) => {
            read = fs_err::read(path)?;
            &read
        }
        Content::Bytes(bytes) => bytes,
    };
    let written = Written { name: member.name.clone(), sha256: Sha256::digest(data).into(), size: data.len() as u64 };
    Ok((deflate::chunk(data, true), written, crc32fast::hash(data)))
}

/// MS-DOS time and date (two-second steps since 1980).
fn dos_time(epoch: i64) -> (u16, u16) {
    let epoch = epoch.max(315_532_800);
    let (days, seconds) = (epoch.div_euclid(86_400), epoch.rem_euclid(86_400));
    let (year, month, day) = civil_date(days);
    let time = (seconds / 3600) << 11 | (seconds % 3600 / 60) << 5 | (seconds % 60 / 2);
    let date = (year - 1980) << 9 | month << 5 | day;
    (time as u16, date as u16)
}

/// Year, month and day of a number of days since 1970.
pub fn civil_date(days: i64) -> (i64, i64, i64) {
    const JULIAN_DAY_OF_1970: i64 = 2_440_588;
    let julian = i32::try_from(days.saturating_add(JULIAN_DAY_OF_1970)).ok();
    let bound = if days < 0 { time::Date::MIN } else { time::Date::MAX };
    let date = julian.and_then(|day| time::Date::from_julian_day(day).ok()).unwrap_or(bound);
    (date.year().into(), u8::from(date.month()).into(), date.day().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn members(dir: &std::path::Path) -> Vec<Member> {
        let big = dir.join("big");
        std::fs::write(&big, (0..3_500_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect::<Vec<u8>>()).unwrap();
        vec![
            Member { name: "a.txt".into(), content: Content::Bytes(b"hello".to_vec()), executable: false },
            Member { name: "b/big.so".into(), content: Content::File(big), executable: true },
            Member { name: "c/empty".into(), content: Content::Bytes(Vec::new()), executable: false },
        ]
    }

    #[test]
    fn another_implementation_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let members = members(dir.path());
        let mut w = ZipWriter::new(io::Cursor::new(Vec::new()), 1_738_108_800);
        let written = w.add_all(&members).unwrap();
        let bytes = w.finish().unwrap().into_inner();
        let mut archive = zip::ZipArchive::new(io::Cursor::new(&bytes)).unwrap();
        assert_eq!(archive.len(), 3);
        for (i, w) in written.iter().enumerate() {
            let mut entry = archive.by_index(i).unwrap();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            assert_eq!(<[u8; 32]>::from(Sha256::digest(&data)), w.sha256);
            assert_eq!(entry.unix_mode().unwrap() & 0o777, if i == 1 { 0o755 } else { 0o644 });
        }
    }

    #[test]
    fn the_same_members_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let members = members(dir.path());
        let run = || {
            let mut w = ZipWriter::new(io::Cursor::new(Vec::new()), 1_738_108_800);
            w.add_all(&members).unwrap();
            w.finish().unwrap().into_inner()
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn the_time_is_the_epoch_in_utc() {
        // 2025-01-29 00:00:00
        assert_eq!(dos_time(1_738_108_800), (0, (45 << 9) | (1 << 5) | 29));
    }
}
