//! `mirror`: an internal wheel index: what is in it, a server for it, uploads to others.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use zeroize::Zeroizing;

use super::common::{print_json, sink};
use crate::error::{Error, Result};
use crate::event::Sink;
use crate::mirror::{self, Index, Outcome, push, serve};
use crate::platform;
use crate::source::http_agent;
use crate::ui;

/// Keep, serve and fill an internal wheel index
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask mirror add --index /srv/wheels dist/*.whl
  cargo xtask mirror serve --index /srv/wheels --port 8080
  cargo xtask mirror push --to https://devpi.example.com/team/stable/ dist/*.whl
  cargo xtask mirror check --index /srv/wheels

  pip install --index-url http://localhost:8080/simple/ 'torch==2.6.0+cpu.libuv'

The folder is a static index (PEP 503, 691, 700, 714, 592): any web server or object store can serve it.
A published file never changes; docs/mirror.md says how to use it beside another index, safely.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Print nothing but warnings, errors and the result
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish wheels: all of them, or none
    Add {
        /// Folder of the index; made where nothing is
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// Wheels; statements, bills of materials and manifests beside them come along
        #[arg(required = true)]
        wheels: Vec<PathBuf>,
    },
    /// Mark a file so that installers leave it out unless it is asked for exactly (PEP 592)
    Yank {
        /// Folder of the index
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// File name
        file: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// Take it back
        #[arg(long, conflicts_with = "reason")]
        undo: bool,
    },
    /// Remove a file; its release stays taken for ever: only the same bytes may come back
    Remove {
        /// Folder of the index
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// File name
        file: String,
        /// Why: what people read who look for it
        #[arg(long)]
        reason: String,
    },
    /// Look whether everything that the index names exists and hashes right, and every wheel is what it says
    Check {
        /// Folder of the index
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// Only existence and digests: do not examine the wheels
        #[arg(long)]
        shallow: bool,
    },
    /// Serve an index: on this machine only, unless told otherwise
    Serve(ServeArgs),
    /// Upload wheels to a server: pypiserver, devpi, this one
    Push(PushArgs),
}

#[derive(Debug, ClapArgs)]
struct ServeArgs {
    /// Folder of the index
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Port; 0 for a free one, which is printed
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// File with the token that readers need
    #[arg(long, value_name = "FILE")]
    read_token: Option<PathBuf>,
    /// File with the token that uploaders need (else TORCHMILL_UPLOAD_TOKEN; without both: no uploads)
    #[arg(long, value_name = "FILE")]
    upload_token: Option<PathBuf>,
    /// Largest upload, MiB
    #[arg(long, value_name = "MIB", default_value_t = 8192)]
    max_upload: u64,
    /// Connections at a time; the stillest one gives way to a new one, else more wait
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    max_connections: u32,
    /// Connections at a time from one address (default: half of all; behind a proxy: as many as all)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    max_connections_per_address: Option<u32>,
    /// How long a client may take to send the head of a request, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    head_timeout: u64,
    /// How long a client may let a transfer stand still, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    stall_timeout: u64,
}

#[derive(Debug, ClapArgs)]
struct PushArgs {
    /// Where uploads go: the address that twine would be given
    #[arg(long, value_name = "URL")]
    to: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Wheels
    #[arg(required = true)]
    wheels: Vec<PathBuf>,
}

/// What is known of a server that is uploaded to.
#[derive(Debug, ClapArgs)]
pub struct ServerArgs {
    /// Its simple index, where it cannot be found out (devpi: below +simple/, else below simple/)
    #[arg(long, value_name = "URL")]
    simple: Option<String>,
    /// Program that prints the password, or username=… and password=… lines; the host is its last argument
    #[arg(long, value_name = "COMMAND")]
    credential_command: Option<String>,
}

impl ServerArgs {
    /// The server that takes uploads at the address `to`.
    pub fn target<'a>(&self, to: &str, events: &'a dyn Sink) -> Result<push::Target<'a>> {
        let url = push::address(to)?;
        let credentials = push::Credentials::find(&url, self.credential_command.as_deref())?;
        let index = self.simple.as_deref().map(push::address).transpose()?;
        Ok(push::Target { url, index, credentials, events, agent: http_agent() })
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let events = sink(args.json, args.quiet);
    let print = |value: serde_json::Value, text: &dyn Fn()| if args.json { print_json(&value) } else { text() };
    match args.command {
        Command::Add { index, wheels } => {
            let wheels = push::examine(&wheels)?;
            let added = Index::open_or_create(&index)?.add(&wheels, events.as_ref())?;
            print(serde_json::json!({ "schema_version": 1, "added": added }), &|| show_added(&added));
            Ok(())
        }
        Command::Yank { index, file, reason, undo } => {
            let index = Index::open(&index)?;
            if undo {
                index.unyank(&file, events.as_ref())?
            } else {
                index.yank(&file, reason.as_deref(), events.as_ref())?
            }
            print(serde_json::json!({ "schema_version": 1, "file": file, "yanked": !undo }), &|| {
                println!("{file}: {}", if undo { "no longer yanked" } else { "yanked" });
            });
            Ok(())
        }
        Command::Remove { index, file, reason } => {
            Index::open(&index)?.remove(&[&file], &reason, events.as_ref())?;
            print(serde_json::json!({ "schema_version": 1, "file": file, "removed": true }), &|| {
                println!("{file}: removed; only the same bytes may come back");
            });
            Ok(())
        }
        Command::Check { index, shallow } => check(&Index::open(&index)?, shallow, args.json),
        Command::Serve(serve) => run_server(&serve, args.quiet),
        Command::Push(push) => run_push(&push, events.as_ref(), args.json),
    }
}

fn check(index: &Index, shallow: bool, json: bool) -> Result<()> {
    let (count, findings) = mirror::check(index, !shallow)?;
    let serious = findings.iter().filter(|f| f.serious).count();
    if json {
        print_json(
            &serde_json::json!({ "schema_version": 1, "files": count, "findings": findings, "ok": serious == 0 }),
        );
    } else {
        for f in &findings {
            println!("{} {}: {}", ui::mark(if f.serious { Some(false) } else { None }), f.path, f.what);
        }
        println!("{count} files, {serious} of {} findings serious", findings.len());
    }
    if serious == 0 {
        Ok(())
    } else {
        Err(Error::no("index-damaged", format!("{serious} things in the index are not right")))
    }
}

fn token(file: Option<&Path>, variable: Option<&str>) -> Result<Option<serve::Token>> {
    platform::forbid_core_dumps();
    let text = match (file, variable.and_then(|v| std::env::var(v).ok())) {
        (Some(file), _) => std::fs::read_to_string(file).map_err(|e| {
            // Whoever gave the token in place of its file shall not find it in a log.
            Error::misuse("token", format!("the file with the token cannot be read: {e}"))
                .next("give the path of a file that holds the token, not the token")
        })?,
        (None, Some(text)) => text,
        (None, None) => return Ok(None),
    };
    let text = Zeroizing::new(text);
    let text = text.trim();
    if text.len() < 16 {
        return Err(Error::misuse(
            "token",
            format!("a token of {} characters is too short to be one: 16 or more", text.len()),
        )
        .next("make one with: head -c 24 /dev/urandom | base64"));
    }
    Ok(Some(serve::Token::new(text)))
}

fn run_server(args: &ServeArgs, quiet: bool) -> Result<()> {
    let options = serve::Options {
        address: SocketAddr::new(args.bind, args.port),
        read: token(args.read_token.as_deref(), None)?,
        upload: token(args.upload_token.as_deref(), Some("TORCHMILL_UPLOAD_TOKEN"))?,
        most_upload: args.max_upload << 20,
        most_connections: args.max_connections as usize,
        most_of_one: args.max_connections_per_address.map(|n| n as usize),
        head_timeout: Duration::from_secs(args.head_timeout),
        stall_timeout: Duration::from_secs(args.stall_timeout),
        log: !quiet,
    };
    let open = !args.bind.is_loopback() && options.read.is_none();
    // Whoever may upload may begin.
    let index = if options.upload.is_some() { Index::open_or_create(&args.index)? } else { Index::open(&args.index)? };
    serve::serve(index, options, |address| {
        // Whoever started it may not listen: that is no reason not to serve.
        let _ = writeln!(std::io::stdout(), "http://{address}/");
        if open && !quiet {
            let _ =
                writeln!(std::io::stderr(), "everyone who reaches {address} can read this index (--read-token)");
        }
    })
}

fn run_push(args: &PushArgs, events: &dyn Sink, json: bool) -> Result<()> {
    let target = args.server.target(&args.to, events)?;
    let pushed = target.push(&push::examine(&args.wheels)?)?;
    if json {
        print_json(&serde_json::json!({ "schema_version": 1, "pushed": pushed }));
    } else {
        show_pushed(&pushed);
    }
    Ok(())
}

/// A line for each wheel.
pub fn show_pushed(pushed: &[push::Pushed]) {
    for p in pushed {
        let how = if p.sent { "uploaded" } else { "already there, the same bytes" };
        println!("{} {}: {how}", ui::mark(Some(true)), p.filename);
    }
}

/// A line for each wheel.
pub fn show_added(added: &[mirror::Added]) {
    for a in added {
        let how = if a.outcome == Outcome::Published { "published" } else { "already there, the same bytes" };
        println!("{} {}: {how}", ui::mark(Some(true)), a.filename);
    }
}
