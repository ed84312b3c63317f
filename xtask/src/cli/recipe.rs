//! `recipe`: what recipes there are and what is known of them, and one for a version that has none.

use clap::{Args as ClapArgs, Subcommand};

use super::common::{own_workspace, print_json, print_table, sink, workspace};
use crate::draft::{self, Asked, UPSTREAM};
use crate::error::{Error, Result};
use crate::recipe::{Companion, Draws, Lock, Recipe, Status, Workspace};
use crate::store::Store;
use crate::ui;

/// All recipes with their state; a recipe for a version that has none
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask recipe list
  cargo xtask recipe new 2.16.0")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All recipes: state, torch, CUDA, system, machines, Pythons
    #[command(after_help = "\
Examples:
  cargo xtask recipe list
  cargo xtask recipe list --json

State: 'built here' has results in docs/results. Everything else is a draft: it
was never built to the end. A draft that is locked can be built; one that is not
needs `cargo xtask lock --recipe NAME` first.")]
    List {
        /// Print the list as JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Write a draft for a version, from upstream's tree, the stock wheel and the nearest recipe
    #[command(after_help = "\
Examples:
  cargo xtask recipe new 2.16.0
  cargo xtask recipe new 2.16.0 --cuda   and one for the stock wheel's CUDA
  cargo xtask recipe new 2.16.0 --git https://git.example.org/pytorch.git

Tag, commit, backend, build requirements, minima, switches and submodules come
from upstream's tree; Pythons, the day and CUDA's packages from the stock wheel
on the index that pip uses. What nobody could tell stands in the file as a
comment that begins with NOT FOUND OUT.
Next: `cargo xtask lock --recipe torch-2.16.0-cpu`.")]
    New(New),
}

#[derive(Debug, ClapArgs)]
struct New {
    /// Version of PyTorch, such as 2.16.0
    version: String,
    /// Write a recipe for the CUDA of the stock wheel too
    #[arg(long)]
    cuda: bool,
    /// Repository to read, if not upstream's own
    #[arg(long, value_name = "URL", default_value = UPSTREAM)]
    git: String,
    /// Do without the stock wheel, for a version that the index does not have yet
    #[arg(long, conflicts_with = "cuda")]
    without_wheel: bool,
    /// Folder of the store (default: TORCHMILL_STORE, else the user's cache folder)
    #[arg(long, value_name = "DIR")]
    store: Option<std::path::PathBuf>,
    /// Print the result as JSON on standard output (events as JSON lines on standard error)
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad input: a recipe that cannot be read; an address or a version that no draft can be made from. The world:
/// repository or index do not answer.
pub fn run(args: Args) -> Result<()> {
    match args.what {
        What::List { json } => list(json),
        What::New(args) => new(&args),
    }
}

fn new(args: &New) -> Result<()> {
    let events = sink(args.json);
    let git = args.git.strip_prefix("git+").unwrap_or(&args.git);
    if !["https://", "http://", "file://"].iter().any(|scheme| git.starts_with(scheme)) {
        return Err(Error::misuse("git-url", format!("--git '{}' is no URL of https or file", args.git))
            .next("name a repository, as https://git.example.org/pytorch.git or file:///srv/pytorch"));
    }
    if url::Url::parse(git).is_ok_and(|u| !u.username().is_empty() || u.password().is_some()) {
        return Err(Error::misuse("git-url", "--git has a name or password in it, which would stand in the recipe")
            .next("name the repository without them, or a mirror that can be read without them"));
    }
    let asked = Asked { version: &args.version, git, cuda: args.cuda, without_wheel: args.without_wheel };
    let store = Store::open_for(args.store.as_deref(), events.as_ref())?;
    let written = draft::write(&own_workspace()?, &store, events.as_ref(), &asked)?;
    if args.json {
        print_json(&serde_json::json!({ "schema_version": 1, "written": written }));
        return Ok(());
    }
    for file in &written.files {
        println!("{}", file.display());
    }
    let tag = ui::visible(&written.tag);
    println!("a draft from {tag} ({}), the rest from {}", &written.commit[..12], written.nearest);
    println!("not found out ({}), each a comment in the file:", written.open.len());
    for open in &written.open {
        println!("  - {}", ui::visible(open));
    }
    for recipe in &written.recipes {
        println!("{}", ui::name::as_typed(&format!("next: cargo xtask lock --recipe {recipe}")));
    }
    Ok(())
}

/// One recipe, as the list has it.
#[derive(Debug, serde::Serialize)]
struct Row {
    recipe: String,
    state: &'static str,
    draft: bool,
    lock: &'static str,
    torch: String,
    version: String,
    cuda: Option<String>,
    system: &'static str,
    machines: Vec<String>,
    /// Those of them that it was never built on.
    untried: Vec<String>,
    pythons: Vec<String>,
    description: String,
}

/// A companion in the list.
#[derive(serde::Serialize)]
struct Beside {
    recipe: String,
    state: &'static str,
    draft: bool,
    lock: &'static str,
    package: String,
    version: String,
    torch: String,
    pythons: Vec<String>,
    lacks: std::collections::BTreeMap<String, String>,
    description: String,
}

impl Beside {
    fn of(workspace: &Workspace, companion: Companion) -> Self {
        let (draft, lock, state) = state(workspace, companion.status, companion.draws());
        Self {
            state,
            draft,
            lock,
            package: companion.package,
            version: companion.version,
            torch: companion.torch,
            pythons: companion.python.versions,
            lacks: companion.lacks,
            description: companion.description,
            recipe: companion.name,
        }
    }
}

/// Whether a recipe is a draft, how its lock stands, and both in words.
fn state(workspace: &Workspace, status: Status, draws: Draws<'_>) -> (bool, &'static str, &'static str) {
    let lock = match Lock::load(draws, &workspace.recipe_path(draws.name)) {
        Ok(_) => "fits",
        Err(e) if e.code() == "lock-missing" => "none",
        Err(_) => "stale",
    };
    let draft = status.is_draft();
    let state = match (draft, lock) {
        (false, _) => "built here",
        (true, "fits") => "draft, locked",
        (true, "stale") => "draft, lock is stale",
        (true, _) => "draft",
    };
    (draft, lock, state)
}

impl Row {
    /// Whether the recipe was built, but not on this kind of machine.
    fn leaves_out(&self, machine: &String) -> bool {
        !self.draft && self.untried.contains(machine)
    }

