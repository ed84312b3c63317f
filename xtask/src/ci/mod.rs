//! `ci`: the build matrix, and the workflows that GitHub and GitLab run, rendered from the recipes.
//!
//! ```text
//! recipes with a lock ─► matrix: recipe × Python × machine ─┬─► github.yml.j2 ─► ci/github/build-torch.yml
//!                                                           └─► gitlab.yml.j2 ─► ci/gitlab/build-torch.yml
//! github-release.yml.j2, gitlab-release.yml.j2 ─► ci/*/release.yml: the program itself, and uvstore
//! ```
//! The templates hold all that is said of a CI; this module fills in what the recipes say. GitHub runs what was copied
//! to `.github/workflows/`, so copies are judged and rendered again as the files in `ci/` are.

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::recipe::cuda::release;
use crate::recipe::{DEFAULT, Lock, System, Workspace};
use crate::stage::steps::cuda::brings_toolkit;

/// One build: what a CI starts a machine for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// Name of the recipe, as `--recipe` takes it.
    pub recipe: String,
    /// Upstream's version of torch.
    pub torch: String,
    /// The version that comes out, with its local label.
    pub version: String,
    /// Minor version of Python, such as `3.11`.
    pub python: String,
    /// The operating system.
    pub system: System,
    /// The machine, such as `x86_64`.
    pub machine: String,
    /// GitHub's label of a hosted machine of that kind; `None` where none has the disk for it.
    pub runner: Option<String>,
    /// The CUDA toolkit that its machine has to have, such as `12.4.1`; `None` where it needs none, or the lock brings it.
    pub toolkit: Option<&'static str>,
    /// What `validate` holds it against.
    pub baseline: String,
    /// The recipe's lock, relative to the repository: what caches of downloads depend on.
    pub lock: String,
    /// Nobody has seen it end well yet: its failure does not stop the others.
    pub experimental: bool,
}

/// What one machine does, one after the other: the builds of a recipe for several Pythons, most of whose objects are the
/// same.
#[derive(Debug, Clone, Serialize)]
struct Machine {
    /// What tells it from the others, in names of caches and artifacts.
    id: String,
    /// What people read.
    name: String,
    pythons: Vec<String>,
    /// The first of the builds: the others differ from it in their Python.
    #[serde(flatten)]
    first: Job,
}

/// The builds by machine. On Windows each has its own: a Python there has no name of its own on PATH.
fn machines(jobs: Vec<Job>) -> Vec<Machine> {
    let mut out: Vec<Machine> = Vec::new();
    for job in jobs {
        let (mut id, mut name) =
            (format!("{}-{}", job.recipe, job.machine), format!("{}, {}", job.recipe, job.machine));
        if job.system == System::Windows {
            id = format!("{id}-{}", job.python);
            name = format!("{name}, Python {}", job.python);
        }
        match out.iter_mut().find(|machine| machine.id == id) {
            Some(machine) => machine.pythons.push(job.python),
            None => out.push(Machine { id, name, pythons: vec![job.python.clone()], first: job }),
        }
    }
    out
}

/// A file that is rendered.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Where it belongs, relative to the repository.
    pub path: &'static str,
    /// What the file must hold.
    pub text: String,
}

/// A committed file, or a copy of one, that is not what would be rendered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// The file, relative to the repository.
    pub path: String,
    /// Where what belongs into it is rendered: for a copy another path than its own. `None` where this version renders
    /// nothing of the name that the file gives itself.
    pub of: Option<&'static str>,
    /// The first line that differs, from 1; `None` where there are no two files to compare.
    pub line: Option<usize>,
}

impl Stale {
    /// Whether it is a copy, which stands where its owner put it.
    pub fn is_copy(&self) -> bool {
        self.of.is_none_or(|of| of != self.path)
    }
}

/// A file that says of itself that it was rendered, and stands elsewhere than it was rendered to.
struct Copied {
    /// The file, relative to the repository.
    path: String,
    /// What it says that it is, if that is rendered.
    of: Option<&'static str>,
    text: String,
}

const TEMPLATES: [(&str, &str); 4] = [
    ("ci/github/build-torch.yml", include_str!("github.yml.j2")),
    ("ci/gitlab/build-torch.yml", include_str!("gitlab.yml.j2")),
    ("ci/github/release.yml", include_str!("github-release.yml.j2")),
    ("ci/gitlab/release.yml", include_str!("gitlab-release.yml.j2")),
];

