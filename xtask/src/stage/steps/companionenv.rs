//! companionenv: the environment of a companion's build tools, and of what torch needs to be imported there.

use super::buildenv::Record;
use crate::error::Result;
use crate::stage::build::Build;
use crate::stage::environment;
use crate::stage::step::{Cx, Step};
use crate::store::Parts;

/// The stage: a result for each companion.
pub struct Companionenv;

impl Step for Companionenv {
    type Record = Record;
    const NAME: &'static str = "companionenv";
    const WHAT: &'static str = "a companion's build tools, every wheel by its hash";

    fn of(build: &Build<'_>) -> Vec<String> {
        build.companions.keys().cloned().collect()
    }

    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        let wheels = &cx.build.packages_beside(cx.build.companion(cx.of)?)?.build;
        environment::inputs(cx.build, wheels, parts);
        parts.text("executable", cx.build.python.executable.to_string_lossy());
        Ok(())
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let wheels = &cx.build.packages_beside(cx.build.companion(cx.of)?)?.build;
        environment::make(cx.build, &cx.out()?, &cx.scratch()?, wheels)?;
        Ok(Record { packages: wheels.len() })
    }
}
