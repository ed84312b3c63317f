//! configure: CMake runs through the PEP 517 hook, our module injected; then what CMake decided is
//! read back and held against the recipe, feature by feature.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use torchmill_bytes::digest::sha256;

use super::buildenv::Buildenv;
use super::compile::Compile;
use super::cuda::Cuda;
use super::libuv::Libuv;
use super::prefix::Prefix;
use super::tree::Tree;
use crate::error::{Context, Error, Result};
use crate::recipe::{CmakeValue, Recipe, System, Unity, features};
use crate::stage::build::{Build, CUDA};
use crate::stage::environment;
use crate::stage::step::{Ahead, Cx, Step};
use crate::stage::work::{Work, pieces, room};
use crate::store::{Parts, share_tree};
use crate::toolchain::cuda::Toolkit;
use crate::toolchain::locked::CMAKE_TOOLS;
use crate::toolchain::{LAUNCH_COMMAND, Process, nvcc};

/// The stage. Its key is that of the work folder: all that decides what the compiler sees.
pub struct Configure;

/// What is kept of a configured build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Switches as CMake ended with them.
    pub features: BTreeMap<String, bool>,
}

/// The module that decouples libuv from TensorPipe, below `patches/`.
pub const MODULE: &str = "cmake/torchmill.cmake";

/// What Windows needs beside it.
const WINDOWS_MODULE: &str = "cmake/windows.cmake";

/// Compiles sources several at a time, where a recipe says so.
const UNITY_MODULE: &str = "cmake/unity.cmake";

/// The CMake modules that a build of `recipe` takes in, in the order that they are included, below `patches/`.
pub fn modules(recipe: &Recipe) -> Vec<&'static str> {
    let windows = (recipe.system == System::Windows).then_some(WINDOWS_MODULE);
    let unity = (!recipe.unity.is_empty()).then_some(UNITY_MODULE);
    windows.into_iter().chain([MODULE]).chain(unity).collect()
}

/// Where `find_package` looks first.
const PREFIX_PATH: &str = "CMAKE_PREFIX_PATH";

/// What every C++ file is compiled with; asked for where the recipe decides something in it.
const CXX_FLAGS: &str = "CMAKE_CXX_FLAGS";

/// The flag for strings with the ABI before C++11.
const OLD_STRINGS: &str = "-D_GLIBCXX_USE_CXX11_ABI=0";

/// What Kineto sets, and says in a message alone, where it finds no CUPTI: `USE_KINETO` stays on.
const NO_CUPTI: &str = "LIBKINETO_NOCUPTI";

/// Whether the profiler of `recipe` is to see what runs on GPUs.
fn wants_cupti(recipe: &Recipe) -> bool {
    recipe.cuda.is_some() && recipe.features.get("USE_KINETO") == Some(&true)
}

/// What PyTorch looks for before it takes NVSHMEM in. Where one is not there it says so in a message alone, and
/// `USE_NVSHMEM` stays on.
const NVSHMEM_PARTS: &[&str] = &["NVSHMEM_HOST_LIB", "NVSHMEM_DEVICE_LIB", "NVSHMEM_INCLUDE_DIR"];

/// Whether `recipe` asks for NVSHMEM.
fn wants_nvshmem(recipe: &Recipe) -> bool {
    recipe.cuda.is_some() && recipe.features.get("USE_NVSHMEM") == Some(&true)
}

/// Where the linker of a program finds what libraries of the build need of the toolkit (`torch_cpu` needs CUPTI). Their
/// run path is the one that they are installed with, and leads to no toolkit. Installers put CUPTI into a folder of its
/// own. `None` where there is no toolkit, or no such thing as a run path.
fn toolkit_libraries(build: &Build<'_>, work: &Work) -> Option<String> {
    build.recipe.cuda.as_ref().filter(|_| build.recipe.system == System::Linux)?;
    let toolkit = Toolkit { root: work.dep(CUDA) };
    let folders = [toolkit.libraries(), toolkit.root.join("extras/CUPTI/lib64")];
    let folders: Vec<String> =
        folders.iter().filter(|folder| folder.is_dir()).map(|folder| folder.display().to_string()).collect();
    (!folders.is_empty()).then(|| folders.join(":"))
}

