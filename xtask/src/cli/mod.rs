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
mod interrupt;
mod libuv;
mod lock;
mod man;
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

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Answer, Error, Exit, Result};
use crate::{logging, platform, ui};
use interrupt::Leave;

/// torchmill: builds PyTorch from source with a proven libuv TCPStore.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    about,
    max_term_width = 80,
    after_help = "\
Exit codes: 0 done, 1 the answer is no, 2 misuse or bad input, 3 the outside
world failed, 130 stopped by Ctrl-C.

TORCHMILL_LOG says what is told, as RUST_LOG does elsewhere, of the targets
command, http, key, lock, store: TORCHMILL_LOG=http=info,command=debug

Examples:
  cargo xtask build-torch        wheel and libtorch, in dist/
  cargo xtask inspect torch.whl  does its store have libuv?
  cargo xtask -v fetch           with every request that is made"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say what is done: commands, cache decisions, requests, locks; twice: environments and keys too
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = GENERAL)]
    verbose: u8,
    /// Print nothing but warnings, errors and the result
    #[arg(long, short, global = true, help_heading = GENERAL)]
    quiet: bool,
    /// Append all that -vv says to a file
    #[arg(long, global = true, value_name = "FILE", help_heading = GENERAL)]
    log: Option<std::path::PathBuf>,
}

const GENERAL: &str = "Every command";

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
    Man(man::Args),
}

impl Command {
    /// How it is left when somebody wants it to end.
    fn leave(&self) -> Leave {
        match self {
            Self::Inspect(_)
            | Self::Verify(_)
            | Self::Sign(_)
            | Self::Diff(_)
            | Self::Ci(_)
            | Self::Clean(_)
            | Self::Schema(_)
            | Self::Completions(_)
            | Self::Man(_) => Leave::AtOnce,
            Self::Doctor(args) if args.only_reads() => Leave::AtOnce,
            Self::Mirror(args) if args.serves() => Leave::Served,
            Self::Shell(_) => Leave::WithTerminal,
            _ => Leave::InOrder,
        }
    }
}

/// Parses the command line, runs the command, and says how it ended.
pub fn main() -> ExitCode {
    // Programs of our own that the build starts: no arguments of people, no output of ours.
    if let Some(code) = internal::dispatch() {
        return code;
    }
    clap_complete::CompleteEnv::with_factory(Cli::command).var(completions::VARIABLE).complete();
    platform::die_of_broken_pipes();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(Exit::Misuse as u8) } else { ExitCode::SUCCESS };
        }
    };
    common::set_quiet(cli.quiet);
    if let Err(e) = logging::start(cli.verbose, cli.log.as_deref(), || ui::Stderr) {
        ui::error(&e);
        return ExitCode::from(e.exit() as u8);
    }
    interrupt::watch(cli.command.leave());
    let result: Result<Answer> = match cli.command {
        Command::BuildTorch(args) => build_torch::run(args).map(Answer::from),
        Command::Canary(args) => canary::run(&args).map(Answer::from),
        Command::Fetch(args) => fetch::run(args).map(Answer::from),
        Command::Lock(args) => lock::run(args),
        Command::Libuv(args) => libuv::run(args).map(Answer::from),
        Command::Tree(args) => tree::run(args).map(Answer::from),
        Command::Toolchain(args) => toolchain::run(args).map(Answer::from),
        Command::Inspect(args) => inspect::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Uvstore(args) => uvstore::run(&args).map(Answer::from),
        Command::Validate(args) => validate::run(args),
        Command::Verify(args) => verify::run(&args),
        Command::Sign(args) => sign::run(&args).map(Answer::from),
        Command::Diff(args) => diff::run(&args),
        Command::Repro(args) => repro::run(&args),
        Command::Rebuild(args) => rebuild::run(&args),
        Command::Mirror(args) => mirror::run(args),
        Command::Publish(args) => publish::run(&args).map(Answer::from),
        Command::Shell(args) => shell::run(args).map(Answer::from),
        Command::Ci(args) => ci::run(&args),
        Command::Clean(args) => clean::run(args).map(Answer::from),
        Command::Schema(args) => schema::run(args).map(Answer::from),
        Command::Completions(args) => completions::run(&args).map(Answer::from),
        Command::Man(args) => man::run(&args).map(Answer::from),
    };
    // Whatever failed because it was stopped, it was stopped.
    let result = result.map_err(|e| if platform::cancelled() && e.kind().is_none() { Error::cancelled() } else { e });
    match result {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No { code, what, next }) => {
            print_failure(code, &what, &[], &next);
            ui::no(&what, &next);
            ExitCode::from(Exit::No as u8)
        }
        Err(e) => {
            print_failure(e.code(), e.what(), e.context(), e.next_steps());
            ui::error(&e);
            ExitCode::from(e.exit() as u8)
        }
    }
}

/// The one JSON document of a command that printed no result.
fn print_failure(code: &str, what: &str, context: &[String], next: &[String]) {
    if common::json_requested() && !common::result_printed() {
        common::print_json(&serde_json::json!({
            "schema_version": 1,
            "error": { "code": code, "message": what, "context": context, "next": next },
        }));
    }
}
