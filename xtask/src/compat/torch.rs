//! What a torch offers: the symbols of its libraries, and of those that it loads itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use pep440_rs::Version;

use super::holder::Holder;
use super::remember::Memory;
use super::site;
use super::target::Target;
use crate::error::{Context, Error, Result};
use crate::inspect::{self, Format, Symbols, is_library, version_field};
use crate::recipe::System;

/// A torch that packages are held against.
pub struct Torch {
    /// As the user named it.
    pub subject: String,
    /// `torch.__version__`.
    pub version: Option<Version>,
    /// `torch.version.cuda`; of a torch without `version.py` what its label or its libraries say, which may be the
    /// major version alone.
    pub cuda: Option<String>,
    /// Whether strings are those of the C++11 ABI; `None` where the platform has but one.
    pub cxx11_abi: Option<bool>,
    /// The system, machine and Python that it is for.
    pub target: Target,
    holder: Holder,
    /// Its libraries, smallest first.
    libraries: Vec<Listed>,
    /// Libraries that are installed beside it (NVIDIA's), by file name.
    beside: BTreeMap<String, PathBuf>,
    /// Where the loader of this machine looks, where this torch is installed on it.
    system: Vec<PathBuf>,
    memory: Memory,
    read: Mutex<BTreeMap<String, Option<Arc<Symbols>>>>,
}

struct Listed {
    path: String,
    file: String,
    size: u64,
    sha256: Option<[u8; 32]>,
}

/// A file's name as loaders compare it: those of Windows know no case.
pub fn file_name(path: &str) -> String {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let windows = [".dll", ".pyd"].iter().any(|e| name.to_ascii_lowercase().ends_with(e));
    if windows { name.to_ascii_lowercase() } else { name.to_owned() }
}

/// `cudart` of `libcudart.so.12`, `torch_cpu` of `torch_cpu.dll`: a name without prefix, version and ending.
pub fn stem(file: &str) -> &str {
    let file = file.split(".so").next().unwrap_or(file);
    let file = file.strip_suffix(".dylib").or_else(|| file.strip_suffix(".dll")).unwrap_or(file);
    let file = file.strip_prefix("lib").unwrap_or(file).split('.').next().unwrap_or(file);
    // Wheels that were repaired have a piece of a digest behind the name: `libcudart-80664282.so.10.2`.
    let digest = |end: &str| end.len() >= 8 && end.chars().all(|c| c.is_ascii_hexdigit());
    file.rsplit_once('-').filter(|(_, end)| digest(end)).map_or(file, |(name, _)| name)
}

/// NVIDIA's libraries that come with a CUDA torch or not at all.
const CUDA: &[&str] = &[
    "cudart",
    "cublas",
    "cublasLt",
    "cudnn",
    "cufft",
    "curand",
    "cusolver",
    "cusparse",
    "cusparseLt",
    "nccl",
    "nvrtc",
    "nvToolsExt",
    "nvJitLink",
    "cupti",
    "cufile",
    "nvshmem_host",
];

/// Which of NVIDIA's libraries `file` is: `cudart` of `libcudart.so.12` and of `cudart64_12.dll`, `nvrtc` of
/// `nvrtc64_112_0.dll`. The number is the library's own on every system, and need not be that of a CUDA: what counts is
/// whether torch needs the library by the very same name.
pub fn cuda_library(file: &str) -> Option<&'static str> {
    let name = stem(file);
    if !file.ends_with(".dll") {
        return CUDA.iter().copied().find(|c| *c == name);
    }
    // Names of DLLs have the word size and the version in them, and know no case.
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    CUDA.iter().copied().find(|c| c.eq_ignore_ascii_case(name))
}

/// The major version of the CUDA whose run time `file` is: 12 of `libcudart.so.12` and of `cudart64_12.dll`, 11 of
/// `libcudart.so.11.0` and of `cudart64_110.dll`.
pub fn cudart_major(file: &str) -> Option<u32> {
    if cuda_library(file) != Some("cudart") {
        return None;
    }
    if let Some((_, version)) = file.split_once(".so.") {
        return version.split('.').next()?.parse().ok();
    }
    let (_, number) = file.strip_suffix(".dll")?.rsplit_once('_')?;
    let number: u32 = number.parse().ok()?;
    // Before CUDA 12 the minor version stands in it too.
    Some(if number < 80 { number } else { number / 10 })
}

