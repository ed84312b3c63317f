//! What is installed beside a torch and would break with the build that the remedies name.

use std::path::Path;

use crate::compat::{Broken, Proposal, broken_by};

/// The packages beside the torch in the folder `torch` that would not fit any more with the build that is proposed.
/// Empty where nobody proposes one; `None` where the packages cannot be read, so that nobody can say.
pub fn broken(torch: Option<&Path>, build: Option<&Proposal>) -> Option<Vec<Broken>> {
    match (torch.and_then(Path::parent), build) {
        (Some(site), Some(build)) => broken_by(build, site).ok(),
        _ => Some(Vec::new()),
    }
}
