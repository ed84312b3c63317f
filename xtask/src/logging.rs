//! What the program did, for those who ask (`-v`, `-vv`, `--log`, `TORCHMILL_LOG`): commands and their
//! environments, cache decisions and keys, requests, locks that were waited for. Nobody asked: it costs a look
//! at one number. Must not know commands or the terminal; and must not tell a secret.

use std::borrow::Cow;
use std::path::Path;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::{Error, Result, without_secrets};

/// What is told, by the name it has in `TORCHMILL_LOG`.
pub const TARGETS: [&str; 5] = ["command", "http", "key", "lock", "store"];
/// What the terminal shows in another form already.
const EVENT: &str = "event";
/// Says what is told, as `RUST_LOG` does elsewhere.
pub const VARIABLE: &str = "TORCHMILL_LOG";

/// Begins to tell. `verbosity` is how often `-v` was given: once for commands, decisions, requests and locks,
/// twice for environments and the parts of keys as well; `file` gets all of it, with the time.
///
/// # Errors
/// A `TORCHMILL_LOG` that cannot be read, a file that cannot be written.
pub fn start<W>(verbosity: u8, file: Option<&Path>, stderr: W) -> Result<()>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let asked = match std::env::var(VARIABLE).ok().filter(|v| !v.is_empty()) {
        Some(text) => Some(text.parse::<Targets>().map_err(|e| {
            Error::misuse("log", format!("{VARIABLE}='{text}' cannot be read: {e}"))
                .next(format!("for example {VARIABLE}=command=info,http=debug, of: {}", TARGETS.join(", ")))
        })?),
        None => None,
    };
    let level = match verbosity {
        0 => LevelFilter::OFF,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    if asked.is_none() && verbosity == 0 && file.is_none() {
        return Ok(());
    }
    let ours = |level: LevelFilter| Targets::new().with_targets(TARGETS.map(|t| (t, level)));
    let shown = match asked {
        Some(asked) if verbosity == 0 => asked,
        Some(asked) => asked.with_targets(TARGETS.map(|t| (t, level))),
        None => ours(level),
    };
    let on_terminal =
        tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(false).without_time().with_filter(shown);
    let in_file = match file {
        Some(path) => {
            let file = fs_err::OpenOptions::new().create(true).append(true).open(path).map_err(|e| {
                Error::world("log", format!("the log cannot be written: {e}")).next("name another file with --log")
            })?;
            let all = ours(LevelFilter::DEBUG).with_target(EVENT, LevelFilter::INFO);
            let layer = tracing_subscriber::fmt::layer().with_writer(std::sync::Mutex::new(file.into_file()));
            Some(layer.with_ansi(false).with_filter(all))
        }
        None => None,
    };
    tracing_subscriber::registry().with(on_terminal).with(in_file).init();
    Ok(())
}

/// Tells the log what people or `--json` are told.
pub fn event(event: &crate::event::Event) {
    use crate::event::Event;
    if matches!(event, Event::DownloadProgress { .. } | Event::CompileProgress { .. }) {
        return;
    }
    if tracing::enabled!(target: "event", tracing::Level::INFO) {
        tracing::info!(target: "event", "{}", redact(&serde_json::to_string(event).unwrap_or_default()));
    }
}

/// Whether a variable or an option of this name may hold a secret.
fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 8] = ["TOKEN", "SECRET", "PASSW", "PASSPHRASE", "KEY", "CREDENTIAL", "AUTH", "COOKIE"];
    let name = name.to_ascii_uppercase();
    PARTS.iter().any(|p| name.contains(p))
}

/// A variable's value, or `…` where the name says that it is nobody's business.
pub fn value<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if is_secret(name) { "…".into() } else { redact(value) }
}

/// Arguments, as a line: what follows an option that takes a secret is left out, and so is what [`redact`] finds.
pub fn arguments<'a>(words: impl IntoIterator<Item = Cow<'a, str>>) -> String {
    let mut line = String::new();
    let mut secret = false;
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        let shown: Cow<'_, str> = match word.split_once('=') {
            _ if secret => "…".into(),
            Some((name, rest)) if name.starts_with('-') => format!("{name}={}", value(name, rest)).into(),
            _ => redact(&word),
        };
        secret = word.starts_with("--") && !word.contains('=') && is_secret(&word);
        if shown.contains(char::is_whitespace) || shown.is_empty() {
            line.push_str(&format!("{shown:?}"));
        } else {
            line.push_str(&shown);
        }
    }
    line
}

/// `text` without what no message shows, and without the queries of addresses.
pub fn redact(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return text.into();
    }
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`');
    let text = without_secrets(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let (address, more) = after.split_at(after.find(ends).unwrap_or(after.len()));
        match address.split_once('?') {
            Some((path, _)) => {
                out.push_str(path);
                out.push_str("?…");
            }
            None => out.push_str(address),
        }
        rest = more;
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn users_passwords_and_queries_of_addresses_are_not_told() {
        assert_eq!(
            redact("get https://me:pw@host:8/a?sig=1 and http://h/b"),
            "get https://…@host:8/a?… and http://h/b"
        );
        assert_eq!(redact("https://p@ss@host"), "https://…@host");
        assert_eq!(redact("https://me:p/w@host/a?b"), "https://…@host/a?…");
        assert_eq!(redact("no address: a@b"), "no address: a@b");
    }

    #[test]
    fn a_variable_or_an_option_that_sounds_like_a_secret_has_no_value_here() {
        assert_eq!(value("TORCHMILL_UPLOAD_PASSWORD", "x"), "…");
        assert_eq!(value("TORCHMILL_SIGNING_KEY", "x"), "…");
        assert_eq!(value("PATH", "/bin"), "/bin");
        let line = |words: &[&'static str]| arguments(words.iter().map(|w| Cow::Borrowed(*w)));
        assert_eq!(
            line(&["pip", "--index-url", "https://u:p@h/simple", "a b"]),
            "pip --index-url https://…@h/simple \"a b\""
        );
        assert_eq!(line(&["x", "--token", "abc", "--password=abc", "y"]), "x --token … --password=… y");
    }

    proptest! {
        #[test]
        fn what_stands_before_the_at_of_an_address_never_comes_out(user in "[a-z0-9]{4,8}", pass in "[A-Z0-9!$*]{4,8}", text in "[ a-z]{0,8}") {
            let line = format!("{text} ftp://{user}:{pass}@host/x {text}");
            prop_assert!(!redact(&line).contains(&pass));
        }
    }
}
