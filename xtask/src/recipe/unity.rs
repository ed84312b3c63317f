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
    if let Some(name) = unity.undefine.iter().find(|n| !plain(n, "_") || n.starts_with(|c: char| c.is_ascii_digit())) {
        return wrong(format!("'{name}' is no name of a macro"), "such as TORCH_ASSERT_ONLY_METHOD_OPERATORS");
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
        Unity { batch, sources: Vec::new(), alone, undefine: Vec::new() }
    }

    #[test]
    fn a_pattern_stands_for_itself_but_for_the_star() {
        assert_eq!(Unity::regex("torch/csrc/a+b.cpp"), "^torch/csrc/a[+]b[.]cpp$");
        assert_eq!(Unity::regex("torch/*_0.cpp"), "^torch/.*_0[.]cpp$");
    }

    #[test]
    fn only_the_name_of_a_macro_is_undefined() {
        let undefine = |name: &str| {
            check("t", &Unity { undefine: vec![name.into()], ..unity(2, &[]) }, Path::new("r.toml")).is_ok()
        };
        assert!(undefine("TORCH_ASSERT_NO_OPERATORS") && undefine("_x1"));
        assert!(!undefine("") && !undefine("1X") && !undefine("A B") && !undefine("A\n#error") && !undefine("A;B"));
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
