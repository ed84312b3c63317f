//! What `mirror add` is given, as wheels on this machine: files, folders, releases of the package index, requirements
//! files; with what they depend on, if asked for. Nothing comes in whose SHA-256 was not promised beforehand.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pep440_rs::Version;
use pep508_rs::{ExtraName, Requirement, VerbatimUrl, VersionOrUrl};
use ureq::Agent;

use super::depends::{self, Extras};
use super::index::{Change, Identity, Index, same_version as same};
use super::page::File;
use super::publish;
use super::requirements::{self, Pinned};
use super::wheel::{Name, Wheel};
use crate::error::{Context, Error, Kind, Result};
use crate::event::Sink;
use crate::platform;
use crate::recipe::{System, shown};
use crate::source::pypi::{self, IndexFile, Platform};
use crate::source::{download_to, http_agent};
use crate::store::digest_file;
use crate::wheel::{self, Newest};

/// Most packages that dependencies may draw in.
const MOST_PACKAGES: usize = 1000;

/// Wheels on this machine. What was downloaded goes with the value.
pub struct Gathered {
    /// What `add` takes.
    pub wheels: Vec<Wheel>,
    /// Extras that were asked for of some of them, by file name.
    pub extras: BTreeMap<String, Extras>,
    _downloads: Option<Change>,
}

/// What to gather, and for whom.
pub struct Wanted<'a> {
    /// Wheels, folders, `pypi:NAME==VERSION`, requirements files.
    pub what: &'a [String],
    /// Whether what they depend on comes along.
    pub with_dependencies: bool,
    /// Pythons (`3.11`) that what is downloaded must run on.
    pub pythons: &'a [String],
    /// Who is told.
    pub events: &'a dyn Sink,
}

struct Gathering<'a> {
    wanted: &'a Wanted<'a>,
    index: &'a Index,
    agent: Agent,
    downloads: Option<Change>,
    wheels: Vec<Wheel>,
    extras: BTreeMap<String, Extras>,
    /// SHA-256 of each of the wheels, by file name.
    seen: BTreeMap<String, String>,
}

/// A file to look at: by itself, or with one of its extras.
type Look = (String, Option<ExtraName>);

/// Gathers what is wanted for `index`.
///
/// # Errors
/// Bad input: nothing by that name, no wheel, no digest. The world: no network.
pub fn gather(index: &Index, wanted: &Wanted<'_>) -> Result<Gathered> {
    let mut all = Gathering {
        wanted,
        index,
        agent: http_agent(),
        downloads: None,
        wheels: Vec::new(),
        extras: BTreeMap::new(),
        seen: BTreeMap::new(),
    };
    // What is at hand first: it says for which Pythons the rest is meant.
    let (mut paths, mut from_index) = (Vec::new(), Vec::new());
    // Of each path the SHA-256 that a requirements file allows, where one does.
    let mut promised: Vec<Option<Vec<String>>> = Vec::new();
    for what in wanted.what {
        if let Some(requirement) = what.strip_prefix("pypi:") {
            let (requirement, version) = requirements::exact(requirement)?;
            from_index.push((requirement, version, None));
        } else if what.ends_with(".txt") {
            let path = Path::new(what);
            for pinned in requirements::read(path)? {
                let beside = beside(&pinned, path.parent().unwrap_or(Path::new(".")))?;
                for name in beside.iter().filter_map(|p| p.file_name()?.to_str()) {
                    all.ask(name, &pinned.requirement);
                }
                promised.extend(beside.iter().map(|_| Some(pinned.sha256.clone())));
                if beside.is_empty() {
                    from_index.push((pinned.requirement, pinned.version, Some(pinned.sha256)));
                }
                paths.extend(beside);
            }
        } else {
            let named = publish::wheels(&[PathBuf::from(what)])?;
            promised.extend(named.iter().map(|_| None));
            paths.extend(named);
        }
    }
    for (wheel, promised) in super::push::examine(&paths)?.into_iter().zip(promised) {
        promised.map_or(Ok(()), |promised| wheel.hold(&promised))?;
        if all.is_new(&wheel.filename, &wheel.sha256)? {
            all.wheels.push(wheel);
        }
    }
    if !from_index.is_empty() {
        let pythons = all.pythons()?;
        for (requirement, version, sha256) in &from_index {
            for python in &pythons {
                // What a line of a file is for, its marker says.
                if sha256.is_none() || requirement.evaluate_markers(&here(python).environment()?, &[]) {
                    all.release(requirement, version, sha256.as_deref(), python)?;
                }
            }
        }
    }
    if all.wheels.is_empty() {
        let what = format!("no line of {} asks for anything on this machine", wanted.what.join(", "));
        return Err(Error::misuse("requirements", what)
            .next("a line counts where its marker holds: say for which Python with --python 3.11"));
    }
    if wanted.with_dependencies {
        all.dependencies()?;
    }
    Ok(Gathered { wheels: all.wheels, extras: all.extras, _downloads: all.downloads })
}

