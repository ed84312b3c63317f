//! Compiles a sample of the objects that came from elsewhere again, and holds them against what came. Which ones, nobody
//! can know beforehand: the build draws them by a seed of its own. One that differs ends the build, and everything that
//! came with it goes.
//!
//! The sample is the build's, not a stage's: a stage after which more objects come draws its share of it before it uses
//! what it has, and the last one draws the rest ([`Size`]). A build that ends earlier owes the rest there ([`owes`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::command::{Command, commands};
use super::import::{Imported, forget, supply};
use crate::error::{Context, Error, Result};
use crate::platform;
use crate::stage::build::{Build, CCACHE};
use crate::stage::farm::daemon;
use crate::stage::shared::Refused;
use crate::stage::work::{Work, remote};
use crate::store::{digest_file, read_if_there, remove_if_there, remove_in_use, write_atomically};
use crate::toolchain::{LAUNCH_COMMAND, Process, objects};

/// Percent of the objects that are compiled again, where nobody says otherwise.
const PERCENT: u8 = 1;
/// Objects that are compiled again at the least, if any are: one in a hundred of a small build is none.
const LEAST: usize = 10;
/// The file of a work folder that says what was drawn.
const FILE: &str = "objects.audit.json";
/// The stage that uses objects before the whole sample is drawn: what it found out is worth nothing if one is false.
const EARLY: &str = "canary";

/// An object: what the build calls it, and its SHA-256.
type One<'a> = (&'a String, &'a String);

/// How much of a build's sample is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// The percentage of what is there so far: more comes with a later stage, which draws the rest.
    Share,
    /// All that the build owes.
    Whole,
}

/// Where the objects of a build came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins {
    /// Objects of the build.
    pub objects: u64,
    /// Of these, those of an archive that was taken in.
    pub imported: u64,
    /// Those of a shared cache.
    pub shared: u64,
    /// Those that a farm compiled.
    #[serde(default, skip_serializing_if = "is_none")]
    pub farm: u64,
    /// Of all these, those that were compiled again here, to the same bytes.
    pub audited: u64,
    /// SHA-256 of the archive; empty if there was none.
    pub archive: String,
    /// Who answers for it.
    pub writer: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // what serde asks with
fn is_none(n: &u64) -> bool {
    *n == 0
}

impl Origins {
    /// Objects that were not compiled on this machine.
    pub fn elsewhere(&self) -> u64 {
        self.imported + self.shared + self.farm
    }
}

/// What was drawn so far in a work folder.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Drawn {
    /// Objects that a sample was drawn of, by output: their SHA-256.
    of: BTreeMap<String, String>,
    /// Those that were compiled again, to the same bytes, by output: their SHA-256.
    same: BTreeMap<String, String>,
    /// Those that were drawn and are not compiled again yet: a build that was stopped goes on with them, and draws no
    /// others in their place.
    #[serde(default)]
    open: BTreeMap<String, String>,
    /// The share that these were drawn by, in percent.
    #[serde(default)]
    percent: u8,
    /// Whether a build that ends here has to compile more of them again.
    #[serde(default)]
    owes: bool,
}

impl Drawn {
    fn load(work: &Work) -> Result<Self> {
        let Some(text) = read_if_there(&work.dir.join(FILE))? else { return Ok(Self::default()) };
        // What nobody can make sense of says of no object that it was looked at.
        Ok(serde_json::from_slice(&text).unwrap_or_else(|_| Self { owes: true, ..Self::default() }))
    }

