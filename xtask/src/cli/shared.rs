//! The arguments and settings of a compiler cache that machines share, and of a farm.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::artifact::dsse::{self, KeySource};
use crate::error::{Error, Result};
use crate::platform;
use crate::repro::foreign;
use crate::stage::{Aws, Credentials, Farm, Shared, Storage, Trust};

/// What is said of a cache that needs no key.
const UNSIGNED: &str = "unsigned";

/// A compiler cache that machines share.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Compiler cache that machines share: a folder, http(s)://HOST/PATH, s3://BUCKET/FOLDER or
    /// redis://HOST:PORT/DATABASE (docs/farm.md)
    #[arg(id = "cache_url", long = "cache", value_name = "URL")]
    url: Option<String>,
    /// Read entries of the cache that this key (PEM) signed; 'unsigned': those of everybody who can write there
    #[arg(id = "cache_trust", long = "cache-trust", value_name = "KEY|unsigned")]
    trust: Vec<String>,
    /// Sign what is written to the cache: an Ed25519 key (PEM file), or env:VARIABLE
    #[arg(id = "cache_sign", long = "cache-sign", value_name = "FILE|env:VARIABLE", allow_hyphen_values = true)]
    sign: Option<String>,
    /// Percent of the objects from elsewhere that are compiled again and compared, 10 objects at the
    /// least; 0 for none (default: 1)
    #[arg(id = "cache_audit", long = "cache-audit", value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    audit: Option<u8>,
}

/// The file that `TORCHMILL_SETTINGS` names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    cache: CacheSettings,
    #[serde(default)]
    farm: FarmSettings,
}

/// `[farm]`: what `--farm` says, where it does not say it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FarmSettings {
    url: Option<String>,
    token_file: Option<PathBuf>,
    patience: Option<u16>,
}

/// `[cache]`: what the arguments of the same names say, where they do not say it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CacheSettings {
    url: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    #[serde(default)]
    trust: Vec<String>,
    sign: Option<String>,
    audit: Option<u8>,
}

/// Machines that compile for this one.
#[derive(Debug, Args)]
pub struct FarmArgs {
    /// Compile on other machines too: the scheduler's address, http://HOST:PORT or https://HOST (docs/farm.md)
    #[arg(id = "farm_url", long = "farm", value_name = "URL")]
    url: Option<String>,
    /// Seconds that the farm may take for an object beside four times what it took last, before it is compiled here
    /// (default: 30)
    #[arg(id = "farm_patience", long = "farm-patience", value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
    patience: Option<u16>,
}

impl CacheSettings {
    /// Who asks the cache: what the environment has, else what the files say, relative to `here`.
    fn credentials(&self, here: &Path) -> Result<Credentials> {
        let of_environment = Credentials::of_environment();
        if of_environment.is_some() {
            return Ok(of_environment);
        }
        let read = |file: &Option<PathBuf>| {
            file.as_ref()
                .map(|file| secret_in(&here.join(file), "cache-token", "the password of the cache"))
                .transpose()
        };
        Ok(Credentials::of_files(self.username.clone(), read(&self.password_file)?, read(&self.token_file)?))
    }
}

/// The secret that stands in a file.
fn secret_in(file: &Path, code: &'static str, what: &str) -> Result<Zeroizing<String>> {
    let text = platform::read_text(file, platform::MOST_TEXT)
        .map(Zeroizing::new)
        .map_err(|e| Error::misuse(code, format!("{what} cannot be read from {}: {e}", file.display())))?;
    let secret = Zeroizing::new(text.trim().to_owned());
    if secret.is_empty() {
        return Err(Error::misuse(code, format!("{} is empty: {what} is not in it", file.display())));
    }
    Ok(secret)
}

/// Who asks a farm: the environment's token, or the first line of a file.
///
/// # Errors
/// Misuse: the file cannot be read.
pub fn farm_token(file: Option<&Path>) -> Result<Option<Zeroizing<String>>> {
    if let Some(token) = platform::secret_variable("TORCHMILL_FARM_TOKEN") {
        return Ok(Some(token));
    }
    let Some(file) = file else { return Ok(None) };
    secret_in(file, "farm-token", "the token of the farm")
        .map(Some)
        .map_err(|e| e.next("the scheduler's machine has it in its file client.token"))
}

impl FarmArgs {
    /// What arguments, settings and environment say. Reads the token: before the environment is scrubbed.
    ///
    /// # Errors
    /// Misuse: an address that is none or not safe; a token that cannot be read or that the address does not want.
    pub fn chosen(&self) -> Result<Option<Arc<Farm>>> {
        // A closed room has no network.
        if foreign::inside().is_some() {
            return Ok(None);
        }
        let (Settings { farm, .. }, here) = settings()?;
        let Some(url) = self.url.clone().or(farm.url) else { return Ok(None) };
        let token = farm_token(farm.token_file.map(|file| here.join(file)).as_deref())?;
        Ok(Some(Arc::new(Farm::parse(&url, token, self.patience.or(farm.patience))?)))
    }
}

/// What a build does with objects of others.
#[derive(Debug, Default)]
pub struct Chosen {
    /// The cache, if there is one.
    pub shared: Option<Arc<Shared>>,
    /// Percent of the sample; the default if `None`.
    pub audit: Option<u8>,
}

