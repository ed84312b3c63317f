//! A farm on hosts of its own, which are network namespaces of this machine: what tests and the benchmark of it share.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use xshell::{Shell, cmd};

/// Where the scheduler listens.
pub const SCHEDULER: &str = "10.77.0.1:10600";
/// The same, as a client names it.
pub const URL: &str = "http://10.77.0.1:10600";

/// A path, for a command line.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Hosts on one network, each a namespace; a farm on them.
pub struct Farm {
    name: String,
    dir: tempfile::TempDir,
    path: String,
    running: Vec<(String, Child)>,
    /// Cores that each host has, where it has not all of this machine's.
    cores: Option<f64>,
}

impl Farm {
    /// The hosts `scheduler`, `client` and `w1` to `wN`, and the scheduler, which runs; `path` leads to the engine.
    pub fn new(workers: u8, path: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tm{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let farm =
            Self { name, dir: tempfile::tempdir().unwrap(), path: path.to_owned(), running: Vec::new(), cores: None };
        let (sh, hub) = (Shell::new().unwrap(), farm.host("hub"));
        cmd!(sh, "ip netns add {hub}").quiet().run().expect("root, and iproute2");
        cmd!(sh, "ip -n {hub} link add br0 type bridge").quiet().run().unwrap();
        cmd!(sh, "ip -n {hub} link set br0 up").quiet().run().unwrap();
        let hosts = [("scheduler".to_owned(), 1), ("client".to_owned(), 2)];
        for (host, number) in hosts.into_iter().chain((1..=workers).map(|n| (format!("w{n}"), 10 + n))) {
            let (ns, address) = (farm.host(&host), format!("10.77.0.{number}/24"));
            cmd!(sh, "ip netns add {ns}").quiet().run().unwrap();
            cmd!(sh, "ip link add {host} netns {hub} type veth peer name eth0 netns {ns}").quiet().run().unwrap();
            cmd!(sh, "ip -n {hub} link set {host} master br0 up").quiet().run().unwrap();
            cmd!(sh, "ip -n {ns} addr add {address} dev eth0").quiet().run().unwrap();
            cmd!(sh, "ip -n {ns} link set eth0 up").quiet().run().unwrap();
            cmd!(sh, "ip -n {ns} link set lo up").quiet().run().unwrap();
        }
        // Whoever the scheduler becomes has to reach its folder.
        std::fs::set_permissions(farm.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut farm = farm;
        farm.start_scheduler();
        farm
    }

    fn host(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// A file or folder of the farm's.
    pub fn state(&self, of: &str) -> PathBuf {
        self.dir.path().join(of)
    }

    /// This program, on a host.
    pub fn on(&self, host: &str, arguments: &[&str]) -> Command {
        let mut command = match self.cores {
            None => Command::new("ip"),
            Some(cores) => {
                let mut command = Command::new("sh");
                command.args(["-c", "echo $$ > \"$0\"; exec ip \"$@\""]).arg(self.group(host, cores));
                command
            }
        };
        command.args(["netns", "exec", &self.host(host), env!("CARGO_BIN_EXE_torchmill")]).args(arguments);
        command.env("PATH", &self.path).env("NO_COLOR", "1").current_dir(self.dir.path());
        command
    }

    fn start(&mut self, host: &str, arguments: &[&str]) {
        let log = std::fs::File::create(self.state(&format!("{host}.log"))).unwrap();
        let mut command = self.on(host, arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running.push((host.to_owned(), command.spawn().unwrap()));
    }

    /// Starts the scheduler, and waits until it answers.
    pub fn start_scheduler(&mut self) {
        let state = self.state("scheduler");
        self.start(
            "scheduler",
            &["farm", "scheduler", "--listen", SCHEDULER, "--state", text(&state), "--user", "nobody"],
        );
        self.until("the scheduler answers", |farm| farm.status().is_some());
    }

    /// Starts the worker `host` for `jobs` compiles at a time; `bubblewrap` stands before the compiles that it does.
    pub fn start_worker(&mut self, host: &str, jobs: u8, bubblewrap: Option<&str>) {
        let address = format!("10.77.0.1{}:10501", &host[1..]);
        let scheduler = self.state("scheduler");
        let made = self.on("scheduler", &["farm", "token", "--state", text(&scheduler), "--worker", &address]);
        let token = self.state(&format!("{host}.token"));
        let made = { made }.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(&token, made.stdout).unwrap();
        let state = self.state(host);
        let jobs = jobs.to_string();
        let mut arguments = vec!["farm", "worker", "--scheduler", URL, "--address", &address, "--jobs", &jobs];
        arguments.extend(["--state", text(&state), "--token-file", text(&token)]);
        let script = self.state(&format!("{host}.sh"));
        if let Some(body) = bubblewrap {
            std::fs::write(
                &script,
                format!("#!/bin/sh\ncase \"$1\" in --version) exec bwrap --version;; esac\n{body}\n"),
            )
            .unwrap();
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
            arguments.extend(["--bubblewrap", text(&script)]);
        }
        self.start(host, &arguments);
    }

    /// Starts these workers, each for `jobs` compiles at a time, and waits until the scheduler knows them.
    pub fn with_workers(mut self, hosts: &[&str], jobs: u8) -> Self {
        for host in hosts {
            self.start_worker(host, jobs, None);
        }
        self.until("the workers are there", |farm| farm.status() == Some(hosts.len() as u64));
        self
    }

    /// Gives each host that something is started on from now on that many cores, by control groups (version 1 or 2).
    #[allow(dead_code)] // the benchmark's
    pub fn with_cores(mut self, cores: f64) -> Self {
        self.cores = Some(cores);
        self
    }

    /// The folders of the hosts' control groups.
    fn groups(&self) -> PathBuf {
        let one = Path::new("/sys/fs/cgroup/cpu");
        if one.is_dir() { one } else { Path::new("/sys/fs/cgroup") }.join(&self.name)
    }

    /// The list of the processes in the host's control group, which is made.
    fn group(&self, host: &str, cores: f64) -> PathBuf {
        let group = self.groups().join(host);
        std::fs::create_dir_all(&group).expect("root, and control groups for processors");
        let (period, quota) = (100_000, (cores * 100_000.0) as u32);
        let limit = match group.join("cpu.cfs_quota_us") {
            one if one.exists() => std::fs::write(one, quota.to_string()),
            _ => {
                std::fs::write(self.groups().join("cgroup.subtree_control"), "+cpu").unwrap();
                std::fs::write(group.join("cpu.max"), format!("{quota} {period}"))
            }
        };
        limit.expect("a limit for processors");
        group.join("cgroup.procs")
    }

    /// How many workers the scheduler says that there are.
    pub fn status(&self) -> Option<u64> {
        let out = self.on("client", &["farm", "status", "--farm", URL, "--json"]).output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
        said["status"]["num_servers"].as_u64()
    }

    /// Waits until something is so, for a minute at the most.
    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        self.until_within(Duration::from_secs(60), what, is);
    }

    /// Waits until something is so, for `limit` at the most.
    #[track_caller]
    pub fn until_within(&self, limit: Duration, what: &str, is: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is(self) {
            let logs = || {
                let logs = std::fs::read_dir(self.dir.path()).unwrap().flatten().map(|e| e.path());
                let logs = logs.filter(|path| path.extension().is_some_and(|e| e == "log"));
                logs.map(|path| std::fs::read_to_string(path).unwrap()).collect::<Vec<_>>().join("\n")
            };
            assert!(began.elapsed() < limit, "not within {} s: {what}\n{}", limit.as_secs(), logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends what runs on a host as a machine ends that loses its power.
    pub fn kill(&mut self, host: &str) {
        for (_, child) in self.running.iter_mut().filter(|(name, _)| name == host) {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.running.retain(|(name, _)| name != host);
    }

    /// Takes a host's cable out, or puts it in again.
    pub fn cable(&self, host: &str, is_in: bool) {
        let (hub, state) = (self.host("hub"), if is_in { "up" } else { "down" });
        let sh = Shell::new().unwrap();
        cmd!(sh, "ip -n {hub} link set {host} {state}").quiet().run().unwrap();
    }

    /// This program on the client, which knows the farm's token.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = self.on("client", arguments);
        let token = std::fs::read_to_string(self.state("scheduler/client.token")).unwrap_or_default();
        command.env("TORCHMILL_FARM_TOKEN", token.trim());
        command
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.cores.is_some() {
            let groups = self.groups();
            let each = std::fs::read_dir(&groups).into_iter().flatten().flatten();
            for group in each.map(|entry| entry.path()).filter(|path| path.is_dir()).chain([groups.clone()]) {
                // What a host's last process leaves takes a moment to be gone.
                let began = Instant::now();
                while std::fs::remove_dir(&group).is_err() && began.elapsed() < Duration::from_secs(5) {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
        let sh = Shell::new().unwrap();
        let all = cmd!(sh, "ip netns list").quiet().ignore_stderr().read().unwrap_or_default();
        for ns in all.lines().filter_map(|line| line.split(' ').next()).filter(|ns| ns.starts_with(&self.name)) {
            let _ = cmd!(sh, "ip netns delete {ns}").quiet().run();
        }
    }
}
