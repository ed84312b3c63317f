//! Recipes and locks: typed, validated, no I/O beyond reading the file.

mod coordinate;
pub mod cuda;
pub mod features;
mod load;
mod lock;
mod model;

pub use coordinate::Coordinate;
pub use load::{SCHEMA, Workspace, nearest, pinned};
pub use lock::{LOCK_VERSION, Lock, Locked, PythonLock};
pub use model::*;
