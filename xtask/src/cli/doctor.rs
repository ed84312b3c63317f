//! `doctor`: will this machine's torch start, and what helps if not?

use std::io::Read;

use clap::Args as ClapArgs;

use super::common::{print_json, set_json};
use crate::doctor::{self, Diagnosis, Start};
use crate::error::{Answer, Error, Result};
use crate::ui;

/// Find out whether the rendezvous of this machine's torch will run, and what helps if not
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask doctor
  cargo xtask doctor --python ~/env/bin/python --json
  cargo xtask doctor --explain < traceback.txt

Two short jobs on this machine's loopback interface are tried, with the
environment as it is.
Exit code: 0 starting works, 1 it does not (or the traceback is of no known
case).")]
pub struct Args {
    /// The Python whose torch is meant: a path or a name (default: python3)
    #[arg(long, value_name = "PYTHON")]
    python: Option<String>,
    /// Only look: start nothing but Python itself
    #[arg(long)]
    dry_run: bool,
    /// Say which case a traceback on standard input is
    #[arg(long, conflicts_with_all = ["python", "dry_run"])]
    explain: bool,
    /// Print the diagnosis as JSON on standard output
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether it starts nothing.
    pub fn only_reads(&self) -> bool {
        self.explain
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Answer> {
    set_json(args.json);
    if args.explain {
        return explain(args.json);
    }
    let diagnosis = doctor::examine(doctor::interpreter(args.python.as_deref())?, args.dry_run)?;
    if args.json {
        print_json(&serde_json::to_value(&diagnosis).map_err(|e| Error::world("json", e.to_string()))?);
    } else {
        show(&diagnosis);
    }
    Ok(if diagnosis.healthy { Answer::Yes } else { Answer::no("unhealthy", diagnosis.finding) })
}

fn explain(json: bool) -> Result<Answer> {
    // A log may be long; the case is in its end or its beginning, and this is plenty for both.
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(32 << 20)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::misuse("stdin", format!("standard input cannot be read: {e}")))?;
    let found = doctor::explain(&String::from_utf8_lossy(&bytes));
    if json {
        print_json(&serde_json::json!({ "schema_version": 1, "explanation": found }));
    }
    let Some(found) = found else {
        return Ok(Answer::no("unknown-case", "this is none of the known cases")
            .next("is the whole traceback there? The first error is usually the one that matters")
            .next("`cargo xtask doctor` examines the torch of this machine"));
    };
    if !json {
        println!("{}\n  {}\n  next: {}", found.case, found.what, found.next);
    }
    Ok(Answer::Yes)
}

fn show(d: &Diagnosis) {
    println!("python       {} ({})", d.python.executable.display(), d.python.version);
    if let (Some(torch), Some(report)) = (&d.python.torch, &d.report) {
        println!("torch        {} in {}", report.torch.version.as_deref().unwrap_or("?"), torch.display());
        let libuv = if report.libuv { ui::paint_result("32", "yes") } else { ui::paint_result("31", "no") };
        println!("libuv store  {libuv}");
        if let Some(defaults) = &report.defaults {
            println!("by default   init_process_group() {}", defaults.init_process_group.text());
            println!("             torchrun {}", defaults.torchrun.text());
        }
    }
    for (name, value) in &d.environment {
        println!("environment  {name}={value}");
    }
    for gpu in &d.gpus {
        println!("GPU          {} ({}), driver {}", gpu.name, gpu.memory, gpu.driver);
    }
    for trial in &d.trials {
        let result = match (&trial.error, trial.libuv) {
            (Some(error), _) => format!("{}: {error}", ui::paint_result("31", "failed")),
            (None, Some(true)) => ui::paint_result("32", "works, on libuv"),
            (None, _) => ui::paint_result("33", "works, on the legacy store"),
        };
        println!("tried        {} ({}): {result}", trial.name, ui::duration(trial.seconds));
    }
    println!("\n{}", d.finding);
    for (i, remedy) in d.remedies.iter().enumerate() {
        println!("\n{}. {}", i + 1, remedy.what);
        for line in &remedy.lines {
            println!("     {line}");
        }
        let helps: Vec<&str> = remedy
            .helps
            .iter()
            .map(|s| if *s == Start::Torchrun { "torchrun" } else { "init_process_group()" })
            .collect();
        println!("   helps {}; costs {}", helps.join(" and "), remedy.costs);
    }
}
