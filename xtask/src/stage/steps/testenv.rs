//! testenv: the environment with all that a torch needs when it is tried out, without a torch: made once, and
//! shared by links.

use super::buildenv::Record;
use crate::error::Result;
use crate::stage::build::Build;
use crate::stage::environment;
use crate::stage::step::{Cx, Step};
use crate::store::Parts;

/// The stage that makes the environment for trying a torch out.
pub struct Testenv;

impl Step for Testenv {
    type Record = Record;
    const NAME: &'static str = "testenv";
    const WHAT: &'static str = "the packages that a torch is tried out with";

    /// None where the recipe has no such packages.
    fn of(build: &Build<'_>) -> Vec<String> {
        // A lock without this Python is told by the stages that every build has.
        let none = build.python_lock().is_ok_and(|lock| lock.verify.is_empty());
        if none { Vec::new() } else { vec![String::new()] }
    }

    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        environment::inputs(cx.build, &cx.build.python_lock()?.verify, parts);
        parts.text("executable", cx.build.python.executable.to_string_lossy());
        Ok(())
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let wheels = &cx.build.python_lock()?.verify;
        environment::make(cx.build, &cx.out()?, &cx.scratch()?, wheels)?;
        Ok(Record { packages: wheels.len() })
    }
}
