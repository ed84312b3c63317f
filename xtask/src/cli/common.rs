//! Arguments that several commands share, and the way from arguments to a [`Build`].

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use crate::artifact::dsse;
use crate::artifact::trust::Policy;
use crate::error::{Error, Result};
use crate::event::Sink;
use crate::platform;
use crate::recipe::{DEFAULT, Lock, Recipe, Status, Workspace};
use crate::repro::foreign::{self, Code, Said, Trust};
use crate::stage::steps::fetch::Fetch;
use crate::stage::{Build, Chosen, Options, ensure};
use crate::store::{Store, release, write_atomically};
use crate::ui::{self, JsonEvents, Reporter};

/// The recipes that are there, for `--recipe`; drafts are marked. What is known of a recipe stands in its own file.
fn recipes() -> Vec<CompletionCandidate> {
    let Ok(workspace) = workspace() else { return Vec::new() };
    let candidate = |name: String| {
        let draft = workspace.file(&name).is_ok_and(|file| file.torch.status != Some(Status::BuiltHere));
        CompletionCandidate::new(name).help(draft.then(|| "draft".into()))
    };
    workspace.recipe_names().into_iter().map(candidate).collect()
}

/// The companions that have a recipe, for `--with`.
fn companions() -> Vec<CompletionCandidate> {
    let Ok(workspace) = workspace() else { return Vec::new() };
    let read = workspace.companion_names().into_iter().filter_map(|name| workspace.companion(&name).ok());
    let mut packages: Vec<String> = read.map(|companion| companion.package).collect();
    packages.sort();
    packages.dedup();
    packages.into_iter().map(CompletionCandidate::new).collect()
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
    println!("{}", ui::visible_json(&serde_json::to_string_pretty(value).unwrap_or_default()));
}

/// Letters of a cell that are shown: what others wrote into one may be a whole file, and Rust pads to no more than 65,535.
const MOST_CELL: usize = 200;

/// Prints rows in columns, each as wide as its widest cell.
pub fn print_table<const N: usize>(rows: &[[String; N]]) {
    let cell = |text: &String| {
        let cut: String = text.chars().take(MOST_CELL).collect();
        let shown = ui::visible(&cut).replace('\n', "\\n");
        if cut.len() < text.len() { format!("{shown}…") } else { shown }
    };
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(cell)).collect();
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, w)| format!("{cell:w$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

/// Which recipe, which store.
#[derive(Debug, Args)]
pub struct RecipeArgs {
    /// Recipe: a name in recipes/, or a path to a .toml file
    #[arg(long, short, default_value = DEFAULT, value_name = "NAME", add = ArgValueCandidates::new(recipes))]
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
#[derive(Debug, Clone, Args)]
pub struct ToolArgs {
    /// Python that the wheel is for: a path, a name or a version such as 3.12 (default: python3)
    #[arg(long, value_name = "PYTHON", value_hint = clap::ValueHint::ExecutablePath)]
    pub python: Option<String>,
    /// Installed CUDA toolkit to use in place of the recipe's: the folder with bin/nvcc
    #[arg(long, value_name = "DIR")]
    pub cuda_home: Option<PathBuf>,
    /// Packages that are compiled against it, to build beside it; none if left out
    #[arg(skip)]
    pub companions: Vec<String>,
}

/// Which packages are built beside a torch.
#[derive(Debug, Args)]
pub struct WithArgs {
    /// Build packages that are compiled against it too, and try them together: torchvision, torchaudio
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',', value_parser = clap::builder::NonEmptyStringValueParser::new(), add = ArgValueCandidates::new(companions))]
    pub with: Vec<String>,
}

/// On what grounds code that came from elsewhere runs.
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// Run code that came from elsewhere and that no trusted key signed: it is shown first. With the
    /// digest that was shown before, that code and no other
    #[arg(long, value_name = "SHA256", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub trust: Option<String>,
    /// Run code from elsewhere without a closed room, where this system offers none
    #[arg(long)]
    pub unconfined: bool,
}

