//! A toolchain of locked packages: Clang, LLD and LLVM's tools, with headers, start files and libraries to link with in
//! a folder of their own (a sysroot). Nothing of the machine is read but its kernel and its shell.
//!
//! ```text
//! bin/          what builds call: made here
//! clang.cfg     what the compiler is told in every call: made here
//! host/bin      the programs of the packages
//! host/lib      their libraries, with the C library and the loader that they run with
//! lib/clang     the compiler's own headers
//! sysroot/      headers, start files and libraries of what is compiled
//! ```
//!
//! The programs run with the C library of their packages. It is not for old machines alone: a compiler that computes
//! `sin(0.5)` while it compiles asks the C library that it runs with.

use std::collections::BTreeMap;
use std::path::Path;

use super::compiler::{Compiler, Family, hidden};
use super::process::Process;
use crate::error::{Context, Error, Result};
use crate::platform;

/// The program that a toolchain is tried with.
pub const TRIAL: &str = include_str!("locked/trial.cpp");

/// What builds call, by the program of the packages that it is. LLVM's programs know by their name what they are.
const PROGRAMS: &[(&str, &str)] = &[
    ("clang", "clang"),
    ("clang++", "clang"),
    ("cc", "clang"),
    ("c++", "clang"),
    ("ld.lld", "lld"),
    ("ld", "lld"),
    ("llvm-ar", "llvm-ar"),
    ("ar", "llvm-ar"),
    ("llvm-ranlib", "llvm-ar"),
    ("ranlib", "llvm-ar"),
    ("llvm-nm", "llvm-nm"),
    ("nm", "llvm-nm"),
    ("llvm-objcopy", "llvm-objcopy"),
    ("objcopy", "llvm-objcopy"),
    ("llvm-strip", "llvm-objcopy"),
    ("strip", "llvm-objcopy"),
    ("llvm-objdump", "llvm-objdump"),
    ("objdump", "llvm-objdump"),
    ("llvm-readelf", "llvm-readobj"),
    ("readelf", "llvm-readobj"),
];

/// What CMake calls its tools, and what they are here.
pub const CMAKE_TOOLS: &[(&str, &str)] = &[
    ("CMAKE_AR", "llvm-ar"),
    ("CMAKE_RANLIB", "llvm-ranlib"),
    ("CMAKE_NM", "llvm-nm"),
    ("CMAKE_OBJCOPY", "llvm-objcopy"),
    ("CMAKE_OBJDUMP", "llvm-objdump"),
    ("CMAKE_READELF", "llvm-readelf"),
    ("CMAKE_STRIP", "llvm-strip"),
    ("CMAKE_LINKER", "ld.lld"),
];

/// What is known of a machine: its target and the file name of its loader.
struct Machine {
    target: &'static str,
    loader: &'static str,
}

/// The machine called `name` (`x86_64`).
///
/// # Errors
/// Bad input: nothing is known of it.
fn machine(name: &str) -> Result<Machine> {
    match name {
        "x86_64" => Ok(Machine { target: "x86_64-linux-gnu", loader: "ld-linux-x86-64.so.2" }),
        "aarch64" => Ok(Machine { target: "aarch64-linux-gnu", loader: "ld-linux-aarch64.so.1" }),
        other => Err(Error::misuse("toolchain-machine", format!("no toolchain can be locked for {other}"))
            .next("leave toolchain.from out: the compiler of the machine is used")),
    }
}

/// All that [`complete`] writes, in one text: part of the key.
pub fn made() -> String {
    let programs: String = PROGRAMS.iter().map(|(name, program)| wrapper(name, program, "LOADER", "KEY")).collect();
    format!("{programs}{}", settings("TARGET"))
}

/// The compiler of the toolchain that stands, or will stand, at `root`, for the machine called `machine`. `files` are
/// the digests of its packages, by name.
///
/// # Errors
/// Bad input: nothing is known of that machine.
pub fn compiler(root: &Path, machine_name: &str, version: &str, files: BTreeMap<String, String>) -> Result<Compiler> {
    let banner = format!("Clang {version} of locked packages");
    Ok(Compiler {
        cc: root.join("bin/clang"),
        cxx: root.join("bin/clang++"),
        family: Family::Clang,
        version: version.to_owned(),
        banner: banner.clone(),
        target: machine(machine_name)?.target.to_owned(),
        linker: format!("LLD {version} of locked packages"),
        assembler: banner,
        libc: String::new(),
        files,
        env: Vec::new(),
        locked: Some(root.to_owned()),
    })
}

/// Makes the programs of the packages at `root` usable from wherever they stand. `key` stands in each of them: compiler
/// caches tell compilers apart by the bytes of the file that is called.
///
/// # Errors
/// A program is not among the packages; a file cannot be written.
pub fn complete(root: &Path, machine_name: &str, key: &str) -> Result<()> {
    let machine = machine(machine_name)?;
    let loader = format!("host/lib/{}", machine.loader);
    let programs = PROGRAMS.iter().map(|(_, program)| format!("host/bin/{program}"));
    let folders = ["lib/clang", "sysroot/usr/include"].map(str::to_owned);
    if let Some(missing) = programs.chain([loader]).chain(folders).find(|path| !root.join(path).exists()) {
        return Err(Error::misuse("toolchain", format!("the packages of the toolchain have no {missing}"))
            .next("give the recipe the source that has it, into the prefix 'toolchain' (docs/toolchain.md)"));
    }
    fs_err::create_dir_all(root.join("bin"))?;
    for (name, program) in PROGRAMS {
        let path = root.join("bin").join(name);
        fs_err::write(&path, wrapper(name, program, machine.loader, key))?;
        platform::mark_executable(&path, true)?;
        platform::mark_executable(&root.join("host/bin").join(program), true)?;
    }
    platform::mark_executable(&root.join("host/lib").join(machine.loader), true)?;
    fs_err::write(root.join("clang.cfg"), settings(machine.target))?;
    Ok(())
}