/// The CUDA that the label of a version says: `12.4` of `2.6.0+cu124`.
fn cuda_of_label(version: &str) -> Option<String> {
    let (_, label) = version.split_once('+')?;
    // Two digits at least, of which the last is the minor version: CUDA 8.0 is older than any torch that is read.
    let is_cuda = |digits: &&str| digits.parse::<u32>().is_ok_and(|n| n >= 80);
    let digits = label.split('.').filter_map(|part| part.strip_prefix("cu")).find(is_cuda)?;
    let (major, minor) = digits.split_at(digits.len() - 1);
    Some(format!("{major}.{minor}"))
}

/// What is said of `subject`, in which no library of torch is that is read here.
fn no_torch(subject: &str, version: Option<&Version>) -> Error {
    match version.filter(|v| v.release() < &[1]) {
        Some(version) => {
            Error::misuse("no-torch", format!("torch {version} is older than what is read (1.0 and later)"))
                .doing(format!("reading {subject}"))
                .next("name a torch of 1.0 or later")
        }
        None => Error::misuse("no-torch", format!("{subject} is not a torch: no library of torch is in it"))
            .next("name torch's wheel, an archive or folder of libtorch, an environment, or pypi:torch==VERSION")
            .next("a torch before 1.0 has other libraries, which are not read"),
    }
}

/// Whether a library of this name is one of torch's own, which only a torch can bring.
pub fn is_torchs(file: &str) -> bool {
    const NAMES: &[&str] = &["torch", "c10", "shm", "caffe2", "_C"];
    const BEGIN: &[&str] = &["torch_cpu", "torch_python", "torch_cuda", "torch_hip", "torch_xpu", "torch_global_deps"];
    let stem = stem(file);
    let versioned = |s: &str| NAMES.contains(&s) || BEGIN.iter().any(|b| s.starts_with(b));
    versioned(stem) || stem.strip_prefix("c10_").is_some_and(|b| ["cuda", "hip", "xpu"].contains(&b))
}

impl Torch {
    /// Opens the torch in `holder`.
    ///
    /// # Errors
    /// Bad input: it holds none, or several; or it cannot be read.
    pub fn open(subject: &str, holder: Holder, memory: Memory) -> Result<Self> {
        let names: Vec<&str> = holder.members().iter().map(|m| m.name.as_str()).collect();
        let texts: Vec<&str> = names.iter().filter(|n| is_text(n, "version.py")).copied().collect();
        if let [one, another, ..] = &texts[..] {
            return Err(Error::misuse("two-torches", format!("{subject} holds two torches: {one} and {another}"))
                .next("name one of the two"));
        }
        let mut found: BTreeMap<&'static str, String> = BTreeMap::new();
        holder.read(&|n| key(n).is_some(), &mut |member, content| {
            if let Some(key) = key(&member.name) {
                found.insert(key, inspect::container::small_text(member, content)?);
            }
            Ok(())
        })?;
        let text = |key: &str| found.get(key).map(String::as_str).unwrap_or_default();
        let digests = digests(text("RECORD"));
        let mut libraries: Vec<Listed> = holder
            .members()
            .iter()
            .filter(|m| is_library(&m.name))
            .map(|m| Listed {
                path: m.name.clone(),
                file: file_name(&m.name),
                size: m.size,
                sha256: digests.get(&m.name).copied(),
            })
            .collect();
        libraries.sort_by_key(|l| l.size);
        let version = version_field(text("version.py"), "__version__")
            .or_else(|| Some(text("build-version").trim().to_owned()).filter(|v| !v.is_empty()));
        // An archive of libtorch has none, and then nothing says in words whether it has CUDA.
        let unsaid = !found.contains_key("version.py");
        let labelled = version.as_deref().filter(|_| unsaid).and_then(cuda_of_label);
        let mut torch = Self {
            subject: subject.to_owned(),
            version: version.as_deref().and_then(|v| Version::from_str(v).ok()),
            cuda: version_field(text("version.py"), "cuda").or(labelled),
            cxx11_abi: None,
            target: Target { system: System::here(), machine: String::new(), python: None },
            holder,
            libraries,
            beside: BTreeMap::new(),
            system: Vec::new(),
            memory,
            read: Mutex::default(),
        };
        // The smallest of torch's own tells what all are for. Before torch 1.0 there was another one. Distributions put
        // a version behind its name: `libc10.so.2.6`.
        let called = |wanted: &str| torch.libraries.iter().map(|l| &l.file).find(|f| stem(f) == wanted).cloned();
        let none = || no_torch(subject, torch.version.as_ref());
        let first = called("c10").or_else(|| called("torch_cpu")).ok_or_else(none)?;
        let c10 = torch.table(&first)?.ok_or_else(none)?;
        torch.target = Target {
            system: match c10.format {
                Format::Elf => System::Linux,
                Format::Pe => System::Windows,
                Format::MachO => System::Macos,
            },
            machine: c10.machine.clone(),
            python: python(text("WHEEL"), &torch.libraries),
        };
        // What every extension calls where a check fails.
        const FAILS: &str = "_ZN3c106detail14torchCheckFailEPKcS2_jRK";
        let new = c10.exports.any_begins(&format!("{FAILS}NSt7__cxx1112basic_string"));
        let old = c10.exports.any_begins(&format!("{FAILS}Ss"));
        torch.cxx11_abi = (c10.format == Format::Elf && new != old).then_some(new);
        if torch.cuda.is_none() && unsaid {
            torch.cuda = torch.cuda_of_libraries()?;
        }
        Ok(torch)
    }

