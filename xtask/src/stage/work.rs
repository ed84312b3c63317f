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

use super::{Build, pyenv};
use crate::error::{Error, Result};
use crate::platform;
use crate::recipe::Cuda;
use crate::store::Key;
use crate::toolchain::CACHE_VARIABLE;
use crate::toolchain::cuda::Toolkit;

/// A work folder.
#[derive(Debug, Clone)]
pub struct Work {
    /// The folder.
    pub dir: PathBuf,
}

impl Work {
    /// Opens the work folder of the build with this configure key.
    pub fn open(build: &Build<'_>, key: &Key) -> Result<Self> {
        let dir = Self::place(build, key);
        fs_err::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// Where that folder is, or would be.
    pub fn place(build: &Build<'_>, key: &Key) -> PathBuf {
        build.store.work("torch", key)
    }

    /// The tree.
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

    /// Whether `step` was done here.
    pub fn is_done(&self, step: &str) -> bool {
        self.dir.join(format!("{step}.json")).is_file()
    }

    /// The record of a step that was done.
    pub fn record(&self, step: &str) -> Option<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(self.dir.join(format!("{step}.json"))).ok()?).ok()
    }

    /// Notes that `step` is done.
    pub fn done(&self, step: &str, record: &serde_json::Value) -> Result<()> {
        let text = serde_json::to_vec_pretty(record).map_err(|e| Error::world("record", e.to_string()))?;
        crate::store::write_atomically(&self.dir.join(format!("{step}.json")), &text)
    }

    /// Links `deps/NAME` to `target`.
    pub fn link(&self, name: &str, target: &Path) -> Result<()> {
        let link = self.dep(name);
        if fs_err::read_link(&link).is_ok_and(|t| t == target) {
            return Ok(());
        }
        fs_err::create_dir_all(self.dir.join("deps"))?;
        if link.symlink_metadata().is_ok() {
            platform::remove_link(&link)?;
        }
        platform::symlink(target, &link)
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

    /// This program, as the compiler launcher.
    pub fn launcher(&self) -> PathBuf {
        self.dir.join("bin").join(format!("torchmill{}", std::env::consts::EXE_SUFFIX))
    }

    /// Puts this program at `bin/`, so that the build's commands name a path that stays.
    pub fn install_launcher(&self) -> Result<PathBuf> {
        let path = self.launcher();
        let me = std::env::current_exe()?;
        fs_err::create_dir_all(self.dir.join("bin"))?;
        if same_file(&me, &path) {
            return Ok(path);
        }
        let fresh = self.dir.join(format!("bin/.new-{}", std::process::id()));
        // A link where it can be: a running launcher keeps its file.
        if fs_err::hard_link(&me, &fresh).is_err() {
            fs_err::copy(&me, &fresh)?;
            platform::mark_executable(&fresh, true)?;
        }
        platform::rename(&fresh, &path)?;
        Ok(path)
    }
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

/// The compiler cache that compiles go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompilerCache {
    /// None.
    Off,
    /// ccache: the user's, or the one of the recipe's prefix `ccache`.
    Ccache {
        /// The program.
        program: PathBuf,
        /// Where its own libraries are, if it brought them along.
        libraries: Option<PathBuf>,
    },
    /// sccache of the build environment.
    Sccache(PathBuf),
}

impl CompilerCache {
    /// Chooses: the user's ccache, else the recipe's if it runs on this machine, else sccache from
    /// the build environment. ccache comes first because it remembers the digests of headers by
    /// inode, where sccache hashes all of an object's headers again for each hit.
    pub fn choose(build: &Build<'_>, pyenv: &Path, prefixes: &BTreeMap<String, PathBuf>) -> Self {
        if build.options.no_compiler_cache {
            return Self::Off;
        }
        if let Some(program) = platform::which("ccache") {
            return Self::Ccache { program, libraries: None };
        }
        if let Some(prefix) = prefixes.get("ccache") {
            let program = prefix.join("usr/bin/ccache");
            let libraries = prefix.join("usr/lib/x86_64-linux-gnu");
            let runs = std::process::Command::new(&program)
                .arg("--version")
                .env("LD_LIBRARY_PATH", &libraries)
                .output()
                .is_ok_and(|o| o.status.success());
            if runs {
                return Self::Ccache { program, libraries: Some(libraries) };
            }
        }
        let sccache = pyenv::tool(pyenv, "sccache");
        if sccache.is_file() { Self::Sccache(sccache) } else { Self::Off }
    }

