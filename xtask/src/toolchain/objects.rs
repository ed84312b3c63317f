//! Compiled objects that came from elsewhere: what one is known by, and how the launcher puts one in place of a
//! compile. Who made them, and whether anybody trusts whoever did, was settled before they came here.
//!
//! ```text
//! FOLDER/
//!   about.json                  what they are, and the system's headers that they were compiled with
//!   entries/<SHA-256 of output> an object by what the build calls it: an [`Entry`] as JSON
//!   reads/<SHA-256>             the names of all files that a compile read, one a line
//!   objects/<SHA-256>           what it wrote
//! ```
//! An object stands in for a compile only if the command is the same, word for word, and every file that the compile
//! read has the bytes that it had there: what ccache asks of an entry of its direct mode. Names are relative to the
//! build folder, so they are those of any machine; what is below the folder of Python's headers begins with
//! `PYTHON`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::platform;
use crate::recipe::is_sha256;
use crate::store::{digest_reader, read_if_there, remove_if_there};

/// Names the file with the [`Supply`] of a build to its launchers.
pub const SUPPLY_VARIABLE: &str = "TORCHMILL_OBJECTS";

/// Stands for the folder of Python's headers, which is another one on every machine.
const PYTHON: &str = "{python}";

/// The folders of a system's own headers: the same path on every machine that has the same packages.
const SYSTEM: [&str; 3] = ["/usr/", "/lib/", "/opt/"];

/// Most bytes of a source or a header.
const MOST_INPUT: u64 = 1 << 30;

/// The file of a work folder that says which objects of an archive were put in place, and which were compiled after all.
pub const NOTES: &str = "objects.notes";

/// The same of objects that a farm compiled.
pub const FARM_NOTES: &str = "farm.notes";

/// One object, by the command that makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What the build calls it, relative to the build folder.
    pub output: String,
    /// Digest of the command, see [`command_digest`].
    pub command: String,
    /// Digest of the list of the files that it read.
    pub reads: String,
    /// Digest of what they hold, see [`inputs_digest`].
    pub inputs: String,
    /// Digest of the object.
    pub object: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Entry {
    /// What is wrong with it, if it is none of ours: its digests become parts of paths.
    pub fn fault(&self) -> Option<String> {
        let digests = [&self.command, &self.reads, &self.inputs, &self.object];
        if let Some(bad) = digests.into_iter().find(|d| !is_sha256(d)) {
            return Some(format!("'{}' is not a SHA-256", bad.escape_debug()));
        }
        (!is_plain(&self.output)).then(|| format!("'{}' is no object of a build folder", self.output.escape_debug()))
    }

    /// The name of the file that it is kept in.
    pub fn file(output: &str) -> String {
        hex::encode(Sha256::digest(output))
    }
}

/// Whether `name` is a relative path that leaves no folder, and that ninja's files can carry.
pub fn is_plain(name: &str) -> bool {
    let segments = || name.split('/');
    !name.is_empty()
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || "\\:#$%".contains(c))
        && segments().all(|s| !s.is_empty() && s != "." && s != "..")
}

/// Where objects are, and what this machine calls what they name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supply {
    /// The folder.
    pub folder: PathBuf,
    /// The folder of Python's headers.
    pub python: String,
}

