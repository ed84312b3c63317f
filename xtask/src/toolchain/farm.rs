//! Compiles on other machines: which commands can travel, and how the launcher hands one to the farm's engine (sccache).
//! Of nvcc's commands each step travels by itself ([`super::nvcc`]).
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
use super::nvcc::Nvcc;
use super::objects;
use crate::platform;

/// Names the file with the [`Farm`] of a build to its launchers.
pub const FARM_VARIABLE: &str = "TORCHMILL_FARM";

/// Seconds that an object of which nothing is known is taken to need, and a step of nvcc's.
const UNKNOWN: [u32; 2] = [15, 120];
/// An object may take this many times what it took last, before it is compiled here.
const SLOWER: f64 = 4.0;

/// MiB of memory that a worker has for each place: what needs more takes several.
pub const MEMORY_PER_PLACE: u64 = 1536;

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

/// Words of cicc's commands after which what it makes names the folder that it ran in, or it makes what it otherwise reads.
const STAYS_OF_CICC: [&str; 4] = ["-g", "-lineinfo", "-generate-line-info", "--gen_module_id_file"];

/// What cicc writes beside its output, by the words before the names.
const WRITES_OF_CICC: [&str; 3] = ["--gen_c_file_name", "--stub_file_name", "--gen_device_file_name"];

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
    /// The nvcc whose steps travel, if there is one.
    pub nvcc: Option<Nvcc>,
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

    /// A place for what needs `memory` MiB, if the farm has one: as many of its places as have that much.
    pub fn ticket(&self, memory: u64) -> Option<Admitted> {
        let threads = self.open();
        if threads == 0 {
            return None;
        }
        let places = u32::try_from(memory.div_ceil(MEMORY_PER_PLACE)).unwrap_or(threads).clamp(1, threads);
        let rules = Rules { memory: u64::MAX, threads, folder: self.counted.clone(), ..Rules::default() };
        rules.try_enter(Need { memory: 0, threads: places }).ok().flatten()
    }

    /// How long `output` is waited for, or a part of it, which takes `usual` seconds if nobody knows better.
    fn limit(&self, output: &str, usual: u32) -> Duration {
        let expected = self.expected.get(output).copied().unwrap_or(f64::from(usual));
        Duration::from_secs_f64((expected * SLOWER + self.patience).clamp(1.0, 6.0 * 3600.0))
    }

    /// Runs what can travel on the farm, for the object `output`, and puts what it writes in place: the SHA-256 of the last
    /// of its files. `None` if that was not done within the time that it may take: why it was not, a compile here finds out.
    pub fn compile(&self, sent: &Sent, output: &str) -> Option<String> {
        let out = self.folder.join("out");
        // Whose answer is late writes to a name that nobody else has: a process' number comes again.
        let name = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        let own = |ending: &str| out.join(format!("{name}.{ending}"));
        let said = own("said");
        let mut argv = sent.argv.clone();
        let mut files = Vec::new();
        for at in &sent.writes {
            let place = Path::new(&sent.argv[*at]);
            let file = own(place.file_name()?.to_str()?);
            argv[*at] = file.clone().into();
            files.push((file, place));
        }
        let done = self.run(&argv, &said, self.limit(output, sent.usual)).and_then(|()| {
            let mut digest = None;
            for (file, place) in &files {
                digest = Some(taken(file, place)?);
            }
            // What the compiler had to say.
            std::io::copy(&mut std::fs::File::open(&said).ok()?, &mut std::io::stderr()).ok()?;
            digest
        });
        for file in files.iter().map(|(file, _)| file).chain([&said]) {
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
            // The one that there is on a worker, too.
            .env("TMPDIR", "/tmp")
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
    /// Which of its words name what it writes.
    writes: Vec<usize>,
    /// Seconds that it is taken to need if nobody knows better.
    usual: u32,
}

impl Sent {
    /// `argv`, relative to the build folder, if another machine makes the same object by it.
    pub fn of(argv: &[OsString]) -> Option<Self> {
        let words = words(argv)?;
        let after = |flag: &str| words.iter().position(|word| *word == flag).map(|at| at + 1);
        let source = Path::new(words.get(after("-c")?)?).extension()?.to_str()?;
        // Without a target of its own, what ninja is told would name the farm's folder.
        let (object, depfile, _) = (after("-o")?, after("-MF")?, after("-MT")?);
        let other_language = words.iter().any(|word| *word == "-x" || *word == "-include-pch");
        let fits = is_compiler(&words) && SOURCES.contains(&source) && !stays(&words) && !other_language;
        (fits && object < words.len() && depfile < words.len()).then(|| Self {
            argv: argv.to_vec(),
            writes: vec![depfile, object],
            usual: UNKNOWN[0],
        })
    }

    /// `argv`, a step of nvcc's in the build folder, if another machine makes the same by it: cicc, ptxas, or the host
    /// compiler of what cudafe++ wrote. What they read, the engine sends along: the input, which it takes to be the third
    /// word from the end, and the module's name.
    pub fn of_step(argv: &[OsString]) -> Option<Self> {
        let words = words(argv)?;
        let [program, rest @ .., input, "-o", _] = &words[..] else { return None };
        let output = words.len() - 1;
        let after = |flag: &&str| rest.iter().position(|word| word == flag).map(|at| at + 2);
        // Of two words in a row that are no flags, the engine leaves the second out.
        let is_read = ["-x"].iter().chain(rest).zip(rest).all(|(a, b)| a.starts_with('-') || b.starts_with('-'));
        let writes = match Path::new(program).file_name()?.to_str()? {
            "cicc" if input.ends_with(".cpp1.ii") && is_read => {
                if rest.iter().any(|word| STAYS_OF_CICC.contains(word)) {
                    return None;
                }
                WRITES_OF_CICC.iter().map(after).chain([Some(output)]).collect::<Option<Vec<_>>>()?
            }
            "ptxas" if input.ends_with(".ptx") && is_read => vec![output],
            _ if input.ends_with(".cudafe1.cpp") && is_compiler(&words) && rest.contains(&"-c") => vec![output],
            _ => return None,
        };
        (!stays(&words)).then(|| Self { argv: argv.to_vec(), writes, usual: UNKNOWN[1] })
    }
}

/// The words of a command, if they are text.
fn words(argv: &[OsString]) -> Option<Vec<&str>> {
    argv.iter().map(|word| word.to_str()).collect()
}

/// Whether a command is one of GCC or Clang.
fn is_compiler(words: &[&str]) -> bool {
    let name = words.first().and_then(|program| Path::new(program).file_name()?.to_str());
    name.is_some_and(|name| {
        ["cc", "c++", "gcc", "g++", "clang", "clang++"]
            .iter()
            .any(|known| name == *known || name.strip_prefix(known).is_some_and(|rest| rest.starts_with('-')))
    })
}

/// Whether a command has a flag that keeps it here.
fn stays(words: &[&str]) -> bool {
    words.iter().skip(1).any(|word| STAYS.iter().any(|flag| word.starts_with(flag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &str) -> Vec<OsString> {
        shlex::split(words).unwrap().into_iter().map(OsString::from).collect()
    }

    fn sent(words: &str) -> bool {
        Sent::of(&argv(words)).is_some()
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
            nvcc: None,
        };
        let seconds = |output, usual: u32| farm.limit(output, usual).as_secs();
        assert_eq!([seconds("slow.o", UNKNOWN[0]), seconds("slow.o", UNKNOWN[1])], [2430, 2430]);
        assert_eq!([seconds("x.o", UNKNOWN[0]), seconds("x.o", UNKNOWN[1])], [90, 510]);
        assert!(farm.ticket(700).is_none());
        std::fs::write(&farm.tickets, "1\n").unwrap();
        let taken = farm.ticket(700).unwrap();
        assert!(farm.ticket(700).is_none());
        drop(taken);
        // What needs the memory of four places takes four, or all that there are.
        assert!(farm.ticket(6000).is_some());
        std::fs::write(&farm.tickets, "5\n").unwrap();
        let taken = [farm.ticket(6000).unwrap(), farm.ticket(700).unwrap()];
        assert!(farm.ticket(700).is_none());
        drop(taken);
    }

    /// What `nvcc --dryrun --objdir-as-tempdir` of CUDA 13.0 prints for one object and one architecture.
    const DRYRUN: &str = r#"
"/usr/bin"/c++ -std=c++20 -D__CUDA_ARCH__=900 -D__CUDA_ARCH_LIST__=900 -E -x c++ -D__CUDACC__ -D__NVCC__ -fPIC -O3 -I"../src" "-I/w/deps/cuda/bin/..//include" -isystem "../third" -D "NAME="x"" -include "cuda_runtime.h" -m64 "../src/a.cu" -o "x/a.cu.o.cpp1.ii"
"/usr/bin"/c++ -std=c++20 -D__CUDA_ARCH_LIST__=900 -E -x c++ -D__CUDACC__ -D__NVCC__ -fPIC -O3 -include "cuda_runtime.h" -m64 "../src/a.cu" -o "x/a.cu.o.cpp4.ii"
cudafe++ --c++20 --static-host-stub --device-hidden-visibility --gnu_version=120200 --display_error_number --orig_src_file_name "../src/a.cu" --orig_src_path_name "/w/src/a.cu" --allow_managed --m64 --parse_templates --gen_c_file_name "x/a.cu.o.cudafe1.cpp" --stub_file_name "a.cu.o.cudafe1.stub.c" --gen_module_id_file --module_id_file_name "x/a.cu.o.module_id" "x/a.cu.o.cpp4.ii"
/w/nvvm/bin/cicc --c++20 --static-host-stub --device-hidden-visibility --gnu_version=120200 --display_error_number --orig_src_file_name "../src/a.cu" --orig_src_path_name "/w/src/a.cu" --allow_managed -arch compute_90 -m64 --no-version-ident -ftz=0 -prec_div=1 -prec_sqrt=1 -fmad=1 --include_file_name "a.cu.o.fatbin.c" -tused --module_id_file_name "x/a.cu.o.module_id" --gen_c_file_name "x/a.cu.o.cudafe1.c" --stub_file_name "x/a.cu.o.cudafe1.stub.c" --gen_device_file_name "x/a.cu.o.cudafe1.gpu"  "x/a.cu.o.cpp1.ii" -o "x/a.cu.o.ptx"
/w/bin/ptxas -arch=sm_90 -m64  "x/a.cu.o.ptx"  -o "x/a.cu.o.cubin"
fatbinary --create="x/a.cu.o.fatbin" -64 --cicc-cmdline="-ftz=0 -prec_div=1 " "--image3=kind=elf,sm=90,file=x/a.cu.o.cubin" --embedded-fatbin="x/a.cu.o.fatbin.c"
"/usr/bin"/c++ -std=c++20 -D__CUDA_ARCH__=900 -D__CUDA_ARCH_LIST__=900 -c -x c++  -DCUDA_DOUBLE_MATH_FUNCTIONS -fPIC -O3 -Wno-psabi -I"../src" "-I/w/deps/cuda/bin/..//include" -isystem "../third" -m64 "x/a.cu.o.cudafe1.cpp" -o "x/a.cu.o"
"#;

    /// The files that a step writes, if it travels.
    fn writes(line: &str) -> Option<Vec<String>> {
        let sent = Sent::of_step(&argv(line))?;
        Some(sent.writes.iter().map(|at| sent.argv[*at].to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn of_nvccs_steps_those_travel_that_compile_what_others_preprocessed() {
        let of: Vec<Option<Vec<String>>> = DRYRUN.trim().lines().map(writes).collect();
        let files = |endings: &[&str]| Some(endings.iter().map(|e| format!("x/a.cu.o{e}")).collect::<Vec<_>>());
        let cicc = files(&[".cudafe1.c", ".cudafe1.stub.c", ".cudafe1.gpu", ".ptx"]);
        assert_eq!(of, [None, None, None, cicc, files(&[".cubin"]), None, files(&[""])]);
        let lines: Vec<&str> = DRYRUN.trim().lines().collect();
        let (cicc, host) = (lines[3], lines[6]);
        // With the name of the source that nvcc is told, where it hands on such words.
        let named = cicc.replace("--allow_managed", "--allow_managed --orig_src_path_name=../src/a.cu");
        assert_ne!(named, cicc);
        assert_eq!(writes(&named), of[3]);
        for (from, to) in [
            // What names the folder that it ran in, and what makes the module's name itself, as before 12.8.
            ("-tused", "-tused -generate-line-info"),
            ("-tused", "-tused -g"),
            ("--module_id", "--gen_module_id_file --module_id"),
            // What the engine would leave out.
            ("-tused", "-arch=x stray word"),
            // It does not write all that nvcc goes on with.
            ("--gen_device_file_name \"x/a.cu.o.cudafe1.gpu\"", ""),
            ("x/a.cu.o.cpp1.ii", "x/a.cu.o.cpp4.ii"),
        ] {
            assert!(cicc.contains(from));
            assert_eq!(writes(&cicc.replace(from, to)), None, "{to}");
        }
        assert_eq!(writes(&host.replace("-O3", "-march=native")), None);
        assert_eq!(writes(&host.replace("-c -x", "-E -x")), None);
        assert!(DRYRUN.trim().lines().all(|line| !sent(line)));
    }
}
