//! Driving ninja: its status lines become progress with an honest time left, its failures one
//! error with the first cause and advice.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Instant;

use super::cache::CCACHE_LOG;
use super::remote::{self, Connected};
use super::{CompilerCache, Work};
use crate::error::{Error, Result};
use crate::event::{Event, Whence};
use crate::platform;
use crate::recipe::{Cuda, Recipe};
use crate::stage::advice;
use crate::stage::build::Build;
use crate::stage::environment;
use crate::stage::farm::daemon;
use crate::stage::objects::{audit, import};
use crate::toolchain::{
    Process,
    admission::{RULES_VARIABLE, Rules},
    farm::FARM_VARIABLE,
    objects::{self, SUPPLY_VARIABLE},
};

/// Mean seconds of one C++ object of PyTorch on one core, for the first build on a machine.
const FIRST_GUESS_OBJECT: f64 = 4.3;

/// The same by folder of the build, where that is far from it: means of the cold build of `torch-2.12.1-cpu`, and of
/// `torch-2.6.0-cpu` where the newer one has no such folder (docs/results).
const PACE: &str = include_str!("pace.json");

/// Peak MiB of the largest process of a compile, by folder of the build: the largest of the first build of
/// `torch-2.6.0-cu124-sm90`, and of the flash attention kernels of `torch-2.6.0-cu124` that were compiled (docs/results).
/// What 2.12.1 has in targets of their own (`flash_attention`, `mslk`) is taken to need what those kernels did.
const MEMORY: &str = include_str!("memory.json");

/// Steps that failed beside the first which an error names.
const MOST_NAMED: usize = 20;
/// Seconds that the pace is measured over, at least.
const PACE_WINDOW: f64 = 180.0;
/// Seconds that what it is measured over was expected to take, all jobs together, at least: a few large steps say little of
/// the rest.
const PACE_WORK: f64 = 300.0;
/// The seconds that it is measured over at most: what was long ago may have been another kind of work.
const PACE_PAST: f64 = 3.0 * PACE_WINDOW;
/// Seconds of work as expected that are put beside what was measured of compiles.
const PACE_PRIOR: f64 = 120.0;
/// Mean seconds of one CUDA object, for one architecture: 241 of the 248 of `torch-2.6.0-cu124-sm90`, by ninja's log
/// (docs/results).
const FIRST_GUESS_CUDA: f64 = 32.0;
/// Mean seconds of any other step.
const FIRST_GUESS_OTHER: f64 = 0.4;

/// What ninja is to make.
#[derive(Debug, Clone, Copy)]
pub enum Goal<'a> {
    /// Everything.
    All,
    /// These objects, many of them, and what they wait for, for the compiler cache from which another machine takes them:
    /// as many as compile, and none from elsewhere.
    Objects(&'a [String]),
    /// These few outputs, and what they wait for: nobody can say how long that takes.
    Few(&'a [String]),
}

impl Goal<'_> {
    /// The outputs that ninja is told; none means all.
    fn targets(&self) -> &[String] {
        match self {
            Goal::All => &[],
            Goal::Objects(targets) | Goal::Few(targets) => targets,
        }
    }
}

