//! `sign`: a DSSE envelope over the statement about an artifact.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use ed25519_dalek::SigningKey;

use super::common::{print_json, set_json};
use crate::artifact::audit::{ENDINGS, MOST_STATEMENT};
use crate::artifact::dsse::{Envelope, KeySource, key_id};
use crate::artifact::provenance::Statement;
use crate::error::{Error, Result};
use crate::platform;
use crate::store::write_atomically;
use crate::ui;

/// Sign the statement about a build (*.provenance.json) with an Ed25519 key
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  openssl genpkey -algorithm ed25519 -out signing.pem
  openssl pkey -in signing.pem -pubout -out signing.pub
  cargo xtask sign dist/torch-2.12.1*.provenance.json --key signing.pem
  cargo xtask sign dist/*.provenance.json --key env:SIGNING_KEY

The key is read from a file or an environment variable; it is never given on the
command line.")]
pub struct Args {
    /// The statement
    #[arg(value_name = "STATEMENT")]
    statement: PathBuf,
    /// The private key: a PEM file, or env:VARIABLE
    #[arg(long, value_name = "FILE|env:VARIABLE", allow_hyphen_values = true, value_hint = clap::ValueHint::FilePath)]
    key: String,
    /// Print the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// As [`key_source`], [`KeySource::load`] and [`sign`].
pub fn run(args: &Args) -> Result<()> {
    set_json(args.json);
    let key = key_source(&args.key)?;
    let secret = key.load()?;
    if key.readable_by_others() {
        eprintln!("warning: the key's file can be read by others than its owner: chmod 600 it");
    }
    let (path, id) = sign(&args.statement, &secret)?;
    if args.json {
        print_json(&serde_json::json!({ "schema_version": 1, "envelope": path, "keyid": id }));
    } else {
        println!("{}\nsigned by the key {id}", ui::path(&path));
    }
    Ok(())
}

/// Reads what `--key` and `--sign` name. Not clap's work: it would repeat the value, which may be a
/// key that somebody pasted.
///
/// # Errors
/// Misuse: it is a key itself, or names no variable.
pub fn key_source(text: &str) -> Result<KeySource> {
    text.parse().map_err(|e: String| Error::misuse("key", e))
}

/// Writes the envelope beside the statement at `path`; returns where, and the key's id.
///
/// # Errors
/// Bad input: it is not there, or no statement. The world: the envelope cannot be written.
pub fn sign(path: &std::path::Path, secret: &SigningKey) -> Result<(PathBuf, String)> {
    let [signed, plain] = ENDINGS;
    let shown = path.display().to_string();
    let Some(stem) = shown.strip_suffix(plain) else {
        return Err(Error::misuse("statement", format!("{shown} is no statement: its name does not end with {plain}")));
    };
    let text = platform::read_text(path, MOST_STATEMENT)
        .map_err(|e| Error::misuse("statement", format!("{shown} cannot be read: {e}")))?;
    let bytes = text.into_bytes();
    Statement::parse(&bytes, &shown)?;
    let to = PathBuf::from(format!("{stem}{signed}"));
    write_atomically(&to, &Envelope::sign(&bytes, secret).to_bytes()?)?;
    Ok((to, key_id(&secret.verifying_key())))
}
