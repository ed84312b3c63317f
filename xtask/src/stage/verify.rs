//! verify: the artifacts are installed and run before they are called done. Real pip, a fresh
//! environment, several processes, nothing set that chooses a store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::driver::Files;
use super::provenance::name_of;
use super::{Build, CompilerCache, Work, cuda, fetch, prefix, pyenv};
use crate::error::{Error, Result};
use crate::platform;
use crate::source::unpack;
use crate::store::{Key, KeyBuilder};
use crate::toolchain::{Process, cargo, cuda::Toolkit};

/// Name in events and in the store.
pub const STAGE: &str = "verify";
const VERSION: u32 = 2;

/// The scripts, as they stand in `tests/scenarios`.
const SCRIPTS: &[(&str, &str)] = &[
    ("smoke.py", include_str!("../../../tests/scenarios/smoke.py")),
    ("rendezvous.py", include_str!("../../../tests/scenarios/rendezvous.py")),
    ("s2_train.py", include_str!("../../../tests/scenarios/s2_train.py")),
    ("s1_train.py", include_str!("../../../tests/scenarios/s1_train.py")),
];
/// The programs that link the bundle, as they stand in `tests/consumers`.
const CONSUMERS: &[(&str, &str)] = &[
    ("cmake/CMakeLists.txt", include_str!("../../../tests/consumers/cmake/CMakeLists.txt")),
    ("cmake/main.cpp", include_str!("../../../tests/consumers/cmake/main.cpp")),
    ("tch/Cargo.toml", include_str!("../../../tests/consumers/tch/Cargo.toml")),
    ("tch/Cargo.lock", include_str!("../../../tests/consumers/tch/Cargo.lock")),
    ("tch/src/main.rs", include_str!("../../../tests/consumers/tch/src/main.rs")),
];

/// The prefix of the BLAS that a bundle asks for when it is linked.
const MKL: &str = "mkl";

/// One check and what it said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// Name.
    pub name: String,
    /// The line of JSON that it printed.
    pub said: serde_json::Value,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// All checks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// In the order that they ran.
    pub checks: Vec<Check>,
    /// Checks that this machine could not run, and why.
    pub skipped: Vec<String>,
}

/// The key: the bytes of both artifacts, what they are held against, and what they run on. Not the key
/// of what made them: a wheel that comes out with the same bytes again was verified before.
pub fn key(build: &Build<'_>, files: &Files) -> Result<Key> {
    let mut key = KeyBuilder::new(STAGE, VERSION)
        .text("python", &build.python.identity())
        .text("executable", &build.python.executable.to_string_lossy())
        .text("compiler", &build.compiler.identity())
        .key("pyenv", &pyenv::key(build)?)
        .key("mkl", &prefix::key(build, MKL))
        .text("version", &build.recipe.torch.full_version())
        .text("commit", &build.recipe.torch.commit)
        .json("scripts", &SCRIPTS)
        .json("consumers", &CONSUMERS)
        .json("tch", &build.recipe.torch.tch);
    for file in [&files.wheel, &files.bundle] {
        let name = name_of(file);
        let digest = files.record.digests.get(&name).ok_or_else(|| {
            Error::world("store", format!("the record of the stage 'provenance' has no digest of {name}"))
        })?;
        key = key.text(&name, &digest.sha256);
    }
    for wheel in &fetch::python_lock(build)?.verify {
        key = key.text("wheel", &wheel.sha256);
    }
    Ok(key.finish())
}

/// Verifies wheel and bundle, or finds in the store that it was done.
pub fn run(build: &Build<'_>, files: &Files) -> Result<Record> {
    let key = key(build, files)?;
    let (wheel, bundle) = (files.wheel.as_path(), files.bundle.as_path());
    build.stage(STAGE, &key, |pending| {
        // Everything that a check needs from outside is there before its network is cut.
        fetch::run(build, false)?;
        let scratch = pending.scratch()?;
        let part = |name: &str| Verify {
            build,
            scratch: scratch.clone(),
            log: pending.out().join(format!("{name}.log")),
            record: Record { checks: Vec::new(), skipped: Vec::new() },
        };
        // Installing and importing wait for the disk while the consumers of the bundle compile.
        let (wheel, bundle) =
            rayon::join(|| part("wheel").finish(|v| v.wheel(wheel)), || part("bundle").finish(|v| v.bundle(bundle)));
        let (mut record, bundle) = (wheel?, bundle?);
        record.checks.extend(bundle.checks);
        record.skipped.extend(bundle.skipped);
        Ok(record)
    })?;
    build.store.record(STAGE, &key).ok_or_else(|| Error::world("store", "the record of verify cannot be read"))
}

