//! The page: verdict at the top, plots in the middle, what it ran on at the bottom. One file, nothing
//! is loaded; readable on a phone, in the dark, on paper, and by a screen reader.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::figures::{bound, figure, ratio, size, word};
use super::svg::{self, Plot, Ratio, Series};
use crate::ui::page::document;
use crate::validate::compare::{self, Figure};
use crate::validate::{Better, Cell, Facts, Metric, Outcome, Report};

const STYLE: &str = include_str!("style.css");

/// The report as one HTML page.
pub fn page(report: &Report) -> String {
    let title = format!("torch {} against {}", report.measured.candidate.version, report.measured.baseline.version);
    let body = html! {
        main {
            (head(report))
            (allreduce(report))
            (store(report))
            (operators(report))
            (scenarios(report))
            (ground(report))
        }
    };
    document(&title, STYLE, &html! {}, &body)
}

fn head(report: &Report) -> Markup {
    html! {
        header {
            p.kicker { "torchmill validate · " (report.measured.date) }
            h1 { (report.measured.candidate.version) " against " (report.measured.baseline.version) }
            p class=(if report.passed { "verdict good" } else { "verdict bad" }) {
                (if report.passed { "✓ " } else { "✗ " }) (report.headline())
            }
            p { "Ratios are candidate / baseline, medians of " (report.measured.effort.rounds)
                " rounds in turns, with the 95 % interval of a bootstrap. A bar is missed where the whole interval lies on the wrong side." }
        }
        section aria-labelledby="verdicts" {
            h2 id="verdicts" { "Verdicts" }
            div.scroll { table {
                thead { tr { th scope="col" { "what" } th scope="col" { "bar" } th scope="col" { "measured" } th scope="col" { "" } } }
                tbody { @for v in &report.verdicts { tr {
                    th scope="row" {
                        (v.what)
                        @if v.all_notes().next().is_some() { ul.notes { @for n in v.all_notes() { li { (n) } } } }
                    }
                    td { @if v.value.is_some() { (bound(v.threshold, v.better)) } }
                    td { @if let Some(i) = v.value { (ratio(i)) } }
                    td class=(match v.passed { Some(true) => "good", Some(false) => "bad", None => "none" }) {
                        (match v.passed { Some(true) => "✓ ", Some(false) => "✗ ", None => "" }) (word(v.passed))
                    }
                } } }
            } }
        }
    }
}

/// Points of one side of the cells called `name`.
fn points(cells: &[&Cell], name: &str, side: fn(&Cell) -> &Figure) -> Vec<(f64, f64)> {
    cells
        .iter()
        .filter(|c| c.name == name)
        .filter_map(|c| match side(c) {
            Figure::Median(y) => Some((c.x? as f64, *y)),
            Figure::NotAvailable(_) => None,
        })
        .collect()
}

fn candidate(c: &Cell) -> &Figure {
    &c.candidate
}

fn baseline(c: &Cell) -> &Figure {
    &c.baseline
}

fn bandwidth(v: f64) -> String {
    figure(v, "B/s")
}

fn seconds(v: f64) -> String {
    figure(v, "s")
}

fn bytes(v: f64) -> String {
    size(v as u64)
}

fn count(v: f64) -> String {
    format!("{v}")
}

fn clients(n: u64) -> String {
    n.to_string()
}

fn allreduce(report: &Report) -> Markup {
    html! {
        @for (i, cells) in compare::groups(&report.cells, Metric::AllreduceBusbw).into_iter().enumerate() {
            section aria-labelledby=(format!("allreduce-{i}")) {
                h2 id=(format!("allreduce-{i}")) { "All-reduce: " (cells[0].group) }
                @let names: BTreeSet<&str> = cells.iter().map(|c| c.name.as_str()).collect();
                @for (j, name) in names.iter().filter(|n| n.ends_with("in place")).enumerate() {
                    h3 { (name) }
                    (svg::lines(&Plot {
                        id: format!("busbw-{i}-{j}"),
                        title: "Bus bandwidth over size",
                        x: "size of the tensor",
                        y: "bus bandwidth",
                        series: vec![
                            Series { name: "candidate".into(), style: 0, points: points(&cells, name, candidate) },
                            Series { name: "baseline".into(), style: 1, points: points(&cells, name, baseline) },
                        ],
                        x_text: bytes,
                        y_text: bandwidth,
                    }))
                }
                (table("size", &cells, size))
            }
        }
    }
}

