//! `schema`: the JSON schema of recipes, for editors.

use clap::Args as ClapArgs;

use crate::error::{Error, Result};
use crate::recipe::RecipeFile;

/// Print the JSON schema of recipes, for editors
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  cargo xtask schema > recipes/recipe.schema.json")]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// As [`text`].
pub fn run(_args: Args) -> Result<()> {
    println!("{}", text()?);
    Ok(())
}

/// The schema's text.
///
/// # Errors
/// None that a user can cause.
pub fn text() -> Result<String> {
    serde_json::to_string_pretty(&schemars::schema_for!(RecipeFile)).map_err(|e| Error::world("schema", e.to_string()))
}
