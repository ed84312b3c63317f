//! What this program is called by: `cargo xtask` in a clone, `torchmill` where it was installed.

use std::borrow::Cow;

/// What its texts call it: the name in a clone.
const IN_A_CLONE: &str = "cargo xtask";
/// The name of the installed program.
pub const INSTALLED: &str = "torchmill";

/// Whether cargo runs it: cargo tells the programs that it runs which package they are of.
pub fn run_by_cargo() -> bool {
    std::env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == env!("CARGO_PKG_NAME"))
}

/// A text of this program's, with its commands as whoever runs it can type them.
pub fn as_typed(text: &str) -> Cow<'_, str> {
    if run_by_cargo() || !text.contains(IN_A_CLONE) { text.into() } else { installed(text).into() }
}

/// A text with the commands of the installed program.
pub fn installed(text: &str) -> String {
    text.replace(IN_A_CLONE, INSTALLED)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_installed_program_names_itself() {
        assert_eq!(super::installed("run `cargo xtask lock` and cargo test"), "run `torchmill lock` and cargo test");
    }
}
