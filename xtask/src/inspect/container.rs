//! What holds libraries: wheels and other zip files, folders, tar archives, Debian and conda
//! packages. All are visited the same way, member by member, and all may be hostile.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

use sha2::{Digest, Sha256};
use torchmill_bytes::inflate::Packed;
use torchmill_bytes::names::below;
use zip::CompressionMethod;

use crate::error::{Context, Error, Result};
use crate::source::deb;
use crate::source::tarball::{Guarded, xz};
use crate::wheel::{Archive, Cursor, FileAt, ReadAt, open_zip, slice};

/// Members of one container: a torch wheel has about 15,000.
const MOST_MEMBERS: usize = 400_000;
/// Bytes of a zip archive's directory, and of the names of a tar archive's members.
const MOST_OF_DIRECTORY: u64 = 32 << 20;
/// Bytes of one member, unpacked: the largest library of a stock build has about 2 GiB.
const LARGEST_MEMBER: u64 = 8 << 30;
/// Members whose contents are read: a torch has about a hundred libraries, a whole environment a few thousand.
const MOST_WANTED: usize = 50_000;
/// Packed bytes at the end of a member that are asked for late, where perhaps they are not wanted.
const LATE: u64 = 2 << 20;

/// A member, as the container's directory tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path inside, with `/`.
    pub name: String,
    /// Bytes, unpacked.
    pub size: u64,
}

/// How much of a member is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// It is passed over.
    Nothing,
    /// All of it.
    All,
    /// From its start on, and perhaps not its end.
    Front,
}

/// A member's content.
pub struct Content<'a> {
    reader: &'a mut dyn Read,
    packed: Option<Packed<'a>>,
    far: bool,
}

impl<'a> Content<'a> {
    fn plain(reader: &'a mut dyn Read) -> Self {
        Self { reader, packed: None, far: false }
    }

    /// Whether each byte of it comes from afar, so that what is not read is saved.
    pub fn is_far(&self) -> bool {
        self.far
    }

    /// The packed bytes, where they are a DEFLATE stream that can be read more than once.
    pub fn packed(&self) -> Option<&Packed<'a>> {
        self.packed.as_ref()
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// Takes a member's content. `Break` ends the visit.
pub type Visit<'v> = dyn FnMut(&Member, &mut Content<'_>) -> Result<ControlFlow<()>> + 'v;

/// Kinds of containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Libtorch archives, `.conda`; wheels that are not called so.
    Zip,
    /// A zip archive that is called a wheel.
    Wheel,
    /// tar, plain or compressed.
    Tar,
    /// Debian package.
    Deb,
}

/// What `source` is, by its first bytes.
pub fn kind_of(source: &dyn ReadAt) -> Option<Kind> {
    let magic = slice(source, 0, source.size().min(265))?;
    if magic.starts_with(b"PK\x03\x04") || magic.starts_with(b"PK\x05\x06") {
        return Some(Kind::Zip);
    }
    if magic.starts_with(deb::MAGIC) {
        return Some(Kind::Deb);
    }
    let compressed = [&[0x1f, 0x8b][..], b"\xfd7zXZ\0", b"BZh", &[0x28, 0xb5, 0x2f, 0xfd]];
    let tar = magic.get(257..262) == Some(b"ustar");
    (tar || compressed.iter().any(|m| magic.starts_with(m))).then_some(Kind::Tar)
}

/// Visits the members of `source` of which `wanted` says so. Returns all members.
///
/// # Errors
/// If the container is cut off, encrypted, lies about sizes or overlaps itself; or what `each` says.
pub fn visit(
    source: &dyn ReadAt,
    kind: Kind,
    wanted: &dyn Fn(&Member) -> Want,
    each: &mut Visit<'_>,
) -> Result<Vec<Member>> {
    match kind {
        Kind::Zip => zip(source, false, wanted, each),
        Kind::Wheel if source.is_near() => wheel(source, wanted, each),
        Kind::Wheel => zip(source, true, wanted, each),
        Kind::Tar => {
            let magic = slice(source, 0, source.size().min(8)).unwrap_or_default();
            tar_of(&magic, Cursor::new(source), wanted, each)
        }
        Kind::Deb => deb(source, wanted, each),
    }
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::misuse("container", format!("not a readable archive: {what}"))
        .next("is the file complete? compare its size or digest with what it should be")
}

