//! What a farm makes of real objects: their bytes against those of a build on this machine, and what the way there adds to
//! an object. Scheduler, three workers and client are hosts of their own, which are network namespaces of this machine.
//!
//! ```text
//! cargo xtask build-torch                       # the objects to compare with: its work folder stays
//! sudo cargo bench --profile dev --bench farm -- torch-2.12.1-cpu 300 40
//! ```
//!
//! Needs root, iproute2, bubblewrap, control groups for processors, and sccache 0.16 with its sccache-dist on PATH, where
//! any user may run it. A build in a store of its own, which has the other one's downloads, knows how long objects took
//! there, and has nothing in its compiler cache, is stopped when the farm has compiled 300 of its objects; each has to be,
//! bit for bit, what lies in the other build's work folder. Then one worker is left, for one object at a time beside one
//! that is compiled here, until it has done 40 objects of 3 s and more; these, and some of the shorter ones, are compiled
//! here by the same commands, two at a time, without launcher or cache: the difference is what the farm adds. The table for
//! more machines than there are is simulated from that, and says what it takes for granted.
//!
//! At last, what a dead worker costs: the build goes on with three tenths of a core each for client and three workers
//! (control groups: a worker is on one core, and all three may be on the same), for six minutes, and for six more in which
//! the third worker's cable is out. What is done in that time is measured by what the other build took for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)] // a benchmark that cannot go on panics

