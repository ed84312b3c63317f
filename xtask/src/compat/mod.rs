//! Will this package load on that torch? Answered from the files alone: nothing is installed or imported.
//!
//! A [`Torch`] says what it offers, a [`Package`] what it asks for, and [`judge`] holds one against the other: symbols,
//! their versions, the C++ ABI, needed libraries, CUDA, tags of the Python ABI, and what the package's METADATA asks of
//! torch. What cannot be read is never taken for good or bad: the verdict is then that it cannot be told.
//!
//! This module must not know the command line, and starts no program of a package.

mod demangle;
mod holder;
mod judge;
mod package;
mod proposal;
mod remember;
mod site;
mod target;
mod torch;
mod verdict;
mod wanted;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pep440_rs::Version;
use pep508_rs::ExtraName;
use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Context, Error, Kind, Result, without_secrets};
use crate::inspect::FileAt;
use crate::platform;
use crate::recipe::{pinned, shown};
use crate::store::Store;

use self::site::Distribution;

pub use demangle::demangle;
pub use holder::Holder;
pub use judge::judge;
pub use package::{Own, Package};
pub use proposal::{Broken, Proposal, broken_by};
pub use remember::Memory;
pub use target::{Metadata, Requirement, Target, satisfied_by, satisfies};
pub use torch::Torch;
pub use verdict::{Cause, Fit, Gap, Judged, Reason, Verdict};
pub use wanted::{Found, Requirements, What, argument, choose, target as target_of};

/// Version of the JSON form.
pub const SCHEMA_VERSION: u32 = 1;

/// All that was asked and found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of the JSON form: [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The torch that was asked about, in short.
    pub torch: TorchSummary,
    /// A verdict on each package that was asked about.
    pub packages: Vec<Verdict>,
    /// Installed packages that have nothing to do with torch, and were not judged.
    pub unrelated: usize,
    /// What was not followed, or left out.
    pub remarks: Vec<String>,
}

/// What a torch is, in short.
#[derive(Debug, Serialize)]
pub struct TorchSummary {
    /// As the user named it.
    pub subject: String,
    /// `torch.__version__`.
    pub version: Option<String>,
    /// `torch.version.cuda`: `12.4` (`12` where its libraries alone say it); `None` where it has none.
    pub cuda: Option<String>,
    /// Whether strings are those of the C++11 ABI.
    pub cxx11_abi: Option<bool>,
    /// The system, machine and Python that it is for.
    #[serde(flatten)]
    pub target: Target,
}

impl Report {
    /// Whether every package fits.
    pub fn all_fit(&self) -> bool {
        self.packages.iter().all(|p| p.verdict == Fit::Fits)
    }
}

/// Opens the torch that `what` names: a wheel, an archive, a folder, a URL, or `pypi:torch==VERSION` for the target that
/// `wanted` gives.
///
/// # Errors
/// Bad input: there is none, or it is no torch. The world: it cannot be had.
pub fn open_torch(what: &str, wanted: impl FnOnce() -> Result<Target>) -> Result<Torch> {
    // Without a place for it nothing is remembered, and all is read.
    let memory = || Store::open(None).map(|s| Memory::of(&s)).unwrap_or_default();
    match argument(what)? {
        What::Path(path) if path.is_dir() => match torch_wheel(&path)? {
            Some(wheel) => Torch::open(what, near(what, &wheel)?, memory()),
            None => Torch::installed(what, &path),
        },
        What::Path(path) => Torch::open(what, near(what, &path)?, memory()),
        What::Url(url) => {
            let subject = without_secrets(what);
            Torch::open(&subject, Holder::far(&subject, &url)?, memory())
        }
        What::Index(requirement) => {
            let target = wanted()?;
            match choose(&requirement, &target)? {
                Found::Wheel(file) => Torch::open(what, Holder::far(&file.filename, &file.url)?, memory()),
                Found::NoWheel { version, .. } => Err(Error::misuse(
                    "no-wheel",
                    format!("the package index has no wheel of torch {version} for {}", target.words()),
                )
                .next("choose --platform and --python-version")),
            }
        }
        What::Line(..) | What::Source(_) => Err(Error::misuse("no-torch", format!("{what} is no built torch"))),
    }
}

