//! Whose store was asked for libuv in vain? Read from what a log shows: the places in torch's own files, a launcher's
//! traces, a cure that was tried.

use crate::inspect::makers;
use torchmill_bytes::text::Text;

/// What the log shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// An elastic agent's, or its worker's.
    Agent,
    /// A cure is in force already, and the error came nevertheless.
    CureTried,
    /// A `TCPStore(…)` of the script, or of a library that is not torch.
    OwnCall,
    /// `init_process_group()`'s, on Windows from 2.7 on, where somebody asked for libuv.
    AskedFor,
    /// `init_process_group()`'s, in a process without an agent.
    Init,
    /// It does not show.
    Unknown,
}

impl Whose {
    /// The case in the table.
    pub fn case(self) -> &'static str {
        match self {
            Self::Agent => "no-libuv-torchrun",
            Self::CureTried => "no-libuv-cure-tried",
            Self::OwnCall => "no-libuv-own-call",
            Self::AskedFor => "no-libuv-asked-for",
            Self::Init => "no-libuv-init",
            Self::Unknown => "no-libuv",
        }
    }
}

/// Judges the error on line `error` of `text`. `agent` says whether there is any sign of an agent.
pub fn whose(text: &Text, error: usize, agent: bool) -> Whose {
    let branch = branch(text);
    // Where an agent stands around it, a worker may still have made a store of its own: 2.4's with the c10d backend do,
    // and the lines of their traceback say so.
    let own = branch == Some(Branch::Own) && !has(text, b"/elastic/rendezvous/");
    if branch == Some(Branch::Agent) || agent && !own {
        return Whose::Agent;
    }
    if cure_tried(text) {
        return Whose::CureTried;
    }
    if branch == Some(Branch::Own) || has(text, b"distributed/rendezvous.py") {
        let built = has(text, b"pytorchwasbuiltwithout");
        return if built && is_windows(text) { Whose::AskedFor } else { Whose::Init };
    }
    if own_call(text, error) { Whose::OwnCall } else { Whose::Unknown }
}

/// Whether the log is of Windows, by its paths and prompts.
pub fn is_windows(text: &Text) -> bool {
    // A virtual environment of Linux has lib/pythonX.Y/site-packages.
    const MARKS: [&[u8]; 4] = [b"/lib/site-packages/torch", b"winerror", b"notsupportedinwindowsormacos", b"$env:"];
    let drive = |at: usize| {
        let before = |n: usize| at.checked_sub(n).and_then(|i| text.squeezed.get(i)).copied().unwrap_or(b' ');
        before(1).is_ascii_alphabetic()
            && !before(2).is_ascii_alphanumeric()
            && text.squeezed.get(at + 2) != Some(&b'/')
    };
    MARKS.iter().any(|mark| has(text, mark)) || memchr::memmem::find_iter(&text.squeezed, b":/").take(4096).any(drive)
}

/// Whether the text is of PowerShell.
pub fn is_powershell(text: &Text) -> bool {
    has(text, b"$env:")
        || (0..text.lines().min(2000)).any(|i| {
            let line = text.squeezed_line(i);
            line.starts_with(b"ps") && line.get(3) == Some(&b':') && memchr::memchr(b'>', line).is_some()
        })
}

fn has(text: &Text, mark: &[u8]) -> bool {
    memchr::memmem::find(&text.squeezed, mark).is_some()
}

/// Which of the two calls in `_create_c10d_store` failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Branch {
    Agent,
    Own,
}

/// By the lines of `rendezvous.py` that the traceback names: which version has these, and whose call is there.
fn branch(text: &Text) -> Option<Branch> {
    let frames = frames(text);
    let create = frames.iter().find(|(place, _)| *place == Place::Create)?.1;
    // "build" up to 2.6, "built" from 2.7 on.
    let spelling = (has(text, b"pytorchwasbuildwithout"), has(text, b"pytorchwasbuiltwithout"));
    let fits = |row: &&makers::Lines| {
        let late = makers::numbers(&row.from) >= [2, 7, 0];
        let spelt = match spelling {
            (true, false) => !late,
            (false, true) => late,
            _ => true,
        };
        spelt
            && frames.iter().all(|(place, line)| match place {
                Place::Create => [row.agent, row.own].contains(line),
                Place::Env => row.env == *line,
                Place::Tcp => row.tcp == *line,
            })
    };
    let mut branches = makers::table()
        .lines
        .iter()
        .filter(fits)
        .map(|row| if row.agent == create { Branch::Agent } else { Branch::Own });
    let first = branches.next()?;
    branches.all(|b| b == first).then_some(first)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Create,
    Env,
    Tcp,
}

/// The frames of `rendezvous.py` in the text.
fn frames(text: &Text) -> Vec<(Place, u32)> {
    const FILE: &[u8] = b"/distributed/rendezvous.py\",line";
    let mut out = Vec::new();
    for at in memchr::memmem::find_iter(&text.squeezed, FILE).take(64) {
        let rest = &text.squeezed[at + FILE.len()..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).take(6).count();
        let number = std::str::from_utf8(&rest[..digits]).ok().and_then(|n| n.parse().ok());
        let after = &rest[digits..];
        let place = if after.starts_with(b",in_create_c10d_store") {
            Place::Create
        } else if after.starts_with(b",in_env_rendezvous_handler") {
            Place::Env
        } else if after.starts_with(b",in_tcp_rendezvous_handler") {
            Place::Tcp
        } else {
            continue;
        };
        out.extend(number.map(|n| (place, n)));
    }
    out
}

/// Whether the text shows USE_LIBUV=0 or use_libuv=False in force; not the error's own advice to set it.
fn cure_tried(text: &Text) -> bool {
    const MARKS: [&[u8]; 12] = [
        b"use_libuv=0",
        b"use_libuv=\"0\"",
        b"use_libuv='0'",
        b"use_libuv=false",
        b"use_libuv=\"false\"",
        b"use_libuv']='0'",
        b"use_libuv\"]=\"0\"",
        b"use_libuv']=\"0\"",
        b"use_libuv\"]='0'",
        b"use_libuv\",\"0\"",
        b"use_libuv','0'",
        b"use_libuv:0",
    ];
    MARKS.iter().any(|mark| {
        memchr::memmem::find_iter(&text.squeezed, mark).any(|at| !text.squeezed[..at].ends_with(b"runwith"))
    })
}

/// Whether the last frame above the error is a `TCPStore(…)` outside of torch.
fn own_call(text: &Text, error: usize) -> bool {
    for i in (error.saturating_sub(12)..error).rev() {
        let line = text.squeezed_line(i);
        if line.starts_with(b"file\"") {
            let call = (i + 1..error).any(|j| memchr::memmem::find(text.squeezed_line(j), b"tcpstore(").is_some());
            let torch = memchr::memmem::find(line, b"/torch/distributed/").is_some();
            return call && !torch;
        }
    }
    false
}
