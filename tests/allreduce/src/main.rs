//! The all-reduce benchmark: one program over c10d, linked against the torch that is measured.
//!
//! ```text
//! main ─► run        ranks, started and watched (launch) or joined (rank) ─► collective
//!      ─► store      a server and N clients
//!      ─► operators  this process alone
//! ```

mod c10d;
mod collective;
mod failure;
mod launch;
mod operators;
mod pace;
mod place;
mod rank;
mod store;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tch::Device;

use c10d::{Group, GroupOptions, Store, StoreBackend};
use collective::{Bench, Place, Sweep, Type};
use failure::{Failure, Result};
use place::{Backend, Hardware, Memory};

/// All-reduce, store and operator benchmark over c10d.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Exit codes: 0 done, 1 a result was wrong, 2 misuse, 3 the world failed.

Examples:
  allreduce run                                     ranks on this machine, as its hardware allows
  allreduce run --ranks 4 --max-bytes 1G            four of them, up to 1 GiB
  torchrun --nnodes 2 --nproc-per-node 8 --no-python --rdzv-endpoint node0:29400 allreduce run
  srun --nodes 2 --ntasks-per-node 8 allreduce run
  mpirun -np 16 -x MASTER_ADDR=node0 allreduce run
  allreduce store --clients 64,1024,4096            libuv beside legacy
  allreduce operators --json"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sum tensors over ranks: nccl-tests' table
    Run(RunArgs),
    /// Connect many clients to one TCPStore, and measure its answers. The store looks up the name of each
    /// client that connects: where DNS is slow, start-up is what DNS takes
    Store(StoreArgs),
    /// Time operators in this process
    Operators(OperatorArgs),
    /// What this build on this machine can do, and what `run` would measure
    Info {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Ranks to start here (default: what the hardware allows; a job of torchrun, SLURM or MPI is joined)
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ranks: Option<u32>,
    /// What carries the collective (default: NCCL where there are GPUs for it)
    #[arg(long)]
    backend: Option<Backend>,
    /// Where the tensors are
    #[arg(long)]
    device: Option<Memory>,
    /// Smallest size: bytes, or with K, M, G
    #[arg(long, short = 'b', default_value = "8", value_parser = size)]
    min_bytes: u64,
    /// Largest size
    #[arg(long, short = 'e', default_value = "64M", value_parser = size)]
    max_bytes: u64,
    /// Factor from one size to the next
    #[arg(long, short = 'f', default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..))]
    factor: u64,
    /// Data types
    #[arg(long, value_delimiter = ',', default_value = "float,half,bfloat16")]
    types: Vec<Type>,
    /// Into another tensor (c10d: a copy first), over the input, or both
    #[arg(long, value_delimiter = ',', default_value = "out,in")]
    places: Vec<Place>,
    /// Warm-up of each cell, seconds
    #[arg(long, default_value_t = 0.1, value_parser = seconds)]
    warmup: f64,
    /// Measured time of each cell, seconds
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    time: f64,
    /// Batches of each cell: each gives one time
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batches: u32,
    /// Server of the rendezvous
    #[arg(long, default_value = "libuv")]
    store: StoreBackend,
    /// Port of the store (default: a free one)
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Address that Gloo listens on, or interface:NAME (default: loopback for ranks started here)
    #[arg(long, default_value = "")]
    address: String,
    /// Bound on the whole run, seconds
    #[arg(long, default_value_t = 1800.0, value_parser = seconds)]
    limit: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct StoreArgs {
    /// Numbers of clients
    #[arg(long, value_delimiter = ',', default_value = "64,256,1024,4096", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: Vec<u32>,
    /// Servers
    #[arg(long, value_delimiter = ',', default_value = "libuv,legacy")]
    backend: Vec<StoreBackend>,
    /// Operations of each kind, over all clients
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    operations: u32,
    /// Measure a server that runs elsewhere: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "serve")]
    connect: Option<String>,
    /// Only serve, until standard input ends
    #[arg(long)]
    serve: bool,
    /// Port to serve on (default: a free one)
    #[arg(long, default_value_t = 0, requires = "serve")]
    port: u16,
    /// Bound on each call, seconds
    #[arg(long, default_value_t = 120.0, value_parser = seconds)]
    timeout: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct OperatorArgs {
    /// Where the tensors are (default: the first GPU, if there is one)
    #[arg(long)]
    device: Option<Memory>,
    /// Warm-up of each operator, seconds
    #[arg(long, default_value_t = 0.1, value_parser = seconds)]
    warmup: f64,
    /// Length of one batch, seconds
    #[arg(long, default_value_t = 0.05, value_parser = seconds)]
    batch: f64,
    /// Batches
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batches: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    // SAFETY: SIG_DFL is a valid disposition; no other thread exists. `… | head` ends quietly.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL)
    };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match cli.command {
        Command::Run(args) => run(&args),
        Command::Store(args) => run_store(&args),
        Command::Operators(args) => run_operators(&args),
        Command::Info { json } => {
            info(json);
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.exit)
        }
    }
}

