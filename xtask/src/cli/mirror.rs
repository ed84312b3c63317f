//! `mirror`: an internal wheel index: what is in it, a server for it, uploads to others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use zeroize::Zeroizing;

use super::common::{print_json, print_table, quiet, sink};
use crate::error::{Answer, Error, Result};
use crate::event::{Silent, Sink};
use crate::mirror::lock::IndexLock;
use crate::mirror::{self, Added, Index, Outcome, depends, gather, prune, publish, push, serve};
use crate::platform;
use crate::source::http_agent;
use crate::ui;

/// Keep, serve and fill an internal wheel index
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask mirror add --index /srv/wheels dist --with-deps
  cargo xtask mirror add --index /srv/wheels pypi:numpy==2.1.0 --python 3.11
  cargo xtask mirror list --index /srv/wheels
  cargo xtask mirror copy --from /srv/staging --to /srv/wheels torch
  cargo xtask mirror prune --index /srv/wheels --keep 3 --dry-run
  cargo xtask mirror lock --index /srv/wheels --out wheels.lock
  cargo xtask mirror serve --index /srv/wheels --port 8080
  cargo xtask mirror push --to https://devpi.example.com/team/stable/ dist/*.whl
  cargo xtask mirror check --index /srv/wheels

  pip install --index-url http://localhost:8080/simple/ torch==2.12.1+cpu.libuv

The folder is a static index (PEP 503, 691, 700, 714, 592): any web server or
object store can serve it. A published file never changes; docs/mirror.md says
how to use it beside another index, safely.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish wheels: all of them, or none
    #[command(after_help = "\
Examples:
  cargo xtask mirror add --index /srv/wheels dist --with-deps
  cargo xtask mirror add --index /srv/wheels pypi:numpy==2.1.0 --python 3.11
  cargo xtask mirror add --index /srv/wheels requirements.txt")]
    Add(AddArgs),
    /// Show what an index holds
    #[command(after_help = "\
Example:
  cargo xtask mirror list --index /srv/wheels torch")]
    List {
        /// Folder of the index
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// Projects; all if none is named
        projects: Vec<String>,
    },
    /// Promote releases from one index to another: all of them, or none
    #[command(after_help = "\
Example:
  cargo xtask mirror copy --from staging --to wheels torch==2.12.1+cpu.libuv")]
    Copy {
        /// Folder of the index that has them
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Folder of the index that gets them; made where nothing is
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Projects, PROJECT==VERSION or file names; everything that is not yanked if none is named
        which: Vec<String>,
    },
    /// Remove what is old, by rule: a file goes if every rule that is given lets it go; the newest release always stays,
    /// and the newest that is not yanked
    #[command(
        group = clap::ArgGroup::new("rule").required(true).multiple(true).args(["keep", "older_than", "yanked"]),
        override_usage = "cargo xtask mirror prune [OPTIONS] --index <DIR> [PROJECTS]...",
        after_help = "\
At least one of --keep, --older-than and --yanked is the rule.

Example:
  cargo xtask mirror prune --index /srv/wheels --keep 3 --dry-run")]
    Prune {
        /// Folder of the index
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// Keep so many of the newest releases of each project, each with all of its builds (+cpu, +cu130)
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: Option<u32>,
        /// Keep what was published within so many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(..=36_500))]
        older_than: Option<u32>,
        /// Only what is yanked, the newest release too unless all are
        #[arg(long)]
        yanked: bool,
        /// Show what would go, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Projects; all if none is named
        projects: Vec<String>,
    },
    /// Write down what an index holds, so that it can be made again
    #[command(after_help = "\