    /// Opens the torch that is installed in, or unpacked to, the folder `root`.
    ///
    /// # Errors
    /// As [`Torch::open`].
    pub fn installed(subject: &str, root: &Path) -> Result<Self> {
        let is_package = root.file_name().is_some_and(|n| n == "torch") && root.join("version.py").is_file();
        let root = if is_package { root.parent().unwrap_or(root) } else { root };
        let site = site::site(root)?.unwrap_or_else(|| root.to_owned());
        let mut files: Vec<String> = Vec::new();
        if site.join("torch").is_dir() {
            if let Some(distribution) = site::distribution(&site, "torch")? {
                files.push(format!("{}/WHEEL", distribution.entry_name()));
            }
            files.push("torch/version.py".into());
            files.extend(beside(&site, "torch"));
            files.extend(["torch/lib", "torch.libs"].iter().flat_map(|f| site::below(&site, f)));
        } else {
            files.extend(["lib", "bin"].iter().flat_map(|f| site::below(&site, f)));
            files.push("build-version".into());
        }
        let mut torch = Self::open(subject, Holder::folder(&site, files), Memory::default())?;
        torch.beside = nvidia(&site);
        if torch.target.is_here() && torch.target.system == System::Linux {
            torch.system = conda_folder(&site).into_iter().chain(system_folders(&torch.target.machine)).collect();
        }
        Ok(torch)
    }

    /// The major version of the CUDA run time that its libraries need; `None` where none of them is for CUDA.
    fn cuda_of_libraries(&self) -> Result<Option<String>> {
        // Without one that says so in its name none needs the run time, and nothing is unpacked to see it.
        if !self.libraries.iter().any(|l| is_torchs(&l.file) && l.file.contains("cuda")) {
            return Ok(None);
        }
        Ok(self.needed_like("cudart")?.iter().find_map(|f| cudart_major(f)).map(|major| major.to_string()))
    }

    /// Whether its symbols are there for all that is loaded after it: before 1.5, `import torch` loaded it so (`RTLD_GLOBAL`),
    /// and extensions named none of its libraries.
    pub fn is_global(&self) -> bool {
        self.version.as_ref().is_some_and(|v| v.release() < &[1, 5])
    }

    /// Whether this torch is installed on this machine, so that what its system lacks is known.
    pub fn knows_system(&self) -> bool {
        !self.system.is_empty()
    }

    /// Whether one of its libraries has this file name.
    pub fn has(&self, file: &str) -> bool {
        self.libraries.iter().any(|l| l.file == file)
    }

    /// The file names of its libraries, smallest first.
    pub fn library_names(&self) -> Vec<String> {
        self.libraries.iter().map(|l| l.file.clone()).collect()
    }

