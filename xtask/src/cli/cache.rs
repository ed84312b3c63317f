//! `cache`: the compiled objects of one recipe, Python and compiler as one signed archive, there and back.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::common::{RecipeArgs, SignedArgs, ToolArgs, TrustArgs, print_json, set_json};
use crate::artifact::audit::Artifact;
use crate::artifact::dsse::KeySource;
use crate::error::{Error, Result};
use crate::repro::foreign;
use crate::stage::Options;
use crate::stage::objects::{self, Exported, Imported};
use crate::store::digest_file;
use crate::{platform, ui};

/// Take the compiled objects of a build elsewhere, or those of another machine in
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask cache export --recipe torch-2.12.1-cpu --sign signing.pem
  cargo xtask cache import torch-2.12.1-cpu-cp311-x86_64.objects.tar.gz \\
      --key build.pub
  cargo xtask cache remove --recipe torch-2.12.1-cpu

Why objects travel this way, and what is promised: docs/farm.md.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Export(Export),
    Import(Import),
    Remove(Remove),
}

/// Write the objects of a finished compile as one archive, with a statement about it
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask cache export
  cargo xtask cache export --recipe torch-2.12.1-cpu --python 3.12 --out objects
  cargo xtask cache export --sign env:SIGNING_KEY --json

The archive is the same, byte for byte, whoever compiles the same recipe with
the same compiler: build it yourself without a cache, export, and compare one
digest. The signed statement stands beside it (*.objects.provenance.dsse.json);
publish both.")]
struct Export {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
    /// Folder for the archive and its statement
    #[arg(long, value_name = "DIR", default_value = "dist")]
    out: PathBuf,
    /// Sign the statement: an Ed25519 key (PEM file), or env:VARIABLE
    #[arg(long, value_name = "FILE|env:VARIABLE", allow_hyphen_values = true)]
    sign: Option<String>,
}

/// Take in an archive of objects, if somebody whom you trust signed it
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask cache import torch-2.12.1-cpu-cp311-x86_64.objects.tar.gz \\
      --key build.pub
  cargo xtask cache import objects.objects.tar.gz --policy policy.toml --json
  cargo xtask cache import theirs.objects.tar.gz --trust

Objects are code of whoever compiled them. They are used when a key that you
name signed them, or with --trust; only where the command and every file that
it reads are the same; and a sample is compiled again (build-torch
--cache-audit).
Exit code 1: nobody trusts it. 2: it is damaged, or of another recipe, Python
or compiler.")]
struct Import {
    /// The archive (*.objects.tar.gz)
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// Recipe that it is for (default: the one that it names)
    #[arg(long, short, value_name = "NAME")]
    recipe: Option<String>,
    #[command(flatten)]
    python: ToolArgs,
    #[command(flatten)]
    signed: SignedArgs,
    /// The statement, if it does not stand beside the archive
    #[arg(long, value_name = "FILE")]
    statement: Option<PathBuf>,
    /// Take it in though no trusted key signed it; with a digest, that archive and no other
    #[arg(long, value_name = "SHA256", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    trust: Option<String>,
    /// Folder of the store (default: TORCHMILL_STORE, else the user's cache folder)
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Print the result as JSON on standard output (events as JSON lines on standard error)
    #[arg(long)]
    json: bool,
}

/// Remove the objects that came in for a recipe
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask cache remove
  cargo xtask cache remove --recipe torch-2.12.1-cpu --python 3.12

What a build put in place already stays in its work folder: `cargo xtask clean`
removes that.")]
struct Remove {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
}

/// Runs the command.
///
/// # Errors
/// Bad input: a recipe, a key or an archive that cannot be used; nothing was compiled that could be exported.
/// The answer is no: nobody trusts the archive. The world: ninja, or the disk.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Export(args) => export(args),
        What::Import(args) => import(args),
        What::Remove(args) => remove(args),
    }
}