impl Supply {
    /// That of the build which this process belongs to, if it has one.
    pub fn of_environment() -> Option<Self> {
        let path = std::env::var_os(SUPPLY_VARIABLE)?;
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// The objects' own file `name` in their folder `kind`.
    fn file(&self, kind: &str, name: &str) -> PathBuf {
        self.folder.join(kind).join(name)
    }

    /// Puts the object that `argv` would compile to `output` in its place, with the list of files that ninja wants to
    /// know. The working directory is the build folder, and `argv` relative to it. `false` if there is none that fits:
    /// then it has to be compiled. Either is noted in the folder `work`.
    pub fn deliver(&self, work: &Path, argv: &[String], output: &str) -> bool {
        self.entry(output).is_some_and(|entry| self.put_noted(work, &entry, argv, output))
    }

    fn put_noted(&self, work: &Path, entry: &Entry, argv: &[String], output: &str) -> bool {
        // Noted before: what stands there and is noted nowhere would count as compiled here, and no sample is drawn of it.
        let put = note(work, NOTES, true, &entry.object, output).and_then(|()| self.put(entry, argv, output)).is_some();
        if !put {
            note(work, NOTES, false, &entry.object, output);
        }
        put
    }

    /// What is known of `output`.
    pub fn entry(&self, output: &str) -> Option<Entry> {
        let text = std::fs::read(self.file("entries", &Entry::file(output))).ok()?;
        let entry: Entry = serde_json::from_slice(&text).ok()?;
        (entry.output == output && entry.fault().is_none()).then_some(entry)
    }

    fn put(&self, entry: &Entry, argv: &[String], output: &str) -> Option<()> {
        let depfile = following(argv, "-MF")?;
        if !argv.iter().any(|a| a == "-c") || entry.command != command_digest(argv, &self.python) {
            return None;
        }
        let names = std::fs::read_to_string(self.file("reads", &entry.reads)).ok()?;
        let names: Vec<&str> = names.lines().collect();
        let inputs = inputs_digest(&names, |name| digest_of_input(Path::new(&real(name, &self.python))))?;
        if inputs != entry.inputs {
            return None;
        }
        let bytes = std::fs::read(self.file("objects", &entry.object)).ok()?;
        if hex::encode(Sha256::digest(&bytes)) != entry.object {
            return None;
        }
        let target = following(argv, "-MT").unwrap_or(output);
        let paths: Vec<String> = names.iter().map(|name| real(name, &self.python)).collect();
        std::fs::write(depfile, format!("{target}: \\\n {}\n", paths.join(" \\\n "))).ok()?;
        place(&bytes, Path::new(output))
    }
}

/// Puts an object or its list of files in place, whole or not at all.
pub(super) fn place(bytes: &[u8], at: &Path) -> Option<()> {
    // A name that nobody else has: in two containers, two processes may have one number.
    let dir = at.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut fresh = tempfile::Builder::new().prefix(".torchmill-").tempfile_in(dir).ok()?;
    fresh.write_all(bytes).ok()?;
    platform::make_readable(fresh.as_file()).ok()?;
    platform::persist(fresh, at).ok()
}

/// The argument after `flag`.
fn following<'a>(argv: &'a [String], flag: &str) -> Option<&'a str> {
    let at = argv.iter().position(|a| a == flag)?;
    argv.get(at + 1).map(String::as_str)
}

/// Digest of a compile command that is relative to the build folder. Of the compiler only its file's name counts: which
/// compiler it is was asked when the objects came in.
pub fn command_digest(argv: &[String], python: &str) -> String {
    let mut hash = Sha256::new();
    for (i, word) in argv.iter().enumerate() {
        let word = if i == 0 { word.rsplit('/').next().unwrap_or(word).to_owned() } else { portable(word, python) };
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// Digest of the names of files and of what they hold; `None` where one cannot be read.
pub fn inputs_digest(names: &[&str], mut digest: impl FnMut(&str) -> Option<String>) -> Option<String> {
    let mut hash = Sha256::new();
    for name in names {
        hash.update(format!("{}  {name}\n", digest(name)?));
    }
    Some(hex::encode(hash.finalize()))
}

/// SHA-256 of a file that a compile read, as an archive of others names it; `None` where there is none. It may name
/// anything: of a device there is no end, and a pipe keeps whoever opens it waiting.
pub fn digest_of_input(path: &Path) -> Option<String> {
    let file = platform::open_regular(path, true).ok()?;
    let (sha256, size) = digest_reader(&mut file.take(MOST_INPUT + 1)).ok()?;
    (size <= MOST_INPUT).then_some(sha256)
}

/// `text` with the folder of Python's headers by its name.
pub fn portable(text: &str, python: &str) -> String {
    match text.find(python) {
        Some(at) if !python.is_empty() && is_end(&text[at + python.len()..]) => {
            format!("{}{PYTHON}{}", &text[..at], &text[at + python.len()..])
        }
        _ => text.to_owned(),
    }
}

fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['/', '"'])
}

/// The path on this machine of what is called `name`.
pub fn real(name: &str, python: &str) -> String {
    name.strip_prefix(PYTHON).map_or_else(|| name.to_owned(), |rest| format!("{python}{rest}"))
}