/// A wheel at hand: the strict reader's own members, so that nothing is parsed twice.
fn wheel(source: &dyn ReadAt, wanted: &dyn Fn(&Member) -> Want, each: &mut Visit<'_>) -> Result<Vec<Member>> {
    let archive = Archive::open(source).map_err(unfit)?;
    let members: Vec<Member> =
        archive.members().iter().map(|m| Member { name: m.name.clone(), size: m.size }).collect();
    let chosen: Vec<usize> = (0..members.len()).filter(|i| wanted(&members[*i]) != Want::Nothing).collect();
    few_enough(chosen.len())?;
    for i in chosen {
        let (member, held) = (&members[i], &archive.members()[i]);
        let packed =
            archive.deflated(held).map(|(range, crc)| Packed { source, range, size: member.size, crc, go_on: &go_on });
        let reader = &mut archive.read(held);
        if each(member, &mut Content { reader, packed, far: false })?.is_break() {
            break;
        }
    }
    Ok(members)
}

fn zip(
    source: &dyn ReadAt,
    wheel: bool,
    wanted: &dyn Fn(&Member) -> Want,
    each: &mut Visit<'_>,
) -> Result<Vec<Member>> {
    if wheel {
        check_wheel(source)?;
    }
    // The directory is at the end: a remote source is asked for the end first.
    let size = source.size();
    source.expect(size.saturating_sub(1 << 20)..size);
    let mut archive =
        open_zip(source, MOST_OF_DIRECTORY, |source| BufReader::with_capacity(1 << 18, source)).map_err(broken)?;
    if archive.len() > MOST_MEMBERS {
        return Err(broken(format_args!("{} members, where at most {MOST_MEMBERS} are read", archive.len())));
    }
    if archive.has_duplicate_names() {
        return Err(broken("two members have one name"));
    }
    let mut members = Vec::with_capacity(archive.len());
    // Start and end of each member's bytes: an archive whose members share bytes is a bomb.
    let mut ranges = Vec::with_capacity(archive.len());
    for i in 0..archive.len() {
        let entry = archive.by_index_data(i).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned();
        let start = entry.header_start();
        ranges.push((start, start.saturating_add(entry.compressed_size())));
        members.push(Member { name, size: entry.size() });
    }
    if !wheel && members.iter().any(|m| m.name.ends_with(".dist-info/WHEEL")) {
        check_wheel(source)?;
    }
    ranges.sort_unstable();
    if ranges.windows(2).any(|w| w[0].1 > w[1].0) || ranges.last().is_some_and(|r| r.1 > size) {
        return Err(broken("its members overlap, or lie past the file's end"));
    }
    let chosen: Vec<(usize, Want)> = (0..members.len()).map(|i| (i, wanted(&members[i]))).collect();
    few_enough(chosen.iter().filter(|(_, want)| *want != Want::Nothing).count())?;
    let far = !source.is_near();
    for (i, want) in chosen.into_iter().filter(|(_, want)| *want != Want::Nothing) {
        let member = &members[i];
        {
            let entry = archive.by_index_data(i).map_err(broken)?;
            if entry.encrypted() {
                return Err(broken(format_args!("'{}' is encrypted", member.name)));
            }
            let start = entry.header_start();
            // Name and extra field stand between header and data; their length is known only there.
            let slack = 30 + member.name.len() as u64 + 512;
            let late = if want == Want::Front { LATE } else { 0 };
            let end = start.saturating_add(slack + entry.compressed_size()).min(size);
            source.expect(start..end.saturating_sub(late).max(start + slack).min(end));
        }
        let left = member.size.min(LARGEST_MEMBER);
        let raw = archive.by_index_raw(i).map_err(broken)?;
        let ended = if raw.compression() == CompressionMethod::Deflated {
            // Straight from large pieces of the archive: it is what all large members are packed with.
            let crc = (raw.crc32(), crc32fast::Hasher::new());
            let packed = raw.data_start().filter(|_| !far).map(|start| Packed {
                source,
                range: start..start.saturating_add(raw.compressed_size()),
                size: left,
                crc: raw.crc32(),
                go_on: &go_on,
            });
            let piece = if far { 1 << 18 } else { 1 << 20 };
            let inner = flate2::bufread::DeflateDecoder::new(BufReader::with_capacity(piece, raw));
            let reader = &mut Exactly { inner, left, crc: Some(crc), name: &member.name };
            each(member, &mut Content { reader, packed, far })?
        } else {
            drop(raw);
            let inner = archive.by_index(i).map_err(broken)?;
            let reader = &mut Exactly { inner, left, crc: None, name: &member.name };
            each(member, &mut Content { reader, packed: None, far })?
        };
        if ended.is_break() {
            break;
        }
    }
    Ok(members)
}

