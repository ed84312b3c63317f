//! verify: the artifacts are installed and run before they are called done. Real pip, a fresh
//! environment, several processes, nothing set that chooses a store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::buildenv::Buildenv;
use super::bundle::Bundle;
use super::cuda::Cuda;
use super::prefix::{Prefix, compiler_cache};
use super::provenance::Provenance;
use super::testenv::Testenv;
use super::wheel::Wheel;
use crate::error::{Error, Result};
use crate::platform;
use crate::source::unpack;
use crate::stage::build::Build;
use crate::stage::environment;
use crate::stage::step::{Cx, Step};
use crate::stage::work::{CompilerCache, Work};
use crate::store::{Parts, programs};
use crate::toolchain::tch::{BYPASS, CXX11_ABI, Release, TABLE};
use crate::toolchain::{Process, cargo, cuda::Toolkit};

/// The stage that installs and runs the artifacts.
pub struct Verify;

/// The scripts, as they stand in `tests/scenarios`, and the programs that link the bundle, as they stand in
/// `tests/consumers`.
const FILES: &[(&str, &str)] = &[
    ("scripts/smoke.py", include_str!("../../../../tests/scenarios/smoke.py")),
    ("scripts/rendezvous.py", include_str!("../../../../tests/scenarios/rendezvous.py")),
    ("scripts/s2_train.py", include_str!("../../../../tests/scenarios/s2_train.py")),
    ("scripts/s1_train.py", include_str!("../../../../tests/scenarios/s1_train.py")),
    ("consumers/cmake/CMakeLists.txt", include_str!("../../../../tests/consumers/cmake/CMakeLists.txt")),
    ("consumers/cmake/main.cpp", include_str!("../../../../tests/consumers/cmake/main.cpp")),
    ("consumers/tch/Cargo.toml", include_str!("../../../../tests/consumers/tch/Cargo.toml")),
    ("consumers/tch/Cargo.lock", include_str!("../../../../tests/consumers/tch/Cargo.lock")),
    ("tch.toml", TABLE),
    ("consumers/tch/src/main.rs", include_str!("../../../../tests/consumers/tch/src/main.rs")),
];

/// Writes those of [`FILES`] that are below `part` to the folder `to`.
fn write_files(part: &str, to: &Path) -> Result<()> {
    for (name, text) in FILES {
        if let Some(name) = name.strip_prefix(part) {
            let path = to.join(name);
            fs_err::create_dir_all(path.parent().unwrap_or(to))?;
            fs_err::write(&path, text)?;
        }
    }
    Ok(())
}

/// The prefix of the BLAS that a bundle asks for when it is linked.
pub const MKL: &str = "mkl";

/// One check and what it said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, in words.
    pub name: String,
    /// The line of JSON that it printed.
    pub said: serde_json::Value,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// What is kept of verifying: the checks that ran, and those that could not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// In the order that they ran.
    pub checks: Vec<Check>,
    /// Checks that this machine could not run, and why.
    pub skipped: Vec<String>,
}

impl Step for Verify {
    type Record = Record;
    const NAME: &'static str = "verify";
    const WHAT: &'static str = "both are installed and run before they are called done";
    const EMBEDS: &'static [(&'static str, &'static str)] = FILES;

    /// The bytes of both artifacts, what they are held against, and what they run on. Not the key of what made
    /// them: a wheel that comes out with the same bytes again was verified before.
    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        let build = cx.build;
        parts.known_as("python", &build.python.identity(), &build.python.version);
        parts.text("executable", build.python.executable.to_string_lossy());
        parts.known_as("compiler", &build.compiler.identity(), &build.compiler.banner);
        parts.text("version", build.recipe.torch.full_version());
        parts.text("commit", &build.recipe.torch.commit);
        parts.json("tch", &build.recipe.torch.tch);
        for (name, input) in &cx.made::<Provenance>()?.record.digests {
            if name.ends_with(".whl") || name.ends_with(".tar.gz") {
                parts.digest(name, &input.sha256);
            }
        }
        Ok(())
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (wheel, bundle) = (cx.made::<Wheel>()?, cx.made::<Bundle>()?);
        let (wheel, bundle) = (wheel.folder.join(wheel.record.file), bundle.folder.join(bundle.record.file));
        let (out, scratch) = (cx.out()?, cx.scratch()?);
        let part = |name: &str| Trial {
            cx,
            build: cx.build,
            scratch: scratch.clone(),
            log: out.join(format!("{name}.log")),
            record: Record { checks: Vec::new(), skipped: Vec::new() },
        };
        // Installing and importing wait for the disk while the consumers of the bundle compile.
        let (wheel, bundle) =
            rayon::join(|| part("wheel").finish(|v| v.wheel(&wheel)), || part("bundle").finish(|v| v.bundle(&bundle)));
        let (mut record, bundle) = (wheel?, bundle?);
        record.checks.extend(bundle.checks);
        record.skipped.extend(bundle.skipped);
        Ok(record)
    }
}

