//! nvcc: by which names it makes objects, and how it works in a build that has a farm. It runs here, and starts other
//! programs for each object: the host compiler to preprocess, cudafe++, for each architecture cicc and ptxas, fatbinary,
//! and the host compiler again. The engine would take nvcc's commands apart by names of its own, and the objects would be
//! others; so nvcc itself does it, from a folder where this program stands in for what it starts, and hands each step that
//! can travel to the farm ([`super::farm`]).
//!
//! ```text
//! FOLDER/
//!   bin/nvcc          the toolkit's own: it looks for its programs beside itself
//!   bin/nvcc.profile  the toolkit's, but for that
//!   bin/cicc, …       this program, which is told what it stands in for
//!   host-compiler/    the same for the host compiler
//!   …                 links to all else of the toolkit
//! ```
//! Names and paths that nvcc gives its programs are those that it gives them in the toolkit: so are the objects.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::platform;
use crate::store::remove_tree;

/// The hidden command under which this program is a step of nvcc's.
pub const STEP_COMMAND: &str = "__step";

/// The first CUDA whose steps are known to travel: cudafe++ makes the module's name, which cicc reads.
const OLDEST: u32 = 13;

/// Tells the launchers of a build that nvcc is to make objects by names that are those of any folder: there the steps
/// travel.
pub const NAMES_VARIABLE: &str = "TORCHMILL_NVCC_NAMES";

/// The version of these names: raised when they change, so that a build has no objects by others.
pub const NAMES: u32 = 1;

/// Has nvcc call its files by the object's name, and not by its process' number: one of these names is in the object.
const OF_FILES: &str = "--objdir-as-tempdir";

/// What nvcc hands on to cudafe++ and cicc behind its own words. These tell them the absolute path of the source, of which
/// they make a number in the names of what no other object sees (anonymous namespaces, `static`); of two, the last counts.
const OF_SOURCE: &str = "-Xcudafe=--orig_src_path_name=";

/// The words by which the nvcc of `argv`, if it compiles an object in the build folder, makes the same one in any folder. A
/// source that is not below the work folder keeps its path; so does one whose name nvcc would take apart, at commas or by
/// the shell that it starts programs with.
pub(super) fn names(argv: &[OsString]) -> Vec<OsString> {
    let Some(at) = argv.iter().position(|word| word == "-c") else { return Vec::new() };
    let is_plain = |name: &&str| {
        name.starts_with(|c: char| c == '.' || c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "./_-+".contains(c))
    };
    let source = argv.get(at + 1).and_then(|word| word.to_str()).filter(is_plain);
    let of_source = source.map(|name| OsString::from(format!("{OF_SOURCE}{name}")));
    [OsString::from(OF_FILES)].into_iter().chain(of_source).collect()
}

/// Whether the steps of this major version of CUDA's nvcc are known to travel.
pub fn travels(cuda: Option<u32>) -> bool {
    cuda.is_some_and(|major| major >= OLDEST)
}

/// Names the file that says which object a step is for. A step that the farm did adds a line to it.
const PART_VARIABLE: &str = "TORCHMILL_PART_OF";

/// Where the host compiler's stand-in is.
const HOST: &str = "host-compiler";

/// What is not linked of the toolkit's programs.
const OWN: [&str; 5] = ["nvcc", "nvcc.profile", "cicc", "ptxas", "cudafe++"];

/// The nvcc of a build, and what stands in for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nvcc {
    /// nvcc, as the build's commands name it.
    program: PathBuf,
    /// The host compiler, as they name it.
    host: PathBuf,
    /// The folder of what stands in for both.
    folder: PathBuf,
}

impl Nvcc {
    /// Makes `folder` anew for the nvcc of `toolkit` and its compiler `host`, by names that the build's commands have;
    /// `launcher` is this program.
    ///
    /// # Errors
    /// The world: a part of the toolkit is missing, or the folder cannot be written.
    pub fn make(toolkit: &Path, host: &Path, folder: &Path, launcher: &Path) -> Result<Self> {
        if folder.exists() {
            remove_tree(folder)?;
        }
        let (bin, beside) = (toolkit.join("bin"), folder.join("bin"));
        let this = Self { program: bin.join("nvcc"), host: host.to_owned(), folder: folder.to_owned() };
        fs_err::create_dir_all(&beside)?;
        link_all(toolkit, folder, &["bin", HOST])?;
        link_all(&bin, &beside, &OWN)?;
        let (nvcc, own) = (fs_err::canonicalize(&this.program)?, beside.join("nvcc"));
        if fs_err::hard_link(&nvcc, &own).is_err() {
            fs_err::copy(&nvcc, &own)?;
        }
        let text = fs_err::read_to_string(bin.join("nvcc.profile"))?;
        fs_err::write(beside.join("nvcc.profile"), profile(&text, &bin.display().to_string()))?;
        for program in [toolkit.join("nvvm/bin/cicc"), bin.join("ptxas"), bin.join("cudafe++")] {
            stand_in(&beside, &fs_err::canonicalize(program)?, launcher)?;
        }
        stand_in(&folder.join(HOST), host, launcher)?;
        Ok(this)
    }

