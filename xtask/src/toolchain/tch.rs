//! tch, the Rust binding of torch: which releases there are, which torch each was written for, and a
//! project of this repository pinned to one of them.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The variable that switches off tch's check of torch's version, in every release of `torch-sys`.
pub const BYPASS: &str = "LIBTORCH_BYPASS_VERSION_CHECK";

/// The variable that tells `torch-sys` which strings the libtorch has: `1` for the C++11 ABI, `0` for the one before.
pub const CXX11_ABI: &str = "LIBTORCH_CXX11_ABI";

/// The table of releases, as it stands in the repository.
pub const TABLE: &str = include_str!("tch.toml");

/// A published release.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Release {
    /// Its version, `0.19.0`; `torch-sys` has the same.
    pub version: String,
    /// Major and minor version of the torch that it was written for.
    pub torch: String,
    /// SHA-256 of the crate `tch`.
    tch: String,
    /// SHA-256 of the crate `torch-sys`.
    torch_sys: String,
}

#[derive(Deserialize)]
struct Table {
    release: Vec<Release>,
}

/// All that are known, oldest first.
#[allow(clippy::expect_used)]
static RELEASES: LazyLock<Vec<Release>> =
    LazyLock::new(|| toml::from_str::<Table>(TABLE).expect("tch.toml is held by a test").release);

impl Release {
    /// All that are known, oldest first.
    pub fn all() -> &'static [Release] {
        &RELEASES
    }

    /// The release `version`.
    ///
    /// # Errors
    /// Misuse: its digests are not known.
    pub fn named(version: &str) -> Result<&'static Release> {
        RELEASES.iter().find(|r| r.version == version).ok_or_else(|| {
            let known: Vec<&str> = RELEASES.iter().map(|r| r.version.as_str()).collect();
            Error::misuse("tch", format!("torch.tch = \"{version}\": this release of tch is not known here"))
                .next(format!("known: {}", known.join(", ")))
                .next("another one needs a row with its digests in xtask/src/toolchain/tch.toml")
        })
    }

    /// Whether it was written for this version of torch: `2.6.0`, `2.6.0+cpu.libuv`.
    pub fn is_for(&self, torch: &str) -> bool {
        let mut written = self.torch.split('.');
        let mut wanted = torch.split(['.', '+']);
        written.next() == wanted.next() && written.next() == wanted.next()
    }

    /// What a report says of a release used with `torch` that it was not written for.
    pub fn bypassed(&self, torch: &str) -> Option<String> {
        (!self.is_for(torch)).then(|| {
            format!(
                "tch {} was written for torch {}: its version check is bypassed ({BYPASS}=1)",
                self.version, self.torch
            )
        })
    }

    /// `Cargo.toml` and `Cargo.lock` of a project that names some release of tch, with this one in its place.
    ///
    /// # Errors
    /// The project names no exact release, or one that is not known.
    pub fn pin(&self, manifest: &str, lock: &str) -> Result<(String, String)> {
        let broken = |what: &str| Error::world("tch", format!("a project on tch cannot be pinned: {what}"));
        let written = ["tch = { version = \"=", "tch = \"="]
            .iter()
            .find_map(|p| manifest.split_once(p)?.1.split('"').next())
            .ok_or_else(|| broken("its Cargo.toml names no exact version of tch"))?;
        let from = Self::named(written)?;
        let manifest = manifest.replacen(&format!("\"={written}\""), &format!("\"={}\"", self.version), 1);
        let mut lock = lock.to_owned();
        for (name, old, new) in [("tch", &from.tch, &self.tch), ("torch-sys", &from.torch_sys, &self.torch_sys)] {
            let entry = |version: &str, sum: &str| {
                (format!("name = \"{name}\"\nversion = \"{version}\"\n"), format!("checksum = \"{sum}\"\n"))
            };
            let (old_head, old_sum) = entry(written, old);
            let (new_head, new_sum) = entry(&self.version, new);
            if !lock.contains(&old_head) || !lock.contains(&old_sum) {
                return Err(broken(&format!("its Cargo.lock has no {name} {written}")));
            }
            lock = lock.replacen(&old_head, &new_head, 1).replacen(&old_sum, &new_sum, 1);
        }
        Ok((manifest, lock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_knows_its_torch() {
        let r = Release::named("0.24.0").unwrap();
        assert!(r.is_for("2.11.0") && r.is_for("2.11.0+cpu.libuv"));
        for other in ["2.1.0", "2.12.1", "2", "", "12.11.0"] {
            assert!(!r.is_for(other), "{other}");
        }
        assert_eq!(r.bypassed("2.11.0"), None);
        assert!(r.bypassed("2.12.1").unwrap().contains("written for torch 2.11"));
        assert!(Release::named("0.21.0").is_err());
    }
}
