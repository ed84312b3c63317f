//! A wheel's archive, read so that no two readers can see different files in it: nothing stands
//! before, between or after its members, the headers in both places agree, each name means one file
//! everywhere, and sums are bounded (APPNOTE 6.3.10; what is legal there and ambiguous is refused).

use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufRead, BufReader, Read, Take};
use std::ops::Range;

use flate2::{Decompress, FlushDecompress, Status};
use rayon::prelude::*;

use crate::names;
use crate::read::{Cursor, ReadAt, fill, u16_at, u32_at, u64_at};
use crate::{Error, Result};

/// Most members: a torch wheel has about 15,000.
const MOST_MEMBERS: u64 = 400_000;
/// Most bytes of the directory.
const MOST_DIRECTORY: u64 = 128 << 20;
/// Most bytes of one member, unpacked: the largest library of a stock build has about 2 GiB.
const LARGEST_MEMBER: u64 = 8 << 30;
/// Most bytes of all members together.
const MOST_UNPACKED: u64 = 64 << 30;
/// Bytes of extra fields in front of a member that are read with its header, at first: what packers put there.
const LIKELY_EXTRA: u64 = 32;
/// Deflate makes at most this many bytes of one (zlib's "Maximum expansion factor").
const MOST_FROM_ONE: u64 = 1032;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
/// The newest version of the format that there is, 6.3, as a member says that it needs it (APPNOTE 4.4.3).
const NEEDED: u16 = 63;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR: u32 = 0x0706_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;

/// Bits of the flags that may be set: how hard deflate tried (1, 2), sizes follow the data (3), UTF-8 (11).
const KNOWN_FLAGS: u16 = 0b1000_0000_1110;
const FOLLOWS: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;

/// The system whose modes attributes hold (APPNOTE 4.4.2).
const UNIX: u8 = 3;

/// Extra fields: ZIP64 sizes, a comment and a second name in Unicode, AES encryption.
const ZIP64: u16 = 0x0001;
const UNICODE_COMMENT: u16 = 0x6375;
const UNICODE_PATH: u16 = 0x7075;
const AES: u16 = 0x9901;

/// An archive whose structure holds.
pub struct Archive<'a> {
    source: &'a dyn ReadAt,
    members: Vec<Member>,
    unpacked: u64,
}

/// A file or folder of the archive, as its central directory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path, with `/`; it ends with one for a folder.
    pub name: String,
    /// Bytes, unpacked.
    pub size: u64,
    packed: u64,
    crc: u32,
    stored: bool,
    flags: u16,
    /// The upper half of its attributes: a mode, as Unix has it, also where another system wrote it.
    mode: u16,
    /// By the number of APPNOTE 4.4.2.
    system: u8,
    header: u64,
    /// Where its bytes begin; known once the header in front of them was read.
    data: u64,
}

impl Member {
    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.name.ends_with('/')
    }

    /// Whether Unix wrote it, as it says itself.
    pub fn is_of_unix(&self) -> bool {
        self.system == UNIX
    }

    /// Whether an installer makes a program of the file; `None` where they differ: pip goes by the mode of what is called
    /// a regular file there, whatever system wrote it, and uv by the mode whatever kind of file it says, uv 0.9 by that of
    /// what Unix wrote, 0.13 whatever system did.
    pub fn is_program(&self) -> Option<bool> {
        let runs = self.mode & 0o111 != 0;
        let for_all = self.mode & 0o170_000 == 0o100_000 && self.is_of_unix();
        (!runs || for_all).then_some(runs)
    }
}

fn unfit(what: impl Into<String>) -> Error {
    Error::Unfit(what.into())
}

fn read(source: &dyn ReadAt, at: u64, length: u64, what: &str) -> Result<Vec<u8>> {
    let end = at.checked_add(length).filter(|end| *end <= source.size());
    let (Some(end), Ok(room)) = (end, usize::try_from(length)) else {
        return Err(unfit(format!("{what} lies past the end of the file")));
    };
    let mut bytes = vec![0; room];
    fill(source, at, end, &mut bytes)?;
    Ok(bytes)
}

