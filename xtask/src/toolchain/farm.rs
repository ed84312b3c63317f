//! Compiles on other machines: which commands can travel, and how the launcher hands one to the farm's engine (sccache).
//! The engine's daemon, which has the connection, was started before the build; it writes to a folder of its own and
//! nowhere else, because what a worker answers decides what it writes. Only the one file that was asked for is taken
//! from there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::admission::{Admitted, Need, Rules};
use super::objects;
use crate::platform;

/// Names the file with the [`Farm`] of a build to its launchers.
pub const FARM_VARIABLE: &str = "TORCHMILL_FARM";

/// Seconds that an object of which nothing is known is taken to need.
const UNKNOWN: f64 = 15.0;
/// An object may take this many times what it took last, before it is compiled here.
const SLOWER: f64 = 4.0;

/// Bytes of an object at the most.
const MOST_OBJECT: u64 = 1 << 30;

/// The sources whose compile is known to travel: they are sent preprocessed.
const SOURCES: [&str; 6] = ["c", "cc", "cpp", "cxx", "c++", "C"];

/// Flags that mean another thing on another machine, or write or read more than one file.
const STAYS: [&str; 13] = [
    "-march=native",
    "-mtune=native",
    "-mcpu=native",
    "-fprofile",
    "-fauto-profile",
    "--coverage",
    "-ftest-coverage",
    "-gsplit-dwarf",
    "-save-temps",
    "-fplugin",
    "-specs",
    "-fmodules",
    "@",
];

/// The farm that a build is connected to, as its launchers know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Farm {
    /// The engine's client.
    pub program: PathBuf,
    /// Where its daemon listens.
    pub socket: PathBuf,
    /// The folder that the daemon writes to.
    pub folder: PathBuf,
    /// The file with the number of objects that the farm may have at a time: none while it is away.
    pub tickets: PathBuf,
    /// Where objects that are with the farm are counted.
    pub counted: PathBuf,
    /// Seconds that the farm may take for an object beside what its compile is expected to take.
    pub patience: f64,
    /// Output → seconds that its compile took in earlier builds.
    pub expected: BTreeMap<String, f64>,
    /// Whether the compiler cache can be asked without compiling.
    pub asks_cache: bool,
}

