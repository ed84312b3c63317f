//! Where it ran: what a reader needs to place the figures.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::platform;

/// The machine that measured: what a reader has to know to compare the figures with others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that may be used.
    pub cores: usize,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Operating system and kernel.
    pub system: String,
    /// GPUs: name, memory, driver.
    pub gpus: Vec<String>,
}

impl Machine {
    /// What this machine tells of itself; what it does not tell is left out, and never an error.
    pub fn here() -> Self {
        let line = |file: &str, key: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|l| l.starts_with(key))?;
            Some(line[key.len()..].trim_start_matches([' ', '\t', ':', '=']).trim_matches('"').to_owned())
        };
        let printed = |program: &str, args: &[&str]| {
            let out = Command::new(program).args(args).output().ok().filter(|o| o.status.success())?;
            Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        let kernel = printed("uname", &["-sr"]).unwrap_or_else(|| std::env::consts::OS.to_owned());
        let distribution = platform::distribution(Path::new("/"));
        let query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"];
        Self {
            cpu: line("/proc/cpuinfo", "model name")
                .or_else(|| printed("sysctl", &["-n", "machdep.cpu.brand_string"]))
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: line("/proc/meminfo", "MemTotal")
                .and_then(|t| t.split_whitespace().next()?.parse::<u64>().ok())
                .map(|kib| kib * 1024),
            system: distribution.map_or(kernel.clone(), |d| format!("{d}, {kernel}")),
            gpus: printed("nvidia-smi", &query).map_or(Vec::new(), |t| t.lines().map(str::to_owned).collect()),
        }
    }

    /// Whether there is a GPU that CUDA can use: the driver's tool lists one, or the driver made a device for it.
    pub fn has_gpu(&self) -> bool {
        !self.gpus.is_empty() || Path::new("/dev/nvidia0").exists()
    }
}

/// The folder of `LD_LIBRARY_PATH` that the driver's library is in: in some containers nothing else leads to it. The
/// other folders of that variable stay out, since they could put other libraries under a build.
pub fn driver_libraries() -> Option<PathBuf> {
    let folders = std::env::var_os("LD_LIBRARY_PATH")?;
    std::env::split_paths(&folders).find(|folder| folder.join("libcuda.so.1").is_file())
}
