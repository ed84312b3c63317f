//! Why did a step of a build fail? Its output held against a table (`advice.toml`): whether fewer jobs would help, which
//! line is the first error, and what to tell.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use serde::Deserialize;

/// A known cause of a failed step: an entry of `advice.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// The cause's `id` in `advice.toml`.
    pub id: String,
    /// Whether it is want of memory.
    #[serde(default)]
    memory: bool,
    any: Vec<Mark>,
    /// Causes that say it better.
    #[serde(default)]
    without: Vec<String>,
    tell: String,
    /// Where this is known from.
    pub source: String,
}

fn causes() -> &'static [Cause] {
    #[derive(Deserialize)]
    struct Table {
        cause: Vec<Cause>,
    }
    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        toml::from_str(include_str!("advice.toml")).unwrap_or_else(|e| unreachable!("a table that a test reads: {e}"))
    });
    &TABLE.cause
}

/// A mark of `advice.toml`, in each way that it can be written.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
enum Mark {
    /// Anywhere in a line.
    Within(String),
    /// Two parts, in this order.
    Then(String, String),
    /// At a line's end.
    End(String),
    /// All of a line.
    Whole(String),
}

impl From<String> for Mark {
    fn from(mark: String) -> Self {
        if let Some(whole) = mark.strip_prefix('^').and_then(|m| m.strip_suffix('$')) {
            return Self::Whole(whole.to_owned());
        }
        if let Some(end) = mark.strip_suffix('$') {
            return Self::End(end.to_owned());
        }
        match mark.split_once(" … ") {
            Some((first, then)) => Self::Then(first.to_owned(), then.to_owned()),
            None => Self::Within(mark),
        }
    }
}

impl Mark {
    /// What every line that holds it has in it.
    fn part(&self) -> &str {
        match self {
            Self::Within(part) | Self::Then(part, _) | Self::End(part) | Self::Whole(part) => part,
        }
    }

    fn is_on(&self, line: &str) -> bool {
        match self {
            Self::Within(part) => line.contains(part),
            Self::Then(first, then) => line.split_once(first).is_some_and(|(_, rest)| rest.contains(then)),
            Self::End(end) => line.trim_end().ends_with(end),
            Self::Whole(whole) => line.trim() == whole,
        }
    }
}

impl Cause {
    fn on(&self, line: &str) -> bool {
        self.any.iter().any(|mark| mark.is_on(line))
    }

    /// The first of the lines that shows it.
    fn first(&self, marked: &[(usize, &str)]) -> Option<usize> {
        marked.iter().find(|(_, line)| self.on(line)).map(|(at, _)| *at)
    }
}

/// The lines that hold a part of some mark, with their places: of a long log they are few.
fn marked<'a>(lines: &[&'a str]) -> Vec<(usize, &'a str)> {
    static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
        let parts = causes().iter().flat_map(|c| &c.any).map(Mark::part);
        AhoCorasick::new(parts).unwrap_or_else(|e| unreachable!("a table of short marks: {e}"))
    });
    lines.iter().enumerate().filter(|(_, line)| FINDER.is_match(line)).map(|(at, line)| (at, *line)).collect()
}

/// What is known of a failed step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The cause's name.
    pub cause: &'static str,
    /// What to tell: the cause and what to do, with what stood in the line filled in.
    pub tell: String,
    /// The line it was read from, from 0.
    pub line: usize,
    /// Where this is known from.
    pub source: &'static str,
}

/// Whether the step that printed `lines` failed for want of memory, so that fewer jobs help.
pub fn wants_memory(lines: &[&str]) -> bool {
    let marked = marked(lines);
    causes().iter().filter(|c| c.memory).any(|c| c.first(&marked).is_some())
}

/// What is known of the step that printed `lines`, with `jobs` at a time; the best first.
pub fn advice(lines: &[&str], jobs: usize) -> Vec<Advice> {
    let marked = marked(lines);
    let found: Vec<(usize, &Cause)> = causes().iter().filter_map(|c| Some((c.first(&marked)?, c))).collect();
    let known = |id: &String| found.iter().any(|(_, c)| c.id == *id);
    found
        .iter()
        .filter(|(_, c)| !c.without.iter().any(known))
        .map(|(line, c)| Advice {
            cause: &c.id,
            tell: fill(&c.tell, lines, *line, jobs),
            line: *line,
            source: &c.source,
        })
        .collect()
}