/// Where the directory is.
struct Directory {
    at: u64,
    size: u64,
    count: u64,
}

impl<'a> Archive<'a> {
    /// Reads the directory and every header, and holds them against each other.
    ///
    /// # Errors
    /// [`Error::Unfit`]: what is ambiguous or broken in it. [`Error::Io`]: it cannot be read.
    pub fn open(source: &'a dyn ReadAt) -> Result<Self> {
        let mut archive = Self::directory(source)?;
        archive.check_headers()?;
        Ok(archive)
    }

    /// Reads the directory alone: what is asked of an archive whose bytes come from afar. Members of it
    /// cannot be read.
    ///
    /// # Errors
    /// As [`Archive::open`], for what the directory shows.
    pub fn directory(source: &'a dyn ReadAt) -> Result<Self> {
        let directory = find_directory(source)?;
        let bytes = read(source, directory.at, directory.size, "its directory")?;
        let mut members = Vec::with_capacity(usize::try_from(directory.count).unwrap_or_default());
        let mut at = 0;
        for _ in 0..directory.count {
            members.push(member(&bytes, &mut at)?);
        }
        if at != bytes.len() {
            return Err(unfit("its directory has more bytes than entries"));
        }
        unique(&members)?;
        let unpacked = bounded(&members)?;
        let mut archive = Self { source, members, unpacked };
        archive.check_places(directory.at)?;
        Ok(archive)
    }

    /// Its members, in the order of the directory.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Bytes of all members, unpacked.
    pub fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.name == name)
    }

    /// All of a member that must be small.
    ///
    /// # Errors
    /// [`Error::Unfit`]: it is larger than `most`, or damaged.
    pub fn small(&self, member: &Member, most: u64) -> Result<Vec<u8>> {
        if member.size > most {
            return Err(unfit(format!("'{}' has {} bytes; at most {most} are read", member.name, member.size)));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(member.size).unwrap_or_default());
        self.read(member).read_to_end(&mut bytes).map_err(damaged)?;
        Ok(bytes)
    }

    /// Reads a member. The reader fails where its size, its checksum or the end of its packed bytes is
    /// not what the headers say.
    pub fn read(&self, member: &'a Member) -> impl Read + use<'a> {
        read_member(self.source, member)
    }

    /// Where a member's packed bytes are, if they are a DEFLATE stream, and the CRC-32 of what they hold.
    pub fn deflated(&self, member: &Member) -> Option<(Range<u64>, u32)> {
        (!member.stored).then(|| (member.data..member.data + member.packed, member.crc))
    }

    /// No two members share bytes, and none stands between them: sorted by place, each begins where
    /// the one before ends, as far as that is known without reading the headers.
    fn check_places(&mut self, directory: u64) -> Result<()> {
        let mut places: Vec<(u64, u64)> =
            self.members.iter().map(|m| (m.header, m.header + 30 + m.name.len() as u64 + m.packed)).collect();
        places.sort_unstable();
        if places.first().is_some_and(|p| p.0 != 0) {
            return Err(unfit(format!("there are {} bytes before its first member", places[0].0)));
        }
        let nexts = places.iter().skip(1).map(|p| p.0).chain([directory]);
        if places.iter().zip(nexts).any(|(place, next)| place.1 > next) || places.is_empty() && directory != 0 {
            return Err(unfit("its members overlap, or run into the directory"));
        }
        Ok(())
    }

    /// Reads the header in front of each member: it says what the directory says, and each member ends
    /// where the next one begins.
    fn check_headers(&mut self) -> Result<()> {
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_unstable_by_key(|i| self.members[*i].header);
        let ends: Vec<u64> = order.iter().skip(1).map(|i| self.members[*i].header).collect();
        let end = find_directory(self.source)?.at;
        let nexts: Vec<u64> = ends.into_iter().chain([end]).collect();
        let check = |(i, next): (&usize, &u64)| check_header(self.source, &self.members[*i], *next);
        // The first member that is wrong is told, whichever is found first.
        let starts: Vec<Result<u64>> = order.par_iter().zip(&nexts).with_min_len(256).map(check).collect();
        for (i, start) in order.iter().zip(starts) {
            self.members[*i].data = start?;
        }
        Ok(())
    }
}

