//! Ctrl-C, SIGTERM, a terminal that goes away: the first press ends every command, each in its way.

use std::time::Duration;

use crate::error::Exit;
use crate::{platform, ui};

/// How a command is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It starts nothing and leaves nothing half written: at once.
    AtOnce,
    /// It ends its children and takes away what is half made; a terminal that goes away does not end it.
    InOrder,
    /// As [`Leave::InOrder`], but it has no use without its terminal.
    WithTerminal,
    /// As [`Leave::InOrder`], and to be stopped is how it ends well.
    Served,
}

/// How long a command may take to end in order: programs have 5 s until they are killed.
const PATIENCE: Duration = Duration::from_secs(8);

/// Watches for it from here on; a `quiet` command ends without a word.
pub fn watch(leave: Leave, quiet: bool) {
    let code = if leave == Leave::Served { 0 } else { i32::from(Exit::Stopped as u8) };
    let watching = ctrlc::set_handler(move || {
        if leave == Leave::AtOnce || platform::cancelled() {
            std::process::exit(code);
        }
        // First what counts, then what is said: the terminal may be gone.
        platform::cancel();
        std::thread::spawn(move || {
            std::thread::sleep(PATIENCE);
            std::process::exit(code);
        });
        match leave {
            _ if quiet => {}
            Leave::Served => ui::say("stopping: answers under way are finished (again: at once)"),
            _ => ui::say("\nstopping: children are ended, nothing half-written stays (again: at once)"),
        }
    });
    if let Err(e) = watching {
        ui::say(&format!("warning: Ctrl-C will not be handled: {e}"));
    }
    if matches!(leave, Leave::InOrder | Leave::Served) {
        platform::outlive_terminal();
    }
    end_where_nobody_reads();
}

/// A result that nobody reads any more is no fault of the program: it ends as one that SIGPIPE ended.
fn end_where_nobody_reads() {
    const AS_SHELLS_COUNT: i32 = 128 + 13;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<String>().is_some_and(|said| said.starts_with("failed printing to std")) {
            std::process::exit(AS_SHELLS_COUNT);
        }
        usual(panic);
    }));
}
