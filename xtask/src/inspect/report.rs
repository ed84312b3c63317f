//! The report: what a torch is, above all whether its TCPStore has libuv.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};
use torchmill_bytes::marker::{Class, Hit};

use super::container::{self, Content, Member, Want};
use super::defaults::{self, Defaults, Files, Outcome};
use super::evidence::{Evidence, Linkage, Uv};
use super::library::{self, Format, Library};
use super::makers;
use crate::error::{Error, Exit, Result};
use crate::wheel::record;
use crate::wheel::{Cursor, Name, ReadAt, Wheel, slice};

/// Version of the JSON form.
pub const SCHEMA_VERSION: u32 = 1;

/// How much to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only whether the store has libuv, and what that means: reads one library and some text.
    Verdict,
    /// All that the report has: reads every library.
    Full,
}

/// What was inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A wheel (`.whl`).
    Wheel,
    /// A libtorch archive.
    LibtorchArchive,
    /// A folder: libtorch, site-packages, an environment.
    Folder,
    /// A shared library alone.
    Library,
    /// A Debian package.
    DebianPackage,
    /// A conda package.
    CondaPackage,
}

/// One library and where it was.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Path inside what was inspected.
    pub path: String,
    /// Size in bytes, unpacked.
    pub size: u64,
    /// What is known of it.
    #[serde(flatten)]
    pub library: Library,
}

/// What the torch says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Torch {
    /// `torch.__version__`.
    pub version: Option<String>,
    /// `torch.version.git_version`.
    pub commit: Option<String>,
    /// `torch.version.cuda`.
    pub cuda: Option<String>,
    /// `torch.version.hip`.
    pub hip: Option<String>,
    /// Tags of the wheel, from its WHEEL file.
    pub tags: Vec<String>,
    /// What packed the wheel.
    pub generator: Option<String>,
    /// The flags that its C++ was compiled with, as `torch.__config__.show()` tells them: they name kernels that were left
    /// out by the defines that they lack. `None` where they were not read.
    pub cxx_flags: Option<String>,
    /// Whether strings are those of the C++11 ABI; `None` where the platform has but one ABI.
    pub cxx11_abi: Option<bool>,
}

/// Which process groups are compiled in. `None` is *not read*: the library that would tell was not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Backends {
    /// Whether there is any of `torch.distributed` at all (`USE_DISTRIBUTED`); `None` for a torch too old to be read.
    pub distributed: Option<bool>,
    /// Whether the process group of Gloo is in it.
    pub gloo: Option<bool>,
    /// Gloo's transports: `tcp`, `tls`, `uv`, `ibverbs`.
    pub gloo_transports: Vec<&'static str>,
    /// Whether `init_process_group("gloo")` can start at all: a Gloo without a transport cannot. `None` where Gloo is a
    /// library of its own that was not read.
    pub gloo_can_start: Option<bool>,
    /// NCCL (or RCCL), which is in the library for GPUs.
    pub nccl: Option<bool>,
    /// Whether the process group of MPI is in it.
    pub mpi: Option<bool>,
    /// UCC, which is in the library for GPUs.
    pub ucc: Option<bool>,
}

/// The oldest system that all libraries run on, and what the tags claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Floor {
    /// glibc, such as `2.28`, and which library needs it.
    pub glibc: Option<(String, String)>,
    /// libstdc++'s symbol set, such as `3.4.30`, where the system's is used.
    pub glibcxx: Option<(String, String)>,
    /// macOS, such as `11.0`.
    pub macos: Option<(String, String)>,
    /// Whether the oldest system that the tags claim is new enough; `None` where they claim none.
    pub tag_holds: Option<bool>,
}

/// All that was found of one torch.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What was inspected, as the user named it.
    pub subject: String,
    /// What it turned out to be.
    pub kind: Kind,
    /// The verdict: the store has the libuv backend.
    pub libuv: bool,
    /// The library that holds the store; `None` for a torch that is older than such a library.
    pub store_library: Option<String>,
    /// Why the verdict is yes. Empty where it is no: then the class' name is nowhere in the library,
    /// or only as a text that no type info points at.
    pub evidence: Vec<Evidence>,
    /// The class' name stands in the library, but nothing proves that the class does.
    pub name_without_proof: bool,
    /// The libuv that the store's library holds or needs, where one was found.
    pub uv: Option<Uv>,
    /// What starting does by default; `None` where there is no Python part to read it from.
    pub defaults: Option<Defaults>,
    /// What the torch says of itself.
    pub torch: Torch,
    /// Which process groups it can make: Gloo, NCCL, MPI.
    pub backends: Backends,
    /// GPU code by kind and architecture, with the number of images; `None` where it was not read.
    pub gpu: Option<BTreeMap<String, u64>>,
    /// cuDNN's major version, from the name of the library that is loaded; `None` where there is none or, with
    /// [`Depth::Verdict`], where it was not read.
    pub cudnn: Option<String>,
    /// Oldest system; `None` where it was not read.
    pub floor: Option<Floor>,
    /// Libraries that are loaded and are neither inside nor on every system; `None` where they were not read.
    pub missing: Option<BTreeMap<String, Vec<String>>>,
    /// Of what is above, what this report does not tell because it was not read.
    pub not_read: Vec<&'static str>,
    /// What else a reader should know: libraries beside the store's that cannot be read, a torch of another age.
    pub notes: Vec<String>,
    /// Bytes by part, unpacked.
    pub sizes: BTreeMap<String, u64>,
    /// All libraries (with [`Depth::Full`]), or the store's.
    pub libraries: Vec<Found>,
}

