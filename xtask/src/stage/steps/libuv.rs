//! libuv: built from source through the `cmake` crate; static, position independent, tests off.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::buildenv::Buildenv;
use crate::error::{Error, Result};
use crate::platform;
use crate::source::unpack;
use crate::stage::build::Build;
use crate::stage::environment;
use crate::stage::step::{Ahead, Cx, Step};
use crate::stage::work::room;
use crate::store::Parts;
use crate::toolchain::{Family, Process};

/// The stage. Its folder is a prefix.
pub struct Libuv;

/// What is kept beside the prefix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The version that its source states.
    pub version: String,
    /// What was set in its CMake.
    pub options: BTreeMap<String, String>,
    /// What the compiler calls itself.
    pub compiler: String,
}

/// The hidden command that runs the cmake crate in a process of its own: the crate speaks to a
/// cargo build script on standard output, and takes its settings from the environment.
pub const HELPER_COMMAND: &str = "__libuv";

/// What goes into libuv's own CMake, beside what the crate sets.
const OPTIONS: &[(&str, &str)] = &[
    // Windows' wheels hold uv.dll, which Gloo and the store share.
    ("LIBUV_BUILD_SHARED", if cfg!(windows) { "ON" } else { "OFF" }),
    ("LIBUV_BUILD_TESTS", "OFF"),
    ("LIBUV_BUILD_BENCH", "OFF"),
    ("BUILD_TESTING", "OFF"),
    ("CMAKE_POSITION_INDEPENDENT_CODE", "ON"),
    ("CMAKE_INSTALL_LIBDIR", "lib"),
];

impl Step for Libuv {
    type Record = Record;
    const NAME: &'static str = "libuv";
    const WHAT: &'static str = "from source, static and position independent";

    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        let build = cx.build;
        parts.digest("source", build.locked(&build.recipe.libuv.source));
        parts.text("version", &build.recipe.libuv.version);
        parts.json("folder", &build.recipe.libuv.folder);
        parts.known_as("compiler", &build.compiler.identity(), &build.compiler.banner);
        parts.json("epoch", &build.recipe.torch.epoch);
        parts.each("option", &options());
        Ok(())
    }

    fn check(build: &Build<'_>, _ahead: &Ahead) -> Result<()> {
        room::check_path(build)?;
        room::check_hiding(build)
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, out, buildenv) = (cx.build, cx.out()?, cx.made::<Buildenv>()?.folder);
        let scratch = cx.scratch()?;
        let source = scratch.join("src");
        let found = unpack_source(build, &source)?;
        let log = out.join("build.log");
        let me = platform::own_program()?;
        let flags = match build.compiler.family {
            Family::Gcc | Family::Clang => format!("-ffile-prefix-map={}=/libuv", scratch.display()),
            // It names sources as the command line does, which Ninja gives relative to the build folder.
            Family::Msvc => String::new(),
        };
        Process::new(me)
            .hide(build.compiler.hidden())
            .envs(build.compiler.environment(&scratch))
            .arg(HELPER_COMMAND)
            .arg(&source)
            .arg(scratch.join("install"))
            .env("PATH", build.tool_path(&buildenv))
            .env("CMAKE", environment::tool(&buildenv, "cmake"))
            .env("CMAKE_GENERATOR", "Ninja")
            .env("CC", &build.compiler.cc)
            .env("CXX", &build.compiler.cxx)
            .env("CFLAGS", flags)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("HOME", &scratch)
            .env("SOURCE_DATE_EPOCH", build.recipe.torch.epoch.to_string())
            .env("TARGET_TRIPLE", &build.compiler.target)
            .check("libuv-build", Some(&log))?;
        let install = scratch.join("install");
        for part in ["include", "lib", "share", "bin"] {
            if install.join(part).exists() {
                platform::rename(install.join(part), out.join(part))?;
            }
        }
        // It names the folder that it was installed to, which does not exist any more.
        fs_err::remove_file(&log)?;
        for stale in ["lib/pkgconfig", "lib/cmake"] {
            let stale = out.join(stale);
            if stale.exists() {
                fs_err::remove_dir_all(stale)?;
            }
        }
        let wanted: &[&str] = if cfg!(windows) { &["bin/uv.dll", "lib/uv.lib"] } else { &["lib/libuv.a"] };
        if let Some(missing) = wanted.iter().find(|w| !out.join(w).is_file()) {
            return Err(Error::world("libuv-build", format!("libuv's build made no {missing}")));
        }
        let compiler = build.compiler.banner.clone();
        Ok(Record { version: found, options: options(), compiler })
    }
}

/// [`OPTIONS`], in order.
fn options() -> BTreeMap<String, String> {
    OPTIONS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Unpacks libuv's source into the folder `to` and returns its version, which is the recipe's.
///
/// # Errors
/// The archive is not in the store, or cannot be unpacked. Bad input: it is no libuv, or one of another version.
pub fn unpack_source(build: &Build<'_>, to: &Path) -> Result<String> {
    let libuv = &build.recipe.libuv;
    let target = unpack::Target { strip: 1, only: libuv.folder.clone(), ..unpack::Target::all(to) };
    unpack::unpack(&build.blob(&libuv.source)?, &libuv.source, &[target], build.bounds(), build.recipe.torch.epoch)?;
    let found = version_of(to)?;
    if found == libuv.version {
        return Ok(found);
    }
    Err(Error::misuse("libuv-version", format!("the source is libuv {found}; the recipe says {}", libuv.version))
        .next("correct libuv.version in the recipe, or the source's coordinates"))
}

/// The version that `include/uv/version.h` states.
fn version_of(source: &Path) -> Result<String> {
    let text = fs_err::read_to_string(source.join("include/uv/version.h"))?;
    let number = |name: &str| {
        text.lines().find_map(|l| l.strip_prefix("#define ")?.strip_prefix(name)?.trim().parse::<u32>().ok())
    };
    match (number("UV_VERSION_MAJOR "), number("UV_VERSION_MINOR "), number("UV_VERSION_PATCH ")) {
        (Some(a), Some(b), Some(c)) => Ok(format!("{a}.{b}.{c}")),
        _ => Err(Error::misuse("libuv-version", "include/uv/version.h states no version: is this libuv?")),
    }
}

/// The helper's body: builds the libuv at `source` into `install`.
///
/// # Errors
/// Never: where CMake fails, its crate panics.
pub fn helper(source: &Path, install: &Path) -> Result<()> {
    let triple = rust_triple(&std::env::var("TARGET_TRIPLE").unwrap_or_default());
    let mut config = cmake::Config::new(source);
    config.out_dir(install).profile("Release").generator("Ninja").host(&triple).target(&triple).very_verbose(true);
    for (name, value) in OPTIONS {
        config.define(name, value);
    }
    // The crate reads what cargo gives build scripts.
    config.env("NUM_JOBS", "2").define("CMAKE_C_COMPILER", std::env::var("CC").unwrap_or_default());
    config.build();
    Ok(())
}

/// `x86_64-linux-gnu` (what compilers say) as `x86_64-unknown-linux-gnu` (what Rust crates expect).
fn rust_triple(triple: &str) -> String {
    let parts: Vec<&str> = triple.split('-').collect();
    match parts[..] {
        [machine, "linux", abi] => format!("{machine}-unknown-linux-{abi}"),
        [machine, _, "linux", abi] => format!("{machine}-unknown-linux-{abi}"),
        [machine, "apple", ..] => format!("{}-apple-darwin", if machine == "arm64" { "aarch64" } else { machine }),
        _ => triple.to_owned(),
    }
}
