//! PE: DLLs that a system need not have come inside, beside those that load them. They keep their names, as in the
//! stock wheels: Windows has no run paths, and `torch/__init__.py` adds `torch/lib` to where it looks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::repairer::{Grafted, LIBRARIES, Repaired, Repairer, Tools, platform_of_backend};
use crate::error::{Context, Error, Result};
use crate::inspect::{self, FileAt, Format};
use crate::store::digest_file;

/// Folders of a prefix or toolkit that have DLLs.
const FOLDERS: &[&str] = &["bin", "bin/x64", "bin/x86_64", "lib", "lib/x64"];

/// Of the driver: a machine with a GPU has them, and no other file would do.
const DRIVER: &[&str] = &["nvcuda.dll", "nvml.dll"];

/// What is loaded by name when the program runs, and so is in no import table: the beginning of the name of who
/// loads, and the beginnings of what it loads from beside itself.
const LOADED_LATE: &[(&str, &[&str])] = &[("cudnn64_", &["cudnn_"]), ("nvrtc64_", &["nvrtc-builtins64_"])];

/// What Windows does its own way.
pub struct Windows;

impl Repairer for Windows {
    /// As upstream's own archives have it.
    fn bundle_system(&self) -> &'static str {
        "win"
    }

    fn store_library(&self) -> &'static str {
        "torch_cpu.dll"
    }

    /// `torch_python.dll` and its import library stay: a program that embeds Python links them.
    fn python_only(&self) -> &'static [&'static str] {
        &[]
    }

    fn repair(&self, root: &Path, tools: &Tools<'_>) -> Result<Repaired> {
        check_uv_dll(root)?;
        let mut search = tools.prefixes.to_vec();
        search.extend(tools.toolkit.map(Path::to_owned));
        let grafted = complete(root, LIBRARIES, &search)?;
        Ok(Repaired { grafted, platform: platform_of_backend(root)?, why: "Windows has no levels".into() })
    }

    /// CMake writes `/`, and texts in C or JSON double the backslash.
    fn spellings(&self, folder: &str) -> BTreeSet<String> {
        ["\\", "/", "\\\\"].map(|separator| folder.replace('\\', separator)).into()
    }
}

/// Windows loads `uv.dll` from beside `torch_cpu.dll` and from nowhere else.
fn check_uv_dll(root: &Path) -> Result<()> {
    if root.join(LIBRARIES).join("uv.dll").is_file() {
        return Ok(());
    }
    Err(Error::world("wheel", "the wheel has no torch/lib/uv.dll: torch_cpu.dll would not load")
        .next("see patches/cmake/windows.cmake, which puts it there"))
}

/// Takes what the PE files below `root` need and no system is sure to have into the folder `libraries` below it,
/// from the prefixes in `search`.
///
/// # Errors
/// A file that cannot be read, or a DLL that is nowhere.
pub fn complete(root: &Path, libraries: &str, search: &[PathBuf]) -> Result<Vec<Grafted>> {
    let known = Known::of(search)?;
    let mut inside = BTreeSet::new();
    // DLL, and who needs it.
    let mut queue: Vec<(String, String)> = Vec::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
        let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
        if entry.file_type().is_file() && [".dll", ".pyd", ".exe"].iter().any(|end| name.ends_with(end)) {
            queue.extend(needs(entry.path())?.into_iter().map(|dll| (dll, name.clone())));
            inside.insert(name);
        }
    }
    let mut grafted = BTreeMap::new();
    while let Some((dll, by)) = queue.pop() {
        let name = dll.to_ascii_lowercase();
        if inside.contains(&name) || DRIVER.contains(&&*name) || inspect::on_every_system(Format::Pe, &name) {
            continue;
        }
        let Some(from) = known.0.get(&name) else {
            return Err(Error::world(
                "missing-library",
                format!(
                    "{by} needs {dll}, which is neither in the wheel nor on every Windows, nor in a folder of the build"
                ),
            )
            .next("add the package that has it to the recipe, or switch the feature off that needs it"));
        };
        let to = root.join(libraries).join(&dll);
        fs_err::copy(from, &to).doing(|| format!("taking {dll} into the wheel"))?;
        queue.extend(needs(from)?.into_iter().chain(known.loaded_late(&name)).map(|next| (next, name.clone())));
        inside.insert(name);
        let sha256 = digest_file(&to)?.0;
        grafted.insert(dll.clone(), Grafted { soname: dll.clone(), name: dll, sha256, from: from.clone() });
    }
    Ok(grafted.into_values().collect())
}

/// DLLs that the file at `path` imports.
fn needs(path: &Path) -> Result<Vec<String>> {
    let file = FileAt::new(fs_err::File::open(path)?.into_file())?;
    let libraries = inspect::library(&file).doing(|| format!("reading {}", path.display()))?;
    Ok(libraries.into_iter().flat_map(|l| l.needed).collect())
}

/// The DLLs of the prefixes, by their names in lower case.
struct Known(BTreeMap<String, PathBuf>);

impl Known {
    fn of(search: &[PathBuf]) -> Result<Self> {
        let mut out = BTreeMap::new();
        let folders = search.iter().flat_map(|dir| FOLDERS.iter().map(|folder| dir.join(folder)));
        for folder in folders.filter(|folder| folder.is_dir()) {
            for entry in fs_err::read_dir(&folder)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
                if name.ends_with(".dll") {
                    out.entry(name).or_insert(path);
                }
            }
        }
        Ok(Self(out))
    }

    /// Names of what `name` loads when it runs, from beside itself.
    fn loaded_late(&self, name: &str) -> Vec<String> {
        let late = LOADED_LATE.iter().filter(|(who, _)| name.starts_with(who)).flat_map(|(_, what)| *what);
        let folder = self.0.get(name).and_then(|path| path.parent());
        late.flat_map(|what| self.0.iter().filter(move |(n, p)| n.starts_with(what) && p.parent() == folder))
            .map(|(_, path)| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
            .collect()
    }
}