impl CacheArgs {
    /// What arguments and settings say. Reads keys and passwords: before the environment is scrubbed, which it does
    /// itself where the key is a variable.
    ///
    /// # Errors
    /// Misuse: settings, addresses and keys that are none; a cache that would be neither read nor written.
    pub fn chosen(&self) -> Result<Chosen> {
        // A closed room has neither a network nor the folder, and no key of anybody is shown there.
        if foreign::inside().is_some() {
            return Ok(Chosen { shared: None, audit: self.audit });
        }
        let (Settings { cache: settings, .. }, here) = settings()?;
        let audit = self.audit.or(settings.audit);
        if let Some(percent) = audit.filter(|percent| *percent > 100) {
            return Err(Error::misuse(
                "settings",
                format!("cache.audit = {percent}: more than 100 percent there are not"),
            ));
        }
        let credentials = settings.credentials(&here)?;
        // A folder in the settings is relative to them, as keys are.
        // Nothing stays nothing: joined, it would be the settings' own folder.
        let settled = |url: String| {
            let is_path = !url.trim().is_empty() && Storage::is_folder(&url);
            if is_path { here.join(url).display().to_string() } else { url }
        };
        let Some(url) = self.url.clone().or(settings.url.map(settled)) else {
            if self.trust.is_empty() && self.sign.is_none() {
                return Ok(Chosen { shared: None, audit });
            }
            return Err(Error::misuse(
                "cache-url",
                "--cache-trust and --cache-sign are about a cache, and none was named",
            )
            .next("name one: --cache URL, or url in [cache] of the settings"));
        };
        let mut aws = Aws::of_environment();
        aws.endpoint = settings.endpoint.or(aws.endpoint);
        aws.region = settings.region.or(aws.region);
        let storage = Storage::parse(&url, credentials, aws)?;
        let trust =
            if self.trust.is_empty() { trusted(&settings.trust, &here)? } else { trusted(&self.trust, Path::new(""))? };
        let key = match (&self.sign, &settings.sign) {
            (Some(text), _) => Some(super::sign::key_source(text)?),
            (None, Some(text)) => Some(match super::sign::key_source(text)? {
                KeySource::File(path) => KeySource::File(here.join(path)),
                variable @ KeySource::Environment(_) => variable,
            }),
            (None, None) => None,
        };
        let secret = key.as_ref().map(KeySource::load).transpose()?;
        if let Some(KeySource::Environment(name)) = &key {
            platform::scrub_environment(Some(name));
        }
        if trust == Trust::Nobody && secret.is_none() {
            return Err(Error::misuse(
                "cache-trust",
                format!("nothing says whose entries of the cache {url} may be read"),
            )
            .next("objects are code of whoever compiled them: name the key that signs them, --cache-trust build.pub")
            .next("or trust everybody who can write there: --cache-trust unsigned")
            .next("or write to it alone: --cache-sign signing.pem"));
        }
        Ok(Chosen { shared: Some(Arc::new(Shared { storage, trust, secret })), audit })
    }
}

/// Whom the list `names` trusts; keys are relative to `here`.
fn trusted(names: &[String], here: &Path) -> Result<Trust> {
    let keys: Vec<&String> = names.iter().filter(|name| *name != UNSIGNED).collect();
    match (names.len(), keys.len()) {
        (0, _) => Ok(Trust::Nobody),
        (_, 0) => Ok(Trust::Unsigned),
        (all, some) if all == some => {
            Ok(Trust::Keys(keys.into_iter().map(|key| dsse::public_key(&here.join(key))).collect::<Result<_>>()?))
        }
        _ => Err(Error::misuse(
            "cache-trust",
            "--cache-trust says 'unsigned' beside keys: then the keys would count for nothing",
        )
        .next("name keys alone, or 'unsigned' alone")),
    }
}

/// The settings, and the folder that they stand in.
fn settings() -> Result<(Settings, PathBuf)> {
    let Some(path) = std::env::var_os("TORCHMILL_SETTINGS").filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok((Settings::default(), PathBuf::new()));
    };
    let bad = |what: String| {
        Error::misuse("settings", format!("{} (TORCHMILL_SETTINGS): {what}", path.display()))
            .next("docs/farm.md shows what can stand in it")
    };
    let text = platform::read_text(&path, platform::MOST_TEXT).map_err(|e| bad(e.to_string()))?;
    let settings: Settings = toml::from_str(&text).map_err(|e| bad(platform::toml_error(&text, &e)))?;
    Ok((settings, path.parent().unwrap_or(Path::new("")).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_everybody_and_keys_are_told_apart() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(trusted(&[], Path::new("")).unwrap(), Trust::Nobody);
        assert_eq!(trusted(&names(&[UNSIGNED]), Path::new("")).unwrap(), Trust::Unsigned);
        assert!(trusted(&names(&[UNSIGNED, "a.pub"]), Path::new("")).unwrap_err().what().contains("beside keys"));
        let named = Path::new("/none").join("none.pub").display().to_string();
        assert!(trusted(&names(&["none.pub"]), Path::new("/none")).unwrap_err().what().contains(&named));
    }
}