    fn save(&self, work: &Work) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| Error::world("record", e.to_string()))?;
        write_atomically(&work.dir.join(FILE), &text)
    }

    /// Draws what is missing of a sample of `all`; all that is now to be compiled again.
    fn draw<'a>(
        &mut self,
        all: &'a BTreeMap<String, String>,
        percent: u8,
        size: Size,
        random: &mut fastrand::Rng,
    ) -> Vec<One<'a>> {
        if percent < self.percent && !self.open.is_empty() {
            // Which of a larger sample were compiled before it was stopped is no chance: the longest were. So the
            // smaller one is drawn of all.
            *self = Self::default();
        }
        let is_in = |known: &BTreeMap<String, String>, (output, digest): &One<'_>| known.get(*output) == Some(*digest);
        let (seen, fresh): (Vec<One<'a>>, Vec<One<'a>>) = all.iter().partition(|one| is_in(&self.of, one));
        let (taken, left): (Vec<One<'a>>, Vec<One<'a>>) =
            seen.into_iter().partition(|one| is_in(&self.same, one) || is_in(&self.open, one));
        let count = sample_size(all.len(), percent, size);
        // Those that came since get their share of the sample, however many of the others were drawn already: else what
        // comes late would be drawn less often. The fraction of an object that the share has is one by chance.
        let (share, of) = (count * fresh.len(), all.len().max(1));
        let of_fresh = share / of + usize::from(random.usize(..of) < share % of);
        // The others make up the rest: fewer were drawn of them so far where the percentage alone counted.
        let of_left = count.saturating_sub(of_fresh + taken.len());
        let mut chosen = random.choose_multiple(fresh.iter().copied(), of_fresh);
        chosen.extend(random.choose_multiple(left, of_left));
        chosen.extend(taken.into_iter().filter(|one| is_in(&self.open, one)));
        let pair = |(output, digest): &One<'_>| ((*output).clone(), (*digest).clone());
        self.of.extend(fresh.iter().map(pair));
        self.open = chosen.iter().map(pair).collect();
        self.percent = percent;
        chosen
    }

    /// Notes that these were compiled again, to the same bytes.
    fn found_same(&mut self, done: &[One<'_>]) {
        for (output, digest) in done {
            self.open.remove(*output);
            self.same.insert((*output).clone(), (*digest).clone());
        }
    }

    /// How many of `all` objects were compiled again as they are now.
    fn audited(&self, all: &BTreeMap<String, String>) -> usize {
        all.iter().filter(|(output, digest)| self.same.get(*output) == Some(*digest)).count()
    }
}

/// How many of `n` objects are compiled again.
fn sample_size(n: usize, percent: u8, size: Size) -> usize {
    let least = if percent == 0 || size == Size::Share { 0 } else { LEAST };
    (n * usize::from(percent)).div_ceil(100).max(least).min(n)
}

/// Whether a build that ends with what is in `work` has to compile more again of what came from elsewhere.
///
/// # Errors
/// The world: what is noted of it is there and cannot be read.
pub fn owes(work: &Work) -> Result<bool> {
    Ok(Drawn::load(work)?.owes)
}

/// With what a sample is compiled.
pub struct Means<'a> {
    /// Compilers at a time.
    pub jobs: usize,
    /// By which rules they are admitted: what their environment has to say of it.
    pub rules: &'a [(String, PathBuf)],
    /// How the compiler cache is told what to do, to make it forget an entry.
    pub cache: &'a [(String, String)],
    /// Which entries of the shared cache are not read any more, if there is one.
    pub refused: Option<&'a Refused>,
    /// Seconds that an object is expected to take.
    pub seconds: &'a (dyn Fn(&str) -> f64 + Sync),
}

/// An object from elsewhere that is not what this machine's compiler makes.
struct Differing {
    output: String,
    came: String,
    made: String,
}

