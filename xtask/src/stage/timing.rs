//! How long each stage of a build took, over all the runs that it needed. Kept beside the store's
//! results and not in them: an artifact and its manifest are the same whenever they are made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::build::Build;
use super::graph::STAGES;
use crate::error::Result;
use crate::event::Event;
use crate::platform;
use crate::store::write_atomically;

/// Time that was spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Wall time in seconds.
    pub wall: f64,
    /// CPU time in seconds, user and system, of this process and its children.
    pub cpu: f64,
    /// Runs that it took: more than one where a build was interrupted.
    pub runs: u32,
    /// Whether it ended well; time spent on it later is another go.
    pub done: bool,
}

/// Stage and what it made → time.
type Table = BTreeMap<String, Timing>;

/// The file of the build whose work folder is called `of`.
fn path(build: &Build<'_>, of: &str) -> PathBuf {
    build.store.root().join("cache/durations").join(format!("{of}.json"))
}

fn table(build: &Build<'_>, of: &str) -> Table {
    std::fs::read(path(build, of)).ok().and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default()
}

/// Whose time is taken, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Of<'a> {
    /// The name of the build's work folder, where it is known.
    pub build: Option<&'a str>,
    /// The stage's name.
    pub stage: &'static str,
    /// What tells the results of one stage apart.
    pub result: &'a str,
}

/// Runs `make` as (a part of) a stage, says so, and takes note of the time.
///
/// # Errors
/// `make` fails.
pub fn timed<T>(build: &Build<'_>, of: Of<'_>, make: impl FnOnce() -> Result<T>) -> Result<T> {
    let stage = of.stage;
    build.events.emit(Event::StageStarted { stage });
    let (started, cpu) = (Instant::now(), platform::cpu_seconds());
    let result = make();
    let (wall, cpu) = (started.elapsed().as_secs_f64(), platform::cpu_seconds() - cpu);
    if let Some(name) = of.build {
        note(build, name, &format!("{stage}/{}", of.result), (wall, cpu), result.is_ok());
    }
    let result = result?;
    build.events.emit(Event::StageFinished { stage, seconds: wall, cpu_seconds: cpu });
    Ok(result)
}

/// Adds a run to the table. A build does not fail for want of a stopwatch.
fn note(build: &Build<'_>, name: &str, what: &str, (wall, cpu): (f64, f64), done: bool) {
    let mut table = table(build, name);
    let entry = table.entry(what.to_owned()).or_default();
    if entry.done {
        *entry = Timing::default();
    }
    entry.wall += wall;
    entry.cpu += cpu;
    entry.runs += 1;
    entry.done = done;
    if let Ok(text) = serde_json::to_vec_pretty(&table) {
        let _ = write_atomically(&path(build, name), &text);
    }
}

/// Times of the stages of the build whose work folder is called `name`, in the order that they run. A stage whose result was there
/// already when this build first came to it is not among them.
pub fn stages(build: &Build<'_>, name: &str) -> Vec<(String, Timing)> {
    let mut sums: BTreeMap<String, Timing> = BTreeMap::new();
    for (name, timing) in table(build, name) {
        let stage = name.split('/').next().unwrap_or_default().to_owned();
        let sum = sums.entry(stage).or_default();
        sum.wall += timing.wall;
        sum.cpu += timing.cpu;
        sum.runs = sum.runs.max(timing.runs);
        sum.done = timing.done;
    }
    let mut out: Vec<_> = sums.into_iter().collect();
    out.sort_by_key(|(stage, _)| STAGES.iter().position(|s| s.name == stage));
    out
}
