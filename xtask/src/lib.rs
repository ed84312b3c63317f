//! torchmill: turns a recipe into a PyTorch wheel and a libtorch bundle whose `TCPStore` runs on
//! libuv, and proves it.
//!
//! The folders follow a build from the outside in: `cli` → `ui`, `ci`, `dist`, `draft`, `farm`, `mirror`, `validate`, `repro`,
//! `doctor` → `stage` → `diff`, `artifact`, `compat`, `inspect` → `source`, `toolchain` → `wheel`, `store` → `recipe` →
//! `logging`, `platform`, `event`, `error`. A module imports only from its own layer and those to its right, and never
//! in a circle
//! (`tests/architecture.rs` holds it). Stages emit [`event::Event`]s; only [`ui`] draws.

pub mod artifact;
pub mod ci;
pub mod cli;
pub mod compat;
pub mod diff;
pub mod dist;
pub mod doctor;
pub mod draft;
pub mod error;
pub mod event;
pub mod farm;
pub mod inspect;
pub mod logging;
pub mod mirror;
pub mod platform;
pub mod recipe;
pub mod repro;
pub mod source;
pub mod stage;
pub mod store;
pub mod toolchain;
pub mod ui;
pub mod validate;
pub mod wheel;

pub use error::{Answer, Error, Exit, Kind, Result};
