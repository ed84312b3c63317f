//! The graph: which stages a build needs, and running them in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::provenance::{json_file, name_of};
use super::{
    Build, CompilerCache, Work, bundle, canary, compile, configure, cuda, fetch, libuv, prefix, provenance, pyenv,
    timing, tree, verify, wheel,
};
use crate::artifact::manifest::Input;
use crate::error::{Error, Result};
use crate::recipe::Coordinate;
use crate::store::{Key, write_atomically};

/// One stage of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedStage {
    /// Name.
    pub stage: String,
    /// Key, where it has one of its own.
    pub key: Option<String>,
    /// Whether its result is there.
    pub cached: bool,
}

/// What a build would do.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Stages in order.
    pub stages: Vec<PlannedStage>,
    /// Files to download: name and bytes.
    pub downloads: Vec<(String, u64)>,
    /// Work folder.
    pub work: PathBuf,
}

/// Finds out what a build would do, without doing it.
pub fn plan(build: &Build<'_>) -> Result<Plan> {
    let configure_key = configure::key(build)?;
    let work = Work { dir: build.store.root().join("work").join(format!("torch-{}", configure_key.short())) };
    let mut stages = Vec::new();
    let mut stored = |stage: &str, key: &Key| {
        stages.push(PlannedStage {
            stage: stage.into(),
            key: Some(key.to_string()),
            cached: build.store.finished(stage, key).is_some(),
        });
    };
    stored(tree::STAGE, &tree::key(build)?);
    stored(pyenv::STAGE, &pyenv::key(build)?);
    for name in prefix::names(build) {
        stored(prefix::STAGE, &prefix::key(build, &name));
        if name == cuda::PREFIX {
            stored(cuda::STAGE, &cuda::key(build));
        }
    }
    stored(libuv::STAGE, &libuv::key(build)?);
    let mut late = Vec::new();
    for (stage, key) in [
        (wheel::STAGE, wheel::key(build)?),
        (bundle::STAGE, bundle::key(build)?),
        (provenance::STAGE, provenance::key(build)?),
    ] {
        late.push(PlannedStage {
            stage: stage.into(),
            key: Some(key.to_string()),
            cached: build.store.finished(stage, &key).is_some(),
        });
    }
    let packed = late[0].cached;
    // The key of verify is made of the artifacts' bytes: nobody knows it before they are there.
    let verify_key = match made(build)? {
        Some(files) => Some(verify::key(build, &files)?),
        None => None,
    };
    late.push(PlannedStage {
        stage: verify::STAGE.into(),
        cached: verify_key.as_ref().is_some_and(|key| build.store.finished(verify::STAGE, key).is_some()),
        key: verify_key.map(|key| key.to_string()),
    });
    for stage in [configure::STAGE, canary::STAGE, compile::STAGE] {
        let key = (stage == configure::STAGE).then(|| configure_key.to_string());
        stages.push(PlannedStage { stage: stage.into(), key, cached: packed || work.is_done(stage) });
    }
    stages.extend(late);
    let done = stages.iter().all(|s| s.cached);
    let mut downloads = Vec::new();
    if !done {
        for source in &build.recipe.source {
            if let Some(l) = build.lock.source.get(&source.name)
                && build.store.blob(&l.sha256, l.size).is_none()
            {
                downloads.push((source.name.clone(), l.size));
            }
        }
        let python = fetch::python_lock(build)?;
        for l in python.build.iter().chain(&python.verify) {
            if build.store.blob(&l.sha256, l.size).is_none() {
                downloads.push((l.coordinate.as_ref().map(Coordinate::file_name).unwrap_or_default(), l.size));
            }
        }
    }
    Ok(Plan { stages, downloads, work: work.dir })
}

/// How a build ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All stages are done.
    Done(Box<Artifacts>),
    /// It was asked to stop after a stage; this is where that stage's result stands.
    Stopped {
        /// The stage's name.
        after: &'static str,
        /// Its folder.
        folder: PathBuf,
    },
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct Artifacts {
    /// The wheel in the output folder.
    pub wheel: PathBuf,
    /// The bundle in the output folder.
    pub bundle: PathBuf,
    /// The manifest in the output folder.
    pub manifest: PathBuf,
    /// The in-toto statement in the output folder.
    pub statement: PathBuf,
    /// Name → digest and size.
    pub digests: BTreeMap<String, Input>,
    /// What verify found out.
    pub verified: verify::Record,
}

/// Runs all stages, or those until `options.until`, and puts the artifacts into the output folder.
pub fn run(build: &Build<'_>) -> Result<Outcome> {
    let last = position(build.options.until.as_deref().unwrap_or(verify::STAGE));
    let wheel_dir = match up_to_wheel(build, last)? {
        Outcome::Stopped { after: wheel::STAGE, folder } if last > position(wheel::STAGE) => folder,
        ended => return Ok(ended),
    };
    let bundle_dir = bundle::run(build, &wheel_dir)?;
    if last == position(bundle::STAGE) {
        return Ok(Outcome::Stopped { after: bundle::STAGE, folder: bundle_dir });
    }
    let files = with_provenance(build, &wheel_dir, &bundle_dir)?;
    if last == position(provenance::STAGE) {
        return Ok(Outcome::Stopped { after: provenance::STAGE, folder: files.provenance });
    }
    let verified = verify::run(build, &files)?;
    Ok(Outcome::Done(Box::new(publish(build, files, verified)?)))
}

