//! The compiler launcher: makes compile commands independent of the folder they run in.
//!
//! CMake gives compilers absolute paths. They end up in `__FILE__`, so two build folders give two
//! different binaries, and in the hash of every compiler cache, so the second build misses. CMake
//! starts compilers through a launcher; ours is this program, which rewrites every path below the
//! work folder to one that is relative to the build folder (`../aten/src/…`, as error messages of
//! the stock wheels show them) and then becomes the compiler cache or the compiler itself.
//!
//! Before either, it looks for the object among those that came from elsewhere ([`super::objects`]).
//!
//! It does so only where the working directory is the build folder: the trial compiles of CMake's
//! own checks run elsewhere and are left alone.

use std::ffi::OsString;
use std::path::Path;

use super::admission::Rules;
use super::objects::Supply;
use crate::error::Error;
use crate::platform;

/// The hidden command under which this program is the launcher.
pub const LAUNCH_COMMAND: &str = "__launch";

/// Names the compiler cache: read when a compile starts, so that the choice is no part of the
/// commands that ninja knows, and changing it recompiles nothing.
pub const CACHE_VARIABLE: &str = "TORCHMILL_COMPILER_CACHE";

/// Rewrites paths of the work folder to relative ones, so that the same object comes out in any folder.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The work folder: what is above the tree and the links to its dependencies.
    pub work: String,
}

impl Launch {
    /// The paths that are rewritten, longest first, and what they become.
    fn rules(&self) -> [(String, &'static str); 3] {
        [(format!("{}/src/build", self.work), "."), (format!("{}/src", self.work), ".."), (self.work.clone(), "../..")]
    }

    /// Rewrites one argument.
    pub fn rewrite(&self, argument: &str) -> String {
        if !argument.contains(&self.work) {
            return argument.to_owned();
        }
        let mut out = argument.to_owned();
        for (from, to) in self.rules() {
            out = replace_path(&out, &from, to);
        }
        out
    }

    /// Becomes the compiler, or the cache in front of it: `argv` is the compiler and its arguments.
    /// Returns only on failure.
    pub fn exec(&self, argv: Vec<OsString>) -> Error {
        let here = std::env::current_dir().unwrap_or_default();
        let in_build = here == Path::new(&self.work).join("src/build");
        let argv: Vec<OsString> = argv
            .into_iter()
            .enumerate()
            // The compiler keeps its path.
            .map(|(i, a)| match a.to_str() {
                Some(text) if in_build && i > 0 => OsString::from(self.rewrite(text)),
                _ => a,
            })
            .collect();
        if !in_build {
            return platform::exec(&argv);
        }
        let output = output(&argv);
        if let (Some(supply), Some(output)) = (Supply::of_environment(), &output)
            && let Some(words) = argv.iter().map(|a| a.to_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
            && supply.deliver(Path::new(&self.work), &words, output)
        {
            std::process::exit(0);
        }
        let is_nvcc = argv.first().is_some_and(|c| Path::new(c).file_stem().is_some_and(|n| n == "nvcc"));
        let argv = match std::env::var_os(CACHE_VARIABLE) {
            Some(cache) => [vec![cache], argv].concat(),
            None => argv,
        };
        match (Rules::of_environment(), output) {
            (Some(rules), Some(output)) => admitted(&rules, &output, is_nvcc, &argv),
            _ => platform::exec(&argv),
        }
    }
}

/// What a compile command writes, as ninja calls it.
fn output(argv: &[OsString]) -> Option<String> {
    let at = argv.iter().position(|a| a == "-o")?;
    Some(argv.get(at + 1)?.to_str()?.trim_start_matches("./").to_owned())
}

/// Runs the compiler once there is room for it, takes note of what it needed, and ends as it ended.
/// Returns only on failure.
fn admitted(rules: &Rules, output: &str, is_nvcc: bool, argv: &[OsString]) -> Error {
    let guard = match rules.enter(rules.need(output, is_nvcc)) {
        Ok(guard) => guard,
        Err(e) => return e,
    };
    match platform::run_measured(argv) {
        Ok((code, peak)) => {
            drop(guard);
            if code == 0 {
                rules.note(output, peak >> 20);
            }
            std::process::exit(code)
        }
        Err(e) => e,
    }
}

/// Replaces `from` by `to` wherever it is followed by the end of a path segment.
fn replace_path(text: &str, from: &str, to: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let after = &rest[at + from.len()..];
        out.push_str(&rest[..at]);
        if after.is_empty() || after.starts_with(['/', '"', '\\', ':', ';', ' ', '=']) {
            out.push_str(to);
        } else {
            out.push_str(from);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_the_work_folder_become_relative_to_the_build_folder() {
        let l = Launch { work: "/s/w".into() };
        assert_eq!(l.rewrite("-I/s/w/src/build/aten"), "-I./aten");
        assert_eq!(l.rewrite("-I/s/w/src"), "-I..");
        assert_eq!(l.rewrite("/s/w/src/aten/x.cpp"), "../aten/x.cpp");
        assert_eq!(l.rewrite("/s/w/deps/uv/include"), "../../deps/uv/include");
        assert_eq!(l.rewrite("-DX=\"/s/w/src/y\""), "-DX=\"../y\"");
        assert_eq!(l.rewrite("/s/work2/src"), "/s/work2/src");
        assert_eq!(l.rewrite("/s/w/srcs/x"), "../../srcs/x");
    }
}
