//! The recipe as it is written in TOML, and as the rest of the program sees it.
//!
//! Two storeys: [`RecipeFile`] is one file exactly as typed, every key optional; [`Recipe`] is what
//! comes out after `extends` is followed and everything that must be there is there.

use std::collections::BTreeMap;
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::coordinate::Coordinate;
use super::requirement::{pinned, requirement};

/// One recipe file, as typed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "torchmill recipe")]
pub struct RecipeFile {
    /// Version of this format: 1.
    pub schema: Option<u32>,
    /// One line for people.
    pub description: Option<String>,
    /// Name of the recipe (without `.toml`) that this one builds on.
    pub extends: Option<String>,
    /// The operating system that it builds on: Linux if it is left out.
    pub system: Option<System>,
    /// Names of sources, and files of patches, of the base that this recipe does without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// What is built.
    #[serde(default)]
    pub torch: TorchFile,
    /// Which Pythons, and the packages of the private build environment.
    #[serde(default)]
    pub python: PythonFile,
    /// Demands on the compiler.
    #[serde(default)]
    pub toolchain: ToolchainFile,
    /// Every `USE_*` / `BUILD_*` switch, on or off.
    #[serde(default)]
    pub features: BTreeMap<String, bool>,
    /// Other variables that PyTorch's build reads from the environment, such as `BLAS`.
    /// `{prefix:NAME}` stands for the folder of a prefix made from sources.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// CMake cache entries set right after `project(Torch)`, for options that PyTorch's build
    /// does not hand through. `{prefix:NAME}` as in settings.
    #[serde(default)]
    pub cmake: BTreeMap<String, CmakeValue>,
    /// By CMake target: sources that are compiled several at a time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unity: BTreeMap<String, Unity>,
    /// The libuv that goes in.
    #[serde(default)]
    pub libuv: LibuvFile,
    /// The CUDA toolkit that it is compiled with; counts where `USE_CUDA` is on.
    #[serde(default, skip_serializing_if = "CudaFile::is_empty")]
    pub cuda: CudaFile,
    /// Bounds on what archives may unpack to.
    #[serde(default)]
    pub limits: LimitsFile,
    /// What is different on one machine (`x86_64`, `aarch64`): laid over features and settings.
    #[serde(default)]
    pub machine: BTreeMap<String, MachineFile>,
    /// Bars that `validate` holds a build to: ratios candidate / baseline.
    #[serde(default)]
    pub validation: BTreeMap<String, f64>,
    /// What the tree and the prefixes are made of.
    #[serde(default)]
    pub source: Vec<Source>,
    /// What is changed in the tree.
    #[serde(default)]
    pub patch: Vec<Patch>,
}

/// `[torch]`, as typed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TorchFile {
    /// Upstream's version, such as `2.6.0`.
    pub version: Option<String>,
    /// Upstream's commit: 40 hexadecimal digits. Goes into `torch.version.git_version`.
    pub commit: Option<String>,
    /// Local version label (PEP 440), such as `cpu.libuv`.
    pub local: Option<String>,
    /// Seconds since 1970 that stand for "now" everywhere in the build (SOURCE_DATE_EPOCH).
    pub epoch: Option<i64>,
    /// The version of the `tch` crate that fits this torch. Not taken over from a recipe of another version.
    pub tch: Option<String>,
    /// How the PEP 517 backend of this version is told to configure only.
    pub backend: Option<Backend>,
    /// Whether strings have the C++11 ABI of GNU's C++ library (true if left out), or the one before it, as the
    /// stock Linux wheels up to 2.6.0 for CUDA 12.4: what is compiled against torch must have the same one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cxx11_abi: Option<bool>,
    /// `built here` only when it was.
    pub status: Option<Status>,
}

/// The PEP 517 backend of a PyTorch version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// `setuptools.build_meta:__legacy__`, which drives CMake from `setup.py`.
    Setuptools,
    /// `scikit_build_core.build`.
    ScikitBuildCore,
}

impl Backend {
    /// Its name, as recipes have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Setuptools => "setuptools",
            Self::ScikitBuildCore => "scikit-build-core",
        }
    }
}

/// An operating system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Linux.
    #[default]
    Linux,
    /// Windows.
    Windows,
    /// macOS.
    Macos,
}

impl System {
    /// The one that this program runs on.
    #[must_use]
    pub fn here() -> Self {
        if cfg!(windows) {
            Self::Windows
        } else if cfg!(target_os = "macos") {
            Self::Macos
        } else {
            Self::Linux
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::Windows => "Windows",
            Self::Macos => "macOS",
        }
    }
}

