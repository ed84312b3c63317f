//! What a build takes, to the verified wheel, whose objects others compiled: those of a cache that machines share, and
//! those of a published archive; against a build here with a warm compiler cache and an empty build folder. Side by
//! side, in one run.
//!
//! ```text
//! cargo xtask build-torch && cargo bench --profile dev --bench cache
//! cargo bench --profile dev --bench cache -- torch-2.6.0-cpu      # another recipe that is built here
//! ```
//!
//! *Here* is the environment's store, as in the last column of the bench `warm`: everything from configure to artifacts
//! that are installed and run again. The others are machines as far as one can be several. Each is new: it has a store,
//! a home, a clone of HEAD and a copy of this program; another host name, where `unshare` can give it one; and another
//! user, where root runs this and that user can run the same Python. In the store are the downloads, and in the home
//! those of cargo: they are not what is compared, and were copied. Whatever else a new store lacks is made in the time
//! that is taken: the tree, the tools, the crates of a program that is linked when the artifacts are verified. So what
//! the stages take that a build here runs as well is said apart.
//!
//! It takes the build folder, wheel, bundle, statement and the record of verify out of the environment's store, twice,
//! and the last build puts them there again; if this is stopped, the next build-torch does. Everything else is below
//! target/bench-cache, some 10 GB at a time: removed at the beginning and at the end, and left where something failed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)] // a benchmark that cannot go on panics

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;
use torchmill::platform;
use torchmill::recipe::DEFAULT;

use support::{copy, forget, is_built, plan, remove, root, written, xtask};

/// The host name of the other machines.
const HOST: &str = "elsewhere";
/// What they have of the environment: where programs are. Their home has no toolchain of Rust.
const KEPT: [&str; 5] = ["PATH", "CC", "CXX", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];
/// What a build here makes again beside the build folder.
const REMADE: [&str; 4] = ["wheel", "bundle", "provenance", "verify"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command, which must end well.
fn run(command: &mut Command) -> Output {
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        // The thousands of steps that went well say nothing.
        let lines: Vec<&str> = said.lines().filter(|line| !line.contains("\"compile-progress\"")).collect();
        panic!("{command:?} ended with {}:\n{}", out.status, lines.join("\n"));
    }
    out
}

fn said(command: &mut Command) -> String {
    String::from_utf8_lossy(&run(command).stdout).trim().to_owned()
}

/// Seconds that a command takes, and what it printed.
fn timed(command: &mut Command) -> (f64, Output) {
    written();
    let started = Instant::now();
    let out = run(command);
    (started.elapsed().as_secs_f64(), out)
}

fn json(out: &Output) -> Value {
    serde_json::from_slice(&out.stdout).expect("a result as JSON")
}

fn git(arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(root());
    command
}

/// A key pair in the folder `dir`.
fn keys(dir: &Path) -> (PathBuf, PathBuf) {
    let (private, public) = (dir.join("signing.pem"), dir.join("signing.pub"));
    run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&private));
    run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public));
    (private, public)
}

/// A build that came to its end.
struct Built {
    what: &'static str,
    seconds: f64,
    /// The stages that ran, with their seconds.
    stages: Vec<(String, f64)>,
    /// Objects that a compiler cache had, this machine's or a shared one.
    cache: u64,
    /// Objects of the archive.
    archive: u64,
    /// Objects that were compiled.
    local: u64,
    /// What it handed over.
    artifacts: Value,
}

impl Built {
    /// Runs a build that prints JSON.
    fn by(what: &'static str, command: &mut Command) -> Self {
        let (seconds, out) = timed(command);
        let artifacts = json(&out)["outcome"]["done"].clone();
        let mut built = Self { what, seconds, stages: Vec::new(), cache: 0, archive: 0, local: 0, artifacts };
        let mut from = Value::Null;
        for line in String::from_utf8_lossy(&out.stderr).lines() {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            match event["event"].as_str() {
                // Of all objects of the stage so far.
                Some("compile-progress") => from = event["from"].clone(),
                Some("stage-finished") => built.finished(&event, &from.take()),
                _ => {}
            }
        }
        println!("{what}: {seconds:.1} s");
        built
    }

