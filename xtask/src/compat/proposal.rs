//! Which installed packages would break with a torch that is not built yet? Told from the torch that is there, and
//! from what the proposed one has otherwise: its version, its CUDA or none, the C++11 ABI or the one before.

use std::path::Path;

use pep440_rs::Version;
use serde::Serialize;

use super::judge::judge;
use super::package::Package;
use super::site;
use super::target::satisfies;
use super::torch::{Torch, cuda_library};
use super::verdict::Cause;
use crate::error::{Kind, Result};
use crate::recipe::cuda;

/// What is known of a torch before it is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its full version, `2.6.0+cpu.libuv`.
    pub version: Version,
    /// The CUDA that it has: `13.0`; `None` where it has none.
    pub cuda: Option<String>,
    /// Whether its strings are those of the C++11 ABI.
    pub cxx11_abi: bool,
}

/// A package that would not load any more, or whose requirements the proposed torch does not meet.
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
pub fn broken_by(proposal: &Proposal, root: &Path) -> Result<Vec<Broken>> {
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
        if let Some(cause) = cause(proposal, &torch, &package)? {
            let (package, version) = (package.metadata.name, package.metadata.version);
            out.push(Broken { package, version, cause });
        }
    }
    Ok(out)
}

/// Whether it needs the CUDA run time that the installed torch has, and the proposed one is for another major version.
fn loses_its_cuda(proposal: &Proposal, torch: &Torch, package: &Package) -> bool {
    let own = torch.cuda.as_deref().and_then(cuda::major);
    let (Some(own), Some(proposed)) = (own, proposal.cuda.as_deref().and_then(cuda::major)) else { return false };
    // What the package brings itself is not torch's.
    let brings = package.brings_cuda() || package.libraries.iter().any(|l| cuda_library(&l.file) == Some("cudart"));
    own != proposed && !brings && package.libraries.iter().any(|l| l.uses_torch() && l.cuda_major() == Some(own))
}

fn cause(proposal: &Proposal, torch: &Torch, package: &Package) -> Result<Option<Cause>> {
    let users = || package.libraries.iter().filter(|l| l.uses_torch());
    if proposal.cuda.is_none() && torch.cuda.is_some() && users().any(|l| l.needs_cuda()) {
        return Ok(Some(Cause::NoCuda));
    }
    if loses_its_cuda(proposal, torch, package) {
        return Ok(Some(Cause::OtherCuda));
    }
    let strings = match torch.cxx11_abi {
        Some(false) if proposal.cxx11_abi && users().any(|l| l.has_strings(false)) => Some(Cause::OldStrings),
        Some(true) if !proposal.cxx11_abi && users().any(|l| l.has_strings(true)) => Some(Cause::NewStrings),
        _ => None,
    };
    if strings.is_some() {
        return Ok(strings);
    }
    // What does not hold today is no news.
    let asked = package.metadata.on("torch", &torch.target)?;
    let held = |version: Option<&Version>| version.is_none_or(|v| asked.iter().all(|r| satisfies(r, v)));
    if held(torch.version.as_ref()) && !held(Some(&proposal.version)) {
        return Ok(Some(Cause::OtherPin));
    }
    // Symbols come and go with versions: what takes more than the stable ABI is compiled for one of them.
    let same = torch.version.as_ref().is_none_or(|own| own.release() == proposal.version.release());
    if same || users().next().is_none() {
        return Ok(None);
    }
    let verdict = judge(torch, &package.metadata.name, package)?;
    let unstable = verdict.libraries.iter().any(|l| l.uses_torch && !l.stable_abi);
    Ok(unstable.then_some(Cause::OtherVersion))
}