Example:
  cargo xtask mirror lock --index /srv/wheels --out wheels.lock")]
    Lock {
        /// Folder of the index
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// File to write; standard output if none is named
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make an index again from its lock
    #[command(after_help = "\
Example:
  cargo xtask mirror make --index again --lock wheels.lock --from old")]
    Make {
        /// Folder of the index: new, or empty
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// What `mirror lock` wrote
        #[arg(long, value_name = "FILE")]
        lock: PathBuf,
        /// Indexes, or folders with wheels, that have the files; may be given several times
        #[arg(long, value_name = "DIR")]
        from: Vec<PathBuf>,
        /// Do not ask the package index for what is in none of them
        #[arg(long)]
        offline: bool,
    },
    /// Mark a file so that installers leave it out unless it is asked for exactly (PEP 592)
    #[command(after_help = "\
Examples:
  cargo xtask mirror yank --index . demo-1.0-py3-none-any.whl --reason 'a bug'
  cargo xtask mirror yank --index . demo-1.0-py3-none-any.whl --undo")]
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
    #[command(after_help = "\
Example:
  cargo xtask mirror remove --index . demo-1.0-py3-none-any.whl --reason leaked")]
    Remove {
        /// Folder of the index
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// File name
        file: String,
        /// Why: what people read who look for it
        #[arg(long, value_name = "WHY")]
        reason: String,
    },
    /// Look whether everything that the index names exists and hashes right, and every wheel is what it says
    #[command(after_help = "\
Examples:
  cargo xtask mirror check --index /srv/wheels
  cargo xtask mirror check --index /srv/wheels --shallow --json")]
    Check {
        /// Folder of the index
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// Only existence and digests: do not examine the wheels
        #[arg(long)]
        shallow: bool,
    },
    /// Serve an index: on this machine only, unless told otherwise
    #[command(after_help = "\
Examples:
  cargo xtask mirror serve --index /srv/wheels --port 8080
  cargo xtask mirror serve --index /srv/wheels --read-token token.txt
  cargo xtask mirror serve --index . --public-url https://wheels.example.com")]
    Serve(ServeArgs),
    /// Upload wheels to a server: pypiserver, devpi, this one
    #[command(after_help = "\
Example:
  cargo xtask mirror push --to https://devpi.example.com/t/s/ dist/*.whl")]
    Push(PushArgs),
}

#[derive(Debug, ClapArgs)]
struct AddArgs {
    /// Folder of the index; made where nothing is
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    /// What they depend on comes along, as far as the index does not have it
    #[arg(long)]
    with_deps: bool,
    /// Python that downloads are for, such as 3.11; may be given several times (default: as the wheels, else python3)
    #[arg(long, value_name = "VERSION")]
    python: Vec<String>,
    /// Wheels, folders with wheels, pypi:NAME==VERSION, or requirements files (.txt) with hashes; statements, bills of
    /// materials and manifests beside wheels come along
    #[arg(required = true, value_name = "WHAT", value_hint = clap::ValueHint::AnyPath)]
    what: Vec<String>,
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
    /// Address that the start page names, where a proxy stands before the server (default: http, and the host that was
    /// asked for)
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// File with the token that readers need
    #[arg(long, value_name = "FILE")]
    read_token: Option<PathBuf>,
    /// File with the token that uploaders need (else TORCHMILL_UPLOAD_TOKEN; without both: no uploads)
    #[arg(long, value_name = "FILE")]
    upload_token: Option<PathBuf>,
    /// Largest upload, MiB
    #[arg(long, value_name = "MIB", default_value_t = 8192, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    max_upload: u64,
    /// Connections at a time; the stillest one gives way to a new one, else more wait
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    max_connections: u32,
    /// Connections at a time from one address, of IPv6 from one /64 (default: half of all; behind a proxy: as many as all)
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
    ///
    /// # Errors
    /// As [`push::address`] and [`push::Credentials::find`].
    pub fn target<'a>(&self, to: &str, events: &'a dyn Sink) -> Result<push::Target<'a>> {
        let url = push::address(to)?;
        let credentials = push::Credentials::find(&url, self.credential_command.as_deref())?;
        let index = self.simple.as_deref().map(push::address).transpose()?;
        Ok(push::Target { url, index, credentials, events, agent: http_agent() })
    }
}

impl Args {
    /// Whether it serves until it is stopped.
    pub fn serves(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }
}