    /// Takes note of a stage, and of where its objects came from.
    fn finished(&mut self, event: &Value, from: &Value) {
        let (stage, seconds) = (event["stage"].as_str().unwrap(), event["seconds"].as_f64().unwrap());
        match self.stages.iter_mut().find(|(name, _)| name == stage) {
            Some((_, sum)) => *sum += seconds,
            None => self.stages.push((stage.to_owned(), seconds)),
        }
        let number = |of: &str| from[of].as_u64().unwrap_or_default();
        self.cache += number("cache");
        self.archive += number("archive");
        self.local += number("local");
    }

    /// The seconds of the stages that `other` ran as well.
    fn in_stages_of(&self, other: &Self) -> f64 {
        let shared = self.stages.iter().filter(|(name, _)| other.took(name).is_some());
        shared.map(|(_, seconds)| seconds).sum()
    }

    fn took(&self, stage: &str) -> Option<f64> {
        self.stages.iter().find(|(name, _)| name == stage).map(|(_, seconds)| *seconds)
    }

    /// Percent of the objects that were not compiled.
    fn hits(&self) -> f64 {
        let had = self.cache + self.archive;
        100.0 * had as f64 / (had + self.local).max(1) as f64
    }

    /// Two cells: objects from elsewhere of all, as the statement has them, and how many of them were compiled again.
    fn stated(&self) -> String {
        let stated = &self.artifacts["objects"];
        if stated.is_null() {
            return "none | -".to_owned();
        }
        let number = |of: &str| stated[of].as_u64().unwrap_or_default();
        format!("{} of {} | {}", number("imported") + number("shared"), number("objects"), number("audited"))
    }

    /// The digests of wheel and bundle by their names.
    fn files(&self) -> BTreeMap<&str, &str> {
        let all = self.artifacts["digests"].as_object().unwrap().iter();
        let files = all.filter(|(name, _)| name.ends_with(".whl") || name.ends_with(".tar.gz"));
        files.map(|(name, input)| (name.as_str(), input["sha256"].as_str().unwrap())).collect()
    }
}

/// What all the other machines have.
struct World {
    recipe: String,
    /// The interpreter itself: what stands before it on PATH need not be there for another user.
    python: String,
    user: Option<u32>,
    has_host_name: bool,
    /// Digests and files.
    downloads: Vec<(String, PathBuf)>,
}

impl World {
    fn of(recipe: &str, top: &Path) -> Self {
        let ask = ["-I", "-c", "import sys; print(sys.executable)"];
        let python = said(Command::new("python3").args(ask).current_dir(root()));
        // Whoever is asked for has this folder from then on.
        let probe = top.join("probe");
        std::fs::create_dir_all(&probe).unwrap();
        let user = platform::other_user(Path::new(&python), &probe);
        remove(&probe);
        let named = Command::new("unshare").args(["--uts", "hostname", HOST]).output();
        let fetched = json(&run(&mut xtask(&["fetch", "--recipe", recipe, "--offline", "--json"])));
        let files = fetched["files"].as_array().unwrap().iter();
        let word = |file: &Value, of: &str| file[of].as_str().unwrap().to_owned();
        Self {
            recipe: recipe.to_owned(),
            python,
            user,
            has_host_name: named.is_ok_and(|out| out.status.success()),
            downloads: files.map(|file| (word(file, "sha256"), word(file, "path").into())).collect(),
        }
    }
}

/// Another machine, as far as this one can be.
struct Elsewhere<'a> {
    world: &'a World,
    dir: PathBuf,
}