/// Whose signature an artifact from elsewhere must carry.
#[derive(Debug, Args)]
pub struct SignedArgs {
    /// A public key (PEM) that must have signed its statement; may be given several times: one of them must
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// A policy that it must meet: which keys, recipes, toolchains, builders (default: TORCHMILL_POLICY)
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

impl TrustArgs {
    /// With whose signatures count: `keys` and a policy's.
    ///
    /// # Errors
    /// As [`policy_of`].
    pub fn with(&self, keys: &[PathBuf], policy: Option<&Path>) -> Result<Trust> {
        let said = match self.trust.as_deref() {
            None => Said::Nothing,
            Some("") => Said::Yes,
            Some(digest) => Said::Digest(digest.to_owned()),
        };
        Ok(Trust { policy: policy_of(keys, policy)?, said, unconfined: self.unconfined, telling: Vec::new() })
    }
}

/// Keys and policy as a command was given them; where it was given no policy, that of TORCHMILL_POLICY. `None` if there is
/// neither.
///
/// # Errors
/// Bad input: a key or a policy that is not there, or is none.
pub fn policy_of(keys: &[PathBuf], policy: Option<&Path>) -> Result<Option<Policy>> {
    let settings = std::env::var_os("TORCHMILL_POLICY").filter(|v| !v.is_empty()).map(PathBuf::from);
    let policy = policy.or(settings.as_deref());
    if keys.is_empty() && policy.is_none() {
        return Ok(None);
    }
    let mut policy = policy.map(Policy::load).transpose()?.unwrap_or_default();
    for warning in &policy.warnings {
        eprintln!("warning: {}", ui::visible(warning));
    }
    policy.demand(keys.iter().map(|k| dsse::public_key(k)).collect::<Result<_>>()?);
    Ok(Some(policy))
}

/// What every command with a recipe stands on.
pub struct Session {
    pub workspace: Workspace,
    pub store: Store,
    pub events: Box<dyn Sink>,
}

impl RecipeArgs {
    /// Opens workspace, store and event sink. As long as the session lasts nobody removes anything from the store.
    ///
    /// # Errors
    /// As [`Store::open_for`] and [`workspace`].
    pub fn session(&self) -> Result<Session> {
        let events = sink(self.json);
        let room = foreign::inside();
        let store = Store::open_for(room.as_deref().or(self.store.as_deref()), events.as_ref())?;
        // Root was refused such a store when it was opened.
        if !platform::is_root()
            && let Some(how) = store.shared()
        {
            events.note(format!("the store is shared: {how}"));
        }
        // What killed runs left goes before more is put beside it.
        store.sweep();
        Ok(Session { workspace: workspace()?, store, events })
    }
}

impl Session {
    /// Loads the recipe that the arguments name.
    ///
    /// # Errors
    /// As [`Workspace::load`].
    pub fn recipe(&self, args: &RecipeArgs) -> Result<Recipe> {
        self.workspace.load(&args.recipe)
    }

    /// All that a build reads, whose code is run.
    ///
    /// # Errors
    /// As [`Build::open`]; a recipe from elsewhere, outside of a closed room.
    pub fn build(&self, args: &RecipeArgs, tools: &ToolArgs, options: Options) -> Result<Build<'_>> {
        if foreign::inside().is_none() && foreign::is_foreign(&self.workspace, &args.recipe) {
            return Err(Error::not_trusted(format!(
                "the recipe {} came from elsewhere: it is code of whoever wrote it",
                args.recipe
            ))
            .next("tree, shell and build-torch run it in a closed room, with --trust")
            .next("or put it into recipes/, if it is yours"));
        }
        // From here on, code of others may run.
        platform::scrub_environment(None);
        platform::no_dumps(false);
        self.read(args, tools, options)
    }

