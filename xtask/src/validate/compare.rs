//! From what was measured to figures, ratios and verdicts.
//!
//! A bar is missed where the whole 95 % interval lies on the wrong side of it: what noise could
//! explain is no regression.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measured::{CollectiveRow, Round, StoreRow};
use super::scenario::{Outcome, Pair};
use super::stats::{self, Interval};

/// What a figure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// All-reduce, bus bandwidth in bytes a second.
    AllreduceBusbw,
    /// Store on libuv: operations a second.
    StoreRate,
    /// Store on libuv: seconds until all clients are connected.
    StoreStartup,
    /// Store on libuv: seconds of a barrier.
    StoreBarrier,
    /// The same for the legacy store: shown, not judged.
    LegacyStore,
    /// Seconds of an operator.
    OperatorTime,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Higher is better: rates.
    Higher,
    /// Lower is better: times.
    Lower,
}

/// One figure of one build.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// The median of all rounds, in the unit of the cell.
    Median(f64),
    /// There is none, and why.
    NotAvailable(String),
}

/// One figure of both builds.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Which of the measurements the figure belongs to.
    pub metric: Metric,
    /// The part of the report that it belongs to: a job, a server, an operator.
    pub group: String,
    /// Its name in the group.
    pub name: String,
    /// Position on the x axis of a plot: bytes, clients.
    pub x: Option<u64>,
    /// Unit of the figures: `B/s`, `1/s`, `s`.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// What the candidate reached.
    pub candidate: Figure,
    /// What the baseline reached.
    pub baseline: Figure,
    /// Candidate / baseline.
    pub ratio: Option<Interval>,
    /// The samples that the ratio comes from.
    #[serde(skip)]
    samples: [Vec<f64>; 2],
}

/// What a metric came to.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The key in the recipe's `[validation]`.
    pub criterion: &'static str,
    /// What is compared, in words.
    pub what: String,
    /// The worst value that still passes.
    pub threshold: f64,
    /// Which way is better.
    pub better: Better,
    /// What was measured; `None` where one of the builds has no figure.
    pub value: Option<Interval>,
    /// `None` where there is nothing to compare.
    pub passed: Option<bool>,
    /// What falls short, cell by cell; or why there is no figure.
    pub notes: Vec<String>,
    /// What falls short and is not held against the candidate, and why: kernels that it was built without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
}

impl Verdict {
    /// Of one ratio that meets the bar or does not; of none, where there is nothing to compare.
    fn of_ratio(
        (criterion, threshold): (&'static str, f64),
        what: String,
        better: Better,
        value: Option<Interval>,
        notes: Vec<String>,
    ) -> Self {
        let passed = value.map(|v| meets(v, threshold, better));
        Self { criterion, what, threshold, better, value, passed, notes, lacking: Vec::new() }
    }

    /// What is to be said beside the figure: what falls short, and what is known to.
    pub fn all_notes(&self) -> impl Iterator<Item = &String> {
        self.notes.iter().chain(&self.lacking)
    }
}

/// Kernels that a build can be without: the operator that has no other of the kind, the switch, and what is missing.
/// Where the baseline has them and the candidate was built without, a recipe's bar says nothing of the candidate's code.
const OPTIONAL_KERNELS: &[(&str, &str, &str)] = &[(
    "embedding_bag",
    "USE_FBGEMM",
    "FBGEMM generates code for the processor that sums a table's rows; without it ATen's loop does",
)];

/// The bars that hold where a recipe does not set them.
const DEFAULT_THRESHOLDS: &[(&str, f64)] = &[
    ("allreduce-busbw", 1.0),
    ("store-rate", 1.0),
    ("store-startup", 1.05),
    ("libuv-over-legacy", 1.0),
    ("operator-time", 1.05),
];

/// Name of the cell that says why a whole group has no figures.
const WHOLE_GROUP: &str = "all sizes";

/// Samples of one cell: values, or why there are none.
type Samples = BTreeMap<Key, (Vec<f64>, Option<String>)>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    metric: Metric,
    group: String,
    x: Option<u64>,
    name: String,
}

