//! Sources that are compiled several at a time: a CMake target's unity build.

use std::path::Path;

use super::model::Unity;
use crate::error::{Error, Result};

/// Most sources of one batch: more would make one compile the whole build's end.
const LARGEST_BATCH: u32 = 64;

impl Unity {
    /// Whether it changes anything.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.batch > 1
    }

    /// A pattern of paths as CMake's regular expression: `*` stands for anything, `/` included, all else for itself.
    #[must_use]
    pub fn regex(pattern: &str) -> String {
        let mut regex = String::from("^");
        for c in pattern.chars() {
            match c {
                '*' => regex.push_str(".*"),
                // What has a meaning of its own to CMake, and may stand in a file's name.
                '.' | '+' => regex.extend(['[', c, ']']),
                other => regex.push(other),
            }
        }
        regex.push('$');
        regex
    }
}

/// Holds what a recipe says of a target's batches against what CMake can be told.
///
/// # Errors
/// Bad input: a size that is none, or a text that is no target, no path.
pub(super) fn check(target: &str, unity: &Unity, path: &Path) -> Result<()> {
    let wrong = |what: String, next: &str| {
        Err(Error::misuse("recipe", format!("{}: unity.{target}: {what}", path.display())).next(next))
    };
    let plain = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if !plain(target, "_-.+") {
        return wrong("this is no name of a CMake target".into(), "such as torch_cpu or torch_python");
    }
    if unity.batch == 0 || unity.batch > LARGEST_BATCH {
        return wrong(
            format!("batch is {}", unity.batch),
            &format!("from 2 to {LARGEST_BATCH} sources, or 1: each by itself"),
        );
    }
    let no_name = |name: &&String| !plain(name, "_") || name.starts_with(|c: char| c.is_ascii_digit());
    if let Some(name) = unity.undefine.iter().find(no_name) {
        return wrong(format!("'{name}' is no name of a macro"), "such as TORCH_ASSERT_ONLY_METHOD_OPERATORS");
    }
    if let Some(name) = unity.rename.iter().find(no_name) {
        return wrong(format!("'{name}' is no name in C++"), "such as addClass: by itself, without its namespace");
    }
    for pattern in unity.sources.iter().chain(&unity.alone) {
        let inside = !pattern.starts_with('/') && !pattern.split('/').any(|part| part == "..");
        if !plain(pattern, "_-.+/*") || !inside {
            return wrong(
                format!("'{pattern}' is no path from the top of the tree"),
                "such as torch/csrc/jit/*.cpp: letters, digits, . _ - + / and *",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unity(batch: u32, alone: &[&str]) -> Unity {
        let alone = alone.iter().map(|&p| p.to_owned()).collect();
        Unity { batch, sources: Vec::new(), alone, undefine: Vec::new(), rename: Vec::new() }
    }

    #[test]
    fn a_pattern_stands_for_itself_but_for_the_star() {
        assert_eq!(Unity::regex("torch/csrc/a+b.cpp"), "^torch/csrc/a[+]b[.]cpp$");
        assert_eq!(Unity::regex("torch/*_0.cpp"), "^torch/.*_0[.]cpp$");
    }

    #[test]
    fn only_names_are_undefined_and_renamed() {
        let taken = |name: &str| {
            let is_ok = |unity: Unity| check("t", &unity, Path::new("r.toml")).is_ok();
            let name = vec![name.to_owned()];
            let undefined = is_ok(Unity { undefine: name.clone(), ..unity(2, &[]) });
            assert_eq!(undefined, is_ok(Unity { rename: name, ..unity(2, &[]) }));
            undefined
        };
        assert!(taken("TORCH_ASSERT_NO_OPERATORS") && taken("_x1"));
        for name in ["", "1X", "A B", "A\n#error", "A;B", "n::f"] {
            assert!(!taken(name), "{name}");
        }
    }

    #[test]
    fn what_cmake_would_read_otherwise_is_refused() {
        let check = |target: &str, unity: &Unity| check(target, unity, Path::new("r.toml"));
        assert!(check("torch_cpu", &unity(8, &["a/*.cpp"])).is_ok());
        assert!(check("torch_cpu", &unity(1, &[])).is_ok());
        for (target, unity) in [
            ("torch_cpu", unity(0, &[])),
            ("torch_cpu", unity(65, &[])),
            ("torch cpu", unity(8, &[])),
            ("", unity(8, &[])),
            ("torch_cpu", unity(8, &["/etc/x.cpp"])),
            ("torch_cpu", unity(8, &["a/../b.cpp"])),
            ("torch_cpu", unity(8, &["a;b.cpp"])),
            ("torch_cpu", unity(8, &["${HOME}/b.cpp"])),
            ("torch_cpu", unity(8, &["a]==]b"])),
            ("torch_cpu", unity(8, &[""])),
        ] {
            let error = check(target, &unity).unwrap_err();
            assert_eq!(error.exit(), crate::error::Exit::Misuse, "{target} {unity:?}");
        }
    }
}
