//! Secrets in the environment: what this program does not need is gone, from the memory that other
//! processes of the user can read as well, before anything of others is started.
#![allow(unsafe_code)] // the environment's own memory has no safe interface in std

use zeroize::Zeroizing;

/// The secret that the variable `name` holds, without the end of a line that a file or a CI's form leaves behind it;
/// `None` where there is nothing else.
pub fn secret_variable(name: &str) -> Option<Zeroizing<String>> {
    let value = Zeroizing::new(std::env::var(name).ok()?);
    let secret = value.trim_end_matches(['\r', '\n']);
    (!secret.is_empty()).then(|| Zeroizing::new(secret.to_owned()))
}

/// Whether a variable of this name holds a secret, as far as names tell.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    // What cargo reads a company's registry with: sources are fetched by it, after this.
    if name.starts_with("CARGO_REGISTRIES_") {
        return false;
    }
    let parts = [
        "TOKEN",
        "SECRET",
        "PASSW",
        "PASSPHRASE",
        "SSHPASS",
        "CREDENTIAL",
        "PRIVATE",
        "APIKEY",
        "AUTHORIZATION",
        "COOKIE",
    ];
    let endings = ["_KEY", "_PAT", "_PASS", "_PWD", "_AUTH"];
    parts.iter().any(|part| name.contains(part))
        || endings.iter().any(|ending| name.ends_with(ending))
        || name == "KEY"
        || name.contains("ACCESS_KEY")
        || name.contains("AUTH_CONFIG")
}

/// Whether a value names a user or a password before a host, as addresses of indexes and proxies may.
fn names_a_user(value: &str) -> bool {
    value.split_whitespace().any(|word| word.split_once('@').is_some_and(|(before, _)| before.contains(':')))
}

/// Takes every secret out of the environment, and `also`. Who needs one reads it before. By addresses of indexes and
/// proxies, and by what cargo reads a registry with, sources are fetched after this: those stay.
pub fn scrub_environment(also: Option<&str>) {
    scrub(|name, _| is_secret(name) || also == Some(name));
}

/// The same for who fetches nothing: those go as well.
pub fn scrub_whole_environment() {
    scrub(|name, value| is_secret(name) || name.starts_with("CARGO_REGISTRIES_") || names_a_user(value));
}

/// Takes the variables out of the environment of whose name and value `is` says so.
fn scrub(is: impl Fn(&str, &str) -> bool) {
    let all = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let secrets = all.filter(|(name, value)| is(name, &value.to_string_lossy()));
    let names: Vec<String> = secrets.map(|(name, _)| name).collect();
    for name in &names {
        // What removing leaves in memory, /proc shows.
        #[cfg(unix)]
        wipe(name);
        // SAFETY: called by commands before they start threads that read the environment.
        unsafe { std::env::remove_var(name) };
    }
}

/// Overwrites the value of `name` where the environment has it.
#[cfg(unix)]
fn wipe(name: &str) {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: `environ` is a list of C strings that ends with null; each is overwritten within its own bytes.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let text = *entry;
            let length = libc::strlen(text);
            let bytes = std::slice::from_raw_parts_mut(text.cast::<u8>(), length);
            if bytes.len() > name.len() && bytes.starts_with(name.as_bytes()) && bytes[name.len()] == b'=' {
                for byte in &mut bytes[name.len() + 1..] {
                    std::ptr::write_volatile(byte, b'*');
                }
            }
            entry = entry.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_secret, names_a_user};

    #[test]
    fn names_of_secrets_are_known() {
        for name in [
            "SIGNING_KEY",
            "TORCHMILL_UPLOAD_TOKEN",
            "TWINE_PASSWORD",
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_TOKEN",
            "api_key",
            "MY_PAT",
            "GPG_PASSPHRASE",
            "SSHPASS",
            "MYSQL_PWD",
            "SMTP_PASS",
            "NPM_AUTH",
            "DOCKER_AUTH_CONFIG",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "CC",
            "PIP_INDEX_URL",
            "KEYBOARD",
            "OLDPWD",
            "SSH_AUTH_SOCK",
            "GIT_AUTHOR_NAME",
            "TORCHMILL_STORE",
            "LC_ALL",
            "CARGO_REGISTRIES_OURS_TOKEN",
            "PATH_INFO",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn addresses_that_hold_a_password_are_known() {
        for value in [
            "https://u:p@index.example/simple",
            "https://token@index.example/",
            "u:p@proxy.example:3128",
            "https://a.example/ https://u:p@b.example/",
        ] {
            assert!(names_a_user(value), "{value}");
        }
        for value in ["https://index.example/simple", "git@host.example:x", "/usr/bin:/bin", "a@b", ""] {
            assert!(!names_a_user(value), "{value}");
        }
    }
}