impl<'a> Elsewhere<'a> {
    fn new(world: &'a World, dir: PathBuf) -> Self {
        for (sha256, path) in &world.downloads {
            let to = dir.join("store/v1/blobs").join(&sha256[..2]);
            std::fs::create_dir_all(&to).unwrap();
            std::fs::copy(path, to.join(sha256)).unwrap();
        }
        let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo = cargo.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))).unwrap();
        std::fs::create_dir_all(dir.join("home/.cargo/registry")).unwrap();
        for name in ["config.toml", "registry/index", "registry/cache"] {
            if cargo.join(name).exists() {
                copy(&cargo.join(name), &dir.join("home/.cargo").join(name));
            }
        }
        run(&mut git(&["clone", "--quiet", "--no-hardlinks", text(&root()), text(&dir.join("clone"))]));
        std::fs::copy(env!("CARGO_BIN_EXE_torchmill"), dir.join("torchmill")).unwrap();
        if let Some(user) = world.user {
            platform::change_owner(&dir, user).unwrap();
        }
        Self { world, dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut words = Vec::new();
        if self.world.has_host_name {
            let script = format!("hostname {HOST} && exec \"$@\"");
            words.extend(["unshare", "--uts", "sh", "-c", &script, "sh"].map(str::to_owned));
        }
        if let Some(user) = self.world.user {
            let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
            words.extend(["setpriv", &uid, &gid, "--clear-groups"].map(str::to_owned));
        }
        words.push(text(&self.dir.join("torchmill")).to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(arguments).args(["--python", &self.world.python]).env_clear();
        for name in KEPT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("HOME", self.dir.join("home")).env("TORCHMILL_STORE", self.dir.join("store"));
        command.current_dir(self.dir.join("clone"));
        command
    }

    /// Builds to the verified wheel, and is gone.
    fn build(self, what: &'static str, more: &[&str]) -> Built {
        let build = ["build-torch", "--recipe", &self.world.recipe, "--json", "--offline"];
        let built = Built::by(what, &mut self.command(&[&build[..], more].concat()));
        remove(&self.dir);
        built
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let recipe = arguments.first().map_or(DEFAULT, String::as_str);
    let plan = plan(recipe);
    if !is_built(&plan) {
        println!("{recipe} is not built in this store: run `cargo xtask build-torch --recipe {recipe}` first");
        std::process::exit(2);
    }
    let work = PathBuf::from(plan["work"].as_str().unwrap());
    let top = root().join("target/bench-cache");
    remove(&top);
    std::fs::create_dir_all(&top).unwrap();
    let world = World::of(recipe, &top);
    tell(&world, &work, &top);

    let out = top.join("dist");
    let here = |what: &'static str| {
        forget(&plan, &work, &REMADE);
        remove(&out);
        Built::by(what, &mut xtask(&["build-torch", "--recipe", recipe, "--json", "--out", text(&out)]))
    };
    let a = here("A, here");
    assert_eq!(a.archive, 0, "an archive was taken in here: `cargo xtask cache remove --recipe {recipe}` first");

    let shared = top.join("shared");
    std::fs::create_dir(&shared).unwrap();
    let (private, public) = keys(&top);
    forget(&plan, &work, &[]);
    let fill = ["build-torch", "--recipe", recipe, "--until", "compile", "--json", "--cache", text(&shared)];
    let (filled, _) = timed(xtask(&fill).args(["--cache-sign", text(&private)]));
    println!("filling the shared cache from here: {filled:.1} s (not counted)");
    assert!(shared.read_dir().unwrap().next().is_some(), "no entry was written: this ccache speaks to no socket");
    let by_cache = ["--cache", text(&shared), "--cache-trust", text(&public)];
    let without = [&by_cache[..], &["--cache-audit", "0"]].concat();
    let b0 = Elsewhere::new(&world, top.join("b0")).build("B, shared cache, no sample", &without);
    let b1 = Elsewhere::new(&world, top.join("b1")).build("B, shared cache", &by_cache);

    let exported = ["first", "second"].map(|name| {
        let to = top.join(name);
        let export = ["cache", "export", "--recipe", recipe, "--json", "--out", text(&to)];
        let (seconds, out) = timed(xtask(&export).args(["--sign", text(&private)]));
        let exported = json(&out)["exported"].clone();
        println!("C, export: {seconds:.1} s, {} objects, {} bytes", exported["about"]["objects"], exported["size"]);
        exported
    });
    assert_eq!(exported[0]["sha256"], exported[1]["sha256"], "two archives of one build");
    let third = Elsewhere::new(&world, top.join("c"));
    let archive = exported[0]["file"].as_str().unwrap();
    let (import, told) = timed(&mut third.command(&["cache", "import", archive, "--key", text(&public), "--json"]));
    let imported = json(&told)["imported"].clone();
    println!("C, import: {import:.1} s, {} of {} objects fit", imported["usable"], imported["objects"]);
    let c = third.build("C, archive taken in", &[]);
    let again = here("A, again");

    let builds = [&a, &b0, &b1, &c, &again];
    let base = f64::midpoint(a.seconds, again.seconds);
    show(&builds, base);
    show_stages(&builds, &a);
    let ratio = |built: &Built| built.seconds / base;
    let own = f64::midpoint(a.in_stages_of(&a), again.in_stages_of(&a));
    let alike = |built: &Built| built.in_stages_of(&a) / own;
    println!("\nB to A, without the sample and with it: {:.2}, {:.2} (bar: 1.1)", ratio(&b0), ratio(&b1));
    println!("The same in the stages that A runs: {:.2}, {:.2}", alike(&b0), alike(&b1));
    println!("Objects that B did not compile: {:.2} %, {:.2} % (bar: 99)", b0.hits(), b1.hits());
    println!("C, import and build: {:.1} s (bar: 180)", import + c.seconds);
    for built in builds {
        for skipped in built.artifacts["verified"]["skipped"].as_array().unwrap() {
            println!("Not run by {}: {skipped}", built.what);
        }
    }
    for built in builds {
        assert_eq!(built.files(), a.files(), "{} made other bytes than A", built.what);
    }
    println!("All made the same wheel and the same bundle.");
    remove(&top);
}

