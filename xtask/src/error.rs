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
        let what = without_secrets(&what.into());
        Self(Box::new(Inner { exit, code, what, doing: Vec::new(), next: Vec::new() }))
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
        self.0.doing.push(without_secrets(&doing.into()));
        self
    }

    /// Adds a next step for the reader.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next.push(without_secrets(&next.into()));
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

/// `text` without what must not stand in a message, a log or a bug report, even where somebody typed it in the wrong
/// place: users and passwords of addresses, private keys.
pub fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let ends = |c: char| c.is_whitespace() || c.is_control() || "/?#\\'\"<>`".contains(c);
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        match authority.rfind('@') {
            Some(user) => {
                out.push_str("…@");
                rest = &after[user + 1..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    without_keys(out)
}

/// A key as PEM, on several lines or one, or the Base64 of an Ed25519 key (RFC 8410) alone.
fn without_keys(mut text: String) -> String {
    const SAID: &str = "(a private key)";
    const END: &str = "-----END";
    while let Some(at) = text.find("-----BEGIN").filter(|at| text[*at..].contains("PRIVATE KEY")) {
        let end = text[at..].find(END).map_or(text.len(), |end| {
            let tail = at + end + END.len();
            text[tail..].find("-----").map_or(text.len(), |n| tail + n + 5)
        });
        text.replace_range(at..end, SAID);
    }
    while let Some(at) = text.find("MC4CAQAwBQYDK2Vw") {
        let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        let end = text[at..].find(|c| !base64(c)).map_or(text.len(), |n| at + n);
        text.replace_range(at..end, SAID);
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_stands_in_a_message() {
        for (text, shown) in [
            ("'https://bob:s3cret@h:99999/x' is no address", "'https://…@h:99999/x' is no address"),
            ("ftp://bob:s3@cret@h", "ftp://…@h"),
            ("http://s3cret@h/ and http://b:s3cret@h/", "http://…@h/ and http://…@h/"),
            ("https://h/a@b", "https://h/a@b"),
            ("no '://' here", "no '://' here"),
            (
                "cannot read '-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----': no",
                "cannot read '(a private key)': no",
            ),
            ("-----BEGIN PRIVATE KEY-----s3cret", "(a private key)"),
            ("MC4CAQAwBQYDK2VwBCIEIs3cret=: no such file", "(a private key): no such file"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
        let e = Error::misuse("x", "http://u:s3cret@h").doing("http://u:s3cret@h").next("http://u:s3cret@h");
        assert!(!format!("{e:?}").contains("s3cret"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_or_run_for_ever(text in "(://|@|-----BEGIN|PRIVATE KEY|-----END|-----|MC4CAQAwBQYDK2Vw|é|a| ){0,30}") {
            let _ = without_secrets(&text);
        }
    }
}
