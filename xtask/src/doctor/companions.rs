//! What is installed beside a torch and would break with the build that the remedies name.

use std::path::Path;

use crate::compat::{Broken, Proposal, broken_by};

/// What `build-torch` gives where no recipe is named: no CUDA, and the strings of the C++11 ABI.
const PROPOSED: Proposal = Proposal { cuda: false, cxx11_abi: true };

/// The packages beside the torch in the folder `torch` that would not load any more with a build. Empty where nobody
/// proposes one (`builds`); `None` where the packages cannot be read, so that nobody can say.
pub fn broken(torch: Option<&Path>, builds: bool) -> Option<Vec<Broken>> {
    match torch.and_then(Path::parent) {
        Some(site) if builds => broken_by(PROPOSED, site).ok(),
        _ => Some(Vec::new()),
    }
}
