//! Is it the same, bit for bit, when somebody else builds it? A second build in another world,
//! compared with the first one; and building an artifact again from what it carries.

mod again;
pub mod foreign;
mod rebuild;
mod variation;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Serialize;

use crate::diff::{Difference, diff};
use crate::error::{Context, Error, Result};
use crate::platform;
use crate::stage::steps::bundle::Bundle;
use crate::stage::steps::canary::Canary;
use crate::stage::steps::fetch;
use crate::stage::steps::libuv::Libuv;
use crate::stage::steps::provenance::Provenance;
use crate::stage::{self, Build, Step, ensure};
use crate::store::Store;
use again::Again;

pub use rebuild::{Asked, Rebuilt, Restated, Stated, rebuild, rebuild_stated};
pub use variation::Variation;

/// What is compared, and how it came out.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// What is compared: a stage's result, or an artifact's file name.
    pub name: String,
    /// In what the two differ.
    pub difference: Difference,
}

/// How the second build is made.
#[derive(Debug, Clone)]
pub struct Second {
    /// Folder of its store: kept, so that an interrupted comparison goes on.
    pub store: PathBuf,
    /// Compiler processes at a time.
    pub jobs: usize,
    /// The last stage: `libuv`, `canary`, `bundle` or `provenance`.
    pub until: &'static str,
}