/// What the first line of every rendered file begins with; its path follows. A copy is known by that line.
const MARK: &str = "# Rendered by `cargo xtask ci render`";

/// The folders in which a copy is looked for: where GitHub has its workflows, where GitLab has its file, and where
/// people have what that file includes.
const PLACES: [&str; 4] = [".github/workflows", "", ".gitlab", ".gitlab/ci"];

/// Bytes of disk that GitHub promises on a hosted machine: 14 GB.
const HOSTED_DISK: u64 = 14_000_000_000;

/// GitHub's labels. The oldest system that is offered: the wheel asks for no newer one than it has.
fn runner(system: System, machine: &str) -> Result<&'static str> {
    match (system, machine) {
        (System::Linux, "x86_64") => Ok("ubuntu-22.04"),
        (System::Linux, "aarch64") => Ok("ubuntu-22.04-arm"),
        (System::Windows, "x86_64") => Ok("windows-2022"),
        (System::Macos, "aarch64" | "arm64") => Ok("macos-15"),
        (_, other) => {
            Err(Error::misuse("machine", format!("no CI machine is known for '{other}' with {}", system.name()))
                .next("python.machines of a recipe may name x86_64 and aarch64; x86_64 on Windows, aarch64 on macOS"))
        }
    }
}

/// All builds: every recipe that has a lock, for the Pythons and machines that the lock covers.
///
/// # Errors
/// Bad input: a recipe or lock that cannot be read, no recipe with a lock.
pub fn matrix(workspace: &Workspace) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    let mut names = workspace.recipe_names();
    // What most want comes first, where jobs wait for each other.
    names.sort_by_key(|name| name != DEFAULT);
    for name in names {
        let path = workspace.recipe_path(&name);
        if !path.with_extension("lock").is_file() {
            // Not locked: nothing says yet which bytes it means.
            continue;
        }
        let recipe = workspace.load(&name)?;
        Lock::load(&recipe, &path)?;
        let brings_cuda = brings_toolkit(&recipe);
        if recipe.cuda.is_some() && !brings_cuda && recipe.system == System::Linux {
            // No machine has the toolkit with its cuDNN and NCCL unless somebody put all three there.
            continue;
        }
        for machine in &recipe.python.machines {
            for python in &recipe.python.versions {
                jobs.push(Job {
                    recipe: name.clone(),
                    torch: recipe.torch.version.clone(),
                    version: recipe.torch.full_version(),
                    python: python.clone(),
                    system: recipe.system,
                    machine: machine.clone(),
                    runner: match runner(recipe.system, machine)? {
                        label if recipe.limits.disk <= HOSTED_DISK => Some(label.into()),
                        // A hosted machine cannot build it: nobody's hours are spent on finding that out.
                        _ => None,
                    },
                    toolkit: recipe
                        .cuda
                        .as_ref()
                        .filter(|_| recipe.system == System::Windows && !brings_cuda)
                        .and_then(|cuda| release(&cuda.version))
                        .map(|release| release.update),
                    baseline: format!("pypi:torch=={}", recipe.torch.version),
                    lock: format!("recipes/{name}.lock"),
                    experimental: recipe.torch.status.is_draft_on(machine),
                });
            }
        }
    }
    if jobs.is_empty() {
        return Err(Error::misuse("no-matrix", "no recipe has a lock, so there is nothing that a CI could build")
            .next("write one: cargo xtask lock --recipe NAME"));
    }
    Ok(jobs)
}

