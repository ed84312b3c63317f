//! Compiles a sample of the objects that came from elsewhere again, and holds them against what came. Which ones, nobody
//! can know beforehand: the build draws them by a seed of its own. One that differs ends the build, and everything that
//! came with it goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::command::{Command, commands};
use super::import::{Imported, forget, supply};
use crate::error::{Error, Result};
use crate::platform;
use crate::stage::build::{Build, CCACHE};
use crate::stage::farm::daemon;
use crate::stage::shared::Refused;
use crate::stage::work::{Work, remote};
use crate::store::{digest_file, remove_tree, write_atomically};
use crate::toolchain::{LAUNCH_COMMAND, Process, objects};

/// Percent of the objects that are compiled again, where nobody says otherwise.
const PERCENT: u8 = 1;
/// Objects that are compiled again at the least, if any are: one in a hundred of a small build is none.
const LEAST: usize = 10;
/// The file of a work folder that says what was drawn.
const FILE: &str = "objects.audit.json";

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
    /// The largest share that was asked for, in percent.
    #[serde(default)]
    percent: u8,
}

impl Drawn {
    fn load(work: &Work) -> Self {
        let text = std::fs::read(work.dir.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn save(&self, work: &Work) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| Error::world("record", e.to_string()))?;
        write_atomically(&work.dir.join(FILE), &text)
    }
}

/// How many of `n` objects are compiled again.
fn sample_size(n: usize, percent: u8) -> usize {
    if percent == 0 {
        return 0;
    }
    (n * usize::from(percent)).div_ceil(100).max(LEAST).min(n)
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
}

/// An object from elsewhere that is not what this machine's compiler makes.
struct Differing {
    output: String,
    came: String,
    made: String,
}

/// Compiles a sample of what came from elsewhere since the last sample again.
///
/// # Errors
/// The answer is no: an object is not what this machine's compiler makes. Compiling again fails.
pub fn sample(build: &Build<'_>, work: &Work, means: &Means<'_>) -> Result<()> {
    let mut drawn = Drawn::load(work);
    let foreign = Foreign::of(build, work)?;
    note_own(build, work, &foreign);
    let all: BTreeMap<String, String> =
        foreign.all().map(|(output, digest)| (output.clone(), digest.clone())).collect();
    let percent = build.options.cache_audit.unwrap_or(PERCENT);
    // Who asks for more than before asks it of all that is there.
    let (seen, before) = if percent > drawn.percent { (&drawn.same, audited(&drawn, &all)) } else { (&drawn.of, 0) };
    let fresh: Vec<(&String, &String)> =
        all.iter().filter(|(output, digest)| seen.get(*output) != Some(*digest)).collect();
    let count = sample_size(fresh.len() + before, percent).saturating_sub(before);
    if fresh.is_empty() || (count == 0 && before > 0) {
        return Ok(());
    }
    let mut random = fastrand::Rng::new();
    let seed = random.get_seed();
    let chosen = random.choose_multiple(fresh.iter().copied(), count);
    build.events.note(format!(
        "{} objects came from elsewhere; {count} of them are compiled again and compared (seed {seed:016x})",
        fresh.len()
    ));
    if let Some(differing) = again(build, work, &foreign.commands, &chosen, means)? {
        return Err(if foreign.shared.contains_key(&differing.output) {
            refuse_shared(build, work, &foreign, &differing, means)?
        } else if foreign.farmed.contains_key(&differing.output) {
            refuse_farm(build, work, &foreign, &differing)?
        } else {
            refuse(build, work, &foreign.delivered, &differing)?
        });
    }
    let pair = |(output, digest): &(&String, &String)| ((*output).clone(), (*digest).clone());
    drawn.same.extend(chosen.iter().map(pair));
    drawn.of.extend(fresh.iter().map(pair));
    drawn.percent = drawn.percent.max(percent);
    drawn.save(work)
}

