//! The engine: brings a stage's result about, later stages first; and says beforehand what it would do, and why.
//!
//! `ensure`: is it in the store? Else what it needs, then its lock, then the stage itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use super::build::{Build, CCACHE, Id};
use super::graph::{self, STAGES};
use super::step::{Ahead, Bond, Cx, Done, Made, Need, Place, Stage, Step};
use super::steps::buildenv::Buildenv;
use super::steps::configure::Configure;
use super::steps::fetch;
use super::steps::prefix::Prefix;
use super::steps::set::Set;
use super::steps::shard::Shard;
use super::steps::toolchain::Toolchain;
use super::steps::verify::Verify;
use super::timing::{self, Timing, timed};
use super::work::{CompilerCache, FOLDER, Work};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::platform;
use crate::store::{Extent, Key, Parts, Pending};

/// The result of `S`, made or found.
///
/// # Errors
/// A stage fails.
pub fn ensure<S: Step>(build: &Build<'_>) -> Result<Done<S::Record>> {
    ensure_of::<S>(build, "")
}

/// What is kept beside the result of `S`, if the result was made and this is as it was written. The files of the result
/// are not used, and not judged; nothing is run.
///
/// # Errors
/// An input cannot be read.
pub fn record_of<S: Step>(build: &Build<'_>) -> Result<Option<S::Record>> {
    let parts = Run::new(build).parts(row(S::NAME)?, "")?;
    parts.map_or(Ok(None), |parts| build.store.record(S::NAME, &parts.key()))
}

/// The same as [`ensure`], where only the files at the top of the result are used: what is in its folders is not judged
/// unless a stage has to run.
///
/// # Errors
/// A stage fails.
pub fn ensure_top<S: Step>(build: &Build<'_>) -> Result<Done<S::Record>> {
    ensure_with::<S>(Run { extent: Extent::Top, ..Run::new(build) }, "")
}

/// The result of `S` called `of`.
///
/// # Errors
/// A stage fails; this build has no such result.
pub fn ensure_of<S: Step>(build: &Build<'_>, of: &str) -> Result<Done<S::Record>> {
    ensure_with::<S>(Run::new(build), of)
}

fn ensure_with<S: Step>(mut run: Run<'_>, of: &str) -> Result<Done<S::Record>> {
    let id = (S::NAME, of.to_owned());
    run.begin(std::slice::from_ref(&id))?;
    run.made.get(&id).ok_or_else(|| none(run.build, S::NAME))?.typed::<S>()
}

/// The compiler cache of this build, for what is compiled outside of its stages.
///
/// # Errors
/// A stage that it comes from fails.
pub fn compiler_cache(build: &Build<'_>) -> Result<CompilerCache> {
    let buildenv = ensure::<Buildenv>(build)?.folder;
    let mut prefixes = BTreeMap::new();
    if build.prefixes().iter().any(|name| name == CCACHE) {
        prefixes.insert(CCACHE.to_owned(), ensure_of::<Prefix>(build, CCACHE)?.folder);
    }
    Ok(CompilerCache::choose(build, &buildenv, &prefixes))
}

/// Has the compiler of this build there, for what is compiled outside of its stages: where a recipe brings one along, a
/// stage makes it.
///
/// # Errors
/// That stage fails.
pub fn ensure_compiler(build: &Build<'_>) -> Result<()> {
    if build.compiler.locked.is_some() {
        ensure::<Toolchain>(build)?;
    }
    Ok(())
}

/// The key of the result of `S`.
///
/// # Errors
/// An input cannot be read.
pub fn key<S: Step>(build: &Build<'_>) -> Result<Key> {
    let parts = Run::new(build).parts(row(S::NAME)?, "")?;
    Ok(parts.ok_or_else(|| none(build, S::NAME))?.key())
}

