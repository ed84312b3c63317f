//! What is known of CUDA's releases: which architectures they compile for, which host compilers they take, which
//! driver runs what they make. From the installation guides and release notes of each release; host compilers from the
//! `crt/host_config.h` of each (PyPI's `nvidia-cuda-nvcc-cu12` 12.1.105, 12.4.131, 12.6.85, 12.8.93 and 12.9.86,
//! `nvidia-cuda-crt` 13.0.88 and 13.2.86).

use std::ops::RangeInclusive;
use std::path::Path;

use super::model::{Cuda, Source, System};
use super::{Coordinate, nearest, pinned, requirement};
use crate::error::{Error, Result};

/// One release of the toolkit.
#[derive(Debug)]
pub struct Release {
    /// Major and minor: `12.4`.
    pub version: &'static str,
    /// The update of it that upstream's wheels were made with, as installers are called: `12.4.1`.
    pub update: &'static str,
    /// The newest major version of GCC that nvcc takes as host compiler.
    pub newest_gcc: u32,
    /// The newest major version of Clang that it takes.
    pub newest_clang: u32,
    /// The versions of Microsoft's compiler that it takes, as `_MSC_VER` has them: 1929 is 19.29.
    pub msvc: RangeInclusive<u32>,
    /// Compute capabilities, as TORCH_CUDA_ARCH_LIST has them: with an `a`, code for that very one; with an `f`, from
    /// 12.9 on, code for its family.
    pub architectures: &'static [&'static str],
}

const UP_TO_90: &[&str] =
    &["5.0", "5.2", "5.3", "6.0", "6.1", "6.2", "7.0", "7.2", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "9.0a"];
const UP_TO_120: &[&str] = &[
    "5.0", "5.2", "5.3", "6.0", "6.1", "6.2", "7.0", "7.2", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "9.0a", "10.0",
    "10.0a", "10.1", "10.1a", "12.0", "12.0a",
];
const UP_TO_121: &[&str] = &[
    "5.0", "5.2", "5.3", "6.0", "6.1", "6.2", "7.0", "7.2", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "9.0a", "10.0",
    "10.0a", "10.0f", "10.1", "10.1a", "10.1f", "10.3", "10.3a", "10.3f", "12.0", "12.0a", "12.0f", "12.1", "12.1a",
    "12.1f",
];
const FROM_75: &[&str] = &[
    "7.5", "8.0", "8.6", "8.7", "8.8", "8.9", "9.0", "9.0a", "10.0", "10.0a", "10.0f", "10.3", "10.3a", "10.3f",
    "11.0", "11.0a", "11.0f", "12.0", "12.0a", "12.0f", "12.1", "12.1a", "12.1f",
];

/// The releases that PyPI's wheels of PyTorch 2.4 and later were made with, and 12.9, the last that compiles for GPUs before
/// Turing. Upstream's other wheels are for 11.8, which has no row.
pub const RELEASES: &[Release] = &[
    Release {
        version: "12.1",
        update: "12.1.1",
        newest_gcc: 12,
        newest_clang: 15,
        msvc: 1910..=1939,
        architectures: UP_TO_90,
    },
    Release {
        version: "12.4",
        update: "12.4.1",
        newest_gcc: 13,
        newest_clang: 17,
        msvc: 1910..=1949,
        architectures: UP_TO_90,
    },
    Release {
        version: "12.6",
        update: "12.6.3",
        newest_gcc: 13,
        newest_clang: 18,
        msvc: 1910..=1949,
        architectures: UP_TO_90,
    },
    Release {
        version: "12.8",
        update: "12.8.1",
        newest_gcc: 14,
        newest_clang: 19,
        msvc: 1910..=1949,
        architectures: UP_TO_120,
    },
    Release {
        version: "12.9",
        update: "12.9.1",
        newest_gcc: 14,
        newest_clang: 19,
        msvc: 1910..=1949,
        architectures: UP_TO_121,
    },
    Release {
        version: "13.0",
        update: "13.0.2",
        newest_gcc: 15,
        newest_clang: 20,
        msvc: 1920..=1949,
        architectures: FROM_75,
    },
    Release {
        version: "13.2",
        update: "13.2.2",
        newest_gcc: 15,
        newest_clang: 21,
        msvc: 1920..=1959,
        architectures: FROM_75,
    },
];

