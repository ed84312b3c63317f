//! `compat`: will these packages load on that torch?

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::{print_json, set_json};
use crate::compat::{self, Fit, Report, Verdict};
use crate::error::{Answer, Error, Result};
use crate::ui;

/// Tell whether packages will load on a torch, before either is installed
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask compat dist/torch-2.12.1*.whl pypi:torchvision==0.27.1
  cargo xtask compat pypi:torch==2.12.1 xformers.whl --python-version 3.11
  cargo xtask compat ~/env -r requirements.txt
  cargo xtask compat ~/env ~/env/lib/python3.11/site-packages --json

Symbols, their versions, the C++ ABI, needed libraries, CUDA, tags, and what the
package's METADATA asks of torch are held against what the torch's libraries
export. Nothing is installed, imported or run; of a file on a server only the
parts that are needed are read, and a torch's symbols are remembered in the
store by digest.
What Python code of a package calls in torch is not looked at, nor what its own
requirements ask for: name them too.
Exit code: 0 all fit, 1 one does not or cannot be told, 2 bad input,
3 the index or a server failed.")]
pub struct Args {
    /// The torch: a wheel, an archive, a folder or environment, an https URL, or pypi:torch==VERSION
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    torch: String,
    /// The packages: wheels, pypi:NAME==VERSION (or NAME), https URLs, a folder of installed packages or of wheels
    #[arg(required_unless_present = "requirements", value_hint = clap::ValueHint::AnyPath)]
    what: Vec<String>,
    /// Also all that stands in this requirement file, as pip reads it
    #[arg(short, long = "requirements", value_name = "FILE")]
    requirements: Vec<PathBuf>,
    /// For pypi:torch: the platform, such as win_amd64, manylinux_2_28_x86_64, macosx_11_0_arm64 (default: this machine's)
    #[arg(long, value_name = "TAG")]
    platform: Option<String>,
    /// For pypi:torch: the Python version, such as 3.11 (default: that of python3)
    #[arg(long, value_name = "VERSION")]
    python_version: Option<String>,
    /// Print the report as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// As [`compat::target_of`], [`compat::open_torch`] and [`compat::report`].
pub fn run(args: &Args) -> Result<Answer> {
    set_json(args.json);
    let target = || compat::target_of(args.platform.as_deref(), args.python_version.as_deref());
    let torch = compat::open_torch(&args.torch, target)?;
    let chosen = [("--platform", args.platform.is_some()), ("--python-version", args.python_version.is_some())];
    if let Some((option, _)) = chosen.iter().find(|(_, given)| *given)
        && !args.torch.starts_with("pypi:")
    {
        return Err(Error::misuse(
            "platform",
            format!(
                "{option} chooses among the wheels of pypi:torch, and {} is for {}",
                args.torch,
                torch.target.words()
            ),
        )
        .next("leave it out: packages are chosen for the torch that is named"));
    }
    let report = compat::report(&torch, &args.what, &args.requirements)?;
    if args.json {
        print_json(&serde_json::to_value(&report).map_err(|e| Error::world("json", e.to_string()))?);
    } else {
        show(&report);
    }
    if report.all_fit() {
        return Ok(Answer::Yes);
    }
    let count = |fit| report.packages.iter().filter(|p| p.verdict == fit).count();
    let (no, unknown) = (count(Fit::DoesNotFit), count(Fit::CannotBeTold));
    let all = report.packages.len();
    Ok(Answer::no("incompatible", format!("of {all} packages {no} do not fit, {unknown} cannot be told")))
}

fn show(report: &Report) {
    let torch = &report.torch;
    let mut about = vec![torch.target.words()];
    about.push(torch.cuda.as_ref().map_or_else(|| "no CUDA".to_owned(), |v| format!("CUDA {v}")));
    if let Some(new) = torch.cxx11_abi {
        about.push(if new { "C++11 ABI".into() } else { "the C++ ABI before C++11".into() });
    }
    // What stands in files of others moves no cursor.
    let version = torch.version.as_deref().unwrap_or("of unknown version");
    println!("torch {} ({})", ui::visible(version), ui::visible(&about.join(", ")));
    for verdict in &report.packages {
        show_verdict(verdict);
    }
    match report.unrelated {
        0 => {}
        1 => println!("1 installed package has nothing to do with torch"),
        n => println!("{n} installed packages have nothing to do with torch"),
    }
    for remark in &report.remarks {
        println!("note: {}", ui::visible(remark));
    }
}

fn show_verdict(verdict: &Verdict) {
    // Padded before it is painted: colours have no width.
    let word = format!("{:14}", verdict.verdict.words());
    let colour = match verdict.verdict {
        Fit::Fits => "32",
        Fit::DoesNotFit => "31",
        Fit::CannotBeTold => "33",
    };
    let of = format!("{} {}", verdict.package, verdict.version);
    println!("{} {}", ui::paint_result(colour, &word), ui::visible(&of));
    let line = |text: &str| println!("               {}", ui::visible(text));
    // One kind of reason for many libraries is told for a few.
    const MOST: usize = 3;
    for reason in verdict.reasons.iter().take(MOST) {
        let (text, names) = reason.words();
        line(&text);
        names.iter().for_each(|n| line(&format!("  {n}")));
    }
    if verdict.reasons.len() > MOST {
        line(&format!("reasons in all: {} (--json has them)", verdict.reasons.len()));
    }
    if let Some(cause) = verdict.cause {
        line(&format!("likely cause: {}", cause.words()));
    }
    let word = if verdict.verdict == Fit::CannotBeTold { "missing" } else { "parts of it only with" };
    for gap in verdict.gaps.iter().take(MOST) {
        let file = gap.by.rsplit('/').next().unwrap_or(&gap.by);
        let first = gap.needs.iter().take(2).cloned().collect::<Vec<_>>().join(", ");
        let more = gap.needs.len().saturating_sub(2);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        line(&format!("{word} {first}{more} (for {file})"));
    }
    if verdict.gaps.len() > MOST {
        line(&format!("and {} more libraries that need others", verdict.gaps.len() - MOST));
    }
    for remark in &verdict.remarks {
        line(remark);
    }
}