/// All results of the stage called `name`; the folder that stands for them.
///
/// # Errors
/// A stage fails; this build has no use for it.
pub fn ensure_named(build: &Build<'_>, name: &str) -> Result<PathBuf> {
    let mut run = Run::new(build);
    let ids = results(build, row(name)?);
    run.begin(&ids)?;
    let folders: Vec<PathBuf> = ids.iter().filter_map(|id| run.made.get(id)).map(|done| done.folder.clone()).collect();
    match &folders[..] {
        [] => Err(none(build, name)),
        [one] => Ok(one.clone()),
        several => Ok(several[0].ancestors().nth(2).unwrap_or(&several[0]).to_owned()),
    }
}

/// Everything that `S` needs.
///
/// # Errors
/// A stage fails.
pub fn ensure_needs<S: Step>(build: &Build<'_>) -> Result<()> {
    let needs = row(S::NAME)?.needs.iter();
    let ids: Vec<Id> = needs.flat_map(|need| needed(build, need, "")).collect();
    Run::new(build).begin(&ids)
}

/// The work folder of this build, which may not be there yet.
///
/// # Errors
/// An input cannot be read.
pub fn work(build: &Build<'_>) -> Result<Work> {
    Run::new(build).work()
}

/// Whether the result of `S` is there. Nothing is run.
///
/// # Errors
/// An input cannot be read.
pub fn is_made<S: Step>(build: &Build<'_>) -> Result<bool> {
    Run::new(build).is_there(row(S::NAME)?, &(S::NAME, String::new()))
}

/// The result of `S`, if it is there. Nothing is run, whatever is wrong with it.
///
/// # Errors
/// An input cannot be read; what is kept beside it cannot be understood.
pub fn found<S: Step>(build: &Build<'_>) -> Result<Option<Done<S::Record>>> {
    let id = (S::NAME, String::new());
    let mut run = Run::new(build);
    if !run.is_there(row(S::NAME)?, &id)? {
        return Ok(None);
    }
    run.made.get(&id).map(Done::typed::<S>).transpose()
}

/// How long each stage of this build took.
///
/// # Errors
/// An input cannot be read.
pub fn timings(build: &Build<'_>) -> Result<Vec<(String, Timing)>> {
    Ok(timing::stages(build, &work(build)?.name()))
}

/// A result in the store that is in no row of the table, as the environments of a validation are: found under
/// `key`, or made by `make`, which fills the folder that it is given and returns the record to keep beside it.
///
/// # Errors
/// `make` fails.
pub fn stored<R: Serialize>(
    build: &Build<'_>,
    stage: &'static str,
    key: &Key,
    make: impl FnOnce(&Pending) -> Result<R>,
) -> Result<PathBuf> {
    let name = work(build).map(|work| work.name()).ok();
    kept(build, stage, key, name.as_deref(), make)
}

/// Finds a result, or makes it under its lock and takes the time.
fn kept<R: Serialize>(
    build: &Build<'_>,
    stage: &'static str,
    key: &Key,
    name: Option<&str>,
    make: impl FnOnce(&Pending) -> Result<R>,
) -> Result<PathBuf> {
    let there = || -> Result<Option<PathBuf>> {
        let found = build.store.finished(stage, key);
        build.tell_found();
        let found = found?;
        if found.is_some() {
            build.events.emit(Event::StageCached { stage });
        }
        Ok(found)
    };
    if let Some(out) = there()? {
        return Ok(out);
    }
    let _lock = build.store.lock(&format!("{stage}-{}", key.short()), build.events)?;
    // Whoever held the lock may have made it.
    if let Some(out) = there()? {
        return Ok(out);
    }
    platform::check_cancelled()?;
    timed(build, timing::Of { build: name, stage, result: key.short() }, || {
        let pending = build.store.begin(stage, key)?;
        let record = make(&pending).map_err(|e| e.doing(format!("the stage '{stage}'")))?;
        pending.finish(&record)
    })
}