/// What is another one in the second build.
pub enum World<'a> {
    /// User, home, clock and whatever else can be varied on this system.
    Varied(&'a Variation),
    /// The whole system: the root folder of another one.
    System(&'a Path),
}

/// The stages after which there is something to compare.
pub const COMPARABLE: [&str; 4] = [Libuv::NAME, Canary::NAME, Bundle::NAME, Provenance::NAME];

/// Builds a second time in another `world` and compares with the first build, which is made or found.
///
/// # Errors
/// If one of the builds fails; the system in question is none, or would compile with a compiler of its own. That they
/// differ is no error.
pub fn compare(build: &Build<'_>, second: &Second, world: &World<'_>) -> Result<Vec<Comparison>> {
    if let World::System(system) = world {
        check_system(build, system)?;
    }
    let first = outputs(build, second.until)?;
    fs_err::create_dir_all(&second.store)?;
    let copy = workspace_copy(build, second)?;
    match world {
        World::Varied(variation) => spawn(build, second, &copy, variation)?,
        World::System(system) => spawn_in(build, second, &copy, system)?,
    }
    let store = Store::open(Some(&second.store))?;
    let chosen = stage::Chosen {
        recipe: &build.recipe.name,
        python: Some(&build.python.executable.to_string_lossy()),
        cuda_home: build.cuda_home.as_ref().map(|t| t.root.as_path()),
        companions: &[],
    };
    let options = stage::Options { offline: true, until: Some(second.until.into()), ..build.options.clone() };
    let other = Build::open(build.workspace, &store, build.events, &chosen, options)?;
    let second = outputs(&other, second.until)?;
    first
        .into_iter()
        .zip(second)
        .map(|((name, a), (_, b))| Ok(Comparison { name, difference: diff(&a, &b)? }))
        .collect()
}

/// Whether the root folder `system` can be the system of a second build.
///
/// # Errors
/// Misuse: it is no root folder; the compiler or Python of the build are those of this system, and others there.
fn check_system(build: &Build<'_>, system: &Path) -> Result<()> {
    if !system.join("usr/bin/env").is_file() {
        return Err(Error::misuse("system", format!("{} is no root folder: it has no usr/bin/env", system.display()))
            .next("make one: `debootstrap trixie DIR`, or unpack a container's image there"));
    }
    if build.compiler.locked.is_none() {
        return Err(Error::misuse(
            "system",
            format!("{} compiles with this system's compiler: another system has another one", build.recipe.name),
        )
        .next("choose a recipe that brings its own ([toolchain] from = \"locked\"), such as torch-2.12.1-cpu-clang"));
    }
    let python = fs_err::canonicalize(&build.python.executable)?;
    if ["/usr", "/bin", "/lib"].iter().any(|folder| python.starts_with(folder)) {
        return Err(Error::misuse("system", format!("{} is this system's Python", python.display()))
            .next("name one that is installed in a folder of its own: --python"));
    }
    Ok(())
}

/// The workspace of the second build: recipes and patches, as they are now.
fn workspace_copy(build: &Build<'_>, second: &Second) -> Result<PathBuf> {
    let copy = second.store.join("workspace");
    if copy.exists() {
        crate::store::remove_tree(&copy)?;
    }
    copy_folder(&build.workspace.recipes(), &copy.join("recipes"))?;
    copy_folder(&build.workspace.patches(), &copy.join("patches"))?;
    // `file:` coordinates are relative to the repository.
    for source in &build.recipe.source {
        for coordinate in &source.coordinates {
            if let crate::recipe::Coordinate::File(path) = coordinate
                && Path::new(path).is_relative()
            {
                let to = copy.join(path);
                fs_err::create_dir_all(to.parent().unwrap_or(&copy))?;
                fs_err::copy(build.workspace.root.join(path), to)?;
            }
        }
    }
    Ok(copy)
}

/// Runs this program as `build-torch` on the system whose root folder is `system`, in a closed room.
fn spawn_in(build: &Build<'_>, second: &Second, copy: &Path, system: &Path) -> Result<()> {
    ensure::<fetch::Fetch>(build)?;
    // The room shows folders that are there.
    Store::open(Some(&second.store))?;
    let again = Again { until: second.until, jobs: second.jobs, offline: true, no_compiler_cache: true };
    let arguments = again.arguments(build);
    let furniture = foreign::Furniture {
        store: &second.store,
        read: &[copy.to_owned()],
        put: &[],
        write: &[],
        workspace: copy,
        cwd: copy,
        system: Some(system),
        unconfined: false,
    };
    let mut command = foreign::command(build, &arguments, &furniture)?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    build.events.note(format!("the second build begins, on the system in {}", system.display()));
    let status = foreign::run(command)?;
    if status.success() { Ok(()) } else { Err(ended(&status)) }
}

fn ended(status: &std::process::ExitStatus) -> Error {
    Error::world("second-build", format!("the second build ended with {status}"))
        .next("what it said stands above; the same command goes on where it stopped")
}

/// Runs this program as `build-torch` in the variation.
fn spawn(build: &Build<'_>, second: &Second, copy: &Path, variation: &Variation) -> Result<()> {
    if build.options.offline {
        // Downloads are judged by their digests wherever they come from.
        for (sha256, size) in fetch::digests(build)? {
            if let Some(blob) = build.store.blob(&sha256, size)? {
                let to = second.store.join("v1/blobs").join(&sha256[..2]);
                fs_err::create_dir_all(&to)?;
                fs_err::copy(&blob.path, to.join(&sha256))?;
            }
        }
    }
    // Its own copy of this program: the user of the variation need not be able to read ours.
    let program = second.store.join(format!("torchmill{}", std::env::consts::EXE_SUFFIX));
    // Always: one that a former run left may be of another version.
    let fresh = second.store.join(format!("torchmill.new{}", std::env::consts::EXE_SUFFIX));
    fs_err::copy(platform::own_program()?, &fresh)?;
    platform::mark_executable(&fresh, true)?;
    platform::rename(&fresh, &program)?;
    variation.own(&second.store)?;
    let mut command = std::process::Command::new(&program);
    variation.enter(&mut command);
    let offline = build.options.offline;
    let again = Again { until: second.until, jobs: second.jobs, offline, no_compiler_cache: true };
    command
        .args(again.arguments(build))
        .arg("--store")
        .arg(&second.store)
        .current_dir(copy)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    build.events.note("the second build begins, in another world".into());
    let mut child = command.spawn().doing(|| "starting the second build".into())?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if platform::cancelled() {
            // It handles the signal as we do: its children end, and nothing half-written stays.
            platform::kill_tree(child.id(), false);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    platform::check_cancelled()?;
    // What another user made is ours from here on: nobody else may change it while it is compared.
    variation.give_back(&second.store)?;
    if status.success() { Ok(()) } else { Err(ended(&status)) }
}

/// What there is to compare after `stage`: names and paths.
fn outputs(build: &Build<'_>, until: &str) -> Result<Vec<(String, PathBuf)>> {
    if until == Bundle::NAME || until == Provenance::NAME {
        let files = stage::files(build)?;
        let mut out = vec![("wheel".to_owned(), files.wheel.clone()), ("bundle".to_owned(), files.bundle.clone())];
        if until == Provenance::NAME {
            let names = ["manifest", "bill of materials", "statement"];
            let record = &files.record;
            let beside = [&record.manifest, &record.sbom, &record.statement].map(|name| files.provenance.join(name));
            out.extend(names.map(str::to_owned).into_iter().zip(beside));
        }
        return Ok(out);
    }
    match until {
        Libuv::NAME => Ok(vec![("libuv".into(), ensure::<Libuv>(build)?.folder)]),
        Canary::NAME => {
            // Objects have paths of their own: they are put side by side in a folder each.
            let folder = ensure::<Canary>(build)?.folder;
            let objects = folder.join("canary-objects");
            gather_objects(&folder.join("src/build"), &objects)?;
            Ok(vec![("canary's objects".into(), objects)])
        }
        other => Err(Error::misuse("until", format!("after {other} there is nothing to compare"))),
    }
}

/// Links to all objects and libraries below `build`, in `to`.
fn gather_objects(build: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        crate::store::remove_tree(to)?;
    }
    for entry in walkdir::WalkDir::new(build).sort_by_file_name() {
        let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
        let path = entry.path();
        let kind = path.extension().and_then(|x| x.to_str()).unwrap_or_default();
        // CMake's own trial programs end as folders of its own.
        let trial = path.components().any(|c| c.as_os_str() == "CMakeScratch" || c.as_os_str() == "CompilerIdCXX");
        if entry.file_type().is_file() && !trial && ["o", "a", "so"].contains(&kind) {
            let target = to.join(path.strip_prefix(build).unwrap_or(path));
            fs_err::create_dir_all(target.parent().unwrap_or(to))?;
            fs_err::hard_link(path, target)?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
        let target = to.join(entry.path().strip_prefix(from).unwrap_or(entry.path()));
        if entry.file_type().is_dir() {
            fs_err::create_dir_all(&target)?;
        } else {
            fs_err::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