/// What the stages before verify made, in the store.
#[derive(Debug, Clone)]
pub struct Files {
    /// The wheel.
    pub wheel: PathBuf,
    /// The bundle.
    pub bundle: PathBuf,
    /// The folder with manifest, bill of materials and statement.
    pub provenance: PathBuf,
    /// Their names, and all digests.
    pub record: provenance::Record,
}

/// Runs all stages up to provenance and says which files came out.
pub fn files(build: &Build<'_>) -> Result<Files> {
    match up_to_wheel(build, ORDER.len())? {
        Outcome::Stopped { folder, .. } => with_provenance(build, &folder, &bundle::run(build, &folder)?),
        Outcome::Done(_) => Err(lost(wheel::STAGE)),
    }
}

fn with_provenance(build: &Build<'_>, wheel_dir: &Path, bundle_dir: &Path) -> Result<Files> {
    let (wheel, bundle) = packed(build, wheel_dir, bundle_dir)?;
    let provenance = provenance::run(build, &wheel, &bundle)?;
    let record =
        build.store.record(provenance::STAGE, &provenance::key(build)?).ok_or_else(|| lost(provenance::STAGE))?;
    Ok(Files { wheel, bundle, provenance, record })
}

/// Wheel and bundle in their stages' folders.
fn packed(build: &Build<'_>, wheel_dir: &Path, bundle_dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let store = build.store;
    let wheel: wheel::Record = store.record(wheel::STAGE, &wheel::key(build)?).ok_or_else(|| lost(wheel::STAGE))?;
    let bundle: bundle::Record =
        store.record(bundle::STAGE, &bundle::key(build)?).ok_or_else(|| lost(bundle::STAGE))?;
    Ok((wheel_dir.join(wheel.file), bundle_dir.join(bundle.file)))
}

/// What the stages before verify made, if all of them are done.
fn made(build: &Build<'_>) -> Result<Option<Files>> {
    let (store, key) = (build.store, provenance::key(build)?);
    let folders = (
        store.finished(wheel::STAGE, &wheel::key(build)?),
        store.finished(bundle::STAGE, &bundle::key(build)?),
        store.finished(provenance::STAGE, &key),
    );
    let (Some(wheel), Some(bundle), Some(provenance)) = folders else { return Ok(None) };
    let (wheel, bundle) = packed(build, &wheel, &bundle)?;
    let record = store.record(provenance::STAGE, &key).ok_or_else(|| lost(provenance::STAGE))?;
    Ok(Some(Files { wheel, bundle, provenance, record }))
}

fn lost(stage: &str) -> Error {
    Error::world("store", format!("the record of the stage '{stage}' cannot be read"))
}

fn position(stage: &str) -> usize {
    ORDER.iter().position(|s| *s == stage).unwrap_or(ORDER.len())
}

/// The stages that `options.until` may name, in order.
pub const ORDER: &[&str] = &[
    fetch::STAGE,
    tree::STAGE,
    pyenv::STAGE,
    libuv::STAGE,
    configure::STAGE,
    canary::STAGE,
    compile::STAGE,
    wheel::STAGE,
    bundle::STAGE,
    provenance::STAGE,
    verify::STAGE,
];

/// Later stages first: where the wheel is in the store, nothing before it is looked at.
fn up_to_wheel(build: &Build<'_>, last: usize) -> Result<Outcome> {
    match build.store.finished(wheel::STAGE, &wheel::key(build)?) {
        Some(folder) if last >= position(wheel::STAGE) => {
            build.events.emit(crate::event::Event::StageCached { stage: wheel::STAGE });
            Ok(Outcome::Stopped { after: wheel::STAGE, folder })
        }
        _ => make_wheel(build, last),
    }
}

