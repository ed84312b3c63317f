//! `inspect`: what is this torch?

mod survey;

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::common::{print_json, set_json};
use crate::error::{Error, Result};
use crate::inspect::{self, Depth, Evidence, FileAt, Linkage, ReadAt, Remote, Report};
use crate::source::{http_agent, pypi};
use crate::ui;
use crate::wheel::{Name, fits_platform};

/// Tell what a wheel, archive, library, folder or environment is, above all whether its TCPStore has libuv
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask inspect dist/torch-2.6.0+cpu.libuv-cp311-cp311-manylinux_2_34_x86_64.whl
  cargo xtask inspect pypi:torch==2.9.1 --platform win_amd64 --verdict
  cargo xtask inspect https://example.com/libtorch.zip --json
  cargo xtask inspect /usr/lib/python3/dist-packages
  cargo xtask inspect torch_cpu.dll

Nothing is installed, imported or run. Of a file on a server only the parts that are needed are read.
Exit code: 0 the store has libuv, 1 it has not, 2 this is not a torch.")]
pub struct Args {
    /// A path, an https URL, or pypi:torch==VERSION
    #[arg(required_unless_present = "survey")]
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
pub fn run(args: Args) -> Result<()> {
    set_json(args.json);
    let Some(what) = &args.what else { return survey::run(args.json) };
    let depth = if args.verdict { Depth::Verdict } else { Depth::Full };
    let report = report(what, &args, depth)?;
    if args.json {
        let text = serde_json::to_value(&report).map_err(|e| Error::world("json", e.to_string()))?;
        print_json(&text);
    } else {
        show(&report);
    }
    if report.libuv {
        return Ok(());
    }
    Err(Error::no("no-libuv", format!("the TCPStore of {} has no libuv", report.subject))
        .next("`cargo xtask doctor` tells the remedies; `cargo xtask build-torch` builds one that has it"))
}

fn report(what: &str, args: &Args, depth: Depth) -> Result<Report> {
    if let Some(requirement) = what.strip_prefix("pypi:") {
        let url = pypi_url(requirement, args.platform.as_deref(), args.python_version.as_deref())?;
        return remote_report(what, &url, depth);
    }
    if what.starts_with("https://") || what.starts_with("http://") {
        return remote_report(what, what, depth);
    }
    let path = PathBuf::from(what);
    if path.is_dir() {
        return inspect::inspect_folder(what, &path, depth);
    }
    inspect::inspect(what, &open(&path)?, depth)
}

fn open(path: &Path) -> Result<FileAt> {
    let file = fs_err::File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::misuse("not-found", format!("there is no {}", path.display()))
            .next("name a path, an https URL, or pypi:torch==VERSION"),
        _ => Error::misuse("unreadable", e.to_string()),
    })?;
    let file = FileAt::new(file.into_file())?;
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

/// The address of the wheel that `requirement` (`torch==2.9.1`) means for a platform and a Python.
fn pypi_url(requirement: &str, platform: Option<&str>, python: Option<&str>) -> Result<String> {
    let Some((name, version)) = requirement.split_once("==") else {
        return Err(Error::misuse("requirement", format!("'pypi:{requirement}' names no exact version"))
            .next("write pypi:torch==2.9.1"));
    };
    let files = pypi::files(&http_agent(), name)?;
    let python = python.map(|p| format!("cp{}", p.replace('.', "")));
    let fits = |f: &&pypi::IndexFile| {
        f.filename.parse::<Name>().is_ok_and(|n| {
            n.is_of(name, version)
                && platform.is_none_or(|p| fits_platform(&n, p))
                && python.as_deref().is_none_or(|p| n.python.split('.').chain(n.abi.split('.')).any(|tag| tag == p))
        })
    };
    let wheels: Vec<_> = files.iter().filter(fits).collect();
    let chosen = match (platform, &wheels[..]) {
        (_, []) => None,
        // Without a platform: this machine's, if there is one.
        (None, all) => {
            let here = format!("_{}.whl", std::env::consts::ARCH);
            all.iter().rfind(|f| f.filename.contains("linux") && f.filename.ends_with(&here)).or(all.last())
        }
        (Some(_), all) => all.last(),
    };
    chosen.map(|f| f.url.clone()).ok_or_else(|| {
        let mut there: Vec<&str> = files
            .iter()
            .filter(|f| f.filename.split('-').nth(1) == Some(version))
            .map(|f| f.filename.as_str())
            .collect();
        there.truncate(12);
        let e = Error::misuse("no-wheel", format!("the package index has no such wheel of {name} {version}"));
        if there.is_empty() {
            e.next("check the version")
        } else {
            e.next(format!("choose --platform and --python-version for one of: {}", there.join(", ")))
        }
    })
}

fn show(report: &Report) {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    let mark = if report.libuv { ui::paint_result("1;32", "yes") } else { ui::paint_result("1;31", "no") };
    println!("{}", report.subject);
    println!("  libuv TCPStore   {mark}");
    for evidence in report.evidence.iter().take(1) {
        match evidence {
            Evidence::Symbol { name, address } => println!("                   symbol {name} at {address:#x}"),
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
        println!("  libuv            {}, {linkage}", uv.version.as_deref().unwrap_or("version unknown"));
    }
    if let Some(defaults) = &report.defaults {
        println!("  by default       init_process_group() {}", defaults.init_process_group.text());
        println!("                   torchrun {}", defaults.torchrun.text());
    }
    let torch = &report.torch;
    let line = |name: &str, value: &str| println!("  {name:16} {value}");
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
    if !report.gpu.is_empty() {
        let images: Vec<String> = report.gpu.iter().map(|(name, n)| format!("{name} ({n})")).collect();
        line("GPU code", &images.join(", "));
    }
    let b = &report.backends;
    if b.gloo || b.nccl || b.mpi || b.ucc {
        let gloo = if b.gloo_transports.is_empty() {
            yes_no(b.gloo).to_owned()
        } else {
            format!("{} ({})", yes_no(b.gloo), b.gloo_transports.join(", "))
        };
        let rest = format!("NCCL {}, MPI {}, UCC {}", yes_no(b.nccl), yes_no(b.mpi), yes_no(b.ucc));
        line("process groups", &format!("Gloo {gloo}, {rest}"));
    }
    if let Some(new) = torch.cxx11_abi {
        line("C++ strings", if new { "C++11 ABI" } else { "the ABI before C++11" });
    }
    for (name, floor) in
        [("glibc", &report.floor.glibc), ("libstdc++", &report.floor.glibcxx), ("macOS", &report.floor.macos)]
    {
        if let Some((version, by)) = floor {
            line(name, &format!("{version} or later (for {by})"));
        }
    }
    if report.floor.tag_holds == Some(false) {
        line("", &ui::paint_result("33", "its tag claims to run on older systems than its symbols allow"));
    }
    for (name, by) in &report.missing {
        line("not inside", &format!("{name} (for {})", by.first().map_or("", String::as_str)));
    }
    for (part, size) in &report.sizes {
        line("size", &format!("{part} {}", ui::bytes(*size)));
    }
    optional("build settings", &torch.build_settings);
}