impl Report {
    /// Whether Gloo is there and cannot start, for want of a transport.
    pub fn gloo_is_dead(&self) -> bool {
        self.backends.gloo == Some(true) && self.backends.gloo_can_start == Some(false)
    }

    /// How a start ends, in words: the store's part of it, and what a Gloo without a transport makes of that.
    pub fn start_text(&self, outcome: Outcome) -> String {
        match outcome {
            Outcome::Libuv | Outcome::Legacy if self.gloo_is_dead() => {
                let store = if outcome == Outcome::Libuv { "libuv" } else { "the legacy store" };
                format!("cannot start with gloo, which has no transport (its store would run on {store})")
            }
            _ => outcome.text().to_owned(),
        }
    }
}

/// Collects a report while a container is visited.
struct Collector {
    depth: Depth,
    texts: BTreeMap<String, String>,
    libraries: Vec<Found>,
    cxx_flags: Option<String>,
    names: BTreeSet<Class>,
    notes: Vec<String>,
    /// Digests of the members that were read whole, with [`Depth::Full`].
    digests: BTreeMap<String, [u8; 32]>,
    /// Members of the archive inside, where the outer one is a `.conda` file.
    inner: Option<Vec<Member>>,
    /// One library was named by itself, and is the one that counts.
    alone: bool,
    /// The library for GPUs is there and cannot be read: it might hold what the report would deny.
    gpu_unread: bool,
}

/// Whether a Gloo can start: by the transports that were found, unless it is a library of its own (Debian), or it was
/// not read what the library loads.
fn gloo_can_start(gloo: bool, transports: &[&str], store: Option<&Library>) -> Option<bool> {
    let store = store?;
    let elsewhere = store.needed.iter().any(|n| {
        let name = file_name(n);
        name.strip_prefix("lib").unwrap_or(name).starts_with("gloo")
    });
    match (gloo, transports) {
        (false, _) => Some(false),
        (true, [_, ..]) => Some(true),
        // Every torch loads c10: nothing at all is what was not read.
        (true, []) if elsewhere || store.format == Format::Elf && store.needed.is_empty() => None,
        (true, []) => Some(false),
    }
}

/// The text, from NUL to NUL, that the byte at `offset` stands in.
fn text_around(source: &dyn ReadAt, offset: u64) -> Option<String> {
    const MOST: u64 = 8 << 10;
    let from = offset.saturating_sub(MOST);
    let bytes = slice(source, from, (source.size() - from).min(2 * MOST))?;
    let (before, after) = bytes.split_at_checked(usize::try_from(offset - from).ok()?)?;
    let start = memchr::memrchr(0, before).map_or(0, |nul| nul + 1);
    let end = before.len() + memchr::memchr(0, after).unwrap_or(after.len());
    Some(String::from_utf8_lossy(&bytes[start..end]).trim().to_owned())
}

