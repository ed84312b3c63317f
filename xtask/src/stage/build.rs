//! All that a build reads, and what the user chose: what every stage is given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use super::{farm::Farm, locked, shared::Shared};
use crate::artifact::origin::Origin;
use crate::error::{Error, Result};
use crate::event::Sink;
use crate::recipe::{Companion, Lock, PythonLock, Recipe, System, TOOLCHAIN, Workspace};
use crate::store::{Parts, Store};
use crate::toolchain::cuda::{self, Toolkit};
use crate::toolchain::{Compiler, Python};

/// All that a build reads: one recipe, one Python, one machine.
pub struct Build<'a> {
    /// Recipes and patches.
    pub workspace: &'a Workspace,
    /// The recipe, merged with what it extends.
    pub recipe: Recipe,
    /// The digests of all that the recipe names.
    pub lock: Lock,
    /// Where results and downloads are.
    pub store: &'a Store,
    /// The packages that are compiled against it, by name of the package: those that were asked for.
    pub companions: BTreeMap<String, Beside>,
    /// Who is told.
    pub events: &'a dyn Sink,
    /// The interpreter that the wheel is for.
    pub python: Python,
    /// The C and C++ compiler: the machine's, or that of the recipe's packages, which may not be there yet.
    pub compiler: Compiler,
    /// An installed CUDA toolkit that was asked for, in place of the recipe's.
    pub cuda_home: Option<Toolkit>,
    /// What the user chose.
    pub options: Options,
    /// The inputs of each stage's result, taken once: a patch that is edited while something compiles must not
    /// put this build's result under the key of another one.
    pub inputs: Mutex<BTreeMap<Id, Parts>>,
    /// What decides what an installed toolkit makes, digested once.
    pub cuda_identity: OnceLock<String>,
    /// What the artifacts carry of their making, read once: several keys are made of it.
    pub origin: OnceLock<Origin>,
}

/// A companion of this build.
pub struct Beside {
    /// Its recipe.
    pub recipe: Companion,
    /// The digests of all that it names.
    pub lock: Lock,
}

/// What the user chose for this run; nothing here changes what comes out.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Never touch the network.
    pub offline: bool,
    /// Compiler processes at a time; by cores and memory if `None`.
    pub jobs: Option<usize>,
    /// Whether a step that fails leaves those that do not wait for it to be made.
    pub keep_going: bool,
    /// Compile without a cache.
    pub no_compiler_cache: bool,
    /// The compiler cache that this machine shares with others.
    pub shared_cache: Option<Arc<Shared>>,
    /// The machines that compile for this one.
    pub farm: Option<Arc<Farm>>,
    /// Percent of the objects from elsewhere that are compiled again and compared; the default if `None`.
    pub cache_audit: Option<u8>,
    /// Stop after this stage (one of those that [`super::ORDER`] or [`super::BESIDE`] names).
    pub until: Option<String>,
    /// Compile this part of the objects, for a machine that builds with the same compiler cache, and nothing more.
    pub part: Option<Part>,
    /// What is fetched.
    pub downloads: Downloads,
    /// Whether a recipe for Windows will do here: what it is made of can be put together anywhere, and tried by Wine.
    pub other_system: bool,
    /// Where artifacts go.
    pub out: PathBuf,
}

/// One of several parts of the objects of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which one, from 1.
    pub number: u16,
    /// How many there are.
    pub of: u16,
}

impl Part {
    /// All objects.
    pub const ALL: Self = Self { number: 1, of: 1 };
    /// More parts than any build has use for.
    const MOST: u16 = 1024;
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl std::str::FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((number, of)) if (1..=of).contains(&number) && of <= Self::MOST => Ok(Self { number, of }),
            _ => Err(format!(
                "one of several parts is written as 2/4: a number from 1, and how many (at most {})",
                Self::MOST
            )),
        }
    }
}