/// Compiles again what is missing of a sample of all that came from elsewhere.
///
/// # Errors
/// The answer is no: an object is not what this machine's compiler makes. Compiling again fails.
pub fn sample(build: &Build<'_>, work: &Work, means: &Means<'_>, size: Size) -> Result<()> {
    let mut drawn = Drawn::load(work)?;
    let foreign = Foreign::of(build, work)?;
    note_own(build, work, &foreign)?;
    let all: BTreeMap<String, String> =
        foreign.all().map(|(output, digest)| (output.clone(), digest.clone())).collect();
    if all.is_empty() {
        return Ok(());
    }
    let percent = build.options.cache_audit.unwrap_or(PERCENT);
    let mut random = fastrand::Rng::new();
    let seed = random.get_seed();
    let mut chosen = drawn.draw(&all, percent, size, &mut random);
    let before = drawn.audited(&all);
    if !chosen.is_empty() || percent == 0 {
        let beside = if before > 0 { format!(", beside {before} that were") } else { String::new() };
        build.events.note(format!(
            "{} objects came from elsewhere; {} of them are compiled again and compared{beside} (seed {seed:016x})",
            all.len(),
            chosen.len()
        ));
    }
    drawn.owes = true;
    drawn.save(work)?;
    // The longest first: the last one is waited for by all cores but its own.
    let seconds = means.seconds;
    chosen.sort_by(|(a, _), (b, _)| seconds(b.as_str()).total_cmp(&seconds(a.as_str())).then_with(|| a.cmp(b)));
    let (done, end) = again(build, work, &foreign.commands, &chosen, means);
    // Also of a sample that was stopped: what is done is not done twice.
    drawn.found_same(&done);
    drawn.owes = !drawn.open.is_empty() || drawn.audited(&all) < sample_size(all.len(), percent, Size::Whole);
    let saved = drawn.save(work);
    if let Some(differing) = end? {
        return Err(if foreign.shared.contains_key(&differing.output) {
            refuse_shared(build, work, &foreign, &differing, means)?
        } else if foreign.farmed.contains_key(&differing.output) {
            refuse_farm(build, work, &foreign, &differing)?
        } else {
            refuse(build, work, &foreign.delivered, &differing)?
        });
    }
    saved
}

/// The objects in a work folder that came from elsewhere.
#[derive(Default)]
struct Foreign {
    commands: BTreeMap<String, Command>,
    /// Those of an archive: output → SHA-256.
    delivered: BTreeMap<String, String>,
    /// Those of a shared cache.
    shared: BTreeMap<String, String>,
    /// Those that a farm compiled.
    farmed: BTreeMap<String, String>,
}

impl Foreign {
    fn of(build: &Build<'_>, work: &Work) -> Result<Self> {
        let (delivered, compiled) = (objects::delivered(&work.dir)?, remote::compiled(work)?);
        let noted = objects::farmed(&work.dir)?;
        if delivered.is_empty() && compiled.is_empty() && noted.is_empty() {
            return Ok(Self::default());
        }
        let mut farmed = BTreeMap::new();
        for (output, digest) in noted.into_iter().filter(|(output, _)| !delivered.contains_key(output)) {
            // One that was made again since, without a farm, is not its any more.
            if digest_if_there(&work.build().join(&output))?.is_some_and(|is| is == digest) {
                farmed.insert(output, digest);
            }
        }
        let commands = commands(work)?;
        let own = folder(build).as_deref().map(remote::own).unwrap_or_default();
        let theirs = by_ccache(&commands, work, &compiled, true)
            .filter(|output| !delivered.contains_key(*output) && !farmed.contains_key(*output));
        let mut shared = BTreeMap::new();
        for output in theirs {
            if let Some(digest) = digest_if_there(&work.build().join(output))?.filter(|digest| !own.contains(digest)) {
                shared.insert(output.clone(), digest);
            }
        }
        Ok(Self { commands, delivered, shared, farmed })
    }

    /// All of them.
    fn all(&self) -> impl Iterator<Item = (&String, &String)> {
        self.delivered.iter().chain(&self.shared).chain(&self.farmed)
    }
}

/// Digest of an object, if it is there; one that cannot be read is not passed over.
fn digest_if_there(object: &Path) -> Result<Option<String>> {
    match digest_file(object) {
        Ok((digest, _)) => Ok(Some(digest)),
        Err(_) if !object.exists() => Ok(None),
        Err(e) => Err(e),
    }
}

