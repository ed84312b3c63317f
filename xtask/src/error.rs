//! The one error type. An error answers three questions: what was being done, what went wrong
//! (with the offending value), and what to do next; and it knows the exit code it leads to.

use std::borrow::Cow;
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
    /// 130: stopped from outside (Ctrl-C, SIGTERM), as shells count it: 128 and SIGINT's number.
    Stopped = 130,
}

/// What a command found where nothing failed: an answer of no is an exit code, not an error.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Exit code 0: done, or the answer is yes.
    Yes,
    /// Exit code 1: everything worked and the answer is no.
    No {
        /// A stable name of the answer, for `--json` and tests.
        code: &'static str,
        /// What does not hold, with the value.
        what: String,
        /// The next steps.
        next: Vec<String>,
    },
}

impl Answer {
    /// An answer of no: `code` is for programs and stays as it is, `what` is for people.
    pub fn no(code: &'static str, what: impl Into<String>) -> Self {
        Self::No { code, what: told(&what.into()), next: Vec::new() }
    }

    /// Adds a next step for the reader.
    pub fn next(mut self, step: impl Into<String>) -> Self {
        if let Self::No { next, .. } = &mut self {
            next.push(told(&step.into()));
        }
        self
    }
}

impl From<()> for Answer {
    /// Most commands have nothing to answer but that it is done.
    fn from((): ()) -> Self {
        Self::Yes
    }
}

/// The kinds of error that code decides by. All others are told to people, and only their exit code counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Stopped from outside.
    Cancelled,
    /// A program or a server took too long.
    Timeout,
    /// No room on a disk.
    DiskFull,
    /// The file system lets this user not do it.
    Permission,
    /// Bytes are not those of the digest that was named.
    Digest,
    /// The package index does not have a package of this name.
    NoPackage,
    /// It has none of the versions that are asked for.
    NoVersion,
    /// The lock does not fit the recipe.
    LockStale,
    /// There is no lock.
    LockMissing,
    /// A name is in use, for other bytes.
    Taken,
    /// A name was in use, and its file was removed.
    Removed,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Cancelled,
        Self::Timeout,
        Self::DiskFull,
        Self::Permission,
        Self::Digest,
        Self::NoPackage,
        Self::NoVersion,
        Self::LockStale,
        Self::LockMissing,
        Self::Taken,
        Self::Removed,
    ];

    /// Its name in `--json`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::DiskFull => "disk-full",
            Self::Permission => "permission",
            Self::Digest => "digest",
            Self::NoPackage => "no-package",
            Self::NoVersion => "no-version",
            Self::LockStale => "lock-stale",
            Self::LockMissing => "lock-missing",
            Self::Taken => "taken",
            Self::Removed => "removed",
        }
    }
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
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    fn new(exit: Exit, code: &'static str, what: impl Into<String>) -> Self {
        let what = told(&what.into());
        Self(Box::new(Inner { exit, code, what, doing: Vec::new(), next: Vec::new(), source: None }))
    }

    /// Exit code 1: code that came from elsewhere does not run, for nobody said that it may. What else is answered with
    /// no is an [`Answer`].
    pub fn not_trusted(what: impl Into<String>) -> Self {
        Self::new(Exit::No, "not-trusted", what)
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
        Self::new(Exit::Stopped, Kind::Cancelled.code(), "stopped on request")
            .next("run the same command again: it goes on where it stopped")
    }

    /// Keeps the error that led to this one, for [`std::error::Error::source`]. Its text is not shown again.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what was being done, outermost last.
    #[must_use]
    pub fn doing(mut self, doing: impl Into<String>) -> Self {
        self.0.doing.push(told(&doing.into()));
        self
    }

    /// Adds a next step for the reader.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next.push(told(&next.into()));
        self
    }

    /// The exit code this error leads to.
    pub fn exit(&self) -> Exit {
        self.0.exit
    }

    /// Its kind, if it is one of those that code decides by.
    pub fn kind(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.code() == self.0.code)
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

    /// What the reader can do next, each a sentence; empty where nothing is known to help.
    pub fn next_steps(&self) -> &[String] {
        &self.0.next
    }
}