/// `9` of `libcudnn.so.9` or `cudnn64_9.dll`.
fn cudnn_major(library: &str) -> Option<&str> {
    library.strip_prefix("libcudnn.so.").or_else(|| library.strip_prefix("cudnn64_")?.strip_suffix(".dll"))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a file of this name is the library that holds c10d's store.
fn is_store_library(path: &str) -> bool {
    let name = file_name(path);
    let versioned =
        |rest: &str| rest.is_empty() || rest.starts_with('.') && rest.bytes().all(|b| b == b'.' || b.is_ascii_digit());
    name == "torch_cpu.dll"
        || name == "libtorch_cpu.dylib"
        || name.strip_prefix("libtorch_cpu.so").is_some_and(versioned)
}

/// Whether a file of this name is a part of a torch that never holds the store.
fn is_other_part(path: &str) -> bool {
    let name = file_name(path);
    let stem = name.strip_prefix("lib").unwrap_or(name).split('.').next().unwrap_or("");
    [
        "c10",
        "c10_cuda",
        "c10_hip",
        "torch",
        "torch_python",
        "torch_cuda",
        "torch_hip",
        "torch_global_deps",
        "shm",
        "caffe2",
    ]
    .contains(&stem)
}

/// Whether a file of this name is torch's library for GPUs, with NCCL and UCC.
fn is_for_gpus(path: &str) -> bool {
    let name = file_name(path);
    ["torch_cuda", "torch_hip"].contains(&name.strip_prefix("lib").unwrap_or(name).split('.').next().unwrap_or(""))
}

/// Whether it is a library of a torch before 1.5, when there was no `libtorch_cpu`.
fn is_of_old_torch(path: &str) -> bool {
    let name = file_name(path);
    let stem = name.strip_prefix("lib").unwrap_or(name).split('.').next().unwrap_or("");
    stem == "torch" || stem == "caffe2"
}

/// Whether one of these names is only there where `torch.distributed` was compiled in.
fn is_of_distributed(class: Class) -> bool {
    !matches!(class, Class::CxxFlags | Class::NewAbi | Class::OldAbi)
}

/// Whether a file of this name is a shared library or an extension module.
pub fn is_library(path: &str) -> bool {
    let name = file_name(path);
    let ends = [".so", ".dylib", ".dll", ".pyd"].iter().any(|e| name.ends_with(e));
    ends || name.split_once(".so.").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
}

const TEXTS: &[&str] = &[
    "torch/version.py",
    defaults::RENDEZVOUS,
    defaults::STATIC_RENDEZVOUS,
    defaults::C10D_BACKEND,
    defaults::DYNAMIC_RENDEZVOUS,
];

fn text_key(path: &str) -> Option<&'static str> {
    if let Some(known) = TEXTS.iter().find(|t| path == **t || path.ends_with(&format!("/{t}"))) {
        return Some(known);
    }
    let folder = path.split('/').rev().nth(1).unwrap_or("");
    if folder.starts_with("torch-") && folder.ends_with(".dist-info") {
        return ["WHEEL", "RECORD"].into_iter().find(|name| *name == file_name(path));
    }
    (file_name(path) == "build-version" || file_name(path) == "build-hash")
        .then(|| if file_name(path) == "build-version" { "build-version" } else { "build-hash" })
}

impl Collector {
    fn wants(depth: Depth, member: &Member) -> Want {
        let name = &member.name;
        let all = is_conda_package(name)
            || text_key(name).is_some_and(|key| key != "RECORD" || depth == Depth::Full)
            || depth == Depth::Full && is_library(name)
            || is_library(name) && library::is_libuv(file_name(name));
        if all {
            Want::All
        } else if is_store_library(name) {
            Want::Front
        } else {
            Want::Nothing
        }
    }