/// One stage of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedStage {
    /// The stage's name, as `--until` takes it.
    pub stage: String,
    /// Which of its results, where it has several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Key, where it has one and it is known.
    pub key: Option<String>,
    /// Whether there is nothing to do for it.
    pub cached: bool,
    /// Whether it is done, to do, or neither.
    pub state: State,
    /// Why it would run: in what its inputs differ from those of the earlier result that is most like it.
    pub why: Vec<String>,
}

/// How a stage of a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its result is there.
    Done,
    /// Its result is not there, and nothing that is to be done needs it.
    NotNeeded,
    /// It would run.
    ToDo,
    /// This build has no use for it.
    NotOfThisBuild,
}

/// What a build would do.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Stages in order.
    pub stages: Vec<PlannedStage>,
    /// Files to download: name and bytes.
    pub downloads: Vec<(String, u64)>,
    /// The folder that the build is compiled in; it need not be there yet.
    pub work: PathBuf,
}

/// Finds out what a build would do, without doing it.
///
/// # Errors
/// An input cannot be read.
pub fn plan(build: &Build<'_>) -> Result<Plan> {
    let mut run = Run { planning: true, ..Run::new(build) };
    let mut last = results(build, row(build.options.until.as_deref().unwrap_or(Verify::NAME))?);
    if build.options.until.is_none() {
        last.extend(results(build, row(Set::NAME)?));
    }
    let to_do = run.outstanding(&last)?;
    let mut stages = Vec::new();
    let asked = |name: &str| {
        graph::ORDER.contains(&name)
            || graph::BESIDE.contains(&name) && !build.companions.is_empty()
            || name == Shard::NAME && build.options.part.is_some()
    };
    for stage in STAGES.iter().filter(|stage| asked(stage.name)) {
        let ids = results(build, stage);
        if ids.is_empty() {
            stages.push(run.planned(stage, &(stage.name, String::new()), State::NotOfThisBuild)?);
        }
        for id in ids {
            let state = if to_do.contains(&id) {
                State::ToDo
            } else if run.is_there(stage, &id)? {
                State::Done
            } else {
                State::NotNeeded
            };
            stages.push(run.planned(stage, &id, state)?);
        }
    }
    let fetches = to_do.iter().any(|(stage, _)| *stage == fetch::Fetch::NAME);
    let downloads = if fetches { fetch::missing(build)? } else { Vec::new() };
    Ok(Plan { stages, downloads, work: run.work()?.dir })
}

/// The row of the table with this name.
fn row(name: &str) -> Result<&'static Stage> {
    graph::stage(name).ok_or_else(|| Error::misuse("stage", format!("there is no stage '{name}'")))
}

/// The results that this build has of a stage.
fn results(build: &Build<'_>, stage: &'static Stage) -> Vec<Id> {
    (stage.of)(build).into_iter().map(|of| (stage.name, of)).collect()
}

/// The results that a need of the result called `own` means.
fn needed(build: &Build<'_>, need: &Need, own: &str) -> Vec<Id> {
    let all = graph::stage(need.stage).map(|stage| results(build, stage)).unwrap_or_default();
    all.into_iter().filter(|(_, of)| need.means(of, own)).collect()
}

fn none(build: &Build<'_>, stage: &str) -> Error {
    Error::misuse("no-stage", format!("the recipe {} has nothing for the stage '{stage}' to do", build.recipe.name))
        .next("`cargo xtask build-torch --dry-run` lists the stages that it has")
}

/// One call of the engine.
struct Run<'b> {
    build: &'b Build<'b>,
    made: Made,
    settled: BTreeSet<Id>,
    holds_work: bool,
    /// Nothing is used: what is there is taken for what it was, and not judged.
    planning: bool,
    /// What of the results is used, and so judged, where no stage runs.
    extent: Extent,
}

impl<'b> Run<'b> {
    fn new(build: &'b Build<'b>) -> Self {
        Self {
            build,
            made: Made::default(),
            settled: BTreeSet::new(),
            holds_work: false,
            planning: false,
            extent: Extent::Whole,
        }
    }