/// An error for a file that is larger than any library.
///
/// # Errors
/// Bad input, with the size and the bound.
pub fn check_size(member: &Member) -> Result<()> {
    if member.size > LARGEST_MEMBER {
        let (name, size) = (&member.name, member.size);
        return Err(broken(format_args!("'{name}' has {size} bytes; at most {LARGEST_MEMBER} are read")));
    }
    Ok(())
}

/// An error for more libraries and descriptions than a torch can have.
fn few_enough(wanted: usize) -> Result<()> {
    if wanted > MOST_WANTED {
        return Err(broken(format_args!("{wanted} of its members are libraries; at most {MOST_WANTED} are read")));
    }
    Ok(())
}

/// Every reader of a wheel must see the same files in it: what is said of one is said of what is installed.
/// From afar, its directory alone is asked.
///
/// # Errors
/// What readers would differ in.
fn check_wheel(source: &dyn ReadAt) -> Result<()> {
    let held = if source.is_near() { Archive::open(source) } else { Archive::directory(source) };
    held.map(drop).map_err(unfit)
}

/// Whether nobody asked to stop.
fn go_on() -> std::io::Result<()> {
    crate::platform::check_cancelled().map_err(|e| std::io::Error::new(std::io::ErrorKind::Interrupted, e.to_string()))
}

/// What the strict reader refuses is bad input as any other archive's.
fn unfit(e: torchmill_bytes::Error) -> Error {
    match e {
        torchmill_bytes::Error::Unfit(what) => broken(what),
        torchmill_bytes::Error::Io(e) => e.into(),
    }
}

/// A reader that gives as many bytes as the directory says, with its checksum, or an error.
struct Exactly<'a, R> {
    inner: R,
    left: u64,
    /// The CRC-32 that it should have, and the one of what was read; `None` where `inner` checks.
    crc: Option<(u32, crc32fast::Hasher)>,
    name: &'a str,
}

impl<R: Read> Read for Exactly<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let fail = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, format!("'{}' {what}", self.name));
        match self.left.checked_sub(n as u64) {
            None => Err(fail("unpacks to more than its directory says")),
            Some(left) if n == 0 && left > 0 && !buffer.is_empty() => {
                Err(fail("unpacks to less than its directory says"))
            }
            Some(left) => {
                self.left = left;
                if let Some((stated, crc)) = &mut self.crc {
                    crc.update(&buffer[..n]);
                    if left == 0 && crc.clone().finalize() != *stated {
                        return Err(fail("is damaged: its checksum is not what its directory says"));
                    }
                }
                Ok(n)
            }
        }
    }
}

fn tar_of(
    magic: &[u8],
    reader: impl Read,
    wanted: &dyn Fn(&Member) -> Want,
    each: &mut Visit<'_>,
) -> Result<Vec<Member>> {
    let reader = BufReader::with_capacity(1 << 18, reader);
    tar(decompress(magic, reader)?, wanted, each)
}

/// Undoes the compression that `magic` tells of.
fn decompress<'a>(magic: &[u8], reader: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(reader))
    } else if magic.starts_with(b"\xfd7zXZ\0") {
        Box::new(xz(reader).map_err(broken)?)
    } else if magic.starts_with(b"BZh") {
        Box::new(bzip2::bufread::MultiBzDecoder::new(reader))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(reader).map_err(broken)?)
    } else {
        Box::new(reader)
    })
}

fn tar(reader: impl Read, wanted: &dyn Fn(&Member) -> Want, each: &mut Visit<'_>) -> Result<Vec<Member>> {
    let mut archive = ::tar::Archive::new(Guarded::new(reader));
    let (mut members, mut read, mut names) = (Vec::new(), 0, 0);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().map_err(broken)?;
        let name = path.to_string_lossy().trim_start_matches("./").to_owned();
        let member = Member { name, size: entry.size() };
        if members.len() >= MOST_MEMBERS || member.size > LARGEST_MEMBER {
            return Err(broken(format_args!("'{}' is one member too many, or too large", member.name)));
        }
        names += member.name.len() as u64;
        if names > MOST_OF_DIRECTORY {
            return Err(broken(format_args!("the names of its members have more than {MOST_OF_DIRECTORY} bytes")));
        }
        let want = wanted(&member) != Want::Nothing;
        read += usize::from(want);
        few_enough(read)?;
        let stop = want && each(&member, &mut Content::plain(&mut entry))?.is_break();
        members.push(member);
        if stop {
            break;
        }
    }
    Ok(members)
}

