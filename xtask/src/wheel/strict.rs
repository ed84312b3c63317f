//! A wheel as a whole, read so that what it is to one installer it is to every one: one `dist-info`
//! that fits the file's name, METADATA that agrees, RECORD complete both ways, and no two members
//! that land on one path. Held against pip and uv by `tests/wheels.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::str::FromStr;

use pep440_rs::VersionSpecifiers;
use pep508_rs::{VerbatimUrl, VersionOrUrl};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::record::{self, Digest};
use super::{Archive, Member, Metadata, Name, ReadAt, entry_points, names, normalize, pump};
use crate::error::{Error, Exit, Result};
use crate::recipe::{MOST_WEIGHT, compared_alike, first_line, requirement, weight};

fn unfit(what: impl Into<String>) -> Error {
    torchmill_bytes::Error::Unfit(what.into()).into()
}

fn damaged(e: std::io::Error) -> Error {
    torchmill_bytes::damaged(e).into()
}

/// Most bytes of METADATA and of WHEEL.
const MOST_METADATA: u64 = 4 << 20;
/// Most bytes of RECORD.
const MOST_RECORD: u64 = 64 << 20;
/// Most files that RECORD lists and the wheel lacks, of which each is told.
const MOST_MISSING: usize = 100;
/// What the first line of a script begins with in which installers write the Python that it is installed for.
const ANY_PYTHON: &[u8] = b"#!python";
/// Members larger than this are hashed in a thread of their own.
const LARGE: u64 = 2 << 20;
/// Files of `dist-info` that an installer writes; in a wheel, one installer would keep them and another not.
const INSTALLERS: [&str; 5] = ["INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"];
/// Files of `dist-info` that installers look for by these names; by another spelling only some systems find them.
const LOOKED_FOR: [&str; 6] = ["METADATA", "WHEEL", "RECORD", "RECORD.jws", "RECORD.p7s", ENTRY_POINTS];
const ENTRY_POINTS: &str = "entry_points.txt";
/// Headers of METADATA that installers act upon.
const ACTED_UPON: [&str; 3] = ["Requires-Dist", "Requires-Python", "Provides-Extra"];
/// What names end with among the packages that Python, pip or setuptools take for another distribution's.
const OF_OTHERS: [&str; 3] = [".egg-info", ".egg-link", ".egg"];
/// Endings of what both pip and uv take for an archive to install from; uv goes by nothing else.
const ARCHIVES: [&str; 12] =
    [".whl", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.lz", ".tlz", ".tar.lzma"];
/// Schemes of addresses of repositories that both pip and uv read.
const REPOSITORIES: [&str; 4] = ["git+https", "git+http", "git+ssh", "git+file"];
/// Folders of `NAME-VERSION.data` (the binary distribution format, "The .data directory").
const SCHEMES: [&str; 5] = ["purelib", "platlib", "headers", "scripts", "data"];

/// A wheel whose structure holds; what its members' bytes are, [`Wheel::faults`] tells.
pub struct Wheel<'a> {
    archive: Archive<'a>,
    dist_info: String,
    metadata: Vec<u8>,
    headers: Metadata,
}

impl<'a> Wheel<'a> {
    /// Reads the wheel `name` in `source`.
    ///
    /// # Errors
    /// Bad input: what readers would differ in, or what is missing. The world: it cannot be read.
    pub fn open(name: &Name, source: &'a dyn ReadAt) -> Result<Self> {
        let archive = Archive::open(source)?;
        let dist_info = dist_info(&archive)?;
        programs_by_mode(&archive, name)?;
        let (metadata, headers) = metadata(&archive, &dist_info, name)?;
        fits(&dist_info, name)?;
        wheel_version(&archive, &dist_info)?;
        targets(&archive, &dist_info, &programs(&archive, &dist_info)?, is_for_windows(name))?;
        Ok(Self { archive, dist_info, metadata, headers })
    }

    /// All files and folders, in the order of the central directory.
    pub fn members(&self) -> &[Member] {
        self.archive.members()
    }

