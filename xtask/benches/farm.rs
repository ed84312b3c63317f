//! What a farm makes of real objects: their bytes against those of a build on this machine, and what the way there adds to
//! an object. Scheduler, three workers and client are hosts of their own, which are network namespaces of this machine.
//!
//! ```text
//! cargo xtask build-torch                                    # the objects to compare with: its work folder stays
//! sudo cargo bench --profile dev --bench farm -- torch-2.12.1-cpu 300 20
//! ```
//!
//! Needs root, iproute2, bubblewrap, and sccache 0.16 with its sccache-dist on PATH. A build in a store of its own, with
//! nothing in its compiler cache, is stopped when the farm has compiled 300 of its objects; each has to be, bit for bit,
//! what lies in the other build's work folder. Then one worker is left, for one object at a time beside one that is compiled
//! here, and does one of 20 parts of the objects (`--shard 1/20`: as many long and short ones as in the whole); those that
//! came from it are compiled here by the same commands, two at a time, without launcher or cache: the difference is what the
//! farm adds. The table for more machines than there are is simulated from that, and says what it takes for granted.
//!
//! At last, what a dead worker costs: client and three workers with two fifths of a core each (control groups), which two
//! parts that should take the same time are given to; in the second one, the third worker's cable is taken out.

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

    use torchmill::toolchain::objects::farmed;

    use super::hosts::{Farm, URL, text};

    const WORKERS: [&str; 3] = ["w1", "w2", "w3"];

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    /// The work folder of `recipe`'s build in `store`, if not in that of the environment.
    fn work(recipe: &str, store: Option<&Path>) -> PathBuf {
        let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
        command.args(["build-torch", "--dry-run", "--json", "--recipe", recipe]).current_dir(root());
        if let Some(store) = store {
            command.env("TORCHMILL_STORE", store);
        }
        let plan: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).expect("a plan");
        plan["plan"]["work"].as_str().expect("a work folder").into()
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
        /// Compiles what `what` names until it ends or the farm compiled `wanted` objects; `meanwhile` is called with how
        /// many there are, every second.
        fn run(&self, farm: &Farm, what: [&str; 2], wanted: usize, mut meanwhile: impl FnMut(usize)) {
            let log = std::fs::File::create(self.store.join("log")).unwrap();
            let mut command = farm.client(&["build-torch", "--recipe", self.recipe, "--jobs", "1", what[0], what[1]]);
            command.args(["--offline", "--cache-audit", "0", "--farm", URL]).current_dir(root());
            command.env("TORCHMILL_STORE", self.store).stdin(Stdio::null());
            let mut running = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            while farmed(self.work).len() < wanted {
                meanwhile(farmed(self.work).len());
                if let Some(status) = running.try_wait().unwrap() {
                    let told = std::fs::read_to_string(self.store.join("log")).unwrap();
                    assert!(status.success(), "it ended with {status}:\n{told}");
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            let id = running.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
            running.wait().unwrap();
        }

        /// When each step of the build began and ended, seconds since its run of ninja began, as ninja has it.
        fn steps(&self) -> BTreeMap<String, (f64, f64)> {
            let log = std::fs::read_to_string(self.work.join("src/build/.ninja_log")).expect("a log of ninja");
            let rows = log.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
            rows.map(|row| {
                let seconds = |at: usize| row[at].parse::<f64>().unwrap() / 1000.0;
                (row[3].to_owned(), (seconds(0), seconds(1)))
            })
            .collect()
        }

        /// Seconds that a part of the objects takes, and how many of its objects came from the farm.
        fn part(&self, farm: &Farm, part: &str, mut meanwhile: impl FnMut(usize)) -> (f64, usize) {
            let (steps, objects) = (self.steps(), farmed(self.work).len());
            self.run(farm, ["--shard", part], usize::MAX, |now| meanwhile(now - objects));
            let new = self.steps().into_iter().filter(|(output, _)| !steps.contains_key(output));
            (new.map(|(_, (_, end))| end).fold(0.0, f64::max), farmed(self.work).len() - objects)
        }
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
    /// farm has it for its time and `added`.
    fn simulated(objects: &[f64], cores: usize, client: usize, share: f64, added: f64) -> f64 {
        let free = |n: usize| (0..n).map(|_| Reverse(0_u64)).collect::<BinaryHeap<_>>();
        let (mut here, mut there) = (free(client), free(cores));
        let ms = |seconds: f64| (seconds * 1000.0) as u64;
        let mut end = 0;
        for seconds in objects {
            let Reverse(begun) = here.pop().unwrap();
            let sent = begun + ms(seconds * share);
            let Reverse(free) = there.pop().unwrap();
            let done = sent.max(free) + ms(seconds + added);
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
        let (wanted, parts) = (number(1, 300), number(2, 20));
        let alone = work(recipe, None);
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        std::fs::create_dir_all(&store).unwrap();
        // What the network is needed for.
        let ready = Command::new(env!("CARGO_BIN_EXE_torchmill"))
            .args(["build-torch", "--recipe", recipe, "--until", "configure"])
            .current_dir(root())
            .env("TORCHMILL_STORE", &store)
            .status()
            .unwrap();
        assert!(ready.success());
        let there = work(recipe, Some(&store));
        let building = Building { recipe, store: &store, work: &there };

        let path = std::env::var("PATH").unwrap();
        let mut farm = Farm::new(3, &path).with_workers(&WORKERS, 1);
        let began = Instant::now();
        // One cable is out for ten seconds in the middle of it.
        let (mut out, mut times) = (None::<Instant>, 0);
        building.run(&farm, ["--until", "compile"], wanted, |objects| match out {
            None if times == 0 && objects > wanted / 3 => {
                farm.cable("w2", false);
                (out, times) = (Some(Instant::now()), 1);
            }
            Some(since) if since.elapsed() > Duration::from_secs(10) => {
                farm.cable("w2", true);
                out = None;
            }
            _ => {}
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

        for host in &WORKERS[1..] {
            farm.kill(host);
        }
        // Until the scheduler forgets them.
        farm.until_within(Duration::from_secs(180), "one worker is left", |farm| farm.status() == Some(1));
        building.part(&farm, &format!("1/{parts}"), |_| {});
        let of_farm: Vec<String> = farmed(&there).into_keys().filter(|output| !first.contains_key(output)).collect();
        drop(farm);
        let (by_farm, by_hand) = (building.steps(), here(&of_farm, &there));
        let costs: Vec<Cost> = of_farm
            .iter()
            .map(|output| {
                let (here, preprocessed) = by_hand[output];
                let (began, ended) = by_farm[output];
                Cost { farm: ended - began, here, preprocessed }
            })
            .collect();
        println!(
            "\n| compiled here in | objects | here, s | by the farm, s | farm / here: first quartile, median, third |"
        );
        println!("|---|---|---|---|---|");
        for (name, from, to) in
            [("less than 3 s", 0.0, 3.0), ("3 to 10 s", 3.0, 10.0), ("more", 10.0, f64::MAX), ("all", 0.0, f64::MAX)]
        {
            let rows: Vec<&Cost> = costs.iter().filter(|c| c.here >= from && c.here < to).collect();
            if rows.is_empty() {
                continue;
            }
            let sum = |of: fn(&Cost) -> f64| rows.iter().map(|c| of(c)).sum::<f64>();
            let [low, middle, high] = quartiles(rows.iter().map(|c| c.farm / c.here).collect());
            let (n, here, by_farm) = (rows.len(), sum(|c| c.here), sum(|c| c.farm));
            println!("| {name} | {n} | {here:.0} | {by_farm:.0} | {low:.2}, {middle:.2}, {high:.2} |");
        }
        let total: f64 = costs.iter().map(|c| c.here).sum();
        let share = costs.iter().map(|c| c.preprocessed).sum::<f64>() / total;
        let [_, added, _] = quartiles(costs.iter().map(|c| (c.farm - c.here).max(0.0)).collect());
        println!("\nPreprocessing takes {share:.3} of a compile; the farm adds {added:.2} s to an object (median).");

        simulate(recipe, &alone, share, added);
        one_dead(&building, &path, parts * 4);
    }

    /// What it costs that one of three workers dies while a build runs.
    fn one_dead(building: &Building<'_>, path: &str, parts: usize) {
        let farm = Farm::new(3, path).with_cores(0.4).with_workers(&WORKERS, 1);
        // What only the first one does: the compiler's archive goes to each worker.
        building.part(&farm, &format!("{}/{parts}", parts - 2), |_| {});
        let (all, of_all) = building.part(&farm, &format!("{}/{parts}", parts - 1), |_| {});
        let mut dead = false;
        let (two, of_two) = building.part(&farm, &format!("{parts}/{parts}"), |objects| {
            if !dead && objects > 0 {
                farm.cable("w3", false);
                dead = true;
            }
        });
        println!("\nA part of {parts}, on client and workers with 0.4 cores each:\n");
        println!("| workers | objects by the farm | s |\n|---|---|---|\n| three | {of_all} | {all:.0} |");
        println!(
            "| three, one of them dead after its first object | {of_two} | {two:.0} ({:.2} times as long) |",
            two / all
        );
        farm.cable("w3", true);
    }

    fn simulate(recipe: &str, alone: &Path, share: f64, added: f64) {
        let timings = alone.ancestors().nth(2).unwrap().join("cache/timings").join(format!("{recipe}.json"));
        let timings = std::fs::read_to_string(&timings).expect("a build that compiled here");
        let all: BTreeMap<String, f64> = serde_json::from_str(&timings).unwrap();
        let objects: Vec<f64> = all.iter().filter(|(output, _)| output.ends_with(".o")).map(|(_, s)| *s).collect();
        let sum: f64 = objects.iter().sum();
        println!("\nSimulated, for a client of 8 cores, from what {} objects took here ({sum:.0} s):", objects.len());
        println!("\n| machines of 8 cores | compile, s | of one such machine alone |\n|---|---|---|");
        let one = simulated(&objects, 8, 8, 0.0, 0.0);
        println!("| 1, no farm | {one:.0} | 1 |");
        for machines in [4, 16, 64] {
            let with = simulated(&objects, machines * 8, 8, share, added);
            println!("| {machines} | {with:.0} | {:.2} |", with / one);
        }
    }
}