fn store(report: &Report) -> Markup {
    let startup: Vec<&Cell> = report.cells.iter().filter(|c| c.name == "start-up").collect();
    if startup.is_empty() {
        return html! {};
    }
    let of_server = |server: &str| startup.iter().copied().filter(|c| c.group == server).collect::<Vec<_>>();
    let (libuv, legacy) = (of_server("libuv"), of_server("legacy"));
    let rates: Vec<&Cell> = report.cells.iter().filter(|c| c.group == "libuv" && c.name != "start-up").collect();
    let legacy_rates: Vec<&Cell> =
        report.cells.iter().filter(|c| c.group == "legacy" && c.name != "start-up").collect();
    let latency = |server: &str| -> Vec<&Cell> {
        report.cells.iter().filter(|c| c.group == format!("{server} latency")).collect()
    };
    let (libuv_latency, legacy_latency) = (latency("libuv"), latency("legacy"));
    let plot = |id: &str, title: &'static str, lines: [(&str, Vec<(f64, f64)>); 4]| {
        let series =
            lines.into_iter().enumerate().map(|(style, (name, points))| Series { name: name.into(), style, points });
        svg::lines(&Plot {
            id: id.into(),
            title,
            x: "clients",
            y: "time",
            series: series.collect(),
            x_text: count,
            y_text: seconds,
        })
    };
    html! {
        section aria-labelledby="store" {
            h2 id="store" { "TCPStore" }
            p { "One server process, one thread a client, all on this machine." }
            h3 { "Start-up: time until all clients are connected" }
            (plot("startup", "Store start-up over clients", [
                ("candidate, libuv", points(&libuv, "start-up", candidate)),
                ("baseline, libuv", points(&libuv, "start-up", baseline)),
                ("candidate, legacy", points(&legacy, "start-up", candidate)),
                ("baseline, legacy", points(&legacy, "start-up", baseline)),
            ]))
            (table("clients", &startup, clients))
            h3 { "Latency of get" }
            (plot("latency", "Latency of get over clients, libuv store", [
                ("candidate, median", points(&libuv_latency, "get p50", candidate)),
                ("baseline, median", points(&libuv_latency, "get p50", baseline)),
                ("candidate, 99th percentile", points(&libuv_latency, "get p99", candidate)),
                ("baseline, 99th percentile", points(&libuv_latency, "get p99", baseline)),
            ]))
            h3 { "Operations and barriers" }
            (table("clients", &rates, clients))
            details { summary { "The legacy store, and latencies" }
                (table("clients", &legacy_rates, clients))
                (table("clients", &[libuv_latency, legacy_latency].concat(), clients))
            }
        }
    }
}

fn operators(report: &Report) -> Markup {
    let cells = compare::of(&report.cells, Metric::OperatorTime);
    if cells.is_empty() {
        return html! {};
    }
    let threshold = report.verdicts.iter().find(|v| v.criterion == "operator-time").map_or(1.05, |v| v.threshold);
    let ratios: Vec<Ratio> = cells
        .iter()
        .filter_map(|c| {
            let r = c.ratio?;
            Some(Ratio {
                name: format!("{}, {}", c.group, c.name),
                value: (r.value, r.low, r.high),
                good: r.low <= threshold,
            })
        })
        .collect();
    html! {
        section aria-labelledby="operators" {
            h2 id="operators" { "Operators" }
            p { "Time of the candidate / time of the baseline: left of the line the candidate is faster." }
            (svg::ratios("operator-ratios", "Ratio of operator times", &ratios))
            details open { summary { "Figures" } (table("shape", &cells, clients)) }
        }
    }
}

/// A table of cells; `x` writes the first column.
fn table(first: &str, cells: &[&Cell], x: fn(u64) -> String) -> Markup {
    let has_x = cells.iter().any(|c| c.x.is_some());
    html! {
        div.scroll { table {
            thead { tr {
                @if has_x { th scope="col" { (first) } }
                th scope="col" { "what" }
                th scope="col" { "candidate" } th scope="col" { "baseline" } th scope="col" { "ratio" }
            } }
            tbody { @for c in cells { tr {
                @if has_x { td { @if let Some(n) = c.x { (x(n)) } } }
                th scope="row" { (c.group) ", " (c.name) }
                @for f in [&c.candidate, &c.baseline] { td { (shown(f, c.unit)) } }
                td class=(tendency(c)) { @if let Some(r) = c.ratio { (ratio(r)) } }
            } } }
        } }
    }
}

