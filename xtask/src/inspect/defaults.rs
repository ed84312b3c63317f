//! What a torch does when nobody says which store to use: read from its own Python files, so that a
//! patched build is seen as what it is. What no Python file says comes from the table of [`super::makers`].

use serde::{Deserialize, Serialize};

use super::makers;

/// The files that decide, below the folder that holds `torch/`.
pub const RENDEZVOUS: &str = "torch/distributed/rendezvous.py";
/// `torchrun` with the static rendezvous.
pub const STATIC_RENDEZVOUS: &str = "torch/distributed/elastic/rendezvous/static_tcp_rendezvous.py";
/// `torchrun` with the c10d backend, and `--standalone`.
pub const C10D_BACKEND: &str = "torch/distributed/elastic/rendezvous/c10d_rendezvous_backend.py";
/// The store that the agent of the c10d backend makes for its workers.
pub const DYNAMIC_RENDEZVOUS: &str = "torch/distributed/elastic/rendezvous/dynamic_rendezvous.py";

/// How a start ends when nothing chooses a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The store runs on libuv.
    Libuv,
    /// The store runs on the legacy backend.
    Legacy,
    /// `use_libuv was requested but PyTorch was build without libuv support`.
    Crash,
}

impl Outcome {
    /// The outcome of asking for libuv, or not, in a build that has it, or not.
    pub fn of(asks: bool, has: bool) -> Self {
        match (asks, has) {
            (true, true) => Self::Libuv,
            (true, false) => Self::Crash,
            (false, _) => Self::Legacy,
        }
    }

    /// Of two stores that one start makes: whether either ends it, else what the workers' one runs on.
    fn and(self, workers: Self) -> Self {
        if self == Self::Crash { self } else { workers }
    }

    /// The outcome in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Libuv => "runs on libuv",
            Self::Legacy => "runs on the legacy store",
            Self::Crash => "crashes with the known error",
        }
    }
}

/// What the usual ways to start do by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// `init_process_group()` with `env://` or `tcp://`, in processes that make their own store.
    pub init_process_group: Outcome,
    /// `torchrun`: the agent's store and its workers'.
    pub torchrun: Outcome,
    /// `torchrun --standalone`, which is `--rdzv-backend c10d`: both of the agent's stores and the workers'.
    pub torchrun_c10d: Outcome,
    /// The store of a worker that uses its agent's: what is left of `torchrun` where the agent's part is mended.
    pub agent_store_worker: Outcome,
}

/// A torch's Python files that decide; `None` where a file is not there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files<'a> {
    /// `RENDEZVOUS`.
    pub rendezvous: &'a str,
    /// `STATIC_RENDEZVOUS`.
    pub static_rendezvous: Option<&'a str>,
    /// `C10D_BACKEND`.
    pub c10d_backend: Option<&'a str>,
    /// `DYNAMIC_RENDEZVOUS`.
    pub dynamic_rendezvous: Option<&'a str>,
}

/// Tells from a torch's Python files, its version, the platform, and whether the store has libuv.
pub fn defaults(files: Files<'_>, version: &str, windows: bool, has: bool) -> Defaults {
    let own = asks_by_default(files.rendezvous, windows, has);
    // Where a call does not say, the binding's default decides: neither the URL nor USE_LIBUV.
    let binding = makers::era(version).is_some_and(|e| e.binding);
    let of = |asked: Asked| match asked {
        Asked::Binding => Outcome::of(binding, has),
        Asked::Fixed(asks) => Outcome::of(asks, has),
        Asked::LikeItsOwn => Outcome::of(own, has),
    };
    let first = |text: Option<&str>| {
        text.and_then(|text| calls(text).next().map(|call| asked(text, call))).unwrap_or(Asked::Binding)
    };
    let worker = worker_call(files.rendezvous).map(|call| of(asked(files.rendezvous, call)));
    let agent = of(first(files.static_rendezvous));
    let dynamic = files.dynamic_rendezvous.and_then(|text| calls(text).next().map(|c| of(asked(text, c))));
    let c10d = of(first(files.c10d_backend));
    let init_process_group = Outcome::of(own, has);
    Defaults {
        init_process_group,
        torchrun: worker.map_or(agent, |w| w.and(agent)),
        // An agent that makes no second store leaves its workers to make their own.
        torchrun_c10d: c10d.and(match dynamic {
            Some(dynamic) => worker.map_or(dynamic, |w| w.and(dynamic)),
            None => init_process_group,
        }),
        agent_store_worker: worker.unwrap_or(agent),
    }
}

/// The default of the URL's `use_libuv` and the environment's `USE_LIBUV`: `os.environ.get("USE_LIBUV", "1")`,
/// and from 2.7 on another one after a test for `win32`.
fn asks_by_default(text: &str, windows: bool, has: bool) -> bool {
    const LOOKUP: &str = "\"USE_LIBUV\", \"";
    let values: Vec<(usize, bool)> =
        text.match_indices(LOOKUP).map(|(at, _)| (at, text[at + LOOKUP.len()..].starts_with('1'))).collect();
    match values[..] {
        [] => false,
        [(_, on)] => on,
        [(first, on_windows), (_, on), ..] => {
            let guard = text[..first].rfind("win32").filter(|w| first - w < 400).map(|w| &text[w..first]);
            match guard {
                // A build that asks itself (patches/pytorch-2.15.0) takes the other branch where libuv is in it.
                Some(guard) if windows && !(has && guard.contains("_libuv_is_built_in")) => on_windows,
                _ => on,
            }
        }
    }
}

/// What a call of `TCPStore(…)` says of libuv.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Nothing: the binding's own default counts.
    Binding,
    /// Yes or no.
    Fixed(bool),
    /// Something that is worked out, as a process does for a store of its own.
    LikeItsOwn,
}

