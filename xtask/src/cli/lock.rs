//! `lock`: writes which bytes a recipe means, or checks that what was written still holds.

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, ensure_own, print_json};
use crate::error::{Answer, Kind, Result};
use crate::recipe::{Draws, Lock};
use crate::stage;
use crate::store::write_atomically;

/// Write the lock of a recipe: every byte it draws in, by SHA-256 and size
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask lock --recipe torch-2.12.1-cpu
  cargo xtask lock --recipe torchvision-0.21.0
  cargo xtask lock --check  exit 1 if the lock is stale, change nothing")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Change nothing; exit 1 if the lock does not fit the recipe
    #[arg(long)]
    check: bool,
    /// Resolve everything anew instead of keeping what the old lock knows
    #[arg(long)]
    update: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad input: no such recipe, one of a release, or one whose requirements no wheels meet; a lock to check that cannot
/// be read. The world: a source or the package index does not answer; the lock cannot be written.
pub fn run(args: Args) -> Result<Answer> {
    let session = args.recipe.session()?;
    let name = &args.recipe.recipe;
    let (companion, torch);
    let recipe: Draws<'_> = if session.workspace.is_companion(name) {
        companion = session.workspace.companion(name)?;
        companion.draws()
    } else {
        torch = session.recipe(&args.recipe)?;
        (&torch).into()
    };
    let recipe_path = session.workspace.recipe_path(&args.recipe.recipe);
    let path = Lock::path_for(&recipe_path);
    if args.check {
        match Lock::load(recipe, &recipe_path) {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), Some(Kind::LockStale | Kind::LockMissing)) => {
                return Ok(Answer::no(e.code(), e.what())
                    .next(format!("run `cargo xtask lock --recipe {}`", args.recipe.recipe)));
            }
            Err(e) => return Err(e),
        }
        if args.recipe.json {
            print_json(&serde_json::json!({ "schema_version": 1, "recipe": recipe.name, "fresh": true }));
        } else {
            println!("{} fits the recipe", path.display());
        }
        return Ok(Answer::Yes);
    }
    if path.starts_with(&session.workspace.root) {
        ensure_own(&session.workspace)?;
    }
    // A lock that cannot be read tells nothing; one of another recipe state still tells digests.
    let old = if args.update {
        None
    } else {
        std::fs::read_to_string(&path).ok().and_then(|t| toml::from_str::<Lock>(&t).ok())
    };
    let lock = stage::lock::resolve(
        recipe,
        old.as_ref(),
        &session.store,
        session.events.as_ref(),
        args.recipe.offline,
        &session.workspace.root,
    )?;
    let text = lock.to_toml(recipe.name)?;
    write_atomically(&path, text.as_bytes())?;
    if args.recipe.json {
        print_json(
            &serde_json::json!({ "schema_version": 1, "recipe": recipe.name, "lock": path, "sources": lock.source.len(), "machines": recipe.python.machines, "pythons": recipe.python.versions }),
        );
    } else {
        println!(
            "{}: {} sources, packages for Python {} on {}",
            path.display(),
            lock.source.len(),
            recipe.python.versions.join(", "),
            recipe.python.machines.join(", ")
        );
    }
    Ok(Answer::Yes)
}
