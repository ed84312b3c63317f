//! The stages and the graph that runs them: each is a function from named inputs to one output
//! folder, under a key that digests all it reads.
//!
//! ```text
//! fetch ─► tree ─────────────┐
//!   ├────► pyenv ─► libuv ───┼─► configure ─► canary ─► compile ─► wheel ─► bundle ─► provenance ─► verify
//!   └────► prefixes ─────────┘
//! ```

pub mod bundle;
pub mod canary;
pub mod compile;
pub mod configure;
pub mod cuda;
mod driver;
pub mod fetch;
pub mod libuv;
pub mod lock;
mod ninja;
pub mod peers;
pub mod prefix;
pub mod provenance;
pub mod pyenv;
mod shell;
mod timing;
pub mod tree;
pub mod uvstore;
pub mod verify;
pub mod wheel;
mod work;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use driver::{Artifacts, Files, ORDER, Outcome, Plan, PlannedStage, files, plan, run};
pub use ninja::jobs;
pub use shell::shell;
pub use timing::{Timing, stages as timings};
pub use work::{CompilerCache, Work};

use crate::artifact::origin::Origin;
use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::platform;
use crate::recipe::{Lock, Recipe, System, Workspace};
use crate::store::{Key, Pending, Store};
use crate::toolchain::{Compiler, Python};

/// All that a build reads: one recipe, one Python, one machine.
pub struct Build<'a> {
    /// Recipes and patches.
    pub workspace: &'a Workspace,
    /// The recipe.
    pub recipe: Recipe,
    /// Its lock.
    pub lock: Lock,
    /// The store.
    pub store: &'a Store,
    /// Who is told.
    pub events: &'a dyn Sink,
    /// The interpreter that the wheel is for.
    pub python: Python,
    /// The compilers.
    pub compiler: Compiler,
    /// An installed CUDA toolkit that was asked for, in place of the recipe's.
    pub cuda_home: Option<cuda::Installed>,
    /// What the user chose.
    pub options: Options,
    /// The configure key, taken once: a patch that is edited while something compiles must not put
    /// this build's result under the key of another one.
    pub configure_key: OnceLock<Key>,
    /// What the artifacts carry of their making, read once: several keys are made of it.
    pub origin: OnceLock<Origin>,
}

/// What the user chose for this run; nothing here changes what comes out.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Never touch the network.
    pub offline: bool,
    /// Compiler processes at a time; by cores and memory if `None`.
    pub jobs: Option<usize>,
    /// Compile without a cache.
    pub no_compiler_cache: bool,
    /// Stop after this stage (one of [`ORDER`]).
    pub until: Option<String>,
    /// Where artifacts go.
    pub out: PathBuf,
}

/// Which recipe, for which Python, with which CUDA.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// The recipe: a name in `recipes/`, or a path.
    pub recipe: &'a str,
    /// A path, a name or a version; the default `python3` if `None`.
    pub python: Option<&'a str>,
    /// An installed CUDA toolkit to use; the recipe's if `None`.
    pub cuda_home: Option<&'a Path>,
}

impl<'a> Build<'a> {
    /// Reads recipe and lock, finds Python and compilers, and holds each against the others.
    ///
    /// # Errors
    /// Bad input in recipe or lock; no Python or compiler, or none that fits.
    pub fn open(
        workspace: &'a Workspace,
        store: &'a Store,
        events: &'a dyn Sink,
        chosen: &Chosen<'_>,
        options: Options,
    ) -> Result<Self> {
        let recipe = workspace.load(chosen.recipe)?;
        let lock = Lock::load(&recipe, &workspace.recipe_path(chosen.recipe))?;
        demand_system(&recipe)?;
        let python = Python::find(chosen.python, &recipe)?;
        let recipe = recipe.on(&python.machine);
        let compiler = Compiler::find(&recipe.toolchain)?;
        let cuda_home = chosen.cuda_home.map(cuda::Installed::at).transpose()?;
        let recipe = match (&recipe.cuda, &cuda_home) {
            (None, Some(_)) => {
                return Err(Error::misuse(
                    "no-cuda",
                    format!("--cuda-home was given, and the recipe {} has no CUDA", recipe.name),
                )
                .next("choose a recipe that has, such as torch-2.6.0-cu124"));
            }
            (Some(cuda), _) => {
                crate::toolchain::cuda::demand(cuda, &compiler)?;
                if cuda_home.is_some() { recipe.without_prefix(cuda::PREFIX) } else { recipe }
            }
            (None, None) => recipe,
        };
        let (configure_key, origin) = (OnceLock::new(), OnceLock::new());
        Ok(Self { workspace, recipe, lock, store, events, python, compiler, cuda_home, options, configure_key, origin })
    }
}

/// An error if the recipe is for another system than this one: nothing of it can be built here.
fn demand_system(recipe: &Recipe) -> Result<()> {
    let here = System::here();
    if recipe.system == here {
        return Ok(());
    }
    let e = Error::misuse(
        "other-system",
        format!("the recipe {} is for {}; this is {}", recipe.name, recipe.system.name(), here.name()),
    )
    .next(format!("run the same command on {}", recipe.system.name()));
    Err(if recipe.system == System::Windows {
        e.next("what can be proved of it here: cargo xtask canary --target windows")
    } else {
        e
    })
}

impl Build<'_> {
    /// Runs `make` for `stage` unless its result is in the store. `make` fills the folder it is
    /// given and returns the record to keep beside it.
    pub(crate) fn stage<R: serde::Serialize>(
        &self,
        stage: &'static str,
        key: &Key,
        make: impl FnOnce(&Pending) -> Result<R>,
    ) -> Result<PathBuf> {
        if let Some(out) = self.store.finished(stage, key) {
            self.events.emit(Event::StageCached { stage });
            return Ok(out);
        }
        let _lock = self.store.lock(&format!("{stage}-{}", key.short()), self.events)?;
        // Whoever held the lock may have made it.
        if let Some(out) = self.store.finished(stage, key) {
            self.events.emit(Event::StageCached { stage });
            return Ok(out);
        }
        platform::check_cancelled()?;
        timing::timed(self, stage, key.short(), || {
            let pending = self.store.begin(stage, key)?;
            let record = make(&pending).map_err(|e| e.doing(format!("the stage '{stage}'")))?;
            pending.finish(&record)
        })
    }

    /// Path of `file` of source `name` in the store; the fetch stage has put it there.
    pub(crate) fn blob(&self, name: &str) -> Result<PathBuf> {
        let locked = self.lock.source.get(name).ok_or_else(|| {
            Error::misuse("lock-stale", format!("the lock has no source '{name}'")).next("run `cargo xtask lock`")
        })?;
        self.store.blob(&locked.sha256, locked.size).map(|b| b.path).ok_or_else(|| {
            Error::world("not-fetched", format!("'{name}' is not in the store")).next("run `cargo xtask fetch`")
        })
    }
}
