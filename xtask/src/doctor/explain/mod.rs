//! Which case is it? From a pasted traceback or a log to what happened, what to do, and the line that says so. The
//! cases are a table (`cases.toml`); here is how a text is held against it.

mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};
pub use torchmill_bytes::text::Line;
use torchmill_bytes::text::{self, Text};

use super::shell;
use crate::stage::advice;

/// Places of one mark that are kept: what repeats more often says nothing new.
const MOST_PLACES: usize = 256;
/// Lines of a build's output that are looked at.
const MOST_BUILD_LINES: usize = 200_000;
/// Lines between an answer's mark and those that must, or must not, be near it.
const NEAR: usize = 25;

/// What a case is to the failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It is why.
    Cause,
    /// It is why, and has nothing to do with the rendezvous.
    Elsewhere,
    /// It followed from what happened elsewhere.
    Consequence,
    /// By itself it ends nothing.
    Warning,
}

/// A known case, as a text shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The case's `id` in `cases.toml`.
    pub case: &'static str,
    /// What it is to the failure.
    pub role: Role,
    /// Whether it is about what this program knows; `false` where nothing here is known of it.
    pub ours: bool,
    /// What happened, for people, with the values that the text names.
    pub what: String,
    /// What to do, best first; a line each.
    pub next: String,
    /// The line that the answer was read from.
    pub line: Line,
    /// The line that says who made the store, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign: Option<Line>,
    /// The launcher that the text shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launcher: Option<&'static str>,
    /// Where this is known from.
    pub source: &'static str,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    groups: BTreeMap<String, Vec<String>>,
    launcher: Vec<Launcher>,
    case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Launcher {
    id: String,
    name: String,
    marks: Vec<String>,
    one_gpu: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Case {
    id: String,
    role: Role,
    any: Vec<String>,
    #[serde(default)]
    with: Vec<Vec<String>>,
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    not_on_line: Vec<String>,
    near: Option<usize>,
    #[serde(default)]
    hides: Vec<String>,
    what: String,
    next: Vec<String>,
    source: String,
}

/// The table, with every mark in one automaton.
struct Known {
    table: Table,
    finder: AhoCorasick,
    /// Mark, squeezed → its number.
    marks: BTreeMap<Vec<u8>, usize>,
}

impl Known {
    fn load() -> Self {
        let table: Table = toml::from_str(include_str!("cases.toml"))
            .unwrap_or_else(|e| unreachable!("a table that a test reads: {e}"));
        let mut all: BTreeSet<Vec<u8>> = BTreeSet::new();
        let lists = table.case.iter().flat_map(|c| c.with.iter().chain([&c.any, &c.without, &c.not_on_line]));
        for mark in lists.chain(table.groups.values()).chain(table.launcher.iter().map(|l| &l.marks)).flatten() {
            if !mark.starts_with('@') {
                all.insert(text::squeeze(mark));
            }
        }
        let finder = AhoCorasick::new(&all).unwrap_or_else(|e| unreachable!("a table of short marks: {e}"));
        let marks = all.into_iter().enumerate().map(|(i, mark)| (mark, i)).collect();
        Self { table, finder, marks }
    }

    /// The numbers of the marks in `list`, groups taken apart.
    fn numbers(&self, list: &[String]) -> Vec<usize> {
        let mut out = Vec::new();
        for mark in list {
            match mark.strip_prefix('@') {
                Some(group) => out.extend(self.table.groups.get(group).map(|g| self.numbers(g)).unwrap_or_default()),
                None => out.extend(self.marks.get(&text::squeeze(mark))),
            }
        }
        out
    }
}

fn known() -> &'static Known {
    static KNOWN: LazyLock<Known> = LazyLock::new(Known::load);
    &KNOWN
}

/// A text and where each mark stands in it.
struct Found<'a> {
    text: &'a Text,
    /// By mark: the lines that it is on, in order.
    lines: Vec<Vec<usize>>,
}