fn make_wheel(build: &Build<'_>, last: usize) -> Result<Outcome> {
    let stop = |after: &'static str, folder: &Path| {
        (last == position(after)).then(|| Outcome::Stopped { after, folder: folder.to_owned() })
    };
    build.python.demand_headers()?;
    compile::demand_path(build)?;
    let configure_key = configure::key(build)?;
    let begun = Work::place(build, &configure_key);
    compile::demand_space(build, &begun, last < position(compile::STAGE))?;
    fetch::run(build, false)?;
    if let Some(outcome) = stop(fetch::STAGE, build.store.root()) {
        return Ok(outcome);
    }
    let tree = tree::run(build)?;
    if let Some(outcome) = stop(tree::STAGE, &tree) {
        return Ok(outcome);
    }
    let pyenv = pyenv::run(build)?;
    if let Some(outcome) = stop(pyenv::STAGE, &pyenv) {
        return Ok(outcome);
    }
    let prefixes = prefix::run(build)?;
    let libuv = libuv::run(build, &pyenv)?;
    if let Some(outcome) = stop(libuv::STAGE, &libuv) {
        return Ok(outcome);
    }
    // Two builds of one thing share a work folder: the second waits, and then finds the result.
    let _lock = build.store.lock(&format!("work-{}", configure_key.short()), build.events)?;
    if let Some(folder) = build.store.finished(wheel::STAGE, &wheel::key(build)?)
        && last >= position(wheel::STAGE)
    {
        return Ok(Outcome::Stopped { after: wheel::STAGE, folder });
    }
    let work = Work::open(build, &configure_key)?;
    let cache = CompilerCache::choose(build, &pyenv, &prefixes);
    configure::run(build, &work, &configure::Inputs { tree, pyenv, libuv, prefixes })?;
    if let Some(outcome) = stop(configure::STAGE, &work.dir) {
        return Ok(outcome);
    }
    canary::run(build, &work, &cache)?;
    if let Some(outcome) = stop(canary::STAGE, &work.dir) {
        return Ok(outcome);
    }
    compile::run(build, &work, &cache)?;
    if let Some(outcome) = stop(compile::STAGE, &work.dir) {
        return Ok(outcome);
    }
    Ok(Outcome::Stopped { after: wheel::STAGE, folder: wheel::run(build, &work, &cache)? })
}

/// Puts the artifacts, what stands beside them, SHA256SUMS and the timings into the output folder,
/// each whole or not at all.
fn publish(build: &Build<'_>, files: Files, verified: verify::Record) -> Result<Artifacts> {
    let Files { wheel, bundle, provenance, record } = files;
    let (wheel, bundle) = (wheel.as_path(), bundle.as_path());
    let out = &build.options.out;
    fs_err::create_dir_all(out)?;
    for file in [wheel, bundle] {
        place(file, &out.join(name_of(file)), record.digests.get(&name_of(file)).map_or(0, |d| d.size))?;
    }
    for name in [&record.manifest, &record.sbom, &record.statement] {
        write_if_changed(&out.join(name), &fs_err::read(provenance.join(name))?)?;
    }
    // Seconds by stage, and what was verified: true of this build and no other, so not in SHA256SUMS.
    let timings: BTreeMap<_, _> = timing::stages(build)?.into_iter().collect();
    let facts = serde_json::json!({ "schema_version": 1, "stages": timings, "verified": verified });
    let stem = name_of(wheel).trim_end_matches(".whl").to_owned();
    write_if_changed(&out.join(format!("{stem}.timings.json")), &json_file(&facts)?)?;
    // Other recipes' lines stay.
    let sums_path = out.join("SHA256SUMS");
    let mut sums: BTreeMap<String, String> = std::fs::read_to_string(&sums_path)
        .unwrap_or_default()
        .lines()
        .filter_map(|l| l.split_once("  ").map(|(d, n)| (n.to_owned(), d.to_owned())))
        .filter(|(n, _)| out.join(n).exists())
        .collect();
    sums.extend(record.digests.iter().map(|(n, d)| (n.clone(), d.sha256.clone())));
    let sums: String = sums.iter().map(|(n, d)| format!("{d}  {n}\n")).collect();
    write_if_changed(&sums_path, sums.as_bytes())?;
    Ok(Artifacts {
        wheel: out.join(name_of(wheel)),
        bundle: out.join(name_of(bundle)),
        manifest: out.join(&record.manifest),
        statement: out.join(&record.statement),
        digests: record.digests,
        verified,
    })
}

/// Puts `from` at `to`: a link where that works, else a copy beside and a rename.
fn place(from: &Path, to: &Path, size: u64) -> Result<()> {
    use std::fs::Metadata;
    #[cfg(unix)]
    let same = |a: &Metadata, b: &Metadata| {
        use std::os::unix::fs::MetadataExt;
        a.dev() == b.dev() && a.ino() == b.ino()
    };
    #[cfg(not(unix))]
    let same = |_: &Metadata, _: &Metadata| false;
    if let (Ok(a), Ok(b)) = (std::fs::metadata(from), std::fs::metadata(to))
        && b.len() == size
        && (same(&a, &b) || a.modified().ok() == b.modified().ok())
    {
        return Ok(());
    }
    let dir = to.parent().unwrap_or(Path::new("."));
    let beside = dir.join(format!(".{}.new-{}", name_of(to), std::process::id()));
    let _ = std::fs::remove_file(&beside);
    // A copy, not a link: whoever edits dist/ must not edit the store.
    fs_err::copy(from, &beside)?;
    let modified = fs_err::metadata(from)?.modified()?;
    let file = fs_err::OpenOptions::new().write(true).open(&beside)?;
    file.file().set_modified(modified)?;
    file.sync_all()?;
    crate::platform::rename(&beside, to)?;
    Ok(())
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    write_atomically(path, bytes)
}