/// An error of reading a member, as bad input where it is that.
pub fn damaged(e: io::Error) -> Error {
    if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) {
        return unfit(e.to_string());
    }
    e.into()
}

/// The end of the directory stands at the end of the file, with nothing after it, and the directory
/// right before it.
fn find_directory(source: &dyn ReadAt) -> Result<Directory> {
    let size = source.size();
    // A remote source is asked for the end in one piece.
    source.expect(size.saturating_sub(1 << 20)..size);
    let Some(at) = size.checked_sub(22) else { return Err(unfit("it is too short for a zip archive")) };
    let end = read(source, at, 22, "its end")?;
    if u32_at(&end, 0) != END || u16_at(&end, 20) != 0 {
        return Err(unfit("no zip archive ends where the file ends: it is cut off, or something was put behind it"));
    }
    let (disk, of, here, all) = (u16_at(&end, 4), u16_at(&end, 6), u16_at(&end, 8), u16_at(&end, 10));
    let (length, offset) = (u32_at(&end, 12), u32_at(&end, 16));
    let locator = match at.checked_sub(20) {
        Some(at) => Some((at, read(source, at, 20, "its end")?)).filter(|(_, l)| u32_at(l, 0) == LOCATOR),
        None => None,
    };
    let full = here == u16::MAX || all == u16::MAX || length == u32::MAX || offset == u32::MAX;
    let (directory, before) = match locator {
        None if full => return Err(unfit("its end refers to a ZIP64 record that is not there")),
        None => {
            if (disk, of) != (0, 0) || here != all {
                return Err(unfit("it is one of several parts"));
            }
            (Directory { at: offset.into(), size: length.into(), count: all.into() }, at)
        }
        Some(_) if !full => return Err(unfit("it has a ZIP64 record that its end does not refer to")),
        Some((at, locator)) => (zip64_directory(source, &end, at, &locator)?, u64_at(&locator, 8)),
    };
    if directory.at.checked_add(directory.size) != Some(before) {
        return Err(unfit("its directory does not end where the record of its end begins"));
    }
    if directory.count > MOST_MEMBERS || directory.size > MOST_DIRECTORY {
        return Err(unfit(format!(
            "it has {} members in a directory of {} bytes; at most {MOST_MEMBERS} and {MOST_DIRECTORY} are read",
            directory.count, directory.size
        )));
    }
    // An entry has at least 46 bytes: a count that lies asks for no memory.
    if directory.count.saturating_mul(46) > directory.size {
        return Err(unfit("its directory is too short for the members that it counts"));
    }
    Ok(directory)
}

/// The ZIP64 record, which must say what the plain one says where that one says something.
fn zip64_directory(source: &dyn ReadAt, end: &[u8], locator_at: u64, locator: &[u8]) -> Result<Directory> {
    let at = u64_at(locator, 8);
    if u32_at(locator, 4) != 0 || u32_at(locator, 16) > 1 || at.checked_add(56) != Some(locator_at) {
        return Err(unfit("its ZIP64 record does not stand where it should"));
    }
    let record = read(source, at, 56, "its ZIP64 record")?;
    if u32_at(&record, 0) != END64 || u64_at(&record, 4) != 44 {
        return Err(unfit("its ZIP64 record is none"));
    }
    let (here, count) = (u64_at(&record, 24), u64_at(&record, 32));
    let (size, offset) = (u64_at(&record, 40), u64_at(&record, 48));
    let says = |plain: u64, full: u64, value: u64| plain == full || plain == value;
    let agree = u32_at(&record, 16) == 0
        && u32_at(&record, 20) == 0
        && here == count
        && [4, 6].iter().all(|at| matches!(u16_at(end, *at), 0 | u16::MAX))
        && [8, 10].iter().all(|at| says(u16_at(end, *at).into(), u16::MAX.into(), count))
        && says(u32_at(end, 12).into(), u32::MAX.into(), size)
        && says(u32_at(end, 16).into(), u32::MAX.into(), offset);
    if !agree {
        return Err(unfit("the two records of its end disagree"));
    }
    Ok(Directory { at: offset, size, count })
}

