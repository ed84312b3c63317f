//! What a person names on the command line or in a requirement file, and which file of the index that is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use pep440_rs::{Operator, Version, VersionSpecifiers};

use super::target::{Requirement, Target, requirement as parse, satisfies};
use crate::error::{Error, Kind, Result};
use crate::platform;
use crate::recipe::System;
use crate::source::pypi::{self, IndexFile};
use crate::wheel;

/// Something that is to stand beside a torch.
#[derive(Debug, Clone)]
pub enum What {
    /// A wheel, or a folder of wheels or of installed packages.
    Path(PathBuf),
    /// A wheel on a server.
    Url(String),
    /// What the index has of it.
    Index(Box<Requirement>),
    /// The same, of a requirement file in this folder: a wheel that lies beside it goes before.
    Line(Box<Requirement>, PathBuf),
    /// Something that has no wheel, as written: a folder of sources, a repository.
    Source(String),
}

/// Takes `text` as a command line has it.
///
/// # Errors
/// Bad input: a requirement that cannot be read.
pub fn argument(text: &str) -> Result<What> {
    if let Some(requirement) = text.strip_prefix("pypi:") {
        return Ok(What::Index(Box::new(requirement_of(requirement)?)));
    }
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(What::Url(text.to_owned()));
    }
    let path = PathBuf::from(text);
    if path.exists() {
        return Ok(What::Path(path));
    }
    let mut e = Error::misuse("not-found", format!("there is no {text}"))
        .next("name a wheel, a folder, an https URL, pypi:NAME==VERSION, or -r requirements.txt");
    if parse(text).is_ok() && !text.contains(['/', '\\']) {
        e = e.next(format!("if a package of the index is meant: pypi:{text}"));
    }
    Err(e)
}

fn requirement_of(text: &str) -> Result<Requirement> {
    parse(text).map_err(|why| {
        Error::misuse("requirement", format!("'{text}' is no requirement (PEP 508): {why}"))
            .next("write NAME==VERSION, or NAME for the newest")
    })
}

/// What stands in a requirement file and in those that it includes, with pip's rules for lines.
#[derive(Debug, Default)]
pub struct Requirements {
    /// What is asked for, with where it stands.
    pub wanted: Vec<(String, What)>,
    /// Options that name other places to look in, which are not followed.
    pub elsewhere: Vec<String>,
    constraints: BTreeMap<String, Vec<VersionSpecifiers>>,
}

/// Files that are read at most, one in the other.
const DEEPEST: usize = 32;

impl Requirements {
    /// Reads `path`, as pip does on a machine of `target`.
    ///
    /// # Errors
    /// Bad input: a file that is not there, includes itself, or has a line that is no requirement.
    pub fn read(path: &Path, target: &Target) -> Result<Self> {
        let mut out = Self::default();
        out.file(path, target, false, &mut Vec::new())?;
        let constraints = std::mem::take(&mut out.constraints);
        for (_, what) in &mut out.wanted {
            if let What::Line(requirement, _) = what
                && let Some(more) = constraints.get(requirement.name.as_ref())
            {
                narrow(requirement, more);
            }
        }
        out.merge();
        Ok(out)
    }

    /// Lines on one name are one requirement, which all of them narrow, with the extras of all.
    fn merge(&mut self) {
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        let mut merged: Vec<(String, What)> = Vec::new();
        for (place, what) in std::mem::take(&mut self.wanted) {
            if let What::Line(requirement, _) = &what
                && !matches!(requirement.version_or_url, Some(pep508_rs::VersionOrUrl::Url(_)))
                && let Some(at) = first.get(requirement.name.as_ref())
                && let (_, What::Line(before, _)) = &mut merged[*at]
            {
                if let Some(pep508_rs::VersionOrUrl::VersionSpecifier(more)) = &requirement.version_or_url {
                    narrow(before, std::slice::from_ref(more));
                }
                before.extras.extend(requirement.extras.iter().cloned());
                continue;
            }
            if let What::Line(requirement, _) = &what {
                first.entry(requirement.name.to_string()).or_insert(merged.len());
            }
            merged.push((place, what));
        }
        self.wanted = merged;
    }

