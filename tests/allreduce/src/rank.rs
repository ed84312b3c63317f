//! Which rank this process is, as its launcher says it in the environment. No I/O beside that: the
//! environment is a function, so that every launcher is tested without being there.

use crate::failure::{Failure, Result};

/// One rank of a job that somebody started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// 0 up to `world`.
    pub rank: usize,
    /// Number of ranks of the job.
    pub world: usize,
    /// Rank on this node.
    pub local_rank: usize,
    /// Number of ranks on this node, where the launcher says it.
    pub local_world: Option<usize>,
    /// Where the store is served.
    pub master: (String, u16),
    /// Whether the launcher serves the store itself (torchrun's agent, our parent).
    pub agent_store: bool,
    /// Who started it.
    pub launcher: &'static str,
}

/// Set by our own parent beside torchrun's variables.
pub const OWN_PARENT: &str = "ALLREDUCE_PARENT";

/// Reads the variables of torchrun (and every `env://` launcher), SLURM, Open MPI and MPICH, in this
/// order. `None` where nobody says that this is a rank.
pub fn identify(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Identity>> {
    let number = |name: &str| -> Result<Option<usize>> {
        env(name)
            .map(|v| v.trim().parse().map_err(|_| Failure::misuse(format!("{name}='{v}' is no number"))))
            .transpose()
    };
    // (launcher, rank, world, local rank, local world)
    const LAUNCHERS: &[(&str, [&str; 4])] = &[
        ("torchrun", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"]),
        ("SLURM", ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"]),
        (
            "Open MPI",
            [
                "OMPI_COMM_WORLD_RANK",
                "OMPI_COMM_WORLD_SIZE",
                "OMPI_COMM_WORLD_LOCAL_RANK",
                "OMPI_COMM_WORLD_LOCAL_SIZE",
            ],
        ),
        ("MPICH", ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"]),
    ];
    for (launcher, [rank_name, world_name, local_name, local_world_name]) in LAUNCHERS {
        let (Some(rank), Some(world)) = (number(rank_name)?, number(world_name)?) else { continue };
        // `salloc` sets these for one task that has not been started by srun: no job of ranks.
        if *launcher == "SLURM" && env("SLURM_STEP_ID").is_none() {
            continue;
        }
        if world == 0 || rank >= world {
            return Err(Failure::misuse(format!("{rank_name}={rank} is no rank of {world_name}={world}")));
        }
        let local_world = number(local_world_name)?;
        let master = master(launcher, world, local_world, env)?;
        return Ok(Some(Identity {
            rank,
            world,
            local_rank: number(local_name)?.unwrap_or(rank),
            local_world,
            master,
            agent_store: env("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|v| v == "True") || env(OWN_PARENT).is_some(),
            launcher: if env(OWN_PARENT).is_some() { "allreduce" } else { launcher },
        }));
    }
    Ok(None)
}

fn master(
    launcher: &str,
    world: usize,
    local_world: Option<usize>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, u16)> {
    let port = match env("MASTER_PORT") {
        Some(text) => text.trim().parse().map_err(|_| Failure::misuse(format!("MASTER_PORT='{text}' is no port")))?,
        // Two jobs of one node must not meet: their numbers differ.
        None => {
            let job = env("SLURM_JOB_ID").and_then(|j| j.parse::<u32>().ok()).unwrap_or(0);
            u16::try_from(29500 + job % 1000).unwrap_or(29500)
        }
    };
    if let Some(host) = env("MASTER_ADDR") {
        return Ok((host, port));
    }
    if launcher == "SLURM"
        && let Some(list) = env("SLURM_STEP_NODELIST").or_else(|| env("SLURM_JOB_NODELIST"))
    {
        return Ok((first_host(&list), port));
    }
    if world == 1 || local_world == Some(world) {
        return Ok(("127.0.0.1".into(), port));
    }
    Err(Failure::misuse(format!(
        "{launcher} started {world} ranks on several nodes, and MASTER_ADDR does not say where rank 0 is: set it to that node's address (mpirun: -x MASTER_ADDR=…)"
    )))
}

/// The first host of SLURM's node list: `gpu[03-07,12],login1` → `gpu03`.
pub fn first_host(list: &str) -> String {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    match rest.strip_prefix('[') {
        Some(inside) => {
            let first = inside.split([',', '-', ']']).next().unwrap_or_default();
            // A second range, `rack[1-2]n[1-4]`, follows the first.
            let after = inside.split_once(']').map_or("", |(_, after)| after);
            let tail = after.split(',').next().unwrap_or_default();
            let tail = if tail.is_empty() { String::new() } else { first_host(tail) };
            format!("{name}{first}{tail}")
        }
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Result<Option<Identity>> {
        identify(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn without_a_launcher_this_is_no_rank() {
        assert_eq!(of(&[("PATH", "/bin")]).unwrap_or(None), None);
    }

    #[test]
    fn torchrun_says_who_serves_the_store() {
        let id = of(&[
            ("RANK", "3"),
            ("WORLD_SIZE", "8"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "node0"),
            ("MASTER_PORT", "1234"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
        ]);
        let id = id.ok().flatten().map(|i| (i.rank, i.world, i.local_rank, i.master, i.agent_store));
        assert_eq!(id, Some((3, 8, 1, ("node0".into(), 1234), true)));
    }

    #[test]
    fn slurm_names_the_first_node() {
        let id = of(&[
            ("SLURM_STEP_ID", "0"),
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "16"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_JOB_ID", "4242"),
            ("SLURM_STEP_NODELIST", "gpu[03-06]"),
        ]);
        let id = id.ok().flatten().map(|i| (i.rank, i.local_rank, i.master, i.launcher));
        assert_eq!(id, Some((5, 1, ("gpu03".into(), 29742), "SLURM")));
        // In an allocation, before srun: no rank.
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "16")]).unwrap_or(None), None);
    }

    #[test]
    fn mpi_over_several_nodes_needs_the_address_of_rank_0() {
        let vars = [
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ];
        let e = of(&vars).err().map(|e| (e.exit, e.to_string().contains("MASTER_ADDR")));
        assert_eq!(e, Some((2, true)));
        let one_node = [("OMPI_COMM_WORLD_LOCAL_SIZE", "4"), vars[0], vars[1], vars[2]];
        assert_eq!(of(&one_node).ok().flatten().map(|i| i.master.0), Some("127.0.0.1".into()));
    }

    #[test]
    fn a_rank_that_is_none_is_misuse() {
        assert_eq!(of(&[("RANK", "4"), ("WORLD_SIZE", "4")]).err().map(|e| e.exit), Some(2));
        assert_eq!(of(&[("RANK", "x"), ("WORLD_SIZE", "4")]).err().map(|e| e.exit), Some(2));
    }

    #[test]
    fn node_lists_as_slurm_writes_them() {
        for (list, first) in [
            ("login1", "login1"),
            ("a,b", "a"),
            ("gpu[03-07,12],login1", "gpu03"),
            ("gpu[7,9]", "gpu7"),
            ("rack[1-2]n[01-04]", "rack1n01"),
        ] {
            assert_eq!(first_host(list), first);
        }
    }
}
