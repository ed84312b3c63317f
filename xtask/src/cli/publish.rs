//! `publish`: verify, inspect, then add or push, with one verdict.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs};

use super::common::{policy_of, print_json, sink};
use super::mirror::{ServerArgs, show_added, show_missing, show_pushed};
use crate::error::{Answer, Result};
use crate::mirror::{Index, depends, publish};
use crate::ui;

/// Verify and inspect wheels, then publish them: all of them, or none
#[derive(Debug, ClapArgs)]
#[command(
    // As clap would write it, but within 80 columns.
    override_usage = "cargo xtask publish [OPTIONS] <--index DIR|--to URL|--dry-run> WHEELS",
    group = ArgGroup::new("where").required(true).args(["index", "to", "dry_run"]).multiple(true),
    after_help = "\
Examples:
  cargo xtask publish --index /srv/wheels dist
  cargo xtask publish --to https://devpi.example.com/t/s/ --key k.pub dist/*.whl
  cargo xtask publish --dry-run --policy policy.toml dist

A wheel goes out if its statement, RECORD and recipe hold, signature and policy
are as asked for, and the store of a torch has libuv. What stands beside it
(statement, bill of materials, manifest, the report of `validate --html
NAME.validate.html`) goes with it to an index; the upload API has no place for
it.
Exit code 0: published, or there before. 1: one may not go out, and nothing was
published."
)]
pub struct Args {
    /// Folder of an index (as `mirror add`)
    #[arg(long, value_name = "DIR", conflicts_with = "to")]
    index: Option<PathBuf>,
    /// Address that takes uploads (as `mirror push`)
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// A public key (PEM) that must have signed; may be given several times: one of them must
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// A policy: which keys, recipes, toolchains, builders (docs/provenance.md; default: TORCHMILL_POLICY)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Let a torch go out whose store has no libuv
    #[arg(long)]
    without_libuv: bool,
    /// Judge, and publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Wheels, or folders with wheels
    #[arg(required = true, value_name = "WHEEL|DIR")]
    what: Vec<PathBuf>,
    /// Print the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad input: no wheel, a damaged one, one without a statement about it, or whose name is taken by other bytes; a key
/// or policy that is none. The world: the index cannot be written, or the server does not answer.
pub fn run(args: &Args) -> Result<Answer> {
    let events = sink(args.json);
    let policy = policy_of(&args.key, args.policy.as_deref())?.unwrap_or_default();
    let libuv_only = !args.without_libuv;
    let judged = publish::judge(&publish::wheels(&args.what)?, &policy, libuv_only)?;
    if !args.json {
        for j in &judged {
            println!("{} {}", ui::mark(Some(j.ok)), j.filename);
            for check in &j.checks {
                println!("    {} {:18} {}", ui::mark(check.ok), check.name, ui::visible(&check.said));
            }
            if let Some(libuv) = j.libuv {
                let mark = if libuv || libuv_only { Some(libuv) } else { None };
                println!("    {} {:18} {}", ui::mark(mark), "libuv store", if libuv { "yes" } else { "no" });
            }
        }
    }
    let mut result = serde_json::json!({ "schema_version": 1, "judged": judged, "published": null });
    let wheels = match publish::accepted(&judged, libuv_only) {
        Ok(wheels) => wheels,
        Err(no) => {
            if args.json {
                print_json(&result);
            }
            return Ok(no);
        }
    };
    if !args.dry_run {
        if let Some(index) = &args.index {
            let index = Index::open_or_create(index)?;
            let added = index.add(&wheels, events.as_ref())?;
            // A companion without its torch, a torch without what it imports: named, since installers will fail.
            let missing = depends::missing_of(&index, &added, &BTreeMap::new())?;
            result["published"] = serde_json::json!(added);
            result["missing"] = serde_json::json!(missing);
            if !args.json {
                show_added(&added);
                show_missing(&missing);
            }
        } else if let Some(to) = &args.to {
            let pushed = args.server.target(to, events.as_ref())?.push(&wheels)?;
            result["published"] = serde_json::json!(pushed);
            if !args.json {
                show_pushed(&pushed);
            }
        }
    }
    if args.json {
        print_json(&result);
    }
    Ok(Answer::Yes)
}
