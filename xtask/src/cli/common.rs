//! Arguments that several commands share, and the way from arguments to a [`Build`].

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use crate::error::{Error, Result};
use crate::event::Sink;
use crate::recipe::{Recipe, Workspace};
use crate::stage::{Build, Chosen, Options};
use crate::store::Store;
use crate::ui::{JsonEvents, Reporter};

/// The recipes that are there, for `--recipe`.
fn recipes() -> Vec<CompletionCandidate> {
    let names = workspace().map(|w| w.recipe_names()).unwrap_or_default();
    names.into_iter().map(CompletionCandidate::new).collect()
}

static JSON: OnceLock<bool> = OnceLock::new();

/// Whether the command was asked for JSON: errors are printed that way too.
pub fn json_requested() -> bool {
    JSON.get().copied().unwrap_or(false)
}

/// Notes that the command was asked for JSON.
pub fn set_json(json: bool) {
    let _ = JSON.set(json);
}

/// Who is told of what happens, as the command was asked; notes whether it was asked for JSON.
pub fn sink(json: bool) -> Box<dyn Sink> {
    set_json(json);
    if json { Box::new(JsonEvents) } else { Box::new(Reporter::new(quiet())) }
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether only warnings, errors and the result are wanted.
pub fn quiet() -> bool {
    QUIET.load(Ordering::SeqCst)
}

/// Notes that only those are wanted.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::SeqCst);
}

static PRINTED: AtomicBool = AtomicBool::new(false);

/// Whether a result stands on standard output already: a command prints one JSON document, and an
/// answer that is no is in it.
pub fn result_printed() -> bool {
    PRINTED.load(Ordering::SeqCst)
}

/// Prints a result as JSON on standard output.
pub fn print_json(value: &serde_json::Value) {
    PRINTED.store(true, Ordering::SeqCst);
    println!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Which recipe, which store.
#[derive(Debug, Args)]
pub struct RecipeArgs {
    /// Recipe: a name in recipes/, or a path to a .toml file
    #[arg(long, short, default_value = "torch-2.6.0-cpu", value_name = "NAME", add = ArgValueCandidates::new(recipes))]
    pub recipe: String,
    /// Folder of the store (default: TORCHMILL_STORE, else the user's cache folder)
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Never touch the network; say exactly what is missing
    #[arg(long)]
    pub offline: bool,
    /// Print the result as JSON on standard output (events as JSON lines on standard error)
    #[arg(long)]
    pub json: bool,
}

/// The system that a program is for
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TargetArg {
    /// This one
    Host,
    /// x86-64 Windows, by mingw-w64 and Wine
    Windows,
}

/// Which Python, and which CUDA toolkit.
#[derive(Debug, Args)]
pub struct ToolArgs {
    /// Python that the wheel is for: a path, a name or a version such as 3.12 (default: python3)
    #[arg(long, value_name = "PYTHON")]
    pub python: Option<String>,
    /// Installed CUDA toolkit to use in place of the recipe's: the folder with bin/nvcc
    #[arg(long, value_name = "DIR")]
    pub cuda_home: Option<PathBuf>,
}

/// What every command with a recipe stands on.
pub struct Session {
    pub workspace: Workspace,
    pub store: Store,
    pub events: Box<dyn Sink>,
}

impl RecipeArgs {
    /// Opens workspace, store and event sink.
    pub fn session(&self) -> Result<Session> {
        let events = sink(self.json);
        Ok(Session { workspace: workspace()?, store: Store::open(self.store.as_deref())?, events })
    }
}

impl Session {
    /// The recipe.
    pub fn recipe(&self, args: &RecipeArgs) -> Result<Recipe> {
        self.workspace.load(&args.recipe)
    }

    /// All that a build reads.
    pub fn build(&self, args: &RecipeArgs, tools: &ToolArgs, options: Options) -> Result<Build<'_>> {
        let chosen =
            Chosen { recipe: &args.recipe, python: tools.python.as_deref(), cuda_home: tools.cuda_home.as_deref() };
        Build::open(
            &self.workspace,
            &self.store,
            self.events.as_ref(),
            &chosen,
            Options { offline: args.offline, ..options },
        )
    }
}

/// The repository: the folder above that has `recipes/`, else the one this program was built in.
pub fn workspace() -> Result<Workspace> {
    let here = std::env::current_dir()?;
    let built_in = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from);
    here.ancestors()
        .map(PathBuf::from)
        .chain(built_in)
        .find(|d| d.join("recipes").is_dir() && d.join("patches").is_dir())
        .map(|root| Workspace { root })
        .ok_or_else(|| {
            Error::misuse("no-workspace", "no folder with recipes/ and patches/ is here or above")
                .next("run this in a clone of torchmill")
        })
}