/// What is known about a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Built to the end, results in `docs/results/`.
    BuiltHere,
    /// A draft: written from upstream's files, never built to the end.
    NotYetBuiltHere,
}

impl Status {
    /// Whether nothing is known yet of what comes out: it was never built to the end.
    #[must_use]
    pub fn is_draft(self) -> bool {
        self == Self::NotYetBuiltHere
    }

    /// The same, on a machine of this kind (`x86_64`): what was built, was built on one.
    #[must_use]
    pub fn is_draft_on(self, machine: &str) -> bool {
        self.is_draft() || machine != BUILT_ON
    }
}

/// The kind of machine that everything under `docs/results` was built on.
const BUILT_ON: &str = "x86_64";

/// `[python]`, as typed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PythonFile {
    /// PEP 440 range of interpreters, such as `>=3.9,<3.14`.
    pub requires: Option<String>,
    /// The interpreters that the lock covers, such as `["3.11", "3.12"]`.
    pub versions: Option<Vec<String>>,
    /// The machines that the lock covers, such as `["x86_64", "aarch64"]`.
    pub machines: Option<Vec<String>>,
    /// Packages of the build environment: `name==version`, with an optional marker on
    /// `python_version`.
    pub build: Option<Vec<String>>,
    /// Packages of the environment that the wheel is verified in, beside the wheel itself.
    pub verify: Option<Vec<String>>,
}

/// `[toolchain]`, as typed: ranges by compiler family, written as in PEP 440. An upper end says that newer
/// compilers are known to fail, or were not tried.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ToolchainFile {
    /// Where compiler, linker, headers and libraries to link with come from: the machine if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<ToolchainFrom>,
    /// Range of GCC versions, such as `>=11.3, <15`.
    pub gcc: Option<String>,
    /// Range of Clang versions; the one version that the packages have (`==19.1.7`) where it is `from = "locked"`.
    pub clang: Option<String>,
    /// Range of versions of Microsoft's compiler, such as `>=19.29` (Visual Studio 2019 16.10).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msvc: Option<String>,
    /// Compilers that this recipe was built to the end with, such as `gcc 12.2`: with another one a build says so before it
    /// starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
    /// Resident memory that one compiler process may need, in MiB.
    pub memory_per_job: Option<u64>,
}

/// Where a toolchain comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolchainFrom {
    /// The compiler that the machine has, or that `CC` and `CXX` name.
    #[default]
    Machine,
    /// The sources of the prefix `toolchain`, by digest: the same on every machine.
    Locked,
}

/// `[unity.TARGET]`: sources of a CMake target that are compiled several at a time, so that the headers which they share
/// are read once. Paths are from the top of the tree, or of the build folder for what the build generates; `*` stands
/// for anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Unity {
    /// How many at a time; 1 turns it off.
    pub batch: u32,
    /// Which sources: all in C++ if it is left out.
    #[serde(default = "all_sources")]
    pub sources: Vec<String>,
    /// Which of them are compiled by themselves: they name something that another one names too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alone: Vec<String>,
    /// Macros that sources leave behind, and that are undefined after each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undefine: Vec<String>,
    /// Names that several sources give something of their own, known in their file only (`static`, unnamed namespaces):
    /// another one in each source of a piece.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rename: Vec<String>,
}

fn all_sources() -> Vec<String> {
    vec!["*".into()]
}

/// `[machine.NAME]`: what differs on one machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MachineFile {
    /// CMake switches that are other ones there.
    #[serde(default)]
    pub features: BTreeMap<String, bool>,
    /// Other variables of the build that have another value there.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// `[libuv]`, as typed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LibuvFile {
    /// libuv's version.
    pub version: Option<String>,
    /// Name of the source that holds it.
    pub source: Option<String>,
    /// Folder of that source, below its top folder, where libuv is; its top folder if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
}

/// `[cuda]`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CudaFile {
    /// The toolkit's version, such as `12.4`.
    pub version: Option<String>,
    /// Compute capabilities to compile for, such as `["8.0", "9.0a", "10.0f", "12.0+PTX"]`.
    pub architectures: Option<Vec<String>>,
    /// What the wheel depends on at run time: `nvidia-…==version` or a range, with an optional marker. Libraries
    /// that come with these, and with the packages of `nvidia` in `python.verify`, stay out of the wheel, and its run
    /// paths lead to them.
    pub requires: Option<Vec<String>>,
    /// Threads that one nvcc starts (`--threads`): each compiles for another architecture.
    pub nvcc_threads: Option<u32>,
}