/// The wheel of torch in the folder `path`; `None` where there is none, or where a torch is installed or unpacked.
fn torch_wheel(path: &Path) -> Result<Option<PathBuf>> {
    let mut found: Vec<PathBuf> = wheels_in(path).into_iter().filter(|w| is_torchs_wheel(w)).collect();
    let unpacked = || ["lib", "bin"].iter().any(|f| path.join(f).is_dir());
    if found.is_empty() || unpacked() || site::site(path)?.is_some() {
        return Ok(None);
    }
    if let [one, another, ..] = &found[..] {
        return Err(Error::misuse(
            "two-torches",
            format!("{} holds two torches: {} and {}", path.display(), name_of(one), name_of(another)),
        )
        .next("name one of the two"));
    }
    Ok(found.pop())
}

/// The wheels in the folder `path` itself, by name.
fn wheels_in(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path());
    let mut wheels: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|x| x == "whl")).collect();
    wheels.sort();
    wheels
}

fn is_torchs_wheel(path: &Path) -> bool {
    name_of(path).starts_with("torch-")
}

/// The name of a file, for people.
fn name_of(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn near(what: &str, path: &Path) -> Result<Holder> {
    let file = platform::open_regular(path, true)
        .map_err(|e| Error::misuse("unreadable", format!("{} cannot be read: {e}", path.display())))?;
    let file = FileAt::new(file)?;
    let magic = crate::inspect::slice(&file, 0, crate::inspect::ReadAt::size(&file).min(8)).unwrap_or_default();
    if crate::inspect::format_of(&magic).is_some() {
        return Err(Error::misuse("library", format!("{what} is a single library"))
            .next("name the wheel or the folder that it is from: what it needs of others counts too"));
    }
    Holder::archive(what, Box::new(file))
}

/// Judges all that is named by `arguments` and stands in `requirements` against `torch`.
///
/// # Errors
/// Bad input: something named is not there or is no package. The world: something cannot be had.
pub fn report(torch: &Torch, arguments: &[String], requirements: &[PathBuf]) -> Result<Report> {
    let mut wanted: Vec<(String, What)> = Vec::new();
    let mut remarks = Vec::new();
    for text in arguments {
        let what = argument(text)?;
        // A user and a password are for the server: reports are passed on.
        let place = if matches!(what, What::Url(_)) { without_secrets(text) } else { text.clone() };
        wanted.push((place, what));
    }
    for path in requirements {
        let read = Requirements::read(path, &torch.target)?;
        let not_followed =
            |o: &String| format!("{} says {}, which is not followed", path.display(), without_secrets(o));
        remarks.extend(read.elsewhere.iter().map(not_followed));
        wanted.extend(read.wanted);
    }
    // Most of the time goes into reading packages from afar: side by side. The torch is read once.
    let read: Vec<Result<Vec<Item>>> =
        wanted.par_iter().map(|(place, what)| items(torch, place, what).doing(|| format!("judging {place}"))).collect();
    let (mut packages, mut exact, mut unrelated) = (Vec::new(), Vec::new(), Vec::new());
    for items in read {
        for item in items? {
            platform::check_cancelled()?;
            match item {
                Item::Package(subject, package) => {
                    exact.push((packages.len(), package.metadata.exact(&torch.target)?));
                    packages.push(judge(torch, &subject, &package)?);
                }
                Item::Judged(verdict) => packages.push(*verdict),
                Item::Unrelated(name, version) => unrelated.push((name, version)),
                Item::LeftOut(why) => remarks.push(why),
            }
        }
    }
    name_unjudged(&mut packages, &exact, &unrelated);
    let unrelated = unrelated.len();
    Ok(Report { schema_version: SCHEMA_VERSION, torch: summary(torch), packages, unrelated, remarks })
}

/// Says of each package what it needs in one very version and what was not named here: a package that brings no
/// compiled part itself fails with the one that does. `exact` has those requirements, by the place of the package among
/// `packages`.
fn name_unjudged(packages: &mut [Verdict], exact: &[(usize, Vec<Requirement>)], unrelated: &[(String, String)]) {
    let judged = packages.iter().map(|p| (crate::wheel::normalize(&p.package), p.version.clone()));
    let known: Vec<(String, String)> = judged.chain(unrelated.iter().cloned()).collect();
    // One without a version was told that it cannot be had.
    let held = |r: &Requirement, version: &str| version.parse::<Version>().ok().is_none_or(|v| satisfies(r, &v));
    for (at, requirements) in exact {
        let verdict = &mut packages[*at];
        let open: Vec<String> = requirements
            .iter()
            .filter(|r| !known.iter().any(|(name, version)| *name == r.name.as_ref() && held(r, version)))
            .map(shown)
            .collect();
        if verdict.verdict != Fit::DoesNotFit && !open.is_empty() {
            let were = if open.len() == 1 { "was" } else { "were" };
            verdict.remarks.push(format!("it also needs {}, which {were} not judged", open.join(", ")));
        }
    }
}

fn summary(torch: &Torch) -> TorchSummary {
    TorchSummary {
        subject: torch.subject.clone(),
        version: torch.version.as_ref().map(ToString::to_string),
        cuda: torch.cuda.clone(),
        cxx11_abi: torch.cxx11_abi,
        target: torch.target.clone(),
    }
}

/// What came of one thing that was named.
enum Item {
    Package(String, Box<Package>),
    Judged(Box<Verdict>),
    /// An installed package that has nothing to do with torch: its name and version.
    Unrelated(String, String),
    /// It was not judged, and why.
    LeftOut(String),
}

fn items(torch: &Torch, place: &str, what: &What) -> Result<Vec<Item>> {
    let target = &torch.target;
    let wheel = |subject: &str, name: &str, holder: &Holder, extras: &[ExtraName]| -> Result<Vec<Item>> {
        let mut package = Package::wheel(name, holder, target)?;
        package.metadata.extras = extras.to_vec();
        if package.metadata.name == "torch" {
            return Ok(vec![Item::Judged(Box::new(another(torch, subject, &package)))]);
        }
        Ok(vec![Item::Package(subject.to_owned(), Box::new(package))])
    };
    let indexed = |requirement: &Requirement| -> Result<Vec<Item>> {
        if target.python.is_none() {
            return Ok(vec![Item::Judged(Box::new(unchosen(place, requirement)))]);
        }
        match choose(requirement, target)? {
            Found::Wheel(file) => {
                let holder = Holder::far(&file.filename, &file.url)?;
                wheel(&file.filename, &file.filename, &holder, &requirement.extras)
            }
            Found::NoWheel { version, source } => {
                Ok(vec![Item::Judged(Box::new(unbuilt(place, requirement.name.as_ref(), &version, source, target)))])
            }
        }
    };
    match what {
        What::Path(path) if path.is_dir() => folder(torch, path),
        What::Path(path) => {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            wheel(place, name, &near(place, path)?, &[])
        }
        What::Url(url) => {
            let name = url.split(['?', '#']).next().and_then(|u| u.rsplit('/').next()).unwrap_or_default();
            wheel(place, &name.replace("%2B", "+"), &Holder::far(place, url)?, &[])
        }
        What::Index(requirement) | What::Line(requirement, _) if requirement.name.as_ref() == "torch" => {
            Ok(vec![Item::Judged(Box::new(itself(torch, requirement)))])
        }
        What::Index(requirement) => indexed(requirement),
        What::Line(requirement, folder) => match beside(requirement, folder, target) {
            Some(path) => wheel(place, &name_of(&path), &near(place, &path)?, &requirement.extras),
            // One line that nothing is found for is no reason to say nothing of the others.
            None => match indexed(requirement) {
                Err(e) if matches!(e.kind(), Some(Kind::NoPackage | Kind::NoVersion)) => {
                    Ok(vec![Item::Judged(Box::new(nowhere(place, requirement)))])
                }
                done => done,
            },
        },
        What::Source(source) => {
            Ok(vec![Item::Judged(Box::new(unbuilt(place, &without_secrets(source), "", true, target)))])
        }
    }
}

/// The wheel in `folder` that meets a requirement and fits the target best.
fn beside(requirement: &Requirement, folder: &Path, target: &Target) -> Option<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let wheels = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter_map(|path| {
        let file = path.file_name()?.to_str()?;
        let name: crate::wheel::Name = file.parse().ok()?;
        let version = name.parsed_version()?;
        let meets = name.project == requirement.name.as_ref() && satisfies(requirement, &version);
        let rank = target.rank(file)?;
        meets.then_some((std::cmp::Reverse(version), rank, path))
    });
    wheels.min().map(|(_, _, path)| path)
}

