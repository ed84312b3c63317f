//! Recipes and locks: typed, validated, no I/O beyond reading the file.

mod companion;
mod coordinate;
pub mod cuda;
pub mod features;
mod load;
mod lock;
mod model;
mod near;
mod requirement;
mod toolchain;
mod unity;

pub use companion::Companion;
pub use coordinate::Coordinate;
pub use load::{SCHEMA, Workspace, check_store, no_store};
pub use lock::{Draws, LOCK_VERSION, Lock, Locked, PythonLock, is_sha256};
pub use model::*;
pub use near::nearest;
pub(crate) use requirement::first_line;
pub use requirement::{MOST_WEIGHT, Requirement, compared_alike, pinned, requirement, shown, weight};
pub use toolchain::TOOLCHAIN;

/// The recipe that is built where none is named.
pub const DEFAULT: &str = "torch-2.12.1-cpu";
