//! What a compiler does not tell of sources that are compiled in one piece: names that two of them declare. Of two things
//! of one name the nearer scope is taken, without a word, and may be the other source's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use torchmill_bytes::declared::declared;
use torchmill_bytes::names::below;

use super::Work;
use crate::error::Result;
use crate::store::write_atomically;

/// A name in one piece.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubled {
    /// The piece, below the build's folder `unity`.
    pub piece: String,
    /// What several of its sources declare.
    pub name: String,
    /// Those sources, from the top of the tree or of the build folder, each with the namespaces that it declares it in.
    pub sources: Vec<String>,
}

/// What there is of it.
#[derive(Debug, Default)]
pub struct Found {
    /// Sources that were read.
    pub read: usize,
    /// Sources that the build generates only later, and which were not.
    pub later: usize,
    /// The names, by piece.
    pub doubled: Vec<Doubled>,
}

impl Found {
    /// For people: a name a line, and its sources.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = format!(
            "Names that two sources of one piece declare, of {} sources ({} are generated later).\n\
             Of two things of one name the nearer scope is taken, without a word.\n",
            self.read, self.later
        );
        for doubled in &self.doubled {
            text.push_str(&format!("\n{} {}\n", doubled.piece, doubled.name));
            doubled.sources.iter().for_each(|source| text.push_str(&format!("  {source}\n")));
        }
        text
    }
}

/// Looks through the pieces of a configured build, and writes what it finds to the log `pieces`; where that is.
///
/// # Errors
/// The world: a file cannot be read or written.
pub fn look(work: &Work) -> Result<(Found, PathBuf)> {
    let found = doubled(&work.build(), &work.src())?;
    let log = work.log("pieces");
    write_atomically(&log, found.shown().as_bytes())?;
    Ok((found, log))
}

/// Names that two sources of one piece declare, of the pieces in `build` and the tree in `src`.
fn doubled(build: &Path, src: &Path) -> Result<Found> {
    let mut found = Found::default();
    let pieces = walkdir::WalkDir::new(build.join("unity")).sort_by_file_name();
    for piece in pieces.into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
        let text = fs_err::read_to_string(piece.path())?;
        let listed = |begins: &'static str| text.lines().filter_map(move |line| line.strip_prefix(begins));
        let undefined: Vec<&str> = listed("#undef ").collect();
        // Another one in each source.
        let renamed: Vec<&str> = listed("#define ").filter_map(|line| line.split(' ').next()).collect();
        let names: Vec<&str> = listed("#include \"").filter_map(|name| name.strip_suffix('"')).collect();
        let read = names
            .par_iter()
            .map(|name| {
                // As the compiler finds it: in the build folder first.
                let Some(path) = [build, src].iter().map(|top| top.join(name)).find(|path| path.is_file()) else {
                    return Ok(None);
                };
                let mut declared = declared(&String::from_utf8_lossy(&fs_err::read(path)?));
                declared.retain(|name, scopes| {
                    let name = name.as_str();
                    !renamed.contains(&name) && (!undefined.contains(&name) || scopes.len() > 1)
                });
                Ok(Some((*name, declared)))
            })
            .collect::<Result<Vec<_>>>()?;
        found.later += read.iter().filter(|one| one.is_none()).count();
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (source, declared) in read.into_iter().flatten() {
            found.read += 1;
            for (name, scopes) in declared {
                let scopes: Vec<String> =
                    scopes.into_iter().map(|scope| if scope.is_empty() { "::".into() } else { scope }).collect();
                by_name.entry(name).or_default().push(format!("{source} ({})", scopes.join(", ")));
            }
        }
        let place = below(&build.join("unity"), piece.path());
        let doubled = by_name.into_iter().filter(|(_, sources)| sources.len() > 1);
        found.doubled.extend(doubled.map(|(name, sources)| Doubled { piece: place.clone(), name, sources }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_two_sources_of_a_piece_is_found_but_not_what_the_piece_takes_back_or_renames() {
        let dir = tempfile::tempdir().unwrap();
        let (build, src) = (dir.path().join("build"), dir.path());
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let include = |names: &[&str]| -> String {
            let line = |(i, name): (usize, &&str)| {
                format!("#define own own_{i}\n#include \"{name}\"\n#undef ONLY\n#undef own\n")
            };
            names.iter().enumerate().map(line).collect()
        };
        write("build/unity/t/0-0.cpp", &include(&["x/a.cpp", "x/b.cpp", "generated/c.cpp", "x/later.cpp"]));
        write("build/unity/t/0-1.cpp", &include(&["x/d.cpp", "x/e.cpp"]));
        write("x/a.cpp", "#define ONLY 1\nnamespace n { static int _module; static int own; }\nint a;");
        write("x/b.cpp", "#define ONLY 1\nstatic int _module = 3;\nstatic int own;\nint b;");
        write("build/generated/c.cpp", "int c();");
        write("x/d.cpp", "int a;");
        write("x/e.cpp", "int e() { int a; return a; }");
        let found = doubled(&build, src).unwrap();
        assert_eq!((found.read, found.later), (5, 1));
        let expected = Doubled {
            piece: "t/0-0.cpp".into(),
            name: "_module".into(),
            sources: vec!["x/a.cpp (n)".into(), "x/b.cpp (::)".into()],
        };
        assert_eq!(found.doubled, [expected]);
        assert!(found.shown().contains("t/0-0.cpp _module\n  x/a.cpp (n)\n  x/b.cpp (::)\n"), "{}", found.shown());
    }
}
