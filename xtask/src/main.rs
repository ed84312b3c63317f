//! `cargo xtask`: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask::cli::main()
}