/// The version of [`toolkit_libraries`] in the key: raised when programs are linked in another way.
const TOOLKIT_LIBRARIES: u32 = 1;

/// The script that calls PEP 517 hooks.
pub const PEP517: &str = include_str!("pep517.py");

/// The store's sources, below `torch/csrc/distributed/c10d`, which the canary needs an object each of. Names differ a
/// little between versions: those that the build has are taken.
pub const STORE_OBJECTS: &[&str] = &[
    "Backoff.cpp",
    "FileStore.cpp",
    "HashStore.cpp",
    "PrefixStore.cpp",
    "Store.cpp",
    "TCPStore.cpp",
    "TCPStoreBackend.cpp",
    "TCPStoreLibUvBackend.cpp",
    "debug.cpp",
    "logging.cpp",
    "socket.cpp",
    "error.cpp",
];

impl Step for Configure {
    type Record = Record;
    const NAME: &'static str = "configure";
    const WHAT: &'static str = "CMake, and what it decided held against the recipe";
    const EMBEDS: &'static [(&'static str, &'static str)] = &[("pep517.py", PEP517)];

    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        let (build, recipe) = (cx.build, &cx.build.recipe);
        for module in modules(recipe) {
            cx.patch_input(module, parts)?;
        }
        parts.known_as("compiler", &build.compiler.identity(), &build.compiler.banner);
        parts.known_as("python", &build.python.identity(), &build.python.version);
        parts.text("version", recipe.torch.full_version());
        parts.text("commit", &recipe.torch.commit);
        parts.json("epoch", &recipe.torch.epoch);
        parts.json("backend", &recipe.torch.backend);
        if !recipe.torch.cxx11_abi {
            parts.json("cxx11 abi", &false);
        }
        parts.each("feature", &recipe.features);
        parts.each("setting", &recipe.settings);
        parts.each("cmake", &recipe.cmake);
        parts.each("unity", &recipe.unity);
        if let Some(cuda) = &recipe.cuda {
            parts.json("architectures", &cuda.architectures);
            parts.json("what the wheel requires", &cuda.requires);
            parts.json("threads of nvcc", &cuda.nvcc_threads);
            if recipe.system == System::Linux {
                parts.json("programs find the toolkit", &TOOLKIT_LIBRARIES);
            }
            // The launcher adds them to commands: ninja knows nothing of it.
            if nvcc::travels(cuda.major()) {
                parts.json("names of nvcc", &nvcc::NAMES);
            }
        }
        Ok(())
    }

    fn check(build: &Build<'_>, ahead: &Ahead) -> Result<()> {
        build.python.check_headers()?;
        room::check_hiding(build)?;
        room::check_path(build)?;
        room::check_space(build, ahead.work.as_ref(), ahead.has::<Compile>())
    }

    fn enter(cx: &Cx<'_>) -> Result<()> {
        let work = cx.work()?;
        work.link("buildenv", &cx.made::<Buildenv>()?.folder)?;
        work.link("uv", &cx.made::<Libuv>()?.folder)?;
        for (name, folder) in cx.folders::<Prefix>() {
            work.link(&name, &folder)?;
        }
        if let Some(toolkit) = cx.made_of::<Cuda>("")? {
            work.link(CUDA, &toolkit.folder)?;
        }
        for dir in ["home", "tmp"] {
            fs_err::create_dir_all(work.dir.join(dir))?;
        }
        work.install_launcher()?;
        Ok(())
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, work) = (cx.build, cx.work()?);
        if work.src().exists() {
            // Half configured by a run that was killed.
            crate::store::remove_tree(&work.src())?;
        }
        // A build writes new files beside the tree's; writing into one is found out by its time
        // ([`Tree`]'s `spoiled`). Files at the top are copied: setup.py writes into LICENSE and back.
        share_tree(&cx.made::<Tree>()?.folder, &work.src())?;
        write_project_module(cx, work)?;
        build.tell_of_network();
        let log = work.log(Self::NAME);
        let output = hook(build, work, "configure", &[])
            .run(Some(&log), &mut |_| {})
            .doing(|| "running CMake through the PEP 517 hook".into())?;
        if !output.status.success() {
            return Err(explain(&output.text, &log));
        }
        let features = read_back(build, work)?;
        keep_checks(build, work)?;
        if build.recipe.unity.values().any(Unity::is_on) {
            let (found, log) = pieces::look(work)?;
            let count = found.doubled.len();
            build.events.note(format!("{count} names are declared by two sources of one piece: {}", log.display()));
        }
        Ok(Record { features })
    }
}

