//! Which case is it? From a pasted traceback to what happened and what to do. A table: what the text
//! holds, and what that means.

use serde::Serialize;

/// A known case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Its name.
    pub case: &'static str,
    /// What happened.
    pub what: &'static str,
    /// What to do.
    pub next: &'static str,
}

/// All marks must be in the text; the first row that fits is the case.
const CASES: &[(&[&str], Explanation)] = &[
    (
        &["use_libuv was requested but PyTorch was bu", "static_tcp_rendezvous"],
        Explanation {
            case: "no-libuv-torchrun",
            what: "torchrun made its store with libuv, which this torch was built without. torchrun listens to neither USE_LIBUV nor the URL.",
            next: "use a build with libuv, or start the ranks without torchrun; `cargo xtask doctor` shows both",
        },
    ),
    (
        &["use_libuv was requested but PyTorch was bu"],
        Explanation {
            case: "no-libuv",
            what: "the process asked for the libuv store, which is the default from torch 2.4 on, and this torch was built without libuv.",
            next: "use a build with libuv, or init_method=\"env://?use_libuv=False\", or USE_LIBUV=0; `cargo xtask doctor` shows what fits",
        },
    ),
    (
        &["cannot import name '_DEFAULT_NUM_WORKER_THREADS' from 'torch._C._distributed_rpc'"],
        Explanation {
            case: "rpc-without-tensorpipe",
            what: "this torch was built with USE_TENSORPIPE=0 on Linux, which leaves half of RPC in: it cannot be imported.",
            next: "build with TensorPipe, as the recipes here do",
        },
    ),
    (
        &["Address already in use"],
        Explanation {
            case: "port-taken",
            what: "another process listens on the rendezvous port: a job that was not ended, or another user of the machine.",
            next: "choose another MASTER_PORT (torchrun: --master-port, or --standalone), or end the other process",
        },
    ),
    (
        &["EADDRINUSE"],
        Explanation {
            case: "port-taken",
            what: "another process listens on the rendezvous port: a job that was not ended, or another user of the machine.",
            next: "choose another MASTER_PORT (torchrun: --master-port, or --standalone), or end the other process",
        },
    ),
    (
        &["DistNetworkError", "failed to connect"],
        Explanation {
            case: "no-connection",
            what: "a rank could not reach the store: nothing listens there (rank 0 died or has not started), the address is wrong, or a firewall is between.",
            next: "look at rank 0's own output first; then check MASTER_ADDR and MASTER_PORT from the failing machine",
        },
    ),
    (
        &["Timed out after", "clients joined"],
        Explanation {
            case: "ranks-missing",
            what: "the store waited for all ranks, and some never came.",
            next: "compare the number that joined with WORLD_SIZE, and look for ranks that died at start",
        },
    ),
    (
        &["Duplicate GPU detected"],
        Explanation {
            case: "nccl-one-gpu-twice",
            what: "two ranks use one GPU, which NCCL refuses.",
            next: "give each rank a GPU of its own (torch.cuda.set_device(local_rank)), or use the gloo backend",
        },
    ),
    (
        &["Connection reset by peer"],
        Explanation {
            case: "peer-died",
            what: "the other end went away: usually another rank failed first, and its error is the one to read.",
            next: "look at the output of the other ranks",
        },
    ),
    (
        &["Default process group has not been initialized"],
        Explanation {
            case: "not-initialized",
            what: "a collective was called before init_process_group().",
            next: "call torch.distributed.init_process_group() first, in every process",
        },
    ),
    (
        &["environment variable", "expected, but not set"],
        Explanation {
            case: "variables-missing",
            what: "env:// reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and one of them is not set.",
            next: "start with torchrun, or set all four for each process",
        },
    ),
];

/// The case that `text` (a traceback, a log) shows, if it is a known one.
pub fn explain(text: &str) -> Option<Explanation> {
    // Terminals and mail clients break long lines.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    CASES.iter().find(|(marks, _)| marks.iter().all(|m| flat.contains(m))).map(|(_, e)| *e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_error_is_known_in_both_spellings_and_broken_over_lines() {
        for text in [
            "RuntimeError: use_libuv was requested but PyTorch was build without libuv support",
            "DistStoreError: use_libuv was requested but PyTorch was built without libuv\nsupport, run with USE_LIBUV=0 to disable it.",
            "  use_libuv was\n  requested but PyTorch was build without",
        ] {
            assert_eq!(explain(text).map(|e| e.case), Some("no-libuv"), "{text}");
        }
        let torchrun =
            "File \".../static_tcp_rendezvous.py\", line 67\n  use_libuv was requested but PyTorch was build";
        assert_eq!(explain(torchrun).map(|e| e.case), Some("no-libuv-torchrun"));
        assert_eq!(explain("all is well"), None);
    }
}
