//! Microsoft's C++ compiler: found by `cc` (registry, Visual Studio's set-up interface, the environment of
//! a developer prompt), with the environment that it needs to find its headers and libraries, and checked
//! for what an installation may lack: the C++ tools, a Windows SDK.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use rayon::prelude::*;

use super::compiler::{Compiler, Family};
use crate::error::{Error, Result};
use crate::store::digest_file;

/// Programs and libraries beside `cl.exe` that decide what comes out: front ends, code generator, linker,
/// librarian.
const PROGRAMS: &[&str] = &["cl.exe", "c1.dll", "c1xx.dll", "c2.dll", "link.exe", "lib.exe"];

/// Libraries that end in what is linked, of the compiler and of the SDK.
const LINKED: &[&str] = &["msvcrt.lib", "vcruntime.lib", "msvcprt.lib", "ucrt.lib", "kernel32.lib", "ws2_32.lib"];

/// Sets up what is missing, without a click (Visual Studio's command-line parameters).
const INSTALL: &str = "winget install Microsoft.VisualStudio.2022.BuildTools --override \
    \"--quiet --wait --add Microsoft.VisualStudio.Workload.VCTools --includeRecommended\"";

/// How a compiler of another version is taken. Windows' shells take no variable in front of a command.
pub const ANOTHER_VERSION: [&str; 2] = [
    "Visual Studio Installer, Modify, Individual components: choose MSVC build tools of that range",
    "and run this in their developer prompt: vcvarsall.bat x64 -vcvars_ver=…",
];

/// Finds `cl.exe` for this machine, and what goes with it.
///
/// # Errors
/// If there is no Visual Studio, or one without the C++ tools or without an SDK.
pub fn find() -> Result<Compiler> {
    let target = format!("{}-pc-windows-msvc", std::env::consts::ARCH);
    let Some(tool) = cc::windows_registry::find_tool(&target, "cl.exe") else {
        return Err(match cc::windows_registry::find_vs_version() {
            Ok(_) => Error::world("no-compiler", "Visual Studio is installed, its C++ compiler is not")
                .next("Visual Studio Installer, Modify: choose the workload 'Desktop development with C++'"),
            Err(_) => Error::world("no-compiler", "no Visual Studio was found on this machine"),
        }
        .next(format!("or install the build tools alone: {INSTALL}")));
    };
    let env: Vec<(OsString, OsString)> = tool.get_envs().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let folders = |name: &str| folders(&env, name);
    if !folders("INCLUDE").iter().any(|dir| dir.join("Windows.h").is_file()) {
        return Err(Error::world(
            "no-sdk",
            format!("{} has no Windows SDK: Windows.h is nowhere on INCLUDE", tool.path().display()),
        )
        .next("Visual Studio Installer, Modify, Individual components: choose the newest Windows SDK"));
    }
    let out = Command::new(tool.path())
        .envs(env.iter().map(|(k, v)| (k, v)))
        .env("VSLANG", "1033") // messages in English
        .output()
        .map_err(|e| Error::world("compiler", format!("cannot run {}: {e}", tool.path().display())))?;
    // Without arguments it introduces itself on the error stream.
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let banner = said.lines().next().unwrap_or_default().trim().to_owned();
    let Some(version) = version(&banner) else {
        return Err(Error::world(
            "compiler",
            format!("{} says '{banner}', which names no version", tool.path().display()),
        ));
    };
    let beside = tool.path().parent().unwrap_or(Path::new("."));
    let programs = PROGRAMS.iter().map(|name| (*name, beside.join(name)));
    let libraries = LINKED
        .iter()
        .filter_map(|name| Some((*name, folders("LIB").into_iter().map(|dir| dir.join(name)).find(|p| p.is_file())?)));
    let named: Vec<(&str, PathBuf)> = programs.chain(libraries).filter(|(_, path)| path.is_file()).collect();
    let files = named
        .into_par_iter()
        .map(|(name, path)| Ok((name.to_owned(), digest_file(&path)?.0)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    Ok(Compiler {
        cc: tool.path().to_owned(),
        cxx: tool.path().to_owned(),
        family: Family::Msvc,
        linker: format!("link.exe of MSVC {version}"),
        assembler: banner.clone(),
        libc: sdk(&folders("LIB")).map(|v| format!("Windows SDK {v}")).unwrap_or_default(),
        version,
        banner,
        target,
        files,
        env,
        locked: None,
    })
}

/// The flags of a compile command that CMake wrote for `cl.exe`, without source, outputs and what Ninja reads:
/// what compiles another source the same way.
pub fn compile_flags(command: &str) -> Vec<String> {
    let mut flags = Vec::new();
    let mut words = words(command).into_iter().skip_while(|w| !w.starts_with(['/', '-']) || w.len() < 2);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-c" | "/c" => {
                words.next();
            }
            "/showIncludes" | "-showIncludes" => {}
            w if ["/Fo", "/Fd", "-Fo", "-Fd"].iter().any(|out| w.starts_with(out)) => {}
            _ => flags.push(word),
        }
    }
    flags
}