/// The outputs of which ccache had an object (`had`), or had none and was told to compile. It names the source: of one that
/// is compiled twice, both objects count.
fn by_ccache<'c>(
    commands: &'c BTreeMap<String, Command>,
    work: &'c Work,
    compiled: &'c BTreeMap<String, bool>,
    had: bool,
) -> impl Iterator<Item = &'c String> {
    let of = move |command: &Command| {
        let words = command.relative(work);
        let source = words.iter().position(|word| word == "-c").and_then(|at| words.get(at + 1));
        source.and_then(|source| compiled.get(source)).copied()
    };
    commands.values().filter(move |command| of(command) == Some(had)).map(|command| &command.output)
}

/// The folder of what ccache keeps of the shared cache of this run, if it is there.
fn folder(build: &Build<'_>) -> Option<PathBuf> {
    let shared = build.options.shared_cache.as_ref()?;
    remote::folder(&build.store.cache(CCACHE), shared).filter(|folder| folder.is_dir())
}

/// Notes which objects this machine compiled into the folder of a shared cache.
fn note_own(build: &Build<'_>, work: &Work, foreign: &Foreign) -> Result<()> {
    let Some(folder) = folder(build) else { return Ok(()) };
    let compiled = remote::compiled(work)?;
    let ours = by_ccache(&foreign.commands, work, &compiled, false)
        .filter(|output| !foreign.delivered.contains_key(*output) && !foreign.farmed.contains_key(*output));
    let digests = ours.filter_map(|output| Some(digest_file(&work.build().join(output)).ok()?.0));
    remote::note_own(&folder, &remote::own(&folder), digests);
    Ok(())
}

/// Compiles these again, in their order; those that came out the same, and one that differs, if any does.
fn again<'a>(
    build: &Build<'_>,
    work: &Work,
    known: &BTreeMap<String, Command>,
    chosen: &[One<'a>],
    means: &Means<'_>,
) -> (Vec<One<'a>>, Result<Option<Differing>>) {
    let (next, done, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Ok(None)));
    let take = || chosen.get(next.fetch_add(1, Ordering::SeqCst)).copied();
    std::thread::scope(|scope| {
        for _ in 0..means.jobs.clamp(1, chosen.len().max(1)) {
            scope.spawn(|| {
                while let Some((output, came)) = take() {
                    let end = match known.get(output) {
                        Some(command) => compiled(build, work, command, came, means.rules),
                        // Nothing compiles it any more, so nothing says what it should be.
                        None => Ok(Some("no command makes it".into())),
                    };
                    let differing = |made| Differing { output: output.clone(), came: came.clone(), made };
                    let end = end.map(|made| made.map(differing));
                    if matches!(end, Ok(None)) {
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((output, came));
                        continue;
                    }
                    next.store(chosen.len(), Ordering::SeqCst);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    // What differs is not made good by another one that could not be compiled.
                    if !matches!(*found, Ok(Some(_))) {
                        *found = end;
                    }
                }
            });
        }
    });
    let end = platform::check_cancelled().and_then(|()| found.into_inner().unwrap_or_else(PoisonError::into_inner));
    (done.into_inner().unwrap_or_else(PoisonError::into_inner), end)
}

/// The process that compiles by `command` as the build does, through the launcher, past every cache.
fn process(build: &Build<'_>, work: &Work, command: &Command) -> Process {
    Process::new(work.launcher())
        .arg(LAUNCH_COMMAND)
        .arg(&work.dir)
        .args(&command.argv)
        .hide(build.compiler.hidden())
        .envs(build.torch_env(work))
        .cwd(work.build())
}