    /// The program, for commands that can be given a launcher. ccache with libraries of its own needs
    /// them in the environment.
    pub fn program(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::Ccache { program, .. } | Self::Sccache(program) => Some(program),
        }
    }

    /// Name for people and records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Ccache { .. } => "ccache",
            Self::Sccache(_) => "sccache",
        }
    }

    /// The environment that makes the launcher use it, with its data in the store.
    pub fn env(&self, build: &Build<'_>, work: &Work) -> Vec<(String, String)> {
        let dir = build.store.cache(self.name()).display().to_string();
        let pair = |k: &str, v: String| (k.to_owned(), v);
        match self {
            Self::Off => Vec::new(),
            Self::Ccache { program, libraries } => {
                let mut env = vec![
                    pair(CACHE_VARIABLE, program.display().to_string()),
                    pair("CCACHE_DIR", dir),
                    pair("CCACHE_CONFIGPATH", "/dev/null".into()),
                    pair("CCACHE_MAXSIZE", "10G".into()),
                    // The launcher makes all paths relative, so the folder says nothing.
                    pair("CCACHE_NOHASHDIR", "1".into()),
                    pair("CCACHE_COMPILERCHECK", "content".into()),
                    // What was included is taken from the compiler's own dependency file: on a miss
                    // the preprocessor does not run by itself before the compiler runs it again.
                    pair("CCACHE_DEPEND", "1".into()),
                    pair("CCACHE_TEMPDIR", work.dir.join("tmp").display().to_string()),
                ];
                if let Some(libraries) = libraries {
                    env.push(pair("LD_LIBRARY_PATH", libraries.display().to_string()));
                }
                env
            }
            Self::Sccache(program) => vec![
                pair(CACHE_VARIABLE, program.display().to_string()),
                pair("SCCACHE_DIR", dir),
                pair("SCCACHE_CACHE_SIZE", "10G".into()),
                pair("SCCACHE_DIRECT", "true".into()),
                pair("SCCACHE_IDLE_TIMEOUT", "60".into()),
                pair("SCCACHE_SERVER_UDS", work.socket().display().to_string()),
                // Its server says that it is up on another socket, below the temporary folder.
                pair("TMPDIR", work.socket().parent().unwrap_or(&work.dir).display().to_string()),
            ],
        }
    }
}

impl Build<'_> {
    /// PATH of everything that is built: the environment's tools, the compilers, the system.
    pub(crate) fn tool_path(&self, pyenv: &Path) -> String {
        let mut dirs = pyenv::programs(pyenv);
        dirs.extend(self.compiler.folders());
        dirs.extend(platform::system_programs());
        let mut seen = std::collections::HashSet::new();
        dirs.retain(|d| seen.insert(d.clone()));
        std::env::join_paths(dirs).unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The environment that PyTorch's build sees: this list and nothing of the caller's.
    pub(crate) fn torch_env(&self, work: &Work) -> Vec<(String, String)> {
        let recipe = &self.recipe;
        let path = |p: PathBuf| p.display().to_string();
        let mut env: BTreeMap<String, String> = [
            ("PATH", self.tool_path(&work.dep("pyenv"))),
            ("HOME", path(work.dir.join("home"))),
            ("TMPDIR", path(work.dir.join("tmp"))),
            ("LANG", "C.UTF-8".into()),
            ("LC_ALL", "C.UTF-8".into()),
            ("TZ", "UTC".into()),
            ("SOURCE_DATE_EPOCH", recipe.torch.epoch.to_string()),
            ("PYTHONHASHSEED", "0".into()),
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
            ("CC", path(self.compiler.cc.clone())),
            ("CXX", path(self.compiler.cxx.clone())),
            ("CMAKE_BUILD_TYPE", "Release".into()),
            ("CMAKE_GENERATOR", "Ninja".into()),
            // The one door to CMake: it reads this variable itself, whatever a version's setup.py hands on.
            ("CMAKE_TOOLCHAIN_FILE", path(work.dir.join("toolchain.cmake"))),
            ("PYTORCH_BUILD_VERSION", recipe.torch.full_version()),
            ("PYTORCH_BUILD_NUMBER", "1".into()),
            // Nothing may be downloaded; where the network cannot be cut off, this fails it at once.
            ("http_proxy", "http://127.0.0.1:9".into()),
            ("https_proxy", "http://127.0.0.1:9".into()),
            ("PIP_NO_INDEX", "1".into()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        env.extend(self.compiler.environment(&work.dir));
        if let Some(cuda) = &recipe.cuda {
            let home = work.dep(super::cuda::PREFIX);
            env.extend(self.cuda_env(cuda, &home));
            env.insert("PYTORCH_EXTRA_INSTALL_REQUIREMENTS".into(), cuda.requires.join(" | "));
            if let Some(path) = env.get_mut("PATH") {
                let dirs = std::env::split_paths(path).chain([home.join("bin")]).collect::<Vec<_>>();
                *path = std::env::join_paths(dirs).unwrap_or_default().to_string_lossy().into_owned();
            }
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
        let names = super::prefix::names(self).into_iter().chain([super::cuda::PREFIX.to_owned()]);
        for name in names {
            out = out.replace(&format!("{{prefix:{name}}}"), &work.dep(&name).display().to_string());
        }
        out
    }
}