/// A wheel of torch itself: pip would put it in the place of the one at hand, unless it is the same.
fn another(torch: &Torch, subject: &str, package: &Package) -> Verdict {
    let exact = format!("torch=={}", package.metadata.version);
    let Some(own) = torch.version.as_ref().map(ToString::to_string) else {
        let needs = vec![format!("a torch of known version to tell whether it is {exact}")];
        let gaps = vec![Gap { by: "torch".into(), needs }];
        return Verdict { loads: Some(true), gaps, ..empty(subject, "torch", &package.metadata.version) };
    };
    let same = package.metadata.version == own;
    let reason = Reason::Pin { requirement: exact, torch: own };
    Verdict {
        verdict: if same { Fit::Fits } else { Fit::DoesNotFit },
        loads: Some(true),
        pins_hold: same,
        reasons: if same { Vec::new() } else { vec![reason] },
        remarks: vec![if same { "the torch itself" } else { "another torch" }.into()],
        ..empty(subject, "torch", &package.metadata.version)
    }
}

/// A line of a requirement file that neither its folder nor the package index has anything for.
fn nowhere(place: &str, requirement: &Requirement) -> Verdict {
    let needs = format!("{}: it is not beside the file, and the package index does not have it", shown(requirement));
    let name = requirement.name.to_string();
    Verdict { gaps: vec![Gap { by: name.clone(), needs: vec![needs] }], ..empty(place, &name, "") }
}