/// Runs the command.
///
/// # Errors
/// Bad input: an index, a wheel, a lock, an address or a token that cannot be used. The world: the index cannot be
/// written; a server does not answer.
pub fn run(args: Args) -> Result<Answer> {
    let events = sink(args.json);
    let print = |value: serde_json::Value, text: &dyn Fn()| if args.json { print_json(&value) } else { text() };
    let done: Result<()> = match args.command {
        Command::Add(add) => run_add(&add, events.as_ref(), args.json),
        Command::List { index, projects } => list(&Index::open(&index)?, &projects, args.json),
        Command::Copy { from, to, which } => {
            let from = Index::open(&from)?;
            let copied = Index::with_new(&to, |to| mirror::copy::copy(&from, to, &which, events.as_ref()));
            let added = match copied? {
                Ok(added) => added,
                Err(no) => return Ok(no),
            };
            let missing = needed_by(&added, &to)?;
            print(serde_json::json!({ "schema_version": 1, "added": added, "missing": missing }), &|| {
                show_added(&added);
                show_missing(&missing);
            });
            Ok(())
        }
        Command::Prune { index, keep, older_than, yanked, dry_run, projects } => {
            let rule = prune::Rule { keep: keep.map(|k| k as usize), days: older_than, yanked, projects };
            run_prune(&Index::open(&index)?, &rule, dry_run, events.as_ref(), args.json)
        }
        Command::Lock { index, out } => {
            let lock = mirror::lock::lock(&Index::open(&index)?, events.as_ref())?;
            match &out {
                Some(out) => crate::store::write_atomically(out, lock.render()?.as_bytes())?,
                None if args.json => {}
                None => print!("{}", lock.render()?),
            }
            if args.json {
                print_json(&serde_json::json!({ "schema_version": 1, "lock": lock }));
            }
            Ok(())
        }
        Command::Make { index, lock, from, offline } => {
            let text = platform::read_text(&lock, platform::MOST_LOCK)
                .map_err(|e| Error::misuse("index-lock", format!("{} cannot be read: {e}", lock.display())))?;
            let lock = IndexLock::parse(&text).map_err(|e| e.doing(format!("reading {}", lock.display())))?;
            let added = Index::with_new(&index, |index| lock.make(index, &from, offline, events.as_ref()))?;
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
        Command::Check { index, shallow } => return check(&Index::open(&index)?, shallow, args.json),
        Command::Serve(serve) => run_server(&serve),
        Command::Push(push) => run_push(&push, events.as_ref(), args.json),
    };
    done.map(Answer::from)
}

fn run_add(args: &AddArgs, events: &dyn Sink, json: bool) -> Result<()> {
    for python in &args.python {
        let is_number = |minor: &str| minor.bytes().all(|b| b.is_ascii_digit()) && minor.parse::<u32>().is_ok();
        if python.strip_prefix("3.").is_none_or(|minor| !is_number(minor)) {
            return Err(
                Error::misuse("python", format!("'{python}' is no version of Python 3")).next("write it as 3.11")
            );
        }
    }
    // What cannot be read at all makes no index.
    let local = args.what.iter().all(|w| !w.starts_with("pypi:") && !w.ends_with(".txt")) && !args.with_deps;
    let early = if local {
        Some(push::examine(&publish::wheels(&args.what.iter().map(PathBuf::from).collect::<Vec<_>>())?)?)
    } else {
        None
    };
    let _said = ui::Waiting::new(|| "looking at the wheels, and publishing them".into());
    let mut extras = BTreeMap::new();
    let added = Index::with_new(&args.index, |index| match early {
        Some(wheels) => index.add(&wheels, events),
        None => {
            let (what, pythons) = (&args.what, &args.python);
            let wanted = gather::Wanted { what, with_dependencies: args.with_deps, pythons, events };
            let mut gathered = gather::gather(index, &wanted)?;
            let added = index.add(&gathered.wheels, events)?;
            // The index may have a wheel under another spelling.
            for (wheel, a) in gathered.wheels.iter().zip(&added) {
                extras.extend(gathered.extras.remove(&wheel.filename).map(|of_it| (a.filename.clone(), of_it)));
            }
            Ok(added)
        }
    })?;
    let index = Index::open(&args.index)?;
    let missing = depends::missing_of(&index, &added, &extras)?;
    if json {
        print_json(&serde_json::json!({ "schema_version": 1, "added": added, "missing": missing }));
    } else {
        show_added(&added);
        show_missing(&missing);
    }
    Ok(())
}

/// What these need and the index at `root` does not have.
fn needed_by(added: &[Added], root: &Path) -> Result<Vec<depends::Missing>> {
    if added.is_empty() {
        // There may be no index.
        return Ok(Vec::new());
    }
    depends::missing_of(&Index::open(root)?, added, &BTreeMap::new())
}

/// A line for each thing that is needed and not there.
pub fn show_missing(missing: &[depends::Missing]) {
    for m in missing {
        let extra = m.extra.as_ref().map(|e| format!("[{e}]")).unwrap_or_default();
        let requirement = ui::visible(&m.requirement);
        println!("{} {}{extra} needs {requirement}, which this index does not have", ui::mark(None), m.needed_by);
    }
    if !missing.is_empty() {
        println!(
            "  `mirror add --with-deps` brings along what is missing; an installer that looks nowhere else fails without"
        );
    }
}

fn list(index: &Index, projects: &[String], json: bool) -> Result<()> {
    let all = index.projects()?;
    let wanted: Vec<String> = projects.iter().map(|p| crate::wheel::normalize(p)).collect();
    if let Some(none) = wanted.iter().find(|w| !all.contains(w)) {
        let e = Error::misuse("not-published", format!("{} has no project '{none}'", index.root().display()));
        return Err(match crate::recipe::nearest(none, all.iter().map(String::as_str)) {
            Some(near) => e.next(format!("is '{near}' meant?")),
            None => e.next("`mirror list` without a name shows all"),
        });
    }
    let mut rows = Vec::new();
    for name in all.iter().filter(|n| wanted.is_empty() || wanted.contains(n)) {
        for f in index.project(name)?.files {
            rows.push((name.clone(), f));
        }
    }
    if json {
        let files: Vec<_> = rows
            .iter()
            .map(|(project, f)| {
                serde_json::json!({
                    "project": project, "version": f.version, "filename": f.filename, "sha256": f.hashes.get("sha256"),
                    "size": f.size, "upload_time": f.upload_time, "requires_python": f.requires_python,
                    "yanked": f.yanked.reason().map(|_| &f.yanked), "libuv": f.about.libuv, "cuda": f.about.cuda,
                })
            })
            .collect();
        print_json(&serde_json::json!({ "schema_version": 1, "files": files }));
        return Ok(());
    }
    let mut table = vec![["project", "version", "for", "libuv", "size", "published", ""].map(str::to_owned)];
    for (project, f) in &rows {
        let libuv = f.about.libuv.map_or("", |l| if l { "yes" } else { "no" });
        let yanked = match f.yanked.reason() {
            None => String::new(),
            Some("") => "yanked".to_owned(),
            Some(reason) => format!("yanked: {}", reason.escape_debug()),
        };
        table.push([
            project.clone(),
            // On the page of an index that others wrote to anything may stand.
            f.version.escape_debug().to_string(),
            f.filename.parse().map(|name: crate::wheel::Name| name.tag()).unwrap_or_default(),
            libuv.to_owned(),
            ui::bytes(f.size),
            f.upload_time.get(..10).unwrap_or_default().escape_debug().to_string(),
            yanked,
        ]);
    }
    print_table(&table);
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let projects = rows.iter().map(|r| &r.0).collect::<BTreeSet<_>>().len();
    println!("{} of {}", count(rows.len(), "file"), count(projects, "project"));
    Ok(())
}

fn run_prune(index: &Index, rule: &prune::Rule, dry_run: bool, events: &dyn Sink, json: bool) -> Result<()> {
    let gone = if dry_run { prune::chosen(index, rule)? } else { prune::prune(index, rule, events)? };
    if json {
        print_json(&serde_json::json!({ "schema_version": 1, "pruned": gone, "dry_run": dry_run }));
        return Ok(());
    }
    for g in &gone {
        println!("{} {} ({})", if dry_run { "would remove" } else { "removed" }, g.filename, ui::bytes(g.size));
    }
    // On the page of an index that others wrote to any size may stand.
    let size = gone.iter().fold(0_u64, |sum, g| sum.saturating_add(g.size));
    println!("{} files, {}", gone.len(), ui::bytes(size));
    Ok(())
}

fn check(index: &Index, shallow: bool, json: bool) -> Result<Answer> {
    let said = ui::Waiting::new(|| "reading the index and its wheels".into());
    let (count, findings) = mirror::check(index, !shallow)?;
    let missing = depends::missing(index, |_| true)?;
    drop(said);
    let serious = findings.iter().filter(|f| f.serious).count();
    if json {
        print_json(
            &serde_json::json!({ "schema_version": 1, "files": count, "findings": findings, "missing": missing, "ok": serious == 0 }),
        );
    } else {
        for f in &findings {
            let mark = ui::mark(if f.serious { Some(false) } else { None });
            println!("{mark} {}: {}", f.path.escape_debug(), ui::visible(&f.what));
        }
        show_missing(&missing);
        println!("{count} files, {serious} of {} findings serious", findings.len());
    }
    if serious == 0 {
        return Ok(Answer::Yes);
    }
    Ok(Answer::no("index-damaged", format!("{serious} things in the index are not right")))
}

fn token(file: Option<&Path>, variable: Option<&str>) -> Result<Option<serve::Token>> {
    platform::no_dumps(false);
    let text = match (file, variable.and_then(|v| std::env::var(v).ok())) {
        (Some(file), _) => platform::read_text(file, platform::MOST_TEXT).map_err(|e| {
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

/// The address that a start page is told to name, without the slash at its end: there it is part of a command line.
fn public_url(text: &str) -> Result<String> {
    let url = push::address(text)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._~%-".contains(c);
    if url.query().is_some() || url.fragment().is_some() || !url.path().chars().all(plain) {
        return Err(Error::misuse("url", format!("'{text}' is not just scheme, host, port and folders"))
            .next("give the address below which simple/ stands, such as https://wheels.example.com/team"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn run_server(args: &ServeArgs) -> Result<()> {
    let quiet = quiet();
    let options = serve::Options {
        address: SocketAddr::new(args.bind, args.port),
        public_url: args.public_url.as_deref().map(public_url).transpose()?,
        read: token(args.read_token.as_deref(), None)?,
        upload: token(args.upload_token.as_deref(), Some("TORCHMILL_UPLOAD_TOKEN"))?,
        most_upload: args.max_upload << 20,
        most_connections: args.max_connections as usize,
        most_of_one: args.max_connections_per_address.map(|n| n as usize),
        head_timeout: Duration::from_secs(args.head_timeout),
        stall_timeout: Duration::from_secs(args.stall_timeout),
        log: !quiet,
    };
    // The tokens are read: nothing else in the environment is this server's business, which fetches nothing.
    platform::scrub_whole_environment();
    let open = !args.bind.is_loopback() && options.read.is_none();
    // Whoever may upload may begin.
    let index = if options.upload.is_some() { Index::open_or_create(&args.index)? } else { Index::open(&args.index)? };
    if options.upload.is_some() {
        // What uploads left whose server was killed.
        index.heal(&Silent)?;
    }
    serve::serve(index, options, |address| {
        // Whoever started it may not listen, and what they should read it from be full: that is no reason not to serve.
        std::thread::spawn(move || {
            let _ = writeln!(std::io::stdout(), "http://{address}/");
            if open && !quiet {
                let _ =
                    writeln!(std::io::stderr(), "everyone who reaches {address} can read this index (--read-token)");
            }
        });
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
pub fn show_added(added: &[Added]) {
    for a in added {
        let how = if a.outcome == Outcome::Published { "published" } else { "already there, the same bytes" };
        println!("{} {}: {how}", ui::mark(Some(true)), a.filename);
    }
}