/// The arguments of a command line, by the rules of Microsoft's C run-time ("Parsing C command-line
/// arguments"): backslashes are themselves, but before a quotation mark.
fn words(line: &str) -> Vec<String> {
    let (mut out, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    let mut backslashes = 0usize;
    for c in line.chars() {
        match c {
            '\\' => {
                backslashes += 1;
                begun = true;
                continue;
            }
            '"' => {
                word.extend(std::iter::repeat_n('\\', backslashes / 2));
                if backslashes % 2 == 1 {
                    word.push('"')
                } else {
                    quoted = !quoted
                }
                begun = true;
            }
            c if c.is_whitespace() && !quoted => {
                word.extend(std::iter::repeat_n('\\', backslashes));
                if begun {
                    out.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.extend(std::iter::repeat_n('\\', backslashes));
                word.push(c);
                begun = true;
            }
        }
        backslashes = 0;
    }
    word.extend(std::iter::repeat_n('\\', backslashes));
    if begun {
        out.push(word);
    }
    out
}

/// The folders of a list such as `INCLUDE`.
fn folders(env: &[(OsString, OsString)], name: &str) -> Vec<PathBuf> {
    let of = |value: &OsStr| value.to_string_lossy().split(';').filter(|p| !p.is_empty()).map(PathBuf::from).collect();
    // Of two, the later one counts.
    env.iter().rev().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| of(v)).unwrap_or_default()
}

/// `19.38.33133` of `Microsoft (R) C/C++ Optimizing Compiler Version 19.38.33133 for x64`.
fn version(banner: &str) -> Option<String> {
    let word =
        banner.split_whitespace().find(|w| w.split('.').count() >= 3 && w.starts_with(|c: char| c.is_ascii_digit()))?;
    word.chars().all(|c| c.is_ascii_digit() || c == '.').then(|| word.to_owned())
}

/// The SDK's version, which is a folder above its libraries: `…\Lib\10.0.22621.0\um\x64`.
fn sdk(libraries: &[PathBuf]) -> Option<String> {
    libraries.iter().find_map(|dir| {
        let text = dir.to_string_lossy();
        text.split(['\\', '/']).find(|part| part.starts_with("10.") && part.split('.').count() == 4).map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_the_compiler_says_of_itself() {
        let of = |text: &str| version(text);
        assert_eq!(
            of("Microsoft (R) C/C++ Optimizing Compiler Version 19.38.33133 for x64").as_deref(),
            Some("19.38.33133")
        );
        // In German it stands elsewhere.
        assert_eq!(
            of("Microsoft (R) C/C++-Optimierungscompiler Version 19.29.30154 f\u{fc}r x64").as_deref(),
            Some("19.29.30154")
        );
        assert_eq!(of("usage: cl [ option... ] filename..."), None);
    }

    #[test]
    fn the_flags_of_a_compile_are_those_that_another_source_needs() {
        let line = r#"C:\w\bin\torchmill.exe __launch C:\w C:\PROGRA~1\MSVC\bin\cl.exe  /nologo /TP -DX=1 -DNAME=\"a\" -IC:\w\src "-IC:\Program Files\x" /EHsc /MD -std:c++17 /showIncludes /FoCMakeFiles\a.obj /FdCMakeFiles\ /FS -c C:\w\src\a.cpp"#;
        let flags = compile_flags(line);
        let wanted = [
            "/nologo",
            "/TP",
            "-DX=1",
            r#"-DNAME="a""#,
            r"-IC:\w\src",
            r"-IC:\Program Files\x",
            "/EHsc",
            "/MD",
            "-std:c++17",
            "/FS",
        ];
        assert_eq!(flags, wanted);
        assert_eq!(words(r#"a\\b "c d" e\\"f g\\" h\"#), [r"a\\b", "c d", r"e\f g\", r"h\"]);
        assert_eq!(words(r#""" x"#), ["", "x"]);
    }

    #[test]
    fn the_sdk_is_read_from_where_its_libraries_are() {
        let libraries = [
            r"C:\Program Files\Microsoft Visual Studio\2022\Community\VC\Tools\MSVC\14.38.33130\lib\x64",
            r"C:\Program Files (x86)\Windows Kits\10\Lib\10.0.22621.0\um\x64",
        ];
        assert_eq!(sdk(&libraries.map(PathBuf::from)).as_deref(), Some("10.0.22621.0"));
        assert_eq!(sdk(&[]), None);
    }

    #[test]
    fn a_list_of_folders_is_found_whatever_the_case_of_its_name() {
        let env = [(OsString::from("Include"), OsString::from(r"C:\a;;C:\b c"))];
        assert_eq!(folders(&env, "INCLUDE"), [r"C:\a", r"C:\b c"].map(PathBuf::from));
        assert!(folders(&env, "LIB").is_empty());
    }
}