/// Every figure that the candidate or the baseline has.
pub fn cells(rounds: &[[Round; 2]]) -> Vec<Cell> {
    let mut samples = [Samples::new(), Samples::new()];
    for both in rounds {
        for (round, samples) in both.iter().zip(&mut samples) {
            collect(round, samples);
        }
    }
    let [candidate, baseline] = samples;
    let mut keys: Vec<&Key> = candidate.keys().chain(baseline.keys()).collect();
    keys.sort();
    keys.dedup();
    // What says of a whole group why it has no figure has no line of its own beside figures.
    let has_figures =
        |k: &Key| keys.iter().any(|o| o.metric == k.metric && o.group == k.group && o.name != WHOLE_GROUP);
    let shown: Vec<&Key> = keys.iter().copied().filter(|k| k.name != WHOLE_GROUP || !has_figures(k)).collect();
    shown
        .into_iter()
        .map(|key| {
            let of = |side: &Samples| {
                let whole = || {
                    side.iter().find(|(k, _)| k.metric == key.metric && k.group == key.group && k.name == WHOLE_GROUP)
                };
                let missing = || whole().map_or((Vec::new(), Some("it was not measured".into())), |(_, v)| v.clone());
                side.get(key).cloned().unwrap_or_else(missing)
            };
            let (a, b) = (of(&candidate), of(&baseline));
            let figure = |(values, why): &(Vec<f64>, Option<String>)| {
                if values.is_empty() {
                    Figure::NotAvailable(why.clone().unwrap_or_else(|| "it was not measured".into()))
                } else {
                    Figure::Median(stats::median(values))
                }
            };
            let (unit, better) = match key.metric {
                Metric::AllreduceBusbw => ("B/s", Better::Higher),
                Metric::StoreRate => ("1/s", Better::Higher),
                Metric::LegacyStore if key.name.ends_with("rate") => ("1/s", Better::Higher),
                _ => ("s", Better::Lower),
            };
            Cell {
                metric: key.metric,
                group: key.group.clone(),
                name: key.name.clone(),
                x: key.x,
                unit,
                better,
                candidate: figure(&a),
                baseline: figure(&b),
                ratio: stats::ratio(&[(&a.0, &b.0)]),
                samples: [a.0, b.0],
            }
        })
        .collect()
}

