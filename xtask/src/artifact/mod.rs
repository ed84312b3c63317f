//! Artifacts: deterministic archives, wheels, the manifest.

pub mod deflate;
pub mod manifest;
pub mod policy;
pub mod repair;
pub mod wheel;
pub mod zip;

pub use deflate::GzipWriter;
pub use zip::{Content, Member, ZipWriter, civil_date};