/// Runs ninja in the work folder's build folder; where the objects of this run came from.
///
/// # Errors
/// The world: a step failed, with its first error and what is known to help; or it was stopped.
pub fn run(
    build: &Build<'_>,
    work: &Work,
    cache: &CompilerCache,
    goal: Goal<'_>,
    stage: &'static str,
) -> Result<Whence> {
    let targets = goal.targets();
    let is_timed = !matches!(goal, Goal::Few(_));
    let log = work.log(stage);
    let mut room = Room::of(build);
    // What others compiled is in no cache of this machine.
    let is_for_others = matches!(goal, Goal::Objects(_));
    let supply = if is_for_others { None } else { supply(build, work)? };
    let through = Through::of(build, work, cache);
    let farm = if is_for_others { None } else { farm(build, work, cache, &room) };
    let keeps_going = build.options.keep_going || is_for_others;
    let places = farm.as_ref().map_or(0, |farm| farm.places);
    let had_farm = farm.is_some();
    let mut whence = Counted::new(work);
    loop {
        let mut process = Process::new(environment::tool(&work.dep("buildenv"), "ninja"))
            // What is compiled here is admitted by its launcher, where there is a farm.
            .args(["-j", &(room.jobs + places).to_string()])
            .args(if keeps_going { &["-k", "0"][..] } else { &[] })
            .args(targets)
            .hide(build.compiler.hidden())
            .envs(build.torch_env(work))
            .envs(through.env.iter().map(|(name, value)| (name, value)))
            .env("NINJA_STATUS", "[%f/%t] ")
            // A library of ours may need the cores that ninja leaves; compilers get one thread each.
            .env("MAX_JOBS", room.jobs.to_string())
            .cwd(work.build());
        let rules = rules(build, work, &room, places > 0)?;
        process = process.envs(rules.iter().map(|(name, value)| (name, value)));
        if let Some(farm) = &farm {
            process = process.env(FARM_VARIABLE, &farm.file);
        }
        if let Some(supply) = &supply {
            process = process.env(SUPPLY_VARIABLE, supply);
        }
        let mut estimate = Estimate::new(build, work, room.jobs + places, targets, &whence.now());
        let started = Instant::now();
        let mut failure = Failure::default();
        let output = process.run(Some(&log), &mut |line| {
            failure.line(line);
            if let Some((done, total, what)) = status(line) {
                let from = whence.after(what);
                let left = estimate.finished(what, started.elapsed().as_secs_f64(), &from);
                build.events.emit(Event::CompileProgress {
                    done,
                    total,
                    seconds_left: is_timed.then_some(left).flatten(),
                    current: what.to_owned(),
                    from,
                });
            }
        })?;
        learn_memory(build, work);
        if output.status.success() {
            through.tell(build);
            if let Some(farm) = farm {
                farm.tell(build, work);
            }
            // After a few outputs a build goes on. Where it does not, its stage makes up for it.
            let size = if matches!(goal, Goal::Few(_)) { audit::Size::Share } else { audit::Size::Whole };
            sample(build, work, &room, &rules, &through, size)?;
            // What was waited for on a farm is no time of a compile: an object would be waited for longer each time.
            if is_timed && !had_farm {
                estimate.learn(build, work);
            }
            cache.end(work);
            if is_for_others {
                through.took_all(build)?;
            }
            return Ok(whence.now());
        }
        match room.less() {
            Some(less) if failure.is_for_want_of_memory() => {
                build.events.warn(format!(
                    "the kernel ended a compiler for lack of memory: going on with {} jobs in place of {}",
                    less.jobs, room.jobs
                ));
                room = less;
            }
            _ => return Err(failure.explain(&output.text, &log, room.jobs)),
        }
    }
}

/// Compiles again what a build that ends here still owes of its sample of what came from elsewhere.
///
/// # Errors
/// As [`audit::sample`].
pub fn make_up(build: &Build<'_>, work: &Work, cache: &CompilerCache) -> Result<()> {
    let (room, through) = (Room::of(build), Through::of(build, work, cache));
    let rules = rules(build, work, &room, build.options.farm.is_some())?;
    sample(build, work, &room, &rules, &through, audit::Size::Whole)
}

/// Compiles again what is missing of a sample of that size, as many at a time as the build has jobs.
fn sample(
    build: &Build<'_>,
    work: &Work,
    room: &Room,
    rules: &[(String, PathBuf)],
    through: &Through,
    size: audit::Size,
) -> Result<()> {
    let refused = through.connected.as_ref().map(|connected| &*connected.refused);
    let seconds = expected(build);
    let means = audit::Means { jobs: room.jobs, rules, cache: &through.env, refused, seconds: &seconds };
    audit::sample(build, work, &means, size)
}

/// Seconds that an object is expected to take. What an earlier run noted of one that came from elsewhere is no time of
/// a compile, so the longer of two figures counts.
fn expected(build: &Build<'_>) -> impl Fn(&str) -> f64 + Sync {
    // Both are read only where something is to be compiled again.
    let known = LazyLock::new(|| (timings(build), Pace::of(build.recipe.cuda.as_ref())));
    move |output: &str| {
        let (learnt, pace) = &*known;
        let rule = if output.ends_with(".cu.o") { "CUDA_COMPILER" } else { "CXX_COMPILER" };
        learnt.get(output).copied().unwrap_or_default().max(pace.guess(output, rule))
    }
}

