//! `doctor`: will this machine's torch start, and what helps if not?

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::common::{print_json, set_json, workspace};
use crate::doctor::{self, Diagnosis, Explanation, Role, Start};
use crate::error::{Answer, Error, Result};
use crate::platform;
use crate::ui;

/// Most bytes of a log that are read; of a longer one its two ends.
const MOST: u64 = 256 << 20;

/// Find out whether the rendezvous of this machine's torch will run, and what helps if not
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask doctor
  cargo xtask doctor --python ~/env/bin/python --json
  cargo xtask doctor --explain train.log
  cargo xtask doctor --explain < traceback.txt
  Get-Content train.log | cargo xtask doctor --explain   in PowerShell

Two short jobs on this machine's loopback interface are tried, with the
environment as it is.
Exit code: 0 starting works, 1 it does not (or the traceback is of no known
case, or not of the rendezvous).")]
pub struct Args {
    /// The Python whose torch is meant: a path or a name (default: python3)
    #[arg(long, value_name = "PYTHON", value_hint = clap::ValueHint::ExecutablePath)]
    python: Option<String>,
    /// Only look: start nothing but Python itself
    #[arg(long)]
    dry_run: bool,
    /// Say which case a traceback or a log is: a file, or standard input where none is named
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", conflicts_with_all = ["python", "dry_run"])]
    explain: Option<PathBuf>,
    /// Print the diagnosis as JSON on standard output
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether it starts nothing.
    pub fn only_reads(&self) -> bool {
        self.explain.is_some()
    }
}

/// Runs the command.
///
/// # Errors
/// Bad input: no such Python, or one that does not answer; a torch that cannot be read; a log that is not there or is
/// no text.
pub fn run(args: Args) -> Result<Answer> {
    set_json(args.json);
    if let Some(file) = &args.explain {
        return explain(file, args.json);
    }
    let recipes = workspace().ok();
    let python = doctor::interpreter(args.python.as_deref())?;
    let diagnosis = doctor::examine(python, args.dry_run, recipes.as_ref())?;
    if args.json {
        print_json(&serde_json::to_value(&diagnosis).map_err(|e| Error::world("json", e.to_string()))?);
    } else {
        show(&diagnosis);
    }
    Ok(if diagnosis.healthy { Answer::Yes } else { Answer::no("unhealthy", diagnosis.finding) })
}

fn explain(file: &Path, json: bool) -> Result<Answer> {
    let (bytes, left_out) = if file == Path::new("-") { standard_input()? } else { read_log(file)? };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::misuse("empty", "there is nothing to explain: the text is empty")
            .next("name a file (`--explain train.log`), or send the log to standard input"));
    }
    if left_out > 0 {
        eprintln!("only the two ends of the log were read: {} in its middle were not", ui::bytes(left_out));
    }
    let found = doctor::explain(&bytes);
    if json {
        let others = found.get(1..).unwrap_or_default();
        print_json(&serde_json::json!({ "schema_version": 1, "explanation": found.first(), "others": others }));
    }
    let Some(first) = found.first() else { return unknown(&bytes) };
    if !json {
        show_explanations(&found);
    }
    if first.ours {
        return Ok(Answer::Yes);
    }
    Ok(Answer::no("not-ours", "this is not the rendezvous: nothing here is known of it"))
}

fn unknown(bytes: &[u8]) -> Result<Answer> {
    if doctor::is_noise(bytes) {
        return Err(Error::misuse("no-text", "this is not a text: neither a traceback nor a log is in it")
            .next("copy the messages themselves: a picture of them cannot be read here"));
    }
    Ok(Answer::no("unknown-case", "this is none of the known cases")
        .next("is the whole traceback there? The first error is usually the one that matters")
        .next("`cargo xtask doctor` examines the torch of this machine"))
}

/// What is piped in, or pasted; and how much of its middle was left out.
fn standard_input() -> Result<(Vec<u8>, u64)> {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        let end = if cfg!(windows) { "Ctrl-Z and Enter" } else { "Ctrl-D" };
        eprintln!("paste the traceback or the log, then {end}:");
    }
    let mut bytes = Vec::new();
    input
        .by_ref()
        .take(MOST)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::misuse("stdin", format!("standard input cannot be read: {e}")))?;
    Ok((bytes, 0))
}