    /// The zip archive that it is.
    pub fn archive(&self) -> &Archive<'a> {
        &self.archive
    }

    /// The name of its `dist-info` folder.
    pub fn dist_info(&self) -> &str {
        &self.dist_info
    }

    /// METADATA, as it stands there.
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// METADATA's headers.
    pub fn headers(&self) -> &Metadata {
        &self.headers
    }

    /// What is wrong with RECORD and with what it tells of; nothing, where it holds. Every member is read to its end,
    /// unless RECORD cannot be read or lists a file twice.
    ///
    /// # Errors
    /// The world: it cannot be read.
    pub fn faults(&self) -> Result<Vec<String>> {
        let path = format!("{}/RECORD", self.dist_info);
        let Some(record) = self.archive.member(&path) else { return Ok(vec!["the wheel has no RECORD".into()]) };
        let text = match self.archive.small(record, MOST_RECORD) {
            Ok(bytes) => String::from_utf8(bytes).ok(),
            Err(torchmill_bytes::Error::Unfit(_)) => None,
            Err(e) => return Err(e.into()),
        };
        let Some(text) = text else {
            return Ok(vec![format!("{path} cannot be read: damaged, too large, or not UTF-8")]);
        };
        let entries = match record::parse(&text) {
            Ok(entries) => entries,
            Err(why) => return Ok(vec![why]),
        };
        let mut stated: BTreeMap<&str, &record::Entry> = BTreeMap::new();
        for entry in &entries {
            if stated.insert(&entry.path, entry).is_some() {
                return Ok(vec![format!("RECORD lists '{}' twice", entry.path.escape_debug())]);
            }
        }
        let there: BTreeSet<&str> = self.members().iter().filter(|m| !m.is_folder()).map(|m| m.name.as_str()).collect();
        let missing = stated.keys().filter(|path| !there.contains(**path)).take(MOST_MISSING);
        let mut wrong: Vec<String> =
            missing.map(|p| format!("RECORD lists '{}', which is missing", p.escape_debug())).collect();
        if !stated.contains_key(path.as_str()) {
            wrong.push("RECORD does not list itself".into());
        }
        // The largest first: it takes longest.
        let mut members: Vec<&Member> = self.members().iter().collect();
        members.sort_by_key(|m| std::cmp::Reverse(m.size));
        let found: Vec<Option<String>> =
            members.par_iter().with_max_len(1).map(|m| self.fault(m, &path, &stated)).collect::<Result<_>>()?;
        wrong.extend(found.into_iter().flatten());
        Ok(wrong)
    }

    fn fault(&self, member: &Member, record: &str, stated: &BTreeMap<&str, &record::Entry>) -> Result<Option<String>> {
        let name = member.name.escape_debug();
        let own =
            member.name == record || member.name.strip_prefix(record).is_some_and(|x| matches!(x, ".jws" | ".p7s"));
        // Signatures over RECORD and RECORD itself stand there without digests, or not at all; folders neither.
        if own && stated.get(member.name.as_str()).is_some_and(|e| e.digest.is_some() || e.size.is_some()) {
            return Ok(Some(format!("RECORD states a digest or a size for '{name}', which comes after it")));
        }
        if own || member.is_folder() {
            return match self.digest(member, &None) {
                Ok(_) => Ok(None),
                Err(e) if e.exit() == Exit::Misuse => Ok(Some(e.what().to_owned())),
                Err(e) => Err(e),
            };
        }
        let Some(entry) = stated.get(member.name.as_str()) else {
            return Ok(Some(format!("'{name}' is in the wheel and not in RECORD")));
        };
        let (Some(digest), Some(size)) = (&entry.digest, entry.size) else {
            return Ok(Some(format!("RECORD states no digest or no size for '{name}'")));
        };
        if size != member.size {
            return Ok(Some(format!("'{name}' has not the {size} bytes that RECORD says")));
        }
        match self.digest(member, &entry.digest) {
            Ok(Some(found)) if found == *digest => Ok(None),
            Ok(found) => {
                let (kind, says) = digest.shown();
                let has = found.map(|d| d.shown().1).unwrap_or_default();
                Ok(Some(format!("'{name}' has the {kind} {has}; RECORD says {says}")))
            }
            Err(e) if e.exit() == Exit::Misuse => Ok(Some(e.what().to_owned())),
            Err(e) => Err(e),
        }
    }

    /// Reads a member to its end, and hashes it as `like` was.
    fn digest(&self, member: &Member, like: &Option<Digest>) -> Result<Option<Digest>> {
        let mut hash = match like {
            None => Hash::None,
            Some(Digest::Sha256(_)) => Hash::Sha256(Sha256::new()),
            Some(Digest::Sha384(_)) => Hash::Sha384(Sha384::new()),
            Some(Digest::Sha512(_)) => Hash::Sha512(Sha512::new()),
        };
        let mut reader = self.archive.read(member);
        // Worth a thread of its own?
        if member.size > LARGE {
            pump(&mut reader, member.size, &mut |piece| {
                hash.update(piece);
                Ok(())
            })
            .map_err(damaged)?;
        } else {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map_err(damaged)?;
            hash.update(&bytes);
        }
        Ok(hash.finish())
    }
}

