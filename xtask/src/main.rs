//! `cargo xtask`: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    torchmill::cli::main()
}