    fn take(&mut self, member: &Member, reader: &mut Content<'_>) -> Result<ControlFlow<()>> {
        if let Some(key) = text_key(&member.name) {
            self.texts.insert(key.to_owned(), container::small_text(member, reader)?);
            return Ok(ControlFlow::Continue(()));
        }
        if is_conda_package(&member.name) && self.inner.is_none() {
            // A package in a package is no package.
            self.inner = Some(Vec::new());
            let inside = container::spill(member, reader, None)?.0;
            self.inner = Some(collect(self, &inside, container::Kind::Tar)?);
            return Ok(ControlFlow::Break(()));
        }
        if self.depth == Depth::Verdict && is_store_library(&member.name) {
            if reader.is_far() {
                return self.judge(member, reader);
            }
            // Most libraries that are only judged do not name the class, and are not needed after that.
            if let Some(packed) = reader.packed().filter(|p| p.is_large()) {
                let scanned = container::scan(member, packed)?;
                if let Some(library) = library::read_unnamed(&scanned.head, member.size, &scanned.hits) {
                    self.names.extend(&library.classes);
                    self.libraries.push(Found { path: member.name.clone(), size: member.size, library });
                    return Ok(ControlFlow::Continue(()));
                }
            }
        }
        let mut hash = (self.depth == Depth::Full).then(Sha256::new);
        let (file, hits) = container::spill(member, reader, hash.as_mut())?;
        if let Some(hash) = hash {
            self.digests.insert(member.name.clone(), hash.finalize().into());
        }
        self.library(member, &file, &hits)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Judges a store's library that comes from afar, by as little of it as holds the proof.
    fn judge(&mut self, member: &Member, reader: &mut Content<'_>) -> Result<ControlFlow<()>> {
        let head = container::first_bytes(member, reader, library::HEAD as u64)?;
        let end = library::proof_end(&head, member.size);
        let mut front = head.as_slice().chain(reader.by_ref().take(end.saturating_sub(head.len() as u64)));
        let (file, hits) = container::spill(member, &mut front, None)?;
        if end == member.size {
            self.library(member, &file, &hits)?;
        } else if let Some(libraries) = library::read_front(&file, &hits)? {
            self.keep(member, &file, &hits, libraries);
        } else {
            let (file, hits) = container::spill(member, &mut Cursor::new(&file).chain(reader), None)?;
            self.library(member, &file, &hits)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether what a wheel's RECORD says is true, as far as was read.
    fn check_record(&self, members: &[Member]) -> Result<()> {
        let Some(text) = self.texts.get("RECORD") else { return Ok(()) };
        let sizes: BTreeMap<&str, u64> = members.iter().map(|m| (m.name.as_str(), m.size)).collect();
        record::hold(text, &sizes, &self.digests).map_err(|lie| {
            Error::misuse("record", format!("this wheel is not what its RECORD says: {lie}"))
                .next("it was changed after it was made, or damaged: get it again, and compare its digest")
        })
    }

    /// Takes the library `member`, of which `source` has what there is to read.
    fn library(&mut self, member: &Member, source: &dyn ReadAt, hits: &[Hit]) -> Result<()> {
        let path = &member.name;
        let magic = slice(source, 0, source.size().min(8)).unwrap_or_default();
        let it_counts = is_store_library(path) || self.alone;
        if library::format_of(&magic).is_none() && !it_counts {
            self.gpu_unread |= is_for_gpus(path);
            self.notes
                .push(format!("{path} is not read: it is no library (a linker's script, or a text of that name)"));
            return Ok(());
        }
        match library::read_scanned(source, hits) {
            Ok(libraries) => {
                let unread = library::images_not_read(source);
                self.notes.extend(unread.into_iter().map(|image| format!("{path}: its {image} image is not read")));
                self.keep(member, source, hits, libraries);
            }
            Err(e) if it_counts => return Err(e.doing(format!("reading '{path}'"))),
            // What stands beside the store's library cannot change the verdict.
            Err(e) => {
                self.gpu_unread |= is_for_gpus(path);
                self.notes.push(format!("{path} is not read: {}", e.what()));
            }
        }
        Ok(())
    }

    /// Keeps what is known of the library `member`.
    fn keep(&mut self, member: &Member, source: &dyn ReadAt, hits: &[Hit], libraries: Vec<Library>) {
        if libraries.iter().any(|library| library.executable_stack) {
            self.notes.push(format!(
                "{} asks for an executable stack: glibc from 2.41 on (Debian 13, Fedora 42) does not load it",
                member.name
            ));
        }
        if is_store_library(&member.name) || self.alone {
            let hit = hits.iter().find(|h| h.class == Class::CxxFlags);
            self.cxx_flags = hit.and_then(|hit| text_around(source, hit.offset)).or(self.cxx_flags.take());
        }
        self.names.extend(hits.iter().map(|h| h.class));
        let found = |library| Found { path: member.name.clone(), size: member.size, library };
        self.libraries.extend(libraries.into_iter().map(found));
    }

    fn report(self, subject: &str, kind: Kind, members: &[Member]) -> Result<Report> {
        let store: Vec<&Found> = self.libraries.iter().filter(|f| is_store_library(&f.path)).collect();
        // A library that was named by itself is judged whatever it is called, if there is anything of c10d in it.
        let judged = |f: &&Found| {
            !f.library.store.is_empty()
                || f.library.classes.iter().any(|c| is_of_distributed(*c)) && !is_other_part(&f.path)
        };
        let store: Vec<&Found> = if store.is_empty() && kind == Kind::Library {
            self.libraries.iter().filter(judged).collect()
        } else {
            store
        };
        if store.is_empty() {
            return self.without_store_library(subject, kind, members);
        }
        // Of a fat file, every architecture must have it.
        let libuv = store.iter().all(|f| !f.library.store.is_empty());
        let named = store.iter().any(|f| f.library.classes.contains(&Class::LibuvStore));
        let evidence = store.iter().flat_map(|f| f.library.store.clone()).collect();
        let (path, first) = (store[0].path.clone(), store[0].library.clone());
        let shared_uv = self
            .libraries
            .iter()
            .find_map(|f| f.library.uv.clone().filter(|u| u.linkage == Linkage::Shared && u.version.is_some()));
        let uv = match &first.uv {
            Some(uv) if uv.version.is_some() => Some(uv.clone()),
            other => shared_uv.or_else(|| other.clone()),
        };
        Ok(Report {
            libuv,
            store_library: Some(path),
            evidence,
            name_without_proof: named && !libuv,
            uv,
            ..self.described(subject, kind, members, Some(&first), libuv)
        })
    }

    /// What is there without a library that holds the store: an old torch, a part of one, or none.
    fn without_store_library(self, subject: &str, kind: Kind, members: &[Member]) -> Result<Report> {
        let version = self.version();
        let libraries: Vec<&Member> = members.iter().filter(|m| is_library(&m.name)).collect();
        let before_1_5 = version.as_deref().is_some_and(|v| makers::numbers(v) < [1, 5, 0]);
        if before_1_5 && libraries.iter().any(|m| is_of_old_torch(&m.name)) {
            let mut report = self.described(subject, kind, members, None, false);
            report.notes.insert(
                0,
                format!(
                    "torch {} is older than libtorch_cpu (1.5) and than the libuv store (2.1): it cannot have it",
                    version.unwrap_or_default()
                ),
            );
            return Ok(report);
        }
        Err(self.no_torch(subject, kind, version.as_deref(), &libraries))
    }

    fn no_torch(&self, subject: &str, kind: Kind, version: Option<&str>, libraries: &[&Member]) -> Error {
        let next = "name a wheel, a libtorch archive or folder, a library, or an environment with torch in it";
        if kind == Kind::Library {
            return if is_other_part(subject) {
                let what = format!("{} is a part of torch, and not the one with the TCPStore", file_name(subject));
                Error::misuse("no-torch", what)
                    .next("the store is in libtorch_cpu (torch_cpu.dll on Windows): name that, or the folder it is in")
            } else {
                Error::misuse("no-torch", format!("{subject} is not a torch: nothing of c10d is in it")).next(next)
            };
        }
        let Some(version) = version.filter(|_| libraries.iter().all(|m| !is_other_part(&m.name))) else {
            return Error::misuse("no-torch", format!("{subject} is not a torch: no torch_cpu library is in it"))
                .next(next);
        };
        // Debian has the Python parts and the libraries in packages of their own.
        let mut numbers = version.split('.');
        let minor = format!("{}.{}", numbers.next().unwrap_or(""), numbers.next().unwrap_or(""));
        let e = Error::misuse(
            "python-parts-alone",
            format!(
                "{subject} holds the Python parts of torch {version} alone: the TCPStore is in a library that is not in it"
            ),
        );
        match kind {
            Kind::DebianPackage => e.next(format!("inspect the package with its libraries: libtorch{minor}")),
            _ => e.next("inspect what holds its libraries (libtorch_cpu, torch_cpu.dll)"),
        }
    }

    /// All that does not hang on the store.
    fn described(
        mut self,
        subject: &str,
        kind: Kind,
        members: &[Member],
        store: Option<&Library>,
        libuv: bool,
    ) -> Report {
        let windows = store.is_some_and(|l| l.format == Format::Pe);
        let torch = self.torch(store);
        let text = |name: &str| self.texts.get(name).map(String::as_str);
        let defaults = text(defaults::RENDEZVOUS).map(|rendezvous| {
            let files = Files {
                rendezvous,
                static_rendezvous: text(defaults::STATIC_RENDEZVOUS),
                c10d_backend: text(defaults::C10D_BACKEND),
                dynamic_rendezvous: text(defaults::DYNAMIC_RENDEZVOUS),
            };
            defaults::defaults(files, torch.version.as_deref().unwrap_or("0"), windows, libuv)
        });
        let full = self.depth == Depth::Full;
        let backends = self.backends(store, kind);
        let mut not_read = Vec::new();
        if store.is_none() {
            not_read.extend(["gloo", "mpi"]);
        }
        if backends.nccl.is_none() {
            not_read.extend(["nccl", "ucc"]);
        }
        if !full {
            not_read.extend(["gpu", "cudnn", "floor", "missing"]);
        }
        let cudnn = self.libraries.iter().flat_map(|f| &f.library.needed).find_map(|name| cudnn_major(name));
        Report {
            schema_version: SCHEMA_VERSION,
            subject: subject.to_owned(),
            kind,
            libuv: false,
            store_library: None,
            evidence: Vec::new(),
            name_without_proof: false,
            uv: None,
            defaults,
            backends,
            gpu: full.then(|| self.gpu()),
            cudnn: cudnn.map(str::to_owned),
            floor: full.then(|| self.floor(&torch)),
            missing: full.then(|| self.missing(members)),
            not_read,
            notes: std::mem::take(&mut self.notes),
            sizes: sizes(members),
            torch,
            libraries: self.libraries,
        }
    }

    fn gpu(&self) -> BTreeMap<String, u64> {
        let mut gpu = BTreeMap::new();
        for (name, n) in self.libraries.iter().flat_map(|f| &f.library.gpu) {
            *gpu.entry(name.clone()).or_default() += n;
        }
        gpu
    }

    /// `torch.__version__`, or what a libtorch archive says.
    fn version(&self) -> Option<String> {
        self.field("__version__").or_else(|| self.texts.get("build-version").map(|t| t.trim().to_owned()))
    }

    /// A value of `torch/version.py`.
    fn field(&self, name: &str) -> Option<String> {
        version_field(self.texts.get("torch/version.py")?, name)
    }

    fn torch(&self, store: Option<&Library>) -> Torch {
        let wheel = self.texts.get("WHEEL").map(String::as_str).unwrap_or_default();
        let header = |name: &'static str| {
            wheel.lines().filter_map(move |l| l.strip_prefix(name)?.strip_prefix(':').map(|v| v.trim().to_owned()))
        };
        let plain = |name: &str| self.texts.get(name).map(|t| t.trim().to_owned());
        let abi = match (self.names.contains(&Class::NewAbi), self.names.contains(&Class::OldAbi)) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        };
        Torch {
            version: self.version(),
            commit: self.field("git_version").or_else(|| plain("build-hash")),
            cuda: self.field("cuda"),
            hip: self.field("hip"),
            tags: header("Tag").collect(),
            generator: header("Generator").next(),
            cxx_flags: self.cxx_flags.clone(),
            cxx11_abi: abi.filter(|_| store.is_some_and(|l| l.format == Format::Elf)),
        }
    }

    fn backends(&self, store: Option<&Library>, kind: Kind) -> Backends {
        let has = |class| self.names.contains(&class);
        let transports =
            [("tcp", Class::GlooTcp), ("tls", Class::GlooTls), ("uv", Class::GlooUv), ("ibverbs", Class::GlooIbverbs)];
        let gloo_transports: Vec<_> = transports.into_iter().filter(|(_, c)| has(*c)).map(|(n, _)| n).collect();
        // A torch for GPUs has NCCL and UCC in a library that a verdict leaves alone; what was found, was found.
        let all_read = self.depth == Depth::Full && kind != Kind::Library && !self.gpu_unread;
        let told = |class| if has(class) { Some(true) } else { all_read.then_some(false) };
        Backends {
            distributed: store.map(|_| self.names.iter().any(|c| is_of_distributed(*c))),
            gloo: store.map(|_| has(Class::Gloo)),
            gloo_can_start: gloo_can_start(has(Class::Gloo), &gloo_transports, store),
            gloo_transports,
            nccl: told(Class::Nccl),
            mpi: store.map(|_| has(Class::Mpi)),
            ucc: told(Class::Ucc),
        }
    }

    fn floor(&self, torch: &Torch) -> Floor {
        let highest = |set: &str| {
            let of = self.libraries.iter().flat_map(|f| {
                f.library.versions.iter().filter_map(move |v| {
                    let version = v.version.strip_prefix(set)?;
                    version.starts_with(|c: char| c.is_ascii_digit()).then(|| (version.to_owned(), f.path.clone()))
                })
            });
            of.max_by_key(|(v, _)| numbers(v))
        };
        let macos = self
            .libraries
            .iter()
            .filter_map(|f| Some((f.library.min_os.clone()?, f.path.clone())))
            .max_by_key(|(v, _)| numbers(v));
        let glibc = highest("GLIBC_");
        let tag_holds = oldest_claim(&torch.tags).and_then(|(platform, claim)| {
            let needs = if platform == "macosx" { &macos } else { &glibc };
            needs.as_ref().map(|(needs, _)| numbers(needs) <= numbers(&claim))
        });
        Floor { glibcxx: highest("GLIBCXX_"), glibc, macos, tag_holds }
    }

    /// Libraries that are loaded, are not inside, and are not on every system; by whom.
    fn missing(&self, members: &[Member]) -> BTreeMap<String, Vec<String>> {
        let inside: BTreeSet<String> = members
            .iter()
            .map(|m| file_name(&m.name).to_ascii_lowercase())
            .chain(
                self.libraries
                    .iter()
                    .filter_map(|f| f.library.name.as_deref())
                    .map(|n| file_name(n).to_ascii_lowercase()),
            )
            .collect();
        let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for found in &self.libraries {
            for needed in &found.library.needed {
                if !inside.contains(&file_name(needed).to_ascii_lowercase())
                    && !library::on_every_system(found.library.format, needed)
                {
                    out.entry(needed.clone()).or_default().push(found.path.clone());
                }
            }
        }
        out
    }
}

/// What `torch/version.py` sets `name` to.
pub fn version_field(version: &str, name: &str) -> Option<String> {
    version.lines().find_map(|l| {
        let (key, value) = l.split_once('=')?;
        let key = key.split(':').next()?.trim();
        let value = value.trim().trim_matches(['\'', '"']);
        (key == name && value != "None").then(|| value.to_owned())
    })
}

/// The oldest system that a platform tag claims: `manylinux_2_28_x86_64`, `manylinux2014_x86_64`,
/// `macosx_11_0_arm64`.
fn oldest_claim(tags: &[String]) -> Option<(&'static str, String)> {
    let platforms = tags.iter().filter_map(|t| t.rsplit('-').next()).flat_map(|p| p.split('.'));
    platforms
        .filter_map(|p| {
            let (platform, rest) = if let Some(rest) = p.strip_prefix("manylinux_") {
                ("linux", rest.to_owned())
            } else if let Some(rest) = p.strip_prefix("macosx_") {
                ("macosx", rest.to_owned())
            } else {
                // The names before PEP 600 stand for these.
                let glibc = match p.split('_').next()? {
                    "manylinux1" => "2_5",
                    "manylinux2010" => "2_12",
                    "manylinux2014" => "2_17",
                    _ => return None,
                };
                ("linux", format!("{glibc}_"))
            };
            let mut numbers = rest.split('_');
            Some((platform, format!("{}.{}", numbers.next()?, numbers.next()?)))
        })
        .min_by_key(|(_, v)| numbers(v))
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|n| n.parse().unwrap_or(0)).collect()
}