/// Whether a name means the same file on another machine: it is relative, or below Python's headers or the system's.
pub fn travels(name: &str) -> bool {
    let named = name.starts_with(PYTHON) || SYSTEM.iter().any(|folder| name.starts_with(folder));
    (named || !name.starts_with('/')) && !name.contains(|c: char| c.is_whitespace() || "\\:#$%".contains(c))
}

/// Whether a name is that of a file of the system, which no tree and no package of the lock holds.
pub fn is_outside(name: &str) -> bool {
    name.starts_with('/') || name.starts_with(PYTHON)
}

/// Notes in the file `notes` of the work folder `work` that an object was put in place, or compiled here after all; `None`
/// if it cannot be noted.
pub fn note(work: &Path, notes: &str, put: bool, object: &str, output: &str) -> Option<()> {
    let line = format!("{}{object} {output}\n", if put { '+' } else { '-' });
    // One write of one line to a file that is only appended to.
    let file = std::fs::OpenOptions::new().create(true).append(true).open(work.join(notes));
    file.and_then(|mut file| file.write_all(line.as_bytes())).ok()
}

/// What of an archive was put in place in the work folder `work` and not compiled since: output → SHA-256.
///
/// # Errors
/// The world: the notes are there and cannot be read.
pub fn delivered(work: &Path) -> Result<BTreeMap<String, String>> {
    noted(work, NOTES)
}

/// The same of what a farm compiled.
///
/// # Errors
/// As [`delivered`].
pub fn farmed(work: &Path) -> Result<BTreeMap<String, String>> {
    noted(work, FARM_NOTES)
}

fn noted(work: &Path, notes: &str) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    let text = read_if_there(&work.join(notes))?.unwrap_or_default();
    for line in String::from_utf8_lossy(&text).lines() {
        let Some((digest, output)) = line.split_once(' ') else { continue };
        match digest.strip_prefix('+') {
            Some(digest) => out.insert(output.to_owned(), digest.to_owned()),
            None => out.remove(output),
        };
    }
    Ok(out)
}

/// Forgets what of an archive was put in place in the work folder `work`.
///
/// # Errors
/// The world: the notes cannot be removed.
pub fn forget(work: &Path) -> Result<()> {
    remove_if_there(&work.join(NOTES))
}

