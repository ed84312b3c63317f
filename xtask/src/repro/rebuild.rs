//! Building an artifact again from nothing but itself: the recipe, lock and patches that it carries.

use std::path::PathBuf;

use crate::artifact::audit::{Artifact, Kind};
use crate::diff::{Difference, diff};
use crate::error::{Error, Result};
use crate::event::Sink;
use crate::recipe::Workspace;
use crate::stage::{self, Build, Chosen, Options};
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

/// Rebuilds `artifact`. Nothing but downloads (judged by the lock's digests) and the compiler cache
/// is taken from `store`.
///
/// # Errors
/// Bad input: an artifact that carries no recipe, or one that this program or machine cannot build.
pub fn rebuild(
    artifact: &Artifact,
    store: &Store,
    events: &dyn Sink,
    python: Option<&str>,
    options: Options,
) -> Result<Rebuilt> {
    let origin = artifact.origin()?.ok_or_else(|| {
        Error::misuse("no-origin", format!("{} carries no recipe: torchmill did not make it", artifact.path.display()))
            .next("`cargo xtask inspect` tells what it is")
    })?;
    let facts = origin.facts()?;
    let name =
        KeyBuilder::new("rebuild", 1).text("recipe", &origin.recipe_sha256()).text("python", &facts.python).finish();
    let inner = store.inner(name.short())?;
    let root = inner.root().join("workspace");
    // What it carries is judged by what it is: a lock that does not fit its recipe ends here.
    if root.exists() {
        crate::store::remove_tree(&root)?;
    }
    for dir in ["recipes", "patches"] {
        fs_err::create_dir_all(root.join(dir))?;
    }
    origin.write(&root)?;
    let workspace = Workspace { root };
    let chosen = Chosen { recipe: &facts.recipe, python: Some(python.unwrap_or(&facts.python)), cuda_home: None };
    let build = Build::open(&workspace, &inner, events, &chosen, options)?;
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
    let files = stage::files(&build)?;
    let file = match artifact.kind {
        Kind::Wheel => files.wheel,
        Kind::Bundle => files.bundle,
    };
    let difference = diff(&artifact.path, &file)?;
    Ok(Rebuilt { file, difference, toolchain })
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
