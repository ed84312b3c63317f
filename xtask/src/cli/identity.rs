//! What this program says of itself: its version, the commit that it was built from, and its help, with commands
//! as whoever runs it can type them.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::error::without_secrets;
use crate::ui::{self, name};

/// The version, and the commit where it is asked for.
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let version = env!("CARGO_PKG_VERSION");
        let asked = std::env::args_os().skip(1).any(|a| a == "--version" || a == "-V");
        match asked.then(commit).flatten() {
            Some(commit) => format!("{version} ({commit})"),
            None if asked => format!("{version} (commit not known)"),
            None => version.to_owned(),
        }
    })
}

/// What a release carries; in a clone, what is checked out there.
fn commit() -> Option<String> {
    if let Some(commit) = option_env!("TORCHMILL_COMMIT") {
        return Some(commit.to_owned());
    }
    let clone = super::common::clone_of_this_program()?;
    let repository = git2::Repository::open(clone).ok()?;
    let head = repository.head().ok()?.peel_to_commit().ok()?;
    Some(format!("{}, a development build", head.id()))
}

/// Prints help, the version, or what is wrong with the command line. clap repeats what was typed, which may be a key or a
/// password in the wrong place, or the name of a file that others chose.
pub fn print(e: &clap::Error) {
    let text = e.render();
    let plain = text.to_string();
    let discreet = without_secrets(&plain);
    let is_plain = |typed: std::ffi::OsString| matches!(ui::visible(&typed.to_string_lossy()), Cow::Borrowed(_));
    if e.use_stderr() && (discreet != plain || !std::env::args_os().all(is_plain)) {
        // Without colours, which would stand between its words. Of half a key nobody knows where it ends: the rest is gone.
        eprintln!("{}", ui::visible(&name::as_typed(discreet.trim_end())));
        return;
    }
    if name::run_by_cargo() {
        let _ = e.print();
        return;
    }
    let coloured = if e.use_stderr() { ui::colours() } else { ui::colours_of_results() };
    let text = if coloured { text.ansi().to_string() } else { plain };
    let text = name::as_typed(&text);
    if e.use_stderr() { eprint!("{text}") } else { print!("{text}") }
}