    fn file(&mut self, path: &Path, target: &Target, constraint: bool, above: &mut Vec<PathBuf>) -> Result<()> {
        let shown = path.display();
        let real = fs_err::canonicalize(path).map_err(|_| {
            let by = above.last().map(|p| format!(" (included by {})", p.display())).unwrap_or_default();
            Error::misuse("not-found", format!("there is no requirement file {shown}{by}"))
        })?;
        if above.contains(&real) || above.len() >= DEEPEST {
            let chain: Vec<String> = above.iter().chain([&real]).map(|p| p.display().to_string()).collect();
            return Err(Error::misuse("circular", format!("{shown} includes itself: {}", chain.join(" → ")))
                .next("take one of the `-r` or `-c` lines out"));
        }
        // What a person names may be a pipe. What a file includes may be anybody's: of a device there is no end, and whoever
        // opens a pipe waits.
        let file = if above.is_empty() { File::open(path) } else { platform::open_regular(path, true) };
        let mut bytes = Vec::new();
        file.and_then(|file| file.take(platform::MOST_TEXT + 1).read_to_end(&mut bytes))
            .map_err(|e| Error::misuse("requirements", format!("{shown} cannot be read: {e}")))?;
        if bytes.len() as u64 > platform::MOST_TEXT || bytes.contains(&0) {
            return Err(Error::misuse("requirements", format!("{shown} is no requirement file: it is no text")));
        }
        let text = String::from_utf8_lossy(&bytes);
        above.push(real);
        for (number, line) in lines(text.trim_start_matches('\u{feff}')) {
            let place = format!("line {number} of {shown}");
            self.line(&with_variables(&line), &place, path, target, constraint, above)?;
        }
        above.pop();
        Ok(())
    }

    fn line(
        &mut self,
        line: &str,
        place: &str,
        file: &Path,
        target: &Target,
        constraint: bool,
        above: &mut Vec<PathBuf>,
    ) -> Result<()> {
        if let Some(name) = option(line, &["-r", "--requirement"]) {
            return self.file(&beside(file, name), target, constraint, above);
        }
        if let Some(name) = option(line, &["-c", "--constraint"]) {
            return self.file(&beside(file, name), target, true, above);
        }
        if let Some(source) = option(line, &["-e", "--editable"]) {
            self.wanted.push((place.to_owned(), What::Source(source.to_owned())));
            return Ok(());
        }
        if line.starts_with('-') {
            // What pip would take otherwise by them.
            const ELSEWHERE: &[&str] = &[
                "-i",
                "--index-url",
                "--extra-index-url",
                "-f",
                "--find-links",
                "--pre",
                "--no-binary",
                "--only-binary",
                "--no-index",
                "--prefer-binary",
            ];
            const WITHOUT_MEANING_HERE: &[&str] =
                &["--trusted-host", "--require-hashes", "--use-feature", "--global-option"];
            let word = line.split([' ', '\t', '=']).next().unwrap_or(line);
            let short = |o: &str| o.len() == 2 && line.starts_with(o);
            if ELSEWHERE.contains(&word) || ELSEWHERE.iter().any(|o| short(o)) {
                self.elsewhere.push(line.to_owned());
            } else if !WITHOUT_MEANING_HERE.contains(&word) {
                return Err(Error::misuse("requirements", format!("{place}: '{line}' is no option of requirement files"))
                    .next("options that pip takes there: -r, -c, -e, --index-url, --find-links and others, each with its value"));
            }
            return Ok(());
        }
        // Options of one requirement, such as its digests.
        let line = [" --", "\t--"].iter().filter_map(|o| line.find(o)).min().map_or(line, |at| &line[..at]).trim();
        if let Some(what) = place_of(line, place)? {
            // What a constraint names is wanted by nobody yet; a marker counts for a place as for a name.
            let marker = line.split_once(" ; ").or_else(|| line.split_once(" ;")).map(|(_, marker)| marker.trim());
            let holds = match marker {
                Some(marker) => requirement_of(&format!("x ; {marker}"))?.evaluate_markers(&target.markers()?, &[]),
                None => true,
            };
            if holds && !constraint {
                self.wanted.push((place.to_owned(), what));
            }
            return Ok(());
        }
        let requirement = requirement_of(line).map_err(|e| e.doing(format!("reading {place}")))?;
        if !requirement.evaluate_markers(&target.markers()?, &[]) {
            return Ok(());
        }
        if constraint {
            if let Some(pep508_rs::VersionOrUrl::VersionSpecifier(s)) = requirement.version_or_url {
                self.constraints.entry(requirement.name.to_string()).or_default().push(s);
            }
            return Ok(());
        }
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        self.wanted.push((place.to_owned(), What::Line(Box::new(requirement), folder)));
        Ok(())
    }
}

