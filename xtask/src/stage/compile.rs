//! compile: everything that is left, without network.

use super::{Build, CompilerCache, Work, ninja, timing::timed};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::platform;

/// Name in events and records.
pub const STAGE: &str = "compile";

/// Compiles in `work`, unless that was done.
pub fn run(build: &Build<'_>, work: &Work, cache: &CompilerCache) -> Result<()> {
    if work.is_done(STAGE) {
        build.events.emit(Event::StageCached { stage: STAGE });
        return Ok(());
    }
    if !platform::sandbox_supported() {
        build.events.warn(
            "this machine cannot cut the network off from the build (no namespaces): dead proxies stand in for it"
                .into(),
        );
    }
    build.events.note(format!("compiling with {} jobs, compiler cache: {}", ninja::jobs(build), cache.name()));
    timed(build, STAGE, "", || {
        ninja::run(build, work, cache, &[], STAGE)?;
        work.done(STAGE, &serde_json::json!({ "cache": cache.name(), "jobs": ninja::jobs(build) }))
    })
}

/// An error if the disk has less room than the recipe says a build needs.
pub fn demand_space(build: &Build<'_>) -> Result<()> {
    let Some(free) = platform::free_space(build.store.root()) else { return Ok(()) };
    let need = build.recipe.limits.disk;
    if free >= need {
        return Ok(());
    }
    Err(Error::world(
        "disk-space",
        format!(
            "the store {} has {} MiB free; a build of {} needs about {} MiB",
            build.store.root().display(),
            free >> 20,
            build.recipe.name,
            need >> 20
        ),
    )
    .next("free disk space, run `cargo xtask clean`, or put the store elsewhere with --store DIR"))
}