/// Where the store keeps what CMake found out about the compiler for this configure key, by which the work folder
/// is called.
fn checks_file(build: &Build<'_>, work: &Work) -> PathBuf {
    build.store.cache("checks").join(format!("{}.checks", work.name()))
}

/// Keeps the answers to CMake's questions about compiler and headers. The key digests both, so a build
/// folder that is made again need not compile a hundred small programs to ask again.
fn keep_checks(build: &Build<'_>, work: &Work) -> Result<()> {
    let path = checks_file(build, work);
    if path.is_file() {
        return Ok(());
    }
    let cache = fs_err::read_to_string(work.build().join("CMakeCache.txt"))?;
    crate::store::write_atomically(&path, kept_checks(&checks(&cache)).as_bytes())
}

/// What is kept of the lines of [`checks`]: their digest, then they themselves.
fn kept_checks(lines: &str) -> String {
    format!("# sha256:{}\n{lines}", sha256(lines.as_bytes()))
}

/// The lines of what was kept, which CMake is to run, if they are what [`kept_checks`] was given, and set answers and do
/// nothing else.
fn judged_checks(kept: &[u8]) -> Option<&str> {
    let kept = std::str::from_utf8(kept).ok()?;
    let (_, lines) = kept.split_once('\n')?;
    let is_ours = |line: &str| {
        let read = || {
            let (name, rest) = line.strip_prefix("set(")?.split_once(" \"")?;
            let (value, _) = rest.split_once('"')?;
            Some(is_check(name, value) && check_line(name, value) == line)
        };
        read() == Some(true)
    };
    (kept_checks(lines) == kept && lines.split_inclusive('\n').all(is_ours)).then_some(lines)
}

/// The checks in a `CMakeCache.txt`, as CMake sets them.
fn checks(cache: &str) -> String {
    cache
        .lines()
        .filter_map(|line| line.split_once(":INTERNAL="))
        .filter(|(name, value)| is_check(name, value))
        .map(|(name, value)| check_line(name, value))
        .collect()
}

/// Whether an entry of CMake's cache is the answer of a compiler. What asks the machine, such as which instructions its
/// processor has, is asked again.
fn is_check(name: &str, value: &str) -> bool {
    let begins = ["HAS_", "HAVE_", "COMPILER_SUPPORTS_", "CAFFE2_COMPILER_SUPPORTS_", "protobuf_HAVE_"];
    begins.iter().any(|b| name.starts_with(b))
        && !name.contains("SIZE") // check_type_size() writes files beside its answer
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && ["", "1"].contains(&value)
}

/// An answer, as a line of CMake.
fn check_line(name: &str, value: &str) -> String {
    format!("set({name} \"{value}\" CACHE INTERNAL \"asked before\")\n")
}

/// The process that calls a PEP 517 hook in the work folder.
pub fn hook(build: &Build<'_>, work: &Work, what: &str, arguments: &[&Path]) -> Process {
    Process::new(environment::python(&work.dep("buildenv")))
        .arg("-c")
        .arg(PEP517)
        .arg(build.recipe.torch.backend.name())
        .arg(what)
        .args(arguments)
        .hide(build.compiler.hidden())
        .envs(build.torch_env(work))
        .cwd(work.src())
}

/// A CMake bracket argument: nothing in `text` is expanded.
fn bracket(text: impl std::fmt::Display) -> String {
    format!("[==[{text}]==]")
}