    /// Runs the command that was given again, in a closed room, if its recipe came from elsewhere and
    /// the user trusts it; `false` if it is one of ours. `write` is for what comes out; `terminal`, whether a person is
    /// to type into it.
    ///
    /// # Errors
    /// The answer is no: nobody trusts it. The command's own end, if it did not end well.
    pub fn in_room(
        &self,
        args: &RecipeArgs,
        tools: &ToolArgs,
        trust: &TrustArgs,
        write: &[PathBuf],
        terminal: bool,
    ) -> Result<bool> {
        if foreign::inside().is_some() || !foreign::is_foreign(&self.workspace, &args.recipe) {
            return Ok(false);
        }
        let recipe = self.workspace.load(&args.recipe)?;
        Lock::load(&recipe, &self.workspace.recipe_path(&args.recipe))?;
        let files = self.files_of(&args.recipe)?;
        let code = Code::of_recipe(&recipe, &files);
        let trust = trust.with(&[], None)?;
        code.admit(&args.recipe, &trust, self.events.as_ref())?;
        platform::scrub_environment(None);
        platform::no_dumps(false);
        let build = self.read(args, tools, Options::default())?;
        ensure::<Fetch>(&build)?;
        let (root, _) = foreign::room_store(&self.store, &code.sha256[..20])?;
        let mut read = vec![self.workspace.recipes(), self.workspace.patches()];
        read.retain(|p| p.exists());
        // What runs is what was admitted, whatever somebody writes to the files meanwhile.
        let mut put = Vec::new();
        for (at, (path, bytes)) in files.into_iter().enumerate() {
            let copy = root.join("recipe").join(at.to_string());
            write_atomically(&copy, &bytes)?;
            put.push((copy, path));
        }
        let mut write = write.iter().map(|p| Ok(std::path::absolute(p)?)).collect::<Result<Vec<_>>>()?;
        write.retain(|p| fs_err::create_dir_all(p).is_ok());
        foreign::check_written(&write, &[self.workspace.root.as_path(), self.store.root()])?;
        let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
        // Paths among the arguments mean in the room what they mean here.
        let here = std::env::current_dir()?;
        let furniture = foreign::Furniture {
            store: &root,
            read: &read,
            put: &put,
            write: &write,
            workspace: &build.workspace.root,
            cwd: &here,
            system: None,
            unconfined: trust.unconfined,
        };
        let mut command = foreign::command(&build, &arguments, &furniture)?;
        let status = if terminal {
            command.status().map_err(|e| Error::world("closed-room", format!("it cannot be started: {e}")))?
        } else {
            // Nobody types into it: what is typed is for the shell outside.
            command.stdin(Stdio::null());
            foreign::run(command)?
        };
        if status.success() {
            return Ok(true);
        }
        // What went wrong was said inside; the same exit code says it again.
        std::process::exit(status.code().unwrap_or(3))
    }

    /// The files of a recipe from elsewhere, and what stands in them: its own and its lock, then those that it extends.
    fn files_of(&self, recipe: &str) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut files = self.workspace.files(recipe)?;
        let lock = Lock::path_for(&files[0]);
        files.insert(1, lock);
        let read = |path: PathBuf| Ok((std::path::absolute(&path)?, fs_err::read(&path)?));
        files.into_iter().map(read).collect()
    }

    /// All that a build reads, for commands that run nothing of it.
    ///
    /// # Errors
    /// As [`Build::open`].
    pub fn read(&self, args: &RecipeArgs, tools: &ToolArgs, options: Options) -> Result<Build<'_>> {
        let chosen = Chosen {
            recipe: &args.recipe,
            python: tools.python.as_deref(),
            cuda_home: tools.cuda_home.as_deref(),
            companions: &tools.companions,
        };
        Build::open(
            &self.workspace,
            &self.store,
            self.events.as_ref(),
            &chosen,
            Options { offline: args.offline || foreign::inside().is_some(), ..options },
        )
    }
}

/// The folder above that has `recipes/`; else the clone that this program was built in, and stands in; else the
/// recipes that a release carries in itself.
///
/// # Errors
/// Misuse: there is none. The world: what a release carries cannot be unpacked.
pub fn workspace() -> Result<Workspace> {
    if let Some(given) = foreign::workspace_inside() {
        return Ok(given);
    }
    let is_one = |d: &PathBuf| d.join("recipes").is_dir() && d.join("patches").is_dir();
    let here = std::env::current_dir()?;
    if let Some(root) = here.ancestors().map(PathBuf::from).chain(clone_of_this_program()).find(is_one) {
        return Ok(Workspace { root });
    }
    let carried = match platform::cache_dir() {
        Some(cache) => release::unpacked(&cache.join("torchmill/release").join(env!("CARGO_PKG_VERSION")))?,
        None => None,
    };
    carried.ok_or_else(|| {
        Error::misuse("no-workspace", "no folder with recipes/ and patches/ is here or above")
            .next("run this in a clone of torchmill")
    })
}

/// The same, for what writes recipes, locks or workflows.
///
/// # Errors
/// Misuse: those of a release are nobody's to edit.
pub fn own_workspace() -> Result<Workspace> {
    let workspace = workspace()?;
    ensure_own(&workspace)?;
    Ok(workspace)
}

/// See [`own_workspace`].
///
/// # Errors
/// Misuse: `workspace` is that of a release.
pub fn ensure_own(workspace: &Workspace) -> Result<()> {
    if !workspace.is_released() {
        return Ok(());
    }
    Err(Error::misuse("released", "this would write beside the recipes that this release carries, which nobody edits")
        .next("run it in a clone of torchmill, or in a folder of yours that has recipes/ and patches/"))
}

/// The clone whose `target/` this program stands in: `target/PROFILE/torchmill`, or below a target's name.
pub fn clone_of_this_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let is_one = |d: &&Path| d.join("xtask/Cargo.toml").is_file() && d.join("recipes").is_dir();
    program.ancestors().skip(1).find(is_one).map(PathBuf::from)
}
