//! Compilers, Python, launchers: found on the machine and identified. An identity is part of every
//! key that depends on the tool, so another compiler never gives a stale hit.

pub mod admission;
pub mod cargo;
mod compiler;
pub mod cuda;
pub mod farm;
mod find;
mod launch;
pub mod locked;
pub mod mingw;
pub mod msvc;
pub mod nvcc;
pub mod objects;
mod process;
mod python;
pub mod tch;

pub use compiler::{Compiler, Family};
pub use launch::{CACHE_VARIABLE, LAUNCH_COMMAND, Launch, step};
pub use process::{Output, Process, SANDBOX_COMMAND, VARIATION_VARIABLES, tail as tail_of};
pub use python::{Python, machine_of, minor_of};