/// What later releases do not compile for any more: GPUs up to this compute capability, and the last release that does.
/// From the release notes of the one after it (9.0: Fermi; 11.0 and 12.0: Kepler; 13.0: Maxwell, Pascal and Volta).
const DROPPED: &[(&str, &str)] = &[("2.1", "8.0"), ("3.2", "10.2"), ("3.7", "11.8"), ("7.2", "12.9")];

/// A compute capability that CUDA 13 calls otherwise: before it, and since (PTX ISA 9.0: `sm_101` is `sm_110`).
const RENAMED: (&str, &str) = ("10.1", "11.0");

/// GPUs by the names that PyTorch's list file knows, and their compute capabilities (NVIDIA's page "CUDA GPUs").
const GENERATIONS: &[(&str, &[&str])] = &[
    ("maxwell", &["5.0", "5.2"]),
    ("pascal", &["6.0", "6.1"]),
    ("volta", &["7.0"]),
    ("turing", &["7.5"]),
    ("ampere", &["8.0", "8.6"]),
    ("ada", &["8.9"]),
    ("hopper", &["9.0"]),
    ("blackwell", &["10.0", "12.0"]),
];

/// The last cuDNN with code for GPUs before Turing: 9.11 has none any more, as its support matrix says.
pub const LAST_CUDNN_FOR_OLD_GPUS: &str = "9.10";

/// The oldest drivers, on Linux and on Windows, that the programs of a major version of CUDA run with: by minor version
/// compatibility, those of its first release. From the release notes, table "CUDA Toolkit and Minimum Required Driver
/// Version for CUDA Minor Version Compatibility" (numbers to the last digit: that of 12.9). Those of 13.x say 580 for
/// both systems and name no driver for Windows; 580.65.06 is the one for Linux that 13.0 came with.
const OLDEST_DRIVERS: &[(u32, &str, &str)] =
    &[(11, "450.80.02", "452.39"), (12, "525.60.13", "528.33"), (13, "580.65.06", "580")];

/// The release called `version`.
#[must_use]
pub fn release(version: &str) -> Option<&'static Release> {
    RELEASES.iter().find(|r| r.version == version)
}

/// The major version: `13` of `13.0`.
#[must_use]
pub fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

impl Cuda {
    /// The major version of the toolkit.
    pub fn major(&self) -> Option<u32> {
        major(&self.version)
    }
}

/// The oldest driver of `system` that programs of CUDA `version` (`12.4`) run with, where it is known.
#[must_use]
pub fn oldest_driver(version: &str, system: System) -> Option<&'static str> {
    let wanted = major(version)?;
    let (_, linux, windows) = OLDEST_DRIVERS.iter().find(|(major, ..)| *major == wanted)?;
    Some(if system == System::Windows { *windows } else { *linux })
}

/// The same, where the driver that is there, `driver` (`550.54.14`), is older. Of one of which less is known (`580`) no
/// more is compared.
#[must_use]
pub fn newer_driver(version: &str, system: System, driver: &str) -> Option<&'static str> {
    let oldest = oldest_driver(version, system)?;
    let (given, needed) = (numbers(driver), numbers(oldest));
    (given.as_slice() < &needed[..needed.len().min(given.len())]).then_some(oldest)
}

/// Where NVIDIA's installer puts the toolkit `version` (`12.4`) on `system`, as every shell of that system takes it.
#[must_use]
pub fn installed_at(version: &str, system: System) -> String {
    match system {
        System::Windows => format!(r#""C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v{version}""#),
        System::Linux | System::Macos => format!("/usr/local/cuda-{version}"),
    }
}

/// The numbers of a version, for comparing.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|n| n.trim().parse().unwrap_or(0)).collect()
}

/// The compute capability of an architecture: `10.0` of `10.0f+PTX`.
#[must_use]
pub fn capability(architecture: &str) -> &str {
    architecture.trim_end_matches("+PTX").trim_end_matches(['a', 'f'])
}

/// Whether it is the number of a compute capability, and nothing else: `10.3`.
fn is_capability(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.split_once('.').is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

/// The last release of CUDA that compiles for `architecture` (`7.0`, `7.0+PTX`), where later ones do not any more.
#[must_use]
pub fn last_for(architecture: &str) -> Option<&'static str> {
    let own = capability(architecture);
    if !is_capability(own) {
        return None;
    }
    DROPPED.iter().find(|(up_to, _)| numbers(own) <= numbers(up_to)).map(|(_, last)| *last)
}