/// What the environment names to CMake. It is read for every project and every trial program, so all
/// of them compile through the launcher; only PyTorch's own project, known by its folder, gets the module.
fn toolchain_file(build: &Build<'_>, work: &Work) -> String {
    let launcher = [work.launcher().display().to_string(), LAUNCH_COMMAND.into(), work.dir.display().to_string()]
        .map(bracket)
        .join(" ");
    let mut text = String::from("# Generated by torchmill's configure stage; CMAKE_TOOLCHAIN_FILE leads here.\n");
    for language in ["C", "CXX", "CUDA"] {
        text.push_str(&format!("set(CMAKE_{language}_COMPILER_LAUNCHER {launcher})\n"));
    }
    if let Some(root) = &build.compiler.locked {
        text.push_str(&locked_tools(build, root));
    }
    let (src, module) = (bracket(work.src().display()), bracket(work.dir.join("project.cmake").display()));
    text.push_str(&format!(
        "file(REAL_PATH \"${{CMAKE_SOURCE_DIR}}\" _tm_here)\nfile(REAL_PATH {src} _tm_torch)\n\
         if(_tm_here STREQUAL _tm_torch)\n  set(CMAKE_PROJECT_TOP_LEVEL_INCLUDES {module})\nendif()\n"
    ));
    text
}

/// What a locked toolchain at `root` adds: its tools by name, and that libraries, headers and packages are looked for
/// in its sysroot, in this store and beside the Python, and nowhere else.
fn locked_tools(build: &Build<'_>, root: &Path) -> String {
    let mut text = String::new();
    for (variable, tool) in CMAKE_TOOLS {
        let tool = bracket(root.join("bin").join(tool).display());
        text.push_str(&format!("set({variable} {tool} CACHE FILEPATH \"locked\" FORCE)\n"));
    }
    let mut roots = vec![root.join("sysroot"), build.store.root().to_owned()];
    if !sees_no_headers(build) {
        roots.extend(build.python.include.ancestors().nth(2).map(Path::to_owned));
    }
    let roots: Vec<String> = roots.iter().map(|root| bracket(root.display())).collect();
    let roots = roots.join(" ");
    text.push_str(&format!("set(CMAKE_FIND_ROOT_PATH {roots})\nset(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)\n"));
    for kind in ["LIBRARY", "INCLUDE", "PACKAGE"] {
        text.push_str(&format!("set(CMAKE_FIND_ROOT_PATH_MODE_{kind} ONLY)\n"));
    }
    text
}

/// Whether the Python's headers are in a folder that what is built does not see.
fn sees_no_headers(build: &Build<'_>) -> bool {
    build.compiler.hidden().iter().any(|hidden| build.python.include.starts_with(hidden))
}

/// The Python's headers, in the work folder, where a locked toolchain does not see the folder that they are in. Debian
/// keeps what differs between machines in another folder: here it is in its place.
///
/// # Errors
/// They cannot be copied.
fn shown_headers(build: &Build<'_>, work: &Work) -> Result<Option<PathBuf>> {
    if !sees_no_headers(build) {
        return Ok(None);
    }
    let include = &build.python.include;
    let to = work.dir.join("python-include");
    for entry in walkdir::WalkDir::new(include).follow_links(true) {
        let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
        let target = to.join(entry.path().strip_prefix(include).unwrap_or(entry.path()));
        if entry.file_type().is_dir() {
            fs_err::create_dir_all(target)?;
        } else {
            fs_err::copy(entry.path(), target)?;
        }
    }
    let name = include.file_name().unwrap_or_default();
    let of_machine = include.with_file_name(&build.compiler.target).join(name).join("pyconfig.h");
    if of_machine.is_file() {
        fs_err::copy(of_machine, to.join("pyconfig.h"))?;
    }
    Ok(Some(to))
}

