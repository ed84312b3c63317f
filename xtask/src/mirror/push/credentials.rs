//! Who uploads: from a command (as `git credential` or `keyring get` are), from the environment, or
//! from netrc. Never from the command line, and never shown.

use std::path::PathBuf;

use base64::Engine;
use url::Url;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::platform;

/// A user and a password, wiped from memory with their last use.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: Zeroizing<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}, …)", self.user)
    }
}

/// Variables that hold user and password; twine's own hold as well.
const VARIABLES: [[&str; 2]; 2] =
    [["TORCHMILL_UPLOAD_USERNAME", "TORCHMILL_UPLOAD_PASSWORD"], ["TWINE_USERNAME", "TWINE_PASSWORD"]];

/// The user that a token goes by, where none is named.
const TOKEN_USER: &str = "__token__";

impl Credentials {
    /// Finds them: `command`, the environment, netrc, in this order.
    ///
    /// # Errors
    /// A command that fails; a netrc that cannot be read.
    pub fn find(url: &Url, command: Option<&str>) -> Result<Option<Self>> {
        platform::no_dumps(false);
        if let Some(command) = command {
            return Self::from_command(command, url).map(Some);
        }
        for [user, password] in VARIABLES {
            if let Some(password) = platform::secret_variable(password) {
                let user = platform::secret_variable(user).map_or_else(|| TOKEN_USER.into(), |user| user.to_string());
                return Ok(Some(Self { user, password }));
            }
        }
        let file = std::env::var_os("NETRC").map(PathBuf::from).or_else(|| {
            let home = std::env::home_dir()?;
            [".netrc", "_netrc"].into_iter().map(|n| home.join(n)).find(|p| p.is_file())
        });
        match file {
            Some(file) => {
                let text = platform::read_text(&file, platform::MOST_TEXT)
                    .map_err(|e| Error::misuse("netrc", format!("{} cannot be read: {e}", file.display())))?;
                let text = Zeroizing::new(text);
                Ok(netrc(&text, url.host_str().unwrap_or_default()))
            }
            None => Ok(None),
        }
    }

    /// Runs `command` (split as a shell would, but no shell runs) with the host as last argument. It
    /// prints the password, or `username=…` and `password=…` lines as git's helpers do.
    fn from_command(command: &str, url: &Url) -> Result<Self> {
        let bad = |what: String| Error::misuse("credential-command", what);
        let words = shlex::split(command)
            .filter(|w| !w.is_empty())
            // Not repeated: a secret may stand in it.
            .ok_or_else(|| bad("the command cannot be split into words: is a quotation mark left open?".into()))?;
        let out = std::process::Command::new(&words[0])
            .args(&words[1..])
            .arg(url.host_str().unwrap_or_default())
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|e| bad(format!("'{}' cannot be run: {e}", words[0])))?;
        if !out.status.success() {
            return Err(bad(format!("'{}' ended with {}", words[0], out.status)));
        }
        let out = Zeroizing::new(out.stdout);
        let text = String::from_utf8_lossy(&out);
        let line = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::to_owned);
        let password =
            line("password=").or_else(|| text.lines().next().map(|l| l.trim().to_owned())).filter(|p| !p.is_empty());
        let password = password.ok_or_else(|| bad(format!("'{}' printed no password", words[0])))?;
        let password = Zeroizing::new(password);
        Ok(Self { user: line("username=").unwrap_or_else(|| TOKEN_USER.into()), password })
    }

    /// What a server said, without these credentials: some show what they were sent.
    pub fn conceal(&self, said: &str) -> String {
        let header = self.header();
        let encoded = header.trim_start_matches("Basic ");
        let mut secrets = [self.password.as_str(), encoded];
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        secrets.iter().filter(|s| !s.is_empty()).fold(said.to_owned(), |said, secret| said.replace(secret, "***"))
    }

    /// The `Authorization` header.
    pub fn header(&self) -> Zeroizing<String> {
        let pair = Zeroizing::new(format!("{}:{}", self.user, *self.password));
        Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())))
    }
}

/// The entry for `host` of a netrc file, else its default entry.
fn netrc(text: &str, host: &str) -> Option<Credentials> {
    // A macro runs to the next empty line and is nothing for us.
    let mut clean = Zeroizing::new(String::new());
    let mut in_macro = false;
    for line in text.lines() {
        in_macro = (in_macro && !line.trim().is_empty()) || line.trim_start().starts_with("macdef");
        if !in_macro && !line.trim_start().starts_with('#') {
            clean.push_str(line);
            clean.push('\n');
        }
    }
    let mut words = clean.split_whitespace();
    let (mut fallback, mut found): (Option<Credentials>, Option<Credentials>) = (None, None);
    let mut current: Option<bool> = None; // whether the entry is the host's, or the default
    let (mut user, mut password) = (String::new(), String::new());
    let mut close = |current: Option<bool>, user: &mut String, password: &mut String| {
        let entry = Credentials { user: std::mem::take(user), password: Zeroizing::new(std::mem::take(password)) };
        match current {
            Some(true) => drop(found.get_or_insert(entry)),
            Some(false) => drop(fallback.get_or_insert(entry)),
            None => {}
        }
    };
    while let Some(word) = words.next() {
        match word {
            "machine" => {
                close(current, &mut user, &mut password);
                current = (words.next()? == host).then_some(true);
            }
            "default" => {
                close(current, &mut user, &mut password);
                current = Some(false);
            }
            "login" => user = words.next()?.to_owned(),
            "password" => password = words.next()?.to_owned(),
            "account" => drop(words.next()),
            _ => {}
        }
    }
    close(current, &mut user, &mut password);
    found.or(fallback).filter(|c| !c.password.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netrc_gives_the_hosts_entry_or_the_default() {
        let text = "# ours\nmachine a.example login alice password one\nmachine b.example\n  login bob\n  password two\nmacdef init\n machine c.example login x password y\n\ndefault login anyone password three\n";
        let of = |host: &str| netrc(text, host).map(|c| (c.user, c.password.to_string()));
        assert_eq!(of("a.example"), Some(("alice".into(), "one".into())));
        assert_eq!(of("b.example"), Some(("bob".into(), "two".into())));
        assert_eq!(of("c.example"), Some(("anyone".into(), "three".into())));
        assert_eq!(netrc("machine a login x", "a"), None);
        assert_eq!(netrc("machine", "a"), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        let c = Credentials { user: "u".into(), password: Zeroizing::new("s3cret".into()) };
        assert_eq!(c.conceal("u:s3cret, that is Basic dTpzM2NyZXQ=, may not"), "u:***, that is Basic ***, may not");
        assert_eq!(format!("{c:?}"), "Credentials(u, …)");
        assert_eq!(*c.header(), "Basic dTpzM2NyZXQ=");
    }

    proptest::proptest! {
        #[test]
        fn no_netrc_makes_it_panic(text in "(machine|default|login|password|macdef|[a-z]{1,3}|\\n| ){0,40}") {
            let _ = netrc(&text, "a");
        }
    }
}
