//! The stages: each is a function from named inputs to one output folder, under a key that digests all it reads.
//! [`graph`] has the table of them, [`engine`] runs it, [`steps`] has a file for each:
//!
//! ```text
//! fetch                                      everything that the lock names, by digest
//! tree          ◄─ fetch                     the source, safely unpacked and patched
//! buildenv      ◄─ fetch                     the build tools, every wheel by its hash
//! prefix        ◄─ fetch                     what is used as it comes: BLAS, ccache, CUDA's packages
//! toolchain     ◄─ fetch                     compiler, linker and sysroot, of locked packages
//! libuv         ◄─ buildenv, toolchain       from source, static and position independent
//! cuda          ◄─ prefix, toolchain         the toolkit, put together of its packages and tried
//! configure     ◄─ tree, libuv, cuda         CMake, and what it decided held against the recipe
//! canary        ◄─ configure                 a libuv store of this very build serves, or all stops here
//! shard         ◄─ canary                    a part of the objects, where several machines share a cache
//! compile       ◄─ canary                    all objects and libraries, without network
//! wheel         ◄─ compile                   self-contained, tagged by its symbols, the same every time
//! bundle        ◄─ wheel                     the libtorch archive, of the same install tree
//! provenance    ◄─ bundle                    manifest, bill of materials and statement
//! testenv       ◄─ fetch                     the packages that a torch is tried out with
//! verify        ◄─ provenance, testenv       both are installed and run before they are called done
//! companionenv  ◄─ fetch                     a companion's build tools, every wheel by its hash
//! companion     ◄─ provenance, companionenv  a package compiled against this wheel, and pinned to it
//! set           ◄─ companion                 torch and companions, installed together, judged and run
//! uvstore       ◄─ buildenv, toolchain       the store of this torch as a program of its own
//! ```

pub mod advice;
mod build;
pub mod compiled;
mod drawn;
pub mod engine;
pub mod environment;
pub mod farm;
pub mod graph;
pub mod lock;
mod locked;
pub mod objects;
mod origin;
pub mod peers;
mod publish;
pub mod shared;
mod shell;
pub mod step;
pub mod steps;
mod timing;
pub mod uvstore_pack;
mod work;

pub use build::{Build, Chosen, Downloads, Options, Part};
pub use engine::{
    Plan, PlannedStage, State, compiler_cache, ensure, ensure_compiler, ensure_of, plan, stored, timings,
};
pub use farm::Farm;
pub use graph::{BESIDE, ORDER};
pub use origin::{name_of, origin};
pub use publish::{Artifacts, Files, Outcome, SetFiles, files, made, run};
pub use shared::{
    Shared,
    bucket::Aws,
    signed::Trust,
    storage::{Credentials, Storage},
};
pub use shell::shell;
pub use step::{Done, Step};
pub use timing::Timing;
pub use work::ninja::jobs;
pub use work::{CompilerCache, Work};
