//! Artifacts: deterministic archives, wheels, what they are made of and who says so.

pub mod audit;
pub mod deflate;
pub mod dsse;
pub mod json;
pub mod manifest;
pub mod origin;
pub mod policy;
pub mod provenance;
pub mod repair;
pub mod sbom;
pub mod trust;
pub mod wheel;
pub mod zip;

pub use deflate::GzipWriter;
pub use zip::{Content, Member, ZipWriter, civil_date};
