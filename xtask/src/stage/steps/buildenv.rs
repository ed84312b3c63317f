//! buildenv: the environment with the build tools, `cmake` and `ninja` among them, that PyTorch is built in.

use crate::error::Result;
use crate::stage::build::Build;
use crate::stage::environment;
use crate::stage::step::{Cx, Step};
use crate::store::Parts;

/// The stage. The interpreter is `bin/python` in its folder.
pub struct Buildenv;

/// What is kept beside an environment.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// How many packages it has.
    pub packages: usize,
}

impl Step for Buildenv {
    type Record = Record;
    const NAME: &'static str = "buildenv";
    const WHAT: &'static str = "the build tools, every wheel by its hash";

    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        environment::inputs(cx.build, &cx.build.python_lock()?.build, parts);
        // Its scripts name the interpreter by its path.
        parts.text("executable", cx.build.python.executable.to_string_lossy());
        Ok(())
    }

    fn identity(build: &Build<'_>) -> Result<Option<String>> {
        let mut parts = Parts::new(Self::NAME, 0);
        environment::inputs(build, &build.python_lock()?.build, &mut parts);
        Ok(Some(parts.key().to_string()))
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let wheels = &cx.build.python_lock()?.build;
        environment::make(cx.build, &cx.out()?, &cx.scratch()?, wheels)?;
        Ok(Record { packages: wheels.len() })
    }
}