impl<'a> Found<'a> {
    fn of(text: &'a Text, known: &Known) -> Self {
        let mut lines = vec![Vec::new(); known.marks.len()];
        for hit in known.finder.find_overlapping_iter(&text.squeezed) {
            let places: &mut Vec<usize> = &mut lines[hit.pattern().as_usize()];
            let full = places.len() >= MOST_PLACES;
            if !full {
                let line = text.line_of(hit.start());
                if places.last() != Some(&line) {
                    places.push(line);
                }
            }
        }
        Self { text, lines }
    }

    /// The first line that one of `marks` is on.
    fn first(&self, marks: &[usize]) -> Option<usize> {
        marks.iter().filter_map(|m| self.lines[*m].first().copied()).min()
    }

    /// Whether one of `marks` is within `near` lines of `line`; 0 is anywhere.
    fn near(&self, marks: &[usize], line: usize, near: usize) -> bool {
        marks.iter().any(|m| {
            let lines = &self.lines[*m];
            if near == 0 {
                return !lines.is_empty();
            }
            let from = lines.partition_point(|l| *l + near < line);
            lines.get(from).is_some_and(|l| *l <= line + near)
        })
    }

    /// Whether one of `marks` is on `line`.
    fn on(&self, marks: &[usize], line: usize) -> bool {
        marks.iter().any(|m| self.lines[*m].binary_search(&line).is_ok())
    }

    /// The first line on which `case` is shown; one that c10d calls a warning only where there is no other.
    fn shows(&self, known: &Known, case: &Case) -> Option<usize> {
        let near = case.near.unwrap_or(NEAR);
        let with: Vec<Vec<usize>> = case.with.iter().map(|list| known.numbers(list)).collect();
        let (without, not_here) = (known.numbers(&case.without), known.numbers(&case.not_on_line));
        let mut anchors: Vec<usize> =
            known.numbers(&case.any).into_iter().flat_map(|m| self.lines[m].iter().copied()).collect();
        anchors.sort_unstable();
        anchors.retain(|line| {
            with.iter().all(|marks| self.near(marks, *line, near))
                && !self.near(&without, *line, near)
                && !self.on(&not_here, *line)
        });
        anchors.iter().find(|line| !self.is_warning(**line)).or(anchors.first()).copied()
    }

    /// Whether c10d itself calls what is on `line` a warning: `[W socket.cpp:697]`, `[W1125 10:00:00 socket.cpp:697]`.
    fn is_warning(&self, line: usize) -> bool {
        let line = self.text.squeezed_line(line);
        line.starts_with(b"[w") && memchr::memmem::find(line, b"socket.cpp:").is_some()
    }
}

/// What is known of the log or traceback in `bytes`: the first cause first. Empty where it is none of the known cases.
pub fn explain(bytes: &[u8]) -> Vec<Explanation> {
    let known = known();
    let text = Text::new(text::decode(bytes.to_vec()));
    let found = Found::of(&text, known);
    let mut shown: Vec<(usize, &Case)> =
        known.table.case.iter().filter_map(|case| Some((found.shows(known, case)?, case))).collect();
    let agent = known.numbers(&["@agent".to_owned()]);
    let mut sign = None;
    for (line, case) in shown.iter_mut().filter(|(_, case)| case.id == "no-libuv") {
        let whose = store::whose(&text, *line, found.first(&agent).is_some());
        if whose == store::Whose::Agent {
            sign = found.first(&agent).filter(|l| l != line);
        }
        if let Some(closer) = known.table.case.iter().find(|c| c.id == whose.case()) {
            *case = closer;
        }
    }
    let hidden: BTreeSet<&str> = shown.iter().flat_map(|(_, c)| &c.hides).map(String::as_str).collect();
    shown.retain(|(_, case)| !hidden.contains(case.id.as_str()));
    shown.sort_by_key(|(line, case)| (case.role, found.is_warning(*line), *line));
    let words = Words::of(&found, known);
    let out: Vec<_> = shown.into_iter().map(|(line, case)| words.explanation(&text, line, case, sign)).collect();
    if out.is_empty() { of_a_build(&text) } else { out }
}

