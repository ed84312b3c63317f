//! What is done with every byte of other people's files. It is a crate of its own to be compiled with all
//! optimizations where the rest of torchmill is compiled fast (`[profile.dev]` of the workspace).
//!
//! Reading at an offset ([`ReadAt`]), the strict reader of zip archives ([`Archive`]), names that mean one file to
//! every reader ([`names`]), inflating on two cores ([`inflate`]), the names of classes in a library
//! ([`marker`]), the names that C++ text declares ([`declared`]), digests ([`digest`]), what stands in a folder and whether it still does ([`listing`]), and logs made
//! comparable ([`text`]).

mod archive;
pub mod declared;
pub mod digest;
mod directory;
pub mod inflate;
pub mod listing;
pub mod marker;
pub mod names;
mod read;
pub mod text;

use std::{fmt, io};

pub use archive::{Archive, Member, damaged};
pub use directory::{Directory, open_zip};
pub use read::{Cursor, FileAt, ReadAt, fill, pump, read_up_to, slice, u16_at, u32_at, u64_at};

/// Why an archive is not read.
#[derive(Debug)]
pub enum Error {
    /// It is broken, or readers would understand it differently: in what.
    Unfit(String),
    /// Its bytes cannot be had.
    Io(io::Error),
}

/// Short form used in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(what) => f.write_str(what),
            Self::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unfit(_) => None,
            Self::Io(e) => Some(e),
        }
    }
}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}
