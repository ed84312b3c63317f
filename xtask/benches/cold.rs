//! What compiling costs with nothing in any cache: the pieces of a recipe's `[unity]`, against the same sources compiled one
//! by one, as PyTorch's own list files do it: with the same flags and compiler, or with those of another recipe. Side by
//! side, in one run.
//!
//! ```text
//! cargo xtask build-torch --recipe torch-2.6.0-cpu --until canary
//! cargo bench --profile dev --bench cold -- torch-2.6.0-cpu 200
//! cargo bench --profile dev --bench cold -- torch-2.12.1-cpu-clang 200 torch-2.12.1-cpu    # both until canary
//! ```
//!
//! A sample of at least so many sources is drawn: all compiles in the build's order of their sources' bytes, every n-th of
//! them. What a recipe compiles by itself is the same on both sides of one recipe, and counted on both. CPU time of
//! compilers, without any launcher or cache.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)] // a benchmark that cannot go on panics

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn work(recipe: &str) -> PathBuf {
    let out = Command::new(env!("CARGO_BIN_EXE_torchmill"))
        .args(["build-torch", "--dry-run", "--json", "--recipe", recipe])
        .current_dir(root())
        .output()
        .unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&out.stdout).expect("a plan");
    plan["plan"]["work"].as_str().expect("a work folder").into()
}

/// One compile of the build: its command, without launcher and output, and the sources that it takes in.
struct Compile {
    command: Vec<String>,
    /// What the compiler is given: a source, or the file of a piece.
    file: PathBuf,
    sources: Vec<PathBuf>,
    bytes: u64,
}

/// What the build compiles in C++ as a part of torch, but for what is generated while it compiles.
fn compiles(build: &Path) -> Vec<Compile> {
    let text = std::fs::read_to_string(build.join("compile_commands.json")).expect("a build that is configured");
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut compiles: Vec<Compile> = all
        .iter()
        .filter(|c| ["/torch_cpu.dir/", "/torch_python.dir/"].iter().any(|t| c["output"].as_str().unwrap().contains(t)))
        .filter(|c| c["file"].as_str().unwrap().ends_with(".cpp"))
        .filter_map(|c| {
            let mut words: Vec<String> = shlex::split(c["command"].as_str().unwrap()).unwrap();
            let at = words.iter().position(|w| w == "-o").expect("an output");
            words.truncate(at);
            let file = PathBuf::from(c["file"].as_str().unwrap());
            let sources = pieces(build, &file)?;
            let bytes = sources.iter().map(|s| std::fs::metadata(s).map_or(0, |m| m.len())).sum();
            Some(Compile { command: words, file, sources, bytes })
        })
        .collect();
    compiles.sort_by_key(|c| c.bytes);
    compiles
}

/// The sources of a piece; a source that is none is itself. `None` where one of them is not there yet.
fn pieces(build: &Path, file: &Path) -> Option<Vec<PathBuf>> {
    if !file.starts_with(build.join("unity")) {
        return file.exists().then(|| vec![file.to_owned()]);
    }
    let text = std::fs::read_to_string(file).unwrap();
    let names = text.lines().filter_map(|l| l.strip_prefix("#include \"")?.strip_suffix('"'));
    names.map(|name| [build, tree(build)].map(|top| top.join(name)).into_iter().find(|p| p.exists())).collect()
}

/// Each source by itself.
struct ByHand {
    /// The build's folder.
    build: PathBuf,
    /// Commands by the source's path below the tree.
    commands: BTreeMap<PathBuf, Vec<String>>,
}

impl ByHand {
    fn of(build: &Path) -> Self {
        let commands = compiles(build)
            .into_iter()
            .flat_map(|c| c.sources.iter().map(|s| (below(build, s), c.command.clone())).collect::<Vec<_>>());
        Self { build: build.to_owned(), commands: commands.collect() }
    }

    fn cost(&self, name: &Path) -> f64 {
        let command = self.commands.get(name).unwrap_or_else(|| panic!("{} is compiled on one side", name.display()));
        cost(command, &tree(&self.build).join(name), &self.build).expect("what is compiled by itself").0
    }
}