/// What is known of the output of a compiler or a linker: the build's own table.
fn of_a_build(text: &Text) -> Vec<Explanation> {
    let lines: Vec<String> = (0..text.lines().min(MOST_BUILD_LINES)).map(|i| text.line(i).text).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let explanation = |a: advice::Advice| Explanation {
        case: a.cause,
        role: Role::Cause,
        ours: true,
        what: "a step of a build failed: the line is of a compiler or a linker.".into(),
        next: a.tell,
        line: text.line(a.line),
        sign: None,
        launcher: None,
        source: a.source,
    };
    let known: Vec<_> = advice::advice(&lines, jobs).into_iter().map(explanation).collect();
    if !known.is_empty() {
        return known;
    }
    // A step failed, and why is not known: its first error is still the one to look at.
    let step = lines.iter().position(|l| l.starts_with("FAILED: "));
    let first = step.and_then(|step| Some(step + advice::first_error(&lines[step..])?));
    let unknown = |line| Explanation {
        case: "build-step",
        role: Role::Cause,
        ours: true,
        what: "a step of a build failed, for no reason that is known here. The line is its first error.".into(),
        next: "mend that one first: later errors often only follow from it".into(),
        line: text.line(line),
        sign: None,
        launcher: None,
        source: "ninja",
    };
    first.map(unknown).into_iter().collect()
}

/// What the table advises in the case called `id`, where there is no log.
pub fn advised(id: &str) -> Vec<String> {
    let words = Words { launcher: None, windows: cfg!(windows), powershell: false };
    let case = known().table.case.iter().find(|c| c.id == id);
    case.map(|c| c.next.iter().map(|n| words.fill(n)).collect()).unwrap_or_default()
}

/// Whether `bytes` are no text at all.
pub fn is_noise(bytes: &[u8]) -> bool {
    text::is_noise(&text::decode(bytes.to_vec()))
}

/// What a text of the table says in this log.
struct Words {
    launcher: Option<&'static Launcher>,
    windows: bool,
    powershell: bool,
}

impl Words {
    fn of(found: &Found<'_>, known: &'static Known) -> Self {
        let shows = |l: &&Launcher| found.first(&known.numbers(&l.marks)).is_some();
        Self {
            launcher: known.table.launcher.iter().find(shows),
            windows: store::is_windows(found.text),
            powershell: store::is_powershell(found.text),
        }
    }

    /// How a variable is set in the shell that the log is of.
    fn set(&self, variable: &str, value: &str) -> String {
        match (self.powershell, self.windows) {
            (true, _) => shell::powershell(variable, value),
            (false, true) => shell::words(variable, value),
            (false, false) => format!("export {variable}={value}"),
        }
    }

    fn fill(&self, text: &str) -> String {
        const ANY: &str =
            "with one GPU: start without the launcher (`python train.py`): most scripts then make no process group";
        const UVSTORE: &str = "`pip install uvstore-….whl` into this very Python (in no index yet: `cargo xtask uvstore \
                               --wheel` makes it, with `--target windows` for Windows)";
        let launcher = self.launcher.map_or("torchrun, or a launcher that uses it", |l| l.name.as_str());
        text.replace("{launcher}", launcher.trim_end_matches(','))
            .replace("{one_gpu}", self.launcher.map_or(ANY, |l| l.one_gpu.as_str()))
            .replace("{cuda_visible}", &self.set("CUDA_VISIBLE_DEVICES", "0"))
            .replace("{off}", &self.set("USE_LIBUV", "0"))
            .replace("{uvstore}", UVSTORE)
    }