/// How many of `all` objects were compiled again as they are now.
fn audited(drawn: &Drawn, all: &BTreeMap<String, String>) -> usize {
    all.iter().filter(|(output, digest)| drawn.same.get(*output) == Some(*digest)).count()
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
        let (delivered, compiled) = (objects::delivered(&work.dir), remote::compiled(work));
        let mut farmed = objects::farmed(&work.dir);
        if delivered.is_empty() && compiled.is_empty() && farmed.is_empty() {
            return Ok(Self::default());
        }
        // One that was made again since, without a farm, is not its any more.
        let is_theirs = |output: &String, digest: &mut String| {
            digest_file(&work.build().join(output)).is_ok_and(|(is, _)| is == *digest)
        };
        farmed.retain(|output, digest| !delivered.contains_key(output) && is_theirs(output, digest));
        let commands = commands(work)?;
        let own = folder(build).as_deref().map(remote::own).unwrap_or_default();
        let theirs = by_ccache(&commands, work, &compiled, true)
            .filter(|output| !delivered.contains_key(*output) && !farmed.contains_key(*output));
        let digests =
            theirs.filter_map(|output| Some((output.clone(), digest_file(&work.build().join(output)).ok()?.0)));
        let shared = digests.filter(|(_, digest)| !own.contains(digest)).collect();
        Ok(Self { commands, delivered, shared, farmed })
    }

    /// All of them.
    fn all(&self) -> impl Iterator<Item = (&String, &String)> {
        self.delivered.iter().chain(&self.shared).chain(&self.farmed)
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
fn note_own(build: &Build<'_>, work: &Work, foreign: &Foreign) {
    let Some(folder) = folder(build) else { return };
    let compiled = remote::compiled(work);
    let ours = by_ccache(&foreign.commands, work, &compiled, false)
        .filter(|output| !foreign.delivered.contains_key(*output) && !foreign.farmed.contains_key(*output));
    let digests = ours.filter_map(|output| Some(digest_file(&work.build().join(output)).ok()?.0));
    remote::note_own(&folder, &remote::own(&folder), digests);
}

/// Compiles these again; one that differs, if any does.
fn again(
    build: &Build<'_>,
    work: &Work,
    known: &BTreeMap<String, Command>,
    chosen: &[(&String, &String)],
    means: &Means<'_>,
) -> Result<Option<Differing>> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Ok(None)));
    let take = || chosen.get(next.fetch_add(1, Ordering::SeqCst));
    std::thread::scope(|scope| {
        for _ in 0..means.jobs.clamp(1, chosen.len().max(1)) {
            scope.spawn(|| {
                while let Some((output, came)) = take() {
                    let end = match known.get(*output) {
                        Some(command) => compiled(build, work, command, came, means.rules),
                        // Nothing compiles it any more, so nothing says what it should be.
                        None => Ok(Some("no command makes it".into())),
                    };
                    let differing = |made| Differing { output: (*output).clone(), came: (*came).clone(), made };
                    let end = end.map(|made| made.map(differing));
                    if !matches!(end, Ok(None)) {
                        next.store(chosen.len(), Ordering::SeqCst);
                        let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        // What differs is not made good by another one that could not be compiled.
                        if !matches!(*found, Ok(Some(_))) {
                            *found = end;
                        }
                    }
                }
            });
        }
    });
    platform::check_cancelled()?;
    found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The process that compiles by `command`, through the launcher, past every cache.
fn process(build: &Build<'_>, work: &Work, command: &Command) -> Process {
    Process::new(work.launcher())
        .arg(LAUNCH_COMMAND)
        .arg(&work.dir)
        .args(&command.argv)
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
        .hide(build.compiler.hidden())
        .envs(rules.iter().map(|(name, value)| (name, value)))
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

/// Removes all that came with an object that is not what it should be, and says so.
fn refuse(
    build: &Build<'_>,
    work: &Work,
    delivered: &BTreeMap<String, String>,
    differing: &Differing,
) -> Result<Error> {
    let from = supply(build)?.map(|(_, record)| record);
    for output in delivered.keys() {
        let _ = std::fs::remove_file(work.build().join(output));
    }
    objects::forget(&work.dir);
    let _ = std::fs::remove_file(work.dir.join(FILE));
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
    if let Some(command) = foreign.commands.get(&differing.output) {
        let noting = means.refused.map(Refused::noting);
        // What ccache calls the entry, it alone knows: made anew, the entry is another one.
        let anew = means.cache.iter().cloned().chain([("CCACHE_RECACHE".to_owned(), "1".to_owned())]);
        let _ = process(build, work, command).envs(anew).check("audit", Some(&work.log("audit")));
        drop(noting);
    }
    for output in foreign.shared.keys() {
        let _ = std::fs::remove_file(work.build().join(output));
    }
    remote::forget(work);
    let _ = std::fs::remove_file(work.dir.join(FILE));
    // Of which one it came, nobody can tell where none was named in this run.
    let folders = cache.map_or_else(
        || build.store.caches(remote::FOLDERS),
        |cache| remote::folder(&build.store.cache(CCACHE), cache).into_iter().collect(),
    );
    for folder in folders.iter().filter(|folder| folder.exists()) {
        remove_tree(folder)?;
    }
    let from = cache.map_or("a shared cache".into(), |cache| format!("the shared cache {}", cache.storage.shown()));
    let entry = match cache {
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
    for output in foreign.farmed.keys() {
        let _ = std::fs::remove_file(work.build().join(output));
    }
    objects::forget_farmed(&work.dir);
    let _ = std::fs::remove_file(work.dir.join(FILE));
    let farm = build.options.farm.as_ref();
    let kept = farm.map_or_else(|| build.store.caches(daemon::CACHES), |farm| vec![daemon::cache(build, farm)]);
    for kept in kept.iter().filter(|kept| kept.exists()) {
        remove_tree(kept)?;
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
    let drawn = Drawn::load(work);
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
        audited: audited(&drawn, &all) as u64,
        archive: archive.map(|record| record.sha256).unwrap_or_default(),
        writer,
    }))
}

#[cfg(test)]
mod tests {
    use super::sample_size;

    #[test]
    fn a_sample_is_one_percent_and_ten_objects_at_the_least_and_never_more_than_there_are() {
        assert_eq!(sample_size(1970, 1), 20);
        assert_eq!(sample_size(500, 1), 10);
        assert_eq!(sample_size(4, 1), 4);
        assert_eq!(sample_size(1970, 100), 1970);
        assert_eq!(sample_size(1970, 0), 0);
    }
}
