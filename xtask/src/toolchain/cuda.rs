//! The CUDA toolkit: assembled from unpacked packages, or an installed one; checked by compiling,
//! linking and running a program, and identified by the bytes of what decides the output.
//!
//! The packages hold programs, headers and libraries, but no toolkit: libraries have only their
//! versioned names, and the driver's library (which no machine without a GPU has) is missing. Before CUDA 13, when
//! the compiler is Debian's, nvcc's profile and two static libraries are missing too. For Windows most DLLs come without
//! what a linker asks for. [`complete`] makes what is missing and leaves what is there: it may be a link into the store.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use imports::import_library;

use super::mingw::{Mingw, Wine};
use super::{Compiler, Family, Process, msvc};
use crate::error::{Context, Error, Result};
use crate::platform;
use crate::recipe::{Cuda, System, cuda as releases};
use crate::store::digest_file;

/// Says which driver the build is for, where that is not this machine's (`550.54.14`).
pub const DRIVER_VARIABLE: &str = "TORCHMILL_NVIDIA_DRIVER";

/// A static library without members (`ar(5)`).
const EMPTY_ARCHIVE: &str = "!<arch>\n";

/// What nvcc reads first: where it finds its parts, relative to itself.
const PROFILE: &str = "\
TOP                 = $(_HERE_)/..
CICC_PATH           = $(TOP)/nvvm/bin
NVVMIR_LIBRARY_DIR  = $(TOP)/nvvm/libdevice
LD_LIBRARY_PATH    += $(TOP)/lib64:
PATH               += $(CICC_PATH):$(_HERE_):
INCLUDES           +=  \"-I$(TOP)/include\" $(_SPACE_)
LIBRARIES          =+ $(_SPACE_) \"-L$(TOP)/lib64/stubs\" \"-L$(TOP)/lib64\"
CUDAFE_FLAGS       +=
PTXAS_FLAGS        +=
";

/// Programs that decide what nvcc makes, below the toolkit.
const PROGRAMS: &[&str] = &[
    "bin/nvcc",
    "bin/cudafe++",
    "bin/ptxas",
    "bin/fatbinary",
    "bin/nvlink",
    "nvvm/bin/cicc",
    "nvvm/libdevice/libdevice.10.bc",
];

/// Libraries that PyTorch links on Windows, each by an import library. CMake takes a CUPTI without one for none, and
/// Kineto then sees no GPU.
const IMPORTED: &[&str] =
    &["cuda", "cudart", "cublas", "cublasLt", "cudnn", "cufft", "cupti", "curand", "cusolver", "cusparse", "nvrtc"];

/// Files that say whether a package is there at all: what they are for is found out in the middle of a build.
const PACKAGES: &[(&str, &str)] = &[
    ("bin/nvcc", "nvidia-cuda-nvcc"),
    ("nvvm/bin/cicc", "nvidia-nvvm"),
    ("nvvm/libdevice/libdevice.10.bc", "nvidia-nvvm"),
    ("include/crt/host_config.h", "nvidia-cuda-crt"),
    ("include/cuda_runtime.h", "nvidia-cuda-runtime"),
    ("include/nv/target", "nvidia-cuda-cccl"),
];

/// The compute capability that a toolkit of packages is tried for, whatever its recipe compiles for: every release knows
/// it. The toolkit is the same for all, so recipes with the same packages share one.
pub const TRIAL_ARCHITECTURE: &str = "9.0";

/// The program that a toolkit is tried with.
pub const TRIAL: &str = include_str!("cuda/trial.cu");

/// The program that a toolkit with the real static libraries is tried with as well.
pub const NESTED: &str = include_str!("cuda/nested.cu");

/// The program that a toolkit for Windows is tried with where there is no Windows.
pub const TRIAL_WINDOWS: &str = include_str!("cuda/trial_windows.c");

/// What helps where an installed toolkit does not fit.
const WITHOUT_HOME: &str =
    "or leave --cuda-home out, where the recipe brings a toolkit: it is fetched and needs no root";

/// A CUDA toolkit on this machine.
#[derive(Debug, Clone)]
pub struct Toolkit {
    /// The folder with `bin/nvcc`, `include` and `lib64`.
    pub root: PathBuf,
}

/// What a toolkit said of itself when a program made with it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Of the run-time library: `12.4`.
    pub runtime: String,
    /// Of cuBLAS, as `cublasGetProperty` says: `12.4.5`.
    pub cublas: String,
    /// cuDNN: `9.1.0`.
    pub cudnn: String,
    /// NCCL: `2.21.5`; `None` where the recipe does without it (Windows has none).
    pub nccl: Option<String>,
}

impl Toolkit {
    /// The toolkit installed at `root`, for a recipe with CUDA `version` (`12.4`).
    ///
    /// # Errors
    /// There is none.
    pub fn installed(root: &Path, version: &str) -> Result<Self> {
        let root = fs_err::canonicalize(root)
            .map_err(|e| Error::misuse("cuda-home", format!("--cuda-home {}: {e}", root.display())))?;
        for part in ["bin/nvcc", "include/cuda_runtime.h"] {
            if !file(&root, part).is_file() {
                return Err(Error::misuse(
                    "cuda-home",
                    format!("{} has no {part}: it is no CUDA toolkit", root.display()),
                )
                .next(format!(
                    "name the folder that holds bin/nvcc, such as {}",
                    releases::installed_at(version, System::here())
                ))
                .next(WITHOUT_HOME));
            }
        }
        Ok(Self { root })
    }

