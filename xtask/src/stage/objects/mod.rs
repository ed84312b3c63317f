//! Compiled objects that travel: those of a finished compile become one archive ([`export()`]), which another machine
//! takes in ([`import()`]); a build that used some compiles a sample of them again ([`audit`]). What an object is known by,
//! and how it stands in for a compile, is told in [`crate::toolchain::objects`]; why it is done this way, in
//! `docs/farm.md`.

pub mod about;
pub mod audit;
pub mod command;
pub mod export;
pub mod import;

pub use about::About;
pub use audit::Origins;
pub use export::{Exported, export};
pub use import::{Imported, import};
