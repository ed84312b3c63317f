//! Wheels (the binary distribution format): what their names say, what they hold, and whether every
//! reader sees the same in them. The one place that parses file names, tags, RECORD, METADATA and entry points.
//!
//! It knows nothing of torch, of indexes or of the store: whoever publishes, verifies, inspects or
//! picks wheels stands above it.

pub mod entry_points;
pub mod metadata;
mod name;
pub mod record;
mod strict;
mod tag;

pub use metadata::Metadata;
pub use name::{Name, normalize};
pub use strict::{Wheel, listed, target};
pub use tag::{Newest, fit, fit_within, fits_platform};
pub use torchmill_bytes::{Archive, Cursor, Directory, FileAt, Member, ReadAt, open_zip, pump, read_up_to};
pub(crate) use torchmill_bytes::{fill, names, slice, u16_at, u32_at, u64_at};
