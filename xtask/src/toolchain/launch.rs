//! The compiler launcher: makes compile commands independent of the folder they run in.
//!
//! CMake gives compilers absolute paths. They end up in `__FILE__`, so two build folders give two
//! different binaries, and in the hash of every compiler cache, so the second build misses. CMake
//! starts compilers through a launcher; ours is this program, which rewrites every path below the
//! work folder to one that is relative to the build folder (`../aten/src/…`, as error messages of
//! the stock wheels show them) and then becomes the compiler cache or the compiler itself.
//!
//! Before either, it looks for the object among those that came from elsewhere ([`super::objects`]); a build that has a
//! farm sends what can travel there ([`super::farm`]), of nvcc's commands their steps ([`super::nvcc`]), and what does not
//! come back in time is compiled here.
//!
//! It does so only where the working directory is the build folder: the trial compiles of CMake's
//! own checks run elsewhere and are left alone.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::admission::{Admitted, Need, Rules};
use super::farm::{Farm, Sent};
use super::nvcc::{self, Part};
use super::objects::{self, FARM_NOTES, Supply};
use crate::error::Error;
use crate::platform;
use crate::store::digest_file;

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
        let mut argv: Vec<OsString> = argv
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
        let is = |program: Option<&OsString>, name: &str| {
            program.is_some_and(|p| Path::new(p).file_stem().is_some_and(|stem| stem == name))
        };
        let is_nvcc = is(argv.first(), "nvcc");
        let cache = std::env::var_os(CACHE_VARIABLE);
        let through_cache = |argv: &[OsString]| cache.iter().chain(argv).cloned().collect::<Vec<_>>();
        let mut cached = through_cache(&argv);
        if is_nvcc && std::env::var_os(nvcc::NAMES_VARIABLE).is_some() {
            let names = nvcc::names(&argv);
            argv.splice(1..1, names);
            // sccache starts nvcc's programs itself, and has names of its own.
            if !is(cache.as_ref(), "sccache") {
                cached = through_cache(&argv);
            }
        }
        let (Some(rules), Some(output)) = (Rules::of_environment(), output) else { return platform::exec(&cached) };
        let guard = match Farm::of_environment() {
            Some(farm) => match self.sent(&farm, &argv, &cached, &output, &rules) {
                Some(Place::Done) => std::process::exit(0),
                Some(Place::Here(guard)) => Some(guard),
                None => None,
            },
            None => None,
        };
        admitted(&rules, rules.need(&output, is_nvcc), &cached, guard, |peak| rules.note(&output, peak >> 20))
    }

    /// What becomes of an object in a build that has a farm. `None` if it is to be compiled here, as ever.
    fn sent(&self, farm: &Farm, argv: &[OsString], cached: &[OsString], output: &str, rules: &Rules) -> Option<Place> {
        let note = |put: bool, digest: &str| objects::note(Path::new(&self.work), FARM_NOTES, put, digest, output);
        // What is noted as the farm's was so until now.
        note(false, "");
        let (sent, steps) = (Sent::of(argv), farm.nvcc.as_ref().and_then(|nvcc| nvcc.instead(argv)));
        if sent.is_none() && steps.is_none() {
            return None;
        }
        if farm.asks_cache && is_cached(cached) {
            return Some(Place::Done);
        }
        // Each step of nvcc's asks for a place of its own.
        if let Some(steps) = steps.filter(|_| farm.open() > 0) {
            if nvcc::compile(&steps, output)? {
                note(true, &digest_file(Path::new(output)).ok()?.0)?;
            }
            return Some(Place::Done);
        }
        let sent = sent?;
        let (room, is_the_farms) = first_room(farm, rules, rules.need(output, false))?;
        if !is_the_farms {
            return Some(Place::Here(room));
        }
        note(true, &farm.compile(&sent, output)?)?;
        Some(Place::Done)
    }
}

/// Becomes `argv`, a step of an nvcc that stands in for the toolkit's: on the farm, if it can travel and the farm has a
/// place; here otherwise, once there is room. Returns only on failure.
pub fn step(argv: &[OsString]) -> Error {
    let (Some(rules), Some(part)) = (Rules::of_environment(), Part::of_environment()) else {
        return platform::exec(argv);
    };
    let need = rules.need(&part.output, false);
    let mut guard = None;
    if let Some(sent) = Sent::of_step(argv)
        && let Some(farm) = Farm::of_environment()
        && let Some((room, is_the_farms)) = first_room(&farm, &rules, need)
    {
        if !is_the_farms {
            guard = Some(room);
        } else if farm.compile(&sent, &part.output).and_then(|_| part.note()).is_some() {
            drop(room);
            std::process::exit(0);
        }
    }
    // What one step needed is not what the object needs.
    admitted(&rules, need, argv, guard, |_| {})
}

/// Room for what needs so much: of the farm (`true`) or of this machine, whichever has some first. `None` if the farm is
/// away.
fn first_room(farm: &Farm, rules: &Rules, need: Need) -> Option<(Admitted, bool)> {
    let mut pause = Duration::from_millis(5);
    while farm.open() > 0 {
        if let Some(ticket) = farm.ticket(need.memory) {
            return Some((ticket, true));
        }
        if let Some(guard) = rules.try_enter(need).ok()? {
            return Some((guard, false));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
    None
}

/// Where an object of a build with a farm comes about.
enum Place {
    /// It is there.
    Done,
    /// It is compiled here, now.
    Here(Admitted),
}

/// Whether ccache has the object that `argv`, ccache first, would make; then it is in its place. A ccache that has to put
/// a program before the compiler which always fails compiles nothing, and keeps nothing.
fn is_cached(argv: &[OsString]) -> bool {
    let Some((cache, rest)) = argv.split_first() else { return false };
    let said = Command::new(cache).args(rest).env("CCACHE_PREFIX", "false").stdin(Stdio::null()).output();
    let Ok(said) = said else { return false };
    let hit = said.status.success();
    if hit {
        // What the compiler said then.
        let _ = std::io::stderr().write_all(&said.stderr);
    }
    hit
}

/// What a compile command writes, as ninja calls it.
fn output(argv: &[OsString]) -> Option<String> {
    let at = argv.iter().position(|a| a == "-o")?;
    Some(argv.get(at + 1)?.to_str()?.trim_start_matches("./").to_owned())
}

/// Runs the compiler once there is room for it, and ends as it ended; `note` is told the peak of one that did well.
/// Returns only on failure.
fn admitted(rules: &Rules, need: Need, argv: &[OsString], guard: Option<Admitted>, note: impl FnOnce(u64)) -> Error {
    let guard = match guard.map_or_else(|| rules.enter(need), Ok) {
        Ok(guard) => guard,
        Err(e) => return e,
    };
    match platform::run_measured(argv) {
        Ok((code, peak)) => {
            drop(guard);
            if code == 0 {
                note(peak);
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