/// Compiles one object again by the very command that the build has for it, at its own place: its name may be in it.
/// The digest of what came out, if that is another one than `came`.
fn compiled(
    build: &Build<'_>,
    work: &Work,
    command: &Command,
    came: &str,
    rules: &[(String, PathBuf)],
) -> Result<Option<String>> {
    let object = work.build().join(&command.output);
    let mut aside = object.clone().into_os_string();
    aside.push(".from-elsewhere");
    platform::rename(&object, &aside)?;
    let ran = process(build, work, command)
        .envs(rules.iter().map(|(name, value)| (name, value)))
        // A compiler may be ccache under its name (Debian's /usr/lib/ccache), which has a cache of its own, and may
        // share that by what /etc/ccache.conf says.
        .env("CCACHE_DISABLE", "1")
        .check("audit", Some(&work.log("audit")));
    if let Err(e) = ran {
        platform::rename(&aside, &object)?;
        return Err(e.doing(format!("compiling {} again, which came from elsewhere", command.output)));
    }
    let made = digest_file(&object)?.0;
    // ninja goes by times: what was there is put back as it was, and it has read the list of files already.
    platform::rename(&aside, &object)?;
    if let Some(at) = command.argv.iter().position(|a| a == "-MF")
        && let Some(depfile) = command.argv.get(at + 1)
    {
        let _ = std::fs::remove_file(work.build().join(depfile));
    }
    Ok((made != came).then_some(made))
}

/// What is said of an object that differs; `from` is where it came from, `writer` who answers for it.
fn told(build: &Build<'_>, differing: &Differing, from: &str, writer: &str) -> Error {
    let Differing { output, came, made } = differing;
    let compiler = &build.compiler.banner;
    Error::not_trusted(format!(
        "the object {output} of {from} is not what {compiler} makes here of its source: sha256:{came} came, sha256:{made} was compiled; {writer} answers for it"
    ))
}

/// Removes these objects in `work`, of which one is not what it should be, and then forgets with `forget` where they came
/// from: one that stays would count as compiled here. What was drawn, and what was found out with them, goes too.
fn remove<'a>(
    work: &Work,
    outputs: impl Iterator<Item = &'a String>,
    forget: impl FnOnce() -> Result<()>,
) -> Result<()> {
    for output in outputs {
        remove_if_there(&work.build().join(output))
            .doing(|| "removing objects from elsewhere: one is not what this machine's compiler makes".into())?;
    }
    forget()?;
    remove_if_there(&work.dir.join(FILE))?;
    work.begin(EARLY)
}

/// Removes all that came with an object that is not what it should be, and says so.
fn refuse(
    build: &Build<'_>,
    work: &Work,
    delivered: &BTreeMap<String, String>,
    differing: &Differing,
) -> Result<Error> {
    let from = supply(build)?.map(|(_, record)| record);
    remove(work, delivered.keys(), || objects::forget(&work.dir))?;
    forget(build)?;
    let (archive, writer) = match &from {
        Some(Imported { archive, sha256, writer, .. }) => (format!("{archive} (sha256:{sha256})"), writer.as_str()),
        None => ("an archive that is not in the store any more".into(), "somebody who is not known"),
    };
    Ok(told(build, differing, &archive, writer)
        .next(format!(
            "the archive was removed, and {} objects of it in this build: run the same command again, and all is compiled here",
            delivered.len()
        ))
        .next("tell whoever made the archive; one that is honest comes from a compiler that makes other bytes from run to run"))
}

