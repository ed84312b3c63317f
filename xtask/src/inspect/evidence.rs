//! What a reader of one format finds, in words that are the same for all: proof that a class is compiled in, and
//! a libuv. Knows no format, so that the formats' readers need not know who asks them.

use serde::Serialize;

/// Why a class is taken to be compiled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Evidence {
    /// A defined symbol that only the class' own code makes.
    Symbol {
        /// Name of the symbol, mangled.
        name: String,
        /// Where it is in memory.
        address: u64,
    },
    /// A type info object (Itanium ABI) or a complete object locator (MSVC) that names the class.
    TypeInfo {
        /// Where it is in memory.
        address: u64,
        /// Where the name is that it points to.
        name: u64,
    },
}

/// A libuv and how it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uv {
    /// Version, such as `1.50.0`, where it can be told.
    pub version: Option<String>,
    /// Compiled into the library, or a library of its own.
    pub linkage: Linkage,
}

/// How libuv is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Linkage {
    /// In the library itself.
    Static,
    /// A library of its own.
    Shared,
}

impl Uv {
    pub(super) fn built_in(version: Option<String>) -> Self {
        Self { version, linkage: Linkage::Static }
    }
}