/// Bytes by part: what is below `torch/` by its next folder, the rest by its first.
fn sizes(members: &[Member]) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for member in members {
        let mut folders: Vec<&str> = member.name.split('/').collect();
        folders.pop();
        let part = match folders.iter().position(|f| *f == "torch" || *f == "libtorch") {
            Some(i) if ["lib", "include", "bin", "share"].contains(folders.get(i + 1).unwrap_or(&"")) => {
                format!("{}/{}", folders[i], folders[i + 1])
            }
            Some(i) => folders[i].to_owned(),
            None => folders.first().copied().unwrap_or(".").to_owned(),
        };
        *out.entry(part).or_default() += member.size;
    }
    out
}

/// Inspects what `source` holds.
///
/// # Errors
/// If it is not a torch, or is broken.
pub fn inspect(subject: &str, source: &dyn ReadAt, depth: Depth) -> Result<Report> {
    let mut collector = Collector::new(depth);
    if let Some(kind) = container::kind_of(source) {
        let kind = match kind {
            container::Kind::Zip if subject.ends_with(".whl") => container::Kind::Wheel,
            other => other,
        };
        let outer = collect(&mut collector, source, kind)?;
        let conda = collector.inner.is_some() || outer.iter().any(|m| m.name == "info/index.json");
        let members = collector.inner.take().unwrap_or(outer);
        let wheel = members.iter().any(|m| m.name.ends_with(".dist-info/WHEEL"));
        let what = match kind {
            _ if conda => Kind::CondaPackage,
            container::Kind::Deb => Kind::DebianPackage,
            container::Kind::Zip | container::Kind::Wheel if wheel => Kind::Wheel,
            container::Kind::Zip | container::Kind::Wheel | container::Kind::Tar => Kind::LibtorchArchive,
        };
        collector.check_record(&members)?;
        let mut report = collector.report(subject, what, &members)?;
        if kind == container::Kind::Wheel && depth == Depth::Full && source.is_near() {
            report.notes.extend(unlike(subject, source)?);
        }
        return Ok(report);
    }
    let magic = slice(source, 0, source.size().min(8)).unwrap_or_default();
    if library::format_of(&magic).is_none() {
        let begins = String::from_utf8_lossy(&magic).trim_start().to_owned();
        let mut e = Error::misuse(
            "unknown-format",
            format!("{subject} is no archive and no library ({} bytes, beginning with {begins:?})", source.size()),
        );
        if begins.starts_with('<') {
            e = e.next("this is a web page, not a file: use the address of the file itself");
        }
        return Err(e.next("name a wheel, a libtorch archive or folder, a library, or an environment"));
    }
    let member = Member { name: subject.to_owned(), size: source.size() };
    collector.alone = true;
    container::check_size(&member)?;
    collector.library(&member, source, &library::scan(source)?)?;
    collector.report(subject, Kind::Library, &[])
}