    fn explanation(&self, text: &Text, line: usize, case: &'static Case, sign: Option<usize>) -> Explanation {
        let store = case.id.starts_with("no-libuv");
        Explanation {
            case: &case.id,
            role: case.role,
            ours: case.role != Role::Elsewhere,
            what: self.fill(&case.what),
            next: case.next.iter().map(|n| self.fill(n)).collect::<Vec<_>>().join("\n"),
            line: text.line(line),
            sign: sign.filter(|_| store).map(|l| text.line(l)),
            launcher: self.launcher.filter(|_| store).map(|l| l.id.as_str()),
            source: &case.source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Samples {
        sample: Vec<Sample>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        case: String,
        text: String,
        /// What the answer must say.
        #[serde(default)]
        says: Vec<String>,
        /// What the line that it was read from must hold.
        #[serde(default)]
        line: String,
        /// What else must be found in it, in this order.
        #[serde(default)]
        others: Vec<String>,
        #[serde(default)]
        launcher: Option<String>,
    }

    fn samples() -> Vec<Sample> {
        toml::from_str::<Samples>(include_str!("samples.toml")).unwrap().sample
    }

    fn cases(found: &[Explanation]) -> Vec<&str> {
        found.iter().map(|e| e.case).collect()
    }

    #[test]
    fn every_real_text_is_told_as_its_case_with_the_line_that_says_so() {
        let mut wrong = Vec::new();
        for sample in samples() {
            let found = explain(sample.text.as_bytes());
            let Some(first) = found.first().filter(|f| f.case == sample.case) else {
                wrong.push(format!("{} is told as {:?}:\n{}", sample.case, cases(&found), sample.text));
                continue;
            };
            let said = format!("{}\n{}", first.what, first.next);
            wrong.extend(sample.says.iter().filter(|s| !said.contains(*s)).map(|s| format!("no '{s}' in {said}")));
            let others: Vec<&str> = cases(&found[1..]);
            let missing = sample.others.iter().any(|o| !others.contains(&o.as_str()));
            if missing
                || !first.line.text.contains(&sample.line)
                || sample.launcher.is_some() && first.launcher.map(str::to_owned) != sample.launcher
            {
                wrong.push(format!("{}: {first:?}, then {others:?}", sample.case));
            }
            if said.contains('{') && !said.contains("{n}") {
                wrong.push(format!("an open place in: {said}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
    }

    #[test]
    fn every_case_of_the_table_has_a_real_text_a_source_and_a_name_of_its_own() {
        let samples = samples();
        let table = &known().table;
        assert!(table.case.len() >= 40, "{} kinds", table.case.len());
        let names: BTreeSet<&str> = table.case.iter().map(|c| c.id.as_str()).collect();
        assert_eq!(names.len(), table.case.len());
        for case in &table.case {
            assert!(samples.iter().any(|s| s.case == case.id), "no real text for {}", case.id);
            assert!(!case.source.is_empty() && !case.next.is_empty(), "{}", case.id);
            for hidden in &case.hides {
                assert!(names.contains(hidden.as_str()), "{} hides {hidden}, which is no case", case.id);
            }
            let lists = case.with.iter().chain([&case.any, &case.without, &case.not_on_line]);
            for group in lists.flatten().filter_map(|m| m.strip_prefix('@')) {
                assert!(table.groups.contains_key(group), "{}: there is no group {group}", case.id);
            }
        }
    }

    #[test]
    fn uvstore_is_named_first_where_it_helps_and_nowhere_else() {
        for case in &known().table.case {
            let named = case.next.iter().position(|line| line.contains("uvstore"));
            assert_eq!(named, case.id.starts_with("no-libuv").then_some(0), "{}: {:?}", case.id, case.next);
        }
    }

    #[test]
    fn a_text_is_told_alike_however_it_comes() {
        let text = samples().into_iter().find(|s| s.launcher.as_deref() == Some("llamafactory")).unwrap().text;
        let le = |bom: &[u8]| [bom, &text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()].concat();
        let coloured = format!("\x1b[31m{}\x1b[0m", text.replace("use_libuv", "use_\x1b[1mlibuv"));
        // As a narrow terminal, or a picture of one, breaks it.
        let broken: String =
            text.chars().enumerate().flat_map(|(i, c)| if i % 37 == 36 { vec!['\n', c] } else { vec![c] }).collect();
        for bytes in [
            text.clone().into_bytes(),
            text.replace('\n', "\r\n").into_bytes(),
            le(&[0xff, 0xfe]),
            le(&[]),
            coloured.into_bytes(),
            broken.into_bytes(),
            text.to_uppercase().into_bytes(),
        ] {
            let found = explain(&bytes);
            assert_eq!(found.first().map(|e| e.case), Some("no-libuv-torchrun"), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn what_is_no_case_is_none() {
        for text in ["", "all is well", "\n\n\n", "Epoch 1: loss 0.3", "torchrun --nproc-per-node 2 train.py"] {
            assert_eq!(cases(&explain(text.as_bytes())), Vec::<&str>::new(), "{text}");
        }
        assert!(explain(&[0u8; 4096]).is_empty());
    }
}