/// One entry of the directory, beginning at `at`, which moves on.
fn member(bytes: &[u8], at: &mut usize) -> Result<Member> {
    let cut = || unfit("its directory is cut off");
    let fixed = bytes.get(*at..*at + 46).ok_or_else(cut)?;
    if u32_at(fixed, 0) != CENTRAL {
        return Err(unfit("its directory holds something that is no entry"));
    }
    let lengths = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
    let rest = bytes.get(*at + 46..*at + 46 + lengths.iter().sum::<usize>()).ok_or_else(cut)?;
    *at += 46 + rest.len();
    let (raw, rest) = rest.split_at(lengths[0]);
    let extra = &rest[..lengths[1]];
    let flags = u16_at(fixed, 8);
    let name = name_of(raw, flags)?;
    if u16_at(fixed, 6) & 0xff > NEEDED {
        return Err(unfit(format!("'{}' needs a newer reader of zip files than there is", name.escape_debug())));
    }
    let bad = |what: &str| unfit(format!("'{}' {what}", name.escape_debug()));
    if lengths[2] > 0 {
        return Err(bad("has a comment"));
    }
    let stored = method(fixed, 10, flags).map_err(|what| bad(&what))?;
    let attributes = u32_at(fixed, 38);
    kind(&name, attributes).map_err(|what| bad(&what))?;
    let mut fields = [u32_at(fixed, 24), u32_at(fixed, 20), u32_at(fixed, 42)].map(u64::from);
    let mut disk = u32::from(u16_at(fixed, 34));
    if let Some(zip64) = extras(extra).map_err(|what| bad(&what))? {
        let mut zip64 = zip64;
        let mut used = false;
        for field in fields.iter_mut().filter(|f| **f == u64::from(u32::MAX)) {
            let (value, left) = zip64.split_at_checked(8).ok_or_else(|| bad("has a ZIP64 field that is too short"))?;
            (*field, zip64, used) = (u64_at(value, 0), left, true);
        }
        if disk == u32::from(u16::MAX) {
            let (value, left) = zip64.split_at_checked(4).ok_or_else(|| bad("has a ZIP64 field that is too short"))?;
            (disk, zip64, used) = (u32_at(value, 0), left, true);
        }
        if !zip64.is_empty() || !used {
            return Err(bad("has a ZIP64 field that says more than it is asked"));
        }
    } else if fields.contains(&u64::from(u32::MAX)) {
        return Err(bad("refers to a ZIP64 field that is not there"));
    }
    if disk != 0 {
        return Err(bad("is said to stand in another part"));
    }
    let [size, packed, header] = fields;
    let crc = u32_at(fixed, 16);
    if name.ends_with('/') && (size, packed, crc) != (0, 0, 0) {
        // An empty stream has two bytes; nothing is the only thing that a folder may hold.
        return Err(bad("is a folder that holds bytes"));
    }
    let (mode, system) = (u16_at(fixed, 40), fixed[5]);
    Ok(Member { name, size, packed, crc, stored, flags, mode, system, header, data: 0 })
}

fn name_of(raw: &[u8], flags: u16) -> Result<String> {
    let shown = || String::from_utf8_lossy(raw).escape_debug().to_string();
    let name = std::str::from_utf8(raw).map_err(|_| unfit(format!("the name '{}' is not UTF-8", shown())))?;
    if !name.is_ascii() && flags & UTF8 == 0 {
        return Err(unfit(format!("the name '{}' is not said to be UTF-8: readers would differ", shown())));
    }
    names::check(name).map_err(|why| unfit(format!("the name '{}' {why}", shown())))?;
    Ok(name.to_owned())
}

/// Whether a member is stored as it is; it must be that or deflated.
fn method(header: &[u8], at: usize, flags: u16) -> Result<bool, String> {
    if flags & 1 != 0 {
        return Err("is encrypted".into());
    }
    if flags & !KNOWN_FLAGS != 0 {
        return Err(format!("has flags ({flags:#06x}) that not every reader knows"));
    }
    match u16_at(header, at) {
        // Where a stored member ends cannot be told by reading it.
        0 if flags & FOLLOWS != 0 => Err("is stored, and its size follows its bytes".into()),
        0 => Ok(true),
        8 => Ok(false),
        other => Err(format!("is packed by method {other}, which not every reader knows")),
    }
}