/// Bytes of a line that is told, of its beginning and of its end: what others wrote into one may be a whole file.
const MOST_TOLD: usize = 32 << 10;

/// `text` as it may be told: no line of it without end, and without secrets.
pub fn told(text: &str) -> String {
    if text.len() <= 2 * MOST_TOLD {
        return without_secrets(text);
    }
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(shortened).collect();
    without_secrets(&lines.join("\n"))
}

/// `line` without its middle, if it is too long to be told. Words stay whole: half of a secret is not known for one.
fn shortened(line: &str) -> Cow<'_, str> {
    if line.len() <= 2 * MOST_TOLD {
        return line.into();
    }
    let boundary = |at: usize| (at..line.len()).find(|at| line.is_char_boundary(*at)).unwrap_or(line.len());
    let head = &line[..boundary(MOST_TOLD)];
    let head = &head[..head.rfind(char::is_whitespace).unwrap_or(0)];
    let tail = &line[boundary(line.len() - MOST_TOLD)..];
    let tail = &tail[tail.find(char::is_whitespace).unwrap_or(tail.len())..];
    format!("{head} … ({} bytes left out) …{tail}", line.len() - head.len() - tail.len()).into()
}

/// `text` without what must not stand in a message, a log or a bug report, even where somebody typed it in the wrong
/// place: users, passwords and tokens of addresses, private keys.
pub fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(":/").or_else(|| rest.find(":\\")) {
        let (scheme, after) = rest.split_at(at + 1);
        let slashes = after.len() - after.trim_start_matches(['/', '\\']).len();
        // A path behind a colon is no address; `https:/user:password@host` is one to those who read addresses.
        let is_address = slashes > 1 && !ends_with_word(&scheme[..at], "file")
            || ["http", "https", "ftp"].iter().any(|s| ends_with_word(&scheme[..at], s));
        out.push_str(scheme);
        out.push_str(&after[..slashes]);
        rest = &after[slashes..];
        if is_address && let Some(host) = host_behind_user(rest) {
            out.push_str("…@");
            rest = &rest[host..];
        }
    }
    out.push_str(rest);
    without_keys(without_tokens(&without_pairs(&out)))
}

/// `user:password@host` without the address around it.
fn without_pairs(text: &str) -> String {
    // Coordinates begin so, and hold no user.
    const KINDS: [&str; 4] = ["file", "debian", "pypi", "crate"];
    let ends = |c: char| c.is_whitespace() || c.is_control() || "/\\'\"<>`(),;=[]".contains(c);
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('@') {
        let (before, host) = rest.split_at(at);
        let word = before.rfind(ends).map_or(0, |end| end + before[end..].chars().next().map_or(0, char::len_utf8));
        let pair = before[word..].split_once(':').filter(|(user, _)| !KINDS.contains(user));
        let is_pair = pair.is_some_and(|(user, password)| !user.is_empty() && !password.is_empty());
        let leads_on = host[1..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
        out.push_str(if is_pair && leads_on { &before[..word] } else { before });
        out.push_str(if is_pair && leads_on { "…@" } else { "@" });
        rest = &host[1..];
    }
    out.push_str(rest);
    out
}

fn ends_with_word(text: &str, word: &str) -> bool {
    let at = text.len().checked_sub(word.len());
    at.is_some_and(|at| {
        text.is_char_boundary(at)
            && text[at..].eq_ignore_ascii_case(word)
            && !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric())
    })
}

