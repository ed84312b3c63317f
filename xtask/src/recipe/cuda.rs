//! What is known of CUDA's releases: which architectures they compile for, which host compilers they take, which
//! driver runs what they make. From the installation guides and release notes of each release; host compilers from the
//! `crt/host_config.h` of each (PyPI's `nvidia-cuda-nvcc-cu12` 12.1.105, 12.4.131, 12.6.85 and 12.8.93,
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
const FROM_75: &[&str] = &[
    "7.5", "8.0", "8.6", "8.7", "8.8", "8.9", "9.0", "9.0a", "10.0", "10.0a", "10.0f", "10.3", "10.3a", "10.3f",
    "11.0", "11.0a", "11.0f", "12.0", "12.0a", "12.0f", "12.1", "12.1a", "12.1f",
];

/// The releases that PyPI's wheels of PyTorch 2.4 and later were made with. Of upstream's other wheels, those for 11.8
/// and 12.9 have no row.
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

/// Whether `architecture` (`7.0`, `7.0+PTX`) is one before Turing: Maxwell, Pascal, Volta.
#[must_use]
pub fn is_before_turing(architecture: &str) -> bool {
    numbers(capability(architecture)) < vec![7, 5]
}

/// Whether a cuDNN called `version` (`9.20.0`) has no code any more for what [`is_before_turing`]: from 9.11 on, as its
/// support matrix says.
#[must_use]
pub fn lacks_old_gpus(version: &str) -> bool {
    numbers(version) >= vec![9, 11]
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

/// Packages that the compiler of CUDA 13 cannot do without, and what they have.
const COMPANIONS: &[(&str, &str)] = &[
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
        format!("{}: {name} {version} has no code for {oldest}, 9.10 is the last that has", path.display()),
    )
    .next("take a cuDNN up to 9.10, or leave the architectures before 7.5 out"))
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
    let toolkit: Vec<(&str, &str)> =
        sources.iter().filter(|s| s.in_prefix("cuda").next().is_some()).flat_map(packages_of).collect();
    let wanted: Vec<(String, String)> = cuda.packages().collect();
    let all = toolkit.iter().copied().chain(wanted.iter().map(|(name, version)| (name.as_str(), version.as_str())));
    for (name, version) in all {
        let plain = name.rsplit_once("-cu").filter(|(_, n)| n.parse::<u32>().is_ok()).map_or(name, |(plain, _)| plain);
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
    if toolkit.iter().any(|(name, _)| *name == "nvidia-cuda-nvcc")
        && let Some((package, has)) = COMPANIONS.iter().find(|(name, _)| !toolkit.iter().any(|(n, _)| n == name))
    {
        return Err(Error::misuse(
            "cuda-companion",
            format!("{}: the toolkit takes nvidia-cuda-nvcc, and not {package}: it has {has}", path.display()),
        )
        .next(format!("add a source with {package} {}.*, into the prefix 'cuda'", cuda.version)));
    }
    Ok(())
}

fn check_architectures(cuda: &Cuda, path: &Path) -> Result<()> {
    let Some(release) = release(&cuda.version) else { return Ok(()) };
    if cuda.architectures.is_empty() {
        return Err(Error::misuse("recipe", format!("{}: cuda.architectures is empty", path.display()))
            .next("name one at least, such as \"9.0\""));
    }
    for architecture in &cuda.architectures {
        let plain = architecture.strip_suffix("+PTX").unwrap_or(architecture);
        if release.architectures.contains(&plain) {
            continue;
        }
        let mut e = Error::misuse(
            "cuda-architecture",
            format!(
                "{}: cuda.architectures names '{architecture}', which CUDA {} cannot compile for",
                path.display(),
                release.version
            ),
        );
        if let Some(other) = RELEASES.iter().rev().find(|r| r.architectures.contains(&plain)) {
            e = e.next(format!("CUDA {} knows it", other.version));
        } else if let Some(near) = nearest(plain, release.architectures.iter().copied()) {
            e = e.next(format!("did you mean '{near}'?"));
        }
        return Err(e.next(format!("CUDA {} knows {}", release.version, release.architectures.join(", "))));
    }
    Ok(())
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
    }

    /// CUDA 12.9 brought code for families, and no architecture before 10.0 has one.
    #[test]
    fn code_for_families_is_known_from_12_9_on() {
        const FAMILIES: [&str; 5] = ["10.0f", "10.3f", "11.0f", "12.0f", "12.1f"];
        for release in RELEASES {
            let known: Vec<&str> = release.architectures.iter().copied().filter(|a| a.ends_with('f')).collect();
            let expected: &[&str] = if numbers(release.version) < vec![12, 9] { &[] } else { &FAMILIES };
            assert_eq!(known, expected, "{}", release.version);
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