#[cfg(target_os = "linux")]
#[path = "../../tests/support/farm.rs"]
mod hosts;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("network namespaces are Linux's");
}

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::cmp::Reverse;
    use std::collections::{BTreeMap, BinaryHeap};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use sha2::{Digest, Sha256};

    use super::hosts::{Farm, URL, text};

    const WORKERS: [&str; 3] = ["w1", "w2", "w3"];
    /// Objects by what they take here: up to so many seconds.
    const CLASSES: [(&str, f64); 3] = [("less than 3 s", 3.0), ("3 to 10 s", 10.0), ("more", f64::MAX)];
    /// How long each half of the comparison with a dead worker takes.
    const WINDOW: Duration = Duration::from_secs(360);
    /// Cores that each host has in it.
    const CORES: f64 = 0.3;

    /// What the farm compiled in the work folder `work`.
    fn farmed(work: &Path) -> BTreeMap<String, String> {
        torchmill::toolchain::objects::farmed(work).unwrap()
    }

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    /// What this program prints as JSON of `recipe`, with `store` if not with that of the environment.
    fn asked(arguments: &[&str], recipe: &str, store: Option<&Path>) -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
        command.args(arguments).args(["--json", "--recipe", recipe]).current_dir(root());
        if let Some(store) = store {
            command.env("TORCHMILL_STORE", store);
        }
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("a result as JSON")
    }

    /// The work folder of `recipe`'s build in `store`, if not in that of the environment.
    fn work(recipe: &str, store: Option<&Path>) -> PathBuf {
        let plan = asked(&["build-torch", "--dry-run"], recipe, store);
        plan["plan"]["work"].as_str().expect("a work folder").into()
    }

    /// Gives `store` what that of the environment has downloaded.
    fn supply(recipe: &str, store: &Path) {
        let fetched = asked(&["fetch", "--offline"], recipe, None);
        for file in fetched["files"].as_array().expect("what was downloaded") {
            let (sha256, path) = (file["sha256"].as_str().unwrap(), file["path"].as_str().unwrap());
            let to = store.join("v1/blobs").join(&sha256[..2]);
            std::fs::create_dir_all(&to).unwrap();
            std::fs::copy(path, to.join(sha256)).unwrap();
        }
    }

    fn sha256(path: &Path) -> Option<String> {
        Some(hex::encode(Sha256::digest(std::fs::read(path).ok()?)))
    }

    /// A build on the client, by the farm, in a store of its own.
    struct Building<'a> {
        recipe: &'a str,
        store: &'a Path,
        work: &'a Path,
    }

    impl Building<'_> {
        /// Tells its store what objects take where a host has `cores`: by that a farm is waited for.
        fn know(&self, expected: &BTreeMap<String, f64>, cores: f64) {
            let seconds: BTreeMap<&String, f64> = expected.iter().map(|(output, s)| (output, s / cores)).collect();
            let folder = self.store.join("v1/cache/timings");
            std::fs::create_dir_all(&folder).unwrap();
            let file = folder.join(format!("{}.json", self.recipe));
            std::fs::write(file, serde_json::to_vec(&seconds).unwrap()).unwrap();
        }

        /// Compiles until it ends or `enough`, which is asked every second.
        fn run(&self, farm: &Farm, mut enough: impl FnMut() -> bool) {
            let log = std::fs::File::create(self.store.join("log")).unwrap();
            let mut command =
                farm.client(&["build-torch", "--recipe", self.recipe, "--until", "compile", "--jobs", "1"]);
            command.args(["--offline", "--cache-audit", "0", "--farm", URL]).current_dir(root());
            command.env("TORCHMILL_STORE", self.store).stdin(Stdio::null());
            let mut running = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            while !enough() {
                if let Some(status) = running.try_wait().unwrap() {
                    let told = std::fs::read_to_string(self.store.join("log")).unwrap();
                    panic!("the build ended with {status} after {} objects:\n{told}", farmed(self.work).len());
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            let id = running.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
            running.wait().unwrap();
        }

        /// Seconds that each step of the build took, as ninja has it.
        fn steps(&self) -> BTreeMap<String, f64> {
            let log = std::fs::read_to_string(self.work.join("src/build/.ninja_log")).expect("a log of ninja");
            let rows = log.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
            rows.map(|row| {
                let ms = |at: usize| row[at].parse::<f64>().unwrap();
                (row[3].to_owned(), (ms(1) - ms(0)) / 1000.0)
            })
            .collect()
        }

        /// What gets done in `time`: seconds that it took elsewhere, by `expected`, for each second; and how many objects
        /// the farm did of it.
        fn rate(&self, farm: &Farm, time: Duration, expected: &BTreeMap<String, f64>) -> (f64, usize) {
            let (before, objects, began) = (self.steps(), farmed(self.work).len(), Instant::now());
            self.run(farm, || began.elapsed() >= time);
            let new = self.steps().into_keys().filter(|output| !before.contains_key(output));
            let done: f64 = new.filter_map(|output| expected.get(&output)).sum();
            (done / time.as_secs_f64(), farmed(self.work).len() - objects)
        }
    }

    /// What the way to the farm costs for objects that take less than `to` seconds, and no less than those of the way before.
    struct Way {
        to: f64,
        /// What preprocessing takes of a compile.
        share: f64,
        /// Seconds that are added.
        added: f64,
    }

    /// What one object costs on either way, in seconds of the clock.
    struct Cost {
        farm: f64,
        here: f64,
        preprocessed: f64,
    }

    /// Seconds of the clock that `command` takes in `build`.
    fn seconds(command: &[String], build: &Path) -> f64 {
        let began = Instant::now();
        let done = Command::new(&command[0])
            .args(&command[1..])
            .current_dir(build)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success(), "{command:?}");
        began.elapsed().as_secs_f64()
    }

    /// Compiles, and preprocesses, each of `outputs` here, two at a time, by the commands of the build.
    fn here(outputs: &[String], work: &Path) -> BTreeMap<String, (f64, f64)> {
        let build = work.join("src/build");
        let database =
            std::fs::read_to_string(build.join("compile_commands.json")).expect("a build that is configured");
        let all: Vec<serde_json::Value> = serde_json::from_str(&database).unwrap();
        let commands: BTreeMap<&str, &str> =
            all.iter().map(|c| (c["output"].as_str().unwrap(), c["command"].as_str().unwrap())).collect();
        let (next, costs) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(output) = outputs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut words = shlex::split(commands[output.as_str()]).unwrap();
                        let at = words.iter().position(|w| w == "-o").expect("an output") + 1;
                        let object = tempfile::NamedTempFile::new().unwrap();
                        words[at] = text(object.path()).to_owned();
                        let compiled = seconds(&words, &build);
                        let what = words.iter().position(|w| w == "-c").expect("a compile");
                        words[what] = "-E".to_owned();
                        let preprocessed = seconds(&words, &build);
                        costs.lock().unwrap().insert(output.clone(), (compiled, preprocessed));
                    }
                });
            }
        });
        costs.into_inner().unwrap()
    }

    fn quartiles(mut of: Vec<f64>) -> [f64; 3] {
        of.sort_by(f64::total_cmp);
        [1, 2, 3].map(|quarter| of[(of.len() - 1) * quarter / 4])
    }

    /// Seconds until all of `objects` are compiled, in their order: a core of the client preprocesses one, then a core of the
    /// farm has it for its time and what the way there adds.
    fn simulated(objects: &[f64], cores: usize, client: usize, ways: &[Way]) -> f64 {
        let free = |n: usize| (0..n).map(|_| Reverse(0_u64)).collect::<BinaryHeap<_>>();
        let (mut here, mut there) = (free(client), free(cores));
        let ms = |seconds: f64| (seconds * 1000.0) as u64;
        let mut end = 0;
        for seconds in objects {
            let way = ways.iter().find(|way| *seconds < way.to).or(ways.last()).expect("a way");
            let Reverse(begun) = here.pop().unwrap();
            let sent = begun + ms(seconds * way.share);
            let Reverse(free) = there.pop().unwrap();
            let done = sent.max(free) + ms(seconds + way.added);
            // A core of the client is free for the next one as soon as this one is on its way.
            here.push(Reverse(sent));
            there.push(Reverse(done));
            end = end.max(done);
        }
        end as f64 / 1000.0
    }

    pub fn main() {
        let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
        let recipe = arguments.first().map_or("torch-2.12.1-cpu", String::as_str);
        let number =
            |at: usize, otherwise: usize| arguments.get(at).map_or(otherwise, |n| n.parse().expect("a number"));
        let (wanted, timed) = (number(1, 300), number(2, 40));
        let alone = work(recipe, None);
        let expected = expected(recipe, &alone);
        let log = alone.join("src/build/.ninja_log");
        assert!(log.is_file(), "no objects to compare with: cargo xtask build-torch --recipe {recipe}");
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        supply(recipe, &store);
        let ready = Command::new(env!("CARGO_BIN_EXE_torchmill"))
            .args(["build-torch", "--recipe", recipe, "--until", "configure", "--offline"])
            .current_dir(root())
            .env("TORCHMILL_STORE", &store)
            .status()
            .unwrap();
        assert!(ready.success());
        let there = work(recipe, Some(&store));
        let building = Building { recipe, store: &store, work: &there };
        building.know(&expected, 1.0);

        let path = std::env::var("PATH").unwrap();
        let mut farm = Farm::new(3, &path).with_workers(&WORKERS, 1);
        let began = Instant::now();
        // One cable is out for ten seconds in the middle of it.
        let (mut out, mut times) = (None::<Instant>, 0);
        building.run(&farm, || {
            let objects = farmed(&there).len();
            match out {
                None if times == 0 && objects > wanted / 3 => {
                    farm.cable("w2", false);
                    (out, times) = (Some(Instant::now()), 1);
                }
                Some(since) if since.elapsed() > Duration::from_secs(10) => {
                    farm.cable("w2", true);
                    out = None;
                }
                _ => {}
            }
            objects >= wanted
        });
        assert_eq!((times, out), (1, None), "the cable is in again");
        let took = began.elapsed();
        let first = farmed(&there);
        let (mut same, mut other, mut unknown) = (0, Vec::new(), 0);
        for (output, digest) in &first {
            match sha256(&alone.join("src/build").join(output)) {
                Some(own) if own == *digest => same += 1,
                Some(_) => other.push(output),
                None => unknown += 1,
            }
        }
        println!(
            "{recipe}: {} objects of three workers in {:.0} s, beside those compiled here",
            first.len(),
            took.as_secs_f64()
        );
        println!("{same} are bit for bit those of a build here, {} are not, {unknown} are not in it", other.len());
        assert!(other.is_empty(), "{other:?}");
        assert_eq!(unknown, 0, "build-torch has not compiled this here, with this version");

        for host in &WORKERS[1..] {
            farm.kill(host);
        }
        // Until the scheduler forgets them.
        farm.until_within(Duration::from_secs(180), "one worker is left", |farm| farm.status() == Some(1));
        let new = || farmed(&there).into_keys().filter(|output| !first.contains_key(output));
        let is_long = |output: &String| expected.get(output).is_some_and(|seconds| *seconds >= CLASSES[0].1);
        building.run(&farm, || new().filter(is_long).count() >= timed);
        drop(farm);
        let by_farm = building.steps();
        // What came back when the build was stopped, its launcher has noted and ninja has not.
        let ended = new().filter(|output| by_farm.contains_key(output));
        let (mut of_farm, short): (Vec<String>, Vec<String>) = ended.partition(is_long);
        // Of the many short ones every so many.
        let every = short.len().div_ceil(timed).max(1);
        of_farm.extend(short.into_iter().step_by(every));
        let by_hand = here(&of_farm, &there);
        let costs: Vec<Cost> = of_farm
            .iter()
            .map(|output| {
                let (here, preprocessed) = by_hand[output];
                Cost { farm: by_farm[output], here, preprocessed }
            })
            .collect();
        println!(
            "\n| compiled here in | objects | here, s | by the farm, s | farm / here: first quartile, median, third |"
        );
        println!("|---|---|---|---|---|");
        let mut ways = Vec::new();
        for (name, to) in CLASSES {
            let from = ways.last().map_or(0.0, |way: &Way| way.to);
            let rows: Vec<&Cost> = costs.iter().filter(|c| c.here >= from && c.here < to).collect();
            if rows.is_empty() {
                continue;
            }
            let sum = |of: fn(&Cost) -> f64| rows.iter().map(|c| of(c)).sum::<f64>();
            let [low, middle, high] = quartiles(rows.iter().map(|c| c.farm / c.here).collect());
            let (n, here, by_farm) = (rows.len(), sum(|c| c.here), sum(|c| c.farm));
            println!("| {name} | {n} | {here:.0} | {by_farm:.0} | {low:.2}, {middle:.2}, {high:.2} |");
            let share = sum(|c| c.preprocessed) / here;
            let [_, added, _] = quartiles(rows.iter().map(|c| (c.farm - c.here).max(0.0)).collect());
            ways.push(Way { to, share, added });
        }
        println!("\n| compiled here in | preprocessing, of a compile | the farm adds, s (median) |\n|---|---|---|");
        for way in &ways {
            let name = CLASSES.iter().find(|(_, to)| *to == way.to).map_or("", |(name, _)| name);
            println!("| {name} | {:.3} | {:.2} |", way.share, way.added);
        }
        simulate(&expected, &ways);
        one_dead(&building, &path, &expected);
    }

    /// What it costs that one of three workers dies while a build runs.
    fn one_dead(building: &Building<'_>, path: &str, expected: &BTreeMap<String, f64>) {
        let farm = Farm::new(3, path).with_cores(CORES).with_workers(&WORKERS, 1);
        building.know(expected, CORES);
        let objects = farmed(building.work).len();
        // What comes once: the compiler's archive goes to each worker.
        building.run(&farm, || farmed(building.work).len() >= objects + 2 * WORKERS.len());
        let (all, of_all) = building.rate(&farm, WINDOW, expected);
        farm.cable("w3", false);
        let (two, of_two) = building.rate(&farm, WINDOW, expected);
        farm.cable("w3", true);
        let seconds = WINDOW.as_secs();
        println!("\nWith {CORES} cores each for the client and its workers, in {seconds} s:\n");
        println!("| workers | objects by the farm | seconds of compiling done in a second |\n|---|---|---|");
        println!("| three | {of_all} | {all:.2} |\n| three, one of them cut off | {of_two} | {two:.2} |");
        println!("\nThat one of three is cut off costs {:.0} % of what gets done.", (1.0 - two / all) * 100.0);
    }

    /// Seconds that each object took in the build on this machine.
    fn expected(recipe: &str, alone: &Path) -> BTreeMap<String, f64> {
        let timings = alone.ancestors().nth(2).unwrap().join("cache/timings").join(format!("{recipe}.json"));
        let timings = std::fs::read_to_string(&timings).expect("a build that compiled here");
        let all: BTreeMap<String, f64> = serde_json::from_str(&timings).unwrap();
        all.into_iter().filter(|(output, _)| output.ends_with(".o")).collect()
    }

    fn simulate(expected: &BTreeMap<String, f64>, ways: &[Way]) {
        let objects: Vec<f64> = expected.values().copied().collect();
        let sum: f64 = objects.iter().sum();
        println!("\nSimulated, for a client of 8 cores, from what {} objects took here ({sum:.0} s):", objects.len());
        println!("\n| machines of 8 cores | compile, s | of one such machine alone |\n|---|---|---|");
        let one = simulated(&objects, 8, 8, &[Way { to: f64::MAX, share: 0.0, added: 0.0 }]);
        println!("| 1, no farm | {one:.0} | 1 |");
        for machines in [4, 16, 64] {
            let with = simulated(&objects, machines * 8, 8, ways);
            println!("| {machines} | {with:.0} | {:.2} |", with / one);
        }
    }
}
