//! The stages, a file each. What they need of one another, and in which order they run, says
//! [`super::graph`].

pub mod buildenv;
pub mod bundle;
pub mod canary;
pub mod companion;
pub mod companionenv;
pub mod compile;
pub mod configure;
pub mod cuda;
pub mod fetch;
pub mod libuv;
pub mod prefix;
pub mod provenance;
pub mod set;
pub mod shard;
pub mod testenv;
pub mod toolchain;
pub mod tree;
pub mod uvstore;
pub mod verify;
pub mod wheel;