/// The compiler cache and its environment.
type Cache = (CompilerCache, Vec<(String, String)>);

struct Verify<'a> {
    build: &'a Build<'a>,
    scratch: PathBuf,
    log: PathBuf,
    record: Record,
}

impl Verify<'_> {
    fn finish(mut self, run: impl FnOnce(&mut Self) -> Result<()>) -> Result<Record> {
        run(&mut self)?;
        Ok(self.record)
    }

    fn wheel(&mut self, wheel: &Path) -> Result<()> {
        let env = self.scratch.join("env");
        pyenv::with_torch(self.build, &env, &self.scratch, &pyenv::TorchFrom::Wheel(wheel), Some(&self.log))?;
        let scripts = self.scratch.join("scripts");
        fs_err::create_dir_all(&scripts)?;
        for (name, text) in SCRIPTS {
            fs_err::write(scripts.join(name), text)?;
        }
        let python = pyenv::python(&env);
        let path = pyenv::programs(&env).into_iter().chain(platform::system_programs()).collect::<Vec<_>>();
        let path = std::env::join_paths(path).unwrap_or_default();
        let script = |name: &str| scripts.join(name);
        let run = |args: &[&std::ffi::OsStr]| {
            Process::new(&python)
                .args(args)
                .env("PATH", &path)
                .envs(platform::own_variables(&scripts))
                .env("HOME", &scripts)
                .env("LC_ALL", "C.UTF-8")
                .env("OMP_NUM_THREADS", "1")
                .cwd(&scripts)
                .timeout(Duration::from_secs(300))
        };
        let said = self.check("wheel: version, store, operators", &run(&[script("smoke.py").as_os_str()]))?;
        let expected = self.build.recipe.torch.full_version();
        if said["version"] != expected.as_str() || said["git_version"] != self.build.recipe.torch.commit.as_str() {
            return Err(Error::world(
                "verify",
                format!(
                    "the wheel says that it is {} at {}; the recipe says {expected} at {}",
                    said["version"], said["git_version"], self.build.recipe.torch.commit
                ),
            ));
        }
        let torchrun: Vec<&std::ffi::OsStr> =
            ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29531"]
                .iter()
                .map(std::ffi::OsStr::new)
                .collect();
        let rendezvous = script("rendezvous.py");
        let mut checks = vec![
            ("wheel: 2 ranks, gloo, env://, nothing set", run(&[rendezvous.as_os_str()])),
            ("wheel: torchrun, 2 processes", run(&[&torchrun[..], &[rendezvous.as_os_str()]].concat())),
            ("scenario: s2_train (mp.spawn, DDP)", run(&[script("s2_train.py").as_os_str()])),
        ];
        let has_lightning = pyenv::site_packages(&env, &self.build.python.minor()).join("lightning").is_dir();
        if has_lightning {
            checks.push(("scenario: s1_train (Lightning, DDPStrategy)", run(&[script("s1_train.py").as_os_str()])));
        } else {
            self.record.skipped.push("s1_train: the recipe's python.verify has no lightning".into());
        }
        for (name, said) in self.check_all(&checks)? {
            if said["libuv"] != true {
                return Err(Error::world("verify", format!("the check '{name}' ran, but not on libuv: {said}")));
            }
        }
        Ok(())
    }

    /// Runs checks, side by side where each has a network of its own (their ports are fixed), and
    /// returns what they said.
    fn check_all<'n>(&mut self, checks: &[(&'n str, Process)]) -> Result<Vec<(&'n str, serde_json::Value)>> {
        let (build, log) = (self.build, &self.log);
        let one = |i: usize| {
            let (name, process) = &checks[i];
            // A log each: the lines of programs that run at one time would mix.
            run_check(build, name, process, &log.with_extension(format!("{i}.log")))
        };
        let done: Vec<Check> = if platform::sandbox_supported() {
            (0..checks.len()).into_par_iter().map(one).collect::<Result<_>>()?
        } else {
            (0..checks.len()).map(one).collect::<Result<_>>()?
        };
        let said = checks.iter().zip(&done).map(|((name, _), check)| (*name, check.said.clone())).collect();
        self.record.checks.extend(done);
        Ok(said)
    }

    /// Runs one check and returns what it said.
    fn check(&mut self, name: &str, process: &Process) -> Result<serde_json::Value> {
        let check = run_check(self.build, name, process, &self.log)?;
        let said = check.said.clone();
        self.record.checks.push(check);
        Ok(said)
    }

    fn bundle(&mut self, bundle: &Path) -> Result<()> {
        let root = self.scratch.join("bundle");
        let bounds = unpack::Bounds { bytes: 64 << 30, members: 1 << 20 };
        unpack::unpack(bundle, "the bundle", &[unpack::Target::all(&root)], bounds, self.build.recipe.torch.epoch)?;
        let libtorch = root.join("libtorch");
        let cache = self.compiler_cache()?;
        let consumers = self.scratch.join("consumers");
        for (name, text) in CONSUMERS {
            let path = consumers.join(name);
            fs_err::create_dir_all(path.parent().unwrap_or(&consumers))?;
            fs_err::write(&path, text)?;
        }
        self.cmake_consumer(&libtorch, &consumers.join("cmake"), &cache)?;
        self.tch_consumer(&libtorch, &consumers.join("tch"), &cache)
    }

    /// The compiler cache of the build, for the programs that are compiled against it: torch's
    /// headers take a compiler tens of seconds.
    fn compiler_cache(&self) -> Result<Cache> {
        let cache = CompilerCache::choose(self.build, &pyenv::run(self.build)?, &prefix::run(self.build)?);
        let work = Work { dir: self.scratch.clone() };
        fs_err::create_dir_all(work.dir.join("tmp"))?;
        let mut env = cache.env(self.build, &work);
        env.push(("CCACHE_BASEDIR".into(), self.scratch.display().to_string()));
        Ok((cache, env))
    }

    /// The toolkit of a build with CUDA: the bundle's libraries need its libraries.
    fn cuda(&self) -> Result<Option<Toolkit>> {
        if self.build.recipe.cuda.is_none() {
            return Ok(None);
        }
        Ok(Some(Toolkit { root: cuda::run(self.build)? }))
    }

    fn cmake_consumer(&mut self, libtorch: &Path, source: &Path, cache: &Cache) -> Result<()> {
        let pyenv = pyenv::run(self.build)?;
        let path = self.build.tool_path(&pyenv);
        let base = |program: &Path| {
            Process::new(program)
                .envs(self.build.compiler.environment(source))
                .env("PATH", &path)
                .env("LC_ALL", "C.UTF-8")
                .env("HOME", source)
                .env("CC", &self.build.compiler.cc)
                .env("CXX", &self.build.compiler.cxx)
                .envs(cache.1.iter().cloned())
                .cwd(source)
        };
        let mut configure = base(&pyenv::tool(&pyenv, "cmake"))
            .args(["-S", ".", "-B", "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"])
            .arg(format!("-DCMAKE_PREFIX_PATH={}", libtorch.display()));
        if let Some(program) = cache.0.program() {
            configure = configure.arg(format!("-DCMAKE_CXX_COMPILER_LAUNCHER={}", program.display()));
        }
        // As in the official archive, a bundle made with MKL asks for MKL's headers when it is used.
        if let Some(mkl) = self.build.store.finished(prefix::STAGE, &prefix::key(self.build, MKL)) {
            configure = configure.env("INTEL_MKL_DIR", mkl);
        }
        // A bundle with CUDA looks for the toolkit that it was made with.
        let cuda = self.cuda()?;
        if let Some(toolkit) = &cuda {
            configure = configure
                .envs(self.build.recipe.cuda.iter().flat_map(|c| self.build.cuda_env(c, &toolkit.root)))
                .arg(format!("-DCUDA_TOOLKIT_ROOT_DIR={}", toolkit.root.display()));
        }
        configure
            .check("verify", Some(&self.log))
            .map_err(|e| e.doing("configuring a CMake project with find_package(Torch)"))?;
        base(&pyenv::tool(&pyenv, "ninja"))
            .args(["-C", "build"])
            .check("verify", Some(&self.log))
            .map_err(|e| e.doing("building a CMake project against the bundle"))?;
        let mut program = base(&source.join(format!("build/consumer{}", std::env::consts::EXE_SUFFIX)))
            .timeout(Duration::from_secs(60));
        if let Some(toolkit) = &cuda {
            program = program.env("LD_LIBRARY_PATH", toolkit.libraries());
        }
        self.check("bundle: CMake consumer (find_package)", &program)?;
        Ok(())
    }

    fn tch_consumer(&mut self, libtorch: &Path, source: &Path, cache: &Cache) -> Result<()> {
        let Some(tch) = &self.build.recipe.torch.tch else {
            self.record.skipped.push("tch: the recipe names no version of tch that fits".into());
            return Ok(());
        };
        let manifest = fs_err::read_to_string(source.join("Cargo.toml"))?;
        if !manifest.contains(&format!("\"={tch}\"")) {
            self.record.skipped.push(format!("tch: the consumer in tests/consumers is for another version than {tch}"));
            return Ok(());
        }
        let Some(cargo) = cargo::process(&self.build.compiler, cache.0.program()) else {
            self.record.skipped.push("tch: cargo is not on PATH".into());
            return Ok(());
        };
        // The crates that tch stands on are the same for every build: compiled once a store. But what tch links is
        // decided when it is compiled, by the libraries that are there then, and cargo does not see them change.
        let backend = if self.build.recipe.cuda.is_some() { "cuda" } else { "cpu" };
        let target = self.build.store.cache("consumers").join(format!("tch-{tch}-{backend}"));
        let _lock = self.build.store.lock("consumers", self.build.events)?;
        // Under a name that is the same every time: what a compiler cache remembers has it in it.
        let stable = target.join("libtorch");
        fs_err::create_dir_all(&target)?;
        if stable.symlink_metadata().is_ok() {
            platform::remove_link(&stable)?;
        }
        platform::symlink(libtorch, &stable)?;
        let mut search = vec![libtorch.join("lib")];
        search.extend(self.cuda()?.map(|toolkit| toolkit.libraries()));
        let search = std::env::join_paths(&search)
            .map_err(|e| Error::world("verify", format!("a folder's name has a colon: {e}")))?;
        // The linker follows what libraries need with the loader's variable.
        let process = cargo.env("LD_LIBRARY_PATH", &search);
        let process =
            process.cwd(source).env("LIBTORCH", &stable).env("CARGO_TARGET_DIR", &target).envs(cache.1.iter().cloned());
        let fetch = process.clone().args(["fetch", "--locked", "--quiet"]);
        let fetch = if self.build.options.offline { fetch.arg("--offline") } else { fetch.with_network() };
        if let Err(e) = fetch.check("verify", Some(&self.log)) {
            if self.build.options.offline {
                self.record.skipped.push("tch: --offline, and cargo's cache lacks its crates".into());
                return Ok(());
            }
            return Err(e.doing("fetching the crates of the tch consumer"));
        }
        process
            .clone()
            .args(["build", "--locked", "--offline", "--quiet"])
            .check("verify", Some(&self.log))
            .map_err(|e| e.doing("building a tch program against the bundle"))?;
        let program = Process::new(target.join(format!("debug/consumer{}", std::env::consts::EXE_SUFFIX)))
            .env("LD_LIBRARY_PATH", &search)
            .timeout(Duration::from_secs(60));
        self.check(&format!("bundle: tch {tch} program"), &program)?;
        Ok(())
    }
}

/// Runs a check and reads the line of JSON that it ends with.
fn run_check(build: &Build<'_>, name: &str, process: &Process, log: &Path) -> Result<Check> {
    let output = process.check("verify", Some(log)).map_err(|e| e.doing(format!("the check '{name}'")))?;
    let said = output
        .last_json()
        .ok_or_else(|| Error::world("verify", format!("the check '{name}' ended well but reported nothing")))?;
    build.events.note(format!("verified: {name}"));
    Ok(Check { name: name.to_owned(), said, seconds: output.elapsed.as_secs_f64() })
}