fn hardware() -> Hardware {
    Hardware {
        gpus: usize::try_from(tch::Cuda::device_count()).unwrap_or(0),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        gloo: c10d::has_gloo(),
        nccl: c10d::has_nccl(),
    }
}

fn info(json: bool) {
    let there = hardware();
    let libuv = Store::serve(0, StoreBackend::Libuv, Duration::from_secs(10));
    let described = serde_json::json!({
        "schema_version": 1,
        "hardware": there,
        "libuv": libuv.is_ok(),
        "libuv_error": libuv.err().map(|e| e.to_string()),
        "jobs": place::jobs(there),
        "threads": tch::get_num_threads(),
        "config": c10d::config(),
    });
    if json {
        println!("{described}");
    } else {
        println!(
            "GPUs {}, cores {}, gloo {}, nccl {}, libuv {}",
            there.gpus, there.cores, there.gloo, there.nccl, described["libuv"]
        );
        for job in place::jobs(there) {
            println!("run would measure: {} on {:?}, {} ranks", job.backend.name(), job.device, job.ranks);
        }
    }
}

fn run(args: &RunArgs) -> Result<()> {
    if args.min_bytes > args.max_bytes {
        return Err(Failure::misuse(format!(
            "--min-bytes {} is more than --max-bytes {}",
            args.min_bytes, args.max_bytes
        )));
    }
    if let Some(identity) = rank::identify(&|name| std::env::var(name).ok())? {
        return run_rank(args, &identity);
    }
    let there = hardware();
    let default = place::jobs(there).last().copied();
    let job =
        default.filter(|d| args.backend.is_none_or(|b| b == d.backend) && args.device.is_none_or(|m| m == d.device));
    let (backend, device) = choice(args, there)?;
    let ranks = args.ranks.map_or(job.map_or(2, |j| j.ranks), |n| n as usize);
    for local in 0..ranks {
        place::gpu_of(local, there.gpus, backend, device)?;
    }
    let limit = Duration::from_secs_f64(args.limit);
    let own: Vec<_> = std::env::args_os().skip(1).collect();
    let text = launch::run(&launch::Launch { ranks, port: args.port, store: args.store, limit, args: &own })?;
    print!("{text}");
    Ok(())
}

/// What carries the collective and where tensors are: as asked for, else by the hardware.
fn choice(args: &RunArgs, there: Hardware) -> Result<(Backend, Memory)> {
    let default = place::jobs(there).last().copied();
    let backend = args.backend.or(default.map(|d| d.backend)).unwrap_or(Backend::Gloo);
    if (backend == Backend::Nccl && !there.nccl) || (backend == Backend::Gloo && !there.gloo) {
        return Err(Failure::misuse(format!("this benchmark was built without {}", backend.name())));
    }
    let natural = if backend == Backend::Nccl || there.gpus > 0 { Memory::Cuda } else { Memory::Cpu };
    Ok((backend, args.device.unwrap_or(natural)))
}

