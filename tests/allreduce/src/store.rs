//! The store benchmark: how long until N clients are connected, and how fast and how late the
//! store answers them; libuv beside legacy. One server process, one thread a client.
#![allow(unsafe_code)] // the limit on open files

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::c10d::{Store, StoreBackend};
use crate::failure::{Failure, Result};
use crate::launch;

/// Bytes of the values that are set and got: about an address, as process groups exchange them.
const VALUE: usize = 64;

/// What is measured.
pub struct Plan {
    /// Numbers of clients.
    pub clients: Vec<usize>,
    /// Servers.
    pub backends: Vec<StoreBackend>,
    /// Operations of each kind, over all clients.
    pub operations: usize,
    /// A server that runs elsewhere, `host:port`; one is started where none is named.
    pub connect: Option<(String, u16)>,
    /// Bound on each call.
    pub timeout: Duration,
}

/// Figures of one server with one number of clients.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which server.
    pub backend: StoreBackend,
    /// Clients, all connected at one time.
    pub clients: usize,
    /// Seconds from the start until the last client was connected and counted.
    pub startup_seconds: f64,
    /// Seconds until a barrier of all clients was passed by the last, thrice.
    pub barrier_seconds: Vec<f64>,
    /// By operation.
    pub operations: Vec<Operation>,
    /// Why there are no figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Figures of one operation.
