//! `inspect`: what is this torch?

mod survey;

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::common::{print_json, set_json};
use crate::error::{Answer, Error, Result, without_secrets};
use crate::inspect::{self, Depth, Evidence, FileAt, Linkage, ReadAt, Remote, Report};
use crate::platform;
use crate::source::choice::{self, Wanted};
use crate::source::{http_agent, pypi};
use crate::ui;

/// Tell what a wheel, archive, library, folder or environment is, above all whether its TCPStore has libuv
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask inspect dist/torch-2.12.1*.whl
  cargo xtask inspect pypi:torch==2.9.1 --platform win_amd64 --verdict
  cargo xtask inspect https://example.com/libtorch.zip --json
  cargo xtask inspect /usr/lib/python3/dist-packages
  cargo xtask inspect torch_cpu.dll

Nothing is installed, imported or run. Of a file on a server only the parts that
are needed are read. What was not read is `null` in JSON, and stands under
not_read; --verdict reads one library and some text.
Exit code: 0 the store has libuv, 1 it has not, 2 this is not a torch.")]
pub struct Args {
    /// A path, an https URL, or pypi:torch==VERSION
    #[arg(required_unless_present = "survey", value_hint = clap::ValueHint::AnyPath)]
    what: Option<String>,
    /// For pypi: the platform, as the end of a wheel tag: win_amd64, manylinux_2_28_x86_64, macosx_11_0_arm64
    #[arg(long, value_name = "TAG")]
    platform: Option<String>,
    /// For pypi: the Python version, such as 3.11
    #[arg(long, value_name = "VERSION")]
    python_version: Option<String>,
    /// Only the verdict: reads the one library that holds the store
    #[arg(long)]
    verdict: bool,
    /// Inspect the stock builds of all versions and platforms, and print a table in Markdown
    #[arg(long, conflicts_with_all = ["what", "platform", "python_version", "verdict"])]
    survey: bool,
    /// Print the report as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad input: nothing by that name, no torch, or a broken one. The world: an index or a server does not answer.
pub fn run(args: Args) -> Result<Answer> {
    set_json(args.json);
    let Some(what) = &args.what else { return survey::run(args.json).map(Answer::from) };
    let depth = if args.verdict { Depth::Verdict } else { Depth::Full };
    let (report, chosen) = report(what, &args, depth)?;
    if args.json {
        let mut json = serde_json::to_value(&report).map_err(|e| Error::world("json", e.to_string()))?;
        if let Some(chosen) = chosen {
            json["chosen"] = chosen;
        }
        print_json(&json);
    } else {
        show(&report);
    }
    if report.libuv {
        return Ok(Answer::Yes);
    }
    Ok(Answer::no("no-libuv", format!("the TCPStore of {} has no libuv", report.subject))
        .next("`cargo xtask doctor` tells the remedies; `cargo xtask build-torch` builds one that has it"))
}

/// The report, and of an index which file it chose and why.
fn report(what: &str, args: &Args, depth: Depth) -> Result<(Report, Option<serde_json::Value>)> {
    // A user and a password are for the server: reports are passed on, and stand in logs.
    let subject = without_secrets(what);
    let reading = subject.clone();
    let _said = ui::Waiting::new(move || format!("reading {reading}"));
    if let Some(requirement) = what.strip_prefix("pypi:") {
        return pypi_report(what, requirement, args, depth);
    }
    if what.starts_with("https://") || what.starts_with("http://") {
        return Ok((remote_report(&subject, what, depth)?, None));
    }
    let path = PathBuf::from(what);
    let report = if path.is_dir() {
        inspect::inspect_folder(what, &path, depth)?
    } else {
        inspect::inspect(what, &open(&path)?, depth)?
    };
    Ok((report, None))
}

/// The wheel that `requirement` (`torch==2.9.1`) means for a platform and a Python.
fn pypi_report(
    what: &str,
    requirement: &str,
    args: &Args,
    depth: Depth,
) -> Result<(Report, Option<serde_json::Value>)> {
    let Some((name, version)) = requirement.split_once("==") else {
        return Err(Error::misuse("requirement", format!("'pypi:{requirement}' names no exact version"))
            .next("write pypi:torch==2.9.1"));
    };
    let files = pypi::files(&http_agent(), name)?;
    let (platform, python) = (args.platform.as_deref(), args.python_version.as_deref());
    let chosen = choice::choose(&files, Wanted { name, version, platform, python })?;
    let file = &chosen.file.filename;
    eprintln!("chose {file}, of {} that fit ({})", chosen.of, chosen.why);
    let report = remote_report(what, &chosen.file.url, depth)?;
    Ok((report, Some(serde_json::json!({ "file": file, "why": chosen.why, "of": chosen.of }))))
}

fn open(path: &Path) -> Result<FileAt> {
    let file = platform::open_regular(path, true).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::misuse("not-found", format!("there is no {}", path.display()))
            .next("name a path, an https URL, or pypi:torch==VERSION"),
        _ => Error::misuse("unreadable", format!("{} cannot be read: {e}", path.display())),
    })?;
    let file = FileAt::new(file)?;
    if file.size() == 0 {
        return Err(Error::misuse("empty", format!("{} is empty", path.display())));
    }
    Ok(file)
}