    /// The folder of a result in the store: judged, unless this is a plan.
    fn stored(&self, stage: &str, key: &Key) -> Result<Option<PathBuf>> {
        if self.planning {
            return Ok(self.build.store.has(stage, key));
        }
        let found = self.build.store.judged(stage, key, self.extent);
        self.build.tell_found();
        found
    }

    /// The inputs of a result, read once in the life of a build; `None` where they hold bytes that are not there
    /// yet.
    fn parts(&mut self, stage: &'static Stage, of: &str) -> Result<Option<Parts>> {
        let id = (stage.name, of.to_owned());
        let known = |build: &Build<'_>| build.inputs.lock().ok().and_then(|all| all.get(&id).cloned());
        if let Some(parts) = known(self.build) {
            return Ok(Some(parts));
        }
        let mut parts = Parts::new(stage.name, stage.version);
        for need in stage.needs {
            let before = row(need.stage)?;
            for (_, of) in needed(self.build, need, of) {
                match need.bond {
                    Bond::After => {}
                    Bond::Reads => {
                        if !self.is_there(before, &(before.name, of))? {
                            return Ok(None);
                        }
                    }
                    Bond::From => {
                        let identity = match (before.identity)(self.build)? {
                            Some(identity) => identity,
                            None => match self.parts(before, &of)? {
                                Some(parts) => parts.key().to_string(),
                                None => return Ok(None),
                            },
                        };
                        parts.digest(format!("{} {of}", before.name).trim_end().to_owned(), identity);
                    }
                }
            }
        }
        (stage.inputs)(&self.cx(stage, of, None), &mut parts)?;
        for (name, text) in stage.embeds {
            parts.content(format!("file {name}"), text);
        }
        if let Ok(mut all) = self.build.inputs.lock() {
            all.insert(id, parts.clone());
        }
        Ok(Some(parts))
    }

    fn cx<'a>(&'a self, stage: &'static Stage, of: &'a str, work: Option<&'a Work>) -> Cx<'a> {
        Cx { build: self.build, of, stage, made: &self.made, work, pending: None }
    }

    /// The work folder: the key of configure decides which.
    fn work(&mut self) -> Result<Work> {
        let configure = row(Configure::NAME)?;
        let parts = self.parts(configure, "")?.ok_or_else(|| none(self.build, Configure::NAME))?;
        Ok(Work::of(self.build, &parts.key()))
    }

    fn work_of(&mut self, stage: &Stage) -> Result<Option<Work>> {
        graph::in_work(stage).then(|| self.work()).transpose()
    }

    /// Whether a result is there; takes it in.
    fn is_there(&mut self, stage: &'static Stage, id: &Id) -> Result<bool> {
        if self.made.get(id).is_some() {
            return Ok(true);
        }
        if (stage.home)(self.build).is_some() {
            return (stage.is_there)(self.build, self.planning);
        }
        let Some(parts) = self.parts(stage, &id.1)? else { return Ok(false) };
        let key = parts.key();
        let found = match stage.place {
            Place::Work => {
                let work = self.work()?;
                work.done(stage.name, &key)?.map(|record| (work.dir, record))
            }
            Place::Store | Place::Home => match self.stored(stage.name, &key)? {
                Some(folder) => Some((folder, self.build.store.record(stage.name, &key)?.unwrap_or_default())),
                None => None,
            },
        };
        let Some((folder, record)) = found else { return Ok(false) };
        self.made.put(id.clone(), Done { folder, record, key: Some(key) });
        Ok(true)
    }

    /// What would run to bring these about, in the order that it would.
    fn outstanding(&mut self, ids: &[Id]) -> Result<Vec<Id>> {
        let (mut out, mut seen) = (Vec::new(), BTreeSet::new());
        for id in ids {
            self.visit(id, &mut seen, &mut out)?;
        }
        Ok(out)
    }