    fn of(workspace: &Workspace, recipe: Recipe) -> Self {
        let (draft, lock, state) = state(workspace, recipe.torch.status, (&recipe).into());
        Self {
            state,
            draft,
            lock,
            version: recipe.torch.full_version(),
            torch: recipe.torch.version,
            cuda: recipe.cuda.map(|c| c.version),
            system: recipe.system.name(),
            untried: recipe.python.machines.iter().filter(|m| recipe.torch.status.is_draft_on(m)).cloned().collect(),
            machines: recipe.python.machines,
            pythons: recipe.python.versions,
            description: recipe.description,
            recipe: recipe.name,
        }
    }
}

fn list(json: bool) -> Result<()> {
    super::common::set_json(json);
    let workspace = workspace()?;
    let (mut rows, mut unreadable) = (Vec::new(), Vec::new());
    for name in workspace.recipe_names() {
        match workspace.load(&name) {
            Ok(recipe) => rows.push(Row::of(&workspace, recipe)),
            Err(e) => unreadable.push((name, e)),
        }
    }
    let mut beside = Vec::new();
    for name in workspace.companion_names() {
        match workspace.companion(&name) {
            Ok(companion) => beside.push(Beside::of(&workspace, companion)),
            Err(e) => unreadable.push((name, e)),
        }
    }
    // By version, as a person reads it: 2.9.1 stands before 2.10.0.
    rows.sort_by_cached_key(|r| (r.torch.parse::<pep440_rs::Version>().ok(), r.recipe.clone()));
    if json {
        let broken: Vec<_> = unreadable
            .iter()
            .map(|(name, e)| serde_json::json!({ "recipe": name, "error": { "code": e.code(), "message": e.what() } }))
            .collect();
        print_json(
            &serde_json::json!({ "schema_version": 1, "recipes": rows, "companions": beside, "unreadable": broken }),
        );
    } else {
        print(&rows);
        print_beside(&beside);
    }
    match unreadable.into_iter().next() {
        // One that cannot be read does not hide the others, and is not passed over either.
        Some((_, e)) => Err(e),
        None => Ok(()),
    }
}

fn print(rows: &[Row]) {
    let head = ["recipe", "state", "torch", "CUDA", "system", "machines", "Pythons"].map(str::to_owned);
    let cells: Vec<[String; 7]> = std::iter::once(head)
        .chain(rows.iter().map(|r| {
            [
                r.recipe.clone(),
                r.state.to_owned(),
                r.torch.clone(),
                r.cuda.clone().unwrap_or_else(|| "-".into()),
                r.system.to_owned(),
                r.machines
                    .iter()
                    .map(|m| if r.leaves_out(m) { format!("({m})") } else { m.clone() })
                    .collect::<Vec<_>>()
                    .join(" "),
                span(&r.pythons),
            ]
        }))
        .collect();
    print_table(&cells);
    if rows.iter().any(|r| r.machines.iter().any(|m| r.leaves_out(m))) {
        println!("\n(machine): the recipe was built here, and never on such a machine.");
    }
}

fn print_beside(rows: &[Beside]) {
    if rows.is_empty() {
        return;
    }
    println!("\nCompanions, built beside a torch (`build-torch --with PACKAGE`):");
    let head = ["recipe", "state", "package", "version", "for torch", "Pythons"].map(str::to_owned);
    let cells: Vec<[String; 6]> = std::iter::once(head)
        .chain(rows.iter().map(|r| {
            let state = r.state.to_owned();
            [r.recipe.clone(), state, r.package.clone(), r.version.clone(), r.torch.clone(), span(&r.pythons)]
        }))
        .collect();
    print_table(&cells);
}

/// `3.9 to 3.13`, or the list where it has gaps.
fn span(versions: &[String]) -> String {
    let minors: Option<Vec<u32>> = versions.iter().map(|v| v.strip_prefix("3.")?.parse().ok()).collect();
    match minors.as_deref() {
        Some([first, .., last]) if (last - first) as usize + 1 == versions.len() => format!("3.{first} to 3.{last}"),
        _ => versions.join(" "),
    }
}