/// What CMake includes at PyTorch's `project(…)`: the recipe's values as cache entries, so that they
/// hold whether or not a version hands them on from the environment, then our module.
fn write_project_module(cx: &Cx<'_>, work: &Work) -> Result<()> {
    use std::fmt::Write;
    let build = cx.build;
    let mut text = String::from("# Generated by torchmill's configure stage.\n");
    let mut entry = |name: &str, kind: &str, value: &str| {
        writeln!(text, "set({name} {} CACHE {kind} \"recipe\" FORCE)", bracket(value)).ok();
    };
    for (name, on) in &build.recipe.features {
        // As the environment has it: PyTorch prints these values in torch.__config__.show().
        entry(name, "BOOL", if *on { "1" } else { "0" });
    }
    for (name, value) in build.recipe.settings.iter().filter(|(name, _)| *name != PREFIX_PATH) {
        entry(name, "STRING", &build.expand(value, work));
    }
    if !build.recipe.torch.cxx11_abi {
        // Its list files ask the compiler otherwise, which has the newer one.
        entry("GLIBCXX_USE_CXX11_ABI", "STRING", "0");
    }
    for (name, value) in &build.recipe.cmake {
        match value {
            CmakeValue::Bool(on) => entry(name, "BOOL", if *on { "ON" } else { "OFF" }),
            CmakeValue::Text(t) => entry(name, "STRING", &build.expand(t, work)),
        }
    }
    if let Some(headers) = shown_headers(build, work)? {
        for name in ["Python_INCLUDE_DIR", "Python3_INCLUDE_DIR", "PYTHON_INCLUDE_DIR"] {
            entry(name, "PATH", &headers.display().to_string());
        }
    }
    // XNNPACK puts a ccache that it finds before the compilers, in place of our launcher: its compiles would name this
    // folder, and be cached where nobody asked for a cache.
    entry("CCACHE_BINARY", "BOOL", "OFF");
    if let Some(value) = build.recipe.settings.get(PREFIX_PATH) {
        // Laid before what a backend adds (the environment's packages), not over it.
        writeln!(text, "list(PREPEND {PREFIX_PATH} {})", bracket(build.expand(value, work))).ok();
    }
    let checks = work.dir.join("checks.cmake");
    let path = checks_file(build, work);
    let kept = std::fs::read(&path).ok();
    let known = kept.as_deref().and_then(judged_checks);
    if kept.is_some() && known.is_none() {
        build.events.warn(format!("{} is not what was kept there: CMake asks the compiler again", path.display()));
        fs_err::remove_file(&path)?;
    }
    // Written where nothing is known, too: a work folder that is there already may have another one.
    fs_err::write(&checks, known.unwrap_or_default())?;
    writeln!(text, "include({} OPTIONAL)", bracket(checks.display())).ok();
    writeln!(text, "set(TORCHMILL_LIBUV_ROOT {})", bracket(work.dep("uv").display())).ok();
    if let Some(folders) = toolkit_libraries(build, work) {
        // Of programs alone: a library that is linked need not have all that its libraries need.
        writeln!(
            text,
            "add_link_options(\"$<HOST_LINK:$<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:\
             -Wl$<COMMA>-rpath-link$<COMMA>{folders}>>\")"
        )
        .ok();
    }
    let mut reported: Vec<&str> = build.recipe.features.keys().map(String::as_str).collect();
    if !build.recipe.torch.cxx11_abi {
        reported.push(CXX_FLAGS);
    }
    if wants_cupti(&build.recipe) {
        reported.push(NO_CUPTI);
    }
    if wants_nvshmem(&build.recipe) {
        reported.extend(NVSHMEM_PARTS);
    }
    writeln!(text, "set(TORCHMILL_FEATURES {})", reported.join(" ")).ok();
    for (target, unity) in &build.recipe.unity {
        let list =
            |patterns: &[String]| patterns.iter().map(|p| bracket(Unity::regex(p))).collect::<Vec<_>>().join(" ");
        writeln!(text, "list(APPEND TORCHMILL_UNITY {target})").ok();
        writeln!(text, "set(TORCHMILL_UNITY_{target}_BATCH {})", unity.batch).ok();
        writeln!(text, "set(TORCHMILL_UNITY_{target}_SOURCES {})", list(&unity.sources)).ok();
        let store = STORE_OBJECTS.iter().map(|name| format!("torch/csrc/distributed/c10d/{name}"));
        let alone: Vec<String> = unity.alone.iter().cloned().chain(store).collect();
        writeln!(text, "set(TORCHMILL_UNITY_{target}_ALONE {})", list(&alone)).ok();
        writeln!(text, "set(TORCHMILL_UNITY_{target}_UNDEFINE {})", unity.undefine.join(" ")).ok();
        writeln!(text, "set(TORCHMILL_UNITY_{target}_RENAME {})", unity.rename.join(" ")).ok();
    }
    for module in modules(&build.recipe) {
        let copy = work.dir.join(module.rsplit('/').next().unwrap_or(module));
        fs_err::copy(cx.patch(module)?, &copy)?;
        writeln!(text, "include({})", bracket(copy.display())).ok();
    }
    fs_err::write(work.dir.join("project.cmake"), text)?;
    fs_err::write(work.dir.join("toolchain.cmake"), toolchain_file(build, work))?;
    Ok(())
}