/// The farm that this build was given; `None`, with a warning, if it cannot be asked.
fn farm(build: &Build<'_>, work: &Work, cache: &CompilerCache, room: &Room) -> Option<daemon::Connected> {
    // Without a compiler cache, nothing from elsewhere is used.
    let farm = build.options.farm.as_ref().filter(|_| !build.options.no_compiler_cache)?;
    let connected = daemon::connect(build, work, farm, cache, room.jobs, timings(build));
    connected.map_err(|e| build.events.warn(format!("{}; the build goes on without a farm", e.what()))).ok()
}

/// Counts where objects come from while they are finished, by what launchers and ccache note.
struct Counted {
    /// The files, and how much of each was there before.
    notes: [(PathBuf, usize); 4],
    finished: u64,
}

impl Counted {
    fn new(work: &Work) -> Self {
        let notes = [objects::NOTES, objects::FARM_NOTES, CCACHE_LOG, remote::SHARED_LOG].map(|name| {
            let path = work.dir.join(name);
            let size = std::fs::metadata(&path).map_or(0, |about| usize::try_from(about.len()).unwrap_or(usize::MAX));
            (path, size)
        });
        Self { notes, finished: 0 }
    }

    /// Where those came from that are finished, `what` with them.
    fn after(&mut self, what: &str) -> Whence {
        self.finished += u64::from(what.starts_with("Building C"));
        self.now()
    }

    fn now(&self) -> Whence {
        let lines = |(path, before): &(PathBuf, usize), counts: fn(&str) -> bool| {
            let text = std::fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(text.get(*before..).unwrap_or_default()).into_owned();
            text.lines().filter(|line| counts(line)).count() as u64
        };
        let put = |line: &str| line.starts_with('+');
        let (archive, farm) = (lines(&self.notes[0], put), lines(&self.notes[1], put));
        let hit = |line: &str| matches!(line, "direct_cache_hit" | "preprocessed_cache_hit");
        let cache = lines(&self.notes[2], hit) + lines(&self.notes[3], hit);
        Whence { local: self.finished.saturating_sub(archive + farm + cache), cache, archive, farm }
    }
}

/// The compiler cache, and the one that it shares with other machines.
struct Through {
    env: Vec<(String, String)>,
    connected: Option<Connected>,
}

impl Through {
    fn of(build: &Build<'_>, work: &Work, cache: &CompilerCache) -> Self {
        let mut env = cache.env(build, work);
        let shared = build.options.shared_cache.as_ref().filter(|_| *cache != CompilerCache::Off);
        let connected = shared.and_then(|shared| {
            let folder = remote::folder(&build.store.cache(cache.name()), shared);
            remote::connect(shared, work, cache, folder.as_deref(), build.events)
        });
        env.extend(connected.iter().flat_map(|connected| connected.env.iter().cloned()));
        Self { env, connected }
    }

    fn tell(&self, build: &Build<'_>) {
        if let Some(connected) = &self.connected {
            connected.tell(build.events);
        }
    }

    /// Whether the cache of others that was named has what was compiled for them.
    fn took_all(&self, build: &Build<'_>) -> Result<()> {
        let Some(shared) = &build.options.shared_cache else { return Ok(()) };
        let failed = match &self.connected {
            _ if !shared.writes() => "nothing is written there without --cache-sign".to_owned(),
            Some(connected) if connected.failed() == 0 => return Ok(()),
            None => "it was not used".to_owned(),
            Some(connected) => format!("it failed {} times", connected.failed()),
        };
        Err(Error::world(
            "shared-cache",
            format!("this part is compiled, and the cache of others lacks some of it: {failed}"),
        )
        .next("the same command again, with the cache there: what was compiled is not compiled twice"))
    }
}