/// What the stage fetch brings into the store.
#[derive(Debug, Clone, Copy, Default)]
pub enum Downloads {
    /// All that a build for its Python draws in.
    #[default]
    Build,
    /// That, with the packages for every Python of the lock: what a machine without network needs.
    AllPythons,
    /// Those sources and packages of a build whose names it takes, and nothing else.
    Only(fn(&Build<'_>, &str) -> bool),
}

/// A result of a stage: the stage's name, and which of its results, where it has several (the prefixes).
pub type Id = (&'static str, String);

/// The prefix that a CUDA toolkit is made of, and the name of that toolkit in a work folder.
pub const CUDA: &str = "cuda";

/// The prefix that cuDNN lies in where it comes beside an installed toolkit.
pub const CUDNN: &str = "cudnn";

/// The prefix with the recipe's ccache.
pub const CCACHE: &str = "ccache";

/// Which recipe, for which Python, with which CUDA.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// The recipe: a name in `recipes/`, or a path.
    pub recipe: &'a str,
    /// A path, a name or a version; the default `python3` if `None`.
    pub python: Option<&'a str>,
    /// An installed CUDA toolkit to use; the recipe's if `None`.
    pub cuda_home: Option<&'a Path>,
    /// Companions to build beside it: names of packages, or of their recipes.
    pub companions: &'a [String],
}

impl<'a> Build<'a> {
    /// Reads recipe and lock, finds Python and compilers, and holds each against the others.
    ///
    /// # Errors
    /// Bad input in recipe or lock; no Python or compiler, or none that fits; a compiler is named where the recipe
    /// brings its own.
    pub fn open(
        workspace: &'a Workspace,
        store: &'a Store,
        events: &'a dyn Sink,
        chosen: &Chosen<'_>,
        options: Options,
    ) -> Result<Self> {
        let recipe = workspace.load(chosen.recipe)?;
        let lock = Lock::load(&recipe, &workspace.recipe_path(chosen.recipe))?;
        if !(options.other_system && recipe.system == System::Windows) {
            check_system(&recipe)?;
        }
        // Both ask programs, and wait for them. Which compilers are demanded is the same on every machine: that
        // does not wait for Python's answer.
        let own = || (!recipe.toolchain.is_locked()).then(|| Compiler::find(&recipe.toolchain)).transpose();
        let (python, own) = rayon::join(|| Python::find(chosen.python, &recipe), own);
        let python = python?;
        let packaged = locked::machines(&recipe);
        let recipe = recipe.on(&python.machine);
        let (recipe, compiler) = match own? {
            Some(compiler) => (recipe.without_prefix(TOOLCHAIN), compiler),
            None => {
                let compiler = locked::compiler(&recipe, &lock, store, &python.machine, &packaged)?;
                (recipe, compiler)
            }
        };
        let cuda_home = match (&recipe.cuda, chosen.cuda_home) {
            (None, Some(_)) => {
                return Err(Error::misuse(
                    "no-cuda",
                    format!("--cuda-home was given, and the recipe {} has no CUDA", recipe.name),
                )
                .next("choose a recipe that has, such as torch-2.12.1-cu130"));
            }
            (Some(cuda), Some(root)) => Some(Toolkit::installed(root, &cuda.version)?),
            (_, None) => None,
        };
        // What is put together here for another system meets its compiler and its driver there.
        if let Some(cuda) = recipe.cuda.as_ref().filter(|_| recipe.system == System::here()) {
            cuda::demand(cuda, &compiler)?;
            if let Some(toolkit) = &cuda_home {
                let has_cudnn = !recipe.source.iter().any(|source| source.in_prefix(CUDNN).next().is_some());
                let has_nccl = recipe.features.get("USE_NCCL") != Some(&false);
                cuda::demand_installed(cuda, toolkit, has_cudnn, has_nccl)?;
            }
        }
        let recipe = if cuda_home.is_some() { recipe.without_prefix(CUDA) } else { recipe };
        let companions = chosen
            .companions
            .iter()
            .map(|asked| {
                let companion = workspace.companion_for(asked, &recipe.torch.version)?;
                let lock = Lock::load(companion.draws(), &workspace.recipe_path(&companion.name))?;
                lock.packages(&companion.name, &python.machine, &python.minor())?;
                if recipe.cuda.is_some() && !companion.has_cuda() {
                    return Err(Error::misuse(
                        "companion",
                        format!(
                            "the recipe {} compiles {} without CUDA, and {} has it: its operators would be missing on GPUs",
                            companion.name, companion.package, recipe.name
                        ),
                    )
                    .next("leave it out of --with: stock's fits this torch, if `compat` says so"));
                }
                Ok((companion.package.clone(), Beside { recipe: companion, lock }))
            })
            .collect::<Result<_>>()?;
        let (inputs, cuda_identity, origin) = (Mutex::default(), OnceLock::new(), OnceLock::new());
        Ok(Self {
            workspace,
            recipe,
            lock,
            store,
            companions,
            events,
            python,
            compiler,
            cuda_home,
            options,
            inputs,
            cuda_identity,
            origin,
        })
    }
}

/// An error if the recipe is for another system than this one: nothing of it can be built here.
fn check_system(recipe: &Recipe) -> Result<()> {
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
    /// Tells what the store found changed.
    pub fn tell_found(&self) {
        for found in self.store.take_found() {
            self.events.warn(found);
        }
    }

    /// Names of the prefixes that the recipe makes, sorted. Its toolchain is no prefix: a stage of its own makes it.
    pub fn prefixes(&self) -> Vec<String> {
        let all = crate::recipe::prefixes(&self.recipe.source).into_iter();
        all.filter(|name| *name != TOOLCHAIN).map(str::to_owned).collect()
    }

    /// The companion called `package`.
    ///
    /// # Errors
    /// It was not asked for.
    pub(crate) fn companion(&self, package: &str) -> Result<&Beside> {
        self.companions
            .get(package)
            .ok_or_else(|| Error::misuse("no-companion", format!("this build has no companion '{package}'")))
    }

    /// The packages that a companion is built and tried with, for this build's Python.
    ///
    /// # Errors
    /// Its lock has none for it.
    pub(crate) fn packages_beside<'b>(&self, beside: &'b Beside) -> Result<&'b PythonLock> {
        beside.lock.packages(&beside.recipe.name, &self.python.machine, &self.python.minor())
    }

    /// The wheels of the lock for this build's Python.
    ///
    /// # Errors
    /// The lock has none for it.
    pub fn python_lock(&self) -> Result<&PythonLock> {
        self.lock.packages(&self.recipe.name, &self.python.machine, &self.python.minor())
    }
}
