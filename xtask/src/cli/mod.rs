//! The command line: one file a command, which turns arguments into a plan and prints what came
//! out. No work is done here, and nothing below knows clap.

#![allow(clippy::print_stdout, clippy::print_stderr)] // commands print their results

mod build_torch;
mod cache;
mod canary;
mod ci;
mod clean;
mod common;
mod compat;
mod completions;
mod diff;
mod dist;
mod doctor;
mod farm;
mod fetch;
mod identity;
mod inspect;
mod internal;
mod interrupt;
mod libuv;
mod lock;
mod man;
mod mirror;
mod publish;
mod rebuild;
mod recipe;
mod repro;
mod schema;
mod shared;
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
    version = identity::version(),
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
    Recipe(recipe::Args),
    Libuv(libuv::Args),
    Tree(tree::Args),
    Toolchain(toolchain::Args),
    Inspect(inspect::Args),
    Doctor(doctor::Args),
    Compat(compat::Args),
    Uvstore(uvstore::Args),
    Validate(validate::Args),
    Verify(verify::Args),
    Sign(sign::Args),
    Diff(diff::Args),
    Repro(repro::Args),
    Rebuild(rebuild::Args),
    Cache(cache::Args),
    Farm(farm::Args),
    Mirror(mirror::Args),
    Publish(publish::Args),
    Shell(shell::Args),
    Ci(ci::Args),
    Dist(dist::Args),
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
            | Self::Farm(_)
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
            identity::print(&e);
            return if e.use_stderr() { ExitCode::from(Exit::Misuse as u8) } else { ExitCode::SUCCESS };
        }
    };
    common::set_quiet(cli.quiet);
    if let Err(e) = logging::start(cli.verbose, cli.log.as_deref(), || ui::Stderr) {
        ui::error(&e);
        return ExitCode::from(e.exit() as u8);
    }
    interrupt::watch(cli.command.leave(), cli.quiet);
    let result: Result<Answer> = match cli.command {
        Command::BuildTorch(args) => ended(build_torch::run(args)),
        Command::Canary(args) => ended(canary::run(&args)),
        Command::Fetch(args) => ended(fetch::run(args)),
        Command::Lock(args) => ended(lock::run(args)),
        Command::Recipe(args) => ended(recipe::run(args)),
        Command::Libuv(args) => ended(libuv::run(args)),
        Command::Tree(args) => ended(tree::run(args)),
        Command::Toolchain(args) => ended(toolchain::run(args)),
        Command::Inspect(args) => ended(inspect::run(args)),
        Command::Doctor(args) => ended(doctor::run(args)),
        Command::Compat(args) => ended(compat::run(&args)),
        Command::Uvstore(args) => ended(uvstore::run(&args)),
        Command::Validate(args) => ended(validate::run(args)),
        Command::Verify(args) => ended(verify::run(&args)),
        Command::Sign(args) => ended(sign::run(&args)),
        Command::Diff(args) => ended(diff::run(&args)),
        Command::Repro(args) => ended(repro::run(&args)),
        Command::Rebuild(args) => ended(rebuild::run(&args)),
        Command::Cache(args) => ended(cache::run(&args)),
        Command::Farm(args) => ended(farm::run(&args)),
        Command::Mirror(args) => ended(mirror::run(args)),
        Command::Publish(args) => ended(publish::run(&args)),
        Command::Shell(args) => ended(shell::run(args)),
        Command::Ci(args) => ended(ci::run(&args)),
        Command::Dist(args) => ended(dist::run(&args)),
        Command::Clean(args) => ended(clean::run(args)),
        Command::Schema(args) => ended(schema::run(args)),
        Command::Completions(args) => ended(completions::run(&args)),
        Command::Man(args) => ended(man::run(&args)),
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

/// Most commands have nothing to answer but that it is done.
fn ended(result: Result<impl Into<Answer>>) -> Result<Answer> {
    result.map(Into::into)
}

/// The one JSON document of a command that printed no result.
fn print_failure(code: &str, what: &str, context: &[String], next: &[String]) {
    if common::json_requested() && !common::result_printed() {
        common::print_json(&serde_json::json!({
            "schema_version": 1,
            "error": {
                "code": code,
                "message": ui::name::as_typed(what),
                "context": context,
                "next": next.iter().map(|n| ui::name::as_typed(n)).collect::<Vec<_>>(),
            },
        }));
    }
}