fn tree(build: &Path) -> &Path {
    build.parent().expect("it is below the tree")
}

/// A source's path below the tree.
fn below(build: &Path, source: &Path) -> PathBuf {
    source.strip_prefix(tree(build)).expect("a source of the tree").to_owned()
}

/// CPU seconds that one compile took, with the system's part, and the resident memory that it needed, in MiB; what the
/// compiler said where it failed.
fn cost(command: &[String], source: &Path, build: &Path) -> Result<(f64, f64), String> {
    let object = tempfile::NamedTempFile::new().unwrap();
    let out = Command::new("/usr/bin/time")
        .args(["-f", "cost %U %S %M"])
        .args(command)
        .args(["-w", "-o"])
        .arg(object.path())
        .arg("-c")
        .arg(source)
        .current_dir(build)
        .stdin(Stdio::null())
        .output()
        .expect("/usr/bin/time (Debian's package time)");
    let text = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        return Err(format!("{}: {text}", source.display()));
    }
    let numbers: Vec<f64> =
        text.lines().find_map(|l| l.strip_prefix("cost ")).unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    Ok((numbers[0] + numbers[1], numbers[2] / 1024.0))
}

/// What one compile of the sample cost on both sides.
struct Row {
    sources: usize,
    by_hand: f64,
    ours: f64,
    memory: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let recipe = arguments.first().map_or("torch-2.6.0-cpu", String::as_str);
    let wanted: usize = arguments.get(1).map_or(200, |n| n.parse().expect("how many sources"));
    let build = work(recipe).join("src/build");
    let hand = ByHand::of(&arguments.get(2).map_or_else(|| build.clone(), |other| work(other).join("src/build")));
    let all = compiles(&build);
    let sources: usize = all.iter().map(|c| c.sources.len()).sum();
    let step = (sources / wanted).max(1);
    let sample: Vec<&Compile> = all.iter().skip(step / 2).step_by(step).collect();
    println!(
        "{recipe}{}: {} of {} compiles, which take in {} of {sources} sources",
        arguments.get(2).map_or(String::new(), |other| format!(" against the sources of {other}, one by one")),
        sample.len(),
        all.len(),
        sample.iter().map(|c| c.sources.len()).sum::<usize>()
    );
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while let Some(compile) = sample.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match measure(compile, &build, &hand) {
                        Ok(row) => rows.lock().unwrap().push(row),
                        Err(why) => println!("does not compile, and is left out: {why}"),
                    }
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap();
    println!(
        "\n| what | sources | compiles | one by one, CPU s | as the recipe has it, CPU s | ratio | largest, MiB |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (what, filter) in [
        ("in pieces", (|r: &Row| r.sources > 1) as fn(&Row) -> bool),
        ("by themselves", |r| r.sources == 1),
        ("all", |_| true),
    ] {
        let of: Vec<&Row> = rows.iter().filter(|r| filter(r)).collect();
        let sum = |value: fn(&Row) -> f64| of.iter().map(|r| value(r)).sum::<f64>();
        let (hand, ours) = (sum(|r| r.by_hand), sum(|r| r.ours));
        println!(
            "| {what} | {} | {} | {hand:.0} | {ours:.0} | {:.2} | {:.0} |",
            of.iter().map(|r| r.sources).sum::<usize>(),
            of.len(),
            ours / hand,
            of.iter().map(|r| r.memory).fold(0.0, f64::max)
        );
    }
}

/// One compile in turns: ours, then each of its sources. What is the same is compiled once.
fn measure(compile: &Compile, build: &Path, hand: &ByHand) -> Result<Row, String> {
    let names: Vec<PathBuf> = compile.sources.iter().map(|s| below(build, s)).collect();
    let (ours, memory) = cost(&compile.command, &compile.file, build)?;
    let is_same = names.len() == 1 && hand.build == build;
    let by_hand = if is_same { ours } else { names.iter().map(|name| hand.cost(name)).sum() };
    Ok(Row { sources: names.len(), by_hand, ours, memory })
}
