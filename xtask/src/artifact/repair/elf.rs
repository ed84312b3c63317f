//! ELF: libraries that a system need not have come inside under a name of their own, every run path is relative to
//! the file (`$ORIGIN`), and the tag is that of the oldest manylinux level which has all symbols.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use torchmill_bytes::names::below;

use super::repairer::{Grafted, Repaired, Repairer, Tools};
use crate::artifact::policy;
use crate::error::{Error, Result};
use crate::inspect::Elf;
use crate::store::digest_file;
use crate::toolchain::Process;

/// What Linux does its own way.
pub struct Linux;

impl Repairer for Linux {
    fn bundle_system(&self) -> &'static str {
        "linux"
    }

    fn store_library(&self) -> &'static str {
        "libtorch_cpu.so"
    }

    fn python_only(&self) -> &'static [&'static str] {
        &["libtorch_python.so"]
    }

    fn repair(&self, root: &Path, tools: &Tools<'_>) -> Result<Repaired> {
        let policies = policy::load(tools.site_packages)?;
        let (grafted, files) = Repair { root, system: &policy::system_libraries(&policies), tools }.run()?;
        let (level, why) = policy::level(&policies, &files, tools.machine)?;
        Ok(Repaired { grafted, platform: format!("{}_{}", level.name, tools.machine), why })
    }
}

/// ELF files, by their paths in the tree.
type Files = Vec<(String, Elf)>;

/// What asks for an executable stack is of no use where the C library is 2.41 or newer, whatever the tag says: dlopen(3)
/// refuses it there.
fn no_executable_stack(files: &Files) -> Result<()> {
    let asking: Vec<&str> =
        files.iter().filter(|(_, elf)| elf.executable_stack).map(|(path, _)| path.as_str()).collect();
    if asking.is_empty() {
        return Ok(());
    }
    Err(Error::world(
        "executable-stack",
        format!(
            "these files ask for an executable stack, and glibc from 2.41 on loads none of them:\n    {}",
            asking.join("\n    ")
        ),
    )
    .next("an assembler source without a section .note.GNU-stack is linked in: link with -Wl,-z,noexecstack"))
}

/// The repair of one tree.
struct Repair<'a> {
    root: &'a Path,
    /// Names that every system has.
    system: &'a BTreeSet<String>,
    tools: &'a Tools<'a>,
}