fn collect(round: &Round, samples: &mut Samples) {
    let mut put = |metric, group: &str, x, name: &str, values: Vec<f64>, why: Option<String>| {
        let key = Key { metric, group: group.to_owned(), x, name: name.to_owned() };
        let slot = samples.entry(key).or_default();
        slot.0.extend(values);
        slot.1 = slot.1.take().or(why);
    };
    for collective in &round.collective {
        let job = &collective.job;
        let group = format!("{}, {} tensors, {} ranks", job.backend, job.device, job.ranks);
        match &collective.rows {
            Err(why) => put(Metric::AllreduceBusbw, &group, None, WHOLE_GROUP, Vec::new(), Some(why.clone())),
            Ok(rows) => {
                for row in rows {
                    let place = if row.place == "in" { "in place" } else { "out of place" };
                    let name = format!("{}, {place}", row.r#type);
                    let values = busbw(row, job.ranks);
                    put(Metric::AllreduceBusbw, &group, Some(row.bytes), &name, values, row.error.clone());
                }
            }
        }
    }
    for row in round.store.iter().flat_map(|s| &s.rows) {
        let clients = Some(u64::from(row.clients));
        let legacy = row.backend == "legacy";
        let of = |metric| if legacy { Metric::LegacyStore } else { metric };
        let why = row.error.clone();
        put(of(Metric::StoreStartup), &row.backend, clients, "start-up", startup(row), why.clone());
        put(of(Metric::StoreBarrier), &row.backend, clients, "barrier", row.barrier_seconds.clone(), why);
        for op in &row.operations {
            put(of(Metric::StoreRate), &row.backend, clients, &format!("{} rate", op.name), vec![op.rate], None);
            for (percentile, us) in [("p50", op.latency_us.p50), ("p99", op.latency_us.p99)] {
                // Latencies are shown and not judged: a rate says the same with less noise.
                let name = format!("{} {percentile}", op.name);
                put(Metric::LegacyStore, &format!("{} latency", row.backend), clients, &name, vec![us / 1e6], None);
            }
        }
    }
    for row in round.operators.iter().flat_map(|o| &o.rows) {
        let group = format!("{} {}", row.name, row.r#type);
        put(Metric::OperatorTime, &group, None, &row.shape, row.seconds.clone(), row.error.clone());
    }
}

/// Bus bandwidth of each batch. With one rank nothing crosses a bus: the algorithm's bandwidth then.
fn busbw(row: &CollectiveRow, ranks: u32) -> Vec<f64> {
    let n = f64::from(ranks);
    let factor = if ranks > 1 { 2.0 * (n - 1.0) / n } else { 1.0 };
    row.seconds.iter().map(|s| row.bytes as f64 / s * factor).collect()
}

fn startup(row: &StoreRow) -> Vec<f64> {
    row.startup_seconds.into_iter().collect()
}

/// The verdicts, by the recipe's bars; `flags` are those that candidate and baseline were compiled with, where they were read.
pub fn verdicts(
    thresholds: &BTreeMap<String, f64>,
    rounds: &[[Round; 2]],
    cells: &[Cell],
    scenarios: &[Pair],
    flags: [Option<&str>; 2],
) -> Vec<Verdict> {
    let criterion = |name: &'static str| {
        let default = DEFAULT_THRESHOLDS.iter().find(|(n, _)| *n == name).map_or(1.0, |(_, v)| *v);
        (name, thresholds.get(name).copied().unwrap_or(default))
    };
    let mut verdicts = Vec::new();
    if !rounds.is_empty() {
        verdicts.push(correctness(rounds));
        for group in groups(cells, Metric::AllreduceBusbw) {
            verdicts.push(overall(
                criterion("allreduce-busbw"),
                &group,
                format!("all-reduce bus bandwidth: {}", group[0].group),
            ));
        }
        let rate: Vec<&Cell> = of(cells, Metric::StoreRate);
        verdicts.push(overall(criterion("store-rate"), &rate, "store on libuv: operations a second".into()));
        let many: Vec<&Cell> = of(cells, Metric::StoreStartup);
        verdicts.push(overall(
            criterion("store-startup"),
            &many,
            "store on libuv: time until all clients are connected".into(),
        ));
        verdicts.push(over_legacy(criterion("libuv-over-legacy"), cells));
        verdicts.push(each(
            criterion("operator-time"),
            &of(cells, Metric::OperatorTime),
            "operators, each by itself".into(),
            |cell| lacking_kernel(cell, flags),
        ));
    }
    if !scenarios.is_empty() {
        verdicts.push(scenario_verdict(scenarios));
    }
    verdicts
}

/// Cells of one metric.
pub(super) fn of(cells: &[Cell], metric: Metric) -> Vec<&Cell> {
    cells.iter().filter(|c| c.metric == metric).collect()
}

/// Cells of one metric, by group.
pub(super) fn groups(cells: &[Cell], metric: Metric) -> Vec<Vec<&Cell>> {
    let mut out: Vec<Vec<&Cell>> = Vec::new();
    for cell in of(cells, metric) {
        match out.iter_mut().find(|g| g[0].group == cell.group) {
            Some(group) => group.push(cell),
            None => out.push(vec![cell]),
        }
    }
    out
}

fn meets(interval: Interval, threshold: f64, better: Better) -> bool {
    match better {
        Better::Higher => interval.high >= threshold,
        Better::Lower => interval.low <= threshold,
    }
}

/// One ratio for many cells: their geometric mean.
fn overall((criterion, threshold): (&'static str, f64), cells: &[&Cell], what: String) -> Verdict {
    let better = cells.first().map_or(Better::Higher, |c| c.better);
    let pairs: Vec<_> = cells.iter().map(|c| (&c.samples[0][..], &c.samples[1][..])).collect();
    let value = stats::ratio(&pairs);
    let mut notes = unavailable(cells);
    // Worst first: what a mean hides.
    let mut worst: Vec<(&&Cell, Interval)> = cells
        .iter()
        .filter_map(|c| Some((c, c.ratio?)))
        .filter(|(_, r)| !meets(*r, if better == Better::Higher { threshold * 0.9 } else { threshold * 1.1 }, better))
        .collect();
    worst.sort_by(|(_, a), (_, b)| {
        let order = a.value.total_cmp(&b.value);
        if better == Better::Higher { order } else { order.reverse() }
    });
    notes.extend(worst.iter().take(5).map(|(c, r)| format!("{}{}: {:.2}", at(c), c.name, r.value)));
    if worst.len() > 5 {
        notes.push(format!("and {} more cells that miss the bar by more than a tenth", worst.len() - 5));
    }
    Verdict::of_ratio((criterion, threshold), what, better, value, notes)
}

/// Every cell has to meet the bar by itself, but for those that are known to fall short, and why they do.
fn each(
    (criterion, threshold): (&'static str, f64),
    cells: &[&Cell],
    what: String,
    known: impl Fn(&Cell) -> Option<String>,
) -> Verdict {
    let better = cells.first().map_or(Better::Lower, |c| c.better);
    let mut short: Vec<(&&Cell, Interval)> =
        cells.iter().filter_map(|c| Some((c, c.ratio?))).filter(|(_, r)| !meets(*r, threshold, better)).collect();
    short.sort_by(|(_, a), (_, b)| b.value.total_cmp(&a.value));
    let shown =
        |c: &Cell, r: &Interval| format!("{} {}: {:.2} ({:.2} to {:.2})", c.group, c.name, r.value, r.low, r.high);
    let (mut notes, mut lacking) = (Vec::new(), Vec::new());
    for (cell, ratio) in short {
        match known(cell) {
            Some(why) => lacking.push(format!("{}: {why}", shown(cell, &ratio))),
            None => notes.push(shown(cell, &ratio)),
        }
    }
    let passed = notes.is_empty();
    notes.extend(unavailable(cells));
    let pairs: Vec<_> = cells.iter().map(|c| (&c.samples[0][..], &c.samples[1][..])).collect();
    let value = stats::ratio(&pairs);
    Verdict { criterion, what, threshold, better, value, passed: value.map(|_| passed), notes, lacking }
}

/// Which kernel an operator's cell is slower for want of, if both builds say how they were compiled, the baseline has it,
/// and the candidate does not.
fn lacking_kernel(cell: &Cell, [candidate, baseline]: [Option<&str>; 2]) -> Option<String> {
    let operator = cell.group.split(' ').next()?;
    let (_, switch, what) = OPTIONAL_KERNELS.iter().find(|(name, ..)| *name == operator)?;
    let define = format!("-D{switch}");
    let has = |flags: &str| flags.split_whitespace().any(|flag| flag == define);
    let lacks = !has(candidate?) && has(baseline?);
    lacks.then(|| format!("the candidate is built without {switch}, the baseline with it: {what}"))
}

/// The candidate's libuv store against its own legacy store, with many clients.
fn over_legacy((criterion, threshold): (&'static str, f64), cells: &[Cell]) -> Verdict {
    let what = "the candidate's start-up: legacy store / libuv store, 1,024 clients and more".to_owned();
    let startup = |group: &str, clients: Option<u64>| {
        cells.iter().find(|c| c.group == group && c.name == "start-up" && c.x == clients).map(|c| &c.samples[0][..])
    };
    let pairs: Vec<(&[f64], &[f64])> = cells
        .iter()
        .filter(|c| c.metric == Metric::StoreStartup && c.x.is_some_and(|n| n >= 1024))
        .filter_map(|c| Some((startup("legacy", c.x)?, startup("libuv", c.x)?)))
        .collect();
    let value = stats::ratio(&pairs);
    let notes =
        if value.is_none() { vec!["no start-up with 1,024 clients was measured".to_owned()] } else { Vec::new() };
    let better = Better::Higher;
    Verdict::of_ratio((criterion, threshold), what, better, value, notes)
}

fn correctness(rounds: &[[Round; 2]]) -> Verdict {
    let wrong = |side: usize| -> u64 {
        let rows = rounds.iter().flat_map(|r| &r[side].collective).filter_map(|c| c.rows.as_ref().ok()).flatten();
        rows.map(|r| r.wrong).sum()
    };
    let (candidate, baseline) = (wrong(0), wrong(1));
    let mut notes = Vec::new();
    if candidate > 0 {
        notes.push(format!("{candidate} elements of the candidate's sums were wrong"));
    }
    if baseline > 0 {
        notes.push(format!("{baseline} elements of the baseline's sums were wrong"));
    }
    Verdict {
        criterion: "correct-sums",
        what: "every all-reduce gives the known sum, in every size".into(),
        threshold: 0.0,
        better: Better::Lower,
        value: None,
        passed: Some(candidate == 0),
        notes,
        lacking: Vec::new(),
    }
}

fn scenario_verdict(scenarios: &[Pair]) -> Verdict {
    let mut notes = Vec::new();
    let mut passed = true;
    for pair in scenarios {
        match &pair.candidate {
            Outcome::Failed { why, .. } => {
                passed = false;
                notes.push(format!("{} failed on the candidate: {why}", pair.name));
            }
            Outcome::Passed { libuv: false, .. } => {
                passed = false;
                notes.push(format!("{} ran on the candidate, but not on libuv", pair.name));
            }
            Outcome::NotAvailable { why } => notes.push(format!("{} was not run: {why}", pair.name)),
            Outcome::Passed { .. } => {
                let of_baseline = pair.baseline.lacks();
                let ours = pair.candidate.lacks();
                for lack in ours.difference(&of_baseline) {
                    let only_here = matches!(pair.baseline, Outcome::Passed { .. });
                    passed &= !only_here;
                    let of = if only_here { ", which the baseline has" } else { "" };
                    notes.push(format!("{} found no {lack} in the candidate{of}", pair.name));
                }
            }
        }
    }
    let ran = scenarios.iter().any(|p| !matches!(p.candidate, Outcome::NotAvailable { .. }));
    Verdict {
        criterion: "scenarios",
        what: "scenarios run on the candidate, on libuv, with nothing set".into(),
        threshold: 1.0,
        better: Better::Higher,
        value: None,
        passed: ran.then_some(passed),
        notes,
        lacking: Vec::new(),
    }
}

/// Why cells have no figure, each reason once.
fn unavailable(cells: &[&Cell]) -> Vec<String> {
    let mut notes = Vec::new();
    for (who, figure) in [("candidate", (|c| &c.candidate) as fn(&Cell) -> &Figure), ("baseline", |c| &c.baseline)] {
        let mut reasons: Vec<&String> = cells
            .iter()
            .filter_map(|c| if let Figure::NotAvailable(why) = figure(c) { Some(why) } else { None })
            .collect();
        reasons.sort();
        reasons.dedup();
        notes.extend(reasons.into_iter().map(|why| format!("not available on the {who}: {why}")));
    }
    notes
}

fn at(cell: &Cell) -> String {
    match (cell.metric, cell.x) {
        (Metric::AllreduceBusbw, Some(bytes)) => format!("{bytes} B, "),
        (_, Some(clients)) => format!("{clients} clients, "),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::measured::{Collective, Job, OperatorRow, Operators};
    use super::*;

    fn round(scale: f64, wrong: u64) -> Round {
        let job = Job { backend: "gloo".into(), device: "cpu".into(), ranks: 2 };
        let row = |bytes: u64| CollectiveRow {
            bytes,
            count: bytes / 4,
            r#type: "float".into(),
            place: "in".into(),
            seconds: [1.00, 1.01, 0.99, 1.02, 0.98].iter().map(|s| s * scale * 1e-6 * bytes as f64).collect(),
            busbw: 0.0,
            wrong,
            error: None,
        };
        let operator = OperatorRow {
            name: "matmul".into(),
            shape: "8x8".into(),
            r#type: "float32".into(),
            seconds: [1.0, 1.01, 0.99].iter().map(|s| s * scale).collect(),
            error: None,
        };
        Round {
            collective: vec![Collective { job, rows: Ok(vec![row(8), row(1024)]) }],
            store: None,
            operators: Some(Operators { threads: 2, rows: vec![operator] }),
        }
    }

    fn passed(verdicts: &[Verdict], criterion: &str) -> Option<bool> {
        verdicts.iter().find(|v| v.criterion == criterion).and_then(|v| v.passed)
    }

    fn judge(candidate: f64, wrong: u64) -> Vec<Verdict> {
        let rounds = [[round(candidate, wrong), round(1.0, 0)], [round(candidate, 0), round(1.0, 0)]];
        verdicts(&BTreeMap::new(), &rounds, &cells(&rounds), &[], [None; 2])
    }

    #[test]
    fn the_same_figures_meet_every_threshold() {
        let v = judge(1.0, 0);
        assert_eq!(passed(&v, "allreduce-busbw"), Some(true));
        assert_eq!(passed(&v, "operator-time"), Some(true));
        assert_eq!(passed(&v, "correct-sums"), Some(true));
    }

    #[test]
    fn a_slower_candidate_misses_the_thresholds_and_a_faster_one_does_not() {
        let slower = judge(1.3, 0);
        assert_eq!(passed(&slower, "allreduce-busbw"), Some(false));
        assert_eq!(passed(&slower, "operator-time"), Some(false));
        let faster = judge(0.7, 0);
        assert_eq!(passed(&faster, "allreduce-busbw"), Some(true));
        assert_eq!(passed(&faster, "operator-time"), Some(true));
    }

    #[test]
    fn one_wrong_element_is_one_too_many() {
        let v = judge(1.0, 1);
        assert_eq!(passed(&v, "correct-sums"), Some(false));
    }

    #[test]
    fn what_the_baseline_cannot_do_is_said_and_not_judged() {
        let mut without = round(1.0, 0);
        without.collective[0].rows = Err("no NCCL".into());
        let rounds = [[round(1.0, 0), without]];
        let cells = cells(&rounds);
        let v = verdicts(&BTreeMap::new(), &rounds, &cells, &[], [None; 2]);
        let busbw = v.iter().find(|v| v.criterion == "allreduce-busbw").unwrap();
        assert_eq!(busbw.passed, None);
        assert!(busbw.notes.iter().any(|n| n.contains("no NCCL")), "{:?}", busbw.notes);
    }

    #[test]
    fn an_operator_without_its_kernel_is_not_held_against_the_candidate() {
        let of = |name: &str, scale: f64| {
            let mut round = round(1.0, 0);
            let row = &mut round.operators.as_mut().unwrap().rows[0];
            row.name = name.into();
            row.seconds.iter_mut().for_each(|s| *s *= scale);
            round
        };
        let judge = |name: &str, flags: [Option<&str>; 2]| {
            let rounds = [[of(name, 3.4), of(name, 1.0)], [of(name, 3.4), of(name, 1.0)]];
            let all = verdicts(&BTreeMap::new(), &rounds, &cells(&rounds), &[], flags);
            all.into_iter().find(|v| v.criterion == "operator-time").unwrap()
        };
        let (with, without) = (Some("-O2 -DUSE_FBGEMM -DUSE_XNNPACK"), Some("-O2 -DUSE_FBGEMM_GENAI -DUSE_XNNPACK"));
        let v = judge("embedding_bag", [without, with]);
        assert_eq!((v.passed, v.notes.len()), (Some(true), 0));
        assert!(v.lacking[0].contains("3.40") && v.lacking[0].contains("without USE_FBGEMM"), "{:?}", v.lacking);
        // Nothing excuses what was not read, a kernel that both have or none has, nor another operator.
        for (name, flags) in [
            ("embedding_bag", [None, with]),
            ("embedding_bag", [without, None]),
            ("embedding_bag", [with, with]),
            ("embedding_bag", [without, without]),
            ("embedding_bag", [with, without]),
            ("matmul", [without, with]),
        ] {
            let v = judge(name, flags);
            assert_eq!((v.passed, v.notes.len(), v.lacking.len()), (Some(false), 1, 0), "{name} {flags:?}");
        }
    }

    #[test]
    fn the_recipes_thresholds_are_used() {
        let rounds = [[round(1.3, 0), round(1.0, 0)]];
        let loose = BTreeMap::from([("operator-time".to_owned(), 1.5), ("allreduce-busbw".to_owned(), 0.5)]);
        let v = verdicts(&loose, &rounds, &cells(&rounds), &[], [None; 2]);
        assert_eq!(passed(&v, "operator-time"), Some(true));
        assert_eq!(passed(&v, "allreduce-busbw"), Some(true));
    }
}
