//! How long each stage of a build took, over all the runs that it needed. Kept beside the store's
//! results and not in them: an artifact and its manifest are the same whenever they are made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Build, ORDER, configure};
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

fn path(build: &Build<'_>) -> Result<PathBuf> {
    Ok(build.store.root().join("cache/durations").join(format!("{}.json", configure::key(build)?.short())))
}

fn table(build: &Build<'_>) -> Result<Table> {
    Ok(std::fs::read(path(build)?).ok().and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default())
}

/// Runs `make` as (a part of) `stage`, says so, and takes note of the time. `of` tells the results
/// of one stage apart.
pub fn timed<T>(build: &Build<'_>, stage: &'static str, of: &str, make: impl FnOnce() -> Result<T>) -> Result<T> {
    build.events.emit(Event::StageStarted { stage });
    let (started, cpu) = (Instant::now(), platform::cpu_seconds());
    let result = make();
    let (wall, cpu) = (started.elapsed().as_secs_f64(), platform::cpu_seconds() - cpu);
    let mut table = table(build)?;
    let entry = table.entry(format!("{stage}/{of}")).or_default();
    if entry.done {
        *entry = Timing::default();
    }
    entry.wall += wall;
    entry.cpu += cpu;
    entry.runs += 1;
    entry.done = result.is_ok();
    if let Ok(text) = serde_json::to_vec_pretty(&table) {
        // A build does not fail for want of a stopwatch.
        let _ = write_atomically(&path(build)?, &text);
    }
    let result = result?;
    build.events.emit(Event::StageFinished { stage, seconds: wall, cpu_seconds: cpu });
    Ok(result)
}

/// Times of the stages of this build, in the order that they run. A stage whose result was there
/// already when this build first came to it is not among them.
pub fn stages(build: &Build<'_>) -> Result<Vec<(String, Timing)>> {
    let mut sums: BTreeMap<String, Timing> = BTreeMap::new();
    for (name, timing) in table(build)? {
        let stage = name.split('/').next().unwrap_or_default().to_owned();
        let sum = sums.entry(stage).or_default();
        sum.wall += timing.wall;
        sum.cpu += timing.cpu;
        sum.runs = sum.runs.max(timing.runs);
        sum.done = timing.done;
    }
    let mut out: Vec<_> = sums.into_iter().collect();
    out.sort_by_key(|(stage, _)| ORDER.iter().position(|s| s == stage));
    Ok(out)
}