    /// Its compiler driver.
    #[must_use]
    pub fn nvcc(&self) -> PathBuf {
        file(&self.root, "bin/nvcc")
    }

    /// The version that the header `name` defines in these three numbers; `None` where there is no such header here. Some
    /// have cuDNN and NCCL among the system's headers, where the compiler finds them.
    fn defined(&self, name: &str, numbers: [&str; 3]) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join("include").join(name)).ok()?;
        let number = |name: &str| {
            text.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                let is_it = words.next() == Some("#define") && words.next() == Some(name);
                words.next().filter(|_| is_it)?.parse::<u32>().ok()
            })
        };
        let [major, minor, patch] = numbers.map(number);
        Some(format!("{}.{}.{}", major?, minor?, patch?))
    }

    /// `12.4.131`, as nvcc says it.
    ///
    /// # Errors
    /// The world: nvcc does not run, or says no version.
    pub fn version(&self) -> Result<String> {
        self.version_said(Process::new(self.nvcc()))
    }

    /// The same of a toolkit for Windows, run by Wine.
    ///
    /// # Errors
    /// As [`Self::version`].
    pub fn version_in(&self, wine: &Wine) -> Result<String> {
        let _turn = wine.turn()?;
        self.version_said(Process::new(wine.program()).arg(self.nvcc()).envs(wine.env()))
    }

    fn version_said(&self, nvcc: Process) -> Result<String> {
        version_in(&nvcc.arg("--version").check("nvcc", None)?.text).ok_or_else(|| {
            Error::world("nvcc", format!("{} --version says nothing that can be read", self.nvcc().display()))
        })
    }

    /// SHA-256 of what decides the output, by name.
    ///
    /// # Errors
    /// The world: a file cannot be read.
    pub fn identity(&self) -> Result<BTreeMap<String, String>> {
        let headers = ["include/cuda.h", "include/cudnn_version.h", "include/nccl.h"];
        PROGRAMS
            .par_iter()
            .chain(headers.par_iter())
            .filter_map(|name| {
                let real = fs_err::canonicalize(file(&self.root, name)).ok()?;
                Some(digest_file(&real).map(|(sha256, _)| ((*name).to_owned(), sha256)))
            })
            .collect()
    }

    /// Compiles, links and runs a small program with cub, cuBLAS, cuDNN and, where the recipe has it, NCCL for
    /// `architecture` (`9.0`); cuDNN may lie in a prefix `beside` it. No GPU is needed.
    ///
    /// # Errors
    /// It does not compile, link or run; or it is of other versions than the recipe says.
    pub fn check(
        &self,
        cuda: &Cuda,
        architecture: &str,
        nccl: bool,
        beside: Option<&Path>,
        compiler: &Compiler,
        scratch: &Path,
    ) -> Result<Versions> {
        let source = scratch.join("trial.cu");
        let program = scratch.join(format!("trial{}", std::env::consts::EXE_SUFFIX));
        let (nccl_flags, parts): (&[&str], _) = match nccl {
            true => (&["-DTRIAL_NCCL", "-lnccl"], "cuDNN and NCCL"),
            false => (&[], "cuDNN"),
        };
        fs_err::write(&source, TRIAL)?;
        let number = number_of(architecture);
        let beside = beside.map(|root| Self { root: root.to_owned() });
        let flags = beside.iter().flat_map(|b| {
            [format!("-I{}", b.root.join("include").display()), format!("-L{}", b.libraries().display())]
        });
        let folders = beside.iter().map(Self::libraries).chain([self.libraries()]);
        let libraries = std::env::join_paths(folders)
            .map_err(|e| Error::world("cuda-toolkit", format!("a folder's name has a separator: {e}")))?;
        self.process(self.nvcc(), beside.as_ref(), compiler, scratch)
            .arg(format!("--compiler-bindir={}", compiler.cxx.display()))
            .arg(format!("--gpu-architecture=sm_{number}"))
            .args(flags)
            .args(["--std=c++17", "--cudart=shared", "-lcublas", "-lcudnn"])
            .args(nccl_flags)
            .arg("-o")
            .arg(&program)
            .arg(&source)
            .check("cuda-toolkit", None)
            .map_err(|e| {
                e.doing(format!("trying the CUDA toolkit {} (cub, cuBLAS, {parts})", self.root.display()))
                    .next(format!("with --cuda-home: {parts} must be installed in that toolkit too"))
            })?;
        let said = self
            .process(program, beside.as_ref(), compiler, scratch)
            .env("LD_LIBRARY_PATH", &libraries)
            .check("cuda-toolkit", None)
            .doing(|| "running a program that the CUDA toolkit made".into())?;
        let versions: Versions = said.last_json().and_then(|v| serde_json::from_value(v).ok()).ok_or_else(|| {
            Error::world("cuda-toolkit", format!("the trial program said nothing that can be read: {}", said.text))
        })?;
        check_versions(cuda, &versions)?;
        if self.has_device_runtime() {
            self.check_nested(cuda, number.as_str(), compiler, scratch)?;
        }
        Ok(versions)
    }

    /// Tries a toolkit for Windows without Windows: its import libraries link a program of mingw-w64, and Wine runs that,
    /// which has NVRTC compile a kernel to PTX for `architecture`, then `nvcc --version`, and `ptxas` on the PTX. What
    /// needs Microsoft's compiler, such as all that nvcc compiles, is not tried.
    ///
    /// # Errors
    /// A program does not link or run; or the libraries are of other versions than the recipe says.
    pub fn check_in_wine(
        &self,
        cuda: &Cuda,
        architecture: &str,
        mingw: &Mingw,
        wine: &Wine,
        scratch: &Path,
    ) -> Result<Versions> {
        let number = number_of(architecture);
        let (source, program) = (scratch.join("trial.c"), scratch.join("trial.exe"));
        fs_err::write(&source, TRIAL_WINDOWS)?;
        let libraries = ["cublas", "cudnn", "nvrtc"].map(|name| self.root.join(format!("lib/x64/{name}.lib")));
        Process::new(&mingw.cc)
            .args(["-O1", "-o"])
            .arg(&program)
            .arg(&source)
            .args(&libraries)
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .cwd(scratch)
            .check("cuda-toolkit", None)
            .doing(|| "linking a program for Windows with the toolkit's import libraries".into())?;
        // Wine takes this system's paths, with its own separator.
        let folders = imports::FOLDERS.map(|folder| format!("Z:{}", self.root.join(folder).display()));
        let in_wine = |program: &Path| {
            let process = Process::new(wine.program()).arg(program).envs(wine.env());
            process.env("WINEPATH", folders.join(";")).cwd(scratch)
        };
        let tried = || {
            let said = in_wine(&program)
                .args([&format!("--gpu-architecture=compute_{number}"), "twice.ptx"])
                .check("cuda-toolkit", None)
                .doing(|| "running a program for Windows that calls CUDA's libraries".into())?;
            let versions: Versions =
                said.last_json().and_then(|v| serde_json::from_value(v).ok()).ok_or_else(|| {
                    Error::world(
                        "cuda-toolkit",
                        format!("the trial program said nothing that can be read: {}", said.text),
                    )
                })?;
            check_versions(cuda, &versions)?;
            let nvcc = self.version_said(in_wine(&self.nvcc()))?;
            if !nvcc.starts_with(&format!("{}.", cuda.version)) {
                return Err(Error::misuse(
                    "nvcc",
                    format!("nvcc.exe is {nvcc}; the recipe says CUDA {}", cuda.version),
                ));
            }
            in_wine(&file(&self.root, "bin/ptxas"))
                .args([&format!("--gpu-name=sm_{number}"), "--output-file=twice.cubin", "twice.ptx"])
                .check("cuda-toolkit", None)
                .doing(|| "assembling what NVRTC compiled".into())?;
            Ok(versions)
        };
        let _turn = wine.turn()?;
        tried()
    }

    /// Whether a kernel can launch a kernel: the library for that is there, and no empty one that [`complete`] made.
    fn has_device_runtime(&self) -> bool {
        let libraries = self.libraries();
        ["libcudadevrt.a", "cudadevrt.lib"]
            .iter()
            .filter_map(|name| std::fs::metadata(libraries.join(name)).ok())
            .any(|about| about.len() > EMPTY_ARCHIVE.len() as u64)
    }

    /// Compiles, links and runs a program with a kernel that launches a kernel, and a static run-time library.
    fn check_nested(&self, cuda: &Cuda, number: &str, compiler: &Compiler, scratch: &Path) -> Result<()> {
        let source = scratch.join("nested.cu");
        let program = scratch.join(format!("nested{}", std::env::consts::EXE_SUFFIX));
        fs_err::write(&source, NESTED)?;
        self.process(self.nvcc(), None, compiler, scratch)
            .arg(format!("--compiler-bindir={}", compiler.cxx.display()))
            .arg(format!("--gpu-architecture=sm_{number}"))
            .args(["--std=c++17", "--cudart=static", "--relocatable-device-code=true", "-o"])
            .arg(&program)
            .arg(&source)
            .check("cuda-toolkit", None)
            .map_err(|e| {
                e.doing(format!(
                    "trying the CUDA toolkit {} (a kernel that launches a kernel, the static run-time library)",
                    self.root.display()
                ))
                .next("its static libraries cudadevrt and cudart_static must be of the same release as nvcc")
            })?;
        let said = self
            .process(program, None, compiler, scratch)
            .check("cuda-toolkit", None)
            .doing(|| "running a program with the static run-time library of CUDA".into())?;
        let runtime = said.last_json().and_then(|v| v["runtime"].as_str().map(str::to_owned)).unwrap_or_default();
        if runtime == cuda.version {
            return Ok(());
        }
        Err(Error::misuse(
            "cuda-mismatch",
            format!(
                "the static library cudart_static of the toolkit says that it is of CUDA '{runtime}'; the recipe says {}",
                cuda.version
            ),
        )
        .next("take nvidia-cuda-runtime of the same release as the compiler"))
    }

    /// Where its libraries are: `lib64`, or `lib` in some installations.
    #[must_use]
    pub fn libraries(&self) -> PathBuf {
        ["lib64", "lib/x64", "lib", "targets/x86_64-linux/lib"]
            .map(|d| self.root.join(d))
            .into_iter()
            .find(|d| d.is_dir())
            .unwrap_or_else(|| self.root.join("lib64"))
    }

    fn process(&self, program: PathBuf, beside: Option<&Self>, compiler: &Compiler, scratch: &Path) -> Process {
        // Programs, and what Windows looks for beside them: DLLs.
        let own = [Some(self), beside]
            .into_iter()
            .flatten()
            .flat_map(|toolkit| ["bin", "bin/x64", "bin/x86_64"].map(|folder| toolkit.root.join(folder)));
        let dirs = compiler.folders().into_iter().chain(own).chain(platform::system_programs());
        Process::new(program)
            .envs(compiler.environment(scratch))
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", std::env::join_paths(dirs).unwrap_or_default())
            .env("TMPDIR", scratch)
    }
}

