//! Which installed packages would break with a torch that is not built yet? Told from the torch that is there, and
//! from what the proposed one has otherwise: CUDA or none, the C++11 ABI or the one before.

use std::path::Path;

use serde::Serialize;

use super::package::Package;
use super::site;
use super::torch::Torch;
use super::verdict::Cause;
use crate::error::{Kind, Result};

/// What is known of a torch before it is built. Its version is the installed one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// Whether it has CUDA.
    pub cuda: bool,
    /// Whether its strings are those of the C++11 ABI.
    pub cxx11_abi: bool,
}

/// A package that would not load any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Normalized name of the package.
    pub package: String,
    /// The installed version.
    pub version: String,
    /// The likely cause.
    pub cause: Cause,
}

/// The packages installed beside the torch in the folder of packages `root` that the proposed torch would break.
///
/// # Errors
/// Bad input: the folder holds no torch, or several; a library in it cannot be read.
pub fn broken_by(proposal: Proposal, root: &Path) -> Result<Vec<Broken>> {
    let torch = Torch::installed(&root.display().to_string(), root)?;
    let Some(site) = site::site(root)? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for distribution in site::distributions(&site) {
        let package = match Package::installed(&distribution, &torch.target) {
            Ok(package) => package,
            Err(e) if e.kind() == Some(Kind::Cancelled) => return Err(e),
            // What cannot be read cannot be said to break.
            Err(_) => continue,
        };
        if package.metadata.name == "torch" {
            continue;
        }
        if let Some(cause) = cause(proposal, &torch, &package) {
            let (package, version) = (package.metadata.name, package.metadata.version);
            out.push(Broken { package, version, cause });
        }
    }
    Ok(out)
}

fn cause(proposal: Proposal, torch: &Torch, package: &Package) -> Option<Cause> {
    let users = || package.libraries.iter().filter(|l| l.uses_torch());
    if !proposal.cuda && torch.cuda.is_some() && users().any(|l| l.needs_cuda()) {
        return Some(Cause::NoCuda);
    }
    match torch.cxx11_abi {
        Some(false) if proposal.cxx11_abi && users().any(|l| l.has_strings(false)) => Some(Cause::OldStrings),
        Some(true) if !proposal.cxx11_abi && users().any(|l| l.has_strings(true)) => Some(Cause::NewStrings),
        _ => None,
    }
}