    /// The library called `file`: torch's own, one installed beside it, or (where it is installed here) one of this
    /// machine. `None`: not among them.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn table(&self, file: &str) -> Result<Option<Arc<Symbols>>> {
        if let Some(known) = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(file) {
            return Ok(known.clone());
        }
        let found = if self.has(file) { self.own(file)? } else { self.other(file)? };
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned(), found.clone());
        Ok(found)
    }

    fn own(&self, file: &str) -> Result<Option<Arc<Symbols>>> {
        let listed = self.libraries.iter().find(|l| l.file == file);
        if let Some(kept) = listed.and_then(|l| self.memory.get(l.sha256.as_ref()?)) {
            return Ok(self.image(kept));
        }
        // Of what can only be unpacked from its start on, everything is read at once.
        let all = !self.holder.is_random();
        let wanted = |name: &str| is_library(name) && (all || listed.is_some_and(|l| l.path == name));
        let mut out = None;
        let mut found = Vec::new();
        self.holder
            .libraries(&wanted, &mut |member, symbols, digest| found.push((member.name.clone(), symbols, digest)))
            .doing(|| format!("reading the symbols of {}", self.subject))?;
        for (name, symbols, digest) in found {
            let is_it = listed.is_some_and(|l| l.path == name);
            if is_it && symbols.is_empty() && is_torchs(file) {
                return Err(Error::misuse(
                    "library",
                    format!("{} is a torch for 32-bit machines: {name} has no 64-bit image", self.subject),
                )
                .next("name a torch for a 64-bit machine: no other is read"));
            }
            let stated = self.libraries.iter().find(|l| l.path == name).and_then(|l| l.sha256);
            // Remembered only under the digest that it has, and only if that is the one that RECORD states: the
            // next one asks for it by what its RECORD states.
            if let Some(digest) = digest.filter(|d| stated == Some(*d) && !symbols.is_empty()) {
                self.memory.put(&digest, &symbols);
            }
            let image = self.image(symbols);
            if is_it {
                out = image;
            } else if all {
                self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(file_name(&name), image);
            }
        }
        Ok(out)
    }

    fn other(&self, file: &str) -> Result<Option<Arc<Symbols>>> {
        let beside = self.beside.get(file).cloned().into_iter();
        let system = self.system.iter().map(|d| d.join(file)).filter(|p| p.is_file());
        // A loader goes past what is for another machine: some systems have 32-bit libraries beside the others.
        for path in beside.chain(system) {
            let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else { continue };
            let mut out = None;
            Holder::folder(dir, [name.to_owned()])
                .libraries(&|_| true, &mut |_, symbols, _| out = self.image(symbols))?;
            if out.is_some() {
                return Ok(out);
            }
        }
        Ok(None)
    }

    /// Of a fat library, the image for this torch's machine. While that is not known, the first.
    fn image(&self, images: Vec<Symbols>) -> Option<Arc<Symbols>> {
        let machine = &self.target.machine;
        images.into_iter().find(|s| machine.is_empty() || s.machine == *machine).map(Arc::new)
    }

    /// Whether a library of torch's own needs the library `file`: then it is loaded with torch. Only those that were
    /// read already are asked, or `all`: to unpack a gigabyte is worth it for NVIDIA's libraries alone.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn needs(&self, file: &str, all: bool) -> Result<bool> {
        let needs = |s: &Symbols| s.needed.iter().any(|n| file_name(n) == file);
        // What was read already is asked first.
        if self.read.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().any(|s| needs(s)) {
            return Ok(true);
        }
        for own in self.libraries.iter().filter(|l| all && is_torchs(&l.file)) {
            if self.table(&own.file)?.is_some_and(|s| needs(&s)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Libraries that torch's own need and that are NVIDIA's `wanted` (`cudart`): `libcudart.so.12`, `cudart64_12.dll`.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn needed_like(&self, wanted: &str) -> Result<BTreeSet<String>> {
        let mut out = BTreeSet::new();
        for own in self.libraries.iter().filter(|l| is_torchs(&l.file)) {
            let Some(symbols) = self.table(&own.file)? else { continue };
            out.extend(symbols.needed.iter().map(|n| file_name(n)).filter(|n| cuda_library(n) == Some(wanted)));
            if !out.is_empty() {
                break;
            }
        }
        Ok(out)
    }
}

/// Whether `path` is a text of the package torch, called `name`.
fn is_text(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|p| p == "torch/" || p.ends_with("/torch/"))
}