/// An architecture as compilers have it: `90` of `9.0+PTX`.
fn number_of(architecture: &str) -> String {
    architecture.trim_end_matches("+PTX").chars().filter(|c| *c != '.').collect()
}

/// The file `name` of a toolkit; programs for Windows have their suffix.
fn file(root: &Path, name: &str) -> PathBuf {
    let windows = root.join(format!("{name}.exe"));
    if windows.is_file() { windows } else { root.join(name) }
}

/// `V12.4.131` at the end of nvcc's banner.
fn version_in(banner: &str) -> Option<String> {
    let word = banner.split_whitespace().rev().find_map(|w| w.strip_prefix('V'))?;
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| word.to_owned())
}

/// The toolkit, cuDNN and NCCL must be what the wheel will be run with.
fn check_versions(cuda: &Cuda, found: &Versions) -> Result<()> {
    hold(cuda, Some(&found.runtime), Some(&found.cudnn), found.nccl.as_deref())
}

/// An error where CUDA, cuDNN or NCCL of a toolkit, as far as they are known, are others than what the wheel would run with.
fn hold(cuda: &Cuda, runtime: Option<&str>, cudnn: Option<&str>, nccl: Option<&str>) -> Result<()> {
    let pinned =
        |package: &str| cuda.packages().find(|(name, _)| name.starts_with(package)).map(|(_, version)| version);
    let mut wrong = Vec::new();
    for (what, wanted, found) in [
        ("CUDA", Some(cuda.version.clone()), runtime),
        ("cuDNN", pinned("nvidia-cudnn-"), cudnn),
        ("NCCL", pinned("nvidia-nccl-"), nccl),
    ] {
        if let (Some(wanted), Some(found)) = (wanted, found)
            // A header says three numbers of the package's four, and the package may be a range.
            && !(Cuda::takes(&wanted, found)
                || Cuda::takes(&wanted, &format!("{found}.9999"))
                || wanted.starts_with(&format!("{found}.")))
        {
            wrong.push(format!("{what}: the recipe says {wanted}, the toolkit has {found}"));
        }
    }
    if let (Some(oldest), Some(cudnn)) = (releases::oldest_before_turing(cuda), cudnn)
        && releases::lacks_old_gpus(cudnn)
    {
        let last = releases::LAST_CUDNN_FOR_OLD_GPUS;
        wrong.push(format!("cuDNN: {cudnn} has no code for {oldest}, {last} is the last that has"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::misuse(
        "cuda-mismatch",
        format!("the toolkit is another one than what the wheel would run with:\n    {}", wrong.join("\n    ")),
    )
    .next("take a toolkit that has what the recipe says, or change cuda.version and cuda.requires of the recipe")
    .next(WITHOUT_HOME))
}

/// An error where an installed toolkit is another one than the recipe's by what its nvcc and its headers say: what compiles
/// with it would say so too, after all downloads. Whether its cuDNN and its NCCL are used is for the recipe to say.
///
/// # Errors
/// That; the world: its nvcc does not run.
pub fn demand_installed(cuda: &Cuda, toolkit: &Toolkit, cudnn: bool, nccl: bool) -> Result<()> {
    let nvcc = toolkit.version()?;
    let release: Vec<&str> = nvcc.split('.').take(2).collect();
    let of = |used: bool, header: &str, numbers| toolkit.defined(header, numbers).filter(|_| used);
    let cudnn = of(cudnn, "cudnn_version.h", ["CUDNN_MAJOR", "CUDNN_MINOR", "CUDNN_PATCHLEVEL"]);
    let nccl = of(nccl, "nccl.h", ["NCCL_MAJOR", "NCCL_MINOR", "NCCL_PATCH"]);
    hold(cuda, Some(&release.join(".")), cudnn.as_deref(), nccl.as_deref())
        .doing(|| format!("looking at the CUDA toolkit {}", toolkit.root.display()))
}

/// Makes a toolkit of what was unpacked at `root`: both names of the library folder, linker names, a stand-in for the
/// driver's library; nvcc's profile and the two static libraries where no package has them; for Windows the import
/// libraries of DLLs that have none. A file that is there is never written to: all of them are links into the store.
///
/// # Errors
/// A part is missing, or the stand-in does not compile.
pub fn complete(root: &Path, compiler: &Compiler, scratch: &Path) -> Result<Toolkit> {
    for part in PROGRAMS.iter().copied().chain(PACKAGES.iter().map(|(part, _)| *part)) {
        if !file(root, part).is_file() {
            let e =
                Error::misuse("cuda-toolkit", format!("no source of the recipe puts {part} into its prefix 'cuda'"));
            return Err(match PACKAGES.iter().find(|(name, _)| *name == part) {
                Some((_, package)) => e.next(format!(
                    "from CUDA 13 on it is in the package {package}: add it to the recipe, or to 'keep' of its source"
                )),
                None => e.next("from CUDA 13 on it is in the package nvidia-cuda-nvcc: add it to 'keep' of its source"),
            });
        }
    }
    if root.join("lib/x64").is_dir() {
        // The driver's import library is among the packages for Windows.
        return make_import_libraries(root).map(|()| Toolkit { root: root.to_owned() });
    }
    let libraries = root.join("lib");
    // Some list files look in the one, some in the other.
    platform::symlink(Path::new("lib"), &root.join("lib64"))?;
    for entry in fs_err::read_dir(&libraries)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((stem, _)) = name.split_once(".so.") {
            let plain = libraries.join(format!("{stem}.so"));
            if !plain.exists() {
                fs_err::hard_link(entry.path(), plain)?;
            }
        }
    }
    write_if_missing(&root.join("bin/nvcc.profile"), PROFILE)?;
    for program in PROGRAMS.iter().filter(|p| p.contains("bin/")) {
        let program = root.join(program);
        if !platform::is_executable(&program)? {
            own(&program)?;
            platform::mark_executable(&program, true)?;
        }
    }
    let stubs = libraries.join("stubs");
    fs_err::create_dir_all(&stubs)?;
    let source = scratch.join("libcuda.c");
    fs_err::write(&source, driver_stub(&fs_err::read_to_string(root.join("include/cuda.h"))?))?;
    Process::new(&compiler.cc)
        .args(["-shared", "-fPIC", "-g0", "-w", "-nostdlib", "-Wl,-soname,libcuda.so.1", "-o"])
        .arg(stubs.join("libcuda.so"))
        .arg(&source)
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .cwd(scratch)
        .check("cuda-stub", None)
        .doing(|| "making a stand-in for the driver's library".into())?;
    // nvcc names both whenever it links; the first is for device code that launches kernels, which
    // PyTorch has none of. The second is a linker script: the shared library stands for the static one.
    write_if_missing(&libraries.join("libcudadevrt.a"), EMPTY_ARCHIVE)?;
    write_if_missing(&libraries.join("libcudart_static.a"), "INPUT(-lcudart)\n")?;
    Ok(Toolkit { root: root.to_owned() })
}

/// What PyTorch links on Windows must be in `lib/x64`, where a linker looks: what is not there is made of the DLL.
fn make_import_libraries(root: &Path) -> Result<()> {
    let library = |name: &str| root.join(format!("lib/x64/{name}.lib"));
    let (made, missing): (Vec<_>, Vec<_>) = IMPORTED
        .iter()
        .filter(|name| !library(name).is_file())
        .map(|name| (*name, imports::dll_of(root, name)))
        .partition(|(_, dll)| dll.is_some());
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
        return Err(Error::misuse(
            "cuda-toolkit",
            format!(
                "no source of the recipe puts {} into its prefix 'cuda', neither an import library in lib/x64 nor a DLL \
                 to make one of in bin",
                names.join(", ")
            ),
        )
        .next("add its package to the recipe, or name an installed toolkit: --cuda-home with the folder in CUDA_PATH"));
    }
    made.into_par_iter()
        .filter_map(|(name, dll)| dll.map(|dll| (name, dll)))
        .try_for_each(|(name, dll)| import_library(&dll, &library(name)))
}