impl CudaFile {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `[limits]`, as typed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitsFile {
    /// Largest size that one source may unpack to, in MiB.
    pub unpacked: Option<u64>,
    /// Largest number of members in one archive.
    pub members: Option<u64>,
    /// Disk space that the whole build needs, in MiB.
    pub disk: Option<u64>,
}

/// With what is not said filled in.
pub(super) fn limits(file: &LimitsFile) -> Limits {
    const MIB: u64 = 1 << 20;
    Limits {
        unpacked: file.unpacked.unwrap_or(4096) * MIB,
        members: file.members.unwrap_or(200_000),
        disk: file.disk.unwrap_or(12_288) * MIB,
    }
}

/// A CMake cache value: booleans become `ON` / `OFF`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CmakeValue {
    /// `ON` or `OFF`.
    Bool(bool),
    /// A string.
    Text(String),
}

/// One thing to fetch and where it goes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Source {
    /// Name, unique in the recipe.
    pub name: String,
    /// Where to get it: tried in turn.
    pub coordinates: Vec<Coordinate>,
    /// Where it goes: `tree:<path>` (a path in the PyTorch tree, `tree:.` is its root),
    /// `prefix:<name>` (a prefix handed to the build), or `stage` (used by a stage itself).
    pub into: Vec<Placement>,
    /// The machine that it is for (`x86_64`, `aarch64`); every machine if it is left out.
    pub machine: Option<String>,
    /// SPDX licence expression.
    pub license: String,
    /// Members that are the licence texts, relative to the unpacked source.
    #[serde(default)]
    pub license_files: Vec<String>,
    /// Whether code of it is linked into the artifact (its licence texts go into the wheel).
    #[serde(default = "yes")]
    pub linked: bool,
}

impl Source {
    /// Its parts that go into the prefix called `name`.
    pub fn in_prefix<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Placement> {
        self.into.iter().filter(move |p| p.prefix.as_deref() == Some(name))
    }
}

/// Names of the prefixes that sources go to, sorted, each once.
#[must_use]
pub fn prefixes(sources: &[Source]) -> Vec<&str> {
    let mut names: Vec<&str> = sources.iter().flat_map(|s| &s.into).filter_map(|p| p.prefix.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn yes() -> bool {
    true
}

/// Where (a part of) a source goes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Placement {
    /// A folder in the PyTorch tree; `.` is its root.
    pub tree: Option<String>,
    /// A prefix by this name.
    pub prefix: Option<String>,
    /// The folder of the prefix that it goes to, if not its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Leading path segments to drop from each member (1 for an archive with a top folder).
    #[serde(default)]
    pub strip: usize,
    /// Only members below this folder (after `strip`), which is dropped as well.
    pub only: Option<String>,
    /// If not empty: of those, only these files and the folders that end with `/`.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Further names for files of a prefix, such as the linker's `libx.so` for `libx.so.1`: new
    /// name → file, both below the prefix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alias: BTreeMap<String, String>,
}

/// One patch file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Patch {
    /// Path below `patches/`.
    pub file: String,
    /// Why it is there: one line.
    pub reason: String,
    /// Leading path segments to drop from the patch's file names.
    #[serde(default = "one")]
    pub strip: usize,
}

fn one() -> usize {
    1
}

/// A recipe that is complete and checked.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recipe {
    /// File name without `.toml`.
    pub name: String,
    /// The recipe as one TOML file, `extends` followed, for all machines, without comments: what an
    /// artifact carries.
    #[serde(skip)]
    pub normal: String,
    /// One line for people.
    pub description: String,
    /// The system that it builds on.
    pub system: System,
    /// What is built.
    pub torch: Torch,
    /// Pythons and their packages.
    pub python: Python,
    /// Demands on the compiler.
    pub toolchain: ToolchainFile,
    /// CMake switches that must come out as they stand here: `USE_GLOO`.
    pub features: BTreeMap<String, bool>,
    /// Variables of the build that are no switches: `BLAS`.
    pub settings: BTreeMap<String, String>,
    /// CMake cache entries.
    pub cmake: BTreeMap<String, CmakeValue>,
    /// By CMake target: sources that are compiled several at a time. Nothing of it where it is off, in keys neither.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unity: BTreeMap<String, Unity>,
    /// Which libuv the store is linked against.
    pub libuv: Libuv,
    /// CUDA, where it is on. What has no CUDA says nothing of it: its keys are those of before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuda: Option<Cuda>,
    /// How much archives may unpack to.
    pub limits: Limits,
    /// What is different on one machine.
    pub machine: BTreeMap<String, MachineFile>,
    /// Bars for `validate`.
    pub validation: BTreeMap<String, f64>,
    /// All that is fetched by digest, with where it goes.
    pub source: Vec<Source>,
    /// Patches of the tree, in the order that they are applied.
    pub patch: Vec<Patch>,
}