fn asked(text: &str, call: &str) -> Asked {
    let Some((_, value)) = call.split_once("use_libuv=") else { return Asked::Binding };
    let value = value.trim_start();
    if value.starts_with("True") || value.starts_with("False") {
        return Asked::Fixed(value.starts_with("True"));
    }
    // 2.3 and 2.4: `use_libuv = params.get_as_bool("use_libuv", False)`
    match text.split_once("get_as_bool(\"use_libuv\", ") {
        Some((_, default)) => Asked::Fixed(default.starts_with("True")),
        None => Asked::LikeItsOwn,
    }
}

/// The call in the branch of `rendezvous.py` for a worker that uses its agent's store.
fn worker_call(text: &str) -> Option<&str> {
    let (_, branch) = text.split_once("if _torchelastic_use_agent_store():")?;
    calls(branch).next()
}

/// The arguments of each call of `TCPStore(…)`, in order; not the class, nor its name in an annotation.
fn calls(text: &str) -> impl Iterator<Item = &str> {
    const NAME: &str = "TCPStore(";
    text.match_indices(NAME).filter_map(|(at, _)| {
        let before = text[..at].chars().next_back().unwrap_or(' ');
        if before.is_alphanumeric() || before == '_' {
            return None;
        }
        let rest = &text[at + NAME.len()..];
        let mut depth = 1usize;
        let mut comment = false;
        for (i, c) in rest.char_indices().take(4000) {
            match c {
                '\n' => comment = false,
                '#' => comment = true,
                _ if comment => {}
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(&rest[..i]);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V26: &str = "return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"1\")) == \"1\"";
    const V27: &str = "if sys.platform == \"win32\":\n        # PyTorch is built without libuv support on windows, so default to 0\n        return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"0\")) == \"1\"\n    return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"1\")) == \"1\"";
    const V23: &str = "return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"0\")) == \"1\"";
    const WORKER: &str = "\n    if _torchelastic_use_agent_store():\n        return TCPStore(\n            is_master=False,\n        )\n    else:\n        return TCPStore(use_libuv=use_libuv)\n";

    fn files<'a>(rendezvous: &'a str, torchrun: Option<&'a str>) -> Files<'a> {
        Files { rendezvous, static_rendezvous: torchrun, ..Files::default() }
    }

    #[test]
    fn each_era_of_the_default_is_read() {
        let of = |text, version, windows, has| {
            let d = defaults(files(text, None), version, windows, has);
            (d.init_process_group, d.torchrun)
        };
        assert_eq!(of(V26, "2.6.0", true, false), (Outcome::Crash, Outcome::Crash));
        assert_eq!(of(V26, "2.6.0+cpu", false, true), (Outcome::Libuv, Outcome::Libuv));
        assert_eq!(of(V27, "2.15.0", true, false), (Outcome::Legacy, Outcome::Crash));
        assert_eq!(of(V27, "2.15.0", false, false), (Outcome::Crash, Outcome::Crash));
        assert_eq!(of(V23, "2.3.1", true, false), (Outcome::Legacy, Outcome::Legacy));
        assert_eq!(of("", "2.1.0", false, true), (Outcome::Legacy, Outcome::Legacy));
    }

    #[test]
    fn a_build_whose_torchrun_chooses_is_believed() {
        let text = "store = TCPStore(\n    host,\n    use_libuv=False,\n)";
        assert_eq!(defaults(files(V27, Some(text)), "2.15.0", true, false).torchrun, Outcome::Legacy);
    }

    #[test]
    fn torchrun_whose_agent_is_mended_and_whose_worker_is_not_crashes_still() {
        let agent = "self._store = TCPStore(  # type: ignore[call-arg]\n    host,\n    use_libuv=False,\n)";
        let rendezvous = format!("{V27}{WORKER}");
        let d = defaults(files(&rendezvous, Some(agent)), "2.15.0", true, false);
        assert_eq!((d.torchrun, d.agent_store_worker), (Outcome::Crash, Outcome::Crash));
        let mended = rendezvous.replace("is_master=False,", "is_master=False, use_libuv=False,");
        let d = defaults(files(&mended, Some(agent)), "2.15.0", true, false);
        assert_eq!((d.torchrun, d.agent_store_worker), (Outcome::Legacy, Outcome::Legacy));
    }

    #[test]
    fn the_c10d_backend_of_2_4_is_off_and_its_workers_make_their_own_store() {
        let backend = "use_libuv = params.get_as_bool(\"use_libuv\", False)\nstore = TCPStore(\n  host,\n  use_libuv=use_libuv,\n)";
        let rendezvous = format!("{V26}{WORKER}");
        let files = Files { rendezvous: &rendezvous, c10d_backend: Some(backend), ..Files::default() };
        let d = defaults(files, "2.4.1", true, false);
        // The agent's store starts; the worker's own asks for libuv, as env:// does.
        assert_eq!((d.torchrun_c10d, d.torchrun), (Outcome::Crash, Outcome::Crash));
        let plain = rendezvous.replace("\"USE_LIBUV\", \"1\"", "\"USE_LIBUV\", \"0\"");
        let d = defaults(Files { rendezvous: &plain, ..files }, "2.4.1", true, false);
        assert_eq!((d.torchrun_c10d, d.torchrun), (Outcome::Legacy, Outcome::Crash));
    }

    #[test]
    fn a_build_that_asks_itself_runs_on_libuv_on_windows_where_it_has_it() {
        let patched = V27.replace("\"win32\":", "\"win32\" and not _libuv_is_built_in():");
        let of = |has| defaults(files(&patched, None), "2.15.0", true, has).init_process_group;
        assert_eq!((of(true), of(false)), (Outcome::Libuv, Outcome::Legacy));
    }
}