/// A plain file, or a folder, by its attributes as by its name.
fn kind(name: &str, attributes: u32) -> Result<(), String> {
    const FOLDER: u32 = 0o040_000;
    let folder = name.ends_with('/');
    match (attributes >> 16) & 0o170_000 {
        0 => {}
        0o100_000 if !folder => {}
        FOLDER if folder => {}
        0o120_000 => return Err("is a symbolic link".into()),
        FOLDER => return Err("is a folder by its mode, and a file by its name".into()),
        other => return Err(format!("is no plain file (mode {other:o})")),
    }
    if attributes & 0x10 != 0 && !folder {
        return Err("is a folder by its attributes, and a file by its name".into());
    }
    if attributes >> 16 & 0o6000 != 0 {
        return Err("would run as its owner (set-user-ID)".into());
    }
    Ok(())
}

/// The content of the ZIP64 field among extra fields, which must all be whole, and each of a kind of its own: of two,
/// uv refuses the second, whatever it says, and pip reads both.
fn extras(mut bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    let (mut zip64, mut seen) = (None, BTreeSet::new());
    while !bytes.is_empty() {
        let length = usize::from(u16_at(bytes, 2));
        let field =
            bytes.get(4..4 + length).filter(|_| bytes.len() >= 4).ok_or("has an extra field that is cut off")?;
        let kind = u16_at(bytes, 0);
        if !seen.insert(kind) {
            return Err(format!("has two extra fields of one kind ({kind:#06x})"));
        }
        match kind {
            ZIP64 => zip64 = Some(field),
            UNICODE_COMMENT => return Err("has a comment (extra field 0x6375)".into()),
            UNICODE_PATH => return Err("has a second name (extra field 0x7075)".into()),
            AES => return Err("is encrypted".into()),
            _ => {}
        }
        bytes = &bytes[4 + length..];
    }
    Ok(zip64)
}

/// No two members are one file to any reader, and none is a file and a folder at once.
fn unique(members: &[Member]) -> Result<()> {
    let mut seen: HashMap<String, &Member> = HashMap::with_capacity(members.len());
    for member in members {
        let folded = names::fold(member.name.strip_suffix('/').unwrap_or(&member.name));
        if let Some(other) = seen.insert(folded, member) {
            return Err(unfit(format!(
                "'{}' and '{}' are one file to some reader or file system",
                other.name.escape_debug(),
                member.name.escape_debug()
            )));
        }
    }
    // Neighbours stand in one folder mostly: what was looked up for one is not for the next.
    let mut known = "";
    for member in members {
        let folder = member.name.strip_suffix('/').unwrap_or(&member.name).rsplit_once('/').map_or("", |(f, _)| f);
        if folder == known {
            continue;
        }
        known = folder;
        let name = names::fold(folder);
        for at in name.match_indices('/').map(|(at, _)| at).chain([name.len()]) {
            if let Some(above) = seen.get(&name[..at]).filter(|m| !m.is_folder()) {
                return Err(unfit(format!(
                    "'{}' is a file, and the folder of '{}'",
                    above.name.escape_debug(),
                    member.name.escape_debug()
                )));
            }
        }
    }
    Ok(())
}

/// The bytes of all members, unpacked: each as many as its packed bytes can hold, and all within bounds.
fn bounded(members: &[Member]) -> Result<u64> {
    let mut sum = 0u64;
    for m in members {
        let most = if m.stored { m.packed } else { m.packed.saturating_mul(MOST_FROM_ONE) };
        if m.size > most || m.stored && m.size != m.packed || m.size > LARGEST_MEMBER {
            return Err(unfit(format!(
                "'{}' is said to unpack to {} bytes; its {} packed ones cannot hold that, or it is larger than the {LARGEST_MEMBER} that are read",
                m.name.escape_debug(),
                m.size,
                m.packed
            )));
        }
        sum = sum.saturating_add(m.size);
        if m.header.checked_add(m.packed).is_none_or(|end| end > u64::MAX / 2) {
            return Err(unfit(format!("'{}' lies past the end of the file", m.name.escape_debug())));
        }
    }
    if sum > MOST_UNPACKED {
        return Err(unfit(format!("it unpacks to {sum} bytes; at most {MOST_UNPACKED} are read")));
    }
    Ok(sum)
}