/// The compiler cache and its environment.
type Cache = (CompilerCache, Vec<(String, String)>);

/// One artifact on trial.
struct Trial<'a> {
    cx: &'a Cx<'a>,
    build: &'a Build<'a>,
    scratch: PathBuf,
    log: PathBuf,
    record: Record,
}

impl Trial<'_> {
    fn finish(mut self, run: impl FnOnce(&mut Self) -> Result<()>) -> Result<Record> {
        run(&mut self)?;
        Ok(self.record)
    }

    fn wheel(&mut self, wheel: &Path) -> Result<()> {
        let env = self.scratch.join("env");
        let (base, torch) = (self.cx.made::<Testenv>()?.folder, environment::TorchFrom::Wheel(wheel));
        environment::with_torch(self.build, &base, &env, &self.scratch, &torch, Some(&self.log))?;
        let scripts = self.scratch.join("scripts");
        write_files("scripts/", &scripts)?;
        let python = environment::python(&env);
        let path = environment::programs(&env).into_iter().chain(platform::system_programs()).collect::<Vec<_>>();
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
                // Of a GPU that this machine happens to have, the wheel may have no code.
                .env("CUDA_VISIBLE_DEVICES", "")
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
        if let Some(found) = said["cxx11_abi"].as_bool()
            && found != self.build.recipe.torch.cxx11_abi
        {
            return Err(Error::world(
                "verify",
                format!(
                    "the wheel says torch._C._GLIBCXX_USE_CXX11_ABI = {found}; the recipe says cxx11-abi = {}",
                    self.build.recipe.torch.cxx11_abi
                ),
            )
            .next("look for _GLIBCXX_USE_CXX11_ABI among the flags that settings and cmake of the recipe give"));
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
        let has_lightning = environment::site_packages(&env, &self.build.python.minor()).join("lightning").is_dir();
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
        write_files("consumers/", &consumers)?;
        self.cmake_consumer(&libtorch, &consumers.join("cmake"), &cache)?;
        self.tch_consumer(&libtorch, &consumers.join("tch"), &cache)
    }

    /// The compiler cache of the build, for the programs that are compiled against it: torch's
    /// headers take a compiler tens of seconds.
    fn compiler_cache(&self) -> Result<Cache> {
        let cache = compiler_cache(self.cx)?;
        let work = Work { dir: self.scratch.clone() };
        fs_err::create_dir_all(work.dir.join("tmp"))?;
        let mut env = cache.env(self.build, &work);
        env.push(("CCACHE_BASEDIR".into(), self.scratch.display().to_string()));
        Ok((cache, env))
    }

    /// The toolkit of a build with CUDA: the bundle's libraries need its libraries.
    fn cuda(&self) -> Result<Option<Toolkit>> {
        Ok(self.cx.made_of::<Cuda>("")?.map(|done| Toolkit { root: done.folder }))
    }

    fn cmake_consumer(&mut self, libtorch: &Path, source: &Path, cache: &Cache) -> Result<()> {
        let buildenv = self.cx.made::<Buildenv>()?.folder;
        let path = self.build.tool_path(&buildenv);
        let base = |program: &Path| {
            Process::new(program)
                .hide(self.build.compiler.hidden())
                .envs(self.build.compiler.environment(source))
                .env("PATH", &path)
                .env("LC_ALL", "C.UTF-8")
                .env("HOME", source)
                .env("CC", &self.build.compiler.cc)
                .env("CXX", &self.build.compiler.cxx)
                .envs(cache.1.iter().cloned())
                .cwd(source)
        };
        let mut configure = base(&environment::tool(&buildenv, "cmake"))
            .args(["-S", ".", "-B", "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"])
            .arg(format!("-DCMAKE_PREFIX_PATH={}", libtorch.display()));
        if let Some(program) = cache.0.program() {
            configure = configure.arg(format!("-DCMAKE_CXX_COMPILER_LAUNCHER={}", program.display()));
        }
        // As in the official archive, a bundle made with MKL asks for MKL's headers when it is used.
        if let Some(mkl) = self.cx.made_of::<Prefix>(MKL)? {
            configure = configure.env("INTEL_MKL_DIR", mkl.folder);
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
        base(&environment::tool(&buildenv, "ninja"))
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
        let tch = Release::named(tch)?;
        let (manifest, lock) = (source.join("Cargo.toml"), source.join("Cargo.lock"));
        let (text, locked) = tch.pin(&fs_err::read_to_string(&manifest)?, &fs_err::read_to_string(&lock)?)?;
        fs_err::write(manifest, text)?;
        fs_err::write(lock, locked)?;
        let Some(cargo) = cargo::process(&self.build.compiler, cache.0.program()) else {
            self.record.skipped.push("tch: cargo is not on PATH".into());
            return Ok(());
        };
        // The crates that tch stands on are the same for every build: compiled once a store. But what tch links is
        // decided when it is compiled, by the libraries that are there then, and cargo does not see them change.
        let backend = if self.build.recipe.cuda.is_some() { "cuda" } else { "cpu" };
        let cxx11_abi = self.build.recipe.torch.cxx11_abi;
        let strings = if cxx11_abi { "" } else { "-pre-cxx11-abi" };
        let consumers = self.build.store.cache("consumers");
        let target = consumers.join(format!("tch-{}-{backend}{strings}", tch.version));
        let _lock = self.build.store.lock("consumers", self.build.events)?;
        // Cargo believes what stands there, and runs it.
        programs::judged(&target, self.build.events)?;
        // Under a name that is the same every time: what a compiler cache remembers has it in it. Not in the folder: it
        // leads elsewhere each time.
        let stable = consumers.join("libtorch");
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
        // tch compiles C++ of its own against the bundle.
        let process = process.env(CXX11_ABI, if cxx11_abi { "1" } else { "0" });
        let bypassed = tch.bypassed(&self.build.recipe.torch.version);
        let process = if bypassed.is_some() { process.env(BYPASS, "1") } else { process };
        let fetch = process.clone().args(["fetch", "--locked", "--quiet"]);
        let fetch = if self.build.options.offline { fetch.arg("--offline") } else { fetch.with_network() };
        if let Err(e) = fetch.check("verify", Some(&self.log)) {
            if self.build.options.offline {
                self.record.skipped.push("tch: --offline, and cargo's cache lacks its crates".into());
                return Ok(());
            }
            return Err(e.doing("fetching the crates of the tch consumer"));
        }
        let built =
            process.clone().args(["build", "--locked", "--offline", "--quiet"]).check("verify", Some(&self.log));
        programs::seal(&target)?;
        built.map_err(|e| e.doing("building a tch program against the bundle"))?;
        let program = Process::new(target.join(format!("debug/consumer{}", std::env::consts::EXE_SUFFIX)))
            .env("LD_LIBRARY_PATH", &search)
            .timeout(Duration::from_secs(60));
        let note = if bypassed.is_some() { ", its version check bypassed" } else { "" };
        self.check(&format!("bundle: tch {} program{note}", tch.version), &program)?;
        Ok(())
    }
}

/// Runs a check and reads the line of JSON that it ends with.
pub(super) fn run_check(build: &Build<'_>, name: &str, process: &Process, log: &Path) -> Result<Check> {
    let output = process.check("verify", Some(log)).map_err(|e| e.doing(format!("the check '{name}'")))?;
    let said = output
        .last_json()
        .ok_or_else(|| Error::world("verify", format!("the check '{name}' ended well but reported nothing")))?;
    build.events.note(format!("verified: {name}"));
    Ok(Check { name: name.to_owned(), said, seconds: output.elapsed.as_secs_f64() })
}