/// Why a wheel is another one to another installer, as `verify` and `mirror` would say; it is a torch all the same. Of a
/// file that is not called as a wheel is, no installer takes anything.
fn unlike(subject: &str, source: &dyn ReadAt) -> Result<Option<String>> {
    // A path of this machine: on Windows it has other separators.
    let file = subject.rsplit(['/', '\\']).next().unwrap_or(subject);
    let Ok(name) = file.parse::<Name>() else { return Ok(None) };
    match Wheel::open(&name, source) {
        Ok(_) => Ok(None),
        Err(e) if e.exit() == Exit::Misuse => Ok(Some(format!("it is not one wheel to every installer: {}", e.what()))),
        Err(e) => Err(e),
    }
}

impl Collector {
    fn new(depth: Depth) -> Self {
        Self {
            depth,
            texts: BTreeMap::new(),
            libraries: Vec::new(),
            cxx_flags: None,
            names: BTreeSet::new(),
            notes: Vec::new(),
            digests: BTreeMap::new(),
            inner: None,
            alone: false,
            gpu_unread: false,
        }
    }
}

fn collect(collector: &mut Collector, source: &dyn ReadAt, kind: container::Kind) -> Result<Vec<Member>> {
    let depth = collector.depth;
    container::visit(source, kind, &|m| Collector::wants(depth, m), &mut |m, r| collector.take(m, r))
}