    /// `argv`, which compiles an object by this nvcc and host compiler, by what stands in for them.
    pub(super) fn instead(&self, argv: &[OsString]) -> Option<Vec<OsString>> {
        if Path::new(argv.first()?) != self.program || !argv.iter().any(|word| word == "-c") {
            return None;
        }
        let named = |host: &Path| [OsString::from("-ccbin="), host.into()].into_iter().collect::<OsString>();
        let host = named(&self.host);
        let at = argv.iter().position(|word| *word == host)?;
        let mut instead = argv.to_vec();
        instead[0] = self.folder.join("bin/nvcc").into();
        instead[at] = named(&self.folder.join(HOST).join(self.host.file_name()?));
        Some(instead)
    }
}

/// Compiles `output` by `argv`, of what stands in for an nvcc: whether the farm did any of its steps. `None` if that
/// failed: why it did, a compile by the toolkit's own finds out.
pub(super) fn compile(argv: &[OsString], output: &str) -> Option<bool> {
    let (program, rest) = argv.split_first()?;
    // Not in the folder that the engine writes to: a worker has no say in where objects came from.
    let about = tempfile::NamedTempFile::new().ok()?;
    std::fs::write(about.path(), format!("{output}\n")).ok()?;
    let said = Command::new(program).args(rest).env(PART_VARIABLE, about.path()).stdin(Stdio::null()).output().ok()?;
    if !said.status.success() {
        return None;
    }
    for text in [said.stdout, said.stderr] {
        let _ = std::io::stderr().write_all(&text);
    }
    Some(std::fs::read_to_string(about.path()).ok()?.lines().count() > 1)
}

/// What a step is for.
pub(super) struct Part {
    about: PathBuf,
    /// The object.
    pub output: String,
}

impl Part {
    /// That of the nvcc which started this process, if one that stands in for another did.
    pub fn of_environment() -> Option<Self> {
        let about = PathBuf::from(std::env::var_os(PART_VARIABLE)?);
        let output = std::fs::read_to_string(&about).ok()?.lines().next()?.to_owned();
        Some(Self { about, output })
    }

    /// Notes that the farm did the step; `None` if it cannot be noted.
    pub fn note(&self) -> Option<()> {
        std::fs::OpenOptions::new().append(true).open(&self.about).ok()?.write_all(b"farm\n").ok()
    }
}