fn run_rank(args: &RunArgs, id: &rank::Identity) -> Result<()> {
    let there = hardware();
    let (backend, memory) = choice(args, there)?;
    let gpu = place::gpu_of(id.local_rank, there.gpus, backend, memory)?;
    let device = gpu.map_or(Device::Cpu, Device::Cuda);
    let timeout = Duration::from_secs_f64(args.limit);
    let serves = id.rank == 0 && !id.agent_store;
    let store = if serves {
        Store::serve(id.master.1, args.store, timeout)?
    } else {
        Store::connect(&id.master.0, id.master.1, args.store, timeout)?
    };
    let own = id.launcher == "allreduce";
    let address = if own && args.address.is_empty() { "127.0.0.1" } else { &args.address };
    let options = GroupOptions { backend: backend.name(), rank: id.rank, world: id.world, timeout, address };
    let group = Group::join(&store, &options)?;
    collective::fault(id.rank);
    let sweep = Sweep {
        min: args.min_bytes,
        max: args.max_bytes,
        factor: args.factor,
        types: args.types.clone(),
        places: args.places.clone(),
        warmup: Duration::from_secs_f64(args.warmup),
        time: Duration::from_secs_f64(args.time),
        batches: args.batches as usize,
    };
    let bench = Bench { group: &group, rank: id.rank, world: id.world, device };
    let rows = bench.run(&sweep, |row| {
        if id.rank == 0 {
            eprintln!("{}", table::progress(row));
        }
    })?;
    let wrong: u64 = rows.iter().map(|r| r.wrong).sum();
    if id.rank == 0 {
        if args.json {
            println!(
                "{}",
                serde_json::json!({
                    "schema_version": 1,
                    "backend": backend,
                    "device": memory,
                    "ranks": id.world,
                    "launcher": id.launcher,
                    "store": args.store,
                    "libuv": store.is_libuv(),
                    "wrong": wrong,
                    "rows": rows,
                })
            );
        } else {
            print!("{}", table::collective(backend, memory, id, &rows));
        }
    }
    // Rank 0 may be the server: nobody leaves before all are done.
    group.barrier()?;
    drop(group);
    if serves {
        std::thread::sleep(Duration::from_millis(200));
    }
    if wrong > 0 && id.rank == 0 {
        return Err(Failure::no(format!("{wrong} elements had a wrong sum")));
    }
    Ok(())
}

fn run_store(args: &StoreArgs) -> Result<()> {
    store::quiet()?;
    if args.serve {
        let [backend] = args.backend[..] else {
            return Err(Failure::misuse("--serve takes one --backend: libuv or legacy"));
        };
        return store::serve(backend, args.port);
    }
    let connect = args
        .connect
        .as_deref()
        .map(|text| {
            text.rsplit_once(':')
                .and_then(|(host, port)| Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?)))
                .ok_or_else(|| Failure::misuse(format!("--connect '{text}' is not HOST:PORT")))
        })
        .transpose()?;
    let plan = store::Plan {
        clients: args.clients.iter().map(|c| *c as usize).collect(),
        backends: args.backend.clone(),
        operations: args.operations as usize,
        connect,
        timeout: Duration::from_secs_f64(args.timeout),
    };
    let rows = store::run(&plan, |row| eprintln!("{}", table::store_progress(row)))?;
    if args.json {
        println!("{}", serde_json::json!({ "schema_version": 1, "rows": rows }));
    } else {
        print!("{}", table::store(&rows));
    }
    Ok(())
}

fn run_operators(args: &OperatorArgs) -> Result<()> {
    let gpus = hardware().gpus;
    let memory = args.device.unwrap_or(if gpus > 0 { Memory::Cuda } else { Memory::Cpu });
    let device = place::gpu_of(0, gpus, Backend::Gloo, memory)?.map_or(Device::Cpu, Device::Cuda);
    let effort = operators::Effort {
        warmup: Duration::from_secs_f64(args.warmup),
        batch: Duration::from_secs_f64(args.batch),
        batches: args.batches as usize,
    };
    let rows = operators::run(device, &effort, |row| eprintln!("{}", table::operator_progress(row)))?;
    if args.json {
        println!(
            "{}",
            serde_json::json!({ "schema_version": 1, "threads": tch::get_num_threads(), "device": memory, "rows": rows })
        );
    } else {
        print!("{}", table::operators(&rows));
    }
    Ok(())
}

/// Bytes: `8`, `64K`, `1M`, `2G`.
fn size(text: &str) -> std::result::Result<u64, String> {
    let (digits, unit) = match text.trim_end_matches(['B', 'i']) {
        t if t.ends_with(['K', 'k']) => (&t[..t.len() - 1], 1 << 10),
        t if t.ends_with(['M', 'm']) => (&t[..t.len() - 1], 1 << 20),
        t if t.ends_with(['G', 'g']) => (&t[..t.len() - 1], 1u64 << 30),
        t => (t, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .filter(|n| (1..=1 << 40).contains(n))
        .ok_or_else(|| format!("'{text}' is no size from 1 byte to 1 TiB, such as 8, 64K, 1M, 2G"))
}

/// Seconds above 0.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|s| *s > 0.0 && *s < 1e6)
        .ok_or_else(|| format!("'{text}' is no number of seconds above 0"))
}