/// Writes the file at `path` unless there is one, which stays as it is.
fn write_if_missing(path: &Path, text: &str) -> Result<()> {
    match fs_err::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => Ok(std::io::Write::write_all(&mut file, text.as_bytes())?),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Makes the file at `path` one of its own, where it was a link to one that others have too.
fn own(path: &Path) -> Result<()> {
    let fresh = path.with_extension("own");
    fs_err::copy(path, &fresh)?;
    platform::rename(&fresh, path)
}

/// C source of a library with every function that `cuda.h` names, as NVIDIA's own stub is: it is linked
/// against and never loaded.
fn driver_stub(header: &str) -> String {
    let names: BTreeSet<&str> = header
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|w| w.strip_prefix("cu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase())))
        .collect();
    names.iter().fold(String::new(), |mut out, name| {
        let _ = writeln!(out, "void {name}(void) {{}}");
        out
    })
}

/// An error where this machine's host compiler or driver does not go with the recipe's CUDA.
///
/// # Errors
/// A compiler that nvcc does not take; a driver older than the toolkit's programs need.
pub fn demand(cuda: &Cuda, compiler: &Compiler) -> Result<()> {
    let Some(release) = releases::release(&cuda.version) else { return Ok(()) };
    demand_compiler(release, compiler)?;
    demand_driver(release.version, driver()?)
}

/// An error where what CUDA `version` makes needs a newer driver than the one that is there, by what its system needs.
fn demand_driver(version: &str, driver: Option<(String, System)>) -> Result<()> {
    let Some((driver, system)) = driver else { return Ok(()) };
    let Some(oldest) = releases::newer_driver(version, system, &driver) else { return Ok(()) };
    Err(Error::world(
        "driver-too-old",
        format!("the NVIDIA driver is {driver}; what CUDA {version} makes needs {oldest} or newer"),
    )
    .next("update the driver, or choose a recipe with an older CUDA")
    .next(format!("building for another machine: {DRIVER_VARIABLE}={oldest} (its driver)")))
}

/// An error where nvcc of `release` does not take this host compiler: its `crt/host_config.h` ends every compile.
fn demand_compiler(release: &releases::Release, compiler: &Compiler) -> Result<()> {
    let (version, name) = (release.version, compiler.family.name());
    let mut numbers = compiler.version.split('.').map(|n| n.parse::<u32>().ok());
    // A compiler that says no version is left to nvcc.
    let Some(major) = numbers.next().flatten() else { return Ok(()) };
    let said = |takes: String| {
        format!("{} is {name} {}; nvcc of CUDA {version} takes {takes}", compiler.cxx.display(), compiler.version)
    };
    match compiler.family {
        Family::Gcc if major > release.newest_gcc => {
            let newest = release.newest_gcc;
            Err(Error::world("gcc-too-new", said(format!("GCC up to {newest}")))
                .next(format!("install GCC {newest}: `apt-get install g++-{newest}` (Debian, Ubuntu), `dnf install gcc-toolset-{newest}` (RHEL)"))
                .next(format!("and name it: CC=gcc-{newest} CXX=g++-{newest} cargo xtask build-torch …")))
        }
        Family::Clang if major > release.newest_clang => {
            let newest = release.newest_clang;
            let e = Error::world("clang-too-new", said(format!("Clang up to {newest}")));
            if compiler.locked.is_some() {
                return Err(e
                    .next(format!("give the recipe the packages of Clang {newest} (docs/toolchain.md)"))
                    .next("or leave toolchain.from out: the compiler of the machine is used"));
            }
            Err(e
                .next(format!(
                    "install Clang {newest} (`apt-get install clang-{newest}`) or GCC {}",
                    release.newest_gcc
                ))
                .next(format!("and name it: CC=clang-{newest} CXX=clang++-{newest} cargo xtask build-torch …")))
        }
        Family::Msvc => {
            let (first, last) = (*release.msvc.start(), *release.msvc.end());
            let found = major * 100 + numbers.next().flatten().unwrap_or_default();
            if release.msvc.contains(&found) {
                return Ok(());
            }
            let code = if found < first { "msvc-too-old" } else { "msvc-too-new" };
            let of = |number: u32| format!("{}.{:02}", number / 100, number % 100);
            let e = Error::world(code, said(format!("MSVC {} to {}", of(first), of(last))));
            Err(msvc::ANOTHER_VERSION.iter().fold(e, |e, step| e.next(*step)))
        }
        Family::Gcc | Family::Clang => Ok(()),
    }
}

/// Where a kernel with NVIDIA's module says which it is.
const MODULE: &str = "/sys/module/nvidia/version";

/// Version of the driver that the build is for, if there is one, and the system that it is of.
///
/// # Errors
/// Bad input: what somebody says is no version.
fn driver() -> Result<Option<(String, System)>> {
    let said = std::env::var(DRIVER_VARIABLE).ok();
    if let Some(said) = said.as_deref().map(str::trim).filter(|said| !said.is_empty())
        && !releases::is_driver_version(said)
    {
        return Err(Error::misuse("driver", format!("{DRIVER_VARIABLE} is '{said}', which is no version of a driver"))
            .next("write the numbers alone, such as 580.65.06 or 580, or nothing for a machine without one"));
    }
    let tool = || asked_driver().map(|said| (said, driver_system()));
    Ok(driver_of(said, || std::fs::read_to_string(MODULE).ok(), tool))
}

/// The same, of what was said by the user, else by the kernel, else by the driver's own tool.
fn driver_of(
    said: Option<String>,
    kernel: impl FnOnce() -> Option<String>,
    tool: impl FnOnce() -> Option<(String, System)>,
) -> Option<(String, System)> {
    // What is made here runs on this system, wherever that is.
    let (said, system) = said.or_else(kernel).map(|said| (said, System::here())).or_else(tool)?;
    let said = said.trim();
    (!said.is_empty()).then(|| (said.to_owned(), system))
}

/// The system whose driver serves the GPUs of this machine: under WSL it is that of the Windows around it.
#[must_use]
pub fn driver_system() -> System {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if is_wsl(&kernel) { System::Windows } else { System::here() }
}

/// Whether the kernel of this release is WSL's: `5.15.167.4-microsoft-standard-WSL2`, of WSL 1 `4.4.0-19041-Microsoft`.
fn is_wsl(kernel: &str) -> bool {
    kernel.to_ascii_lowercase().contains("microsoft")
}

/// What the driver's own tool says: Windows has no folder of modules, and WSL2's kernel no module of NVIDIA's.
fn asked_driver() -> Option<String> {
    // A driver that is in trouble may not answer at all.
    const LONGEST: Duration = Duration::from_secs(60);
    let said = Process::new(platform::which("nvidia-smi")?)
        .args(["--query-gpu=driver_version", "--format=csv,noheader"])
        .envs(platform::own_variables(&std::env::temp_dir()))
        .env("PATH", std::env::join_paths(platform::system_programs()).unwrap_or_default())
        .timeout(LONGEST)
        .run(None, &mut |_| {})
        .ok()
        .filter(|said| said.status.success())?;
    said_by_tool(&said.text)
}

/// The version in a list of GPUs, of which each line is the driver's; `None` where it is another message.
fn said_by_tool(text: &str) -> Option<String> {
    text.lines().map(str::trim).find(|line| releases::is_driver_version(line)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Laid out on any machine: what a toolkit for Windows holds stays, and where nothing is missing nothing is made.
    #[test]
    // There it takes Microsoft's compiler to begin with, and Wine has none.
    #[cfg(not(windows))]
    fn a_toolkit_for_windows_is_taken_as_it_is_or_refused_for_want_of_a_library() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "bin/nvcc.exe",
            "bin/cudafe++.exe",
            "bin/ptxas.exe",
            "bin/fatbinary.exe",
            "bin/nvlink.exe",
            "bin/nvcc.profile",
            "bin/x86_64/cudart64_13.dll",
            "nvvm/bin/cicc.exe",
            "nvvm/libdevice/libdevice.10.bc",
            "include/crt/host_config.h",
            "include/cuda_runtime.h",
            "include/nv/target",
            "lib/x64/cudart.lib",
            "lib/x64/cudadevrt.lib",
            "lib/x64/cuda.lib",
        ];
        let libraries = IMPORTED.iter().map(|name| format!("lib/x64/{name}.lib"));
        let names: BTreeSet<String> = names.map(str::to_owned).into_iter().chain(libraries).collect();
        for name in &names {
            fs_err::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs_err::write(dir.path().join(name), name).unwrap();
        }
        let scratch = tempfile::tempdir().unwrap();
        let compiler = Compiler::find(&crate::recipe::ToolchainFile::default()).unwrap();
        let toolkit = complete(dir.path(), &compiler, scratch.path()).unwrap();
        assert_eq!(toolkit.nvcc(), dir.path().join("bin/nvcc.exe"));
        assert_eq!(toolkit.libraries(), dir.path().join("lib/x64"));
        assert!(toolkit.has_device_runtime());
        let files = walkdir::WalkDir::new(dir.path()).into_iter().flatten().filter(|e| !e.file_type().is_dir()).count();
        assert_eq!(files, names.len(), "something was made");
        fs_err::remove_file(dir.path().join("lib/x64/cublas.lib")).unwrap();
        let e = complete(dir.path(), &compiler, scratch.path()).unwrap_err();
        assert!(e.what().contains("puts cublas into its prefix 'cuda'"), "{e}");
        fs_err::remove_file(dir.path().join("nvvm/bin/cicc.exe")).unwrap();
        let e = complete(dir.path(), &compiler, scratch.path()).unwrap_err();
        assert!(e.what().contains("nvvm/bin/cicc"), "{e}");
    }

    #[test]
    fn kineto_gets_an_import_library_for_cupti_of_the_name_that_its_dll_has() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("bin/x86_64");
        fs_err::create_dir_all(&folder).unwrap();
        for name in ["checkpoint.dll", "cupti64_2025.3.1.dll", "nvperf_host.dll"] {
            fs_err::write(folder.join(name), "").unwrap();
        }
        assert!(IMPORTED.contains(&"cupti"));
        assert_eq!(imports::dll_of(dir.path(), "cupti"), Some(folder.join("cupti64_2025.3.1.dll")));
    }

    /// By `crt/host_config.h` of each release.
    #[test]
    fn a_host_compiler_that_nvcc_refuses_is_told_with_what_it_takes() {
        use Family::{Clang, Gcc, Msvc};
        let of = |cuda: &str, family, version: &str| {
            demand_compiler(releases::release(cuda).unwrap(), &Compiler::called(family, version))
        };
        for (cuda, family, newest, too_new, says) in [
            ("12.1", Gcc, "12.4.0", "13.1.0", "takes GCC up to 12"),
            ("12.4", Gcc, "13.3.0", "14.2.0", "takes GCC up to 13"),
            ("12.6", Gcc, "13.3.0", "14.2.0", "takes GCC up to 13"),
            ("12.8", Gcc, "14.3.0", "15.1.0", "takes GCC up to 14"),
            ("12.9", Gcc, "14.3.0", "15.1.0", "takes GCC up to 14"),
            ("13.0", Gcc, "15.2.0", "16.1.0", "takes GCC up to 15"),
            ("13.2", Gcc, "15.2.0", "16.1.0", "takes GCC up to 15"),
            ("12.1", Clang, "15.0.7", "16.0.6", "takes Clang up to 15"),
            ("12.4", Clang, "17.0.6", "18.1.8", "takes Clang up to 17"),
            ("12.6", Clang, "18.1.8", "19.1.7", "takes Clang up to 18"),
            ("12.8", Clang, "19.1.7", "20.1.0", "takes Clang up to 19"),
            ("12.9", Clang, "19.1.7", "20.1.0", "takes Clang up to 19"),
            ("13.0", Clang, "20.1.8", "21.1.0", "takes Clang up to 20"),
            ("13.2", Clang, "21.1.0", "22.1.0", "takes Clang up to 21"),
            ("12.1", Msvc, "19.39.33523", "19.40.33807", "takes MSVC 19.10 to 19.39"),
            ("12.4", Msvc, "19.44.35207", "19.50.35717", "takes MSVC 19.10 to 19.49"),
            ("12.6", Msvc, "19.44.35207", "19.50.35717", "takes MSVC 19.10 to 19.49"),
            ("12.8", Msvc, "19.44.35207", "19.50.35717", "takes MSVC 19.10 to 19.49"),
            ("12.9", Msvc, "19.44.35207", "19.50.35717", "takes MSVC 19.10 to 19.49"),
            ("13.0", Msvc, "19.44.35207", "19.50.35717", "takes MSVC 19.20 to 19.49"),
            ("13.2", Msvc, "19.50.35717", "19.60.1", "takes MSVC 19.20 to 19.59"),
        ] {
            of(cuda, family, newest).unwrap();
            let e = of(cuda, family, too_new).unwrap_err();
            assert!(e.what().contains(&format!("{too_new}; nvcc of CUDA {cuda} {says}")), "{e}");
        }
        of("12.4", Msvc, "19.16.27054").unwrap();
        let e = of("13.0", Msvc, "19.16.27054").unwrap_err();
        assert!(e.what().contains("is MSVC 19.16.27054; nvcc of CUDA 13.0 takes MSVC 19.20 to 19.49"), "{e}");
        of("13.0", Msvc, "trunk").unwrap();
        // Whoever has no compiler of the machine is told of none.
        let locked = Compiler { locked: Some("/toolchain".into()), ..Compiler::called(Clang, "19.1.7") };
        let e = demand_compiler(releases::release("12.6").unwrap(), &locked).unwrap_err().to_string();
        assert!(e.contains("packages of Clang 18") && !e.contains("apt-get"), "{e}");
    }

    #[test]
    fn the_driver_is_the_one_that_was_said_else_the_kernels_else_its_tools() {
        let some = |text: &str| Some(text.to_owned());
        let of = |text: &str, system| Some((text.to_owned(), system));
        let kernel = || -> Option<String> { panic!("asked without need") };
        let tool = || -> Option<(String, System)> { panic!("asked without need") };
        let here = System::here();
        assert_eq!(driver_of(some("580"), kernel, tool), of("580", here));
        assert_eq!(driver_of(None, || some("550.54.14\n"), tool), of("550.54.14", here));
        assert_eq!(driver_of(None, || None, || of("581.15", System::Windows)), of("581.15", System::Windows));
        assert_eq!(driver_of(None, || None, || None), None);
        // For a machine without any.
        assert_eq!(driver_of(some(""), kernel, tool), None);
        assert_eq!(said_by_tool("581.15\n581.15\n").as_deref(), Some("581.15"));
        assert_eq!(
            said_by_tool("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"),
            None
        );
        assert_eq!(said_by_tool("[N/A]\n"), None);
    }

    #[test]
    fn a_driver_is_held_against_what_its_own_system_needs() {
        let demand = |driver: &str, system| demand_driver("12.4", Some((driver.to_owned(), system)));
        demand("525.60.13", System::Linux).unwrap();
        demand("528.33", System::Windows).unwrap();
        let e = demand("527.41", System::Windows).unwrap_err();
        assert!(e.what().contains("is 527.41; what CUDA 12.4 makes needs 528.33 or newer"), "{e}");
        assert!(e.next_steps().iter().any(|step| step.contains("TORCHMILL_NVIDIA_DRIVER=528.33")), "{e}");
        demand_driver("12.4", None).unwrap();
    }

    #[test]
    fn under_wsl_the_driver_is_that_of_windows() {
        for kernel in ["5.15.167.4-microsoft-standard-WSL2\n", "4.4.0-19041-Microsoft\n"] {
            assert!(is_wsl(kernel), "{kernel}");
        }
        for kernel in ["6.1.0-28-amd64\n", "6.8.0-1017-azure\n", ""] {
            assert!(!is_wsl(kernel), "{kernel}");
        }
    }

    #[test]
    fn every_release_compiles_for_what_toolkits_are_tried_for() {
        assert!(releases::RELEASES.iter().all(|release| release.architectures.contains(&TRIAL_ARCHITECTURE)));
        for (architecture, number) in [(TRIAL_ARCHITECTURE, "90"), ("12.0a+PTX", "120a"), ("10.3f", "103f")] {
            assert_eq!(number_of(architecture), number);
        }
    }

    #[test]
    fn nvcc_says_its_version() {
        let banner = "Cuda compilation tools, release 12.4, V12.4.131\nBuild cuda_12.4.r12.4/compiler.34097967_0\n";
        assert_eq!(version_in(banner).as_deref(), Some("12.4.131"));
        assert_eq!(version_in("gcc Vx"), None);
    }

    #[test]
    fn the_stub_has_functions_and_their_later_versions() {
        let header = "#define cuMemAlloc cuMemAlloc_v2\nCUresult CUDAAPI cuInit(unsigned int Flags); typedef int CUdevice; cuuint32_t x;";
        assert_eq!(
            driver_stub(header),
            "void cuInit(void) {}\nvoid cuMemAlloc(void) {}\nvoid cuMemAlloc_v2(void) {}\n"
        );
    }

    #[test]
    fn another_cudnn_or_nccl_than_the_wheels_is_refused() {
        let cuda = Cuda {
            version: "12.4".into(),
            architectures: vec!["9.0".into()],
            requires: vec![
                "nvidia-cudnn-cu12==9.1.0.70; platform_system == 'Linux'".into(),
                "nvidia-nccl-cu12==2.21.5".into(),
            ],
            nvcc_threads: 1,
        };
        let good = Versions {
            runtime: "12.4".into(),
            cublas: "12.4.5".into(),
            cudnn: "9.1.0".into(),
            nccl: Some("2.21.5".into()),
        };
        assert!(check_versions(&cuda, &good).is_ok());
        let other = Versions { nccl: Some("2.20.5".into()), cudnn: "8.9.7".into(), ..good };
        let e = check_versions(&cuda, &other).unwrap_err();
        assert!(e.what().contains("cuDNN: the recipe says 9.1.0.70, the toolkit has 8.9.7"), "{e}");
        assert!(e.what().contains("NCCL: the recipe says 2.21.5, the toolkit has 2.20.5"), "{e}");
    }
}