/// Links in the folder `to` to all that is in `from` but these.
fn link_all(from: &Path, to: &Path, but: &[&str]) -> Result<()> {
    for entry in fs_err::read_dir(from)? {
        let name = entry?.file_name();
        if !but.iter().any(|own| name == *own) {
            platform::symlink(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

/// The toolkit's profile for an nvcc in another folder: programs are looked for beside it, and all else where it is from
/// the toolkit's `bin`.
fn profile(text: &str, bin: &str) -> String {
    let of = |line: &str| match line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next() {
        Some("CICC_PATH") => "CICC_PATH = $(_HERE_)\n".to_owned(),
        Some("PATH") => format!("{line}\n"),
        _ => format!("{}\n", line.replace("$(_HERE_)", bin)),
    };
    text.lines().map(of).collect()
}

/// Puts what stands in for `program` into `folder`, under its name.
fn stand_in(folder: &Path, program: &Path, launcher: &Path) -> Result<()> {
    let at = folder.join(program.file_name().unwrap_or_default());
    let (launcher, program) = (launcher.display().to_string(), program.display().to_string());
    let words = shlex::try_join([&*launcher, STEP_COMMAND, &*program])
        .map_err(|e| Error::world("farm", format!("{program} is no word of a shell: {e}")))?;
    fs_err::create_dir_all(folder)?;
    fs_err::write(&at, format!("#!/bin/sh\nexec {words} \"$@\"\n"))?;
    platform::mark_executable(&at, true)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// That of CUDA 13.0.88's package.
    const PROFILE: &str = "
TOP              = $(_HERE_)/..

CICC_PATH        = $(TOP)/nvvm/bin
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice

LD_LIBRARY_PATH += $(TOP)/lib:
PATH            += $(CICC_PATH):$(_HERE_):

INCLUDES        +=  \"-I$(TOP)/$(_TARGET_DIR_)/include\" $(_SPACE_)
";

    #[test]
    fn programs_are_looked_for_beside_the_other_nvcc_and_all_else_in_the_toolkit() {
        let of = profile(PROFILE, "/w/deps/cuda/bin");
        let changed: Vec<(&str, &str)> = PROFILE.lines().zip(of.lines()).filter(|(a, b)| a != b).collect();
        assert_eq!(PROFILE.lines().count(), of.lines().count());
        assert_eq!(
            changed.iter().map(|(_, line)| *line).collect::<Vec<_>>(),
            ["TOP              = /w/deps/cuda/bin/..", "CICC_PATH = $(_HERE_)"]
        );
    }

    /// A toolkit whose nvcc says what a step says that the farm did.
    fn toolkit(dir: &Path) -> PathBuf {
        let toolkit = dir.join("cuda");
        for folder in ["bin", "nvvm/bin", "include", "targets/x86_64-linux"] {
            std::fs::create_dir_all(toolkit.join(folder)).unwrap();
        }
        let nvcc = "#!/bin/sh\necho \"$1 $(cat \"$TORCHMILL_PART_OF\")\" >> \"$TORCHMILL_PART_OF\"\n";
        std::fs::write(toolkit.join("bin/nvcc"), nvcc).unwrap();
        std::fs::write(toolkit.join("bin/nvcc.profile"), PROFILE).unwrap();
        for name in ["bin/ptxas", "bin/cudafe++", "bin/fatbinary", "nvvm/bin/cicc"] {
            std::fs::write(toolkit.join(name), "").unwrap();
        }
        platform::mark_executable(&toolkit.join("bin/nvcc"), true).unwrap();
        toolkit
    }

    #[test]
    fn a_source_of_the_work_folder_has_one_name_in_any_folder_and_any_other_keeps_its_path() {
        let of = |command: &str| {
            let argv: Vec<OsString> = command.split(' ').map(OsString::from).collect();
            names(&argv).into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>()
        };
        for source in ["../aten/src/a.cu", "./gen/b-1.cu", "../../deps/cutlass/c++.cu", "d.cu"] {
            let word = format!("-Xcudafe=--orig_src_path_name={source}");
            assert_eq!(of(&format!("nvcc -x cu -c {source} -o a.o")), ["--objdir-as-tempdir", &*word]);
        }
        for other in ["/home/x/a.cu", "../a,b.cu", "../a$b.cu", "../a\"b.cu", "..\\a.cu", "-o"] {
            assert_eq!(of(&format!("nvcc -x cu -c {other} a.o")), ["--objdir-as-tempdir"], "{other}");
        }
        assert_eq!(of("nvcc -c"), ["--objdir-as-tempdir"]);
    }

    #[test]
    fn another_nvcc_stands_in_for_the_commands_of_one_with_a_host_compiler_and_for_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (toolkit, folder) = (toolkit(dir.path()), dir.path().join("farm.nvcc"));
        let make = || Nvcc::make(&toolkit, Path::new("/usr/bin/c++"), &folder, Path::new("/w/bin/it's")).unwrap();
        // What an earlier build left is in nobody's way.
        assert_eq!(make(), make());
        let nvcc = make();
        let script = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            shlex::split(text.strip_prefix("#!/bin/sh\n").unwrap()).unwrap()
        };
        assert_eq!(script("host-compiler/c++"), ["exec", "/w/bin/it's", STEP_COMMAND, "/usr/bin/c++", "$@"]);
        let cicc = std::fs::canonicalize(toolkit.join("nvvm/bin/cicc")).unwrap();
        assert_eq!(script("bin/cicc")[3], cicc.display().to_string());
        let is_link = |name: &str| folder.join(name).symlink_metadata().unwrap().is_symlink();
        assert!(["targets", "include", "bin/fatbinary"].iter().all(|name| is_link(name)));
        assert!(!["bin", "bin/nvcc", "bin/ptxas", "bin/cudafe++"].iter().any(|name| is_link(name)));
        let instead = |words: &str| {
            let argv: Vec<OsString> = words.split(' ').map(OsString::from).collect();
            Some(nvcc.instead(&argv)?.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>())
        };
        let program = toolkit.join("bin/nvcc").display().to_string();
        let at = |name: &str| folder.join(name).display().to_string();
        assert_eq!(
            instead(&format!("{program} -ccbin=/usr/bin/c++ -c a.cu -o a.o")).unwrap(),
            [&*at("bin/nvcc"), &*format!("-ccbin={}", at("host-compiler/c++")), "-c", "a.cu", "-o", "a.o"]
        );
        for other in
            ["nvcc -ccbin=/usr/bin/c++ -c", "PROGRAM -ccbin=/usr/bin/g++ -c", "PROGRAM -ccbin=/usr/bin/c++ a.o"]
        {
            assert_eq!(instead(&other.replace("PROGRAM", &program)), None, "{other}");
        }
        // It is told the object, and is asked whether the farm did a step of it.
        let argv = [OsString::from(folder.join("bin/nvcc")), OsString::from("x")];
        assert_eq!(compile(&argv, "a.o"), Some(true));
        assert_eq!(compile(&["true".into()], "a.o"), Some(false));
        assert_eq!(compile(&["false".into()], "a.o"), None);
    }
}
