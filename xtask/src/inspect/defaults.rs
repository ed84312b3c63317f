//! What a torch does when nobody says which store to use: read from its own Python files, so that a
//! patched build is seen as what it is.

use serde::Serialize;

/// The files that decide, below the folder that holds `torch/`.
pub const RENDEZVOUS: &str = "torch/distributed/rendezvous.py";
/// `torchrun` with the static rendezvous.
pub const STATIC_RENDEZVOUS: &str = "torch/distributed/elastic/rendezvous/static_tcp_rendezvous.py";

/// How a start ends when nothing chooses a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
    fn of(asks: bool, has: bool) -> Self {
        match (asks, has) {
            (true, true) => Self::Libuv,
            (true, false) => Self::Crash,
            (false, _) => Self::Legacy,
        }
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

/// What the two usual ways to start do by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Defaults {
    /// `init_process_group()` with `env://` or `tcp://`.
    pub init_process_group: Outcome,
    /// `torchrun`.
    pub torchrun: Outcome,
}

/// Tells from `rendezvous.py`, the static rendezvous of torchrun, the version, the platform, and
/// whether the store has libuv.
pub fn defaults(rendezvous: &str, torchrun: Option<&str>, version: &str, windows: bool, has: bool) -> Defaults {
    let init = Outcome::of(asks_by_default(rendezvous, windows), has);
    // torchrun makes its store with the binding's default, unless the file says otherwise.
    let torchrun = match torchrun.and_then(explicit_choice) {
        Some(asks) => Outcome::of(asks, has),
        None => Outcome::of(binding_default(version), has),
    };
    Defaults { init_process_group: init, torchrun }
}

/// The default of the URL's `use_libuv` and the environment's `USE_LIBUV`: `os.environ.get("USE_LIBUV", "1")`,
/// and from 2.7 on another one after a test for `win32`.
fn asks_by_default(text: &str, windows: bool) -> bool {
    const LOOKUP: &str = "\"USE_LIBUV\", \"";
    let values: Vec<(usize, bool)> =
        text.match_indices(LOOKUP).map(|(at, _)| (at, text[at + LOOKUP.len()..].starts_with('1'))).collect();
    match values[..] {
        [] => false,
        [(_, on)] => on,
        [(first, on_windows), (_, on), ..] => {
            let guarded = text[..first].rfind("win32").is_some_and(|w| first - w < 400);
            if windows && guarded { on_windows } else { on }
        }
    }
}

/// `use_libuv=True` or `False` in a call of `TCPStore(…)`.
fn explicit_choice(text: &str) -> Option<bool> {
    let call = &text[text.find("TCPStore(")?..];
    let end = call.find("\n            )").unwrap_or_else(|| {
        let most = call.len().min(800);
        (0..=most).rev().find(|&i| call.is_char_boundary(i)).unwrap_or(0)
    });
    let call = &call[..end];
    let value = call.split("use_libuv=").nth(1)?;
    Some(value.trim_start().starts_with("True"))
}

/// The default of the C++ binding's `use_libuv`: on from 2.4 on.
fn binding_default(version: &str) -> bool {
    let mut numbers = version.split(['.', '+']).map(|n| n.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) >= (2, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V26: &str = "return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"1\")) == \"1\"";
    const V27: &str = "if sys.platform == \"win32\":\n        # PyTorch is built without libuv support on windows, so default to 0\n        return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"0\")) == \"1\"\n    return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"1\")) == \"1\"";
    const V23: &str = "return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"0\")) == \"1\"";

    #[test]
    fn each_era_of_the_default_is_read() {
        let of = |text, version, windows, has| {
            let d = defaults(text, None, version, windows, has);
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
        assert_eq!(defaults(V27, Some(text), "2.15.0", true, false).torchrun, Outcome::Legacy);
    }
}