/// The same, where CUDA `version` (`13.0`) came after that.
#[must_use]
pub fn last_before(version: &str, architecture: &str) -> Option<&'static str> {
    last_for(architecture).filter(|last| numbers(last) < numbers(version))
}

/// Whether `architecture` (`7.0`, `7.0+PTX`) is one before Turing: Maxwell, Pascal, Volta.
#[must_use]
pub fn is_before_turing(architecture: &str) -> bool {
    last_for(architecture).is_some()
}

/// Whether a cuDNN called `version` (`9.20.0`) has no code any more for what [`is_before_turing`].
#[must_use]
pub fn lacks_old_gpus(version: &str) -> bool {
    numbers(version).into_iter().take(2).gt(numbers(LAST_CUDNN_FOR_OLD_GPUS))
}

/// Whether it is the version of a driver, or the beginning of one: numbers between dots.
#[must_use]
pub fn is_driver_version(text: &str) -> bool {
    text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// Parts of a toolkit that carry its release in their versions (13.0.88 is of 13.0), without the `-cu12` that they had
/// before CUDA 13.
const OF_A_RELEASE: &[&str] = &[
    "cuda-toolkit",
    "nvidia-cuda-cccl",
    "nvidia-cuda-crt",
    "nvidia-cuda-culibos",
    "nvidia-cuda-cupti",
    "nvidia-cuda-nvcc",
    "nvidia-cuda-nvrtc",
    "nvidia-cuda-profiler-api",
    "nvidia-cuda-runtime",
    "nvidia-nvjitlink",
    "nvidia-nvml-dev",
    "nvidia-nvtx",
    "nvidia-nvvm",
];

/// Parts without their release in the version, which have no `-cu12` in their names since CUDA 13.
const SINCE_13: &[&str] =
    &["nvidia-cublas", "nvidia-cufft", "nvidia-cufile", "nvidia-curand", "nvidia-cusolver", "nvidia-cusparse"];

/// The compiler of CUDA 13, in packages that are of one build: nvcc starts what is in the second, and puts the headers of
/// the third before each source. They have one number in every release (NVIDIA's manifests of redistributables).
const ONE_BUILD: [&str; 3] = [NVCC, "nvidia-nvvm", "nvidia-cuda-crt"];

const NVCC: &str = "nvidia-cuda-nvcc";

/// Packages that a toolkit of CUDA 13 cannot do without, and what they have.
const COMPANIONS: &[(&str, &str)] = &[
    (NVCC, "nvcc, and the programs that it starts"),
    ("nvidia-nvvm", "cicc, which compiles for the device"),
    ("nvidia-cuda-crt", "the headers that nvcc includes before everything else"),
    ("nvidia-cuda-runtime", "cuda_runtime.h and the run-time library"),
    ("nvidia-cuda-cccl", "cub, thrust and nv/target"),
];

/// Holds what a recipe says of CUDA against itself: its architectures against its toolkit, what it compiles with
/// against what the wheel will run with and is verified with (`verify`), and the toolkit's parts against one another.
pub(super) fn check(cuda: &Cuda, sources: &[Source], verify: &[String], path: &Path) -> Result<()> {
    check_packages(cuda, sources, verify, path)?;
    check_architectures(cuda, path)?;
    check_old_gpus(cuda, sources, path)
}

/// Which of the architectures is the oldest before Turing, if there is one.
#[must_use]
pub fn oldest_before_turing(cuda: &Cuda) -> Option<&str> {
    cuda.architectures.iter().map(String::as_str).filter(|a| is_before_turing(a)).min()
}

/// An error where the recipe's cuDNN has no code for its oldest architecture. A toolkit of packages is shared by recipes
/// for other architectures, so it is asked here, and of an installed one when that is tried.
fn check_old_gpus(cuda: &Cuda, sources: &[Source], path: &Path) -> Result<()> {
    let Some(oldest) = oldest_before_turing(cuda) else { return Ok(()) };
    let wanted: Vec<(String, String)> = cuda.packages().collect();
    let mut all = sources.iter().flat_map(packages_of).chain(wanted.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let Some((name, version)) =
        all.find(|(name, version)| name.starts_with("nvidia-cudnn-cu") && lacks_old_gpus(version))
    else {
        return Ok(());
    };
    Err(Error::misuse(
        "cuda-mismatch",
        format!(
            "{}: {name} {version} has no code for {oldest}, {LAST_CUDNN_FOR_OLD_GPUS} is the last that has",
            path.display()
        ),
    )
    .next(format!("take a cuDNN up to {LAST_CUDNN_FOR_OLD_GPUS}, or leave the architectures before 7.5 out")))
}

/// The packages with their versions, of a source's coordinates.
fn packages_of(source: &Source) -> impl Iterator<Item = (&str, &str)> {
    source.coordinates.iter().filter_map(|coordinate| match coordinate {
        Coordinate::Pypi { name, version, .. } => Some((name.as_str(), version.as_str())),
        _ => None,
    })
}

fn check_packages(cuda: &Cuda, sources: &[Source], verify: &[String], path: &Path) -> Result<()> {
    let mismatch = |what: String| Error::misuse("cuda-mismatch", format!("{}: {what}", path.display()));
    let verified: Vec<(String, String)> = verify
        .iter()
        .filter_map(|text| requirement(text).ok())
        .filter_map(|r| Some((r.name.to_string(), pinned(&r)?)))
        .collect();
    for (name, version) in sources.iter().flat_map(packages_of) {
        if let Some((_, wanted)) =
            cuda.packages().find(|(package, wanted)| package == name && !Cuda::takes(wanted, version))
        {
            return Err(mismatch(format!(
                "the toolkit takes {name} {version}, and cuda.requires has {wanted}: the wheel would run with another one \
                 than it was compiled with"
            ))
            .next(format!("make both {wanted}, or both {version}")));
        }
        if name.starts_with("nvidia-")
            && let Some((_, other)) = verified.iter().find(|(package, other)| package == name && other != version)
        {
            return Err(mismatch(format!(
                "the toolkit takes {name} {version}, and python.verify has {other}: the wheel would be verified with \
                 another one than it was compiled with"
            ))
            .next(format!("make both {other}, or both {version}")));
        }
    }
    let parts: Vec<&Source> = sources.iter().filter(|s| s.in_prefix("cuda").next().is_some()).collect();
    let toolkit: Vec<(&str, &str)> = parts.iter().copied().flat_map(packages_of).collect();
    let wanted: Vec<(String, String)> = cuda.packages().collect();
    let drawn = sources.iter().flat_map(packages_of).map(|(name, version)| (name.to_owned(), version.to_owned()));
    for (name, version) in drawn.chain(wanted.iter().cloned()).chain(verified.iter().cloned()) {
        if let Some((is_for, fitting)) = of_another_cuda(&name, cuda) {
            return Err(mismatch(format!(
                "{name} {version} is for CUDA {is_for}, and cuda.version is {}: what is compiled with the one does not \
                 run with the other",
                cuda.version
            ))
            .next(format!("take {fitting}")));
        }
    }
    let all = toolkit.iter().copied().chain(wanted.iter().map(|(name, version)| (name.as_str(), version.as_str())));
    for (name, version) in all {
        let (plain, _) = without_major(name);
        let numbers: Vec<&str> = version.split('.').take(2).collect();
        if OF_A_RELEASE.contains(&plain)
            && version.starts_with(|c: char| c.is_ascii_digit())
            && numbers.join(".") != cuda.version
        {
            return Err(mismatch(format!(
                "{name} {version} is of another release than cuda.version, {}: parts of two toolkits do not fit each \
                 other",
                cuda.version
            ))
            .next(format!("take the {name} whose version begins with {}.", cuda.version)));
        }
    }
    check_compiler(cuda, &parts, &toolkit, path)
}

/// Holds the packages of the compiler against one another: all of them are there, and of one build. Before CUDA 13 no
/// registry has it as packages, and a part that is no package may hold whatever it likes.
fn check_compiler(cuda: &Cuda, parts: &[&Source], toolkit: &[(&str, &str)], path: &Path) -> Result<()> {
    let version_of = |package: &str| toolkit.iter().find(|(name, _)| *name == package).map(|(_, version)| *version);
    let of_packages = !parts.is_empty() && parts.iter().all(|part| packages_of(part).next().is_some());
    let nvcc = version_of(NVCC);
    if nvcc.is_none() && (!of_packages || cuda.major() < Some(13)) {
        return Ok(());
    }
    if let Some((package, has)) = COMPANIONS.iter().find(|(package, _)| version_of(package).is_none()) {
        let takes = if nvcc.is_some() { NVCC } else { "packages of CUDA" };
        return Err(Error::misuse(
            "cuda-companion",
            format!("{}: the toolkit takes {takes}, and not {package}: it has {has}", path.display()),
        )
        .next(format!("add a source with {package} {}.*, into the prefix 'cuda'", cuda.version)));
    }
    for package in ONE_BUILD {
        if let (Some(nvcc), Some(own)) = (nvcc, version_of(package))
            && nvcc.split('.').take(3).ne(own.split('.').take(3))
        {
            return Err(Error::misuse(
                "cuda-mismatch",
                format!(
                    "{}: the toolkit takes {NVCC} {nvcc} and {package} {own}: they are of two builds of the compiler",
                    path.display()
                ),
            )
            .next(format!("take {package} {nvcc}, or {NVCC} {own}")));
        }
    }
    Ok(())
}

/// A package of NVIDIA's without the major version of CUDA in its name, and that version: `nvidia-cudnn` and 12 of
/// `nvidia-cudnn-cu12`.
fn without_major(name: &str) -> (&str, Option<u32>) {
    match name.rsplit_once("-cu").map(|(plain, number)| (plain, number.parse::<u32>())) {
        Some((plain, Ok(major))) if plain.starts_with("nvidia-") => (plain, Some(major)),
        _ => (name, None),
    }
}

/// The CUDA that a package is for by its name, where that is another major version than the recipe's, and the package that
/// would fit.
fn of_another_cuda(name: &str, cuda: &Cuda) -> Option<(String, String)> {
    let own = cuda.major()?;
    let (plain, major) = without_major(name);
    let is_for = match major {
        Some(major) if major != own => major.to_string(),
        None if own < 13 && SINCE_13.contains(&plain) => "13 and later".to_owned(),
        _ => return None,
    };
    let has_suffix = own < 13 || !OF_A_RELEASE.contains(&plain) && !SINCE_13.contains(&plain);
    Some((is_for, if has_suffix { format!("{plain}-cu{own}") } else { plain.to_owned() }))
}

/// An architecture without what asks for PTX of it.
fn without_ptx(architecture: &str) -> &str {
    architecture.strip_suffix("+PTX").unwrap_or(architecture)
}

fn check_architectures(cuda: &Cuda, path: &Path) -> Result<()> {
    let Some(release) = release(&cuda.version) else { return Ok(()) };
    if cuda.architectures.is_empty() {
        return Err(Error::misuse("recipe", format!("{}: cuda.architectures is empty", path.display()))
            .next("name one at least, such as \"9.0\""));
    }
    for (at, architecture) in cuda.architectures.iter().enumerate() {
        let plain = without_ptx(architecture);
        if !release.architectures.contains(&plain) {
            return Err(no_architecture(architecture, release, path));
        }
        let Some(other) = cuda.architectures[..at].iter().find(|other| without_ptx(other) == plain) else { continue };
        let (names, step) = if other == architecture {
            (format!("'{architecture}' twice"), "leave one of them out".to_owned())
        } else {
            (format!("'{other}' and '{architecture}'"), format!("leave '{plain}' out: '{plain}+PTX' has its code too"))
        };
        let what = format!("{}: cuda.architectures names {names}", path.display());
        return Err(Error::misuse("cuda-architecture", what).next(step));
    }
    Ok(())
}

/// An error: `release` does not compile for `architecture`; which does, or what may have been meant.
fn no_architecture(architecture: &str, release: &Release, path: &Path) -> Error {
    let plain = without_ptx(architecture);
    let number = capability(plain);
    let knows = |text: &str| RELEASES.iter().rev().find(|r| r.architectures.contains(&text));
    let e = Error::misuse(
        "cuda-architecture",
        format!(
            "{}: cuda.architectures names '{architecture}', which CUDA {} cannot compile for",
            path.display(),
            release.version
        ),
    );
    let helps = if let Some(other) = knows(plain) {
        Some(format!("CUDA {} knows it", other.version))
    } else if is_capability(number) {
        // Of numbers the nearest is any other GPU's.
        match (release.architectures.contains(&number), knows(number), last_for(number)) {
            (true, ..) => Some(format!("did you mean '{number}'?")),
            (_, Some(other), _) => Some(format!("CUDA {} knows {number}", other.version)),
            (_, None, Some(last)) if self::release(last).is_none() => {
                Some(format!("CUDA {last} is the last that knows it"))
            }
            _ => None,
        }
    } else {
        let near =
            || nearest(plain, release.architectures.iter().copied()).map(|near| format!("did you mean '{near}'?"));
        meant(architecture, release).or_else(near)
    };
    let (before, since) = RENAMED;
    let today = [(before, since), (since, before)]
        .into_iter()
        .filter(|(from, _)| *from == number)
        .map(|(from, to)| plain.replacen(from, to, 1))
        .find(|renamed| release.architectures.contains(&renamed.as_str()))
        .map(|renamed| format!("CUDA {} calls it {renamed}", release.version));
    let all = format!("CUDA {} knows {}", release.version, release.architectures.join(", "));
    helps.into_iter().chain(today).chain([all]).fold(e, Error::next)
}

/// What is meant where an architecture is written as other tools take it: several in one text, the name of a generation,
/// `sm_90`, or other letters.
fn meant(text: &str, release: &Release) -> Option<String> {
    let quoted = |words: &[&str]| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let separates = |c: char| c == ';' || c == ',' || c.is_whitespace();
    let words: Vec<&str> = text.split(separates).filter(|word| !word.is_empty()).collect();
    let [word] = words[..] else {
        return (!words.is_empty()).then(|| format!("write each by itself: architectures = [{}]", quoted(&words)));
    };
    let small = word.to_ascii_lowercase();
    let (name, ptx) = small.strip_suffix("+ptx").map_or((small.as_str(), ""), |name| (name, "+PTX"));
    if let Some((_, of)) = GENERATIONS.iter().find(|(generation, _)| *generation == name) {
        let last = of.iter().find_map(|number| last_before(release.version, number));
        let and = last.map_or(String::new(), |last| format!(", which CUDA {last} is the last to know"));
        return Some(format!("write the numbers of its GPUs: {}{and}", quoted(of)));
    }
    let name = name.strip_prefix("sm_").or_else(|| name.strip_prefix("compute_")).unwrap_or(name);
    let digits = name.trim_end_matches(['a', 'f']);
    let suffix = &name[digits.len()..];
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let parted = is_number.then(|| digits.split_at(digits.len() - 1));
    let parted = parted.map(|(major, minor)| format!("{major}.{minor}{suffix}{ptx}"));
    let whole = is_number.then(|| format!("{digits}.0{suffix}{ptx}"));
    let ways = [parted, whole, Some(format!("{name}{ptx}"))];
    let written = ways.into_iter().flatten().find(|way| release.architectures.contains(&without_ptx(way)))?;
    Some(format!("did you mean '{written}'?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_compared_by_number() {
        let newer = |driver| newer_driver("12.4", System::Linux, driver);
        assert_eq!(newer("470.256.02"), Some("525.60.13"));
        assert_eq!(newer("525.60.9"), Some("525.60.13"));
        assert_eq!(newer("525.60.13"), None);
        assert_eq!(newer("1000.1"), None);
    }

    #[test]
    fn of_a_driver_as_many_numbers_are_compared_as_are_known() {
        let newer = |driver| newer_driver("13.0", System::Linux, driver);
        for new_enough in ["580", "580.65", "580.65.06", "580.65.06.1", "581"] {
            assert_eq!(newer(new_enough), None, "{new_enough}");
        }
        for too_old in ["579", "580.64", "580.65.05", "575.57.08"] {
            assert_eq!(newer(too_old), Some("580.65.06"), "{too_old}");
        }
    }

    /// By the release notes; the major alone decides, so releases without a row are known too.
    #[test]
    fn each_system_has_an_oldest_driver_of_its_own() {
        for (cuda, system, new_enough, too_old, oldest) in [
            ("11.8", System::Linux, "450.80.02", "450.51.06", "450.80.02"),
            ("11.8", System::Windows, "452.39", "451.82", "452.39"),
            ("12.1", System::Linux, "525.85.12", "520.61.05", "525.60.13"),
            ("12.9", System::Windows, "528.33", "527.41", "528.33"),
            ("13.0", System::Windows, "580.88", "577.00", "580"),
            ("13.2", System::Linux, "580.65.06", "575.57.08", "580.65.06"),
        ] {
            assert_eq!(newer_driver(cuda, system, new_enough), None, "{cuda}, {system:?}");
            assert_eq!(newer_driver(cuda, system, too_old), Some(oldest), "{cuda}, {system:?}");
        }
        assert_eq!(newer_driver("10.2", System::Linux, "1"), None);
        assert!(RELEASES.iter().all(|release| oldest_driver(release.version, System::Linux).is_some()));
    }

    #[test]
    fn a_compute_capability_is_read_without_what_stands_behind_it() {
        for (architecture, own) in [("9.0", "9.0"), ("9.0a", "9.0"), ("10.3f", "10.3"), ("12.0f+PTX", "12.0")] {
            assert_eq!(capability(architecture), own);
        }
        assert!(is_before_turing("7.0+PTX") && !is_before_turing("10.3f"));
        // What a driver's tool says of a GPU that it knows nothing of is no number.
        assert!(!is_before_turing("[N/A]") && !is_before_turing("") && !is_before_turing("7"));
    }

    /// By the release notes; what the table of releases says of its own is the same.
    #[test]
    fn the_last_release_for_a_gpu_is_the_one_before_it_was_dropped() {
        for (gpu, last) in
            [("2.0", "8.0"), ("3.0", "10.2"), ("3.5", "11.8"), ("3.7", "11.8"), ("5.2", "12.9"), ("7.0+PTX", "12.9")]
        {
            assert_eq!(last_for(gpu), Some(last), "{gpu}");
            assert_eq!(last_before("13.0", gpu), Some(last), "{gpu}");
        }
        for kept in ["7.5", "9.0a", "12.0f"] {
            assert_eq!(last_for(kept), None, "{kept}");
        }
        assert_eq!((last_before("12.9", "7.0"), last_before("12.8", "3.5")), (None, Some("11.8")));
        for release in RELEASES {
            for architecture in release.architectures {
                assert_eq!(last_before(release.version, architecture), None, "{architecture}, {}", release.version);
            }
        }
    }

    #[test]
    fn the_last_cudnn_with_code_for_old_gpus_is_9_10() {
        for (version, lacks) in [("8.9.7", false), ("9.10.2", false), ("9.10", false), ("9.11.0", true), ("10.0", true)]
        {
            assert_eq!(lacks_old_gpus(version), lacks, "{version}");
        }
    }

    /// As compilers, environments and people write them.
    #[test]
    fn an_architecture_that_is_written_otherwise_is_told_as_it_is_written_here() {
        let said = |version: &str, architecture: &str| {
            let e = no_architecture(architecture, release(version).unwrap(), Path::new("r.toml"));
            assert!(
                e.what().contains(&format!("names '{architecture}', which CUDA {version} cannot compile for")),
                "{e}"
            );
            let steps = e.next_steps();
            assert!(steps.last().unwrap().starts_with(&format!("CUDA {version} knows ")), "{steps:?}");
            steps[..steps.len() - 1].join("; ")
        };
        for (written, meant) in [
            ("9.0A", "9.0a"),
            ("10.0F", "10.0f"),
            ("12.0+ptx", "12.0+PTX"),
            (" 9.0", "9.0"),
            ("9.0;", "9.0"),
            ("90", "9.0"),
            ("9", "9.0"),
            ("12+PTX", "12.0+PTX"),
            ("sm_90a", "9.0a"),
            ("compute_120+PTX", "12.0+PTX"),
            ("9.0f", "9.0"),
            ("12.0b", "12.0"),
        ] {
            assert_eq!(said("13.0", written), format!("did you mean '{meant}'?"), "{written}");
        }
        for several in ["8.0;9.0+PTX", "8.0, 9.0+PTX", "8.0 9.0+PTX"] {
            assert_eq!(said("13.0", several), "write each by itself: architectures = [\"8.0\", \"9.0+PTX\"]");
        }
        assert_eq!(said("13.0", "Hopper"), "write the numbers of its GPUs: \"9.0\"");
        let maxwell = "write the numbers of its GPUs: \"5.0\", \"5.2\", which CUDA 12.9 is the last to know";
        assert_eq!(said("13.0", "Maxwell"), maxwell);
        assert_eq!(said("13.0", "5.0"), "CUDA 12.9 knows it");
        assert_eq!(said("13.0", "5.0a"), "CUDA 12.9 knows 5.0");
        // No row is for these: the nearest number is another GPU's.
        assert_eq!(said("13.0", "3.5"), "CUDA 11.8 is the last that knows it");
        assert_eq!(said("13.0", "13.5"), "");
        assert_eq!(said("13.0", "10.1a"), "CUDA 12.9 knows it; CUDA 13.0 calls it 11.0a");
        assert_eq!(said("12.8", "11.0"), "CUDA 13.2 knows it; CUDA 12.8 calls it 10.1");
        for nothing in ["", ";", "é", "sm_"] {
            assert_eq!(said("13.0", nothing), "", "{nothing}");
        }
    }

    /// CUDA 12.9 brought code for families, and no architecture before 10.0 has one.
    #[test]
    fn code_for_families_is_known_from_12_9_on() {
        for release in RELEASES {
            let known: Vec<&str> = release.architectures.iter().copied().filter(|a| a.ends_with('f')).collect();
            let expected: &[&str] = match numbers(release.version) {
                version if version < vec![12, 9] => &[],
                version if version < vec![13] => &["10.0f", "10.1f", "10.3f", "12.0f", "12.1f"],
                _ => &["10.0f", "10.3f", "11.0f", "12.0f", "12.1f"],
            };
            assert_eq!(known, expected, "{}", release.version);
        }
    }

    #[test]
    fn a_package_is_for_the_cuda_that_its_name_says() {
        let cuda = |version: &str| Cuda {
            version: version.into(),
            architectures: vec!["9.0".into()],
            requires: Vec::new(),
            nvcc_threads: 1,
        };
        for (version, package, other) in [
            ("13.0", "nvidia-cudnn-cu12", Some(("12", "nvidia-cudnn-cu13"))),
            ("13.0", "nvidia-cublas-cu12", Some(("12", "nvidia-cublas"))),
            ("12.4", "nvidia-nccl-cu13", Some(("13", "nvidia-nccl-cu12"))),
            ("12.4", "nvidia-cufft", Some(("13 and later", "nvidia-cufft-cu12"))),
            ("13.0", "nvidia-cudnn-cu13", None),
            ("13.0", "nvidia-cufft", None),
            ("12.4", "nvidia-cufft-cu12", None),
            ("12.4", "nvidia-cutlass", None),
            ("12.4", "nvidia-cudnn-frontend", None),
            ("13.0", "triton", None),
        ] {
            let found = of_another_cuda(package, &cuda(version));
            let found = found.as_ref().map(|(is_for, fitting)| (is_for.as_str(), fitting.as_str()));
            assert_eq!(found, other, "{package} with {version}");
        }
    }

    #[test]
    fn what_a_wheel_depends_on_is_read_with_extras_and_ranges() {
        let requires = [
            "cuda-toolkit[cudart,cufft]==13.0.2; platform_system == \"Linux\"",
            "nvidia-cublas<=13.1.1.3,>=13.1.0.3; platform_system == \"Linux\"",
            "nvidia-nccl-cu12==2.21.5",
        ];
        let cuda = Cuda {
            version: "13.0".into(),
            architectures: vec!["9.0".into()],
            requires: requires.map(str::to_owned).into(),
            nvcc_threads: 1,
        };
        let packages: Vec<(String, String)> = cuda.packages().collect();
        let names: Vec<&str> = packages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["cuda-toolkit", "nvidia-cublas", "nvidia-nccl-cu12"]);
        assert_eq!((packages[0].1.as_str(), packages[2].1.as_str()), ("13.0.2", "2.21.5"));
        let takes = |version| Cuda::takes(&packages[1].1, version);
        assert!(takes("13.1.0.3") && takes("13.1.1.3") && !takes("13.2.0.9") && !takes("no version"));
        assert!(Cuda::takes("2.21.5", "2.21.5") && !Cuda::takes("2.21.5", "2.21.50"));
    }
}
