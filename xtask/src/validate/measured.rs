//! What the benchmark prints (`tests/allreduce`, `--json`), as it is read here.

use serde::{Deserialize, Serialize};

/// What a program found on this machine: `allreduce info --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Info {
    /// GPUs and backends: what the jobs are chosen by.
    pub hardware: Hardware,
    /// A libuv store was served.
    pub libuv: bool,
    /// The store's error, where none was served.
    pub libuv_error: Option<String>,
    /// What it would measure.
    pub jobs: Vec<Job>,
}

/// What a build on this machine can do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hardware {
    /// GPUs that the build can use.
    pub gpus: usize,
    /// Whether the build has the Gloo backend.
    pub gloo: bool,
    /// Whether the build has the NCCL backend.
    pub nccl: bool,
}

/// One all-reduce job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Backend of the process group: `gloo`, `nccl`.
    pub backend: String,
    /// Where the tensors are: `cpu`, `cuda`.
    pub device: String,
    /// Ranks on this machine.
    pub ranks: u32,
}

/// One round of one build.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Round {
    /// All-reduce, a job each.
    pub collective: Vec<Collective>,
    /// The rendezvous store under load; `None` where it was not measured.
    pub store: Option<StoreRows>,
    /// Times of single operators; `None` where they were not measured.
    pub operators: Option<Operators>,
}

/// One job of all-reduces.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Collective {
    /// Backend, device and number of ranks.
    pub job: Job,
    /// Rows, or why there are none.
    pub rows: Result<Vec<CollectiveRow>, String>,
}

/// Rows of the all-reduce, as printed.
#[derive(Debug, Clone, Deserialize)]
pub struct CollectiveOutput {
    /// One row a size.
    pub rows: Vec<CollectiveRow>,
}

/// One cell of the all-reduce.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CollectiveRow {
    /// Bytes that each rank gives.
    pub bytes: u64,
    /// Elements that each rank gives.
    pub count: u64,
    /// `float`, `half`, `bfloat16`.
    pub r#type: String,
    /// Whether the result goes to a tensor of its own: `out` of place, or `in` place (as in nccl-tests).
    pub place: String,
    /// Seconds of one all-reduce, a batch each.
    pub seconds: Vec<f64>,
    /// Bytes a second of the median times 2 (n − 1) / n for n ranks: what each link carries (nccl-tests).
    pub busbw: f64,
    /// Elements with a wrong sum.
    pub wrong: u64,
    /// Why there is no figure.
    #[serde(default)]
    pub error: Option<String>,
}

/// The store's rows, or why there are none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreRows {
    /// A server and a number of clients each.
    pub rows: Vec<StoreRow>,
}

/// One server with one number of clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreRow {
    /// The server's backend: `libuv`, `legacy`.
    pub backend: String,
    /// Clients that were connected at one time.
    pub clients: u32,
    /// Seconds until the last was connected and counted.
    pub startup_seconds: Option<f64>,
    /// Seconds of a barrier, several times.
    pub barrier_seconds: Vec<f64>,
    /// Rates and latencies, an operation each.
    pub operations: Vec<StoreOperation>,
    /// Why there are no figures.
    #[serde(default)]
    pub error: Option<String>,
}

/// One operation of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreOperation {
    /// `set`, `get`, `add`, `wait`, `check`.
    pub name: String,
    /// Operations a second, all clients together.
    pub rate: f64,
    /// Latency in microseconds.
    pub latency_us: Percentiles,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

/// Times of single operators: what a build loses in its kernels, apart from what it loses on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Operators {
    /// Threads that torch computes with.
    pub threads: u32,
    /// An operator each.
    pub rows: Vec<OperatorRow>,
}

/// Times of one operator with one shape and data type.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperatorRow {
    /// Torch's name of the operator: `matmul`.
    pub name: String,
    /// Shapes of what it is given.
    pub shape: String,
    /// Data type of the tensors.
    pub r#type: String,
    /// Seconds of one call, a batch each.
    pub seconds: Vec<f64>,
    /// Why there is no figure.
    #[serde(default)]
    pub error: Option<String>,
}
