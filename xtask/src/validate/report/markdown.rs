//! The report as Markdown: what a CI summary shows, and what is kept in `docs/results`.

use std::fmt::Write;

use super::figures::{bound, figure, ratio, size, word};
use crate::ui::visible;
use crate::validate::compare::{self, Figure};
use crate::validate::{Cell, Metric, Outcome, Report};

/// The report as Markdown.
pub fn summary(report: &Report) -> String {
    let mut t = String::new();
    let (candidate, baseline) = (&report.measured.candidate, &report.measured.baseline);
    let _ = writeln!(t, "# torch {} against {}\n", text(&candidate.version), text(&baseline.version));
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
        let _ = writeln!(t, "| {} | {bound} | {measured} | {} |", text(&v.what), word(v.passed));
    }
    for v in report.verdicts.iter().filter(|v| v.all_notes().next().is_some()) {
        let _ = writeln!(t, "\n{}:\n", text(&v.what));
        for note in v.all_notes() {
            let _ = writeln!(t, "- {}", text(note));
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
            let (name, what) = (text(&p.name), text(&p.what));
            let _ = writeln!(t, "| {name}: {what} | {} | {} |", outcome(&p.candidate), outcome(&p.baseline));
        }
        for p in &report.measured.scenarios {
            let figures = p.figures();
            if figures.is_empty() {
                continue;
            }
            let _ = writeln!(t, "\n## What {} found\n\n| | candidate | baseline |\n|---|---|---|", code(&p.name));
            for (what, [candidate, baseline]) in figures {
                let _ = writeln!(t, "| {} | {} | {} |", text(&what), text(&candidate), text(&baseline));
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
            Figure::NotAvailable(why) => format!("not available: {}", text(why)),
        };
        let ratio = c.ratio.map_or(String::new(), ratio);
        let what = text(&format!("{}, {}", c.group, c.name));
        let _ = writeln!(t, "| {what}{x} | {} | {} | {ratio} |", cell(&c.candidate), cell(&c.baseline));
    }
}

fn outcome(o: &Outcome) -> String {
    match o {
        Outcome::Passed { seconds, libuv, .. } => {
            format!("ran {}, {}", if *libuv { "on libuv" } else { "on the legacy store" }, figure(*seconds, "s"))
        }
        Outcome::Failed { why, .. } => format!("**failed**: {}", text(why)),
        Outcome::NotAvailable { why } => format!("not available: {}", text(why)),
    }
}

fn ground(t: &mut String, report: &Report) {
    let m = &report.measured.machine;
    let _ = writeln!(t, "\n## What it ran on\n\n| | |\n|---|---|");
    let _ = writeln!(t, "| day | {} |", text(&report.measured.date));
    let _ = writeln!(t, "| processor | {}, {} cores |", text(&m.cpu), m.cores);
    let _ = writeln!(t, "| system | {} |", text(&m.system));
    let _ = writeln!(t, "| GPUs | {} |", if m.gpus.is_empty() { "none".to_owned() } else { text(&m.gpus.join("; ")) });
    for (name, f) in [("candidate", &report.measured.candidate), ("baseline", &report.measured.baseline)] {
        let libuv = if f.libuv { "libuv store" } else { "no libuv store" };
        let (file, version) = (text(&f.name), text(&f.version));
        let _ = writeln!(t, "| {name} | {file}, {version}, {libuv}, SHA-256 {} |", code(&f.sha256));
    }
    for note in &report.measured.notes {
        let _ = writeln!(t, "\n{}", text(note));
    }
    if !report.measured.commands.is_empty() {
        // A fence is ended by one that is as long (CommonMark, "Fenced code blocks"): no line of theirs is one.
        let commands: Vec<String> =
            report.measured.commands.iter().map(|c| one_line(c).replace("```", "` ` `")).collect();
        let _ = writeln!(t, "\n```\n{}\n```", commands.join("\n"));
    }
}

/// Text of others, on one line.
fn one_line(text: &str) -> String {
    visible(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

/// Text of others as Markdown that shows it and does nothing else: it ends no cell, and begins no link, picture, code or
/// HTML. What a version, a file's name or an error says, whoever made the build under test wrote.
fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        // The backslash too: it would take away the next one's (GFM, "Tables").
        if matches!(c, '\\' | '|' | '<' | '[' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The same as code, in which no backslash counts but before what would end a cell.
fn code(text: &str) -> String {
    format!("`{}`", one_line(text).replace('`', "'").replace('|', "\\|"))
}