fn read_log(path: &Path) -> Result<(Vec<u8>, u64)> {
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Error::misuse("not-found", format!("there is no {}", path.display()))
            .next("name a log file, or send the text to standard input: `cargo xtask doctor --explain < FILE`"),
        // A folder; a pipe, whose end would be waited for.
        std::io::ErrorKind::InvalidInput => {
            Error::misuse("no-file", format!("{} is no file", path.display())).next("name a log file")
        }
        _ => Error::misuse("unreadable", format!("{} cannot be read: {e}", path.display()))
            .next("name a log file that can be read"),
    };
    let mut file = platform::open_regular(path, true).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut bytes = Vec::new();
    if size <= MOST {
        file.take(MOST).read_to_end(&mut bytes).map_err(unreadable)?;
        return Ok((bytes, 0));
    }
    file.by_ref().take(MOST / 2).read_to_end(&mut bytes).map_err(unreadable)?;
    bytes.push(b'\n');
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(-((MOST / 2) as i64))).map_err(unreadable)?;
    file.take(MOST / 2).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok((bytes, size - MOST))
}

fn show_explanations(found: &[Explanation]) {
    for (i, e) in found.iter().enumerate() {
        let role = match (i, e.role) {
            (0, _) => "",
            (_, Role::Cause) => "also in this log: ",
            (_, Role::Elsewhere) => "also, and not the rendezvous: ",
            (_, Role::Consequence) => "which had this consequence: ",
            (_, Role::Warning) => "also a warning: ",
        };
        if i > 0 {
            println!();
        }
        println!("{role}{}", e.case);
        println!("  read from line {}: {}", e.line.number, e.line.text);
        if let Some(sign) = &e.sign {
            println!("  and from line {}: {}", sign.number, sign.text);
        }
        println!("  {}", ui::name::as_typed(&e.what));
        for next in e.next.lines() {
            println!("  next: {}", ui::name::as_typed(next));
        }
    }
}

fn show(d: &Diagnosis) {
    println!("python       {} ({})", ui::path(&d.python.executable), ui::visible(&d.python.version));
    if let (Some(torch), Some(report)) = (&d.python.torch, &d.report) {
        let version = report.torch.version.as_deref().unwrap_or("?");
        println!("torch        {} in {}", ui::visible(version), ui::path(torch));
        let libuv = if report.libuv { ui::paint_result("32", "yes") } else { ui::paint_result("31", "no") };
        println!("libuv store  {libuv}");
        if let Some(defaults) = &report.defaults {
            println!("by default   init_process_group() {}", report.start_text(defaults.init_process_group));
            println!("             torchrun {}", report.start_text(defaults.torchrun));
        }
        if report.gloo_is_dead() {
            println!(
                "Gloo         {}",
                ui::paint_result("31", "has no transport: init_process_group(\"gloo\") cannot start")
            );
        }
    }
    for (name, value) in &d.environment {
        println!("environment  {name}={}", ui::visible(value));
    }
    let dead = d.report.as_ref().is_some_and(crate::inspect::Report::gloo_is_dead);
    for launched in d.launchers.iter().filter(|_| !dead) {
        println!("{:12} {}: {}", "started by", launched.launcher, launched.outcome.text());
    }
    for judged in &d.judged {
        println!("             {}", ui::visible(judged));
    }
    for gpu in &d.gpus {
        println!("GPU          {} ({}), driver {}", ui::visible(&gpu.name), gpu.memory, gpu.driver);
    }
    for trial in &d.trials {
        let result = match (&trial.error, trial.libuv) {
            (Some(error), _) => format!("{}: {}", ui::paint_result("31", "failed"), ui::visible(error)),
            (None, Some(true)) => ui::paint_result("32", "works, on libuv"),
            (None, Some(false)) => ui::paint_result("33", "works, on the legacy store"),
            (None, None) => ui::paint_result("32", "works"),
        };
        println!("tried        {} ({}): {result}", trial.name, ui::duration(trial.seconds));
    }
    println!("\n{}", ui::visible(&d.finding));
    for (i, remedy) in d.remedies.iter().enumerate() {
        println!("\n{}. {}", i + 1, ui::visible(&remedy.what));
        for line in &remedy.lines {
            println!("     {}", ui::visible(&ui::name::as_typed(line)));
        }
        let helps: Vec<&str> = remedy
            .helps
            .iter()
            .map(|s| if *s == Start::Torchrun { "torchrun" } else { "init_process_group()" })
            .collect();
        println!("   helps {}; costs {}", helps.join(" and "), remedy.costs);
    }
    show_broken(d);
}

fn show_broken(d: &Diagnosis) {
    match &d.breaks {
        Some(broken) if broken.is_empty() => {}
        Some(broken) => {
            let tells = ui::name::as_typed("`cargo xtask compat` tells more");
            println!("\nWith that build these would not fit any more; {tells}, and what fits:");
            for b in broken {
                let said = format!("{} {}: {}", b.package, b.version, b.cause.words());
                println!("     {}", ui::visible(&said));
            }
        }
        None => println!("\nWhether other installed packages would load with that build cannot be told."),
    }
}