fn remote_report(subject: &str, url: &str, depth: Depth) -> Result<Report> {
    let source = Remote::open(http_agent(), url)?;
    let report = inspect::inspect(subject, &source, depth);
    eprintln!("read {} of {}", ui::bytes(source.received()), ui::bytes(source.size()));
    report
}

fn show(report: &Report) {
    let mark = if report.libuv { ui::paint_result("1;32", "yes") } else { ui::paint_result("1;31", "no") };
    println!("{}", ui::visible(&report.subject));
    println!("  libuv TCPStore   {mark}");
    for evidence in report.evidence.iter().take(1) {
        match evidence {
            Evidence::Symbol { name, address } => {
                println!("                   symbol {} at {address:#x}", ui::visible(name));
            }
            Evidence::TypeInfo { address, name } => {
                println!("                   type info of LibUVStoreDaemon at {address:#x}, its name at {name:#x}");
            }
        }
    }
    if report.name_without_proof {
        println!("                   (its name stands in the library, but no type info points at it)");
    }
    if let Some(uv) = &report.uv {
        let linkage = if uv.linkage == Linkage::Static { "compiled in" } else { "a library of its own" };
        let version = uv.version.as_deref().unwrap_or("version unknown");
        println!("  libuv            {}, {linkage}", ui::visible(version));
    }
    if let Some(defaults) = &report.defaults {
        println!("  by default       init_process_group() {}", report.start_text(defaults.init_process_group));
        println!("                   torchrun {}", report.start_text(defaults.torchrun));
    }
    let torch = &report.torch;
    // What stands in a file of others: it moves no cursor, and begins no line of its own.
    let line = |name: &str, value: &str| {
        println!("  {name:16} {}", ui::visible(value).replace('\n', "\n                   "));
    };
    let optional = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            line(name, value);
        }
    };
    optional("version", &torch.version);
    optional("commit", &torch.commit);
    if !torch.tags.is_empty() {
        line("tag", &torch.tags.join(", "));
    }
    optional("packed by", &torch.generator);
    optional("CUDA", &torch.cuda);
    optional("ROCm", &torch.hip);
    optional("cuDNN", &report.cudnn);
    let gpu = report.gpu.clone().unwrap_or_default();
    if !gpu.is_empty() {
        let images: Vec<String> = gpu.iter().map(|(name, n)| format!("{name} ({n})")).collect();
        line("GPU code", &images.join(", "));
    }
    process_groups(report);
    if let Some(new) = torch.cxx11_abi {
        line("C++ strings", if new { "C++11 ABI" } else { "the ABI before C++11" });
    }
    let floor = report.floor.clone().unwrap_or_default();
    for (name, floor) in [("glibc", &floor.glibc), ("libstdc++", &floor.glibcxx), ("macOS", &floor.macos)] {
        if let Some((version, by)) = floor {
            line(name, &format!("{version} or later (for {by})"));
        }
    }
    if floor.tag_holds == Some(false) {
        let said = ui::paint_result("33", "its tag claims to run on older systems than its symbols allow");
        println!("                   {said}");
    }
    for (name, by) in report.missing.iter().flatten() {
        line("not inside", &format!("{name} (for {})", by.first().map_or("", String::as_str)));
    }
    for (part, size) in &report.sizes {
        line("size", &format!("{part} {}", ui::bytes(*size)));
    }
    optional("C++ flags", &torch.cxx_flags);
    if !report.not_read.is_empty() {
        line("not read", &report.not_read.join(", "));
    }
    for note in &report.notes {
        line("note", note);
    }
}

/// Which process groups there are, and whether Gloo's can start.
fn process_groups(report: &Report) {
    let b = &report.backends;
    let line = |name: &str, value: &str| println!("  {name:16} {value}");
    if b.distributed == Some(false) {
        line("process groups", "none: nothing of torch.distributed is in it");
        return;
    }
    if [b.gloo, b.nccl, b.mpi, b.ucc] == [Some(false); 4] {
        return;
    }
    let told = |there: Option<bool>| match there {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not read",
    };
    let gloo = match (b.gloo, b.gloo_transports.as_slice()) {
        (Some(true), [_, ..]) => format!("yes ({})", b.gloo_transports.join(", ")),
        (there, _) => told(there).to_owned(),
    };
    let (nccl, mpi, ucc) = (told(b.nccl), told(b.mpi), told(b.ucc));
    line("process groups", &format!("Gloo {gloo}, NCCL {nccl}, MPI {mpi}, UCC {ucc}"));
    match b.gloo_can_start {
        Some(false) if report.gloo_is_dead() => line(
            "",
            &ui::paint_result(
                "1;31",
                "Gloo has no transport: init_process_group(\"gloo\") cannot start, whatever the store",
            ),
        ),
        None if b.gloo.is_some() => line("", "Gloo's transport is in a library of its own, which was not read"),
        _ => {}
    }
}