/// The `data.tar.*` of an `ar` archive (deb(5)).
fn deb(source: &dyn ReadAt, wanted: &dyn Fn(&Member) -> Want, each: &mut Visit<'_>) -> Result<Vec<Member>> {
    let data = deb::data_tar(Cursor::new(source)).map_err(broken)?;
    let mut reader = BufReader::with_capacity(1 << 18, data);
    let magic = reader.fill_buf().map_err(broken)?.iter().take(8).copied().collect::<Vec<u8>>();
    tar(decompress(&magic, reader)?, wanted, each)
}

/// Visits the files below `root` of which `wanted` says so; names are relative to it. Links are
/// followed where they lead to files, as the loader does.
///
/// # Errors
/// If the folder cannot be read; or what `each` says.
pub fn visit_folder(root: &Path, wanted: &dyn Fn(&Member) -> Want, each: &mut Visit<'_>) -> Result<Vec<Member>> {
    let (mut members, mut read) = (Vec::new(), 0);
    let mut real = HashSet::new();
    for entry in walkdir::WalkDir::new(root).follow_links(true).sort_by_file_name() {
        let entry = match entry {
            Ok(entry) => entry,
            // A dangling link or a loop of links is nothing to inspect.
            Err(e) if e.loop_ancestor().is_some() || e.path().is_some_and(|p| p.is_symlink()) => continue,
            Err(e) => return Err(Error::world("io", e.to_string())),
        };
        if !entry.file_type().is_file() {
            continue;
        }
        // Of a file and the links to it, one counts.
        if !real.insert(fs_err::canonicalize(entry.path())?) {
            continue;
        }
        let name = below(root, entry.path());
        let size = entry.metadata().map_err(|e| Error::world("io", e.to_string()))?.len();
        let member = Member { name, size };
        if wanted(&member) != Want::Nothing {
            read += 1;
            few_enough(read)?;
            check_size(&member)?;
            let mut file = fs_err::File::open(entry.path())?;
            if each(&member, &mut Content::plain(&mut file))?.is_break() {
                members.push(member);
                break;
            }
        }
        members.push(member);
        if members.len() > MOST_MEMBERS {
            return Err(Error::misuse("container", format!("{} has more files than a torch has", root.display())));
        }
    }
    Ok(members)
}

/// Looks for class names in a packed member, and keeps nothing of it but its first bytes.
///
/// # Errors
/// If it is not what the directory says.
pub fn scan(member: &Member, packed: &Packed<'_>) -> Result<torchmill_bytes::inflate::Scanned> {
    torchmill_bytes::inflate::scan(packed).map_err(|e| {
        let e = if e.kind() == std::io::ErrorKind::InvalidData {
            broken(format_args!("'{}' {e}", member.name))
        } else {
            e.into()
        };
        e.doing(format!("reading '{}'", member.name))
    })
}

/// Copies a member to where it can be read at any offset, looking for class names on the way, and
/// hashing it where there is a `hash`.
///
/// # Errors
/// If it cannot be read to its end.
pub fn spill(
    member: &Member,
    reader: &mut dyn Read,
    mut hash: Option<&mut Sha256>,
) -> Result<(FileAt, Vec<torchmill_bytes::marker::Hit>)> {
    let mut scanner = torchmill_bytes::marker::Scanner::new();
    let mut seen = |bytes: &[u8]| {
        scanner.feed(bytes);
        if let Some(hash) = &mut hash {
            hash.update(bytes);
        }
    };
    let file = FileAt::spill(reader, LARGEST_MEMBER, &mut seen)
        .map_err(|e| if e.kind() == std::io::ErrorKind::StorageFull { e.into() } else { broken(e) })
        .doing(|| format!("reading '{}'", member.name))?;
    Ok((file, scanner.finish()))
}

/// The next bytes of a member: as many as `most`, or what is left.
///
/// # Errors
/// If it cannot be read.
pub fn first_bytes(member: &Member, reader: &mut dyn Read, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(most).read_to_end(&mut bytes).map_err(broken).doing(|| format!("reading '{}'", member.name))?;
    Ok(bytes)
}

/// All of a small text member.
///
/// # Errors
/// If it is larger than a source file is.
pub fn small_text(member: &Member, reader: &mut dyn Read) -> Result<String> {
    const LARGEST: u64 = 16 << 20;
    let bytes = first_bytes(member, reader, LARGEST + 1)?;
    if bytes.len() as u64 > LARGEST {
        return Err(broken(format_args!("'{}' is larger than such a file is", member.name)));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
