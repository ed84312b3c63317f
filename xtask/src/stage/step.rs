//! What a stage is: a name, what it needs, where its result lives, its inputs by name, and how it is made.
//! [`super::graph`] has the table of them, [`super::engine`] runs it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use torchmill_bytes::names::below;

use super::build::{Build, Id};
use super::work::Work;
use crate::error::{Error, Result};
use crate::store::{Key, Parts, Pending, digest_file};

/// One stage, as its file states it.
pub trait Step {
    /// What is kept beside the result.
    type Record: Serialize + DeserializeOwned;
    /// Name in events, in the store, in `--until`.
    const NAME: &'static str;
    /// What it does, in a line.
    const WHAT: &'static str;
    /// Files that are part of this program and decide what comes out: in the key by their content.
    const EMBEDS: &'static [(&'static str, &'static str)] = &[];

    /// Names of the results that this build has of it: one without a name; none where the build has no use for
    /// the stage; several where each is a result of its own.
    fn of(_build: &Build<'_>) -> Vec<String> {
        vec![String::new()]
    }

    /// Where the result stands if it is not this store's to keep: such a stage is looked at in every run.
    fn home(_build: &Build<'_>) -> Option<PathBuf> {
        None
    }

    /// Whether a result with a [`Step::home`] is there already; `planning` uses nothing, and judges nothing.
    ///
    /// # Errors
    /// It cannot be told.
    fn is_there(_build: &Build<'_>, _planning: bool) -> Result<bool> {
        Ok(false)
    }

    /// The inputs of the key, by name. The engine adds [`Step::EMBEDS`], and what the stages before it made
    /// where the table says so.
    ///
    /// # Errors
    /// An input cannot be read.
    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()>;

    /// What of the result decides what is made with it, where that is not the whole key: an environment stands
    /// at a path of this machine, and the keys of later stages are the same on every machine.
    ///
    /// # Errors
    /// It cannot be found out.
    fn identity(_build: &Build<'_>) -> Result<Option<String>> {
        Ok(None)
    }

    /// What must hold before anything at all is done, if this stage is among what is ahead.
    ///
    /// # Errors
    /// It does not hold.
    fn check(_build: &Build<'_>, _ahead: &Ahead) -> Result<()> {
        Ok(())
    }

    /// What the work folder must have whenever somebody goes on in it, even if this stage is done.
    ///
    /// # Errors
    /// The folder cannot be written.
    fn enter(_cx: &Cx<'_>) -> Result<()> {
        Ok(())
    }

    /// Why the finished result at [`Done::folder`] is of no use any more, if it is not.
    fn spoiled(_build: &Build<'_>, _folder: &std::path::Path) -> Option<String> {
        None
    }

    /// Makes the result.
    ///
    /// # Errors
    /// Whatever can go wrong.
    fn run(cx: &Cx<'_>) -> Result<Self::Record>;

    /// What a build that ends with this stage still owes, though the stage is done, where the result lives in the work
    /// folder: what a later stage would have done.
    ///
    /// # Errors
    /// It cannot be done, or what came of it says that the stage is not done.
    fn end(_cx: &Cx<'_>) -> Result<()> {
        Ok(())
    }
}

/// What of this build will run: what is looked at before the first stage does.
#[derive(Debug, Default)]
pub struct Ahead {
    /// Names of the stages.
    pub stages: Vec<&'static str>,
    /// The work folder, where one of them works in it.
    pub work: Option<Work>,
}

impl Ahead {
    /// Whether `S` will run.
    pub fn has<S: Step>(&self) -> bool {
        self.stages.contains(&S::NAME)
    }
}

/// Where results live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the store, under their key, made by rename.
    Store,
    /// In the work folder, which several stages share and which is kept between runs. It holds links into the
    /// store: what such a stage needs must be there even when the stage itself is done.
    Work,
    /// Where [`Step::home`] says.
    Home,
}

/// How one stage depends on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// What it made decides what comes out: in the key.
    From,
    /// The key holds what is in its record: unknown before that one is done.
    Reads,
    /// It must be done before, and leaves no trace in what comes out.
    After,
}

/// Another stage that a stage needs.
#[derive(Clone, Copy)]
pub struct Need {
    /// Name of the other stage.
    pub stage: &'static str,
    /// Whether its key is part of ours, or only its end is waited for.
    pub bond: Bond,
    /// Which of its results.
    pub which: fn(&str) -> bool,
    /// Of those, only the one that is called as ours.
    pub namesake: bool,
}

/// Needs what `S` made.
pub const fn from<S: Step>() -> Need {
    Need { stage: S::NAME, bond: Bond::From, which: any, namesake: false }
}