/// A requirement on torch itself, as requirement files have them.
fn itself(torch: &Torch, requirement: &Requirement) -> Verdict {
    let version = torch.version.as_ref().map(ToString::to_string).unwrap_or_default();
    let (mut reasons, mut gaps) = (Vec::new(), Vec::new());
    let verdict = match satisfied_by(requirement, torch.version.as_ref()) {
        Some(true) => Fit::Fits,
        Some(false) => {
            reasons.push(Reason::Pin { requirement: shown(requirement), torch: version.clone() });
            Fit::DoesNotFit
        }
        None => {
            gaps.push(Gap { by: "torch".into(), needs: vec![judge::known_version(requirement)] });
            Fit::CannotBeTold
        }
    };
    Verdict {
        verdict,
        loads: Some(true),
        pins_hold: reasons.is_empty(),
        reasons,
        gaps,
        remarks: vec!["the torch itself".into()],
        ..empty(&torch.subject, "torch", &version)
    }
}

/// A package that no wheel is chosen of: the index has one for each Python, and this torch (a libtorch) has none.
fn unchosen(place: &str, requirement: &Requirement) -> Verdict {
    let needs = "a Python to choose a wheel for: this torch has no Python, so name the wheel".to_owned();
    let name = requirement.name.to_string();
    let version = pinned(requirement).unwrap_or_default();
    Verdict { gaps: vec![Gap { by: name.clone(), needs: vec![needs] }], ..empty(place, &name, &version) }
}

/// Something that has no wheel for this torch's machine and Python.
fn unbuilt(place: &str, name: &str, version: &str, source: bool, target: &Target) -> Verdict {
    let needs = if source {
        format!(
            "a wheel for {}: there is its source only, which pip compiles against the torch at hand",
            target.words()
        )
    } else {
        format!("a wheel for {}: there are wheels for others only", target.words())
    };
    Verdict { gaps: vec![Gap { by: name.to_owned(), needs: vec![needs] }], ..empty(place, name, version) }
}

