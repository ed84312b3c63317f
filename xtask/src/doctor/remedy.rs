//! What helps a torch without libuv, for which start, at what cost. A table, so that it can be read
//! and tested; sources: upstream's `rendezvous.py` and `static_tcp_rendezvous.py` of each version.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Interpreter;
use crate::inspect::{Outcome, Report};

/// A way to start a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// `init_process_group()` in the script's own processes.
    InitProcessGroup,
    /// `torchrun`.
    Torchrun,
}

/// Something that helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// What to do, in a few words.
    pub what: &'static str,
    /// Lines to paste.
    pub lines: Vec<String>,
    /// Which starts it helps.
    pub helps: Vec<Start>,
    /// What it costs.
    pub costs: &'static str,
}

const LEGACY: &str =
    "the legacy store: fine for a few ranks, slow to start for hundreds, and upstream keeps it for compatibility only";

/// The remedies that fit, best first.
pub fn list(report: &Report, python: &Interpreter, environment: &BTreeMap<String, String>) -> Vec<Remedy> {
    let mut out = Vec::new();
    let windows = python.platform == "win32";
    let minor: String = python.version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let version = report.torch.version.as_deref().unwrap_or("0");
    if environment.get("USE_LIBUV").is_some_and(|v| v == "1") && !report.libuv {
        out.push(Remedy {
            what: "take USE_LIBUV=1 out of the environment: this build cannot do what it asks for",
            lines: vec![if windows { "set USE_LIBUV=".into() } else { "unset USE_LIBUV".into() }],
            helps: vec![Start::InitProcessGroup],
            costs: "nothing",
        });
    }
    out.push(Remedy {
        what: "a build of the same version that has libuv: nothing in the scripts changes",
        lines: if windows {
            vec!["cargo xtask build-torch --recipe torch-2.6.0-windows-cpu".into()]
        } else {
            vec![format!("cargo xtask build-torch --python {minor}"), "python -m pip install dist/torch-*.whl".into()]
        },
        helps: vec![Start::InitProcessGroup, Start::Torchrun],
        costs: "hours of compiling, once; then the wheel can be shared",
    });
    let crashes = |outcome: Option<Outcome>| outcome == Some(Outcome::Crash);
    let (init, run) = (report.defaults.map(|d| d.init_process_group), report.defaults.map(|d| d.torchrun));
    if numbers(version) >= (2, 4) && (crashes(init) || init.is_none()) {
        out.push(Remedy {
            what: "tell one call to use the legacy store",
            lines: vec![
                "dist.init_process_group(backend, init_method=\"env://?use_libuv=False\", world_size=n, rank=r)".into(),
            ],
            helps: vec![Start::InitProcessGroup],
            costs: LEGACY,
        });
        out.push(Remedy {
            what: "tell all calls of a process to use the legacy store",
            lines: vec![if windows { "set USE_LIBUV=0".into() } else { "export USE_LIBUV=0".into() }],
            helps: vec![Start::InitProcessGroup],
            costs: LEGACY,
        });
    }
    if numbers(version) >= (2, 4) && crashes(run) {
        out.push(Remedy {
            what: "start the ranks without torchrun, whose own store asks for libuv and listens to no variable",
            lines: vec![
                "torch.multiprocessing.spawn(main, args=(n,), nprocs=n)  # in the script".into(),
                "and in main: init_process_group(…, init_method=\"env://?use_libuv=False\")".into(),
            ],
            helps: vec![Start::Torchrun],
            costs: "no elastic restarts; and the legacy store's costs",
        });
    }
    // The last version whose defaults ask for no libuv, with its companions; Python 3.8 to 3.12.
    if (3, 8) <= numbers(&minor) && numbers(&minor) <= (3, 12) {
        out.push(Remedy {
            what: "the last version before libuv became the default",
            lines: vec!["python -m pip install torch==2.3.1 torchvision==0.18.1 torchaudio==2.3.1".into()],
            helps: vec![Start::InitProcessGroup, Start::Torchrun],
            costs: "everything that came after 2.3: newer GPUs, fixes, and models that need them",
        });
    }
    out
}

fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split(['.', '+']).map(|n| n.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
