//! compile: everything that is left, without network.

use serde::{Deserialize, Serialize};

use super::prefix::compiler_cache;
use crate::error::Result;
use crate::event::Whence;
use crate::stage::build::Build;
use crate::stage::objects::audit::{Origins, origins};
use crate::stage::step::{Ahead, Cx, Step};
use crate::stage::work::ninja::{self, Goal};
use crate::stage::work::room;
use crate::store::Parts;

/// The stage that compiles and links all; its result is the work folder.
pub struct Compile;

/// What is kept of a compile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The compiler cache that it went through.
    pub cache: String,
    /// Compiler processes at a time.
    pub jobs: usize,
    /// Where the objects of the last run came from, by their number.
    #[serde(default)]
    pub whence: Option<Whence>,
    /// Where the objects came from, if not all were compiled on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<Origins>,
}

impl Step for Compile {
    type Record = Record;
    const NAME: &'static str = "compile";
    const WHAT: &'static str = "all objects and libraries, without network";

    /// None of its own: what it compiles, configure decided.
    fn inputs(_cx: &Cx<'_>, _parts: &mut Parts) -> Result<()> {
        Ok(())
    }

    fn check(build: &Build<'_>, ahead: &Ahead) -> Result<()> {
        room::check(build, ahead.work.as_ref(), true)
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, work, cache) = (cx.build, cx.work()?, compiler_cache(cx)?);
        build.tell_of_network();
        build.events.note(format!("compiling with {} jobs, compiler cache: {}", ninja::jobs(build), cache.name()));
        let whence = Some(ninja::run(build, work, &cache, Goal::All, Self::NAME)?);
        Ok(Record { cache: cache.name().to_owned(), jobs: ninja::jobs(build), whence, objects: origins(build, work)? })
    }
}