fn shown(f: &Figure, unit: &str) -> Markup {
    match f {
        Figure::Median(v) => html! { (figure(*v, unit)) },
        Figure::NotAvailable(why) => html! { span.none { "not available: " (why) } },
    }
}

/// A class for ratios that are off by more than noise and a tenth.
fn tendency(c: &Cell) -> &'static str {
    let Some(r) = c.ratio else { return "" };
    let (worse, better) = match c.better {
        Better::Higher => (r.high < 0.9, r.low > 1.1),
        Better::Lower => (r.low > 1.1, r.high < 0.9),
    };
    if worse {
        "bad"
    } else if better {
        "good"
    } else {
        ""
    }
}

fn scenarios(report: &Report) -> Markup {
    if report.measured.scenarios.is_empty() {
        return html! {};
    }
    let outcome = |o: &Outcome| match o {
        Outcome::Passed { seconds, libuv, .. } => html! {
            span.good { "✓ ran" } ", " (if *libuv { "on libuv" } else { "on the legacy store" }) ", " (figure(*seconds, "s"))
        },
        Outcome::Failed { why, .. } => html! { span.bad { "✗ failed" } ": " (why) },
        Outcome::NotAvailable { why } => html! { span.none { "not available: " (why) } },
    };
    html! {
        section aria-labelledby="scenarios" {
            h2 id="scenarios" { "Scenarios" }
            div.scroll { table {
                thead { tr { th scope="col" { "scenario" } th scope="col" { "candidate" } th scope="col" { "baseline" } } }
                tbody { @for p in &report.measured.scenarios { tr {
                    th scope="row" { (p.name) ": " (p.what) }
                    td { (outcome(&p.candidate)) } td { (outcome(&p.baseline)) }
                } } }
            } }
            @for p in &report.measured.scenarios { @let figures = p.figures(); @if !figures.is_empty() {
                h3 { "What " (p.name) " found" }
                div.scroll { table {
                    thead { tr { th scope="col" { "" } th scope="col" { "candidate" } th scope="col" { "baseline" } } }
                    tbody { @for (what, [candidate, baseline]) in figures { tr {
                        th scope="row" { (what) } td { (candidate) } td { (baseline) }
                    } } }
                } }
            } }
        }
    }
}

fn ground(report: &Report) -> Markup {
    let build = |name: &str, f: &Facts| {
        html! {
            h3 { (name) }
            dl {
                dt { "named" } dd { (f.name) }
                dt { "version" } dd { (f.version) }
                @if let Some(c) = &f.commit { dt { "commit" } dd { code { (c) } } }
                @if let Some(c) = &f.cuda { dt { "CUDA" } dd { (c) } }
                dt { "libuv store" } dd { (if f.libuv { "yes" } else { "no" }) @if let Some(v) = &f.libuv_version { ", libuv " (v) } }
                dt { "process groups" } dd { (f.backends.join(", ")) }
                dt { "C++ strings" } dd { (if f.cxx11_abi { "C++11 ABI" } else { "the ABI before C++11" }) }
                dt { "SHA-256" } dd { code { (f.sha256) } }
            }
        }
    };
    let m = &report.measured.machine;
    html! {
        footer {
            h2 { "What it ran on" }
            dl {
                dt { "processor" } dd { (m.cpu) ", " (m.cores) " cores" }
                @if let Some(bytes) = m.memory { dt { "memory" } dd { (bytes >> 30) " GiB" } }
                dt { "system" } dd { (m.system) }
                dt { "GPUs" } dd { @if m.gpus.is_empty() { "none" } @else { (m.gpus.join("; ")) } }
                dt { "took" } dd { (crate::ui::duration(report.measured.seconds)) }
            }
            (build("Candidate", &report.measured.candidate))
            (build("Baseline", &report.measured.baseline))
            @for note in &report.measured.notes { p { (note) } }
            @if !report.measured.commands.is_empty() {
                h3 { "Commands, on candidate and baseline in turns" }
                pre { @for c in &report.measured.commands { (c) "\n" } }
            }
        }
    }
}