impl Farm {
    /// That of the build which this process belongs to, if it has one.
    pub fn of_environment() -> Option<Self> {
        let path = std::env::var_os(FARM_VARIABLE)?;
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// How many objects the farm may have at a time, now.
    pub fn open(&self) -> u32 {
        std::fs::read_to_string(&self.tickets).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// A place for one object, if the farm has one.
    pub fn ticket(&self) -> Option<Admitted> {
        let threads = self.open();
        if threads == 0 {
            return None;
        }
        let rules = Rules { memory: u64::MAX, threads, folder: self.counted.clone(), ..Rules::default() };
        rules.try_enter(Need { memory: 0, threads: 1 }).ok().flatten()
    }

    /// How long `output` is waited for.
    fn limit(&self, output: &str) -> Duration {
        let expected = self.expected.get(output).copied().unwrap_or(UNKNOWN);
        Duration::from_secs_f64((expected * SLOWER + self.patience).clamp(1.0, 6.0 * 3600.0))
    }

    /// Compiles by `argv` on the farm and puts the object at `output`: its SHA-256. `None` if that was not done within
    /// the time that it may take: why it was not, a compile here finds out.
    pub fn compile(&self, sent: &Sent, output: &str) -> Option<String> {
        let out = self.folder.join("out");
        // Whose answer is late writes to a name that nobody else has: a process' number comes again.
        let name = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        let own = |ending: &str| out.join(format!("{name}.{ending}"));
        let (object, depfile, said) = (own("o"), own("d"), own("said"));
        let mut argv = sent.argv.clone();
        argv[sent.object] = object.clone().into();
        argv[sent.depfile] = depfile.clone().into();
        let done = self.run(&argv, &said, self.limit(output)).and_then(|()| {
            taken(&depfile, Path::new(sent.argv_at(sent.depfile)))?;
            let digest = taken(&object, Path::new(output))?;
            // What the compiler had to say.
            std::io::copy(&mut std::fs::File::open(&said).ok()?, &mut std::io::stderr()).ok()?;
            Some(digest)
        });
        for file in [&object, &depfile, &said] {
            let _ = std::fs::remove_file(file);
        }
        done
    }

    /// Runs the engine's client to its end, or to the end of `limit`.
    fn run(&self, argv: &[OsString], said: &Path, limit: Duration) -> Option<()> {
        let said = std::fs::File::create(said).ok()?;
        let mut child = Command::new(&self.program)
            .args(argv)
            .env("SCCACHE_SERVER_UDS", &self.socket)
            .stdin(Stdio::null())
            .stdout(said.try_clone().ok()?)
            .stderr(said)
            .spawn()
            .ok()?;
        let started = Instant::now();
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(status) = child.try_wait().ok()? {
                return status.success().then_some(());
            }
            if started.elapsed() > limit {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// Puts what lies at `from` to `to`, and gives the digest of what is there. The bytes are read first: whoever has the file
/// open still, the engine's daemon, writes to another one.
fn taken(from: &Path, to: &Path) -> Option<String> {
    let bytes = platform::read_regular(from, MOST_OBJECT).ok()?;
    objects::place(&bytes, to)?;
    Some(hex::encode(Sha256::digest(&bytes)))
}

/// A command that can travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    argv: Vec<OsString>,
    object: usize,
    depfile: usize,
}

impl Sent {
    /// `argv`, relative to the build folder, if another machine makes the same object by it.
    pub fn of(argv: &[OsString]) -> Option<Self> {
        let words: Vec<&str> = argv.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
        let after = |flag: &str| words.iter().position(|word| *word == flag).map(|at| at + 1);
        let compiler = Path::new(words.first()?).file_name()?.to_str()?;
        let known = ["cc", "c++", "gcc", "g++", "clang", "clang++"]
            .iter()
            .any(|name| compiler == *name || compiler.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')));
        let source = Path::new(words.get(after("-c")?)?).extension()?.to_str()?;
        // Without a target of its own, what ninja is told would name the farm's folder.
        let (object, depfile, _) = (after("-o")?, after("-MF")?, after("-MT")?);
        let stays = words.iter().skip(1).any(|word| STAYS.iter().any(|flag| word.starts_with(flag)));
        let other_language = words.iter().any(|word| *word == "-x" || *word == "-include-pch");
        let fits = known && SOURCES.contains(&source) && !stays && !other_language;
        (fits && object < words.len() && depfile < words.len()).then(|| Self { argv: argv.to_vec(), object, depfile })
    }

    fn argv_at(&self, at: usize) -> &OsString {
        &self.argv[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(words: &str) -> bool {
        Sent::of(&words.split(' ').map(OsString::from).collect::<Vec<_>>()).is_some()
    }

    #[test]
    fn what_means_another_thing_elsewhere_stays() {
        let rest = "-MD -MT a.o -MF a.o.d -o a.o -c ../a.cpp";
        assert!(sent(&format!("/usr/bin/c++ -O2 {rest}")));
        assert!(sent(&format!("/usr/bin/g++-12 -O2 {rest}")));
        for flag in ["-march=native", "--coverage", "@flags", "-x cuda", "-fprofile-use=x", "-gsplit-dwarf"] {
            assert!(!sent(&format!("/usr/bin/c++ {flag} {rest}")), "{flag}");
        }
        assert!(!sent(&format!("/usr/local/cuda/bin/nvcc {rest}")));
        assert!(!sent("c++ -MD -MT a.o -MF a.o.d -o a.o -c ../a.S"));
        assert!(!sent("c++ -MD -MF a.o.d -o a.o -c ../a.cpp"));
        assert!(!sent("c++ -shared -o liba.so a.o"));
        assert!(!sent("c++ -MT a.o -MF a.o.d -c ../a.cpp -o"));
    }

    #[test]
    fn what_is_written_to_the_farms_file_afterwards_is_not_in_the_object() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("1.o"), dir.path().join("a.o"));
        let mut late = std::fs::File::create(&from).unwrap();
        late.write_all(b"object").unwrap();
        assert_eq!(taken(&from, &to).unwrap(), hex::encode(Sha256::digest(b"object")));
        late.write_all(b" and more").unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"object");
        assert!(taken(&dir.path().join("none"), &to).is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_object_is_waited_for_by_what_it_took_before_and_a_farm_that_is_away_has_no_place() {
        let dir = tempfile::tempdir().unwrap();
        let farm = Farm {
            program: "sccache".into(),
            socket: "s".into(),
            folder: dir.path().to_owned(),
            tickets: dir.path().join("tickets"),
            counted: dir.path().join("counted"),
            patience: 30.0,
            expected: BTreeMap::from([("slow.o".to_owned(), 600.0)]),
            asks_cache: true,
        };
        assert_eq!(farm.limit("slow.o").as_secs(), 2430);
        assert_eq!(farm.limit("x.o").as_secs(), 90);
        assert!(farm.ticket().is_none());
        std::fs::write(&farm.tickets, "1\n").unwrap();
        let taken = farm.ticket().unwrap();
        assert!(farm.ticket().is_none());
        drop(taken);
        assert!(farm.ticket().is_some());
    }
}
