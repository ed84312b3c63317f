//! What is run on which hardware: pure functions of what is there.

use serde::Serialize;

use crate::failure::{Failure, Result};

/// What carries the collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// TCP between processes; CPU tensors, and CUDA tensors through host memory.
    Gloo,
    /// Between GPUs; one rank a GPU.
    Nccl,
}

impl Backend {
    /// Its name in c10d.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gloo => "gloo",
            Self::Nccl => "nccl",
        }
    }
}

/// Where the tensors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// Host memory.
    Cpu,
    /// GPU memory.
    Cuda,
}

/// What this build on this machine can do.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Hardware {
    /// GPUs that this build can use.
    pub gpus: usize,
    /// Cores.
    pub cores: usize,
    /// Gloo is in.
    pub gloo: bool,
    /// NCCL is in.
    pub nccl: bool,
}

/// One job to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Job {
    /// What carries it.
    pub backend: Backend,
    /// Where the tensors are.
    pub device: Memory,
    /// Ranks on this machine.
    pub ranks: usize,
}

/// What is measured when nobody says: with several GPUs NCCL over 1, 2, 4, … and all of them; with
/// one, NCCL with one rank and Gloo with CUDA tensors with two (NCCL refuses two ranks on a GPU);
/// without, Gloo on the CPU.
pub fn jobs(there: Hardware) -> Vec<Job> {
    let mut jobs = Vec::new();
    let job = |backend, device, ranks| Job { backend, device, ranks };
    if there.nccl && there.gpus > 0 {
        let powers = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < there.gpus);
        jobs.extend(powers.chain([there.gpus]).map(|n| job(Backend::Nccl, Memory::Cuda, n)));
    }
    if there.gloo && there.gpus == 1 {
        jobs.push(job(Backend::Gloo, Memory::Cuda, 2));
    }
    if there.gloo && there.gpus == 0 {
        jobs.push(job(Backend::Gloo, Memory::Cpu, 2));
        if there.cores >= 4 {
            jobs.push(job(Backend::Gloo, Memory::Cpu, 4));
        }
    }
    jobs
}

/// The GPU of a rank: its own with NCCL, in turn with Gloo; none for CPU tensors.
pub fn gpu_of(local_rank: usize, gpus: usize, backend: Backend, device: Memory) -> Result<Option<usize>> {
    match (device, backend) {
        (Memory::Cpu, Backend::Nccl) => {
            Err(Failure::misuse("NCCL has no CPU tensors: --device cuda, or --backend gloo"))
        }
        (Memory::Cpu, Backend::Gloo) => Ok(None),
        (Memory::Cuda, _) if gpus == 0 => {
            Err(Failure::misuse("this build sees no GPU here: --device cpu --backend gloo measures without"))
        }
        (Memory::Cuda, Backend::Nccl) if local_rank >= gpus => Err(Failure::misuse(format!(
            "NCCL takes one rank a GPU, and this node has {gpus}: start at most {gpus} ranks on it, or use --backend gloo"
        ))),
        (Memory::Cuda, Backend::Nccl) => Ok(Some(local_rank)),
        (Memory::Cuda, Backend::Gloo) => Ok(Some(local_rank % gpus)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(gpus: usize, cores: usize, nccl: bool) -> Hardware {
        Hardware { gpus, cores, gloo: true, nccl }
    }

    fn ranks(jobs: &[Job]) -> Vec<(Backend, Memory, usize)> {
        jobs.iter().map(|j| (j.backend, j.device, j.ranks)).collect()
    }

    #[test]
    fn several_gpus_are_measured_by_powers_of_two_and_all_together() {
        let nccl = |n| (Backend::Nccl, Memory::Cuda, n);
        assert_eq!(ranks(&jobs(there(8, 64, true))), [nccl(1), nccl(2), nccl(4), nccl(8)]);
        assert_eq!(ranks(&jobs(there(6, 64, true))), [nccl(1), nccl(2), nccl(4), nccl(6)]);
    }

    #[test]
    fn one_gpu_gets_nccl_alone_and_gloo_with_two() {
        assert_eq!(
            ranks(&jobs(there(1, 16, true))),
            [(Backend::Nccl, Memory::Cuda, 1), (Backend::Gloo, Memory::Cuda, 2)]
        );
    }

    #[test]
    fn without_gpus_gloo_runs_on_the_cpu() {
        assert_eq!(ranks(&jobs(there(0, 2, true))), [(Backend::Gloo, Memory::Cpu, 2)]);
        assert_eq!(
            ranks(&jobs(there(0, 8, false))),
            [(Backend::Gloo, Memory::Cpu, 2), (Backend::Gloo, Memory::Cpu, 4)]
        );
    }

    #[test]
    fn eight_ranks_on_two_nodes_of_four_gpus() {
        let gpus: Vec<_> = (0..8).map(|r| gpu_of(r % 4, 4, Backend::Nccl, Memory::Cuda).ok().flatten()).collect();
        assert_eq!(gpus, [0, 1, 2, 3, 0, 1, 2, 3].map(Some));
    }

    #[test]
    fn nccl_refuses_a_second_rank_on_a_gpu_and_gloo_takes_it() {
        assert_eq!(gpu_of(1, 1, Backend::Nccl, Memory::Cuda).err().map(|e| e.exit), Some(2));
        assert_eq!(gpu_of(1, 1, Backend::Gloo, Memory::Cuda).ok(), Some(Some(0)));
        assert_eq!(gpu_of(0, 0, Backend::Gloo, Memory::Cuda).err().map(|e| e.exit), Some(2));
        assert_eq!(gpu_of(0, 0, Backend::Nccl, Memory::Cpu).err().map(|e| e.exit), Some(2));
    }
}