/// Reads CMake's report: every feature of the recipe must have come out as asked for.
fn read_back(build: &Build<'_>, work: &Work) -> Result<BTreeMap<String, bool>> {
    let path = work.build().join("torchmill-report.txt");
    let text = fs_err::read_to_string(&path).map_err(|_| {
        Error::world(
            "configure",
            "CMake ended without running torchmill's module: nothing would have given libuv to the store",
        )
        .next("CMake 3.24 or later is needed (CMAKE_PROJECT_TOP_LEVEL_INCLUDES): which one does python.build pin?")
        .next(format!(
            "does the tree's build name another CMAKE_TOOLCHAIN_FILE? see {}",
            work.log(Configure::NAME).display()
        ))
    })?;
    let report: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
    let mut wrong = Vec::new();
    let mut found = BTreeMap::new();
    for (name, wanted) in &build.recipe.features {
        let value = report.get(format!("feature:{name}").as_str()).copied().unwrap_or("");
        let on = truthy(value);
        found.insert(name.clone(), on);
        if on != *wanted && !features::NOT_READ_BACK.contains(&name.as_str()) {
            let shown = if value.is_empty() { "not set".to_owned() } else { format!("'{value}'") };
            wrong.push(format!(
                "{name}: the recipe says {}, CMake ended with {shown}",
                if *wanted { "on" } else { "off" }
            ));
        }
    }
    let flags = report.get(format!("feature:{CXX_FLAGS}").as_str()).copied().unwrap_or("");
    if !build.recipe.torch.cxx11_abi && !flags.split_whitespace().any(|flag| flag == OLD_STRINGS) {
        wrong.push(format!(
            "torch.cxx11-abi: the recipe says false, and {CXX_FLAGS} ended as '{flags}', without {OLD_STRINGS} (versions \
             after 2.6 know the C++11 ABI alone)"
        ));
    }
    let no_cupti = report.get(format!("feature:{NO_CUPTI}").as_str()).copied().unwrap_or("");
    if wants_cupti(&build.recipe) && truthy(no_cupti) {
        wrong.push(format!(
            "USE_KINETO: the recipe says on, and has CUDA; CMake ended with {NO_CUPTI} '{no_cupti}': the profiler would see \
             no GPU"
        ));
    }
    if wants_nvshmem(&build.recipe) {
        for part in NVSHMEM_PARTS {
            let value = report.get(format!("feature:{part}").as_str()).copied().unwrap_or("");
            // A version that looks for it under other names sets none of these.
            if value.ends_with("-NOTFOUND") {
                wrong.push(format!(
                    "USE_NVSHMEM: the recipe says on; CMake ended with {part} '{value}': it would be left out"
                ));
            }
        }
    }
    if report.get("torch_cpu") != Some(&"libuv") {
        wrong.push(format!(
            "the target torch_cpu did not get libuv ({})",
            report.get("torch_cpu").unwrap_or(&"no word of it")
        ));
    }
    if wrong.is_empty() {
        return Ok(found);
    }
    Err(Error::world(
        "configure-downgrade",
        format!("CMake decided otherwise than the recipe:\n    {}", wrong.join("\n    ")),
    )
    .next(format!("look for the warning that goes with it in {}", work.log(Configure::NAME).display()))
    .next("change the recipe, or give the build what it missed"))
}