/// Writes down which objects from elsewhere launchers may put in place, for a build that has some.
fn supply(build: &Build<'_>, work: &Work) -> Result<Option<PathBuf>> {
    let Some((supply, from)) = import::supply(build)? else { return Ok(None) };
    build
        .events
        .note(format!("objects from {} are used where they fit; {} answers for them", from.archive, from.writer));
    let text = serde_json::to_vec(&supply).map_err(|e| Error::world("objects", e.to_string()))?;
    let path = work.dir.join("objects.json");
    crate::store::write_atomically(&path, &text)?;
    Ok(Some(path))
}

/// How much may run at a time.
#[derive(Debug, Clone, Copy)]
struct Room {
    jobs: usize,
    /// MiB for all compilers together.
    memory: u64,
}

impl Room {
    fn of(build: &Build<'_>) -> Self {
        let free = platform::available_memory().map_or(u64::MAX >> 20, |bytes| bytes >> 20);
        // A tenth, and half a GiB, for ninja, this program and what the machine does beside.
        Self { jobs: jobs(build), memory: (free / 10 * 9).saturating_sub(512).max(1024) }
    }

    /// Half of it, if that is any less.
    fn less(self) -> Option<Self> {
        (self.jobs > 1).then(|| Self { jobs: self.jobs / 2, memory: (self.memory / 2).max(1024) })
    }
}

/// Compiler processes at a time: by cores, and by memory per process. With CUDA by cores alone: what is
/// compiled there differs by a factor of ten in memory, so each compiler is admitted by what it needs.
pub fn jobs(build: &Build<'_>) -> usize {
    if let Some(jobs) = build.options.jobs {
        return jobs.max(1);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if build.recipe.cuda.is_some() {
        return cores;
    }
    let per_job = build.recipe.toolchain.memory_per_job.unwrap_or(1536) << 20;
    let by_memory =
        platform::available_memory().map_or(usize::MAX, |m| usize::try_from(m / per_job).unwrap_or(usize::MAX));
    cores.min(by_memory).max(1)
}

/// Writes down by which rules compilers are admitted, for a build with CUDA or with a farm; what their environment has
/// to say of it.
fn rules(build: &Build<'_>, work: &Work, room: &Room, has_farm: bool) -> Result<Vec<(String, PathBuf)>> {
    let cuda = build.recipe.cuda.as_ref();
    if cuda.is_none() && !has_farm {
        return Ok(Vec::new());
    }
    let folder = work.dir.join("admission");
    fs_err::create_dir_all(&folder)?;
    let rules = Rules {
        memory: room.memory,
        threads: u32::try_from(room.jobs).unwrap_or(u32::MAX),
        nvcc_threads: cuda
            .map_or(1, |cuda| cuda.nvcc_threads.min(u32::try_from(cuda.architectures.len()).unwrap_or(1))),
        measured: table(&memory_path(build)),
        kinds: serde_json::from_str(MEMORY).unwrap_or_default(),
        folder: folder.clone(),
    };
    let text = serde_json::to_vec(&rules).map_err(|e| Error::world("admission", e.to_string()))?;
    let path = folder.join("rules.json");
    crate::store::write_atomically(&path, &text)?;
    Ok(vec![(RULES_VARIABLE.to_owned(), path)])
}

/// Keeps what compilers needed in this run for the next one. A cache hit needs little, so of two peaks
/// the larger one stays.
fn learn_memory(build: &Build<'_>, work: &Work) {
    let folder = work.dir.join("admission");
    let noted = Rules::noted(&folder);
    if noted.is_empty() {
        return;
    }
    let path = memory_path(build);
    let mut table: BTreeMap<String, u64> = table(&path);
    keep_larger(&mut table, noted);
    if let Ok(text) = serde_json::to_vec(&table) {
        let _ = crate::store::write_atomically(&path, &text);
    }
}

fn memory_path(build: &Build<'_>) -> PathBuf {
    build.store.cache("memory").join(format!("{}.json", build.recipe.name))
}

/// Takes what was measured into the table; of two figures for one output the larger one stays.
fn keep_larger<T: PartialOrd>(table: &mut BTreeMap<String, T>, measured: impl IntoIterator<Item = (String, T)>) {
    for (output, figure) in measured {
        match table.get_mut(&output) {
            Some(known) if *known >= figure => {}
            Some(known) => *known = figure,
            None => {
                table.insert(output, figure);
            }
        }
    }
}

/// A table of what earlier runs measured, by output.
fn table<T: serde::de::DeserializeOwned>(path: &Path) -> BTreeMap<String, T> {
    std::fs::read(path).ok().and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default()
}

/// `[3/10] Building CXX object x.o` as (3, 10, …).
fn status(line: &str) -> Option<(u64, u64, &str)> {
    let (numbers, what) = line.strip_prefix('[')?.split_once("] ")?;
    let (done, total) = numbers.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?, what))
}

