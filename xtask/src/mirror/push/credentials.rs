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
        let file = std::env::var_os("NETRC").filter(|f| !f.is_empty()).map(PathBuf::from).or_else(|| {
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
        let user = line("username=");
        // Who prints such lines prints no password without its own.
        let alone = || text.lines().next().filter(|_| user.is_none()).map(|l| l.trim().to_owned());
        let password = line("password=").or_else(alone).filter(|p| !p.is_empty());
        let password = password.ok_or_else(|| bad(format!("'{}' printed no password", words[0])))?;
        let password = Zeroizing::new(password);
        Ok(Self { user: user.unwrap_or_else(|| TOKEN_USER.into()), password })
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
    let mut words = Words(text);
    let (mut fallback, mut found): (Option<Credentials>, Option<Credentials>) = (None, None);
    let mut current: Option<bool> = None; // whether the entry is the host's, or the default
    let (mut user, mut password) = (String::new(), Zeroizing::new(String::new()));
    let mut close = |current: Option<bool>, user: &mut String, password: &mut Zeroizing<String>| {
        let entry = Credentials { user: std::mem::take(user), password: std::mem::take(password) };
        match current {
            Some(true) => drop(found.get_or_insert(entry)),
            Some(false) => drop(fallback.get_or_insert(entry)),
            None => {}
        }
    };
    while let Some(word) = words.word() {
        match word.as_str() {
            "machine" => {
                close(current, &mut user, &mut password);
                // A host has no upper and lower case (RFC 4343).
                current = words.word()?.eq_ignore_ascii_case(host).then_some(true);
            }
            "default" => {
                close(current, &mut user, &mut password);
                current = Some(false);
            }
            "login" | "user" => user = words.word()?.to_string(),
            "password" => password = words.word()?,
            "account" => drop(words.word()),
            // A macro runs to the next empty line and is nothing for us; nor is a comment.
            "macdef" => words.skip_to_empty_line(),
            word if word.starts_with('#') => words.skip_line(),
            _ => {}
        }
    }
    close(current, &mut user, &mut password);
    found.or(fallback).filter(|c| !c.password.is_empty())
}

/// The words of a netrc file, as curl reads them: what stands in quotation marks is one, with blanks, and in it a backslash
/// stands before what is meant as it is, or for a line's end, a carriage return or a tab.
struct Words<'t>(&'t str);

impl Words<'_> {
    fn word(&mut self) -> Option<Zeroizing<String>> {
        self.0 = self.0.trim_start();
        let Some(quoted) = self.0.strip_prefix('"') else {
            let (word, rest) = self.0.split_at(self.0.find(char::is_whitespace).unwrap_or(self.0.len()));
            self.0 = rest;
            return (!word.is_empty()).then(|| Zeroizing::new(word.to_owned()));
        };
        let mut escaped = false;
        // Of a mark that is left open nobody knows which word was meant.
        let end = quoted.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        self.0 = &quoted[end + 1..];
        // Room for all of it: what grows leaves copies behind.
        let mut word = Zeroizing::new(String::with_capacity(end));
        let mut letters = quoted[..end].chars();
        while let Some(letter) = letters.next() {
            word.push(match letter {
                '\\' => match letters.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                },
                other => other,
            });
        }
        Some(word)
    }

    fn skip_line(&mut self) {
        self.0 = self.0.find('\n').map_or("", |end| &self.0[end..]);
    }

    fn skip_to_empty_line(&mut self) {
        self.skip_line();
        // At each line's end: whether the next one is empty.
        while let Some(next) = self.0.strip_prefix('\n') {
            if next[..next.find('\n').unwrap_or(next.len())].trim().is_empty() {
                return;
            }
            self.0 = next;
            self.skip_line();
        }
    }
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
    fn a_word_of_a_netrc_may_stand_in_quotation_marks() {
        let of = |text: &str| netrc(text, "a.example").map(|c| (c.user, c.password.to_string()));
        let is = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(of("machine a.example login \"al ice\" password \"s3 cr\\\"et\\\\\""), is("al ice", "s3 cr\"et\\"));
        assert_eq!(of("machine A.Example user alice password a\\b\"c"), is("alice", "a\\b\"c"));
        assert_eq!(of("machine a.example\n  login \"machine\"\n  password #1\n"), is("machine", "#1"));
        // What stands behind a comment's sign is none of it, nor is a macro, also at the end.
        let text = "machine b.example login x password y # machine a.example login old password gone\nmachine a.example login new password now # was: old\nmacdef init\ndefault login x password y";
        assert_eq!(of(text), is("new", "now"));
        assert_eq!(
            of("macdef a\nmachine a.example login x password y\n\nmachine a.example login z password w"),
            is("z", "w")
        );
        // Half a word is no password.
        assert_eq!(of("machine a.example login x password \"left open"), None);
    }

    #[test]
    #[cfg(unix)]
    fn a_command_that_names_a_user_alone_gave_no_password() {
        let url = Url::parse("https://a.example/").unwrap();
        let of = |command: &str| Credentials::from_command(command, &url).map(|c| (c.user, c.password.to_string()));
        assert_eq!(of("printf 'username=bob\npassword=s3cret\n'").unwrap(), ("bob".into(), "s3cret".into()));
        assert_eq!(of("printf 's3cret\n'").unwrap(), (TOKEN_USER.into(), "s3cret".into()));
        let refused = of("printf 'username=bob\n'").unwrap_err();
        assert!(refused.what().contains("printed no password"), "{refused}");
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
        fn no_netrc_makes_it_panic(text in "(machine|default|login|password|macdef|[a-z]{1,3}|\"|\\\\|#|\\n| ){0,40}") {
            let _ = netrc(&text, "a");
        }
    }
}