/// CMake's idea of true (`if(<constant>)`).
fn truthy(value: &str) -> bool {
    let v = value.to_ascii_uppercase();
    !(v.is_empty()
        || matches!(v.as_str(), "0" | "OFF" | "NO" | "FALSE" | "N" | "IGNORE" | "NOTFOUND")
        || v.ends_with("-NOTFOUND"))
}

/// The first error of a CMake run, with the place where the rest is.
fn explain(text: &str, log: &Path) -> Error {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|l| l.starts_with("CMake Error")).unwrap_or(lines.len().saturating_sub(20));
    let shown: Vec<String> = lines[at..].iter().take(14).map(|l| format!("    {l}")).collect();
    Error::world("configure", format!("CMake did not configure PyTorch; its first error:\n{}", shown.join("\n")))
        .next(format!("the whole output is in {}", log.display()))
        .next("`cargo xtask shell` opens a shell in this environment")
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_a_compilers_answers_are_kept() {
        let cache = "HAS_WERROR:INTERNAL=1\nHAVE_MMAP:INTERNAL=\nHAVE_SIZE_OF_VOIDP:INTERNAL=TRUE\nHAVE_X:BOOL=1\n\
                     CXX_HAS_AVX2_2:INTERNAL=1\nHAS_BAD-ADVANCED:INTERNAL=1\nHAVE_PATH:INTERNAL=/usr\n";
        let kept = "set(HAS_WERROR \"1\" CACHE INTERNAL \"asked before\")\nset(HAVE_MMAP \"\" CACHE INTERNAL \"asked before\")\n";
        assert_eq!(super::checks(cache), kept);
        assert_eq!(super::judged_checks(super::kept_checks(kept).as_bytes()), Some(kept));
        assert_eq!(super::judged_checks(super::kept_checks("").as_bytes()), Some(""));
    }

    #[test]
    fn kept_answers_are_run_only_as_they_were_kept_and_only_if_they_are_answers() {
        fn judged(text: &str) -> Option<&str> {
            super::judged_checks(text.as_bytes())
        }
        let line = "set(HAVE_MMAP \"\" CACHE INTERNAL \"asked before\")\n";
        let kept = super::kept_checks(line);
        for (n, byte) in kept.bytes().enumerate() {
            let mut changed = kept.clone().into_bytes();
            changed[n] = byte ^ 1;
            assert_eq!(super::judged_checks(&changed), None, "byte {n}");
            assert_eq!(judged(&kept[..n]), None, "{n} bytes");
        }
        // One without a digest, as earlier versions kept them.
        assert_eq!(judged(line), None);
        for bad in [
            "message(FATAL_ERROR x)\n",
            "\n",
            "set(HAVE_MMAP \"\" CACHE INTERNAL \"asked before\") message(x)\n",
            "set(HAVE_MMAP \"\" CACHE INTERNAL \"asked before\")",
            "set(HAVE_MMAP \"0\" CACHE INTERNAL \"asked before\")\n",
            "set(HAVE_MMAP \"${x}\" CACHE INTERNAL \"asked before\")\n",
            "set(CMAKE_CXX_COMPILER \"1\" CACHE INTERNAL \"asked before\")\n",
            "set(HAVE_MMAP \"1\" CACHE INTERNAL \"asked before\" FORCE)\n",
            " set(HAVE_MMAP \"1\" CACHE INTERNAL \"asked before\")\n",
            "set(HAVE_MMAP \"1\" CACHE INTERNAL \"asked before\")\r\n",
        ] {
            assert_eq!(judged(&super::kept_checks(bad)), None, "{bad}");
            assert_eq!(judged(&super::kept_checks(&format!("{line}{bad}"))), None, "{bad}");
        }
        let two = format!("{line}{}", line.replace("MMAP", "X"));
        assert_eq!(judged(&super::kept_checks(&two)), Some(two.as_str()));
    }

    #[test]
    fn cmake_constants_are_read_as_cmake_reads_them() {
        for v in ["1", "ON", "yes", "TRUE", "5"] {
            assert!(super::truthy(v), "{v}");
        }
        for v in ["", "0", "off", "No", "FALSE", "X-NOTFOUND"] {
            assert!(!super::truthy(v), "{v}");
        }
    }
}