/// Whether it is the `pkg-*.tar.zst` of a `.conda` file, which holds the package's files.
fn is_conda_package(name: &str) -> bool {
    name.starts_with("pkg-") && name.ends_with(".tar.zst")
}

/// Inspects the torch below the folder `root`: libtorch, site-packages, an environment.
///
/// # Errors
/// If there is none, or it is broken.
pub fn inspect_folder(subject: &str, root: &Path, depth: Depth) -> Result<Report> {
    let mut collector = Collector::new(depth);
    // An environment holds many packages: only torch's part is looked at.
    let root = torch_parent(root);
    let outside = |m: &Member| m.name.contains('/') && !m.name.starts_with("torch") && root.join("torch").is_dir();
    let members = container::visit_folder(
        &root,
        &|m| if outside(m) { Want::Nothing } else { Collector::wants(depth, m) },
        &mut |m, r| collector.take(m, r),
    )?;
    let members: Vec<Member> = members.into_iter().filter(|m| !outside(m)).collect();
    collector.report(subject, Kind::Folder, &members)
}

/// The folder that holds `torch/`, where `root` is an environment; else `root` itself.
fn torch_parent(root: &Path) -> std::path::PathBuf {
    if root.join("torch/version.py").is_file() {
        return root.to_owned();
    }
    if root.join("version.py").is_file() && root.file_name().is_some_and(|n| n == "torch") {
        return root.parent().unwrap_or(root).to_owned();
    }
    let windows = root.join("Lib/site-packages");
    if windows.join("torch/version.py").is_file() {
        return windows;
    }
    let versions = std::fs::read_dir(root.join("lib")).into_iter().flatten().flatten();
    let mut site: Vec<_> = versions.map(|e| e.path().join("site-packages")).collect();
    site.sort();
    site.into_iter().find(|s| s.join("torch/version.py").is_file()).unwrap_or_else(|| root.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_claim_of_a_tag_is_read() {
        let of = |t: &str| oldest_claim(&[format!("cp311-cp311-{t}")]).map(|(p, v)| format!("{p} {v}"));
        assert_eq!(of("manylinux_2_28_x86_64").as_deref(), Some("linux 2.28"));
        assert_eq!(of("manylinux2014_x86_64.manylinux_2_17_x86_64").as_deref(), Some("linux 2.17"));
        assert_eq!(of("macosx_11_0_arm64").as_deref(), Some("macosx 11.0"));
        assert_eq!(of("win_amd64"), None);
    }

    #[test]
    fn the_major_version_of_cudnn_is_in_its_librarys_name() {
        assert_eq!(cudnn_major("libcudnn.so.9"), Some("9"));
        assert_eq!(cudnn_major("cudnn64_8.dll"), Some("8"));
        assert_eq!(cudnn_major("libcublas.so.12"), None);
    }

    #[test]
    fn what_is_called_a_library_is_told_from_what_is_not() {
        for yes in ["torch/lib/libtorch_cpu.so", "a/libgomp-1a2b.so.1", "torch/_C.cp311-win_amd64.pyd", "x.dylib"] {
            assert!(is_library(yes), "{yes}");
        }
        for no in ["a/notes.so.txt", "libtorch.a", "torch/lib/torch_cpu.lib", "so"] {
            assert!(!is_library(no), "{no}");
        }
    }
}
