//! Hidden commands that this program runs itself under: sandbox helper, compiler launcher, steps of nvcc's, what runs in
//! a farm's room, libuv's build. They come before clap: a launcher is started thousands of times.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::error::Error;
use crate::stage::farm::inside;
use crate::stage::steps::libuv;
use crate::toolchain::nvcc::STEP_COMMAND;
use crate::toolchain::{LAUNCH_COMMAND, Launch, SANDBOX_COMMAND, step};
use crate::{platform, ui};

/// Runs the hidden command that the arguments name, if they name one.
pub fn dispatch() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next()?;
    let rest: Vec<OsString> = arguments.collect();
    let error = match command.to_str()? {
        SANDBOX_COMMAND => sandbox(&rest),
        platform::CLOSED_COMMAND => closed(&rest),
        LAUNCH_COMMAND => launch(rest),
        STEP_COMMAND => step(&rest),
        inside::HELPER_COMMAND => farm(&rest),
        libuv::HELPER_COMMAND => match &rest[..] {
            [source, install] => match libuv::helper(Path::new(source), Path::new(install)) {
                Ok(()) => return Some(ExitCode::SUCCESS),
                Err(e) => e,
            },
            _ => Error::misuse("internal", "expected a source and a prefix"),
        },
        _ => return None,
    };
    ui::error(&error);
    Some(ExitCode::from(error.exit() as u8))
}

fn sandbox(arguments: &[OsString]) -> Error {
    match arguments {
        [mode, hidden, argv @ ..] => {
            let hidden: Vec<_> = std::env::split_paths(hidden).filter(|path| !path.as_os_str().is_empty()).collect();
            platform::sandbox_exec(mode == "no-network", &hidden, argv)
        }
        _ => Error::misuse("internal", "nothing to run"),
    }
}

fn closed(arguments: &[OsString]) -> Error {
    let room =
        arguments.split_first().and_then(|(spec, argv)| Some((serde_json::from_str(spec.to_str()?).ok()?, argv)));
    match room {
        Some((room, argv)) => platform::enter_room(&room, argv),
        None => Error::misuse("internal", "expected a room and what runs in it"),
    }
}

fn farm(arguments: &[OsString]) -> Error {
    let told = arguments.first().and_then(|text| serde_json::from_str(text.to_str()?).ok());
    match told.map(|told| inside::helper(&told)) {
        Some(Err(e)) => e,
        _ => Error::misuse("internal", "expected what runs in a farm's room"),
    }
}

/// `work compiler arguments…`
fn launch(mut arguments: Vec<OsString>) -> Error {
    if arguments.len() < 2 {
        return Error::misuse("internal", "nothing to launch");
    }
    let work = arguments.remove(0).to_string_lossy().into_owned();
    Launch { work }.exec(arguments)
}