/// What steps took in the first builds of a recipe: for machines that have not seen them.
struct Pace {
    folders: HashMap<String, f64>,
    /// What a recipe compiles its CUDA code for.
    architectures: usize,
}

impl Pace {
    fn of(cuda: Option<&Cuda>) -> Self {
        let architectures = cuda.map_or(1, |cuda| cuda.architectures.len());
        Self { folders: serde_json::from_str(PACE).unwrap_or_default(), architectures }
    }

    /// Seconds that a step takes on one core. Threads of one nvcc make no difference: each takes the place of a job.
    fn guess(&self, output: &str, rule: &str) -> f64 {
        let folder = output.rsplit_once('/').map_or("", |(folder, _)| folder);
        match self.folders.get(folder) {
            Some(seconds) if output.ends_with(".o") => *seconds,
            _ if rule.starts_with("CXX_COMPILER") => FIRST_GUESS_OBJECT,
            _ if rule.starts_with("CUDA_COMPILER") => FIRST_GUESS_CUDA * self.architectures.max(1) as f64,
            _ => FIRST_GUESS_OTHER,
        }
    }
}

/// How far a build was.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Seconds since the start.
    elapsed: f64,
    /// Seconds of one core that what is done until then was expected to take.
    done: f64,
    /// Objects that were compiled until then, and all that were made.
    compiled: u64,
    objects: u64,
}

/// Time left, learnt from earlier runs' timings of each output.
struct Estimate {
    /// Output → seconds, of what is still to do.
    remaining: HashMap<String, f64>,
    remaining_sum: f64,
    jobs: f64,
    /// How far it was in the last minutes.
    recent: VecDeque<Mark>,
    done_sum: f64,
}

impl Estimate {
    /// For `targets` alone if there are any: what they wait for, if it is not done, is not counted.
    fn new(build: &Build<'_>, work: &Work, jobs: usize, targets: &[String], from: &Whence) -> Self {
        let begin = Mark { compiled: from.local, objects: from.all(), ..Mark::default() };
        let learnt = timings(build);
        let pace = Pace::of(build.recipe.cuda.as_ref());
        let done: HashSet<String> = ninja_log(&work.build()).into_keys().collect();
        let asked: HashSet<&String> = targets.iter().collect();
        let mut remaining = HashMap::new();
        for (output, rule) in self::targets(work).unwrap_or_default() {
            if done.contains(&output) || rule == "phony" || !(asked.is_empty() || asked.contains(&output)) {
                continue;
            }
            let seconds = learnt.get(&output).copied().unwrap_or_else(|| pace.guess(&output, &rule));
            remaining.insert(output, seconds);
        }
        let remaining_sum = remaining.values().sum();
        Self { remaining, remaining_sum, jobs: jobs as f64, recent: VecDeque::from([begin]), done_sum: 0.0 }
    }