    fn visit(&mut self, id: &Id, seen: &mut BTreeSet<Id>, out: &mut Vec<Id>) -> Result<()> {
        if !seen.insert(id.clone()) {
            return Ok(());
        }
        let stage = row(id.0)?;
        let there = self.is_there(stage, id)?;
        if !there || stage.place == Place::Work {
            for need in stage.needs {
                for id in needed(self.build, need, &id.1) {
                    self.visit(&id, seen, out)?;
                }
            }
        }
        if !there {
            out.push(id.clone());
        }
        Ok(())
    }

    /// Holds the demands of all that is ahead, then brings these results about.
    fn begin(&mut self, ids: &[Id]) -> Result<()> {
        let mut to_do = self.outstanding(ids)?;
        if !to_do.is_empty() && self.extent == Extent::Top {
            // A stage that runs reads all of what it needs.
            (self.extent, self.made) = (Extent::Whole, Made::default());
            to_do = self.outstanding(ids)?;
        }
        let mut ahead = Ahead { stages: to_do.iter().map(|(stage, _)| *stage).collect(), work: None };
        for name in ahead.stages.clone() {
            ahead.work = ahead.work.or(self.work_of(row(name)?)?);
        }
        // The later a stage is, the more it demands.
        for name in ahead.stages.iter().rev() {
            (row(name)?.check)(self.build, &ahead)?;
        }
        ids.iter().try_for_each(|id| self.ensure(id))?;
        ids.iter().try_for_each(|id| self.end(id))
    }

    /// Does what is still owed where a build ends with this result.
    fn end(&mut self, id: &Id) -> Result<()> {
        let stage = row(id.0)?;
        if stage.place != Place::Work {
            return Ok(());
        }
        let work = self.work()?;
        (stage.end)(&self.cx(stage, &id.1, Some(&work)))
    }

    /// Brings one result about.
    fn ensure(&mut self, id: &Id) -> Result<()> {
        if self.settled.contains(id) {
            return Ok(());
        }
        let stage = row(id.0)?;
        let mut there = self.is_sound(stage, id)?;
        if there && stage.place != Place::Work {
            return self.settle(stage, id);
        }
        // Two builds of one thing share a work folder: the second waits, and then finds the result.
        let lock = match self.work_of(stage)? {
            Some(work) if !there && !self.holds_work => {
                Some(self.build.store.lock(&format!("work-{}", work.name()), self.build.events)?)
            }
            _ => None,
        };
        if lock.is_some() {
            self.holds_work = true;
            there = self.is_sound(stage, id)?;
        }
        if !there || stage.place == Place::Work {
            for need in stage.needs {
                for id in needed(self.build, need, &id.1) {
                    self.ensure(&id)?;
                }
            }
            let work = self.work_of(stage)?;
            if let Some(work) = &work {
                fs_err::create_dir_all(&work.dir)?;
            }
            (stage.enter)(&self.cx(stage, &id.1, work.as_ref()))?;
            if !there {
                self.make(stage, id, work.as_ref())?;
                self.settled.insert(id.clone());
            }
        }
        if lock.is_some() {
            self.holds_work = false;
        }
        self.settle(stage, id)
    }

    /// Nothing is to be done any more: says so, once.
    fn settle(&mut self, stage: &'static Stage, id: &Id) -> Result<()> {
        if self.settled.insert(id.clone()) {
            self.build.events.emit(Event::StageCached { stage: stage.name });
        }
        Ok(())
    }