/// Needs to read what `S` found out.
pub const fn reads<S: Step>() -> Need {
    Need { stage: S::NAME, bond: Bond::Reads, which: any, namesake: false }
}

/// Needs `S` to be done.
pub const fn after<S: Step>() -> Need {
    Need { stage: S::NAME, bond: Bond::After, which: any, namesake: false }
}

fn any(_: &str) -> bool {
    true
}

impl Need {
    /// Only some of its results.
    #[must_use]
    pub const fn only(self, which: fn(&str) -> bool) -> Self {
        Self { which, ..self }
    }

    /// Only its result of the same name.
    #[must_use]
    pub const fn namesake(self) -> Self {
        Self { namesake: true, ..self }
    }

    /// Whether the result called `needed` is meant, where ours is called `own`.
    pub(super) fn means(&self, needed: &str, own: &str) -> bool {
        (self.which)(needed) && (!self.namesake || needed == own)
    }
}

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Stage {
    /// Name of the stage, as `--until` takes it.
    pub name: &'static str,
    /// What it does, in a line.
    pub what: &'static str,
    /// Version of its code: raised when the code changes what comes out.
    pub version: u32,
    /// Where its result lives.
    pub place: Place,
    /// What it needs, in the order that it is done.
    pub needs: &'static [Need],
    /// As [`Step::EMBEDS`].
    pub embeds: &'static [(&'static str, &'static str)],
    pub(super) of: fn(&Build<'_>) -> Vec<String>,
    pub(super) home: fn(&Build<'_>) -> Option<PathBuf>,
    pub(super) is_there: fn(&Build<'_>, bool) -> Result<bool>,
    pub(super) inputs: fn(&Cx<'_>, &mut Parts) -> Result<()>,
    pub(super) identity: fn(&Build<'_>) -> Result<Option<String>>,
    pub(super) check: fn(&Build<'_>, &Ahead) -> Result<()>,
    pub(super) enter: fn(&Cx<'_>) -> Result<()>,
    pub(super) spoiled: fn(&Build<'_>, &std::path::Path) -> Option<String>,
    pub(super) run: fn(&Cx<'_>) -> Result<serde_json::Value>,
    pub(super) end: fn(&Cx<'_>) -> Result<()>,
}

impl Stage {
    /// The row of the stage that `S` implements.
    pub const fn of<S: Step>(version: u32, place: Place, needs: &'static [Need]) -> Self {
        Self {
            name: S::NAME,
            what: S::WHAT,
            version,
            place,
            needs,
            embeds: S::EMBEDS,
            of: S::of,
            home: S::home,
            is_there: S::is_there,
            inputs: S::inputs,
            identity: S::identity,
            check: S::check,
            enter: S::enter,
            spoiled: S::spoiled,
            run: |cx| {
                serde_json::to_value(S::run(cx)?)
                    .map_err(|e| Error::world("record", format!("the record of the stage '{}': {e}", S::NAME)))
            },
            end: S::end,
        }
    }
}

/// A finished result of a stage, from the store or just made.
#[derive(Debug, Clone)]
pub struct Done<R> {
    /// The folder that the result is in.
    pub folder: PathBuf,
    /// What is kept beside it.
    pub record: R,
    /// Its key, where it has one.
    pub key: Option<Key>,
}

impl Done<serde_json::Value> {
    /// With the record in its type.
    ///
    /// # Errors
    /// It has none that can be read.
    pub fn typed<S: Step>(&self) -> Result<Done<S::Record>> {
        let record = serde_json::from_value(self.record.clone()).map_err(|e| {
            Error::world("store", format!("the record of the stage '{}' cannot be read: {e}", S::NAME)).next(format!(
                "remove it, and it is made anew: {}",
                self.folder.parent().unwrap_or(&self.folder).display()
            ))
        })?;
        Ok(Done { folder: self.folder.clone(), record, key: self.key.clone() })
    }
}

/// The results that are there so far.
#[derive(Debug, Default)]
pub struct Made(BTreeMap<Id, Done<serde_json::Value>>);

impl Made {
    pub(super) fn put(&mut self, id: Id, done: Done<serde_json::Value>) {
        self.0.insert(id, done);
    }

    pub(super) fn forget(&mut self, id: &Id) {
        self.0.remove(id);
    }

    pub(super) fn get(&self, id: &Id) -> Option<&Done<serde_json::Value>> {
        self.0.get(id)
    }
}

/// The files that are meant by a name below `patches/`: itself, or all that a folder has; by their names there.
fn files_of(build: &Build<'_>, name: &str) -> Result<Vec<(String, PathBuf)>> {
    let top = build.workspace.patches();
    let mut out = Vec::new();
    for entry in walkdir::WalkDir::new(top.join(name)).sort_by_file_name() {
        let entry = entry.map_err(|e| Error::misuse("patch", format!("patches/{name} cannot be read: {e}")))?;
        if !entry.file_type().is_dir() {
            out.push((below(&top, entry.path()), entry.into_path()));
        }
    }
    Ok(out)
}

/// What a stage is given.
pub struct Cx<'a> {
    /// The build that the stage is a part of.
    pub build: &'a Build<'a>,
    /// Which of its results.
    pub of: &'a str,
    pub(super) stage: &'static Stage,
    pub(super) made: &'a Made,
    pub(super) work: Option<&'a Work>,
    pub(super) pending: Option<&'a Pending>,
}

impl Cx<'_> {
    /// What `S` made.
    ///
    /// # Errors
    /// The table does not say that this stage needs it.
    pub fn made<S: Step>(&self) -> Result<Done<S::Record>> {
        self.made_of::<S>("")?.ok_or_else(|| self.undeclared(S::NAME))
    }

    /// The result of `S` called `of`, if this build has one.
    ///
    /// # Errors
    /// The table does not say that this stage needs it.
    pub fn made_of<S: Step>(&self, of: &str) -> Result<Option<Done<S::Record>>> {
        if !self.stage.needs.iter().any(|need| need.stage == S::NAME && need.means(of, self.of)) {
            return Err(self.undeclared(S::NAME));
        }
        self.made.get(&(S::NAME, of.to_owned())).map(Done::typed::<S>).transpose()
    }

    /// Folders of those results of `S` that this stage needs, by name.
    pub fn folders<S: Step>(&self) -> BTreeMap<String, PathBuf> {
        let needs = |of: &str| self.stage.needs.iter().any(|need| need.stage == S::NAME && need.means(of, self.of));
        let own = self.made.0.iter().filter(|((stage, of), _)| *stage == S::NAME && needs(of));
        own.map(|((_, of), done)| (of.clone(), done.folder.clone())).collect()
    }

    /// The work folder.
    ///
    /// # Errors
    /// The table does not say that this stage works there.
    pub fn work(&self) -> Result<&Work> {
        self.work.ok_or_else(|| self.undeclared("a work folder"))
    }

    /// Where the output goes.
    ///
    /// # Errors
    /// The table does not say that the result lives in the store.
    pub fn out(&self) -> Result<PathBuf> {
        Ok(self.pending.ok_or_else(|| self.undeclared("a place in the store"))?.out())
    }

    /// A scratch folder, on the same file system as the output.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self) -> Result<PathBuf> {
        self.pending.ok_or_else(|| self.undeclared("a place in the store"))?.scratch()
    }

    /// Takes what is called `name` below `patches/`, a file or a folder with all of its files, into the key.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn patch_input(&self, name: &str, parts: &mut Parts) -> Result<()> {
        for (name, path) in files_of(self.build, name)? {
            parts.digest(format!("patches/{name}"), digest_file(&path)?.0);
        }
        Ok(())
    }

    /// What is called `name` below `patches/`: a stage has no other way there, and this one is open only to what
    /// is in its key, as it was when the key was made.
    ///
    /// # Errors
    /// It is in no key, or another one than when this build began.
    pub fn patch(&self, name: &str) -> Result<PathBuf> {
        let id = (self.stage.name, self.of.to_owned());
        let parts = self.build.inputs.lock().ok().and_then(|all| all.get(&id).cloned());
        for (name, path) in files_of(self.build, name)? {
            let input = format!("patches/{name}");
            let known = parts.as_ref().and_then(|parts| parts.value(&input));
            if known.ok_or_else(|| self.undeclared(&input))? != digest_file(&path)?.0 {
                return Err(Error::misuse(
                    "input-changed",
                    format!("{} was changed while this build ran", path.display()),
                )
                .next("run the same command again: it takes what the file holds now"));
            }
        }
        Ok(self.build.workspace.patches().join(name))
    }

    /// The files of the tree that the patch `name` changes. Only their names, also before there is a key: who uses
    /// the patch has it in its key.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn changed_by(&self, name: &str) -> Result<Vec<String>> {
        let text = fs_err::read_to_string(self.build.workspace.patches().join(name))?;
        Ok(text.lines().filter_map(|l| l.strip_prefix("--- a/")).map(str::to_owned).collect())
    }

    /// A stage asks for what its row does not have.
    fn undeclared(&self, what: &str) -> Error {
        Error::world("stage", format!("the stage '{}' has no {what}: its row in the table lacks it", self.stage.name))
            .next("this is a fault of torchmill: please report it")
    }
}
