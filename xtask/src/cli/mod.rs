//! The command line: one file a command, which turns arguments into a plan and prints what came
//! out. No work is done here, and nothing below knows clap.

#![allow(clippy::print_stdout, clippy::print_stderr)] // commands print their results

mod build_torch;
mod canary;
mod ci;
mod clean;
mod common;
mod completions;
mod diff;
mod doctor;
mod fetch;
mod inspect;
mod internal;
mod libuv;
mod lock;
mod mirror;
mod publish;
mod rebuild;
mod repro;
mod schema;
mod shell;
mod sign;
mod toolchain;
mod tree;
mod uvstore;
mod validate;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Exit;
use crate::{platform, ui};

/// torchmill: builds PyTorch from source with a proven libuv TCPStore.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 the answer is no, 2 misuse or bad input, 3 the outside world failed.\n\nExample:\n  cargo xtask build-torch            wheel and libtorch of the default recipe, in dist/"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    BuildTorch(build_torch::Args),
    Canary(canary::Args),
    Fetch(fetch::Args),
    Lock(lock::Args),
    Libuv(libuv::Args),
    Tree(tree::Args),
    Toolchain(toolchain::Args),
    Inspect(inspect::Args),
    Doctor(doctor::Args),
    Uvstore(uvstore::Args),
    Validate(validate::Args),
    Verify(verify::Args),
    Sign(sign::Args),
    Diff(diff::Args),
    Repro(repro::Args),
    Rebuild(rebuild::Args),
    Mirror(mirror::Args),
    Publish(publish::Args),
    Shell(shell::Args),
    Ci(ci::Args),
    Clean(clean::Args),
    Schema(schema::Args),
    Completions(completions::Args),
}

/// Parses the command line, runs the command, and says how it ended.
pub fn main() -> ExitCode {
    // Programs of our own that the build starts: no arguments of people, no output of ours.
    if let Some(code) = internal::dispatch() {
        return code;
    }
    platform::die_of_broken_pipes();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(Exit::Misuse as u8) } else { ExitCode::SUCCESS };
        }
    };
    if let Err(e) = ctrlc::set_handler(|| {
        if platform::cancelled() {
            // Asked twice: whoever waits for children stops waiting.
            std::process::exit(Exit::World as i32);
        }
        platform::cancel();
        // Said after it is done, and by what cannot fail: whoever listened may be gone.
        let _ = std::io::stderr()
            .write_all(b"\nstopping: children are ended, nothing half-written stays (again: at once)\n");
    }) {
        eprintln!("warning: Ctrl-C will not be handled: {e}");
    }
    let result = match cli.command {
        Command::BuildTorch(args) => build_torch::run(args),
        Command::Canary(args) => canary::run(&args),
        Command::Fetch(args) => fetch::run(args),
        Command::Lock(args) => lock::run(args),
        Command::Libuv(args) => libuv::run(args),
        Command::Tree(args) => tree::run(args),
        Command::Toolchain(args) => toolchain::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Uvstore(args) => uvstore::run(&args),
        Command::Validate(args) => validate::run(args),
        Command::Verify(args) => verify::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Repro(args) => repro::run(&args),
        Command::Rebuild(args) => rebuild::run(&args),
        Command::Mirror(args) => mirror::run(args),
        Command::Publish(args) => publish::run(&args),
        Command::Shell(args) => shell::run(args),
        Command::Ci(args) => ci::run(&args),
        Command::Clean(args) => clean::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Completions(args) => completions::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if common::json_requested() && !common::result_printed() {
                common::print_json(&serde_json::json!({
                    "schema_version": 1,
                    "error": { "code": e.code(), "message": e.what(), "context": e.context(), "next": e.next_steps() },
                }));
            }
            ui::error(&e);
            ExitCode::from(e.exit() as u8)
        }
    }
}