/// The script that runs `program` as `name`: with the loader and libraries of the packages, from wherever it stands.
fn wrapper(name: &str, program: &str, loader: &str, key: &str) -> String {
    // A compiler starts itself again (`-cc1`) by the name that it was started with, and settles nothing anew then.
    let told = if program == "clang" {
        "case ${1-} in\n-cc1*) ;;\n*) set -- -no-canonical-prefixes --no-default-config --config=\"$top/clang.cfg\" \"$@\" ;;\nesac\n"
    } else {
        ""
    };
    format!(
        "#!/bin/sh\n# {key}\ncase $0 in\n*/bin/*) top=${{0%/bin/*}} ;;\n*) top=${{0%/*}}/.. ;;\nesac\n{told}\
         exec \"$top/host/lib/{loader}\" --inhibit-cache --library-path \"$top/host/lib\" --argv0 \"$top/bin/{name}\" \
         \"$top/host/bin/{program}\" \"$@\"\n"
    )
}

/// What the compiler is told in every call. Paths of this place are in nothing that comes out, and what a compiler
/// would decide by the system that it runs on (it reads /etc/os-release) is decided here.
fn settings(target: &str) -> String {
    format!(
        "--target={target}\n\
         --sysroot=<CFGDIR>/sysroot\n\
         -resource-dir=<CFGDIR>/lib/clang\n\
         -B<CFGDIR>/bin\n\
         --ld-path=<CFGDIR>/bin/ld.lld\n\
         -ffile-prefix-map=<CFGDIR>/sysroot=\n\
         -ffile-prefix-map=<CFGDIR>/lib/clang=/usr/lib/clang\n\
         -Wl,-z,relro\n\
         -Wl,--hash-style=gnu\n\
         -Wl,--enable-new-dtags\n"
    )
}

/// What was found out about a toolchain when it was tried.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Tried {
    /// What the compiler calls itself.
    pub compiler: String,
    /// Files that a small program was compiled and linked of, all in the toolchain.
    pub files: usize,
}

/// Compiles, links and runs a small program with the toolchain at `root`, in the folder `scratch`, and holds against it
/// that it is the `version` of Clang that was asked for and that it read nothing of the machine.
///
/// # Errors
/// The world: the packages do not fit each other or this machine. Bad input: they are of another version.
pub fn check(root: &Path, version: &str, scratch: &Path) -> Result<Tried> {
    let (source, object, program) = (scratch.join("trial.cpp"), scratch.join("trial.o"), scratch.join("trial"));
    fs_err::write(&source, TRIAL)?;
    let run = |arguments: &[&std::ffi::OsStr]| {
        Process::new(root.join("bin/clang++"))
            .hide(hidden())
            .args(arguments)
            .env("LC_ALL", "C")
            .env("PATH", "/usr/bin:/bin")
            .env("TMPDIR", scratch)
            .cwd(scratch)
            .check("toolchain-trial", None)
    };
    let trying = |what: &str| format!("{what} with the toolchain of locked packages");
    let banner = run(&["--version".as_ref()]).doing(|| trying("asking for the version"))?.text;
    let banner = banner.lines().next().unwrap_or_default().to_owned();
    if !banner.split(|c: char| c.is_whitespace() || c == '-' || c == '(').any(|word| word == version) {
        return Err(Error::misuse(
            "toolchain-version",
            format!("the packages are '{banner}'; the recipe says Clang {version}"),
        )
        .next("correct toolchain.clang in the recipe, or the coordinates of its packages"));
    }
    let rules = scratch.join("trial.d");
    run(&["-std=c++20", "-O2", "-MD", "-MF"]
        .map(str::as_ref)
        .into_iter()
        .chain([rules.as_os_str()])
        .chain(["-c".as_ref(), source.as_os_str(), "-o".as_ref(), object.as_os_str()])
        .collect::<Vec<_>>())
    .doing(|| trying("compiling"))?;
    let linked =
        run(&["-Wl,--trace".as_ref(), object.as_os_str(), "-pthread".as_ref(), "-o".as_ref(), program.as_os_str()])
            .doing(|| trying("linking"))?
            .text;
    let headers = fs_err::read_to_string(&rules)?;
    let included = headers.split_whitespace().skip(1).filter(|word| *word != "\\");
    // `…/libc_nonshared.a(at_quick_exit.oS)`: a member of an archive.
    let linked = linked.lines().map(|line| line.split('(').next().unwrap_or(line)).filter(|line| line.starts_with('/'));
    let read: Vec<&str> = included.chain(linked).filter(|path| !Path::new(path).starts_with(scratch)).collect();
    let root = fs_err::canonicalize(root)?;
    for path in &read {
        if !fs_err::canonicalize(path).is_ok_and(|path| path.starts_with(&root)) {
            return Err(Error::world(
                "toolchain-trial",
                format!("the toolchain of locked packages reads {path} of this machine"),
            )
            .next("give the recipe the package that has this file, into the prefix 'toolchain' (docs/toolchain.md)"));
        }
    }
    let said = Process::new(&program)
        .env("LC_ALL", "C")
        .check("toolchain-run", None)
        .doing(|| trying("running what was made"))
        .map_err(|e| {
            e.next("what a build makes and runs needs the C++ library of this machine: `apt-get install libstdc++6`")
        })?;
    let told = said.last_json().and_then(|said| Some(said["compiler"].as_str()?.to_owned()));
    Ok(Tried { compiler: told.unwrap_or(banner), files: read.len() })
}
