//! The compile commands of a configured build, and what each of them read, as ninja knows it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::stage::work::Work;
use crate::toolchain::{LAUNCH_COMMAND, Launch};

/// A command that makes an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The object, relative to the build folder.
    pub output: String,
    /// The compiler and its arguments, as ninja has them.
    pub argv: Vec<String>,
    /// Why it cannot be known again on another machine, if so.
    pub odd: Option<&'static str>,
}

impl Command {
    /// Compiler and arguments as the launcher hands them on: relative to the build folder.
    pub fn relative(&self, work: &Work) -> Vec<String> {
        let launch = Launch { work: work.dir.display().to_string() };
        let rest = self.argv.iter().skip(1).map(|word| launch.rewrite(word));
        self.argv.first().cloned().into_iter().chain(rest).collect()
    }
}

/// One line of ninja's compilation database.
#[derive(Deserialize)]
struct Edge {
    command: String,
    output: String,
}

/// All compile commands of the build in `work`, by their outputs.
///
/// # Errors
/// ninja cannot be run, or prints what is no compilation database.
pub fn commands(work: &Work) -> Result<BTreeMap<String, Command>> {
    let text = work.ask_ninja(&["-t", "compdb"])?;
    let edges: Vec<Edge> = serde_json::from_slice(&text)
        .map_err(|e| Error::world("ninja", format!("ninja's compilation database cannot be read: {e}")))?;
    let launcher = [work.launcher().display().to_string(), LAUNCH_COMMAND.into(), work.dir.display().to_string()];
    Ok(edges.into_iter().filter_map(|edge| command(&launcher, edge)).map(|c| (c.output.clone(), c)).collect())
}

/// The command of an edge, if it compiles.
fn command(launcher: &[String; 3], edge: Edge) -> Option<Command> {
    let words = shlex::split(&edge.command)?;
    if !words.iter().any(|w| w == "-c") || !edge.output.ends_with(".o") {
        return None;
    }
    let ours = words.get(..3).is_some_and(|begin| begin == launcher);
    let argv = if ours { words[3..].to_vec() } else { words };
    let odd = if !ours {
        Some("a project of the tree starts its compiler past torchmill's launcher")
    } else if argv.iter().any(|w| ["&&", "||", ";", "|", ">"].contains(&w.as_str())) {
        Some("the command is more than a compile")
    } else if argv.iter().any(|w| w.starts_with('@') || w == "--options-file" || w == "-optf") {
        Some("a part of the command stands in a file")
    } else if !argv.iter().any(|w| w == "-MF") {
        Some("the compiler does not say what it reads")
    } else {
        None
    };
    Some(Command { output: edge.output, argv, odd })
}

/// What each command read: output → paths, as ninja wrote them down.
///
/// # Errors
/// ninja cannot be run.
pub fn reads(work: &Work) -> Result<BTreeMap<String, Vec<String>>> {
    Ok(parse_reads(&String::from_utf8_lossy(&work.ask_ninja(&["-t", "deps"])?)))
}

/// Reads what `ninja -t deps` prints: a line that names an output, and an indented one for each file.
fn parse_reads(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("    ") {
            if let Some(output) = &current {
                out.entry(String::clone(output)).or_default().push(path.to_owned());
            }
        } else {
            // What is older than its object is not what that object was made of.
            current =
                line.split_once(": #deps ").filter(|(_, rest)| rest.ends_with("(VALID)")).map(|(o, _)| o.to_owned());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launcher() -> [String; 3] {
        ["/w/bin/torchmill", LAUNCH_COMMAND, "/w"].map(str::to_owned)
    }

    fn of(command: &str) -> Option<Command> {
        super::command(&launcher(), Edge { command: command.into(), output: "a.o".into() })
    }

    #[test]
    fn a_compile_is_told_from_what_cannot_be_known_again() {
        let plain =
            of("/w/bin/torchmill __launch /w /usr/bin/c++ -DX=\\\"y\\\" -MD -MF a.o.d -o a.o -c /w/src/a.cpp").unwrap();
        assert_eq!((plain.argv[0].as_str(), plain.argv[1].as_str(), plain.odd), ("/usr/bin/c++", "-DX=\"y\"", None));
        let work = Work { dir: "/w".into() };
        assert_eq!(plain.relative(&work).last().map(String::as_str), Some("../a.cpp"));
        let odd = |command: &str| of(command).unwrap().odd.unwrap();
        assert!(odd("/usr/bin/ccache cc -MF a.o.d -o a.o -c a.c").contains("past torchmill's launcher"));
        assert!(
            odd("/w/bin/torchmill __launch /w cc -MF d -o a.o -c a.c && strip a.o").contains("more than a compile")
        );
        assert!(odd("/w/bin/torchmill __launch /w nvcc --options-file x -MF d -o a.o -c a.cu").contains("in a file"));
        assert!(odd("/w/bin/torchmill __launch /w cc -o a.o -c a.c").contains("does not say"));
        assert_eq!(of("/usr/bin/ar qc a.a a.o"), None);
    }

    #[test]
    fn what_ninja_says_of_a_stale_object_is_not_taken() {
        let text = "a.o: #deps 2, deps mtime 1 (VALID)\n    ../a.c\n    /usr/include/a.h\n\nb.o: #deps 1, deps mtime 1 (STALE)\n    ../b.c\n\n";
        let reads = parse_reads(text);
        assert_eq!(reads.len(), 1);
        assert_eq!(reads["a.o"], ["../a.c", "/usr/include/a.h"]);
    }
}