#[derive(Debug, Clone, Serialize)]
pub struct Operation {
    /// `set`, `get`, `add`, `wait` (for a key that is there), `check`.
    pub name: &'static str,
    /// How often, over all clients.
    pub count: usize,
    /// A second, all clients together.
    pub rate: f64,
    /// Latency of one call in microseconds; of `set`, until it is sent: the store does not answer it.
    pub latency_us: Percentiles,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
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

/// The level of torch's C++ log. Read before `main`: whoever wants another sets it for the process.
const LOG_LEVEL: &str = "TORCH_CPP_LOG_LEVEL";

/// Starts this program again without torch's warnings, unless the user chose a level: the store warns
/// of every client whose name it cannot look up, and thousands of them would be measured too.
pub fn quiet() -> Result<()> {
    if std::env::var_os(LOG_LEVEL).is_some() {
        return Ok(());
    }
    let me = std::env::current_exe()?;
    Err(Command::new(me).args(std::env::args_os().skip(1)).env(LOG_LEVEL, "ERROR").exec().into())
}

/// Measures every server with every number of clients.
pub fn run(plan: &Plan, mut each: impl FnMut(&Row)) -> Result<Vec<Row>> {
    let most = plan.clients.iter().copied().max().unwrap_or(0);
    check_open_files(most)?;
    let mut rows = Vec::new();
    for &clients in &plan.clients {
        for &backend in &plan.backends {
            let row = match measure(plan, backend, clients) {
                Ok(row) => row,
                // A build without libuv says so itself: its text is the figure.
                Err(e) => Row {
                    backend,
                    clients,
                    startup_seconds: f64::NAN,
                    barrier_seconds: Vec::new(),
                    operations: Vec::new(),
                    error: Some(e.to_string()),
                },
            };
            each(&row);
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Serves a store until standard input ends; prints its port.
#[allow(clippy::print_stdout)]
pub fn serve(backend: StoreBackend, port: u16) -> Result<()> {
    check_open_files(0)?;
    let store = Store::serve(port, backend, Duration::from_secs(600))?;
    println!("{}", store.port());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

/// A server in a process of its own.
struct Server {
    child: Child,
    address: (String, u16),
}

impl Server {
    fn start(backend: StoreBackend) -> Result<Self> {
        let name = if backend == StoreBackend::Libuv { "libuv" } else { "legacy" };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["store", "--serve", "--backend", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        launch::end_with_parent(&mut command);
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(port) => {
                // A server that warns must not wait for a reader.
                if let Some(mut stderr) = child.stderr.take() {
                    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
                }
                Ok(Self { child, address: ("127.0.0.1".into(), port) })
            }
            Err(_) => {
                let _ = child.kill();
                let output = child.wait_with_output()?;
                let text = String::from_utf8_lossy(&output.stderr);
                let said = text.lines().find(|l| l.starts_with("error:")).unwrap_or("it printed no port");
                Err(Failure::world(said.trim_start_matches("error:").trim()))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Latencies in seconds of one operation, a client each.
type Samples = Vec<(&'static str, f64, Vec<f64>)>;

fn measure(plan: &Plan, backend: StoreBackend, clients: usize) -> Result<Row> {
    let server = if plan.connect.is_none() { Some(Server::start(backend)?) } else { None };
    let address = plan.connect.clone().or_else(|| server.as_ref().map(|s| s.address.clone())).unwrap_or_default();
    let gate = Arc::new(Barrier::new(clients));
    let each = plan.operations.div_ceil(clients).max(1);
    let failed: Arc<Mutex<Option<Failure>>> = Arc::default();
    // Clients come from one process: its clock is the clock.
    let start = Instant::now() + Duration::from_millis(50 + clients as u64 / 4);
    let outcome: Vec<Option<(f64, Vec<f64>, Samples)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                let (gate, failed, address) = (Arc::clone(&gate), Arc::clone(&failed), &address);
                std::thread::Builder::new()
                    .stack_size(512 << 10)
                    .spawn_scoped(scope, move || {
                        let part = Part { plan, backend, client, clients, each, gate: &gate, failed: &failed };
                        part.run(address, start)
                    })
                    .map_err(|e| Failure::world(format!("client {client} cannot be started: {e}")))
            })
            .collect();
        threads
            .into_iter()
            .map(|t| match t {
                Ok(thread) => thread.join().ok().flatten(),
                Err(e) => {
                    note(&failed, e);
                    None
                }
            })
            .collect()
    });
    if let Some(e) = failed.lock().ok().and_then(|mut f| f.take()) {
        return Err(e);
    }
    let parts: Vec<_> = outcome.into_iter().flatten().collect();
    let latest = |of: &dyn Fn(&(f64, Vec<f64>, Samples)) -> f64| parts.iter().map(of).fold(0.0, f64::max);
    let barrier_seconds = (0..BARRIERS).map(|i| latest(&|p| p.1[i])).collect();
    let operations = (0..OPERATIONS.len())
        .map(|i| {
            let mut all: Vec<f64> = parts.iter().flat_map(|p| p.2[i].2.iter().copied()).collect();
            all.sort_by(f64::total_cmp);
            let wall = latest(&|p| p.2[i].1);
            let at = |q: f64| all[((all.len() - 1) as f64 * q).round() as usize] * 1e6;
            Operation {
                name: OPERATIONS[i],
                count: all.len(),
                rate: all.len() as f64 / wall,
                latency_us: Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) },
            }
        })
        .collect();
    Ok(Row { backend, clients, startup_seconds: latest(&|p| p.0), barrier_seconds, operations, error: None })
}

/// Operations in the order that they are measured: each finds what it needs from those before.
pub const OPERATIONS: [&str; 5] = ["set", "get", "add", "wait", "check"];
const BARRIERS: usize = 3;

/// One client.
struct Part<'a> {
    plan: &'a Plan,
    backend: StoreBackend,
    client: usize,
    clients: usize,
    each: usize,
    gate: &'a Barrier,
    failed: &'a Mutex<Option<Failure>>,
}

impl Part<'_> {
    /// Seconds until connected, of the barriers, and of the operations. A client that fails goes on
    /// through the gates: the others would wait for it.
    fn run(&self, address: &(String, u16), start: Instant) -> Option<(f64, Vec<f64>, Samples)> {
        std::thread::sleep(start.saturating_duration_since(Instant::now()));
        let store = Store::connect(&address.0, address.1, self.backend, self.plan.timeout)
            .and_then(|store| store.add("joined", 1).map(|_| store));
        let joined = start.elapsed().as_secs_f64();
        let store = self.keep(store);
        let mut barriers = Vec::new();
        for i in 0..BARRIERS {
            self.gate.wait();
            let started = Instant::now();
            if let Some(store) = store.as_ref().filter(|_| !self.has_failed()) {
                self.keep(self.barrier(store, i));
            }
            barriers.push(started.elapsed().as_secs_f64());
        }
        let mut samples = Vec::new();
        for name in OPERATIONS {
            self.gate.wait();
            let started = Instant::now();
            let mut times = Vec::new();
            if let Some(store) = store.as_ref().filter(|_| !self.has_failed()) {
                times = self.keep(self.operate(store, name)).unwrap_or_default();
            }
            samples.push((name, started.elapsed().as_secs_f64(), times));
        }
        self.gate.wait();
        Some((joined, barriers, samples))
    }

    /// As `torch.distributed`'s store-based barrier: count, and the last one opens.
    fn barrier(&self, store: &Store, round: usize) -> Result<()> {
        let (count, open) = (format!("barrier/{round}/count"), format!("barrier/{round}/open"));
        if store.add(&count, 1)? == self.clients as i64 {
            store.set(&open, b"1")?;
        }
        store.wait(&open, self.plan.timeout)
    }

    fn operate(&self, store: &Store, name: &str) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(self.each);
        let mut value = [b'x'; VALUE];
        let own = format!("key/{}", self.client);
        for _ in 0..self.each {
            let started = Instant::now();
            match name {
                "set" => store.set(&own, &value)?,
                "get" => drop(store.get(&own, &mut value)?),
                "add" => drop(store.add("counter", 1)?),
                "wait" => store.wait(&own, self.plan.timeout)?,
                _ => drop(store.check(&own)?),
            }
            times.push(started.elapsed().as_secs_f64());
        }
        if name == "set" {
            // A set is not answered: the rate counts when the last one has arrived.
            store.check(&own)?;
        }
        Ok(times)
    }

    fn keep<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|e| note(self.failed, e)).ok()
    }

    fn has_failed(&self) -> bool {
        self.failed.lock().is_ok_and(|f| f.is_some())
    }
}

/// Keeps the first failure.
fn note(failed: &Mutex<Option<Failure>>, e: Failure) {
    if let Ok(mut slot) = failed.lock() {
        slot.get_or_insert(e);
    }
}

/// Raises the limit on open files as far as it goes, and refuses what it does not hold.
fn check_open_files(clients: usize) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes the structure, setrlimit reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Ok(());
        }
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    if (limit.rlim_max as usize) < clients + 64 {
        return Err(Failure::misuse(format!(
            "{clients} clients need {} open files, and the hard limit here is {} (`ulimit -Hn`): use fewer --clients",
            clients + 64,
            limit.rlim_max
        )));
    }
    Ok(())
}