fn narrow(requirement: &mut Requirement, more: &[VersionSpecifiers]) {
    use pep508_rs::VersionOrUrl;
    let mut all = match &requirement.version_or_url {
        Some(VersionOrUrl::Url(_)) => return,
        Some(VersionOrUrl::VersionSpecifier(s)) => s.iter().cloned().collect(),
        None => Vec::new(),
    };
    all.extend(more.iter().flat_map(|s| s.iter().cloned()));
    requirement.version_or_url = Some(VersionOrUrl::VersionSpecifier(all.into_iter().collect()));
}

/// Lines without comments, with those joined that end with a backslash; each with the number of its first.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut out: Vec<(usize, String)> = Vec::new();
    let mut joined: Option<(usize, String)> = None;
    for (i, raw) in text.lines().enumerate() {
        let comment =
            if raw.trim_start().starts_with('#') { Some(0) } else { raw.find(" #").or_else(|| raw.find("\t#")) };
        let line = comment.map_or(raw, |at| &raw[..at]);
        let (number, mut whole) = joined.take().unwrap_or((i + 1, String::new()));
        let (part, more) = line.strip_suffix('\\').map_or((line, false), |p| (p, true));
        whole.push_str(part);
        if more {
            joined = Some((number, whole));
        } else if !whole.trim().is_empty() {
            out.push((number, whole.trim().to_owned()));
        }
    }
    out.extend(joined.filter(|(_, l)| !l.trim().is_empty()));
    out
}

/// The value of a line that is one of these options: `-r FILE`, `-rFILE`, `--requirement=FILE`.
fn option<'a>(line: &'a str, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        let rest = line.strip_prefix(name)?;
        let long = name.starts_with("--");
        let value = rest.trim_start_matches([' ', '\t', '=']);
        (!value.is_empty() && (!long || value.len() < rest.len())).then_some(value.trim())
    })
}

fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(name)
}

