//! toolchain: compiler, linker, headers and libraries to link with, put together of locked packages and tried.

use super::prefix::assemble;
use crate::error::Result;
use crate::recipe::TOOLCHAIN;
use crate::stage::build::Build;
use crate::stage::locked;
use crate::stage::step::{Ahead, Cx, Step};
use crate::stage::work::room;
use crate::store::Parts;
use crate::toolchain::locked::{Tried, check, complete};

/// The stage of a recipe that brings its own compiler.
pub struct Toolchain;

/// What is kept beside a toolchain.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// Files that were unpacked.
    pub files: u64,
    /// What it said of itself when it was tried.
    pub tried: Tried,
}

impl Step for Toolchain {
    type Record = Record;
    const NAME: &'static str = TOOLCHAIN;
    const WHAT: &'static str = "compiler, linker and sysroot, of locked packages";
    const EMBEDS: &'static [(&'static str, &'static str)] = locked::EMBEDS;

    fn of(build: &Build<'_>) -> Vec<String> {
        build.compiler.locked.iter().map(|_| String::new()).collect()
    }

    /// The same as before there is a build: the compiler's place is known by them.
    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        locked::inputs(&cx.build.recipe, &cx.build.lock, parts);
        Ok(())
    }

    fn check(build: &Build<'_>, _ahead: &Ahead) -> Result<()> {
        room::check_path(build)?;
        room::check_hiding(build)
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, out, scratch) = (cx.build, cx.out()?, cx.scratch()?);
        let files = assemble(&build.drawn(), TOOLCHAIN, &out, &scratch)?;
        let key = build.compiler.files.get(TOOLCHAIN).cloned().unwrap_or_default();
        complete(&out, &build.python.machine, &key)?;
        let (trial, version) = (scratch.join("trial"), locked::version(&build.recipe));
        fs_err::create_dir_all(&trial)?;
        Ok(Record { files, tried: check(&out, &version, &trial)? })
    }
}