impl Repair<'_> {
    /// Repairs all ELF files below the root: libraries taken inside, and all files as they are afterwards, by path.
    fn run(&self) -> Result<(Vec<Grafted>, Files)> {
        let mut files = self.elf_files()?;
        let inside: BTreeSet<String> =
            files.iter().filter_map(|(p, _)| p.file_name()).map(|n| n.to_string_lossy().into_owned()).collect();
        let mut grafted: BTreeMap<String, Grafted> = BTreeMap::new();
        let mut queue: Vec<String> = files.iter().flat_map(|(_, e)| e.needed.clone()).collect();
        while let Some(soname) = queue.pop() {
            if inside.contains(&soname)
                || self.system.contains(&soname)
                || grafted.contains_key(&soname)
                || self.tools.external.contains_key(&soname)
                || is_of_the_machine(&soname)
            {
                continue;
            }
            let graft = self.graft(&soname)?;
            let elf = Elf::of_file(&graft.from)?;
            queue.extend(elf.needed.clone());
            files.push((self.root.join(self.tools.libraries).join(&graft.name), elf));
            grafted.insert(soname, graft);
        }
        files.par_iter().try_for_each(|(path, elf)| self.patch(path, elf, &grafted))?;
        let after = self.elf_files()?.into_iter().map(|(p, e)| (below(self.root, &p), e)).collect();
        no_executable_stack(&after)?;
        Ok((grafted.into_values().collect(), after))
    }

    fn elf_files(&self) -> Result<Vec<(PathBuf, Elf)>> {
        let mut out = Vec::new();
        for entry in walkdir::WalkDir::new(self.root).sort_by_file_name() {
            let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
            if entry.file_type().is_file() && is_loaded_elf(entry.path())? {
                let elf = Elf::of_file(entry.path())?;
                out.push((entry.into_path(), elf));
            }
        }
        Ok(out)
    }

    /// Copies the system's `soname` inside.
    fn graft(&self, soname: &str) -> Result<Grafted> {
        let from = match self.tools.prefixes.iter().map(|d| d.join(soname)).find(|p| p.is_file()) {
            Some(own) => own,
            None => {
                let asked =
                    std::process::Command::new(self.tools.cxx).arg(format!("-print-file-name={soname}")).output()?;
                PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim())
            }
        };
        if !from.is_absolute() {
            return Err(Error::world("missing-library", format!("the build needs {soname}, which is neither in it nor on every system, and the compiler does not know where it is"))
                .next("install the package that has it, or switch the feature off that needs it"));
        }
        let from = fs_err::canonicalize(from)?;
        let sha256 = digest_file(&from)?.0;
        let (stem, rest) = soname.split_once(".so").unwrap_or((soname, ""));
        let name = format!("{stem}-{}.so{rest}", &sha256[..8]);
        let folder = self.root.join(self.tools.libraries);
        fs_err::create_dir_all(&folder)?;
        let to = folder.join(&name);
        fs_err::copy(&from, &to)?;
        crate::platform::mark_executable(&to, true)?;
        Ok(Grafted { soname: soname.to_owned(), name, sha256, from })
    }

    fn patch(&self, path: &Path, elf: &Elf, grafted: &BTreeMap<String, Grafted>) -> Result<()> {
        let mut arguments: Vec<String> = Vec::new();
        for needed in &elf.needed {
            if let Some(g) = grafted.get(needed) {
                arguments.extend(["--replace-needed".into(), needed.clone(), g.name.clone()]);
            }
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if grafted.values().any(|g| g.name == name) {
            arguments.extend(["--set-soname".into(), name]);
        }
        let wanted = self.run_path(path, elf);
        if elf.run_path.as_deref() != Some(wanted.as_str())
            && (elf.run_path.is_some() || self.needs_inside(elf, grafted))
        {
            arguments.extend(["--force-rpath".into(), "--set-rpath".into(), wanted]);
        }
        if arguments.is_empty() {
            return Ok(());
        }
        Process::new(self.tools.patchelf).args(&arguments).arg(path).check("patchelf", None)?;
        Ok(())
    }

    fn needs_inside(&self, elf: &Elf, grafted: &BTreeMap<String, Grafted>) -> bool {
        elf.needed.iter().any(|n| grafted.contains_key(n) || !(self.system.contains(n) || is_of_the_machine(n)))
    }

    /// The way to the library folder, and to those of other packages that the file needs libraries of, as
    /// in the stock wheels.
    fn run_path(&self, path: &Path, elf: &Elf) -> String {
        let folders: BTreeSet<&String> =
            elf.needed.iter().filter_map(|soname| self.tools.external.get(soname)).collect();
        let depth =
            path.parent().and_then(|dir| dir.strip_prefix(self.root).ok()).map_or(0, |d| d.components().count());
        let up = "../".repeat(depth);
        let mut out = self.own_run_path(path);
        for folder in folders {
            out.push_str(&format!(":$ORIGIN/{up}{folder}"));
        }
        out
    }

    /// `$ORIGIN`, or the way from there to the library folder.
    fn own_run_path(&self, path: &Path) -> String {
        let dir = path.parent().unwrap_or(self.root);
        let relative = dir.strip_prefix(self.root).unwrap_or(dir);
        let libraries = Path::new(self.tools.libraries);
        if relative == libraries {
            return "$ORIGIN".into();
        }
        if let Ok(down) = libraries.strip_prefix(relative) {
            return format!("$ORIGIN/{}", down.display());
        }
        let up = "../".repeat(relative.components().count());
        // From torch/bin to torch/lib the short way.
        match (relative.parent(), libraries.parent()) {
            (Some(a), Some(b)) if a == b => {
                format!("$ORIGIN/../{}", libraries.file_name().unwrap_or_default().to_string_lossy())
            }
            _ => format!("$ORIGIN/{up}{}", self.tools.libraries),
        }
    }
}

/// The loader, and the libraries of the NVIDIA driver, which goes with the kernel.
fn is_of_the_machine(soname: &str) -> bool {
    ["ld-linux", "linux-vdso", "libcuda.so", "libnvidia-ml.so"].iter().any(|start| soname.starts_with(start))
}

/// Whether a file is ELF and something that is loaded: no relocatable object (e_type 1).
fn is_loaded_elf(path: &Path) -> Result<bool> {
    use std::io::Read;
    let mut head = Vec::new();
    fs_err::File::open(path)?.take(18).read_to_end(&mut head)?;
    Ok(Elf::is_elf(&head) && head.get(16..18).is_some_and(|kind| kind != [1, 0]))
}