/// A line with the values of the environment's variables in it, as pip puts them in: `${NAME}`, in capitals. One that is
/// not set stays as it is written.
fn with_variables(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let after = &rest[at + 2..];
        let name = after.split('}').next().filter(|n| n.len() < after.len()).unwrap_or_default();
        let is_name =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        match is_name.then(|| std::env::var(name).ok()).flatten() {
            Some(value) => {
                out.push_str(&value);
                rest = &after[name.len() + 1..];
            }
            None => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out + rest
}

/// A requirement that is a place and no name: a wheel, a folder, a repository. Paths are from the folder that one works
/// in, as pip has them, wherever the file with the line lies.
///
/// # Errors
/// Bad input: a wheel that is not there.
fn place_of(line: &str, at: &str) -> Result<Option<What>> {
    let (place, named) = match line.split_once('@').filter(|(name, url)| {
        url.trim_start().contains("://")
            && name.trim().chars().all(|c| c.is_ascii_alphanumeric() || "-_.[],".contains(c))
    }) {
        Some((_, url)) => (url, true),
        None => (line, false),
    };
    let place = place.split(" ;").next().unwrap_or(place).trim();
    let wheel = place.split(['#', '?']).next().is_some_and(|p| p.ends_with(".whl"));
    if place.starts_with("https://") || place.starts_with("http://") {
        return Ok(Some(if wheel { What::Url(place.to_owned()) } else { What::Source(place.to_owned()) }));
    }
    let path = match place.strip_prefix("file:") {
        Some(local) if local.starts_with("//") => match url::Url::parse(place).ok().and_then(|u| u.to_file_path().ok())
        {
            Some(path) => path,
            None => PathBuf::from(local.trim_start_matches("//")),
        },
        Some(local) => PathBuf::from(local),
        None => PathBuf::from(place),
    };
    let is_local = place.starts_with("file:") || !place.contains("://");
    if !(named || !is_local || place.starts_with(['.', '/']) || place.starts_with("file:") || wheel) {
        return Ok(None);
    }
    if wheel && is_local && !path.is_file() {
        return Err(Error::misuse("not-found", format!("{at}: there is no wheel {}", path.display()))
            .next("paths in a requirement file are from the folder in which the command is given, as pip has them"));
    }
    Ok(Some(if wheel && is_local { What::Path(path) } else { What::Source(place.to_owned()) }))
}

/// What the index has for a requirement.
#[derive(Debug)]
pub enum Found {
    /// The wheel of the newest version that fits the target best.
    Wheel(IndexFile),
    /// A version of which there is no wheel for the target; and whether there is a source package.
    NoWheel {
        /// The newest version that the requirement allows.
        version: String,
        /// Whether pip could compile it.
        source: bool,
    },
}

/// Chooses as pip does: the newest version that the requirement allows and that is not withdrawn (the newest
/// final one, unless it asks for another), and of that the wheel that fits best.
///
/// # Errors
/// Bad input: there is no such package, or no such version of it. The world: the index does not answer.
pub fn choose(requirement: &Requirement, target: &Target) -> Result<Found> {
    let name = requirement.name.to_string();
    let files = pypi::files(&crate::source::http_agent(), &name)?;
    choose_of(requirement, target, &files)
}

fn choose_of(requirement: &Requirement, target: &Target, files: &[IndexFile]) -> Result<Found> {
    let exact = matches!(&requirement.version_or_url, Some(pep508_rs::VersionOrUrl::VersionSpecifier(s))
        if s.iter().any(|s| matches!(s.operator(), Operator::Equal | Operator::ExactEqual)));
    let python = target.minor();
    let python_fits = |f: &IndexFile| python.is_none_or(|minor| pypi::runs_on(f.requires_python.as_deref(), minor));
    let mut versions: BTreeMap<Version, Vec<&IndexFile>> = BTreeMap::new();
    for file in files.iter().filter(|f| (exact || !f.yanked) && python_fits(f)) {
        let Some(version) = version_of(&file.filename, requirement.name.as_ref()) else { continue };
        if satisfies(requirement, &version) {
            versions.entry(version).or_default().push(file);
        }
    }
    // A version with nothing but wheels for others is none for pip.
    let usable =
        |files: &[&IndexFile]| files.iter().any(|f| is_source(&f.filename) || target.rank(&f.filename).is_some());
    let newest = |finals: bool| versions.iter().rev().find(|(v, f)| usable(f) && (!finals || !v.any_prerelease()));
    let chosen = newest(!exact).or_else(|| newest(false)).or_else(|| versions.iter().next_back());
    let Some((version, files)) = chosen else {
        return Err(Error::misuse(
            Kind::NoVersion.code(),
            format!("the package index has no {requirement} for {}", target.words()),
        )
        .next("check the version"));
    };
    Ok(match pypi::best(files.iter().copied(), |f| target.rank(&f.filename)) {
        Some(file) => Found::Wheel(file.clone()),
        None => Found::NoWheel { version: version.to_string(), source: files.iter().any(|f| is_source(&f.filename)) },
    })
}

fn is_source(filename: &str) -> bool {
    [".tar.gz", ".zip", ".tar.bz2"].iter().any(|e| filename.ends_with(e))
}

/// The version in a file's name: the second part of a wheel's, the last of a source package's.
fn version_of(filename: &str, project: &str) -> Option<Version> {
    if filename.ends_with(".whl") {
        return filename.parse::<wheel::Name>().ok()?.parsed_version();
    }
    let stem = [".tar.gz", ".zip", ".tar.bz2"].iter().find_map(|e| filename.strip_suffix(e))?;
    let (name, version) = stem.rsplit_once('-')?;
    (wheel::normalize(name) == wheel::normalize(project)).then(|| Version::from_str(version).ok())?
}

/// What `--platform` and `--python-version` mean, and this machine where they are not given.
///
/// # Errors
/// Bad input: an unknown platform or version.
pub fn target(platform: Option<&str>, python: Option<&str>) -> Result<Target> {
    let (system, machine) = match platform {
        None => (System::here(), std::env::consts::ARCH.to_owned()),
        Some(tag) => {
            let system = [
                ("win", System::Windows),
                ("macosx", System::Macos),
                ("manylinux", System::Linux),
                ("linux", System::Linux),
            ];
            let machines = [("x86_64", "x86_64"), ("amd64", "x86_64"), ("arm64", "aarch64"), ("aarch64", "aarch64")];
            let unknown = || {
                Error::misuse("platform", format!("'{tag}' is no platform that torch has wheels for"))
                    .next("such as linux_x86_64, manylinux_2_28_aarch64, win_amd64, macosx_11_0_arm64")
            };
            let system = system.iter().find(|(p, _)| tag.starts_with(p)).ok_or_else(unknown)?.1;
            (system, machines.iter().find(|(p, _)| tag.ends_with(p)).ok_or_else(unknown)?.1.to_owned())
        }
    };
    let python = match python {
        Some(version) => {
            let mut parts = version.splitn(3, '.');
            let (major, minor) = (parts.next(), parts.next().unwrap_or_default());
            let (plain, last) = (minor.trim_end_matches('t'), parts.next().unwrap_or(minor));
            if major != Some("3") || plain.parse::<u32>().is_err() {
                return Err(Error::misuse("python-version", format!("'{version}' is no version of Python 3"))
                    .next("such as 3.11, or 3.13t for one that is free-threaded"));
            }
            format!("3.{plain}{}", if last.ends_with('t') { "t" } else { "" })
        }
        None => python_here().ok_or_else(|| {
            Error::misuse("no-python", "there is no python3 on this machine that says for which Python is meant")
                .next("say it: --python-version 3.11")
        })?,
    };
    Ok(Target { system, machine, python: Some(python) })
}

fn python_here() -> Option<String> {
    let program = platform::which("python3").or_else(|| platform::which("python"))?;
    const ASK: &str = "import sys, sysconfig
print('%d.%d%s' % (sys.version_info[:2] + ('t' if sysconfig.get_config_var('Py_GIL_DISABLED') else '',)))";
    let out = Command::new(program).args(["-I", "-c", ASK]).output().ok()?;
    let version = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    version.starts_with("3.").then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target_311() -> Target {
        Target { system: System::Linux, machine: "x86_64".into(), python: Some("3.11".into()) }
    }

    fn file(filename: &str) -> IndexFile {
        IndexFile {
            filename: filename.into(),
            url: String::new(),
            sha256: None,
            uploaded: None,
            requires_python: None,
            yanked: false,
        }
    }

    #[test]
    fn the_newest_final_version_that_is_allowed_and_can_be_had_is_chosen() {
        let files = [
            file("x-1.0-py3-none-any.whl"),
            file("x-1.1-cp311-cp311-manylinux_2_28_x86_64.whl"),
            file("x-1.1-9-py3-none-any.whl"),
            file("x-1.0-2-py3-none-any.whl"),
            file("x-1.0-10-py3-none-any.whl"),
            IndexFile { yanked: true, ..file("x-1.0-11-py3-none-any.whl") },
            IndexFile { yanked: true, ..file("x-1.2-py3-none-any.whl") },
            file("x-1.3-cp313-cp313-manylinux_2_28_x86_64.whl"),
            file("x-2.0rc1-py3-none-any.whl"),
            IndexFile { requires_python: Some(">=3.12".into()), ..file("x-1.4-py3-none-any.whl") },
        ];
        let chosen = |r: &str| match choose_of(&Requirement::from_str(r).unwrap(), &target_311(), &files) {
            Ok(Found::Wheel(f)) => f.filename,
            Ok(Found::NoWheel { version, source }) => format!("no wheel of {version}, source {source}"),
            Err(e) => e.code().to_owned(),
        };
        assert_eq!(chosen("x"), "x-1.1-cp311-cp311-manylinux_2_28_x86_64.whl");
        // Of builds that are alike the last; one that is yanked only where there is no other.
        assert_eq!(chosen("x<1.1"), "x-1.0-10-py3-none-any.whl");
        assert_eq!(chosen("x==1.0"), "x-1.0-10-py3-none-any.whl");
        assert_eq!(chosen("x==1.2"), "x-1.2-py3-none-any.whl");
        assert_eq!(chosen("x==2.0rc1"), "x-2.0rc1-py3-none-any.whl");
        assert_eq!(chosen("x==1.3"), "no wheel of 1.3, source false");
        assert_eq!(chosen("x==9"), "no-version");
    }

    #[test]
    fn what_has_its_source_only_is_told_from_what_has_nothing() {
        let files = [file("torch_scatter-2.1.2.tar.gz")];
        let found = choose_of(&Requirement::from_str("torch-scatter").unwrap(), &target_311(), &files).unwrap();
        assert!(matches!(found, Found::NoWheel { version, source: true } if version == "2.1.2"));
    }

    #[test]
    fn lines_are_joined_and_comments_dropped() {
        let text = "a==1 \\\n  --hash=sha256:00\n# no\n\nb # why\nc\\";
        let got: Vec<_> = lines(text);
        assert_eq!(got, [(1, "a==1   --hash=sha256:00".to_owned()), (5, "b".to_owned()), (6, "c".to_owned())]);
    }

    #[test]
    fn options_are_read_in_all_their_spellings() {
        for line in ["-r x.txt", "-rx.txt", "--requirement x.txt", "--requirement=x.txt"] {
            assert_eq!(option(line, &["-r", "--requirement"]), Some("x.txt"), "{line}");
        }
        assert_eq!(option("--requirements", &["--requirement"]), None);
        assert_eq!(option("--find-links=x", &["-r", "--requirement"]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_requirement_file_makes_it_panic(text in "\\PC{0,80}(\n\\PC{0,40})?") {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("r.txt");
            std::fs::write(&path, text).unwrap();
            let _ = Requirements::read(&path, &target_311());
        }
    }
}
