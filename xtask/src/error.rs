//! The one error type. An error answers three questions: what was being done, what went wrong
//! (with the offending value), and what to do next; and it knows the exit code it leads to.

use std::fmt;

/// The exit codes of every command (0 is "done").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 1: the answer is no (not libuv, stale lock, not reproducible).
    No = 1,
    /// 2: misuse or bad input.
    Misuse = 2,
    /// 3: the outside world failed (network, compiler, disk).
    World = 3,
}

/// Short form used all over the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a command ends with when it does not end well.
pub struct Error(Box<Inner>);

struct Inner {
    exit: Exit,
    code: &'static str,
    what: String,
    doing: Vec<String>,
    next: Vec<String>,
}

impl Error {
    fn new(exit: Exit, code: &'static str, what: impl Into<String>) -> Self {
        Self(Box::new(Inner { exit, code, what: what.into(), doing: Vec::new(), next: Vec::new() }))
    }

    /// Exit code 1: everything worked and the answer is no.
    pub fn no(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Exit::No, code, what)
    }

    /// Exit code 2: misuse or bad input.
    pub fn misuse(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Exit::Misuse, code, what)
    }

    /// Exit code 3: the outside world failed.
    pub fn world(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Exit::World, code, what)
    }

    /// The build was stopped from outside (Ctrl-C, SIGTERM).
    pub fn cancelled() -> Self {
        Self::world("cancelled", "stopped on request").next("run the same command again: it goes on where it stopped")
    }

    /// Adds what was being done, outermost last.
    #[must_use]
    pub fn doing(mut self, doing: impl Into<String>) -> Self {
        self.0.doing.push(doing.into());
        self
    }

    /// Adds a next step for the reader.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next.push(next.into());
        self
    }

    /// The exit code this error leads to.
    pub fn exit(&self) -> Exit {
        self.0.exit
    }

    /// A stable name of the kind of error, for `--json` and tests.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// What went wrong, with the offending value.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// What was being done, innermost first.
    pub fn context(&self) -> &[String] {
        &self.0.doing
    }

    /// The next steps.
    pub fn next_steps(&self) -> &[String] {
        &self.0.next
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        for doing in &self.0.doing {
            write!(f, "\n  while {doing}")?;
        }
        for next in &self.0.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.code)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    /// I/O errors come from `fs-err`, so their text names the file.
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        match e.kind() {
            K::StorageFull | K::QuotaExceeded => Self::world("disk-full", e.to_string())
                .next("free disk space and run the same command again: it goes on where it stopped"),
            K::PermissionDenied | K::ReadOnlyFilesystem => Self::world("permission", e.to_string())
                .next("check owner and mode, or choose another folder with --store / TORCHMILL_STORE"),
            _ => Self::world("io", e.to_string()),
        }
    }
}

/// Adds context to anything that turns into an [`Error`].
pub trait Context<T> {
    /// Says what was being done when it failed.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.into().doing(doing()))
    }
}