/// Holds the header in front of `member` against the directory; where its bytes begin. They end, with
/// what may follow them, at `next`.
fn check_header(source: &dyn ReadAt, member: &Member, next: u64) -> Result<u64> {
    let bad = |what: &str| unfit(format!("'{}' {what}", member.name.escape_debug()));
    // Most headers are whole in what is read first: a source is asked once a member.
    let likely = (30 + member.name.len() as u64 + LIKELY_EXTRA).min(source.size().saturating_sub(member.header));
    let mut header = read(source, member.header, likely.max(30), "a member's header")?;
    if u32_at(&header, 0) != LOCAL {
        return Err(bad("has no header where the directory says"));
    }
    let lengths = [26, 28].map(|at| usize::from(u16_at(&header, at)));
    let (name, whole) = (30 + lengths[0], 30 + lengths[0] + lengths[1]);
    if whole > header.len() {
        header = read(source, member.header, whole as u64, "a member's header")?;
    }
    let (fixed, raw, extra) = (&header[..30], &header[30..name], &header[name..whole]);
    let flags = u16_at(fixed, 6);
    if raw != member.name.as_bytes() {
        return Err(bad(&format!("is called '{}' in front of its bytes", String::from_utf8_lossy(raw).escape_debug())));
    }
    if u16_at(fixed, 4) & 0xff > NEEDED {
        return Err(bad("needs a newer reader of zip files than there is, in front of its bytes"));
    }
    // How hard deflate tried is nobody's business.
    if (flags ^ member.flags) & (FOLLOWS | UTF8 | 1) != 0 || flags & !KNOWN_FLAGS != 0 {
        return Err(bad("has other flags in front of its bytes than in the directory"));
    }
    if method(fixed, 8, flags).map_err(|what| bad(&what))? != member.stored {
        return Err(bad("is packed otherwise in front of its bytes than in the directory"));
    }
    let crc = u32_at(fixed, 14);
    let (mut packed, mut size) = (u64::from(u32_at(fixed, 18)), u64::from(u32_at(fixed, 22)));
    let zip64 = extras(extra).map_err(|what| bad(&what))?;
    let elsewhere = [packed, size].map(|n| n == u64::from(u32::MAX));
    if let Some(zip64) = zip64 {
        // Both stand there, in this order, in front of the bytes (APPNOTE 4.5.3). Where the header has them itself, uv
        // holds them against it, and pip reads neither.
        let both = (u64_at(zip64, 8), u64_at(zip64, 0));
        match elsewhere {
            _ if zip64.len() != 16 => {
                return Err(bad("has a ZIP64 field in front of its bytes that is not both sizes"));
            }
            [true, true] => (packed, size) = both,
            [false, false] if (packed, size) == both => {}
            [false, false] => return Err(bad("has other sizes in a ZIP64 field than in the header before it")),
            _ => return Err(bad("has one size in a ZIP64 field and the other not")),
        }
    } else if elsewhere.contains(&true) {
        return Err(bad("refers to a ZIP64 field that is not there"));
    }
    let wide = zip64.is_some();
    let follows = flags & FOLLOWS != 0;
    let own = (member.crc, member.packed, member.size);
    if (crc, packed, size) != own && !(follows && (crc, packed, size) == (0, 0, 0)) {
        let how = if size < member.size { "less" } else { "more" };
        return Err(bad(&if size != member.size {
            format!("unpacks to {how} than its directory says: {size} bytes, as the header in front of them has it")
        } else {
            "has another packed size or checksum in front of its bytes than in the directory".to_owned()
        }));
    }
    let data = member.header + whole as u64;
    let end = data + member.packed;
    let Some(between) = next.checked_sub(end) else { return Err(bad("overlaps what follows it")) };
    match (follows, between) {
        (false, 0) => {}
        (false, n) => return Err(bad(&format!("is followed by {n} bytes that belong to nothing"))),
        (true, 12 | 16 | 20 | 24) => check_descriptor(&read(source, end, between, "what follows a member")?, own, wide)
            .map_err(|what| bad(&what))?,
        (true, _) => return Err(bad("is not followed by its sizes, as it says")),
    }
    Ok(data)
}

