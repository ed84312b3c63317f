//! Building an artifact again from nothing but itself: the recipe, lock and patches that it carries.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::again::Again;
use super::foreign::{self, Trust};
use crate::artifact::audit::{Artifact, Kind};
use crate::diff::{Difference, diff};
use crate::error::{Error, Result};
use crate::event::Sink;
use crate::recipe::Workspace;
use crate::stage::steps::fetch::Fetch;
use crate::stage::steps::provenance::Provenance;
use crate::stage::{self, Build, Chosen, Options, Step};
use crate::store::{KeyBuilder, Store};

/// How building it again ended.
#[derive(Debug)]
pub struct Rebuilt {
    /// What came out.
    pub file: PathBuf,
    /// In what it differs from the artifact.
    pub difference: Difference,
    /// What of the toolchain is not what the artifact was built with: `compiler.version: 12.2.0 / 13.1.0`.
    pub toolchain: Vec<String>,
}

/// Rebuilds `artifact`, whose recipe and patches are code of others, in a closed room. Nothing but
/// downloads (judged by the lock's digests) is taken from `store`.
///
/// # Errors
/// The answer is no: nobody trusts it. Bad input: an artifact that carries no recipe, or one that this program or machine cannot build.
pub fn rebuild(
    artifact: &Artifact,
    store: &Store,
    events: &dyn Sink,
    python: Option<&str>,
    options: Options,
    trust: &Trust,
) -> Result<Rebuilt> {
    let origin = artifact.origin()?.ok_or_else(|| {
        Error::misuse("no-origin", format!("{} carries no recipe: torchmill did not make it", artifact.path.display()))
            .next("`cargo xtask inspect` tells what it is")
    })?;
    let facts = origin.facts()?;
    foreign::admit(artifact, &origin, None, trust, events)?;
    let name =
        KeyBuilder::new("rebuild", 1).text("recipe", &origin.recipe_sha256()).text("python", &facts.python).finish();
    let (room, inner) = foreign::room_store(store, name.short())?;
    let root = room.join("workspace");
    // What it carries is judged by what it is: a lock that does not fit its recipe ends here.
    if root.exists() {
        crate::store::remove_tree(&root)?;
    }
    for dir in ["recipes", "patches"] {
        fs_err::create_dir_all(root.join(dir))?;
    }
    origin.write(&root)?;
    foreign::mark(&root)?;
    let workspace = Workspace { root };
    if workspace.is_companion(&facts.recipe) {
        return Err(Error::misuse(
            "companion",
            format!("{} is a companion: it was compiled against a torch that it does not carry", artifact.name),
        )
        .next(format!("rebuild its torch ({})", facts.toolchain["torch"]["file"].as_str().unwrap_or("unknown")))
        .next("then build both in a clone: `cargo xtask build-torch --with PACKAGE`, and compare the digests"));
    }
    let chosen = Chosen {
        recipe: &facts.recipe,
        python: Some(python.unwrap_or(&facts.python)),
        cuda_home: None,
        companions: &[],
    };
    let build = Build::open(&workspace, store, events, &chosen, options)?;
    if build.python.minor() != facts.python || build.python.machine != facts.machine {
        return Err(Error::misuse(
            "other-python",
            format!(
                "{} is for Python {} on {}; {} is Python {} on {}",
                artifact.name,
                facts.python,
                facts.machine,
                build.python.executable.display(),
                build.python.minor(),
                build.python.machine
            ),
        )
        .next(format!("name one with --python: a Python {}", facts.python)));
    }
    let here = stage::origin(&build)?.facts()?;
    let mut toolchain = Vec::new();
    compare("", &facts.toolchain, &here.toolchain, &mut toolchain);
    if facts.torchmill != here.torchmill {
        toolchain.push(format!("torchmill: {} / {}", facts.torchmill, here.torchmill));
    }
    for difference in &toolchain {
        events.warn(format!("this toolchain is not the artifact's: {difference}"));
    }
    // Downloads, each of a digest that is known, are all that is done outside of the room.
    stage::ensure::<Fetch>(&build)?;
    in_room(&build, &room, trust)?;
    let options = Options { offline: true, ..build.options.clone() };
    let inside = Build::open(&workspace, &inner, events, &chosen, options)?;
    let files = stage::made(&inside)?.ok_or_else(|| {
        Error::world("rebuild", "the build ended well, and what it made is not in its store")
            .next("run it again; `cargo xtask clean` removes what earlier runs left")
    })?;
    let file = match artifact.kind {
        Kind::Wheel => files.wheel,
        Kind::Bundle => files.bundle,
        Kind::Objects => stage::objects::export(&inside, &inner.root().join("exported"))?.file,
    };
    let difference = diff(&artifact.path, &file)?;
    Ok(Rebuilt { file, difference, toolchain })
}

/// Builds, up to the statement, in a closed room.
fn in_room(build: &Build<'_>, room: &Path, trust: &Trust) -> Result<()> {
    // Memory and cores are asked where they can be seen.
    let jobs = stage::jobs(build);
    let no_compiler_cache = build.options.no_compiler_cache;
    let again = Again { until: Provenance::NAME, jobs, offline: true, no_compiler_cache };
    let mut arguments = again.arguments(build);
    arguments.extend(trust.telling.iter().map(OsString::from));
    let read = [build.workspace.root.clone()];
    let furniture = foreign::Furniture {
        store: room,
        read: &read,
        write: &[],
        cwd: &build.workspace.root,
        system: None,
        unconfined: trust.unconfined,
    };
    let mut command = foreign::command(build, &arguments, &furniture)?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = foreign::run(command)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::world("rebuild", format!("building it again ended with {status}"))
        .next("what it said stands above; the same command goes on where it stopped"))
}

/// Lists the leaves in which two JSON documents differ.
fn compare(path: &str, a: &serde_json::Value, b: &serde_json::Value, out: &mut Vec<String>) {
    match (a.as_object(), b.as_object()) {
        (Some(x), Some(y)) => {
            let keys: std::collections::BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for key in keys {
                let null = serde_json::Value::Null;
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&below, x.get(key).unwrap_or(&null), y.get(key).unwrap_or(&null), out);
            }
        }
        _ if a != b => out.push(format!("{path}: {a} / {b}")),
        _ => {}
    }
}