    /// Takes note of a finished step, and of where objects came from until then; returns the seconds left.
    fn finished(&mut self, what: &str, elapsed: f64, from: &Whence) -> Option<f64> {
        let output = what.rsplit(' ').next().unwrap_or(what);
        if let Some(seconds) = self.remaining.remove(output) {
            self.remaining_sum -= seconds;
            self.done_sum += seconds;
        }
        // How the last minutes compare with what was expected of them: a run of cache hits, or a
        // machine that is busy with something else, changes the pace, and the estimate follows.
        let now = Mark { elapsed, done: self.done_sum, compiled: from.local, objects: from.all() };
        self.recent.push_back(now);
        let expected = |since: &Mark| (now.done - since.done) / self.jobs;
        let is_enough = |since: &Mark| {
            let passed = elapsed - since.elapsed;
            passed > PACE_WINDOW && expected(since) > PACE_WORK || passed > PACE_PAST
        };
        while self.recent.get(1).is_some_and(is_enough) {
            self.recent.pop_front();
        }
        let then = self.recent.front().copied().unwrap_or_default();
        let compiled = (now.compiled.saturating_sub(then.compiled)) as f64;
        let prior = PACE_PRIOR * compiled / now.objects.saturating_sub(then.objects).max(1) as f64;
        let expected = expected(&then);
        let measured = (elapsed - then.elapsed + prior) / (expected + prior);
        let pace = if expected + prior > 10.0 { measured.clamp(0.005, 20.0) } else { 1.0 };
        (self.done_sum > 0.0).then(|| (self.remaining_sum / self.jobs * pace).max(0.0))
    }

    /// Keeps this run's timings for the next one. A cache hit says nothing about compiling, so of
    /// two timings the longer one stays.
    fn learn(&self, build: &Build<'_>, work: &Work) {
        let mut table = timings(build);
        // Absolute outputs are what is installed: of no other work folder.
        keep_larger(&mut table, ninja_log(&work.build()).into_iter().filter(|(o, _)| !o.starts_with('/')));
        if let Ok(text) = serde_json::to_vec(&table) {
            let _ = crate::store::write_atomically(&timings_path(build), &text);
        }
    }
}

fn timings_path(build: &Build<'_>) -> PathBuf {
    build.store.cache("timings").join(format!("{}.json", build.recipe.name))
}

fn timings(build: &Build<'_>) -> BTreeMap<String, f64> {
    table(&timings_path(build))
}

/// Output → seconds, from `.ninja_log` (start ms, end ms, mtime, output, hash).
fn ninja_log(dir: &Path) -> HashMap<String, f64> {
    let text = std::fs::read_to_string(dir.join(".ninja_log")).unwrap_or_default();
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| {
            let mut fields = l.split('\t');
            let start: f64 = fields.next()?.parse().ok()?;
            let end: f64 = fields.next()?.parse().ok()?;
            let output = fields.nth(1)?;
            Some((output.to_owned(), (end - start) / 1000.0))
        })
        .collect()
}

/// Output and rule of every step, read from ninja itself.
///
/// # Errors
/// As [`Work::ask_ninja`].
pub fn targets(work: &Work) -> Result<Vec<(String, String)>> {
    Ok(String::from_utf8_lossy(&work.ask_ninja(&["-t", "targets", "all"])?)
        .lines()
        .filter_map(|l| l.rsplit_once(": ").map(|(o, r)| (o.to_owned(), r.to_owned())))
        .collect())
}

/// The objects of a whole build, each with the seconds that a compiler is expected to take for it. They are the same on
/// every machine: what this one has measured is left out.
///
/// # Errors
/// As [`Work::ask_ninja`].
pub fn objects(recipe: &Recipe, work: &Work) -> Result<Vec<(String, f64)>> {
    let inputs = work.ask_ninja(&["-t", "inputs", "all"])?;
    let inputs = String::from_utf8_lossy(&inputs);
    // Many objects of a tree are in no library that is built.
    let needed: HashSet<&str> = inputs.lines().collect();
    let pace = Pace::of(recipe.cuda.as_ref());
    Ok(targets(work)?
        .into_iter()
        .filter(|(output, rule)| rule.contains("_COMPILER__") && needed.contains(output.as_str()))
        .map(|(output, rule)| {
            let seconds = pace.guess(&output, &rule);
            (output, seconds)
        })
        .collect())
}

/// The first step that failed.
#[derive(Default)]
struct Failure {
    /// What failed, as ninja names it.
    steps: Vec<String>,
    inside: bool,
    lines: Vec<String>,
}