/// The wheels beside a requirements file that a line of it means.
fn beside(pinned: &Pinned, dir: &Path) -> Result<Vec<PathBuf>> {
    let project = wheel::normalize(pinned.requirement.name.as_ref());
    let mut beside = Vec::new();
    for entry in fs_err::read_dir(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<Name>().ok());
        if name.is_some_and(|n| n.project == project && same(&n.version, &pinned.version))
            && path.is_file()
            && pinned.sha256.contains(&digest_file(&path)?.0)
        {
            beside.push(path);
        }
    }
    Ok(beside)
}

/// This machine, with a Python.
fn here(python: &str) -> Platform<'_> {
    Platform { system: System::here(), machine: std::env::consts::ARCH, minor: python }
}

/// The newest that is no pre-release, unless there is no other (PEP 440).
fn newest_of(versions: impl Iterator<Item = Version>) -> Option<Version> {
    versions.max_by_key(|v| (!v.any_prerelease(), v.clone()))
}

/// The releases that these files are.
fn releases<'f>(names: impl Iterator<Item = &'f String>) -> HashSet<Identity> {
    names.filter_map(|name| Identity::parse(name)).collect()
}

impl Gathering<'_> {
    /// Notes a wheel, and says whether it was none of these before.
    ///
    /// # Errors
    /// Bad input: there is one of its name, with other bytes.
    fn is_new(&mut self, filename: &str, sha256: &str) -> Result<bool> {
        match self.seen.get(filename) {
            None => {
                self.seen.insert(filename.to_owned(), sha256.to_owned());
                Ok(true)
            }
            Some(there) if there == sha256 => Ok(false),
            Some(there) => Err(Error::misuse(
                Kind::Taken.code(),
                format!("'{filename}' is meant twice, with the SHA-256 {there} and with {sha256}: a release has one"),
            )
            .next("name the one that is meant")),
        }
    }

    /// Notes the extras that a requirement asks for of the wheel `filename`.
    fn ask(&mut self, filename: &str, requirement: &Requirement<VerbatimUrl>) {
        if !requirement.extras.is_empty() {
            self.extras.entry(filename.to_owned()).or_default().extend(requirement.extras.iter().cloned());
        }
    }

    /// The Pythons that were named, else those of the wheels at hand, else this machine's.
    fn pythons(&self) -> Result<Vec<String>> {
        if !self.wanted.pythons.is_empty() {
            return Ok(self.wanted.pythons.to_vec());
        }
        let minor = |tag: &str| tag.strip_prefix("cp3").filter(|m| m.parse::<u32>().is_ok()).map(|m| format!("3.{m}"));
        let own: BTreeSet<String> =
            self.wheels.iter().flat_map(|w| w.name.python.split('.').filter_map(minor).collect::<Vec<_>>()).collect();
        if !own.is_empty() {
            return Ok(own.into_iter().collect());
        }
        let ask = ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"];
        let out = std::process::Command::new("python3").args(ask).output().ok().filter(|o| o.status.success());
        let text = out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        text.map(|t| vec![t]).ok_or_else(|| {
            Error::misuse("python", "there is no python3 here to ask for its version")
                .next("say for which Python wheels are meant: --python 3.11")
        })
    }

    /// Downloads the wheel of a release that fits a Python here best, among those with one of these digests.
    fn release(
        &mut self,
        requirement: &Requirement<VerbatimUrl>,
        version: &str,
        sha256: Option<&[String]>,
        python: &str,
    ) -> Result<()> {
        let name = requirement.name.to_string();
        let files = pypi::files(&self.agent, &name)?;
        let allowed = |f: &IndexFile| {
            release_of(f).is_some_and(|v| same(&v, version))
                && sha256.is_none_or(|all| f.sha256.as_ref().is_some_and(|d| all.contains(d)))
        };
        let chosen = best(&files, python, allowed).ok_or_else(|| {
            let at = if sha256.is_some() { " with one of the digests that are asked for" } else { "" };
            let (machine, system) = (std::env::consts::ARCH, System::here().name());
            Error::misuse(
                "no-wheel",
                format!(
                    "the package index has no wheel of {name} {version}{at} for CPython {python} on {machine} {system}"
                ),
            )
            .next("check the version, or say for which Python: --python 3.11")
        })?;
        self.ask(&chosen.filename, requirement);
        self.take(chosen)
    }

    /// What the wheels at hand ask for, and what that asks for, as far as the index does not have it. What the index has is
    /// asked in turn: what it needs may be gone, or never have come.
    fn dependencies(&mut self) -> Result<()> {
        let (mut ahead, mut seen) = (VecDeque::new(), BTreeSet::new());
        let mut at = 0;
        loop {
            platform::check_cancelled()?;
            for wheel in &self.wheels[at..] {
                let extras = self.extras.get(&wheel.filename).into_iter().flatten().cloned().map(Some);
                let looks = std::iter::once(None).chain(extras).map(|extra| (wheel.filename.clone(), extra));
                ahead.extend(looks.filter(|look: &Look| seen.insert(look.clone())));
            }
            at = self.wheels.len();
            if at > MOST_PACKAGES {
                return Err(Error::misuse("dependencies", format!("more than {MOST_PACKAGES} packages are drawn in"))
                    .next("add some of them by themselves first"));
            }
            let Some((needed_by, extra)) = ahead.pop_front() else { return Ok(()) };
            let metadata = self.metadata_of(&needed_by)?;
            for python in self.pythons()? {
                for requirement in depends::requirements(&metadata, extra.as_slice(), here(&python)) {
                    let doing = || format!("getting '{}', which {needed_by} needs", shown(&requirement));
                    self.need(&requirement, &python).doing(doing)?;
                    let looks = self.met_by(&requirement, &python)?;
                    ahead.extend(looks.into_iter().filter(|look| seen.insert(look.clone())));
                }
            }
        }
    }

    /// METADATA of a wheel at hand, or of a file of the index.
    fn metadata_of(&self, filename: &str) -> Result<String> {
        if let Some(wheel) = self.wheels.iter().find(|w| w.filename == filename) {
            return Ok(String::from_utf8_lossy(&wheel.metadata).into_owned());
        }
        let name = filename.parse::<Name>().map_err(|e| Error::misuse("filename", e))?;
        depends::metadata_of(self.index, &name.project, filename)
    }

    /// The wheels at hand that meet a requirement for this machine.
    fn at_hand(&self, requirement: &Requirement<VerbatimUrl>, python: &str) -> impl Iterator<Item = &Wheel> {
        let project = wheel::normalize(requirement.name.as_ref());
        let Platform { system, machine, minor } = here(python);
        self.wheels.iter().filter(move |w| {
            w.name.project == project
                && depends::accepts(requirement, &w.name.version)
                && pypi::runs_on(w.requires_python.as_deref(), minor)
                && wheel::fit_within(&w.filename, minor, system, machine, Newest::ANY).is_some()
        })
    }

    /// The files that meet a requirement: wheels at hand, and the newest of the index, which installers take. They are
    /// looked at with each extra that it asks for; those of the index also by themselves, where none at hand meets it.
    fn met_by(&self, requirement: &Requirement<VerbatimUrl>, python: &str) -> Result<Vec<Look>> {
        let mut names: Vec<String> = self.at_hand(requirement, python).map(|w| w.filename.clone()).collect();
        let is_at_hand = !names.is_empty();
        let page = self.index.project(&wheel::normalize(requirement.name.as_ref()))?;
        let runs = |f: &&File| pypi::runs_on(f.requires_python.as_deref(), python);
        let meeting: Vec<&File> = depends::meeting(&page, requirement, here(python)).filter(runs).collect();
        let version = |f: &&File| Version::from_str(&f.version).ok();
        let newest = newest_of(meeting.iter().filter_map(version));
        let mut looks = Vec::new();
        for file in meeting.into_iter().filter(|f| version(f) == newest) {
            names.push(file.filename.clone());
            if !is_at_hand {
                looks.push((file.filename.clone(), None));
            }
        }
        for name in names {
            looks.extend(requirement.extras.iter().map(|extra| (name.clone(), Some(extra.clone()))));
        }
        Ok(looks)
    }

    fn need(&mut self, requirement: &Requirement<VerbatimUrl>, python: &str) -> Result<()> {
        let project = wheel::normalize(requirement.name.as_ref());
        let runs = |requires: &Option<String>| pypi::runs_on(requires.as_deref(), python);
        let page = self.index.project(&project)?;
        let is_there = depends::meeting(&page, requirement, here(python)).any(|f| runs(&f.requires_python));
        if is_there || self.at_hand(requirement, python).next().is_some() {
            return Ok(());
        }
        if matches!(requirement.version_or_url, Some(VersionOrUrl::Url(_))) {
            return Err(Error::misuse(
                "address",
                format!("'{}' is asked for from an address, which no index answers for", shown(requirement)),
            )
            .next("download it, judge it, and add the file; installers will go to that address all the same"));
        }
        let files = pypi::files(&self.agent, &project)?;
        let Platform { system, machine, minor } = here(python);
        // What is yanked here would still be yanked, and meet nothing.
        let yanked = releases(page.files.iter().filter(|f| f.yanked.reason().is_some()).map(|f| &f.filename));
        let removed = releases(page.removed.keys());
        let is_of =
            |set: &HashSet<Identity>, f: &IndexFile| Identity::parse(&f.filename).is_some_and(|id| set.contains(&id));
        let fits = |f: &&IndexFile| {
            !f.yanked
                && runs(&f.requires_python)
                && release_of(f).is_some_and(|v| depends::accepts(requirement, &v))
                && wheel::fit(&f.filename, minor, system, machine).is_some()
                && !is_of(&yanked, f)
        };
        // Somebody had a reason to remove it: it comes back only where there is no other.
        let is_other = files.iter().any(|f| fits(&f) && !is_of(&removed, f));
        let may_come = |f: &&IndexFile| fits(f) && !(is_other && is_of(&removed, f));
        let version = |f: &IndexFile| release_of(f).and_then(|v| Version::from_str(&v).ok());
        let newest = newest_of(files.iter().filter(may_come).filter_map(version)).ok_or_else(|| {
            let but = if yanked.is_empty() { "" } else { " and is not yanked in this index" };
            Error::misuse(
                "no-wheel",
                format!("the package index has no wheel for '{}' that fits CPython {python}{but}", shown(requirement)),
            )
            .next("build one and add it with the others")
        })?;
        let chosen = best(&files, python, |f| may_come(&f) && version(f).as_ref() == Some(&newest));
        chosen.map_or(Ok(()), |f| self.take(f))
    }

    /// Downloads a file and examines it.
    fn take(&mut self, file: &IndexFile) -> Result<()> {
        // The name comes from a server, and decides where the file stands here.
        file.filename.parse::<Name>().map_err(|e| Error::world("index", format!("the package index names {e}")))?;
        let sha256 = file.sha256.as_ref().map(|digest| digest.to_ascii_lowercase()).ok_or_else(|| {
            Error::world("no-digest", format!("the package index does not say the SHA-256 of {}", file.filename))
                .next("use an index that does (PEP 503, PEP 691)")
        })?;
        if !self.is_new(&file.filename, &sha256)? {
            return Ok(());
        }
        if self.downloads.is_none() {
            self.downloads = Some(self.index.begin(self.wanted.events)?);
        }
        let Some(downloads) = &self.downloads else { return Ok(()) };
        let path = downloads.place(&file.filename);
        download_to(&self.agent, &file.url, &path, &sha256, self.wanted.events)?;
        let wheel = Wheel::examine(&path)?;
        wheel.hold(&[sha256])?;
        self.wheels.push(wheel);
        Ok(())
    }
}

/// The version of a wheel; `None` for what is none.
fn release_of(file: &IndexFile) -> Option<String> {
    file.filename.parse::<Name>().ok().map(|n| n.version)
}

/// The file that fits a Python here best, of those that are allowed.
fn best<'f>(files: &'f [IndexFile], python: &str, allowed: impl Fn(&IndexFile) -> bool) -> Option<&'f IndexFile> {
    let Platform { system, machine, minor } = here(python);
    pypi::best(files.iter().filter(|f| allowed(f)), |f| wheel::fit(&f.filename, minor, system, machine))
}
