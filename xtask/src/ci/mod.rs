//! `ci`: the build matrix, and the workflows that GitHub and GitLab run, rendered from the recipes.
//!
//! ```text
//! recipes with a lock ─► matrix: recipe × Python × machine ─┬─► github.yml.j2 ─► ci/github/build-torch.yml
//!                                                           └─► gitlab.yml.j2 ─► ci/gitlab/build-torch.yml
//! github-release.yml.j2, gitlab-release.yml.j2 ─► ci/*/release.yml: the program itself, and uvstore
//! ```
//! The templates hold all that is said of a CI; this module fills in what the recipes say.

use std::path::PathBuf;

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
    /// The CUDA toolkit that is installed for it, such as `12.4.1`; `None` where it comes by the lock, or none does.
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

/// A committed file that is not what would be rendered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// The file, relative to the repository.
    pub path: &'static str,
    /// The first line that differs, from 1; `None` where the file is missing.
    pub line: Option<usize>,
}

const TEMPLATES: [(&str, &str); 4] = [
    ("ci/github/build-torch.yml", include_str!("github.yml.j2")),
    ("ci/gitlab/build-torch.yml", include_str!("gitlab.yml.j2")),
    ("ci/github/release.yml", include_str!("github-release.yml.j2")),
    ("ci/gitlab/release.yml", include_str!("gitlab-release.yml.j2")),
];

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
            // No hosted machine has the toolkit with its cuDNN and NCCL, and no action installs all three.
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

/// The committed files that are not what [`render`] makes.
///
/// # Errors
/// As [`matrix`]; a file that cannot be read.
pub fn stale(workspace: &Workspace) -> Result<Vec<Stale>> {
    let mut stale = Vec::new();
    for Rendered { path, text } in render(workspace)? {
        let line = match std::fs::read_to_string(workspace.root.join(path)) {
            Ok(there) if there == text => continue,
            Ok(there) => {
                let same = there.lines().zip(text.lines()).take_while(|(a, b)| a == b).count();
                Some(same + 1)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::world("io", format!("{path} cannot be read: {e}"))),
        };
        stale.push(Stale { path, line });
    }
    Ok(stale)
}

/// Writes all files and says where; a file that is as it should be is left alone.
///
/// # Errors
/// As [`matrix`]; a file that cannot be written.
pub fn write(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for Rendered { path, text } in render(workspace)? {
        let path = workspace.root.join(path);
        if !std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            crate::store::write_atomically(&path, text.as_bytes())?;
            written.push(path);
        }
    }
    Ok(written)
}
