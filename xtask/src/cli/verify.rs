//! `verify`: digest, RECORD, recipe, signature and policy of an artifact.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::{policy_of, print_json, set_json};
use crate::artifact::audit::{Artifact, audit};
use crate::error::{Answer, Result};
use crate::ui;

/// Check a wheel or a bundle: digest, RECORD, recipe, signature, policy
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask verify dist/torch-2.12.1*.whl
  cargo xtask verify torch.whl --key build.pub
  cargo xtask verify torch.whl --policy policy.toml --json

The statement (*.provenance.dsse.json, else *.provenance.json) is looked for
beside the artifact.
Exit code 0: all that was asked for holds. 1: something does not. 2: there is
nothing to check.")]
pub struct Args {
    /// The wheel, the bundle, or the archive of compiled objects
    #[arg(value_name = "ARTIFACT")]
    artifact: PathBuf,
    /// A public key (PEM) that must have signed; may be given several times: one of them must
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// A policy: which keys, recipes, toolchains, builders (docs/provenance.md; default: TORCHMILL_POLICY)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The statement, if it does not stand beside the artifact
    #[arg(long, value_name = "FILE")]
    statement: Option<PathBuf>,
    /// Print the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad input: no readable artifact, statement, key or policy.
pub fn run(args: &Args) -> Result<Answer> {
    set_json(args.json);
    let policy = policy_of(&args.key, args.policy.as_deref())?.unwrap_or_default();
    let artifact = Artifact::open(&args.artifact)?;
    let checks = audit(&artifact, args.statement.as_deref(), &policy)?.checks;
    let failed: Vec<&str> = checks.iter().filter(|c| c.ok == Some(false)).map(|c| c.name).collect();
    if args.json {
        print_json(&serde_json::json!({
            "schema_version": 1,
            "artifact": artifact.name,
            "kind": artifact.kind,
            "ok": failed.is_empty(),
            "checks": checks,
        }));
    } else {
        println!("{}", ui::visible(&artifact.name));
        for check in &checks {
            println!("  {} {:18} {}", ui::mark(check.ok), check.name, ui::visible(&check.said));
        }
    }
    if failed.is_empty() {
        return Ok(Answer::Yes);
    }
    Ok(Answer::no("not-verified", format!("{} does not pass: {}", artifact.name, failed.join(", "))))
}