fn empty(subject: &str, package: &str, version: &str) -> Verdict {
    Verdict {
        subject: subject.to_owned(),
        package: package.to_owned(),
        version: version.to_owned(),
        verdict: Fit::CannotBeTold,
        loads: None,
        pins_hold: true,
        reasons: Vec::new(),
        cause: None,
        gaps: Vec::new(),
        remarks: Vec::new(),
        libraries: Vec::new(),
    }
}

/// The wheels in a folder, or the installed packages that have to do with torch.
fn folder(torch: &Torch, path: &Path) -> Result<Vec<Item>> {
    if let Some(installed) = installed(torch, path)? {
        return Ok(installed);
    }
    let wheels = wheels_in(path);
    if wheels.is_empty() {
        return Err(Error::misuse(
            "no-packages",
            format!("{} holds no installed package and no wheel", path.display()),
        )
        .next("name a folder of packages (site-packages), an environment, or a folder of wheels"));
    }
    // The set's own torch is no companion of itself. Of one release there may be a wheel for each Python: the one for this
    // torch's is meant, and one for others only is judged as what it is.
    let (torchs, wheels): (Vec<PathBuf>, Vec<PathBuf>) = wheels.into_iter().partition(|w| is_torchs_wheel(w));
    let mut releases: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for wheel in wheels {
        let name = name_of(&wheel);
        let release = name.parse::<crate::wheel::Name>().map(|n| format!("{}-{}", n.project, n.version));
        releases.entry(release.unwrap_or(name)).or_default().push(wheel);
    }
    if releases.is_empty() {
        return Err(Error::misuse("no-packages", format!("{} holds a torch, and nothing beside it", path.display()))
            .next("name what is to be judged: wheels, pypi:NAME==VERSION, -r requirements.txt"));
    }
    // That the torch at hand is left out is no news.
    let at_hand = name_of(Path::new(&torch.subject));
    let mut out: Vec<Item> = torchs
        .iter()
        .map(|w| name_of(w))
        .filter(|name| *name != at_hand)
        .map(|name| Item::LeftOut(format!("{name} in {} is a torch, and was left out", path.display())))
        .collect();
    for (_, wheels) in releases {
        let best = wheels.iter().min_by_key(|w| torch.target.rank(&name_of(w)).unwrap_or(u32::MAX));
        if let Some(best) = best {
            out.extend(items(torch, &name_of(best), &What::Path(best.clone()))?);
        }
    }
    Ok(out)
}

/// An installed package that cannot be read.
fn unreadable(distribution: &Distribution, why: &Error) -> Verdict {
    let (entry, (name, version)) = (distribution.entry_name(), distribution.stem());
    let needs = vec![format!("a package that can be read: {}", why.what())];
    Verdict { gaps: vec![Gap { by: entry.clone(), needs }], ..empty(&entry, &name, &version) }
}

/// The packages installed in the folder or environment `path`, torch left out; `None` where none is installed in it.
fn installed(torch: &Torch, path: &Path) -> Result<Option<Vec<Item>>> {
    let Some(site) = site::site(path)? else { return Ok(None) };
    let its_torch = site::distribution(&site, "torch")?;
    let found = site::distributions(&site);
    let read = |distribution: &Distribution| {
        let package = match Package::installed(distribution, &torch.target) {
            Ok(package) => package,
            Err(e) if e.kind() == Some(Kind::Cancelled) => return Err(e),
            // One that is broken is no reason to say nothing of the others.
            Err(e) => return Ok(Item::Judged(Box::new(unreadable(distribution, &e)))),
        };
        let name = package.metadata.name.clone();
        let asks = package.metadata.requires.iter().any(|r| r.name.as_ref() == "torch")
            || !package.metadata.unreadable_on("torch", &torch.target)?.is_empty();
        let related = asks || package.libraries.iter().any(Own::uses_torch);
        Ok(if related {
            Item::Package(name, Box::new(package))
        } else {
            Item::Unrelated(name, package.metadata.version)
        })
    };
    let others = found.par_iter().filter(|d| Some(*d) != its_torch.as_ref());
    let items: Result<Vec<Item>> = others.map(read).collect();
    Ok(if found.is_empty() { None } else { Some(items?) })
}