fn export(args: &Export) -> Result<()> {
    let session = args.recipe.session()?;
    // A key that cannot be used is found out before the work, and nothing that is run finds it.
    let key = args.sign.as_deref().map(super::sign::key_source).transpose()?;
    let secret = key.as_ref().map(KeySource::load).transpose()?;
    if let Some(KeySource::Environment(name)) = &key {
        platform::scrub_environment(Some(name));
    }
    let build = session.build(&args.recipe, &args.python, Options { out: args.out.clone(), ..Options::default() })?;
    let exported = {
        let _said = ui::Waiting::new(|| "putting the objects together".into());
        objects::export(&build, &args.out)?
    };
    let signed = secret.as_ref().map(|secret| super::sign::sign(&exported.statement, secret)).transpose()?;
    let envelope = signed.as_ref().map(|(path, _)| path);
    if args.recipe.json {
        print_json(&serde_json::json!({ "schema_version": 1, "exported": exported, "envelope": envelope }));
        return Ok(());
    }
    let Exported { file, sha256, size, statement, about } = &exported;
    println!("{}\n  sha256:{sha256}  {}", ui::path(file), ui::bytes(*size));
    println!("  {} objects, {} unpacked, by {}", about.objects, ui::bytes(about.bytes), about.compiler);
    for (why, n) in &about.left_out {
        println!("  left out: {n} objects: {why}");
    }
    match signed {
        Some((envelope, id)) => println!("  {} signed by the key {id}", envelope.display()),
        None => println!("  {} is not signed: `cargo xtask sign` does it", statement.display()),
    }
    Ok(())
}

fn import(args: &Import) -> Result<()> {
    set_json(args.json);
    let artifact = Artifact::open(&args.archive)?;
    if !artifact.is_objects() {
        return Err(Error::misuse(
            "no-objects",
            format!("{} is no archive of compiled objects: its name does not end with .objects.tar.gz", artifact.name),
        )
        .next("`cargo xtask cache export` writes one"));
    }
    let trust = TrustArgs { trust: args.trust.clone(), unconfined: false };
    let trust = trust.with(&args.signed.key, args.signed.policy.as_deref())?;
    let _said = ui::Waiting::new(|| "looking at the archive".into());
    let origin = artifact.origin()?.ok_or_else(|| {
        Error::misuse("no-objects", format!("{} names no recipe: `cache export` did not make it", artifact.name))
            .next("fetch it again, and compare its digest with the one that was published")
    })?;
    let facts = origin.facts()?;
    let recipe = RecipeArgs {
        recipe: args.recipe.clone().unwrap_or_else(|| facts.recipe.clone()),
        store: args.store.clone(),
        offline: true,
        json: args.json,
    };
    let session = recipe.session()?;
    let (sha256, _) = digest_file(&artifact.path)?;
    let writer =
        foreign::admit_objects(&artifact, &sha256, args.statement.as_deref(), &trust, session.events.as_ref())?;
    let python = ToolArgs { python: args.python.python.clone().or(facts.python), ..args.python.clone() };
    let build = session.read(&recipe, &python, Options::default())?;
    let imported = objects::import(&build, &artifact.path, &sha256, &writer)?;
    show(args.json, &imported, session.events.as_ref());
    Ok(())
}

fn show(json: bool, imported: &Imported, events: &dyn crate::event::Sink) {
    if imported.usable < imported.objects {
        let first = imported.other_headers.first().map_or("", String::as_str);
        events.warn(format!(
            "{} of {} objects will be compiled here: {} headers of the system are other ones than theirs, such as {first}",
            imported.objects - imported.usable,
            imported.objects,
            imported.other_headers.len()
        ));
    }
    if json {
        print_json(&serde_json::json!({ "schema_version": 1, "imported": imported }));
        return;
    }
    // Whoever made the archive named it, and may have written who answers for it.
    println!("{}\n  sha256:{}", ui::visible(&imported.archive), imported.sha256);
    println!(
        "  {} objects, {}; {} answers for them",
        imported.usable,
        ui::bytes(imported.bytes),
        ui::visible(&imported.writer)
    );
    println!("  the next build of this recipe uses them: cargo xtask build-torch");
}

fn remove(args: &Remove) -> Result<()> {
    let session = args.recipe.session()?;
    let build = session.read(&args.recipe, &args.python, Options::default())?;
    let was = objects::import::supply(&build)?.map(|(_, record)| record);
    objects::import::forget(&build)?;
    if args.recipe.json {
        print_json(&serde_json::json!({ "schema_version": 1, "removed": was }));
        return Ok(());
    }
    match was {
        Some(record) => println!("removed: {}, {} objects", ui::visible(&record.archive), record.objects),
        None => println!("nothing came in for {} and Python {}", build.recipe.name, build.python.minor()),
    }
    Ok(())
}