/// The same of what a farm compiled.
///
/// # Errors
/// As [`forget`].
pub fn forget_farmed(work: &Path) -> Result<()> {
    remove_if_there(&work.join(FARM_NOTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PY: &str = "/usr/include/python3.11";

    fn argv(words: &str) -> Vec<String> {
        words.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_command_is_the_same_wherever_compiler_and_python_stand_and_another_word_makes_another() {
        let one = command_digest(&argv("/usr/bin/c++ -I/usr/include/python3.11/x -c ../a.cpp -o a.o"), PY);
        let two = command_digest(&argv("/opt/gcc/bin/c++ -I/home/x/py/x -c ../a.cpp -o a.o"), "/home/x/py");
        assert_eq!(one, two);
        for other in ["/usr/bin/cc -I/usr/include/python3.11/x -c ../a.cpp -o a.o", "/usr/bin/c++ -c ../a.cpp -o a.o"] {
            assert_ne!(one, command_digest(&argv(other), PY));
        }
        // No two lists of words run together.
        assert_ne!(command_digest(&argv("c++ -DA -DB"), ""), command_digest(&argv("c++ -DA-DB"), ""));
    }

    #[test]
    fn pythons_headers_have_a_name_of_their_own_and_a_longer_folder_is_another_one() {
        assert_eq!(portable("-isystem/usr/include/python3.11", PY), "-isystem{python}");
        assert_eq!(portable("/usr/include/python3.11d/Python.h", PY), "/usr/include/python3.11d/Python.h");
        assert_eq!(real("{python}/Python.h", "/p"), "/p/Python.h");
        assert_eq!(real("../a.h", "/p"), "../a.h");
        assert!(travels("{python}/Python.h") && travels("/usr/include/a.h") && travels("../a.h"));
        assert!(!travels("/home/x/a.h") && !travels("../a b.h"));
    }

    #[test]
    fn what_another_process_of_the_same_number_is_writing_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (object, others) = (dir.path().join("a.o"), dir.path().join("others"));
        std::fs::write(&others, "half").unwrap();
        let beside = dir.path().join(format!("a.o.torchmill-{}", std::process::id()));
        std::fs::hard_link(&others, &beside).unwrap();
        place(b"object", &object).unwrap();
        assert_eq!(std::fs::read(&object).unwrap(), b"object");
        assert_eq!(std::fs::read(&beside).unwrap(), b"half");
        // Nothing of its own stays, also where nothing can be put.
        assert!(place(b"object", &dir.path().join("none/a.o")).is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_name_that_leaves_the_build_folder_is_no_output() {
        assert!(is_plain("caffe2/CMakeFiles/torch_cpu.dir/__/a.cpp.o"));
        for bad in ["", "/a.o", "../a.o", "a/../b.o", "a//b.o", "./a.o", "a b.o", "a\\b.o", "C:a.o"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }

    #[test]
    fn an_object_is_put_in_place_only_for_the_same_command_and_the_same_inputs() {
        let dir = tempfile::tempdir().unwrap();
        let (at, work) = (|name: &str| dir.path().join(name).display().to_string(), dir.path().join("work"));
        let supply = Supply { folder: dir.path().join("objects-from-elsewhere"), python: String::new() };
        for kind in ["entries", "reads", "objects"] {
            std::fs::create_dir_all(supply.folder.join(kind)).unwrap();
        }
        std::fs::create_dir_all(&work).unwrap();
        std::fs::write(at("a.h"), "int a;").unwrap();
        let sha = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
        let (output, list) = (at("a.o"), format!("{}\n", at("a.h")));
        let command = vec!["c++".to_owned(), "-MF".into(), at("a.o.d"), "-c".into(), "-o".into(), output.clone()];
        let names: Vec<&str> = list.lines().collect();
        let entry = Entry {
            output: output.clone(),
            command: command_digest(&command, ""),
            reads: sha(list.as_bytes()),
            inputs: inputs_digest(&names, |n| digest_of_input(Path::new(n))).unwrap(),
            object: sha(b"object"),
            size: 6,
        };
        std::fs::write(supply.file("reads", &entry.reads), &list).unwrap();
        std::fs::write(supply.file("objects", &entry.object), "object").unwrap();
        assert!(supply.put(&entry, &command, &output).is_some());
        assert_eq!(std::fs::read(&output).unwrap(), b"object");
        assert_eq!(std::fs::read_to_string(at("a.o.d")).unwrap(), format!("{output}: \\\n {}\n", at("a.h")));
        note(&work, NOTES, true, &entry.object, &output).unwrap();
        assert_eq!(delivered(&work).unwrap().get(&output), Some(&entry.object));
        // Another flag, another header, another object: none of them fits.
        let more = [command.clone(), vec!["-O0".into()]].concat();
        assert!(supply.put(&entry, &more, &output).is_none());
        std::fs::write(at("a.h"), "int b;").unwrap();
        assert!(supply.put(&entry, &command, &output).is_none());
        std::fs::write(at("a.h"), "int a;").unwrap();
        std::fs::write(supply.file("objects", &entry.object), "poison").unwrap();
        assert!(supply.put(&entry, &command, &output).is_none());
        if cfg!(unix) {
            assert_eq!(digest_of_input(Path::new("/dev/zero")), None);
        }
        note(&work, NOTES, false, &entry.object, &output).unwrap();
        assert!(delivered(&work).unwrap().is_empty());
        // Nothing comes to stand there that cannot be noted, and notes that cannot be read are not none.
        std::fs::write(supply.file("objects", &entry.object), "object").unwrap();
        std::fs::remove_file(&output).unwrap();
        std::fs::remove_file(work.join(NOTES)).unwrap();
        std::fs::create_dir(work.join(NOTES)).unwrap();
        assert!(!supply.put_noted(&work, &entry, &command, &output) && !Path::new(&output).exists());
        assert!(delivered(&work).is_err());
        std::fs::remove_dir(work.join(NOTES)).unwrap();
        assert!(supply.put_noted(&work, &entry, &command, &output));
        assert_eq!(delivered(&work).unwrap().get(&output), Some(&entry.object));
    }
}