    /// Whether a result of this store is there and of use; one that is spoiled is forgotten.
    fn is_sound(&mut self, stage: &'static Stage, id: &Id) -> Result<bool> {
        if (stage.home)(self.build).is_some() || !self.is_there(stage, id)? {
            return Ok(false);
        }
        let Some(done) = self.made.get(id) else { return Ok(false) };
        let spoiled = || (stage.spoiled)(self.build, &done.folder);
        let Some(why) = spoiled() else { return Ok(true) };
        if let Some(key) = &done.key
            && !self.build.store.forget_if(stage.name, key, || spoiled().is_some())?
        {
            // Another run found it out as well, and made it anew.
            return Ok(true);
        }
        self.build.events.warn(format!("{why}: it is made anew"));
        self.made.forget(id);
        Ok(false)
    }

    fn make(&mut self, stage: &'static Stage, id: &Id, work: Option<&Work>) -> Result<()> {
        let parts = self.parts(stage, &id.1)?;
        let key = parts.as_ref().map(Parts::key);
        let name = self.work().map(|work| work.name()).ok();
        let of = |result| timing::Of { build: name.as_deref(), stage: stage.name, result };
        let cx = self.cx(stage, &id.1, work);
        let (folder, record) = match ((stage.home)(self.build), &parts, &key, work) {
            (Some(home), ..) if (stage.is_there)(self.build, self.planning)? => {
                self.build.events.emit(Event::StageCached { stage: stage.name });
                (home, (stage.run)(&cx)?)
            }
            (Some(home), ..) => (home, timed(self.build, of(""), || (stage.run)(&cx))?),
            (None, Some(parts), Some(key), Some(work)) if stage.place == Place::Work => {
                platform::check_cancelled()?;
                let record = timed(self.build, of(""), || {
                    work.begin(stage.name)?;
                    let record = (stage.run)(&cx)?;
                    work.finish(stage.name, parts, &record)?;
                    Ok(record)
                })?;
                (work.dir.clone(), record)
            }
            (None, Some(parts), Some(key), _) => {
                let folder = kept(self.build, stage.name, key, name.as_deref(), |pending| {
                    pending.note(parts)?;
                    (stage.run)(&Cx { pending: Some(pending), ..cx })
                })?;
                (folder, self.build.store.record(stage.name, key)?.unwrap_or_default())
            }
            _ => return Err(none(self.build, stage.name)),
        };
        self.made.put(id.clone(), Done { folder, record, key });
        Ok(())
    }

    fn planned(&mut self, stage: &'static Stage, id: &Id, state: State) -> Result<PlannedStage> {
        let parts = match state {
            State::NotOfThisBuild => None,
            _ if stage.place == Place::Home => None,
            _ => self.parts(stage, &id.1)?,
        };
        let why = if state == State::ToDo { self.why(stage, parts.as_ref())? } else { Vec::new() };
        Ok(PlannedStage {
            stage: stage.name.into(),
            name: id.1.clone(),
            key: parts.map(|parts| parts.key().to_string()),
            cached: state != State::ToDo,
            state,
            why,
        })
    }

    /// Why a stage would run, in words.
    fn why(&mut self, stage: &'static Stage, parts: Option<&Parts>) -> Result<Vec<String>> {
        if (stage.home)(self.build).is_some() {
            let missing = if stage.name == fetch::Fetch::NAME { fetch::missing(self.build)?.len() } else { 0 };
            return Ok(vec![match missing {
                0 => "what is of this machine is looked at in every run".into(),
                1 => "one file is not in the store".into(),
                n => format!("{n} files are not in the store"),
            }]);
        }
        let Some(parts) = parts else {
            return Ok(vec!["what it reads is not made yet".into()]);
        };
        let earlier = match stage.place {
            Place::Work => self.build.store.earlier_work(FOLDER, &Work::parts_file(stage.name)),
            Place::Store | Place::Home => self.build.store.earlier(stage.name),
        };
        if stage.place == Place::Work && earlier.iter().any(|old| old.key() == parts.key()) {
            return Ok(vec!["it was begun and not finished".into()]);
        }
        let nearest = earlier.iter().map(|old| parts.differences(old)).min_by_key(Vec::len);
        Ok(nearest.unwrap_or_else(|| vec!["it was never made in this store".into()]))
    }
}