/// Where the host of an address begins that `text` begins with, if there is a user or a password before it. A password
/// may hold what ends the host of an address: then what stands where a port should is none.
fn host_behind_user(text: &str) -> Option<usize> {
    let space = |c: char| c.is_whitespace() || c.is_control();
    let word = &text[..text.find(space).unwrap_or(text.len())];
    let ends = |c: char| "/?#\\".contains(c) || "'\"<>`".contains(c);
    let authority = &word[..word.find(ends).unwrap_or(word.len())];
    if let Some(at) = authority.rfind('@') {
        return Some(at + 1);
    }
    // Where a port stands, a host stands before it; a password may hold quotes and slashes.
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|_| !authority.ends_with(']'))?;
    let is_port = port.bytes().all(|b| b.is_ascii_digit()) && port.len() <= 5;
    // A password may begin like a port: `user:12/34@host.example`. A path with an `@` in it is shown in part, rather.
    let looks_like_host = |text: &str| {
        let host = &text[..text.find(ends).unwrap_or(text.len())];
        host.contains(['.', ':']) || host.starts_with("localhost")
    };
    word.rfind('@').map(|at| at + 1).filter(|at| !is_port || looks_like_host(&word[*at..]))
}

/// The values of what a query calls a token, a key or the like.
fn without_tokens(text: &str) -> String {
    const SECRET: [&str; 7] = ["token", "secret", "passw", "signature", "credential", "apikey", "api_key"];
    let ends = |c: char| c.is_whitespace() || c.is_control() || "&#'\"<>`".contains(c);
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(['?', '&']) {
        let (before, pair) = (&rest[..=at], &rest[at + 1..]);
        out.push_str(before);
        let end = pair.find(ends).unwrap_or(pair.len());
        let key = pair[..end].split_once('=').map(|(key, _)| key);
        let is_secret = |key: &str| SECRET.iter().any(|s| key.to_ascii_lowercase().contains(s)) || key == "sig";
        match key.filter(|key| is_secret(key)) {
            Some(key) => {
                out.push_str(key);
                out.push_str("=…");
                rest = &pair[end..];
            }
            None => rest = pair,
        }
    }
    out.push_str(rest);
    out
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
    // PKCS #8, version 1 and version 2 (with the public key).
    while let Some(at) = ["MC4CAQAwBQYDK2Vw", "MFMCAQEwBQYDK2Vw"].iter().find_map(|begin| text.find(begin)) {
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

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

impl From<torchmill_bytes::Error> for Error {
    fn from(e: torchmill_bytes::Error) -> Self {
        match e {
            torchmill_bytes::Error::Unfit(what) => Self::misuse("wheel", what)
                .next("build or download it again, and compare its digest; a wheel that readers understand differently is never right"),
            torchmill_bytes::Error::Io(e) => e.into(),
        }
    }
}

impl From<std::io::Error> for Error {
    /// I/O errors come from `fs-err`, so their text names the file.
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        match e.kind() {
            K::StorageFull | K::QuotaExceeded => Self::world(Kind::DiskFull.code(), e.to_string())
                .next("free disk space and run the same command again: it goes on where it stopped"),
            K::PermissionDenied | K::ReadOnlyFilesystem => Self::world(Kind::Permission.code(), e.to_string())
                .next("check owner and mode, or choose another folder with --store / TORCHMILL_STORE"),
            _ => Self::world("io", e.to_string()),
        }
        .because(e)
    }
}

/// Adds context to anything that turns into an [`Error`].
pub trait Context<T> {
    /// Says what was being done when it failed.
    ///
    /// # Errors
    /// The same, which now says what was being done.
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
    fn an_error_keeps_what_led_to_it_and_knows_its_kind() {
        let full = Error::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.kind(), Some(Kind::DiskFull));
        let source = std::error::Error::source(&full).and_then(|e| e.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::StorageFull));
        assert_eq!(Error::cancelled().kind(), Some(Kind::Cancelled));
        assert_eq!(Error::world("spawn", "x").kind(), None);
    }

    #[test]
    fn no_two_kinds_have_one_name() {
        let mut names = Kind::ALL.map(Kind::code);
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
    }

    #[test]
    fn no_secret_stands_in_a_message() {
        for (text, shown) in [
            ("'https://bob:s3cret@h:99999/x' is no address", "'https://…@h:99999/x' is no address"),
            ("ftp://bob:s3@cret@h", "ftp://…@h"),
            ("http://s3cret@h/ and http://b:s3cret@h/", "http://…@h/ and http://…@h/"),
            ("https://h/a@b", "https://h/a@b"),
            ("https://h:8080/a@b and [https://[::1]:80/a@b]", "https://h:8080/a@b and [https://[::1]:80/a@b]"),
            ("https://bob:s3/c?r#et@h/x", "https://…@h/x"),
            ("https://bob:12/s3cret@h.example/x", "https://…@h.example/x"),
            ("https://bob:12/s3cret@localhost", "https://…@localhost"),
            ("https://h/x?a=b&access_token=s3cret&c=d#e", "https://h/x?a=b&access_token=…&c=d#e"),
            ("'https://h/x?X-Amz-Signature=s3cret' is gone", "'https://h/x?X-Amz-Signature=…' is gone"),
            ("is this a token? yes=no&sig=s3cret", "is this a token? yes=no&sig=…"),
            ("https://bob:s3c'r\"et<@h/x", "https://…@h/x"),
            ("https:/bob:s3cret@h/x: no such file", "https:/…@h/x: no such file"),
            ("HTTPS:\\\\bob:s3cret@h/x", "HTTPS:\\\\…@h/x"),
            ("there is no bob:s3cret@h/x", "there is no …@h/x"),
            ("git@h:x, a b@c, torch @ https://h/x, pypi:x@y", "git@h:x, a b@c, torch @ https://h/x, pypi:x@y"),
            ("file:///a@b, C:\\a@b, x:/a@b", "file:///a@b, C:\\a@b, x:/a@b"),
            ("no '://' here", "no '://' here"),
            (
                "cannot read '-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----': no",
                "cannot read '(a private key)': no",
            ),
            ("-----BEGIN PRIVATE KEY-----s3cret", "(a private key)"),
            ("MC4CAQAwBQYDK2VwBCIEIs3cret=: no such file", "(a private key): no such file"),
            ("MFMCAQEwBQYDK2VwBCIEIs3cret=: no such file", "(a private key): no such file"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
        let e = Error::misuse("x", "http://u:s3cret@h").doing("http://u:s3cret@h").next("http://u:s3cret@h");
        assert!(!format!("{e:?}").contains("s3cret"));
        let no = Answer::no("x", "http://u:s3cret@h").next("http://u:s3cret@h");
        assert!(!format!("{no:?}").contains("s3cret"));
    }

    #[test]
    fn no_line_of_a_message_is_as_long_as_a_file_and_no_half_of_a_secret_stays() {
        let secret = format!("http://u:{}@h", "s3cret".repeat(20_000));
        let e = Error::misuse("x", format!("x.whl says é {secret} and {secret}, not y\n{}", "a line\n".repeat(20_000)));
        let said = e.what();
        assert!(said.starts_with("x.whl says é … (") && !said.contains("s3cret"), "{}", &said[..200]);
        assert!(said.contains("bytes left out) … not y\n"), "{}", &said[..200]);
        // Lines have an end each, and stay.
        assert_eq!(said.matches("a line\n").count(), 20_000);
        let short = "é".repeat(MOST_TOLD);
        assert_eq!(told(&short), short);
        assert!(told(&"é ".repeat(MOST_TOLD)).len() < 2 * MOST_TOLD + 100);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_or_run_for_ever(text in "(://|:/|https|@|[?&=]|token|-----BEGIN|PRIVATE KEY|-----END|-----|MC4CAQAwBQYDK2Vw|é|a| ){0,30}") {
            let _ = without_secrets(&text);
        }
    }
}
