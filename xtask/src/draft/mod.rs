//! A recipe for a version that nobody has written one for: from the tree that upstream's tag leads to, from the stock
//! wheel on the package index, and from the nearest recipe here. What none of them tells stands in the text as a
//! comment, where somebody has to decide it.
//!
//! Nothing here builds, and nothing is written before all of it is known to be a recipe that can be read.

mod known;
mod pins;
mod stock;
mod text;
mod upstream;

use std::str::FromStr;

use pep440_rs::Version;

use crate::error::{Context, Error, Result};
use crate::event::Sink;
use crate::platform::scratch::Scratch;
use crate::recipe::{self, Coordinate, Recipe, System, Workspace};
use crate::source::http_agent;
use crate::store::{Store, write_atomically};

use known::{Known, Nearest};

/// Upstream's repository, where nobody names another.
pub const UPSTREAM: &str = "https://github.com/pytorch/pytorch.git";

/// What `recipe new` is asked for.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The version: `2.16.0`.
    pub version: &'a str,
    /// The repository, by its URL.
    pub git: &'a str,
    /// A recipe for the CUDA of the stock wheel too.
    pub cuda: bool,
    /// Do without the stock wheel: for a version that the index does not have yet.
    pub without_wheel: bool,
}

/// What was written.
#[derive(Debug, serde::Serialize)]
pub struct Written {
    /// Names of the recipes.
    pub recipes: Vec<String>,
    /// Paths of what was written: a `.toml` each.
    pub files: Vec<std::path::PathBuf>,
    /// Upstream's tag.
    pub tag: String,
    /// The commit that it leads to.
    pub commit: String,
    /// The recipe that the rest was taken from.
    pub nearest: String,
    /// What nobody could tell: each stands in the files as a comment.
    pub open: Vec<String>,
}

/// Writes a recipe, or two with CUDA.
///
/// # Errors
/// Bad input: no such version, tag or wheel, a tree that is no PyTorch or has no libuv store, a recipe of that name.
/// The world: repository or index do not answer.
pub fn write(workspace: &Workspace, store: &Store, events: &dyn Sink, asked: &Asked<'_>) -> Result<Written> {
    let version = release(asked.version)?;
    let cpu = format!("torch-{version}-cpu");
    let cpu_is_there = workspace.recipe_path(&cpu).exists();
    if cpu_is_there && !asked.cuda {
        return Err(already(workspace, &cpu));
    }
    let nearest = nearest(workspace, &version)?;
    let stock = match asked.without_wheel {
        true => None,
        false => Some(stock::read(&http_agent(), &version, events).doing(|| "asking for the stock wheel".into())?),
    };
    let upstream = upstream::read(asked.git, &version, &store.cache("git"), events)?;
    let all = workspace.recipe_names();
    // What is written is for Linux: what is said of another system's libraries is not said of its.
    let cuda = |r: &Recipe| r.cuda.is_some() && r.system == System::Linux;
    let cuda_recipes = all.iter().filter_map(|n| workspace.load(n).ok()).filter(cuda).collect();
    let known = Known { version, upstream, stock, nearest, cuda_recipes };
    let mut drafts = Vec::new();
    let mut open = Vec::new();
    if !cpu_is_there {
        let pins = pins::fit(&known, events);
        let draft = text::cpu(&known, &pins, asked.git);
        open.extend(draft.open);
        drafts.push((cpu.clone(), draft.text));
    }
    if asked.cuda {
        let draft = text::cuda(&known, &cpu)?;
        if workspace.recipe_path(&draft.name).exists() {
            return Err(already(workspace, &draft.name));
        }
        open.extend(draft.open);
        drafts.push((draft.name, draft.text));
    }
    let files = put(workspace, &drafts)?;
    Ok(Written {
        recipes: drafts.into_iter().map(|(name, _)| name).collect(),
        files,
        tag: known.upstream.tag,
        commit: known.upstream.commit,
        nearest: known.nearest.recipe.name,
        open,
    })
}

fn already(workspace: &Workspace, name: &str) -> Error {
    let error = Error::misuse("recipe-exists", format!("{} is there already", workspace.recipe_path(name).display()));
    // What was built to the end is worth more than a draft.
    error.next(match workspace.load(name).is_ok_and(|r| !r.torch.status.is_draft()) {
        true => format!("use it: cargo xtask build-torch --recipe {name}; nothing was changed"),
        false => "remove it to have it written anew; nothing was changed".into(),
    })
}

/// The version that `text` names, if it is a release that can have the store.
fn release(text: &str) -> Result<Version> {
    let shown = text.strip_prefix('v').unwrap_or(text);
    let misuse = |what: String| Error::misuse("version", what).next("name a release of upstream's, such as 2.16.0");
    let version = Version::from_str(shown).map_err(|e| misuse(format!("'{text}' is no version: {e}")))?;
    if version.release().len() != 3 || version.any_prerelease() || version.is_local() || version.is_post() {
        return Err(misuse(format!("'{text}' is no release: those have three numbers and nothing else")));
    }
    recipe::check_store(&version)?;
    Ok(version)
}

/// Finds the nearest recipe of upstream's git for Linux without CUDA.
fn nearest(workspace: &Workspace, version: &Version) -> Result<Nearest> {
    let mut found: Vec<(Version, Recipe)> = workspace
        .recipe_names()
        .iter()
        .filter_map(|name| workspace.load(name).ok())
        .filter(|r| r.system == System::Linux && r.cuda.is_none())
        .filter(|r| r.source.iter().flat_map(|s| &s.coordinates).any(|c| matches!(c, Coordinate::Git { .. })))
        .filter_map(|r| Some((Version::from_str(&r.torch.version).ok()?, r)))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let at = found.iter().rposition(|(own, _)| own <= version).unwrap_or(0);
    if found.is_empty() {
        return Err(Error::misuse(
            "no-base",
            "no recipe here builds from upstream's git: there is nothing to start from",
        )
        .next("run this in a clone of torchmill, with its recipes"));
    }
    let recipe = found.swap_remove(at).1;
    let file = workspace.file(&recipe.name)?;
    Ok(Nearest { recipe, file })
}

/// Reads the drafts as recipes, and only then puts them where recipes are.
fn put(workspace: &Workspace, drafts: &[(String, String)]) -> Result<Vec<std::path::PathBuf>> {
    let scratch = Scratch::new()?;
    for (name, text) in drafts {
        fs_err::write(scratch.path().join(format!("{name}.toml")), text)?;
    }
    for (name, _) in drafts {
        let path = scratch.path().join(format!("{name}.toml"));
        workspace
            .load(&path.display().to_string())
            .doing(|| format!("reading the draft of {name}; nothing was written"))?;
    }
    let mut files = Vec::new();
    for (name, text) in drafts {
        let path = workspace.recipe_path(name);
        write_atomically(&path, text.as_bytes())?;
        files.push(path);
    }
    Ok(files)
}