/// What follows a member's bytes says what the directory says.
fn check_descriptor(bytes: &[u8], own: (u32, u64, u64), wide: bool) -> std::result::Result<(), String> {
    let signed = matches!(bytes.len(), 16 | 24);
    if signed && u32_at(bytes, 0) != DESCRIPTOR {
        return Err("is not followed by its sizes, as it says".into());
    }
    let rest = &bytes[if signed { 4 } else { 0 }..];
    let said = if rest.len() == 12 {
        (u32_at(rest, 0), u32_at(rest, 4).into(), u32_at(rest, 8).into())
    } else {
        (u32_at(rest, 0), u64_at(rest, 4), u64_at(rest, 12))
    };
    if said != own || wide != (rest.len() == 20) {
        return Err("is followed by other sizes than the directory says".into());
    }
    Ok(())
}

fn read_member<'a>(source: &'a dyn ReadAt, member: &'a Member) -> Exactly<'a> {
    let mut cursor = Cursor::new(source);
    cursor.go_to(member.data);
    let piece = usize::try_from(member.packed).unwrap_or(usize::MAX).clamp(1 << 9, 1 << 18);
    Exactly {
        packed: BufReader::with_capacity(piece, cursor).take(member.packed),
        // None of it is needed for what is stored, and it is large.
        inflate: (!member.stored).then(|| Decompress::new(false)),
        ended: false,
        left: member.size,
        hash: crc32fast::Hasher::new(),
        member,
        done: false,
    }
}

/// A reader that gives what the headers say, or an error.
struct Exactly<'a> {
    packed: Take<BufReader<Cursor<'a>>>,
    inflate: Option<Decompress>,
    /// Whether the packed stream said that it ends.
    ended: bool,
    left: u64,
    hash: crc32fast::Hasher,
    member: &'a Member,
    done: bool,
}

impl Exactly<'_> {
    fn fail(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("'{}' {what}", self.member.name.escape_debug()))
    }

    /// The next bytes, unpacked; none at the end.
    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(inflate) = &mut self.inflate else { return self.packed.read(buffer) };
        while !self.ended {
            let input = self.packed.fill_buf()?;
            let (begun, given, cut) = (inflate.total_in(), inflate.total_out(), input.is_empty());
            let status = inflate.decompress(input, buffer, FlushDecompress::None);
            let used = usize::try_from(inflate.total_in() - begun).unwrap_or_default();
            let made = usize::try_from(inflate.total_out() - given).unwrap_or_default();
            self.packed.consume(used);
            match status {
                Ok(status) => self.ended = status == Status::StreamEnd,
                Err(e) => return Err(self.fail(&format!("is damaged: {e}"))),
            }
            if made > 0 {
                return Ok(made);
            }
            if cut && !self.ended {
                return Err(self.fail("is damaged: its packed bytes end too early"));
            }
        }
        Ok(0)
    }

    /// The end: all bytes were there, packed ones too, and their checksum is right.
    fn finish(&mut self) -> io::Result<()> {
        self.done = true;
        if self.left > 0 {
            return Err(self.fail("unpacks to less than its header says"));
        }
        if !self.packed.fill_buf()?.is_empty() {
            return Err(self.fail("has bytes behind the end of its packed ones"));
        }
        if self.hash.clone().finalize() != self.member.crc {
            return Err(self.fail("is damaged: its checksum is not what its header says"));
        }
        Ok(())
    }
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done || buffer.is_empty() {
            return Ok(0);
        }
        let n = self.next(buffer)?;
        if n == 0 {
            return self.finish().map(|()| 0);
        }
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => return Err(self.fail("unpacks to more than its header says")),
        }
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}
