//! Recipes and locks: typed, validated, no I/O beyond reading the file.

mod coordinate;
pub mod cuda;
pub mod features;
mod load;
mod lock;
mod model;
mod near;
mod requirement;

pub use coordinate::Coordinate;
pub use load::{SCHEMA, Workspace};
pub use lock::{LOCK_VERSION, Lock, Locked, PythonLock, is_sha256};
pub use model::*;
pub use near::nearest;
pub use requirement::{Requirement, pinned, requirement};
