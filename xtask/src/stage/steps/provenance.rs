//! provenance: what stands beside the artifacts: the manifest, the bill of materials, the in-toto
//! statement. Nothing in them changes from run to run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::buildenv::Buildenv;
use super::bundle::Bundle;
use super::wheel::{self, Wheel};
use crate::artifact::json::json_file;
use crate::artifact::manifest::{Input, Manifest};
use crate::artifact::origin::Origin;
use crate::artifact::provenance::Statement;
use crate::artifact::sbom;
use crate::error::Result;
use crate::recipe::{Coordinate, Locked, Source};
use crate::stage::drawn::Drawn;
use crate::stage::environment;
use crate::stage::objects::audit::Origins;
use crate::stage::origin::{components, name_of, origin, toolchain, torch_subject};
use crate::stage::step::{Cx, Done, Step};
use crate::store::{Parts, digest_file};

/// The stage that writes what stands beside the artifacts.
pub struct Provenance;

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

impl Step for Provenance {
    type Record = Record;
    const NAME: &'static str = "provenance";
    const WHAT: &'static str = "manifest, bill of materials and statement";

    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        for source in &cx.build.recipe.source {
            parts.json(format!("coordinates of {}", source.name), &source.coordinates);
        }
        Ok(())
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, out) = (cx.build, cx.out()?);
        let (wheel, bundle) = (cx.made::<Wheel>()?, cx.made::<Bundle>()?);
        let (wheel_file, bundle_file) =
            (wheel.folder.join(&wheel.record.file), bundle.folder.join(&bundle.record.file));
        let mut digests = BTreeMap::new();
        for file in [&wheel_file, &bundle_file] {
            let (sha256, size) = digest_file(file)?;
            digests.insert(name_of(file), Input { sha256, size, license: None, coordinates: Vec::new() });
        }
        let stem = name_of(&wheel_file).trim_end_matches(".whl").to_owned();
        let manifest = manifest(cx, &wheel, &digests)?;
        let parts = components(&build.drawn(), &build.python_lock()?.build, &wheel.record.grafted);
        let bill = sbom::cyclonedx(&torch_subject(build), build.recipe.torch.epoch, &parts);
        let objects = wheel.record.objects.as_ref();
        state(&out, &stem, &json_file(&bill)?, &manifest, origin(build)?, digests, objects)
    }
}

/// Writes the bill of materials, the manifest and the statement about the files of `digests` to the folder `out`;
/// `objects` is where theirs came from, if not all were compiled on this machine.
pub(super) fn state(
    out: &Path,
    stem: &str,
    bill: &[u8],
    manifest: &Manifest,
    origin: &Origin,
    mut digests: BTreeMap<String, Input>,
    objects: Option<&Origins>,
) -> Result<Record> {
    let mut write = |name: String, bytes: &[u8]| -> Result<String> {
        fs_err::write(out.join(&name), bytes)?;
        let sha256 = hex::encode(Sha256::digest(bytes));
        let size = bytes.len() as u64;
        digests.insert(name.clone(), Input { sha256, size, license: None, coordinates: Vec::new() });
        Ok(name)
    };
    let sbom = write(format!("{stem}.cdx.json"), bill)?;
    let manifest_name = write(format!("{stem}.manifest.json"), &json_file(manifest)?)?;
    let stated = digests.iter().map(|(name, input)| (name.clone(), input.sha256.clone())).collect();
    let mut text = Statement::new(manifest, &origin.recipe_sha256(), &stated);
    // Absent where all was compiled on this machine: then whoever builds it writes the same statement.
    if let Some(origins) = objects {
        text.state_objects(&serde_json::json!(origins));
    }
    let statement = format!("{stem}.provenance.json");
    fs_err::write(out.join(&statement), text.to_bytes()?)?;
    Ok(Record { manifest: manifest_name, sbom, statement, digests })
}

fn manifest(cx: &Cx<'_>, wheel: &Done<wheel::Record>, digests: &BTreeMap<String, Input>) -> Result<Manifest> {
    let (build, record) = (cx.build, &wheel.record);
    let recipe = &build.recipe;
    let sources = sources(&build.drawn());
    let packages = packages(&build.python_lock()?.build);
    let patches = patches(origin(build)?);
    let mut toolchain = toolchain(build)?;
    toolchain["tools"] = build_tools(&cx.made::<Buildenv>()?.folder)?;
    Ok(Manifest {
        schema_version: 1,
        recipe: recipe.name.clone(),
        version: recipe.torch.full_version(),
        commit: recipe.torch.commit.clone(),
        epoch: recipe.torch.epoch,
        key: wheel.key.as_ref().map(ToString::to_string).unwrap_or_default(),
        features: record.features.clone(),
        settings: recipe.settings.clone(),
        sources,
        build_packages: packages,
        patches,
        toolchain,
        libuv: Some(recipe.libuv.version.clone()),
        tag: record.tag.clone(),
        tag_reason: record.tag_reason.clone(),
        grafted: record.grafted.clone(),
        artifacts: digests.clone(),
    })
}

/// Sources by name, as a manifest has them.
pub(super) fn sources(drawn: &Drawn<'_>) -> BTreeMap<String, Input> {
    let one = |s: &Source| {
        let locked = drawn.lock.source.get(&s.name)?;
        Some((
            s.name.clone(),
            Input {
                sha256: locked.sha256.clone(),
                size: locked.size,
                license: Some(s.license.clone()),
                coordinates: s.coordinates.iter().map(ToString::to_string).collect(),
            },
        ))
    };
    drawn.source.iter().filter_map(one).collect()
}

/// Packages by file name, as a manifest has them.
pub(super) fn packages(wheels: &[Locked]) -> BTreeMap<String, Input> {
    let one = |l: &Locked| {
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
    };
    wheels.iter().map(one).collect()
}

/// Patches by file with their SHA-256, as a manifest has them.
pub(super) fn patches(origin: &Origin) -> BTreeMap<String, String> {
    let one = |(path, bytes): (&String, &Vec<u8>)| {
        Some((path.strip_prefix("patches/")?.to_owned(), hex::encode(Sha256::digest(bytes))))
    };
    origin.files.iter().filter_map(one).collect()
}

/// cmake, ninja and patchelf of the build environment: versions and digests of the programs.
pub(super) fn build_tools(env: &Path) -> Result<serde_json::Value> {
    let mut tools = serde_json::Map::new();
    for name in ["cmake", "ninja", "patchelf"] {
        let program = environment::tool(env, name);
        let Ok(real) = fs_err::canonicalize(&program) else { continue };
        let said = std::process::Command::new(&program).arg("--version").env_clear().output()?;
        let version = String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or_default().to_owned();
        tools.insert(name.into(), serde_json::json!({ "version": version, "sha256": digest_file(&real)?.0 }));
    }
    Ok(tools.into())
}