impl Recipe {
    /// The recipe as it is on `machine` (`x86_64`): its sources and no others', its switches and
    /// settings laid over the common ones. The lock covers all machines, so it is read before.
    #[must_use]
    pub fn on(mut self, machine: &str) -> Self {
        self.source.retain(|s| s.machine.as_deref().is_none_or(|m| m == machine));
        if let Some(own) = self.machine.remove(machine) {
            self.features.extend(own.features);
            self.settings.extend(own.settings);
        }
        self
    }

    /// The recipe without what goes into the prefix called `name`.
    #[must_use]
    pub fn without_prefix(mut self, name: &str) -> Self {
        for source in &mut self.source {
            source.into.retain(|p| p.prefix.as_deref() != Some(name));
        }
        self.source.retain(|s| !s.into.is_empty() || s.name == self.libuv.source);
        self
    }
}

/// `[torch]`, complete.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Torch {
    /// Upstream's version.
    pub version: String,
    /// Upstream's commit.
    pub commit: String,
    /// Local version label.
    pub local: String,
    /// SOURCE_DATE_EPOCH.
    pub epoch: i64,
    /// Fitting `tch`.
    pub tch: Option<String>,
    /// PEP 517 backend.
    pub backend: Backend,
    /// Whether strings have the C++11 ABI. What has it says nothing of it: its keys are those of before.
    #[serde(skip_serializing_if = "is_true")]
    pub cxx11_abi: bool,
    /// What is known about it.
    pub status: Status,
}

fn is_true(value: &bool) -> bool {
    *value
}

impl Torch {
    /// The full version, `2.6.0+cpu.libuv`.
    pub fn full_version(&self) -> String {
        if self.local.is_empty() { self.version.clone() } else { format!("{}+{}", self.version, self.local) }
    }
}

/// `[python]`, complete.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Python {
    /// PEP 440 range.
    pub requires: String,
    /// Interpreters that the lock covers.
    pub versions: Vec<String>,
    /// Machines that the lock covers.
    pub machines: Vec<String>,
    /// Build environment.
    pub build: Vec<String>,
    /// Verify environment.
    pub verify: Vec<String>,
}

/// `[libuv]`, complete.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Libuv {
    /// Version that its header must state: `1.51.0`.
    pub version: String,
    /// Name of the `[[source]]` that it is built from.
    pub source: String,
    /// Folder of the source, below its top folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
}

/// `[cuda]`, complete.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cuda {
    /// The toolkit's version: `12.4`.
    pub version: String,
    /// Compute capabilities.
    pub architectures: Vec<String>,
    /// Run-time dependencies of the wheel.
    pub requires: Vec<String>,
    /// Threads of one nvcc.
    pub nvcc_threads: u32,
}

impl Cuda {
    /// What the wheel depends on: names, spelt as the registry does, and the versions that will do: one (`2.21.5`), or a
    /// range (`>=13.1.0.3, <=13.1.1.3`).
    pub fn packages(&self) -> impl Iterator<Item = (String, String)> {
        self.requires.iter().filter_map(|text| {
            let requirement = requirement(text).ok()?;
            let Some(pep508_rs::VersionOrUrl::VersionSpecifier(range)) = &requirement.version_or_url else {
                return None;
            };
            Some((requirement.name.to_string(), pinned(&requirement).unwrap_or_else(|| range.to_string())))
        })
    }

    /// Whether `version` is one of those that [`Self::packages`] says will do.
    #[must_use]
    pub fn takes(wanted: &str, version: &str) -> bool {
        match VersionSpecifiers::from_str(wanted) {
            Ok(range) => Version::from_str(version).is_ok_and(|version| range.contains(&version)),
            Err(_) => wanted == version,
        }
    }
}

/// `[limits]`, complete.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// Bytes one source may unpack to.
    pub unpacked: u64,
    /// Members of one archive.
    pub members: u64,
    /// Bytes of disk the whole build needs.
    pub disk: u64,
}
