//! `farm`: machines that compile for others.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::common::{print_json, set_json};
use super::shared::FarmArgs;
use crate::error::{Error, Result};
use crate::farm::scheduler::{Scheduler, worker_token};
use crate::farm::units::{self, Role};
use crate::farm::worker::Worker;
use crate::farm::{check_address, page};
use crate::mirror::now_for_people;
use crate::stage::compiled::compiled;
use crate::store::{Store, write_atomically};
use crate::ui;

/// Let several machines compile for one build
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask farm scheduler --listen 10.0.0.1:10600 --state farm
  cargo xtask farm token --state farm --worker 10.0.0.2:10501 > worker.token
  cargo xtask farm worker --scheduler http://10.0.0.1:10600 \\
      --address 10.0.0.2:10501 --token-file worker.token --state worker
  cargo xtask farm status --farm http://10.0.0.1:10600
  cargo xtask build-torch --farm http://10.0.0.1:10600

How it works, and whom one has to trust: docs/farm.md.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Scheduler(SchedulerArgs),
    Token(TokenArgs),
    Worker(WorkerArgs),
    Status(StatusArgs),
}

/// What starts something with the machine.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Print {
    Systemd,
    Compose,
}

impl From<Print> for units::Kind {
    fn from(print: Print) -> Self {
        match print {
            Print::Systemd => Self::Systemd,
            Print::Compose => Self::Compose,
        }
    }
}

/// Start a scheduler: it says which worker compiles what
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask farm scheduler --listen 10.0.0.1:10600 --state farm
  cargo xtask farm scheduler --listen 127.0.0.1:10600 --state farm
  sudo cargo xtask farm scheduler --listen 10.0.0.1:10600 --state /var/farm \\
      --user nobody
  cargo xtask farm scheduler --listen 10.0.0.1:10600 \\
      --print systemd > torchmill-scheduler.service

It runs until it is stopped, and never as root. Its keys are made when it is
started for the first time; DIR/client.token is what builds have to know
(TORCHMILL_FARM_TOKEN, or token-file in [farm] of the settings).")]
struct SchedulerArgs {
    /// Address and port at which it listens; it has no TLS of its own
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddrV4,
    /// Folder for its keys and its configuration [default: farm]
    #[arg(long, value_name = "DIR", conflicts_with = "print")]
    state: Option<PathBuf>,
    /// Started by root: the user that it becomes
    #[arg(long, value_name = "NAME", conflicts_with = "print")]
    user: Option<String>,
    #[command(flatten)]
    how: HowArgs,
}

/// How a scheduler or a worker is started.
#[derive(Debug, ClapArgs)]
struct HowArgs {
    /// Listen at an address that is of no private network
    #[arg(long)]
    public: bool,
    /// Start nothing: print what starts it with the machine, with a folder of
    /// its own for what it keeps
    #[arg(long, value_name = "KIND")]
    print: Option<Print>,
}

/// Make the token with which a worker tells the scheduler of itself
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  cargo xtask farm token --state farm --worker 10.0.0.2:10501 > worker.token

The token is of use for that address alone.")]
struct TokenArgs {
    /// Folder of the scheduler
    #[arg(long, value_name = "DIR", default_value = "farm")]
    state: PathBuf,
    /// Address and port of the worker
    #[arg(long, value_name = "IP:PORT")]
    worker: SocketAddrV4,
}

/// Start a worker: it compiles what clients send, with the compiler that they send
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  sudo cargo xtask farm worker --scheduler http://10.0.0.1:10600 \\
      --address 10.0.0.2:10501 --token-file worker.token --state /var/worker
  cargo xtask farm worker --scheduler https://farm.example \\
      --address 10.0.0.2:10501 --token-file worker.token --print systemd

It runs until it is stopped, as root: for every compile it mounts a root of its
own, in which bubblewrap runs the compiler without network. Whoever knows the
clients' token runs programs in there: give it a machine or a container of its
own.")]
struct WorkerArgs {
    /// Address of the scheduler
    #[arg(long, value_name = "URL")]
    scheduler: String,
    /// Address and port at which clients and the scheduler reach it
    #[arg(long, value_name = "IP:PORT")]
    address: SocketAddrV4,
    /// File with its token
    #[arg(long, value_name = "FILE", required_unless_present = "print")]
    token_file: Option<PathBuf>,
    /// Folder for compilers that are sent and roots that they run in
    /// [default: worker]
    #[arg(long, value_name = "DIR", conflicts_with = "print")]
    state: Option<PathBuf>,
    /// Compiles at a time (default: by cores and free memory)
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// bubblewrap, if it is not on PATH
    #[arg(long, value_name = "FILE")]
    bubblewrap: Option<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
}

/// Show how many workers a farm has and how busy they are, and where the objects of the builds here came from
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask farm status --farm http://10.0.0.1:10600
  cargo xtask farm status --farm http://10.0.0.1:10600 --json
  cargo xtask farm status --farm http://10.0.0.1:10600 --html farm.html
  cargo xtask farm status --html cache.html   without a farm: the builds alone

Exit code 3: no scheduler answers there. The page is written all the same, and
says so.")]
struct StatusArgs {
    #[command(flatten)]
    farm: FarmArgs,
    /// Folder of the store (default: TORCHMILL_STORE, else the user's cache folder)
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Write a page of it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Misuse: an address that is none or not safe; root where there should be none, and none where it is needed.
/// The world: there is no engine, no bubblewrap or no scheduler.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Scheduler(args) => scheduler(args),
        What::Token(args) => {
            println!("{}", worker_token(&args.state, args.worker)?);
            Ok(())
        }
        What::Worker(args) => worker(args),
        What::Status(args) => status(args),
    }
}