/// Says what is measured, and where.
fn tell(world: &World, work: &Path, top: &Path) {
    let recipe = &world.recipe;
    let plan = said(&mut xtask(&["build-torch", "--dry-run", "--recipe", recipe]));
    println!("{}", plan.lines().next().unwrap());
    let changed = if said(&mut git(&["status", "--porcelain"])).is_empty() { "" } else { ", changed here" };
    let commit = said(&mut git(&["rev-parse", "HEAD"]));
    println!("{} cores, commit {commit}{changed}", std::thread::available_parallelism().unwrap());
    let user = world.user.map_or("the same one".to_owned(), |user| user.to_string());
    let host = if world.has_host_name { HOST } else { "the same one" };
    let length = |store: &Path| text(store).len();
    println!(
        "the others: user: {user}; host name: {host}; the store's path: {} bytes, {} here\n",
        length(&top.join("b0/store/v1")),
        length(work.ancestors().nth(2).unwrap())
    );
}

fn show(builds: &[&Built], base: f64) {
    println!("\n| build | s | to A | objects not compiled | from elsewhere, as stated | compiled again | checks |");
    println!("|---|---|---|---|---|---|---|");
    for built in builds {
        println!(
            "| {} | {:.1} | {:.2} | {} of {} ({:.2} %) | {} | {} |",
            built.what,
            built.seconds,
            built.seconds / base,
            built.cache + built.archive,
            built.cache + built.archive + built.local,
            built.hits(),
            built.stated(),
            built.artifacts["verified"]["checks"].as_array().unwrap().len()
        );
    }
}

/// Seconds by stage; and of those stages that `a` ran, all together.
fn show_stages(builds: &[&Built], a: &Built) {
    println!();
    line("stage, s", builds, |built| built.what.to_owned());
    println!("|---|{}", "---|".repeat(builds.len()));
    // A new store runs all that there are.
    let longest = builds.iter().max_by_key(|built| built.stages.len()).unwrap();
    for (name, _) in &longest.stages {
        line(name, builds, |built| built.took(name).map_or(String::new(), |seconds| format!("{seconds:.1}")));
    }
    line("those of A", builds, |built| format!("{:.1}", built.in_stages_of(a)));
    line("past all stages", builds, |built| format!("{:.1}", built.seconds - built.in_stages_of(built)));
}

fn line(what: &str, builds: &[&Built], cell: impl Fn(&Built) -> String) {
    let cells: Vec<String> = builds.iter().copied().map(cell).collect();
    println!("| {what} | {} |", cells.join(" | "));
}
