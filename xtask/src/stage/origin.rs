//! What artifacts carry of their making, and the list of their parts.

use std::collections::BTreeMap;
use std::path::Path;

use super::build::{Beside, Build};
use super::drawn::Drawn;
use super::steps::configure;
use super::steps::cuda;
use crate::artifact::origin::{self, Facts, Origin};
use crate::artifact::sbom::{Component, Subject};
use crate::error::Result;
use crate::recipe::{Coordinate, Lock, Locked, Source};

/// What the artifacts carry of their making.
///
/// # Errors
/// A patch or an installed CUDA toolkit cannot be read.
pub fn origin<'b>(build: &'b Build<'_>) -> Result<&'b Origin> {
    if let Some(origin) = build.origin.get() {
        return Ok(origin);
    }
    let origin = read_origin(build)?;
    Ok(build.origin.get_or_init(|| origin))
}

fn read_origin(build: &Build<'_>) -> Result<Origin> {
    let recipe = &build.recipe;
    let patches = recipe.patch.iter().map(|p| p.file.as_str()).chain(configure::modules(recipe));
    carried(build, &recipe.name, &recipe.normal, &build.lock, patches, toolchain(build)?)
}

/// What the wheel of a companion carries of its making, which was compiled against the torch of this file name and
/// SHA-256.
///
/// # Errors
/// As [`origin()`].
pub fn origin_beside(build: &Build<'_>, beside: &Beside, torch: &str, sha256: &str) -> Result<Origin> {
    let recipe = &beside.recipe;
    let mut toolchain = toolchain(build)?;
    toolchain["torch"] = serde_json::json!({ "file": torch, "sha256": sha256 });
    let patches = recipe.patch.iter().map(|p| p.file.as_str());
    carried(build, &recipe.name, &recipe.normal, &beside.lock, patches, toolchain)
}

/// The files that an artifact of the recipe called `name` carries.
fn carried<'p>(
    build: &Build<'_>,
    name: &str,
    normal: &str,
    lock: &Lock,
    patches: impl Iterator<Item = &'p str>,
    toolchain: serde_json::Value,
) -> Result<Origin> {
    let facts = Facts {
        schema_version: origin::SCHEMA_VERSION,
        torchmill: env!("CARGO_PKG_VERSION").into(),
        recipe: name.to_owned(),
        python: Some(build.python.minor()),
        machine: build.python.machine.clone(),
        toolchain,
    };
    let read = |file: &str| Ok((file.to_owned(), fs_err::read(build.workspace.patches().join(file))?));
    Origin::new(&facts, normal, &lock.to_toml(name)?, patches.map(read).collect::<Result<_>>()?)
}

/// Compiler and Python, by versions and digests; no path of this machine.
///
/// # Errors
/// An installed CUDA toolkit cannot be read.
pub fn toolchain(build: &Build<'_>) -> Result<serde_json::Value> {
    let mut out = serde_json::json!({ "compiler": build.compiler, "python": build.python });
    if build.recipe.cuda.is_some() {
        out["cuda"] = serde_json::json!({
            "installed": build.cuda_home.is_some(),
            "identity": cuda::identity(build)?,
        });
    }
    Ok(out)
}

/// What the bill of materials of a torch is about.
pub fn torch_subject<'b>(build: &'b Build<'_>) -> Subject<'b> {
    let torch = &build.recipe.torch;
    Subject { name: "torch", version: torch.full_version(), license: "BSD-3-Clause", commit: Some(&torch.commit) }
}

/// What the bill of materials lists: sources, libraries of the system that were taken inside
/// (soname → SHA-256), and the packages that built it.
pub fn components(drawn: &Drawn<'_>, packages: &[Locked], grafted: &BTreeMap<String, String>) -> Vec<Component> {
    let of_source = |s: &Source| {
        Some(Component {
            name: s.name.clone(),
            sha256: drawn.lock.source.get(&s.name)?.sha256.clone(),
            license: Some(s.license.clone()),
            coordinates: s.coordinates.clone(),
            linked: s.linked,
        })
    };
    let of_graft = |(soname, sha256): (&String, &String)| Component {
        name: soname.clone(),
        sha256: sha256.clone(),
        license: None,
        coordinates: Vec::new(),
        linked: true,
    };
    let of_package = |l: &Locked| {
        let Some(Coordinate::Pypi { name, .. }) = &l.coordinate else { return None };
        Some(Component {
            name: format!("build:{name}"),
            sha256: l.sha256.clone(),
            license: None,
            coordinates: l.coordinate.iter().cloned().collect(),
            linked: false,
        })
    };
    let sources = drawn.source.iter().filter_map(of_source);
    sources.chain(grafted.iter().map(of_graft)).chain(packages.iter().filter_map(of_package)).collect()
}

/// A path's last part.
pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