fn scheduler(args: &SchedulerArgs) -> Result<()> {
    check_address("--listen", args.listen, args.how.public)?;
    if let Some(kind) = args.how.print {
        let mut words = vec!["--listen".to_owned(), args.listen.to_string()];
        words.extend(args.how.public.then(|| "--public".to_owned()));
        print!("{}", units::render(kind.into(), Role::Scheduler, &std::env::current_exe()?, &words, None));
        return Ok(());
    }
    let state = args.state.clone().unwrap_or_else(|| "farm".into());
    let scheduler = Scheduler { state, listen: args.listen };
    scheduler.run(args.user.as_deref(), |ready| {
        println!("scheduler at http://{}", ready.listen);
        println!("  builds want its token: TORCHMILL_FARM_TOKEN=$(cat {})", ready.client_token().display());
        println!(
            "  a worker wants one of its own: {}",
            ui::name::as_typed(&format!("cargo xtask farm token --state {} --worker IP:PORT", ready.state.display()))
        );
    })
}

fn worker(args: &WorkerArgs) -> Result<()> {
    check_address("--address", args.address, args.how.public)?;
    crate::stage::farm::scheduler_url(&args.scheduler, "--scheduler")?;
    if let Some(kind) = args.how.print {
        let mut words = ["--scheduler", &args.scheduler, "--address"].map(str::to_owned).to_vec();
        words.push(args.address.to_string());
        words.extend(args.jobs.into_iter().flat_map(|jobs| ["--jobs".to_owned(), jobs.to_string()]));
        words.extend(args.how.public.then(|| "--public".to_owned()));
        if let Some(bubblewrap) = &args.bubblewrap {
            if matches!(kind, Print::Compose) {
                return Err(Error::misuse(
                    "farm-print",
                    "--bubblewrap is a file of this machine, and the container has its own",
                )
                .next("leave --bubblewrap out"));
            }
            words.extend(["--bubblewrap".into(), std::path::absolute(bubblewrap)?.display().to_string()]);
        }
        // systemd takes a relative path for a name of its own credentials.
        let token = args.token_file.as_ref().map(std::path::absolute).transpose()?;
        if let Some(token) = token.as_deref().filter(|token| matches!(kind, Print::Systemd) && !units::is_line(token)) {
            return Err(Error::misuse("farm-print", format!("no unit can name the file {token:?}: it reads a line"))
                .next("give it a name without line ends, and without a space or a backslash at its end"));
        }
        print!("{}", units::render(kind.into(), Role::Worker, &std::env::current_exe()?, &words, token.as_deref()));
        return Ok(());
    }
    let token = args.token_file.clone().ok_or_else(|| Error::misuse("farm-token", "a worker wants --token-file"))?;
    let worker = Worker {
        state: args.state.clone().unwrap_or_else(|| "worker".into()),
        address: args.address,
        scheduler: args.scheduler.clone(),
        token,
        jobs: args.jobs.map(usize::from),
        bubblewrap: args.bubblewrap.clone(),
    };
    println!("worker at {}: {} compiles at a time", args.address, worker.jobs());
    worker.run()
}

fn status(args: &StatusArgs) -> Result<()> {
    set_json(args.json);
    let farm = args.farm.chosen()?;
    if farm.is_none() && args.html.is_none() {
        return Err(Error::misuse("farm-url", "no farm was named")
            .next("name one: --farm URL, or url in [farm] of the settings")
            .next("or --html FILE: a page of where the objects of the builds here came from"));
    }
    // Who asks after a farm may have no store, and gets none by asking.
    let builds = Store::existing(args.store.as_deref())?.map_or_else(Vec::new, |store| compiled(&store));
    let asked = farm.as_ref().map(|farm| (farm.shown(), farm.status()));
    if let Some(path) = &args.html {
        write_atomically(path, page::render(asked.as_ref(), &builds, &now_for_people()).as_bytes())?;
    }
    let status = asked.map(|(address, said)| said.map(|status| (address, status))).transpose()?;
    if args.json {
        let (farm, status) = status.unzip();
        print_json(&serde_json::json!({ "schema_version": 1, "farm": farm, "status": status, "builds": builds }));
        return Ok(());
    }
    if let Some((address, status)) = status {
        println!("{address}");
        println!(
            "  {} workers, {} cores, {} objects with them",
            status.num_servers, status.num_cpus, status.in_progress
        );
        if status.num_servers == 0 {
            println!("  a worker counts when its scheduler heard of it within the last 90 seconds");
        }
        if let Some(clocks) = status.clocks() {
            println!("  {clocks}");
        }
    }
    for build in builds {
        let from = match build.record.whence {
            Some(whence) => whence.shown().unwrap_or_else(|| format!("local {}", whence.local)),
            None => "where its objects came from was not noted".into(),
        };
        println!("{} for Python {}: {from}", ui::visible(&build.version), ui::visible(&build.python));
        if let Some(of) = build.record.objects {
            println!("  {} of {} from elsewhere, {} of them compiled again", of.elsewhere(), of.objects, of.audited);
        }
    }
    if let Some(path) = &args.html {
        println!("{}", ui::path(path));
    }
    Ok(())
}
