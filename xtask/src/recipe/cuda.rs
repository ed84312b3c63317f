//! What is known of CUDA's releases: which architectures they compile for, which GCC they take, which
//! driver runs what they make. From the installation guides and release notes of each release.

use std::path::Path;

use super::model::{Cuda, Source};
use super::{Coordinate, nearest};
use crate::error::{Error, Result};

/// One release of the toolkit.
#[derive(Debug)]
pub struct Release {
    /// Major and minor: `12.4`.
    pub version: &'static str,
    /// Its last update, as installers are called: `12.4.1`.
    pub update: &'static str,
    /// The newest major version of GCC that nvcc takes as host compiler.
    pub newest_gcc: u32,
    /// The oldest Linux driver: by minor version compatibility, that of the major's first release.
    pub oldest_driver: &'static str,
    /// Compute capabilities, as TORCH_CUDA_ARCH_LIST has them.
    pub architectures: &'static [&'static str],
}

const UP_TO_90: &[&str] =
    &["5.0", "5.2", "5.3", "6.0", "6.1", "6.2", "7.0", "7.2", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "9.0a"];
const UP_TO_120: &[&str] = &[
    "5.0", "5.2", "5.3", "6.0", "6.1", "6.2", "7.0", "7.2", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "9.0a", "10.0",
    "10.0a", "10.1", "10.1a", "12.0", "12.0a",
];
const FROM_75: &[&str] = &[
    "7.5", "8.0", "8.6", "8.7", "8.8", "8.9", "9.0", "9.0a", "10.0", "10.0a", "10.3", "10.3a", "11.0", "11.0a", "12.0",
    "12.0a", "12.1", "12.1a",
];

/// The releases that official wheels of PyTorch 2.4 and later were made with.
pub const RELEASES: &[Release] = &[
    Release { version: "12.1", update: "12.1.1", newest_gcc: 12, oldest_driver: "525.60.13", architectures: UP_TO_90 },
    Release { version: "12.4", update: "12.4.1", newest_gcc: 13, oldest_driver: "525.60.13", architectures: UP_TO_90 },
    Release { version: "12.6", update: "12.6.3", newest_gcc: 13, oldest_driver: "525.60.13", architectures: UP_TO_90 },
    Release { version: "12.8", update: "12.8.1", newest_gcc: 14, oldest_driver: "525.60.13", architectures: UP_TO_120 },
    Release { version: "13.0", update: "13.0.2", newest_gcc: 15, oldest_driver: "580.65.06", architectures: FROM_75 },
    Release { version: "13.2", update: "13.2.2", newest_gcc: 15, oldest_driver: "580.65.06", architectures: FROM_75 },
];

/// The release called `version`.
#[must_use]
pub fn release(version: &str) -> Option<&'static Release> {
    RELEASES.iter().find(|r| r.version == version)
}

impl Release {
    /// Whether a driver called `version` (`550.54.14`) is older than what this release's programs need.
    #[must_use]
    pub fn driver_is_too_old(&self, version: &str) -> bool {
        let numbers = |v: &str| v.split('.').map(|n| n.trim().parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
        numbers(version) < numbers(self.oldest_driver)
    }
}

/// Holds what a recipe says of CUDA against itself: its architectures against its toolkit, and what it
/// compiles with against what the wheel will run with.
pub(super) fn check(cuda: &Cuda, sources: &[Source], path: &Path) -> Result<()> {
    for (package, wanted) in cuda.packages() {
        for coordinate in sources.iter().flat_map(|s| &s.coordinates) {
            let Coordinate::Pypi { name, version, .. } = coordinate else { continue };
            if name == package && version != wanted {
                return Err(Error::misuse(
                    "cuda-mismatch",
                    format!(
                        "{}: the toolkit takes {name} {version}, and cuda.requires has {wanted}: the wheel would run \
                         with another one than it was compiled with",
                        path.display()
                    ),
                )
                .next(format!("make both {wanted}, or both {version}")));
            }
        }
    }
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
        if let Some(near) = nearest(plain, release.architectures.iter().copied()) {
            e = e.next(format!("did you mean '{near}'?"));
        }
        if let Some(other) = RELEASES.iter().rev().find(|r| r.architectures.contains(&plain)) {
            e = e.next(format!("CUDA {} knows it", other.version));
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
        let release = release("12.4").unwrap();
        assert!(release.driver_is_too_old("470.256.02"));
        assert!(release.driver_is_too_old("525.60.9"));
        assert!(!release.driver_is_too_old("525.60.13"));
        assert!(!release.driver_is_too_old("1000.1"));
    }
}
