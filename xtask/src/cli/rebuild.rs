//! `rebuild`: an artifact again, from nothing but itself.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::{SignedArgs, ToolArgs, TrustArgs, print_json, quiet, sink, workspace};
use crate::artifact::audit::{Artifact, ENDINGS};
use crate::error::{Answer, Result};
use crate::repro::{Asked, Stated, rebuild, rebuild_stated};
use crate::stage::{Options, name_of};
use crate::store::Store;
use crate::{platform, ui};

/// Build a wheel or bundle again from the recipe, lock and patches in it, and compare
///
/// Or, from the statement about them alone (*.provenance.json), from the same recipe here.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask rebuild torch-2.12.1*.whl --key build.pub
  cargo xtask rebuild libtorch-2.12.1*.tar.gz --policy policy.toml
  cargo xtask rebuild theirs.whl --trust        after showing what will run
  cargo xtask rebuild torch-2.12.1*.provenance.json

What an artifact carries is code of whoever made it. It runs when a key that
you name signed it, or with --trust, and in a closed room: no network, no other
process, of the file system the toolchain, the downloads and a store of its own.
Nothing of an earlier build is used but downloads, which the lock judges.
Where there is only a statement, the recipe of that name here is built, in the
same room, if it is the one that the statement means; digests are compared.
Exit code 0: the same bytes. 1: they differ, and in what; or nobody trusts it.")]
pub struct Args {
    /// The wheel, the bundle, the archive of compiled objects, or a statement about them
    #[arg(value_name = "ARTIFACT")]
    artifact: PathBuf,
    #[command(flatten)]
    python: ToolArgs,
    #[command(flatten)]
    signed: SignedArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Folder of the store (default: TORCHMILL_STORE, else the user's cache folder)
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Compiler processes at a time (default: by cores and free memory)
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Never touch the network; say exactly what is missing
    #[arg(long)]
    offline: bool,
    /// Compile without a compiler cache
    #[arg(long)]
    no_compiler_cache: bool,
    /// Print the result as JSON on standard output (events as JSON lines on standard error)
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The answer is no: nobody trusts the artifact. Bad input: it is none, or carries no recipe that can be built here.
/// A stage fails.
pub fn run(args: &Args) -> Result<Answer> {
    let events = sink(args.json);
    let store = Store::open_for(args.store.as_deref(), events.as_ref())?;
    let options = Options {
        offline: args.offline,
        jobs: args.jobs.map(usize::from),
        no_compiler_cache: args.no_compiler_cache,
        ..Options::default()
    };
    let mut trust = args.trust.with(&args.signed.key, args.signed.policy.as_deref())?;
    trust.telling.extend(args.json.then_some("--json"));
    trust.telling.extend(quiet().then_some("--quiet"));
    let python = args.python.python.as_deref();
    let asked = Asked { store: &store, events: events.as_ref(), python, options, trust: &trust };
    let name = name_of(&args.artifact);
    platform::scrub_environment(None);
    platform::no_dumps(false);
    if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return stated(args, &name, &asked);
    }
    let artifact = Artifact::open(&args.artifact)?;
    let rebuilt = rebuild(&artifact, &asked)?;
    let same = rebuilt.difference.identical;
    if args.json {
        print_json(&serde_json::json!({
            "schema_version": 1,
            "artifact": artifact.name,
            "same": same,
            "rebuilt": rebuilt.file,
            "toolchain_differs": rebuilt.toolchain,
            "difference": rebuilt.difference,
        }));
    } else if same {
        println!(
            "same: {} was built again, sha256:{}",
            ui::visible(&artifact.name),
            rebuilt.difference.sha256[0].as_deref().unwrap_or_default()
        );
    } else {
        println!("differs, here: {}", ui::path(&rebuilt.file));
        super::diff::show(&rebuilt.difference);
    }
    Ok(answer(args, &artifact.name, same, &rebuilt.toolchain))
}

/// Builds again what the statement called `name` is about.
fn stated(args: &Args, name: &str, asked: &Asked<'_>) -> Result<Answer> {
    let restated = rebuild_stated(&args.artifact, &workspace()?, asked)?;
    let same = restated.files.iter().all(Stated::is_same);
    if args.json {
        print_json(&serde_json::json!({
            "schema_version": 1,
            "statement": name,
            "same": same,
            "files": restated.files,
            "toolchain_differs": restated.toolchain,
        }));
    } else {
        for file in &restated.files {
            println!("{} {} sha256:{}", ui::mark(Some(file.is_same())), ui::visible(&file.name), file.stated);
            match &file.rebuilt {
                Some(rebuilt) if !file.is_same() => println!("    here: sha256:{rebuilt}"),
                Some(_) => {}
                None => println!("    no such file came out"),
            }
        }
    }
    let answer = answer(args, &format!("what {name} is about"), same, &restated.toolchain);
    Ok(if same { answer } else { answer.next("the artifact itself tells in what: `cargo xtask rebuild ARTIFACT`") })
}

/// How it ended; in words, what of the toolchain is another one.
fn answer(args: &Args, what: &str, same: bool, toolchain: &[String]) -> Answer {
    if same {
        return Answer::Yes;
    }
    if !args.json {
        toolchain.iter().for_each(|line| println!("  toolchain: {}", ui::visible(line)));
    }
    let no = Answer::no("not-reproduced", format!("building {what} again gave other bytes"));
    if toolchain.is_empty() {
        return no;
    }
    no.next("the toolchain is another one: build in the container of ci/containers for the same bytes")
}
