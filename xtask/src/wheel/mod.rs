//! Wheels (the binary distribution format): what their names say, what they hold, and whether every
//! reader sees the same in them. The one place that parses file names, tags, RECORD and METADATA.
//!
//! It knows nothing of torch, of indexes or of the store: whoever publishes, verifies, inspects or
//! picks wheels stands above it.

mod archive;
mod directory;
pub mod metadata;
mod name;
mod names;
mod read;
pub mod record;
mod strict;
mod tag;

pub use archive::{Archive, Member};
pub use directory::{Directory, open_zip};
pub use metadata::Metadata;
pub use name::{Name, normalize};
pub use read::{Cursor, FileAt, ReadAt, pump, read_up_to};
pub(crate) use read::{fill, slice, u16_at, u32_at, u64_at};
pub use strict::{Wheel, listed, target};
pub use tag::{Newest, fit, fit_within, fits_platform};