fn key(path: &str) -> Option<&'static str> {
    if is_text(path, "version.py") {
        return Some("version.py");
    }
    let mut parts = path.rsplit('/');
    let (file, folder) = (parts.next()?, parts.next().unwrap_or(""));
    let dist_info = folder.starts_with("torch-") && folder.ends_with(".dist-info");
    match file {
        "WHEEL" if dist_info => Some("WHEEL"),
        "RECORD" if dist_info => Some("RECORD"),
        "build-version" => Some("build-version"),
        _ => None,
    }
}

fn digests(record: &str) -> BTreeMap<String, [u8; 32]> {
    let entries = crate::wheel::record::parse(record).unwrap_or_default();
    let sha256 = |digest| match digest {
        Some(crate::wheel::record::Digest::Sha256(bytes)) => Some(bytes),
        _ => None,
    };
    entries.into_iter().filter_map(|e| Some((e.path, sha256(e.digest)?))).collect()
}

/// `3.11`, or `3.13t`, from the ABI in the wheel's tag or the name of the extension module `_C`.
fn python(wheel: &str, libraries: &[Listed]) -> Option<String> {
    let headers = crate::wheel::Metadata::lenient(wheel);
    let of_tags = headers.all("Tag").filter_map(|t| python_of_abi(t.split('-').nth(1)?)).next();
    of_tags.or_else(|| {
        libraries.iter().filter(|l| stem(&l.file).eq_ignore_ascii_case("_C")).find_map(|l| python_of(&l.file))
    })
}

/// The Python that an ABI is of: `3.13` of `cp313`, `3.13t` (free-threaded) of `cp313t`, `3.7` of `cp37m`.
fn python_of_abi(abi: &str) -> Option<String> {
    let rest = abi.strip_prefix("cpython-3").or_else(|| abi.strip_prefix("cp3"))?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let free = if rest[minor.len()..].starts_with('t') { "t" } else { "" };
    (!minor.is_empty()).then(|| format!("3.{minor}{free}"))
}

/// The Python that an extension module is for, by its name: `_C.cpython-311-x86_64-linux-gnu.so`, `_C.cp311-win_amd64.pyd`.
pub fn python_of(file: &str) -> Option<String> {
    python_of_abi(file.split_once('.')?.1)
}

/// Libraries that lie in `site`/`folder` itself.
fn beside(site: &Path, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(site.join(folder)).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| is_library(n));
    names.map(|n| format!("{folder}/{n}")).collect()
}

/// NVIDIA's libraries, which packages of their own bring: `nvidia/cublas/lib/libcublas.so.12`.
fn nvidia(site: &Path) -> BTreeMap<String, PathBuf> {
    let files = ["nvidia", "cusparselt"].into_iter().flat_map(|f| site::below(site, f));
    files.filter(|f| is_library(f)).map(|f| (file_name(&f), site.join(&f))).collect()
}

/// `ENV/lib` of the conda environment whose folder of packages is `site`: there its packages find the libraries that
/// other packages of it bring.
fn conda_folder(site: &Path) -> Option<PathBuf> {
    let site = fs_err::canonicalize(site).unwrap_or_else(|_| site.to_owned());
    let environment = site.ancestors().nth(3)?;
    environment.join("conda-meta").is_dir().then(|| environment.join("lib"))
}