/// All files, as the recipes have them.
///
/// # Errors
/// As [`matrix`].
pub fn render(workspace: &Workspace) -> Result<Vec<Rendered>> {
    let jobs = matrix(workspace)?;
    let broken = |e: minijinja::Error| Error::world("template", format!("{e:#}"));
    let mut environment = Environment::new();
    // Both systems have braces of their own.
    let syntax = SyntaxConfig::builder()
        .block_delimiters("<%", "%>")
        .variable_delimiters("<<", ">>")
        .comment_delimiters("<#", "#>")
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()
        .map_err(broken)?;
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let machines = machines(jobs);
    let all = |wanted: fn(&Machine) -> bool| -> Value {
        Value::from(Serde(machines.iter().filter(|m| wanted(m)).cloned().collect::<Vec<_>>()))
    };
    // GitHub's hosted machines and one's own, by system, are jobs of their own.
    let hosted = all(|m| m.first.runner.is_some());
    let large = all(|m| m.first.runner.is_none() && m.first.system != System::Windows);
    let windows = all(|m| m.first.runner.is_none() && m.first.system == System::Windows);
    // GitLab's runners for Windows and macOS have no image and other shells.
    let linux = all(|m| m.first.system == System::Linux);
    TEMPLATES
        .into_iter()
        .map(|(path, template)| {
            let known = context! {
                hosted => hosted.clone(), large => large.clone(), windows => windows.clone(), linux => linux.clone(),
            };
            let text = environment.render_str(template, known).map_err(broken)?;
            Ok(Rendered { path, text })
        })
        .collect()
}

/// The committed files, and copies of them, that are not what [`render`] makes.
///
/// # Errors
/// As [`matrix`]; a file that cannot be read.
pub fn stale(workspace: &Workspace) -> Result<Vec<Stale>> {
    let rendered = render(workspace)?;
    let mut stale = Vec::new();
    for Rendered { path, text } in &rendered {
        let line = match std::fs::read_to_string(workspace.root.join(path)) {
            Ok(there) if there == *text => continue,
            Ok(there) => Some(first_difference(&there, text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::world("io", format!("{path} cannot be read: {e}"))),
        };
        stale.push(Stale { path: (*path).to_owned(), of: Some(*path), line });
    }
    for copy in copies(&workspace.root) {
        let line = match rendered.iter().find(|made| Some(made.path) == copy.of) {
            Some(made) if made.text == copy.text => continue,
            Some(made) => Some(first_difference(&copy.text, &made.text)),
            None => None,
        };
        stale.push(Stale { path: copy.path, of: copy.of, line });
    }
    Ok(stale)
}

/// The first line, from 1, in which two texts that are not the same differ. What ends a line is part of it.
fn first_difference(one: &str, other: &str) -> usize {
    one.split('\n').zip(other.split('\n')).take_while(|(a, b)| a == b).count() + 1
}

/// The files below `root` that say of themselves that they were rendered, in the places where services look for them.
fn copies(root: &Path) -> Vec<Copied> {
    let mut found = Vec::new();
    for place in PLACES {
        let listed = std::fs::read_dir(root.join(place)).into_iter().flatten().flatten();
        let mut names: Vec<String> = listed.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.ends_with(".yml") || name.ends_with(".yaml"));
        names.sort();
        for name in names {
            let path = if place.is_empty() { name } else { format!("{place}/{name}") };
            let file = root.join(&path);
            // Most files here are others', in whatever encoding. What cannot be read does not say that it is ours.
            let Some(Ok(bytes)) = file.is_file().then(|| std::fs::read(&file)) else { continue };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some(line) = mark(&text) {
                let of = TEMPLATES.iter().map(|(path, _)| *path).find(|path| line.contains(*path));
                found.push(Copied { path, of, text });
            }
        }
    }
    found
}

/// The line that says that `text` was rendered. Something may have been put above it, such as a licence; below the head
/// of a file it says nothing of the file.
fn mark(text: &str) -> Option<&str> {
    let head = |line: &&str| line.is_empty() || line.starts_with('#') || *line == "---";
    text.trim_start_matches('\u{feff}').lines().take_while(head).find(|line| line.starts_with(MARK))
}

/// Writes all files, and the copies of them again, and says where; a file that is as it should be is left alone.
///
/// # Errors
/// As [`matrix`]; a file that cannot be written.
pub fn write(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let rendered = render(workspace)?;
    let mut written = Vec::new();
    for Rendered { path, text } in &rendered {
        let path = workspace.root.join(path);
        if !std::fs::read_to_string(&path).is_ok_and(|there| there == *text) {
            crate::store::write_atomically(&path, text.as_bytes())?;
            written.push(path);
        }
    }
    // A copy that is a link to one of these is up to date by now, and stays a link.
    for copy in copies(&workspace.root) {
        if let Some(made) = rendered.iter().find(|made| Some(made.path) == copy.of && made.text != copy.text) {
            let path = workspace.root.join(&copy.path);
            crate::store::write_atomically(&path, made.text.as_bytes())?;
            written.push(path);
        }
    }
    Ok(written)
}