impl Failure {
    fn line(&mut self, line: &str) {
        if let Some(step) = line.strip_prefix("FAILED: ") {
            self.inside = self.steps.is_empty();
            self.steps.push(step.trim().to_owned());
        } else if status(line).is_some() || line.starts_with("ninja: ") {
            self.inside = false;
        }
        if self.inside && self.lines.len() < 4000 {
            self.lines.push(line.to_owned());
        }
    }

    /// Whether the step failed because the kernel ended a process of it, or gave it no memory.
    fn is_for_want_of_memory(&self) -> bool {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        advice::wants_memory(&lines)
    }

    /// What failed beside the first step, for a build that went on.
    fn beside(&self) -> String {
        let rest = self.steps.get(1..).unwrap_or_default();
        if rest.is_empty() {
            return String::new();
        }
        let named = &rest[..rest.len().min(MOST_NAMED)];
        let more = if rest.len() > named.len() { ", …" } else { "" };
        format!("\n  so did {} more: {}{more}", rest.len(), named.join(", "))
    }

    fn explain(&self, text: &str, log: &Path, jobs: usize) -> Error {
        let step = self.steps.first().map_or("ninja", String::as_str);
        // The command itself is one long line that nobody reads.
        let body: Vec<&str> = self.lines.iter().skip(2).map(String::as_str).collect();
        let shown: Vec<&str> = match advice::first_error(&body) {
            Some(i) => body[i.saturating_sub(1)..].iter().take(8).copied().collect(),
            None => body.iter().rev().take(8).rev().copied().collect(),
        };
        let shown: String = if shown.is_empty() {
            crate::toolchain::tail_of(text, 10)
        } else {
            shown.iter().map(|l| format!("    {l}")).collect::<Vec<_>>().join("\n")
        };
        let all: Vec<&str> = if self.lines.is_empty() {
            text.lines().collect()
        } else {
            self.lines.iter().map(String::as_str).collect()
        };
        let mut e = Error::world("compile", format!("{step} failed:\n{shown}{}", self.beside()));
        for advice in advice::advice(&all, jobs).into_iter().take(2) {
            e = e.next(advice.tell);
        }
        e.next(format!("the whole output is in {}", log.display()))
            .next("run the same command again once the cause is gone: what was compiled stays compiled")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_told_from_the_rest() {
        assert_eq!(status("[3/10] Building CXX object x.o"), Some((3, 10, "Building CXX object x.o")));
        assert_eq!(status("[1/2 of it] x"), None);
        assert_eq!(status("warning: [3/10] x"), None);
    }

    #[test]
    fn the_first_error_is_shown_and_its_cause_named() {
        let mut f = Failure::default();
        for l in [
            "[1/9] a",
            "FAILED: x.o",
            "c++ -c x.cpp",
            "x.cpp:3:1: error: no",
            "x.cpp:4: note: n",
            "[2/9] b",
            "FAILED: y.o",
            "c++",
            "y.cpp: error: later",
        ] {
            f.line(l);
        }
        let e = f.explain("", Path::new("l.log"), 4);
        assert!(
            e.what().contains("x.o failed") && e.what().contains("x.cpp:3:1: error: no") && !e.what().contains("later"),
            "{e}"
        );
        // What failed beside it, in a build that went on.
        assert!(e.to_string().contains("so did 1 more: y.o"), "{e}");
        let told = |line: &str| advice::advice(&[line], 4)[0].tell.clone();
        assert!(told("c++: fatal error: Killed signal terminated program cc1plus").contains("--jobs 2"));
        assert!(told("a.cpp:1: fatal error: zz.h: No such file or directory").contains("header is missing"));
    }

    #[test]
    fn a_first_build_with_cuda_is_guessed_by_what_one_was_measured_to_take() {
        let of = |count| {
            Pace::of(Some(&Cuda {
                version: "13.0".into(),
                architectures: vec!["9.0".into(); count],
                requires: Vec::new(),
                nvcc_threads: 2,
            }))
        };
        let cuda = "caffe2/CMakeFiles/torch_cuda.dir/__/aten/src/ATen/native/cuda/Indexing.cu.o";
        let rule = "CUDA_COMPILER__torch_cuda_unscanned_Release";
        assert_eq!([1, 6].map(|count| of(count).guess(cuda, rule)), [32.0, 192.0]);
        assert_eq!(of(6).guess("x/y.cpp.o", "CXX_COMPILER__torch_cpu_unscanned_Release"), FIRST_GUESS_OBJECT);
        assert_eq!(
            of(6).guess("lib/libtorch_cuda.so", "CXX_SHARED_LIBRARY_LINKER__torch_cuda_Release"),
            FIRST_GUESS_OTHER
        );
        // What was measured by folder counts first.
        let measured = Pace { folders: HashMap::from([("x".to_owned(), 7.0)]), architectures: 6 };
        assert_eq!([measured.guess("x/y.cpp.o", "CXX_COMPILER__x"), measured.guess("x/y.cu.o", rule)], [7.0, 7.0]);
    }

    #[test]
    fn the_largest_kernels_are_admitted_with_what_they_were_measured_to_need() {
        let kinds: BTreeMap<String, u64> = serde_json::from_str(MEMORY).unwrap();
        let rules = Rules { memory: 1 << 16, threads: 8, nvcc_threads: 1, kinds, ..Rules::default() };
        for output in [
            // 2.6.0
            "caffe2/CMakeFiles/torch_cuda.dir/__/aten/src/ATen/native/transformers/cuda/flash_attn/kernels/flash_bwd_hdim256_bf16_sm80.cu.o",
            // 2.12.1
            "caffe2/aten/src/ATen/CMakeFiles/flash_attention.dir/__/__/__/third_party/flash-attention/csrc/flash_attn/src/flash_bwd_hdim256_bf16_sm80.cu.o",
            "caffe2/aten/src/ATen/CMakeFiles/mslk.dir/__/__/__/third_party/mslk/csrc/gemm/cutlass/f4f4bf16.cu.o",
        ] {
            assert_eq!(rules.need(output, true).memory, 5237, "{output}");
        }
    }

    /// 100 steps that are expected to take 10 s each, on one core.
    fn hundred() -> Estimate {
        let remaining: HashMap<String, f64> = (0..100).map(|n| (format!("{n}.o"), 10.0)).collect();
        Estimate {
            remaining,
            remaining_sum: 1000.0,
            jobs: 1.0,
            recent: VecDeque::from([Mark::default()]),
            done_sum: 0.0,
        }
    }

    fn left(estimate: &mut Estimate, steps: std::ops::Range<u64>, seconds: f64, from: impl Fn(u64) -> Whence) -> f64 {
        let begin = estimate.recent.back().map_or(0.0, |mark| mark.elapsed);
        let left = steps.clone().map(|n| {
            let elapsed = begin + seconds * (n - steps.start + 1) as f64;
            estimate.finished(&format!("Building CXX object {n}.o"), elapsed, &from(n)).unwrap()
        });
        left.last().unwrap()
    }

    #[test]
    fn a_few_slow_compiles_do_not_make_the_rest_as_slow_and_hits_are_believed_at_once() {
        let compiled = |n| Whence { local: n + 1, ..Whence::default() };
        let mut estimate = hundred();
        // 8 of them took five times as long: what is left was 920 s, and it is not 4,600.
        let slow = left(&mut estimate, 0..8, 50.0, compiled);
        assert!((920.0..2500.0).contains(&slow), "{slow}");
        // All of them are slow: it is believed.
        let slow = left(&mut estimate, 8..30, 50.0, compiled);
        assert!((1700.0..3500.0).contains(&slow), "{slow}");
        let hits = |n: u64| Whence { cache: n + 1, ..Whence::default() };
        let fast = left(&mut hundred(), 0..20, 0.1, hits);
        assert!((7.0..9.0).contains(&fast), "{fast}");
        // Hits, and then compiles that take as long as expected: soon nobody believes the hits any more.
        let mut mixed = hundred();
        left(&mut mixed, 0..20, 0.1, hits);
        let then = |n: u64| Whence { cache: 20, local: n - 19, ..Whence::default() };
        let believed = left(&mut mixed, 20..60, 10.0, then);
        assert!((300.0..500.0).contains(&believed), "{believed}");
    }
}