/// The same for a shared cache: what this machine had of it goes, and the entry is overwritten by what was compiled
/// here, where this machine may write. Where it may not, it is not read any more.
fn refuse_shared(
    build: &Build<'_>,
    work: &Work,
    foreign: &Foreign,
    differing: &Differing,
    means: &Means<'_>,
) -> Result<Error> {
    let cache = build.options.shared_cache.as_deref();
    let anew = foreign.commands.get(&differing.output).is_some_and(|command| {
        let noting = means.refused.map(Refused::noting);
        // What ccache calls the entry, it alone knows: made anew, the entry is another one.
        let anew = means.cache.iter().cloned().chain([("CCACHE_RECACHE".to_owned(), "1".to_owned())]);
        let made = process(build, work, command).envs(anew).check("audit", Some(&work.log("audit"))).is_ok();
        drop(noting);
        made
    });
    remove(work, foreign.shared.keys(), || remote::forget(work))?;
    // Of which one it came, nobody can tell where none was named in this run.
    let folders = cache.map_or_else(
        || build.store.caches(remote::FOLDERS),
        |cache| remote::folder(&build.store.cache(CCACHE), cache).into_iter().collect(),
    );
    // Another build may be using it.
    for folder in folders.iter().filter(|folder| folder.exists()) {
        remove_in_use(folder)?;
    }
    let from = cache.map_or("a shared cache".into(), |cache| format!("the shared cache {}", cache.storage.shown()));
    let entry = match cache {
        Some(_) if !anew => "its entry could not be made anew, and is still there",
        Some(cache) if cache.writes() => "its entry was made anew",
        Some(_) => "its entry, which cannot be written here, is not read any more",
        None => "what this machine had of shared caches is gone",
    };
    let writer = cache.map_or("somebody who is not known".into(), crate::stage::shared::Shared::writer);
    Ok(told(build, differing, &from, &writer)
        .next(format!(
            "{entry}, and {} objects that came from there were removed: find out who wrote it before you read from there again",
            foreign.shared.len()
        ))
        .next("without --cache, the same command compiles everything here"))
}

/// The same for a farm: all that it compiled goes, also what the engine kept of it.
fn refuse_farm(build: &Build<'_>, work: &Work, foreign: &Foreign, differing: &Differing) -> Result<Error> {
    remove(work, foreign.farmed.keys(), || objects::forget_farmed(&work.dir))?;
    let farm = build.options.farm.as_ref();
    let kept = farm.map_or_else(|| build.store.caches(daemon::CACHES), |farm| vec![daemon::cache(build, farm)]);
    // Another build may be using it.
    for kept in kept.iter().filter(|kept| kept.exists()) {
        remove_in_use(kept)?;
    }
    let from = farm.map_or("a farm that is not known any more".into(), |farm| format!("the farm {}", farm.shown()));
    Ok(told(build, differing, &from, "one of its workers")
        .next(format!(
            "{} objects that the farm compiled were removed: find out which of its workers makes other objects before you send it anything again",
            foreign.farmed.len()
        ))
        .next("without --farm, the same command compiles everything here"))
}

