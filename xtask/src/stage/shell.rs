//! shell: not a stage of the pipeline, but its environment for a person.

use std::ffi::OsString;
use std::process::Command;

use super::build::Build;
use super::engine::{ensure, ensure_needs, work};
use super::steps::configure::Configure;
use crate::error::{Error, Result};
use crate::toolchain::Process;

/// A command (an interactive shell if `argv` is empty) in the configured work folder, with the
/// environment and the missing network of the build; what the build does not see of the machine is hidden.
///
/// # Errors
/// What configure needs cannot be made. That configure itself fails is only a warning.
pub fn shell(build: &Build<'_>, argv: &[OsString]) -> Result<Command> {
    ensure_needs::<Configure>(build)?;
    let work = work(build)?;
    // A person who debugs a configure that fails wants the folder all the same.
    if let Err(e) = ensure::<Configure>(build) {
        build.events.warn(format!("configure failed; the shell opens in the folder as it is\n{e}"));
    }
    let (program, rest) = match argv.split_first() {
        Some((program, rest)) => (program.clone(), rest.to_vec()),
        None => (OsString::from("/bin/sh"), vec![OsString::from("-i")]),
    };
    let mut process =
        Process::new(program).args(rest).hide(build.compiler.hidden()).envs(build.torch_env(&work)).cwd(work.src());
    for name in ["TERM", "COLORTERM"] {
        if let Some(value) = std::env::var_os(name) {
            process = process.env(name, value);
        }
    }
    process.command().map_err(|e: Error| e.doing("opening the shell"))
}
