//! The work folder: where configure, canary and compile happen, kept between runs so that a build
//! goes on where it stopped.
//!
//! ```text
//! WORK/
//!   src/            the tree, a copy of its own; PyTorch builds inside it (src/build)
//!   deps/NAME       links to the environment and the prefixes: the build sees only paths in WORK
//!   bin/            this program, as the compiler launcher
//!   *.json          what is done
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Once;

pub mod cache;
pub mod ninja;
pub mod pieces;
pub mod remote;
pub mod room;

pub use cache::CompilerCache;

use super::build::{Build, CUDA};
use super::environment;
use crate::error::{Context, Error, Result};
use crate::platform;
use crate::recipe::Cuda;
use crate::store::{Key, Parts, read_if_there};
use crate::toolchain::{Process, cuda::Toolkit, nvcc};

/// What the folders' names begin with.
pub const FOLDER: &str = "torch";

/// The folder that a build is configured and compiled in: the one place that is not under a key, so that a compile can
/// go on where it was stopped.
#[derive(Debug, Clone)]
pub struct Work {
    /// Path of the folder; it need not be there.
    pub dir: PathBuf,
}

impl Work {
    /// The work folder of the build with this configure key: where it is, or would be.
    pub fn of(build: &Build<'_>, configured: &Key) -> Self {
        Self { dir: build.store.work(FOLDER, configured) }
    }

    /// The configure key in short: what tells work folders apart.
    pub fn name(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_prefix(FOLDER).map_or(name.clone(), |key| key.trim_start_matches('-').to_owned())
    }

    /// The source tree that is compiled.
    pub fn src(&self) -> PathBuf {
        self.dir.join("src")
    }

    /// CMake's build folder: setup.py has it inside the tree.
    pub fn build(&self) -> PathBuf {
        self.dir.join("src/build")
    }

    /// A dependency, by name.
    pub fn dep(&self, name: &str) -> PathBuf {
        self.dir.join("deps").join(name)
    }

    /// The full log of `stage`.
    pub fn log(&self, stage: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{stage}.log"))
    }

    /// The file with the inputs that `step` was done with.
    pub fn parts_file(step: &str) -> String {
        format!("{step}.parts.json")
    }

    /// The file with the record of `step`.
    pub fn record_file(step: &str) -> String {
        format!("{step}.json")
    }