fn fill(tell: &str, lines: &[&str], line: usize, jobs: usize) -> String {
    tell.replace("{jobs}", &(jobs / 2).max(1).to_string())
        .replace("{header}", header(lines[line]).unwrap_or("see the line above"))
        .replace("{source}", &part(lines, line))
}

/// The header that a line misses: `fatal error: zz.h: No such file`, `'zz.h' file not found`, `include file: 'zz.h'`.
fn header(line: &str) -> Option<&str> {
    let rest = line.split_once("fatal error: ").map_or(line, |(_, rest)| rest);
    if let Some((_, quoted)) = rest.split_once('\'') {
        return quoted.split('\'').next();
    }
    rest.split_once(": No such file").map(|(name, _)| name)
}

/// The part of the tree that it happened in: `third_party/gloo`, or the file.
fn part(lines: &[&str], line: usize) -> String {
    let near = lines[..=line].iter().rev().chain(lines.iter().take(1));
    for l in near {
        if let Some((_, rest)) = l.replace('\\', "/").split_once("third_party/")
            && let Some(name) = rest.split(['/', ' ', ':']).next().filter(|n| !n.is_empty())
        {
            return format!("third_party/{name}");
        }
    }
    lines[line].split(':').next().unwrap_or_default().trim().to_owned()
}

/// The first line of an error, whatever compiler or linker printed it; notes and warnings are none.
pub fn first_error(lines: &[&str]) -> Option<usize> {
    const ERRORS: [&str; 16] = [
        "error:",
        "error : ",
        "error   : ",
        "fatal error",
        "nvcc fatal",
        "error C",
        "error LNK",
        "error STL",
        "undefined reference",
        "Undefined symbols",
        "relocation truncated",
        "PC-relative offset overflow",
        "memory exhausted",
        "terminate called after",
        "CMake Error",
        "internal compiler error",
    ];
    let is_note = |l: &str| l.contains("note:") || l.contains("warning:") || l.contains("warning C");
    let strict = |l: &&str| ERRORS.iter().any(|m| l.contains(m)) && !is_note(l);
    let killed = |l: &&str| causes().iter().any(|c| c.memory && c.on(l));
    lines
        .iter()
        .position(|l| strict(l) || killed(l))
        .or_else(|| lines.iter().position(|l| l.contains("Error") && !is_note(l) && !l.starts_with("In file included")))
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
        cause: String,
        text: String,
        /// What must be told.
        #[serde(default)]
        says: Vec<String>,
        /// What the first error's line must hold.
        #[serde(default)]
        first: String,
    }

    fn samples() -> Vec<Sample> {
        toml::from_str::<Samples>(include_str!("advice_samples.toml")).unwrap().sample
    }

    #[test]
    fn each_cause_is_found_in_real_lines_and_each_real_line_finds_its_cause() {
        let samples = samples();
        for sample in &samples {
            let lines: Vec<&str> = sample.text.lines().collect();
            let found = advice(&lines, 8);
            let first = found.first().map_or("nothing", |a| a.cause);
            assert_eq!(first, sample.cause, "{}", sample.text);
            for says in &sample.says {
                assert!(found[0].tell.contains(says), "{says} in {}", found[0].tell);
            }
            let error = first_error(&lines).map_or("", |i| lines[i]);
            assert!(error.contains(&sample.first), "{error} in {}", sample.text);
            assert_eq!(wants_memory(&lines), sample.cause == "memory", "{}", sample.text);
        }
        for cause in causes() {
            assert!(samples.iter().any(|s| s.cause == cause.id), "no real line for {}", cause.id);
            assert!(!cause.source.is_empty());
        }
    }

    #[test]
    fn a_compiler_that_the_kernel_ended_is_not_told_to_have_crashed() {
        let found = advice(&["c++: internal compiler error: Killed (program cc1plus)"], 8);
        assert_eq!(found.iter().map(|a| a.cause).collect::<Vec<_>>(), ["memory"]);
    }

    #[test]
    fn a_source_that_only_speaks_of_killed_things_is_no_want_of_memory() {
        let lines = ["x.cpp:3:5: error: 'Killed' was not declared in this scope", "x.cpp:4: note: Killed by design"];
        assert!(!wants_memory(&lines));
    }
}
