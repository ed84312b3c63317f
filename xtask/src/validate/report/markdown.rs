//! The report as Markdown: what a CI summary shows, and what is kept in `docs/results`.

use std::fmt::Write;

use super::figures::{bound, figure, ratio, size, word};
use crate::validate::compare::{self, Figure};
use crate::validate::{Cell, Metric, Outcome, Report};

/// The report as Markdown.
pub fn summary(report: &Report) -> String {
    let mut t = String::new();
    let _ = writeln!(t, "# torch {} against {}\n", report.measured.candidate.version, report.measured.baseline.version);
    let _ = writeln!(
        t,
        "**{}** Ratios are candidate / baseline, medians of {} rounds in turns, with the 95 % interval of a bootstrap.\n",
        report.headline(),
        report.measured.effort.rounds
    );
    let _ = writeln!(t, "| what | bar | measured | |\n|---|---|---|---|");
    for v in &report.verdicts {
        let measured = v.value.map_or(String::new(), ratio);
        let bound = if v.value.is_some() { bound(v.threshold, v.better) } else { String::new() };
        let _ = writeln!(t, "| {} | {bound} | {measured} | {} |", v.what, word(v.passed));
    }
    for v in report.verdicts.iter().filter(|v| v.all_notes().next().is_some()) {
        let _ = writeln!(t, "\n{}:\n", v.what);
        for note in v.all_notes() {
            let _ = writeln!(t, "- {note}");
        }
    }
    for (metric, title) in [
        (Metric::AllreduceBusbw, "All-reduce, bus bandwidth"),
        (Metric::StoreStartup, "Store on libuv, start-up"),
        (Metric::StoreRate, "Store on libuv, operations a second"),
        (Metric::StoreBarrier, "Store on libuv, barrier"),
        (Metric::LegacyStore, "Legacy store, and latencies"),
        (Metric::OperatorTime, "Operators"),
    ] {
        let cells = compare::of(&report.cells, metric);
        if !cells.is_empty() {
            table(&mut t, title, &cells);
        }
    }
    if !report.measured.scenarios.is_empty() {
        let _ = writeln!(t, "\n## Scenarios\n\n| scenario | candidate | baseline |\n|---|---|---|");
        for p in &report.measured.scenarios {
            let _ = writeln!(t, "| {}: {} | {} | {} |", p.name, p.what, outcome(&p.candidate), outcome(&p.baseline));
        }
        for p in &report.measured.scenarios {
            let figures = p.figures();
            if figures.is_empty() {
                continue;
            }
            let _ = writeln!(t, "\n## What `{}` found\n\n| | candidate | baseline |\n|---|---|---|", p.name);
            for (what, [candidate, baseline]) in figures {
                let cell = |text: String| text.replace('|', "\\|");
                let _ = writeln!(t, "| {what} | {} | {} |", cell(candidate), cell(baseline));
            }
        }
    }
    ground(&mut t, report);
    t
}

fn table(t: &mut String, title: &str, cells: &[&Cell]) {
    let _ = writeln!(t, "\n## {title}\n\n| | candidate | baseline | ratio |\n|---|---|---|---|");
    for c in cells {
        let x = match (c.metric, c.x) {
            (Metric::AllreduceBusbw, Some(bytes)) => format!(", {}", size(bytes)),
            (_, Some(clients)) => format!(", {clients} clients"),
            _ => String::new(),
        };
        let cell = |f: &Figure| match f {
            Figure::Median(v) => figure(*v, c.unit),
            Figure::NotAvailable(why) => format!("not available: {}", why.replace('|', "\\|")),
        };
        let ratio = c.ratio.map_or(String::new(), ratio);
        let _ =
            writeln!(t, "| {}, {}{x} | {} | {} | {ratio} |", c.group, c.name, cell(&c.candidate), cell(&c.baseline));
    }
}

fn outcome(o: &Outcome) -> String {
    match o {
        Outcome::Passed { seconds, libuv, .. } => {
            format!("ran {}, {}", if *libuv { "on libuv" } else { "on the legacy store" }, figure(*seconds, "s"))
        }
        Outcome::Failed { why, .. } => format!("**failed**: {}", why.replace('|', "\\|")),
        Outcome::NotAvailable { why } => format!("not available: {}", why.replace('|', "\\|")),
    }
}

fn ground(t: &mut String, report: &Report) {
    let m = &report.measured.machine;
    let _ = writeln!(t, "\n## What it ran on\n\n| | |\n|---|---|");
    let _ = writeln!(t, "| day | {} |", report.measured.date);
    let _ = writeln!(t, "| processor | {}, {} cores |", m.cpu, m.cores);
    let _ = writeln!(t, "| system | {} |", m.system);
    let _ = writeln!(t, "| GPUs | {} |", if m.gpus.is_empty() { "none".to_owned() } else { m.gpus.join("; ") });
    for (name, f) in [("candidate", &report.measured.candidate), ("baseline", &report.measured.baseline)] {
        let libuv = if f.libuv { "libuv store" } else { "no libuv store" };
        let _ = writeln!(t, "| {name} | {}, {}, {libuv}, SHA-256 `{}` |", f.name, f.version, f.sha256);
    }
    for note in &report.measured.notes {
        let _ = writeln!(t, "\n{note}");
    }
    if !report.measured.commands.is_empty() {
        let _ = writeln!(t, "\n```\n{}\n```", report.measured.commands.join("\n"));
    }
}