    /// The record of `step`, if it was done here under this key.
    ///
    /// # Errors
    /// The world: what is noted of it is there and cannot be read.
    pub fn done(&self, step: &str, key: &Key) -> Result<Option<serde_json::Value>> {
        let read = |file: String| read_if_there(&self.dir.join(file));
        let parts = read(Self::parts_file(step))?.and_then(|text| serde_json::from_slice::<Parts>(&text).ok());
        if parts.is_none_or(|parts| parts.key() != *key) {
            return Ok(None);
        }
        Ok(read(Self::record_file(step))?.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Forgets that `step` was ever done here: it is about to be done with other inputs, or again.
    ///
    /// # Errors
    /// The world: the folder cannot be written.
    pub fn begin(&self, step: &str) -> Result<()> {
        fs_err::create_dir_all(&self.dir)?;
        let record = self.dir.join(Self::record_file(step));
        if record.exists() {
            fs_err::remove_file(record)?;
        }
        Ok(())
    }

    /// Notes that `step` is done, with these inputs.
    ///
    /// # Errors
    /// The world: the folder cannot be written.
    pub fn finish(&self, step: &str, parts: &Parts, record: &serde_json::Value) -> Result<()> {
        let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|e| Error::world("record", e.to_string()));
        crate::store::write_atomically(
            &self.dir.join(Self::parts_file(step)),
            &json(serde_json::to_vec_pretty(parts))?,
        )?;
        crate::store::write_atomically(
            &self.dir.join(Self::record_file(step)),
            &json(serde_json::to_vec_pretty(record))?,
        )
    }

    /// Links `deps/NAME` to `target`. A run that finds nothing to do here waits for nobody, and another one may be
    /// compiling: it finds the link at every moment, the one that was there or this one.
    ///
    /// # Errors
    /// The world: it cannot be made, or what stands there cannot be replaced.
    pub fn link(&self, name: &str, target: &Path) -> Result<()> {
        let link = self.dep(name);
        if fs_err::read_link(&link).is_ok_and(|t| t == target) {
            return Ok(());
        }
        fs_err::create_dir_all(self.dir.join("deps"))?;
        let beside = beside(&link)?;
        let fresh = beside.path().join("link");
        platform::symlink(target, &fresh)?;
        // There, a link to a folder takes the place of no other one.
        if cfg!(windows) && link.symlink_metadata().is_ok() {
            platform::remove_link(&link)?;
        }
        platform::rename(&fresh, &link)
    }

    /// Where sccache's server listens. A socket's path has at most 107 bytes on Linux (unix(7)) and
    /// 103 on macOS; a longer work folder gets one in the temporary folder.
    pub fn socket(&self) -> PathBuf {
        let here = self.dir.join("sccache.sock");
        if here.as_os_str().len() <= 100 {
            return here;
        }
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let store = crate::store::KeyBuilder::new("socket", 1).text("work", &self.dir.to_string_lossy()).finish();
        std::env::temp_dir().join(format!("{name}-{}.sock", &store.short()[..8]))
    }

    /// What ninja says of the build, with these arguments.
    ///
    /// # Errors
    /// ninja cannot be run, or fails.
    pub fn ask_ninja(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let out = Process::new(environment::tool(&self.dep("buildenv"), "ninja"))
            .args(arguments)
            .cwd(self.build())
            .command()?
            .output()?;
        if out.status.success() {
            return Ok(out.stdout);
        }
        let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        Err(Error::world("ninja", format!("ninja {} ended with {}: {said}", arguments.join(" "), out.status)))
    }

    /// This program, as the compiler launcher.
    pub fn launcher(&self) -> PathBuf {
        self.dir.join("bin").join(format!("torchmill{}", std::env::consts::EXE_SUFFIX))
    }

    /// Puts this program at `bin/`, so that the build's commands name a path that stays.
    ///
    /// # Errors
    /// The world: this program's own file cannot be found, or neither linked nor copied.
    pub fn install_launcher(&self) -> Result<PathBuf> {
        let path = self.launcher();
        let me = platform::own_program()?;
        fs_err::create_dir_all(self.dir.join("bin"))?;
        if same_file(&me, &path) {
            return Ok(path);
        }
        // In a folder of its own: under the number of this process, a link to another program may stand there still. One is
        // left by every rename that does nothing, and containers count their processes each for itself.
        let beside = beside(&path)?;
        let fresh = beside.path().join("program");
        // A link where it can be: a running launcher keeps its file.
        if fs_err::hard_link(&me, &fresh).is_err() {
            fs_err::copy(&me, &fresh)?;
            platform::mark_executable(&fresh, true)?;
        }
        platform::rename(&fresh, &path)?;
        Ok(path)
    }
}

/// A folder of this run's own beside `path`, for what is about to take its place.
fn beside(path: &Path) -> Result<tempfile::TempDir> {
    let folder = path.parent().unwrap_or(path);
    tempfile::Builder::new().prefix(".new-").tempdir_in(folder).doing(|| format!("writing {}", path.display()))
}

/// Whether two paths are one file. Renaming a link over another one to the same file does nothing
/// (POSIX rename), so it must be known.
fn same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        match (std::fs::metadata(a), std::fs::metadata(b)) {
            (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = (a, b);
        false
    }
}

impl Build<'_> {
    /// PATH of everything that is built: the environment's tools, the compilers, the system.
    pub(crate) fn tool_path(&self, buildenv: &Path) -> String {
        let mut dirs = environment::programs(buildenv);
        dirs.extend(self.compiler.folders());
        dirs.extend(platform::system_programs());
        let mut seen = std::collections::HashSet::new();
        dirs.retain(|d| seen.insert(d.clone()));
        std::env::join_paths(dirs).unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Warns, once a run, where what builds cannot be kept from the network.
    pub(crate) fn tell_of_network(&self) {
        static TOLD: Once = Once::new();
        if !platform::sandbox_supported() {
            TOLD.call_once(|| {
                let what = "this machine cannot cut the network off from the build (no namespaces): dead proxies stand in for it";
                self.events.warn(what.into());
            });
        }
    }

    /// The environment that whatever is built in the folder `dir` sees: this list, and nothing of the caller's.
    pub(crate) fn closed_env(&self, dir: &Path, programs: String, epoch: i64) -> BTreeMap<String, String> {
        let path = |p: PathBuf| p.display().to_string();
        let mut env: BTreeMap<String, String> = [
            ("PATH", programs),
            ("HOME", path(dir.join("home"))),
            ("TMPDIR", path(dir.join("tmp"))),
            ("LANG", "C.UTF-8".into()),
            ("LC_ALL", "C.UTF-8".into()),
            ("TZ", "UTC".into()),
            ("SOURCE_DATE_EPOCH", epoch.to_string()),
            ("PYTHONHASHSEED", "0".into()),
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
            ("CC", path(self.compiler.cc.clone())),
            ("CXX", path(self.compiler.cxx.clone())),
            ("CMAKE_BUILD_TYPE", "Release".into()),
            ("CMAKE_GENERATOR", "Ninja".into()),
            // The one door to CMake: it reads this variable itself, whatever a version's setup.py hands on.
            ("CMAKE_TOOLCHAIN_FILE", path(dir.join("toolchain.cmake"))),
            // A store may lie in a checkout, and list files (oneDNN's version.cmake) ask git for the commit of their own
            // sources: that of the repository around the store is not it.
            ("GIT_CEILING_DIRECTORIES", path(dir.parent().unwrap_or(dir).to_owned())),
            // Nothing may be downloaded; where the network cannot be cut off, this fails it at once.
            ("http_proxy", "http://127.0.0.1:9".into()),
            ("https_proxy", "http://127.0.0.1:9".into()),
            ("PIP_NO_INDEX", "1".into()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        env.extend(self.compiler.environment(dir));
        env
    }

    /// The environment that PyTorch's build sees.
    pub(crate) fn torch_env(&self, work: &Work) -> Vec<(String, String)> {
        let recipe = &self.recipe;
        let mut env = self.closed_env(&work.dir, self.tool_path(&work.dep("buildenv")), recipe.torch.epoch);
        env.insert("PYTORCH_BUILD_VERSION".into(), recipe.torch.full_version());
        env.insert("PYTORCH_BUILD_NUMBER".into(), "1".into());
        if let Some(cuda) = &recipe.cuda {
            let home = work.dep(CUDA);
            env.extend(self.cuda_env(cuda, &home));
            if nvcc::travels(cuda.major()) {
                env.insert(nvcc::NAMES_VARIABLE.into(), "1".into());
            }
            env.insert("PYTORCH_EXTRA_INSTALL_REQUIREMENTS".into(), cuda.requires.join(" | "));
            if let Some(path) = env.get_mut("PATH") {
                let dirs = std::env::split_paths(path).chain([home.join("bin")]).collect::<Vec<_>>();
                *path = std::env::join_paths(dirs).unwrap_or_default().to_string_lossy().into_owned();
            }
        }
        if !recipe.torch.cxx11_abi {
            env.insert("_GLIBCXX_USE_CXX11_ABI".into(), "0".into());
        }
        for (name, on) in &recipe.features {
            env.insert(name.clone(), if *on { "1" } else { "0" }.into());
        }
        for (name, value) in &recipe.settings {
            env.insert(name.clone(), self.expand(value, work));
        }
        if let Some(cuda) = &recipe.cuda
            && cuda.nvcc_threads > 1
        {
            let flags = env.entry("TORCH_NVCC_FLAGS".into()).or_default();
            flags.push_str(&format!(" --threads {}", cuda.nvcc_threads));
        }
        env.into_iter().collect()
    }

    /// How list files are shown the toolkit at `home`.
    pub(crate) fn cuda_env(&self, cuda: &Cuda, home: &Path) -> Vec<(String, String)> {
        let path = |p: PathBuf| p.display().to_string();
        [
            ("CUDA_HOME", path(home.to_owned())),
            ("CUDA_PATH", path(home.to_owned())),
            ("CUDACXX", path(Toolkit { root: home.to_owned() }.nvcc())),
            ("CUDAHOSTCXX", path(self.compiler.cxx.clone())),
            ("TORCH_CUDA_ARCH_LIST", cuda.architectures.join(";")),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into()
    }

    /// Replaces `{prefix:NAME}` by that prefix' folder.
    pub(crate) fn expand(&self, value: &str, work: &Work) -> String {
        let mut out = value.to_owned();
        let names = self.prefixes().into_iter().chain([CUDA.to_owned()]);
        for name in names {
            out = out.replace(&format!("{{prefix:{name}}}"), &work.dep(&name).display().to_string());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_link_that_comes_to_lead_elsewhere_is_there_at_every_moment() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let work = Work { dir: dir.path().join("work") };
        let targets = ["one", "two"].map(|name| dir.path().join(name));
        for target in &targets {
            std::fs::create_dir(target).unwrap();
        }
        work.link("buildenv", &targets[0]).unwrap();
        let done = AtomicBool::new(false);
        let missed = std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut missed = 0;
                while !done.load(Ordering::Relaxed) {
                    missed += u32::from(!work.dep("buildenv").is_dir());
                }
                missed
            });
            for _ in 0..500 {
                for target in &targets {
                    work.link("buildenv", target).unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
            looking.join().unwrap()
        });
        assert_eq!(missed, 0);
        assert_eq!(std::fs::read_link(work.dep("buildenv")).unwrap(), targets[1]);
        // Nothing else stays beside it.
        assert_eq!(std::fs::read_dir(work.dir.join("deps")).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_not_what_was_never_done() {
        let dir = tempfile::tempdir().unwrap();
        let work = Work { dir: dir.path().to_owned() };
        let mut parts = Parts::new("compile", 1);
        parts.text("a", "b");
        assert_eq!(work.done("compile", &parts.key()).unwrap(), None);
        work.finish("compile", &parts, &serde_json::json!({"n": 1})).unwrap();
        assert_eq!(work.done("compile", &parts.key()).unwrap(), Some(serde_json::json!({"n": 1})));
        for file in [Work::record_file("compile"), Work::parts_file("compile")] {
            let at = work.dir.join(file);
            std::fs::remove_file(&at).unwrap();
            std::fs::create_dir(&at).unwrap();
            assert!(work.done("compile", &parts.key()).is_err());
        }
    }

    #[test]
    fn a_launcher_is_written_over_nothing_that_another_run_of_the_same_number_left() {
        let dir = tempfile::tempdir().unwrap();
        let work = Work { dir: dir.path().to_owned() };
        let another = dir.path().join("another-program");
        std::fs::write(&another, "another").unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::hard_link(&another, dir.path().join(format!("bin/.new-{}", std::process::id()))).unwrap();
        let launcher = work.install_launcher().unwrap();
        assert_eq!(std::fs::read_to_string(another).unwrap(), "another");
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert_eq!(size(&launcher), size(&std::env::current_exe().unwrap()));
    }
}