/// Where the loader of this machine looks (ld.so(8)), LD_LIBRARY_PATH first.
fn system_folders(machine: &str) -> Vec<PathBuf> {
    let asked = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut out: Vec<PathBuf> = std::env::split_paths(&asked).filter(|p| !p.as_os_str().is_empty()).collect();
    let triplet = format!("{machine}-linux-gnu");
    for usual in ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"] {
        out.extend([Path::new(usual).join(&triplet), PathBuf::from(usual)]);
    }
    out.retain(|d| d.is_dir());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchs_own_libraries_are_told_from_those_that_only_sound_like_it() {
        for own in [
            "libtorch.so",
            "libtorch_cpu.so",
            "libtorch_cuda_linalg.so",
            "libc10_cuda.so",
            "torch_cpu.dll",
            "libc10.dylib",
            "libtorch_cpu.so.2.6",
        ] {
            assert!(is_torchs(own), "{own}");
        }
        for other in ["libtorchaudio.so", "libtorchcodec_core4.so", "libc10x.so", "libcudart.so.12", "torchvision.dll"]
        {
            assert!(!is_torchs(other), "{other}");
        }
    }

    #[test]
    fn an_extension_modules_name_tells_its_python() {
        let of = |file: &str| python_of(file).unwrap_or_default();
        assert_eq!(of("_C.cpython-311-x86_64-linux-gnu.so"), "3.11");
        assert_eq!(of("_C.cpython-313t-x86_64-linux-gnu.so"), "3.13t");
        assert_eq!(of("_C.cpython-37m-x86_64-linux-gnu.so"), "3.7");
        assert_eq!(of("_c.cp39-win_amd64.pyd"), "3.9");
        assert_eq!(of("_c.cp313t-win_amd64.pyd"), "3.13t");
        assert_eq!((of("_C.abi3.so"), of("libfoo.so"), of("_C.so")), Default::default());
    }

    #[test]
    fn nvidias_libraries_are_known_by_their_names_for_linux_and_for_windows() {
        for (file, library) in [
            ("libcudart.so.12", "cudart"),
            ("libcudart-80664282.so.10.2", "cudart"),
            ("libcublasLt.so.12", "cublasLt"),
            ("libnvshmem_host.so.3", "nvshmem_host"),
            ("cudart64_12.dll", "cudart"),
            ("cudart64_110.dll", "cudart"),
            ("cublas64_11.dll", "cublas"),
            ("cublasLt64_12.dll", "cublasLt"),
            ("cudnn64_8.dll", "cudnn"),
            ("cufft64_10.dll", "cufft"),
            ("cupti64_2023.1.1.dll", "cupti"),
            ("curand64_10.dll", "curand"),
            ("cusolver64_11.dll", "cusolver"),
            ("cusparse64_11.dll", "cusparse"),
            ("cusparseLt.dll", "cusparseLt"),
            ("nccl64_134.dll", "nccl"),
            ("nvJitLink_120_0.dll", "nvJitLink"),
            ("nvrtc64_112_0.dll", "nvrtc"),
            ("nvToolsExt64_1.dll", "nvToolsExt"),
        ] {
            assert_eq!(cuda_library(file), Some(library), "{file}");
            assert_eq!(cuda_library(&file_name(file)), Some(library), "{file} as loaders compare it");
        }
        for other in ["libcuda.so.1", "nvcuda.dll", "nvml.dll", "c10_cuda.dll", "libcudart64_12.so", "zlib64_1.dll"] {
            assert_eq!(cuda_library(other), None, "{other}");
        }
    }

    #[test]
    fn the_run_time_of_cuda_and_the_label_of_a_version_say_which_cuda_it_is() {
        for (file, major) in [
            ("libcudart.so.13", Some(13)),
            ("libcudart.so.11.0", Some(11)),
            ("libcudart-80664282.so.10.2", Some(10)),
            ("cudart64_12.dll", Some(12)),
            ("cudart64_110.dll", Some(11)),
            ("cudart64_92.dll", Some(9)),
            ("libcublas.so.12", None),
            ("libcudart.so", None),
        ] {
            assert_eq!(cudart_major(file), major, "{file}");
        }
        for (version, cuda) in [
            ("2.6.0+cu124", Some("12.4")),
            ("2.12.1+cu130.libuv", Some("13.0")),
            ("1.4.0+cu92", Some("9.2")),
            ("2.6.0+cpu.libuv", None),
            ("2.6.0", None),
        ] {
            assert_eq!(cuda_of_label(version).as_deref(), cuda, "{version}");
        }
    }

    #[test]
    fn a_stem_is_what_is_left_without_prefix_version_and_ending() {
        assert_eq!(stem("libcudart.so.12"), "cudart");
        assert_eq!(stem("libcudart.41118559.so.12"), "cudart");
        assert_eq!(stem("libcudart-80664282.so.10.2"), "cudart");
        assert_eq!(stem("libnvidia-ml.so.1"), "nvidia-ml");
        assert_eq!(stem("torch_cpu.dll"), "torch_cpu");
        assert_eq!(stem("libavutil.dylib"), "avutil");
    }
}