/// Faults as one text: the first few, and how many more there are.
pub fn listed(mut faults: Vec<String>) -> String {
    const SHOWN: usize = 8;
    let more = faults.len().saturating_sub(SHOWN);
    faults.truncate(SHOWN);
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    faults.join("; ")
}

enum Hash {
    None,
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hash {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Sha256(h) => h.update(bytes),
            Self::Sha384(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    fn finish(self) -> Option<Digest> {
        match self {
            Self::None => None,
            Self::Sha256(h) => Some(Digest::Sha256(h.finalize().into())),
            Self::Sha384(h) => Some(Digest::Sha384(h.finalize().into())),
            Self::Sha512(h) => Some(Digest::Sha512(h.finalize().into())),
        }
    }
}

/// The name of the one `dist-info` folder.
fn dist_info(archive: &Archive<'_>) -> Result<String> {
    // By any spelling: on a file system that ignores case, `X.DIST-INFO` is one too.
    // And a file of such a name is a second one to pip.
    let tops: BTreeSet<&str> =
        archive.members().iter().map(|m| m.name.split_once('/').map_or(m.name.as_str(), |(top, _)| top)).collect();
    // One dist-info is one distribution only where nothing else counts as one: these are read by their names.
    if let Some(other) = tops.iter().find(|top| is_of_another(top)) {
        return Err(unfit(format!("'{}' would be taken for another package that is installed", other.escape_debug())));
    }
    let found: Vec<&str> = tops.into_iter().filter(|top| names::fold(top).ends_with(".dist-info")).collect();
    let [one] = found[..] else {
        return Err(unfit(format!("it holds {} folders *.dist-info, not one", found.len())));
    };
    for member in archive.members() {
        let Some(file) = member.name.strip_prefix(one).and_then(|rest| rest.strip_prefix('/')) else { continue };
        let is = |known: &&&str| names::fold(file) == names::fold(known);
        if INSTALLERS.iter().any(|known| is(&known)) {
            return Err(unfit(format!("it holds {one}/{file}, which installers write and no wheel may bring")));
        }
        if let Some(known) = LOOKED_FOR.iter().find(is).filter(|known| **known != file) {
            return Err(unfit(format!("it holds {one}/{file}, which only some readers take for {known}")));
        }
    }
    Ok(one.to_owned())
}

/// Whether what is called so among the packages is another distribution than the one of `dist-info`.
fn is_of_another(top: &str) -> bool {
    let folded = names::fold(top);
    OF_OTHERS.iter().any(|ending| folded.ends_with(ending))
}

/// No file is a program to one installer only. Windows writes modes of which nobody may run the file (0o100666,
/// 0o100664: pip 23.2.1, PyYAML 6.0.2 and others that were looked at), and there they mean nothing to any installer.
/// What Unix wrote without saying that it is a regular file stays (protobuf 5.28.3 has 0o777 throughout): the same files,
/// of which uv alone makes programs.
fn programs_by_mode(archive: &Archive<'_>, name: &Name) -> Result<()> {
    if is_for_windows(name) {
        return Ok(());
    }
    let differs = |m: &&Member| !m.is_folder() && !m.is_of_unix() && m.is_program().is_none();
    match archive.members().iter().find(differs) {
        Some(m) => Err(unfit(format!(
            "'{}' has the mode of a program and was not written on Unix: some installers make one of it, others do not",
            m.name.escape_debug()
        ))),
        None => Ok(()),
    }
}

/// Whether nobody installs it but on Windows.
fn is_for_windows(name: &Name) -> bool {
    name.platform.split('.').all(|platform| platform.starts_with("win"))
}

/// The programs that installers make of its entry points.
fn programs(archive: &Archive<'_>, dist_info: &str) -> Result<Vec<String>> {
    let name = format!("{dist_info}/{ENTRY_POINTS}");
    let Some(member) = archive.member(&name) else { return Ok(Vec::new()) };
    entry_points::programs(&archive.small(member, MOST_METADATA)?).map_err(|why| unfit(format!("its {name} {why}")))
}

/// The folder is called as the file is: some installers go by the one, some by the other. Tags are in small letters: in
/// capitals pip knows them, and uv does not. pip refuses a name with `__` from 25.3 on (`parse_wheel_filename`), and uv takes
/// it.
fn fits(dist_info: &str, name: &Name) -> Result<()> {
    if name.distribution.contains("__") {
        let what =
            format!("its file name calls it '{}', and only some installers read two '_' in a row", name.distribution);
        return Err(unfit(what));
    }
    let tag = name.tag();
    if tag.chars().any(|c| c.is_ascii_uppercase()) {
        let what =
            format!("the tags in its file name, {tag}, are not in small letters, and only some installers know them");
        return Err(unfit(what));
    }
    let stem = dist_info.strip_suffix(".dist-info").and_then(|stem| stem.split_once('-'));
    if stem.is_some_and(|(own, version)| name.is_of(own, version)) {
        return Ok(());
    }
    Err(unfit(format!(
        "its folder '{dist_info}' is not that of {} {}, which its file name says",
        name.project, name.version
    )))
}

/// METADATA, whose name and version are those of the file's name.
fn metadata(archive: &Archive<'_>, dist_info: &str, name: &Name) -> Result<(Vec<u8>, Metadata)> {
    let Some(member) = archive.member(&format!("{dist_info}/METADATA")) else {
        return Err(unfit("it has no METADATA"));
    };
    let bytes = archive.small(member, MOST_METADATA)?;
    let headers = Metadata::parse(&bytes).map_err(|why| unfit(format!("its METADATA cannot be read: {why}")))?;
    let one = |key| headers.one(key).map_err(|why| unfit(format!("its METADATA cannot be read: {why}")));
    one("Metadata-Version")?;
    let (own, version) = (one("Name")?, one("Version")?);
    let disagree = |what: &str, own: &str, said: &str| {
        unfit(format!("its METADATA says {what} {}, its file name {said}", own.escape_debug()))
            .next("a wheel is renamed by building it again, not by moving the file")
    };
    // What is a blank or a letter to some only is cut off or folded by some only.
    if normalize(own) != name.project || !own.is_ascii() {
        return Err(disagree("Name", own, &name.project));
    }
    if !name.is_of(own, version) || !version.is_ascii() {
        return Err(disagree("Version", version, &name.version));
    }
    // Of several, one installer takes the first and another one the last.
    if headers.all("Requires-Python").count() > 1 {
        return Err(unfit("its METADATA has Requires-Python more than once"));
    }
    if headers.all("Requires-Dist").map(weight).fold(0, u64::saturating_add) > MOST_WEIGHT {
        return Err(unfit("its METADATA has more markers than can be understood within bounds"));
    }
    for (key, value) in ACTED_UPON.iter().flat_map(|key| headers.all(key).map(move |value| (key, value))) {
        // What e-mails mean by this (RFC 2047) one installer reads, and another takes for the text itself.
        if value.contains("=?") {
            return Err(unfit(format!("its METADATA has a {key} in code: '{}'", value.escape_debug())));
        }
        // One installer reads across the end of a line, another gives up there.
        if value.contains('\n') {
            return Err(unfit(format!("its METADATA has a {key} over several lines: '{}'", value.escape_debug())));
        }
        // Some readers put in what the environment says, the library below among them: a secret, maybe.
        if value.contains("${") {
            return Err(unfit(format!(
                "its METADATA has a {key} that names a variable of the environment: '{}'",
                value.escape_debug()
            )));
        }
        let (what, read) = match *key {
            "Requires-Dist" => (
                "requirement (PEP 508)",
                requirement(value).and_then(|r| {
                    compared_alike(value)?;
                    match &r.version_or_url {
                        Some(VersionOrUrl::Url(url)) => address(url),
                        _ => Ok(()),
                    }
                }),
            ),
            "Requires-Python" => (
                "range of versions (PEP 440)",
                VersionSpecifiers::from_str(value).map(drop).map_err(|e| first_line(&e)),
            ),
            _ => continue,
        };
        read.map_err(|why| unfit(format!("its {key} '{}' is no {what}: {why}", value.escape_debug())))?;
    }
    Ok((bytes, headers))
}

/// An address that something is required from, if all installers can read it.
///
/// # Errors
/// Why one of them cannot, or takes it for another.
fn address(url: &VerbatimUrl) -> std::result::Result<(), String> {
    let text = url.given().unwrap_or_else(|| url.as_str());
    // Those of RFC 3986 ("Characters"): others end it for some, or are put in another form.
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c);
    if let Some(c) = text.chars().find(|c| !fits(*c)) {
        return Err(format!("its address holds {c:?}"));
    }
    match url.scheme() {
        "http" | "https" => {
            let file = url.path().rsplit('/').next().unwrap_or_default();
            if ARCHIVES.iter().any(|ending| file.strip_suffix(*ending).is_some_and(|stem| !stem.is_empty())) {
                return Ok(());
            }
            Err("its address does not end as that of an archive, and uv takes it for none".into())
        }
        "file" if text.starts_with("file:/") && url.host_str().is_none() => Ok(()),
        "file" => Err("its address names no file of this machine by its whole path".into()),
        scheme if REPOSITORIES.contains(&scheme) => Ok(()),
        scheme => Err(format!("uv knows no addresses that begin with {scheme}:")),
    }
}

/// WHEEL is there, and of a version that is read here and everywhere.
fn wheel_version(archive: &Archive<'_>, dist_info: &str) -> Result<()> {
    let Some(member) = archive.member(&format!("{dist_info}/WHEEL")) else {
        return Err(unfit(format!("it has no {dist_info}/WHEEL")));
    };
    let bytes = archive.small(member, MOST_METADATA)?;
    let bad = |why: String| unfit(format!("its WHEEL cannot be read: {why}"));
    let headers = Metadata::parse(&bytes).map_err(bad)?;
    // By another case pip finds them, and uv does not.
    for known in ["Wheel-Version", "Root-Is-Purelib"] {
        if let Some((key, _)) = headers.iter().find(|(key, _)| *key != known && key.eq_ignore_ascii_case(known)) {
            return Err(bad(format!("its '{key}' is not spelled {known}, and only some installers find it")));
        }
    }
    let version = headers.one("Wheel-Version").map_err(bad)?;
    // Of thousands of digits Python makes no number, and pip gives up.
    let known = version.split_once('.').is_some_and(|(major, minor)| {
        major == "1" && (1..=9).contains(&minor.len()) && minor.bytes().all(|b| b.is_ascii_digit())
    });
    if !known {
        return Err(bad(format!("its version is '{}'; 1.0 is known", version.escape_debug())));
    }
    match headers.one("Root-Is-Purelib").map_err(bad)? {
        "true" | "false" => Ok(()),
        other => Err(bad(format!("Root-Is-Purelib is '{}', neither true nor false", other.escape_debug()))),
    }
}

/// No two members land on one path once they are installed, none where another one needs a folder, and none where an
/// installer puts a program.
fn targets(archive: &Archive<'_>, dist_info: &str, programs: &[String], for_windows: bool) -> Result<()> {
    let data = format!("{}.data", dist_info.trim_end_matches(".dist-info"));
    let mut landed: BTreeMap<String, &str> = BTreeMap::new();
    for program in programs {
        // With the endings that it has on Windows too, where setuptools put a second file beside it: installers leave out
        // what is called so.
        let paths = ["", ".exe", "-script.py", ".pya"].map(|ending| format!("scripts/{program}{ending}"));
        if paths.iter().any(|path| landed.insert(names::fold(path), ENTRY_POINTS).is_some()) {
            return Err(unfit(format!("its {ENTRY_POINTS} makes the program '{}' twice", program.escape_debug())));
        }
    }
    for member in archive.members() {
        let target = target(&member.name, &data).map_err(unfit)?;
        if compiled(&target) && !is_harmless_cache(archive, member)? {
            return Err(unfit(format!(
                "'{}' is compiled Python in a cache: one installer compiles it anew, another keeps it, and Python runs it \
                 whatever its source says",
                member.name.escape_debug()
            )));
        }
        if is_script(&member.name, &data) && !has_one_first_line(archive, member, for_windows)? {
            return Err(unfit(format!(
                "the first line of '{}', in which installers name the Python, holds more than '#!python' or has no end: \
                 some keep the rest, others do not",
                member.name.escape_debug()
            )));
        }
        if let Some(other) = landed.insert(names::fold(&target), &member.name).filter(|_| !member.is_folder()) {
            return Err(unfit(format!(
                "'{}' and '{}' are installed to one path",
                other.escape_debug(),
                member.name.escape_debug()
            )));
        }
    }
    // That no name is a file and a folder, the archive's reader has seen to; two that come together here may be.
    let in_the_way = landed.iter().filter(|(path, _)| !path.ends_with('/')).find_map(|(path, file)| {
        let folder = format!("{path}/");
        let (below, other) = landed.range(folder.clone()..).next()?;
        below.starts_with(&folder).then_some((file, other))
    });
    if let Some((file, other)) = in_the_way {
        return Err(unfit(format!(
            "'{}' is installed as a file, where '{}' needs a folder",
            file.escape_debug(),
            other.escape_debug()
        )));
    }
    Ok(())
}

/// Whether a member of the folder `data` is a script: installers look at what it begins with.
fn is_script(name: &str, data: &str) -> bool {
    let below = name.strip_prefix(data).and_then(|rest| rest.strip_prefix("/scripts/"));
    below.is_some_and(|below| !below.is_empty())
}

/// Whether a script's first line is the same to all installers, where it begins with `#!python` (or `#!pythonw`) and they
/// name their Python there: pip (`fix_script`) writes the whole line anew, up to the first `\n`, and uv (`install_script`)
/// what it begins with alone, so that options and a `\r` stay, and gives up where nothing follows. On Windows `\r\n` ends
/// every line.
///
/// # Errors
/// Bad input: the member is damaged.
fn has_one_first_line(archive: &Archive<'_>, member: &Member, for_windows: bool) -> Result<bool> {
    let mut begin = Vec::new();
    archive.read(member).take(ANY_PYTHON.len() as u64 + 3).read_to_end(&mut begin).map_err(damaged)?;
    let Some(rest) = begin.strip_prefix(ANY_PYTHON) else { return Ok(true) };
    let rest = rest.strip_prefix(b"w").unwrap_or(rest);
    Ok(rest.starts_with(b"\n") || for_windows && rest.starts_with(b"\r\n"))
}

/// Whether Python takes a file for what it compiled itself: `__pycache__/NAME.TAG.pyc` (PEP 3147). Compiled modules that
/// stand where their source would are packages' own.
fn compiled(target: &str) -> bool {
    let folded = names::fold(target);
    folded.ends_with(".pyc") && folded.rsplit('/').nth(1) == Some("__pycache__")
}

/// Whether a cache belongs to a source of the wheel and is one that Python holds against it before it runs it, by time and
/// size (PEP 552): installed anew, the source has another time. numpy's wheels for Python 3.11 bring such a one.
///
/// # Errors
/// Bad input: the member is damaged.
fn is_harmless_cache(archive: &Archive<'_>, member: &Member) -> Result<bool> {
    let Some((folder, file)) = member.name.rsplit_once("/__pycache__/") else { return Ok(false) };
    let module = file.split('.').next().unwrap_or(file);
    if archive.member(&format!("{folder}/{module}.py")).is_none() {
        return Ok(false);
    }
    let mut header = [0; 8];
    let is_whole = archive.read(member).read_exact(&mut header).is_ok();
    Ok(is_whole && is_held_against_its_time(header))
}

/// Whether the head of a `.pyc`, magic number and flags, says that it goes by its source's time and size: not by a digest,
/// which may be left unchecked (PEP 552).
fn is_held_against_its_time([_, _, return_, newline, flags @ ..]: [u8; 8]) -> bool {
    [return_, newline] == *b"\r\n" && flags == [0; 4]
}

/// Whether a folder is called after a version of Python: `python3.11`, `python3.14t`.
fn is_of_python(folder: &str) -> bool {
    let minor = folder.strip_prefix("python3.").map(|minor| minor.strip_suffix('t').unwrap_or(minor));
    minor.is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether each environment has a folder at this path, of small letters: no installer can put a file there.
fn is_folder_everywhere(path: &str) -> bool {
    ["bin", "include", "lib", "scripts"].contains(&path) || path.strip_prefix("lib/").is_some_and(is_of_python)
}

/// Where a member is installed: a path that begins with its scheme (`lib`, `scripts`, `headers`, `data`).
///
/// # Errors
/// A member of a `*.data` folder that one installer would put elsewhere than another.
pub fn target(name: &str, data: &str) -> std::result::Result<String, String> {
    let shown = name.escape_debug();
    let (top, rest) = name.split_once('/').unwrap_or((name, ""));
    if !names::fold(top).ends_with(".data") {
        return Ok(format!("lib/{name}"));
    }
    if top != data {
        return Err(format!(
            "'{shown}' stands in a data folder that is not '{data}': installers differ in what that is"
        ));
    }
    let (scheme, rest) = rest.split_once('/').unwrap_or((rest, ""));
    if scheme.is_empty() {
        if !name.ends_with('/') {
            return Err(format!("'{shown}' is a file by the name of the data folder: some installers break off there"));
        }
        return Ok(name.to_owned()); // the folder itself
    }
    if !SCHEMES.contains(&scheme) || !name.ends_with('/') && rest.is_empty() {
        return Err(format!("'{shown}' stands in the data folder and in none of {}", SCHEMES.join(", ")));
    }
    if scheme == "data" {
        // Where a system has both, an environment's lib64 is a link to its lib.
        let (first, below) = rest.split_once('/').unwrap_or((rest, ""));
        let rest = if names::fold(first) == "lib64" { format!("lib/{below}") } else { rest.to_owned() };
        let folded = names::fold(&rest);
        if !name.ends_with('/') && is_folder_everywhere(folded.trim_end_matches('/')) {
            return Err(format!("'{shown}' is a file by the name of a folder that every environment has"));
        }
        if folded.split('/').any(|s| s == "site-packages" || s == "dist-packages") {
            return Err(format!("'{shown}' would be installed among the packages by way of the data folder"));
        }
        if folded.starts_with("include/site/") {
            return Err(format!("'{shown}' would be installed among the headers by way of the data folder"));
        }
        for programs in ["bin/", "scripts/"] {
            if let Some(program) = folded.strip_prefix(programs).filter(|p| !p.is_empty()) {
                entry_points::program(program).map_err(|what| format!("'{shown}' {what}"))?;
                return Ok(format!("scripts/{program}"));
            }
        }
        // uv's folder of a project's headers, which pip has below include/site/.
        let mut parts = folded.splitn(4, '/');
        if let (Some("include"), Some(python), Some(_), Some(header)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
            && is_of_python(python)
            && !header.is_empty()
        {
            return Ok(format!("headers/{header}"));
        }
        return Ok(format!("data/{rest}"));
    }
    if scheme == "scripts" && !rest.is_empty() {
        entry_points::program(rest).map_err(|what| format!("'{shown}' {what}"))?;
    }
    if matches!(scheme, "purelib" | "platlib") {
        let top = names::fold(rest.split('/').next().unwrap_or_default());
        if [".dist-info", ".data"].iter().any(|ending| top.ends_with(ending)) || is_of_another(&top) {
            return Err(format!("'{shown}' would be installed as another {top} by way of the data folder"));
        }
    }
    let scheme = if matches!(scheme, "purelib" | "platlib") { "lib" } else { scheme };
    Ok(format!("{scheme}/{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_goes_by_its_sources_time_is_told_from_one_that_goes_by_a_digest() {
        assert!(is_held_against_its_time(*b"\xa7\x0d\r\n\0\0\0\0"));
        for flags in [1_u32, 2, 3] {
            let [a, b, c, d] = flags.to_le_bytes();
            assert!(!is_held_against_its_time([0xa7, 13, b'\r', b'\n', a, b, c, d]));
        }
        assert!(!is_held_against_its_time(*b"#!python"));
    }

    #[test]
    fn members_of_a_data_folder_land_where_their_scheme_says() {
        let at = |name: &str| target(name, "demo-1.0.data");
        assert_eq!(at("demo/a.py").unwrap(), "lib/demo/a.py");
        assert_eq!(at("demo-1.0.data/purelib/demo/a.py").unwrap(), "lib/demo/a.py");
        assert_eq!(at("demo-1.0.data/scripts/x").unwrap(), at("demo-1.0.data/data/bin/x").unwrap());
        assert!(at("demo-1.0.data/").is_ok() && at("demo-1.0.data/scripts/").is_ok());
        for bad in [
            "other-1.0.data/purelib/a.py",
            "demo-1.0.DATA/purelib/a.py",
            "demo-1.0.data/elsewhere/a.py",
            "demo-1.0.data/a.py",
            "demo-1.0.data/purelib",
            "demo-1.0.data",
            "demo-1.0.data/data/lib/python3.11/site-packages/demo/a.py",
            "demo-1.0.data/data/include/site/python3.11/demo/a.h",
            "demo-1.0.data/data/bin/python3",
            "demo-1.0.data/scripts/sub/x",
            "demo-1.0.data/scripts/Python",
            "demo-1.0.data/purelib/other-1.0.dist-info/METADATA",
            "demo-1.0.data/purelib/Other.egg-info",
            "demo-1.0.data/platlib/other-1.0.EGG-INFO/PKG-INFO",
            "demo-1.0.data/purelib/other.egg-link",
            "demo-1.0.data/data/bin",
            "demo-1.0.data/data/Lib",
            "demo-1.0.data/data/lib64",
            "demo-1.0.data/data/lib64/python3.11",
            "demo-1.0.data/data/LIB64/python3.11/site-packages/demo/a.py",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
        for (one, other) in [
            ("data/lib64/python3.11/x", "data/lib/python3.11/x"),
            ("headers/demo.h", "data/include/python3.11/demo/demo.h"),
        ] {
            let [one, other] = [one, other].map(|path| at(&format!("demo-1.0.data/{path}")).unwrap());
            assert_eq!(one, other);
        }
        assert_eq!(at("demo-1.0.data/data/include/demo/demo.h").unwrap(), "data/include/demo/demo.h");
        assert!(at("demo-1.0.data/data/lib/").is_ok() && at("demo-1.0.data/data/lib/demo").is_ok());
        assert!(at("demo-1.0.data/purelib/demo/other.egg-info/PKG-INFO").is_ok());
    }

    #[test]
    fn addresses_are_those_that_all_installers_read() {
        let read = |text: &str| match requirement(text).unwrap().version_or_url {
            Some(VersionOrUrl::Url(url)) => address(&url),
            _ => panic!("{text} names no address"),
        };
        for good in [
            "foo @ https://h/foo-1.0-py3-none-any.whl",
            "foo[a]@https://u:p@h/a;b/foo-1.0.tar.gz?c=d#sha256=ab ; python_version > \"3\"",
            "foo @ git+https://h/r@main#subdirectory=x",
            "foo @ file:///x/foo-1.0.zip",
        ] {
            assert_eq!(read(good), Ok(()), "{good}");
        }
        for bad in [
            "foo @ https://x/y.whl;python_version>\"3\"",
            "foo[a]@https://x",
            "foo @ https://x/y",
            "foo @ https://x/.whl",
            "foo @ https://x/y.whl/z",
            "foo @ https://x/y.WHL",
            "foo @ https://x/y.egg",
            "foo @ https://x/a b.whl",
            "foo @ https://x\\y.whl",
            "foo @ https://github.com/a/b",
            "foo @ https://h/r.git",
            "foo @ hg+https://h/r",
            "foo @ git+git://h/r",
            "foo @ file:y.whl",
            "foo @ file://host/y.whl",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(requirement("foo @ https://x/\u{e9}.whl").is_err());
    }
}
