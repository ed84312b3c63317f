//! The stages: each is a function from named inputs to one output folder, under a key that digests all it reads.
//! [`graph`] has the table of them, [`engine`] runs it, [`steps`] has a file for each:
//!
//! ```text
//! ```

mod build;
pub mod engine;
pub mod environment;
pub mod graph;
pub mod lock;
mod origin;
pub mod peers;
mod publish;
mod shell;
pub mod step;
pub mod steps;
mod timing;
mod work;

pub use build::{Build, Chosen, Downloads, Options};
pub use engine::{Plan, PlannedStage, State, compiler_cache, ensure, ensure_of, plan, stored, timings};
pub use graph::ORDER;
pub use origin::origin;
pub use publish::{Artifacts, Files, Outcome, files, run};
pub use shell::shell;
pub use step::{Done, Step};
pub use timing::Timing;
pub use work::ninja::jobs;
pub use work::{CompilerCache, Work};