/// Where the objects of the build in `work` came from; `None` if all were compiled here.
///
/// # Errors
/// ninja cannot be run.
pub fn origins(build: &Build<'_>, work: &Work) -> Result<Option<Origins>> {
    let foreign = Foreign::of(build, work)?;
    if foreign.all().next().is_none() {
        return Ok(None);
    }
    let drawn = Drawn::load(work)?;
    let there = |output: &&String| work.build().join(output).is_file();
    let archive = supply(build)?.map(|(_, record)| record).filter(|_| !foreign.delivered.is_empty());
    let cache = build.options.shared_cache.as_ref().filter(|_| !foreign.shared.is_empty());
    let farm = build.options.farm.as_ref().filter(|_| !foreign.farmed.is_empty());
    let writers: Vec<String> = [
        archive.as_ref().map(|record| record.writer.clone()),
        cache.map(|cache| cache.writer()),
        farm.map(|farm| format!("the workers of {}", farm.shown())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let writer = if writers.is_empty() { "not known any more".into() } else { writers.join("; ") };
    let all: BTreeMap<String, String> =
        foreign.all().map(|(output, digest)| (output.clone(), digest.clone())).collect();
    Ok(Some(Origins {
        objects: foreign.commands.keys().filter(there).count() as u64,
        imported: foreign.delivered.keys().filter(there).count() as u64,
        shared: foreign.shared.len() as u64,
        farm: foreign.farmed.len() as u64,
        audited: drawn.audited(&all) as u64,
        archive: archive.map(|record| record.sha256).unwrap_or_default(),
        writer,
    }))
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::stage::step::Step;
    use crate::stage::steps::canary::Canary;

    #[test]
    fn a_sample_is_one_percent_and_ten_objects_at_the_least_and_never_more_than_there_are() {
        let size = |n, percent| sample_size(n, percent, Size::Whole);
        assert_eq!(size(1970, 1), 20);
        assert_eq!(size(500, 1), 10);
        assert_eq!(size(4, 1), 4);
        assert_eq!(size(1970, 100), 1970);
        assert_eq!(size(1970, 0), 0);
        let share = |n, percent| sample_size(n, percent, Size::Share);
        assert_eq!([share(291, 1), share(4, 1), share(291, 100), share(291, 0)], [3, 1, 291, 0]);
    }

    #[test]
    fn objects_that_cannot_be_removed_are_not_forgotten_and_a_note_that_is_damaged_frees_nobody_of_the_sample() {
        let dir = tempfile::tempdir().unwrap();
        let work = Work { dir: dir.path().to_owned() };
        let outputs = ["a.o".to_owned(), "b.o".to_owned()];
        std::fs::create_dir_all(work.build().join("b.o")).unwrap();
        let mut forgotten = false;
        let forget = || {
            forgotten = true;
            Ok(())
        };
        assert!(remove(&work, outputs.iter(), forget).is_err());
        assert!(!forgotten);
        assert!(!owes(&work).unwrap());
        std::fs::write(work.dir.join(FILE), "{").unwrap();
        assert!(owes(&work).unwrap());
        std::fs::remove_file(work.dir.join(FILE)).unwrap();
        std::fs::create_dir(work.dir.join(FILE)).unwrap();
        assert!(owes(&work).is_err());
    }

    #[test]
    fn the_stage_that_uses_objects_early_is_the_canary() {
        assert_eq!(EARLY, Canary::NAME);
    }

    /// `n` objects of the folder `of`.
    fn objects(of: &str, n: usize) -> BTreeMap<String, String> {
        (0..n).map(|i| (format!("{of}/{i:04}.o"), "0".repeat(64))).collect()
    }

    /// Draws, and compiles again; how many.
    fn drawn(so_far: &mut Drawn, all: &BTreeMap<String, String>, percent: u8, size: Size, random: &mut Rng) -> usize {
        let chosen = so_far.draw(all, percent, size, random);
        so_far.found_same(&chosen);
        assert!(so_far.open.is_empty());
        chosen.len()
    }

    fn both(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        first.iter().chain(second).map(|(output, digest)| (output.clone(), digest.clone())).collect()
    }

    #[test]
    fn what_two_stages_draw_is_one_sample() {
        let mut random = Rng::with_seed(1);
        for (first, second, share, whole) in
            [(291, 3155, 3, 35), (291, 9, 3, 10), (291, 709, 3, 10), (3, 40, 1, 10), (3, 6, 1, 9), (0, 500, 0, 10)]
        {
            let (canary, rest) = (objects("canary", first), objects("rest", second));
            let all = both(&canary, &rest);
            for _ in 0..20 {
                let mut so_far = Drawn::default();
                assert_eq!(drawn(&mut so_far, &canary, 1, Size::Share, &mut random), share);
                let sum = share + drawn(&mut so_far, &all, 1, Size::Whole, &mut random);
                // One more, where the share was rounded up and the rest is as well.
                assert!((whole..=whole + 1).contains(&sum) && sum <= all.len(), "{first} + {second}: {sum}");
                assert_eq!(so_far.audited(&all), sum);
                // The same stage again has nothing to draw.
                assert_eq!(drawn(&mut so_far, &all, 1, Size::Whole, &mut random), 0);
            }
        }
    }

    #[test]
    fn an_object_is_drawn_as_often_as_any_other_whichever_stage_it_came_with() {
        let (mut random, rounds) = (Rng::with_seed(1), 3000_u32);
        for (first, second) in [(30, 10), (10, 30)] {
            let (canary, rest) = (objects("canary", first), objects("rest", second));
            let all = both(&canary, &rest);
            let mut times: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..rounds {
                let mut so_far = Drawn::default();
                drawn(&mut so_far, &canary, 1, Size::Share, &mut random);
                drawn(&mut so_far, &all, 1, Size::Whole, &mut random);
                for output in so_far.same.into_keys() {
                    *times.entry(output).or_default() += 1;
                }
            }
            for output in all.keys() {
                // 10 of 40; 0.04 is five times what chance makes of 3000 rounds.
                let often = f64::from(times.get(output).copied().unwrap_or_default()) / f64::from(rounds);
                assert!((often - 0.25).abs() < 0.04, "{output} of {first} + {second}: {often}");
            }
        }
    }

    #[test]
    fn what_came_late_has_its_share_however_much_was_compiled_again_before() {
        let (canary, rest) = (objects("canary", 291), objects("rest", 3155));
        let (mut so_far, mut random) = (Drawn::default(), Rng::with_seed(1));
        assert_eq!(drawn(&mut so_far, &canary, 100, Size::Share, &mut random), 291);
        // 1 % of 3446 are 35, of which the later ones have 32.04.
        let late = drawn(&mut so_far, &both(&canary, &rest), 1, Size::Whole, &mut random);
        assert!((32..=33).contains(&late), "{late}");
    }

    #[test]
    fn a_larger_share_is_asked_of_all_and_none_leaves_all_to_be_asked_for() {
        let all = objects("x", 1000);
        let (mut so_far, mut random) = (Drawn::default(), Rng::with_seed(1));
        for (percent, count) in [(0, 0), (1, 10), (10, 90), (1, 0), (100, 900)] {
            assert_eq!(drawn(&mut so_far, &all, percent, Size::Whole, &mut random), count, "{percent} %");
        }
        // An object with other bytes is another one.
        let mut changed = all.clone();
        changed.insert("x/0000.o".into(), "1".repeat(64));
        assert_eq!(drawn(&mut so_far, &changed, 100, Size::Whole, &mut random), 1);
    }

    #[test]
    fn a_sample_that_was_stopped_goes_on_with_what_it_drew() {
        let all = objects("x", 1000);
        let outputs = |chosen: &[One<'_>]| {
            let mut names: Vec<String> = chosen.iter().map(|(output, _)| (*output).clone()).collect();
            names.sort();
            names
        };
        let (mut so_far, mut random) = (Drawn::default(), Rng::with_seed(1));
        let first = so_far.draw(&all, 2, Size::Whole, &mut random);
        assert_eq!(first.len(), 20);
        so_far.found_same(&first[..7]);
        // As the next run reads it.
        let mut so_far: Drawn = serde_json::from_slice(&serde_json::to_vec(&so_far).unwrap()).unwrap();
        let rest = so_far.draw(&all, 2, Size::Whole, &mut random);
        assert_eq!(outputs(&rest), outputs(&first[7..]));
        // Who asks for less then is not left with the larger one, nor with what happened to be compiled of it.
        let less = so_far.draw(&all, 1, Size::Whole, &mut random);
        assert_eq!((less.len(), so_far.audited(&all)), (10, 0));
    }

    #[test]
    fn what_an_earlier_version_noted_is_read() {
        let text = r#"{"of": {"a.o": "1", "b.o": "2"}, "same": {"a.o": "1"}, "percent": 1}"#;
        let mut so_far: Drawn = serde_json::from_str(text).unwrap();
        let all = BTreeMap::from([("a.o".to_owned(), "1".to_owned()), ("b.o".to_owned(), "2".to_owned())]);
        assert_eq!(so_far.audited(&all), 1);
        assert_eq!(drawn(&mut so_far, &all, 1, Size::Whole, &mut Rng::with_seed(1)), 1);
    }
}
