//! A bucket of an S3-compatible store: which address each entry has there, signed (AWS Signature Version 4, in the query).

use std::time::Duration;

use rusty_s3::{Bucket as Named, Credentials as Pair, S3Action, UrlStyle};
use url::Url;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// How long an address is good for.
pub(super) const GOOD_FOR: Duration = Duration::from_secs(120);
/// The region of a store that has none.
const REGION: &str = "us-east-1";

/// What the variables say that all clients of S3 read. Read before the environment is scrubbed.
#[derive(Clone, Default)]
pub struct Aws {
    /// Address of a store that is not Amazon's: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`.
    pub endpoint: Option<String>,
    /// `AWS_REGION`, `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// `AWS_ACCESS_KEY_ID`.
    pub id: Option<String>,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: Option<Zeroizing<String>>,
    /// `AWS_SESSION_TOKEN`.
    pub session: Option<Zeroizing<String>>,
}

impl Aws {
    /// What the environment has.
    pub fn of_environment() -> Self {
        let first = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| std::env::var(name).ok())
                .map(|v| v.trim().to_owned())
                .find(|v| !v.is_empty())
        };
        Self {
            endpoint: first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
            region: first(&["AWS_REGION", "AWS_DEFAULT_REGION"]),
            id: first(&["AWS_ACCESS_KEY_ID"]),
            secret: first(&["AWS_SECRET_ACCESS_KEY"]).map(Zeroizing::new),
            session: first(&["AWS_SESSION_TOKEN"]).map(Zeroizing::new),
        }
    }
}

/// A bucket, and the folder of it that entries stand in.
pub struct Bucket {
    named: Named,
    /// Empty, or with `/` at its end.
    folder: String,
    /// `None`: asked as anybody may.
    pair: Option<Pair>,
}

/// What is done with an entry.
#[derive(Clone, Copy)]
pub enum Verb {
    /// Its bytes are asked for.
    Get,
    /// Whether it is there.
    Head,
    /// It is kept.
    Put,
    /// It goes.
    Delete,
}

impl Bucket {
    /// The bucket of `s3://NAME/FOLDER`, as `aws` says where it is and who asks.
    ///
    /// # Errors
    /// Misuse: it has no name, or names what cannot be an address.
    pub fn parse(url: &Url, aws: Aws) -> Result<Self> {
        let bad = |what: String| {
            Error::misuse("cache-url", format!("--cache {url}: {what}"))
                .next("s3://BUCKET/FOLDER, with AWS_REGION, and AWS_ENDPOINT_URL where the store is not Amazon's")
        };
        let name = url.host_str().unwrap_or_default().to_owned();
        if name.is_empty() || url.port().is_some() {
            return Err(bad("it names no bucket: s3://BUCKET/FOLDER".into()));
        }
        let folder = percent_encoding::percent_decode_str(url.path().trim_matches('/'));
        let folder = folder.decode_utf8().map_err(|e| bad(e.to_string()))?;
        if folder.split('/').any(|part| matches!(part, "." | "..") || part.is_empty() && !folder.is_empty()) {
            return Err(bad("a folder in it has no name".into()));
        }
        let region = aws.region.unwrap_or_else(|| REGION.into());
        if !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(bad(format!("AWS_REGION '{}' is no region", region.escape_debug())));
        }
        // A certificate for all buckets is good for no name with a dot; other stores often have no host for each bucket.
        let style = if aws.endpoint.is_some() || name.contains('.') { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let endpoint = aws.endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let address = Url::parse(&endpoint).map_err(|e| bad(format!("AWS_ENDPOINT_URL: {e}")))?;
        if !address.username().is_empty() || address.password().is_some() {
            return Err(bad("AWS_ENDPOINT_URL: a user or a password has no place in an address".into()));
        }
        let named = Named::new(address, style, name, region).map_err(|e| bad(format!("AWS_ENDPOINT_URL: {e}")))?;
        let pair = match (aws.id, aws.secret) {
            (Some(id), Some(secret)) => Some(match aws.session {
                Some(session) => Pair::new_with_token(id, secret.as_str(), session.as_str()),
                None => Pair::new(id, secret.as_str()),
            }),
            (None, None) => None,
            (id, _) => {
                let [has, lacks] = if id.is_some() { ["the key's name", "the key"] } else { ["a key", "its name"] };
                return Err(bad(format!("there is {has} and not {lacks}")).next(
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or TORCHMILL_CACHE_USERNAME and \
                     TORCHMILL_CACHE_PASSWORD, name both",
                ));
            }
        };
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        Ok(Self { named, folder, pair })
    }

    /// For people.
    pub fn shown(&self) -> String {
        let base = self.named.base_url();
        let host = base.host_str().unwrap_or_default();
        let port = base.port().map_or(String::new(), |port| format!(":{port}"));
        format!("s3://{}/{} at {host}{port}", self.named.name(), self.folder)
    }

    /// The address that does `verb` with what stands at `place` in the folder, for two minutes.
    pub fn entry(&self, verb: Verb, place: &str) -> Url {
        let (key, pair) = (format!("{}{place}", self.folder), self.pair.as_ref());
        match verb {
            Verb::Get => self.named.get_object(pair, &key).sign(GOOD_FOR),
            Verb::Head => self.named.head_object(pair, &key).sign(GOOD_FOR),
            Verb::Put => self.named.put_object(pair, &key).sign(GOOD_FOR),
            Verb::Delete => self.named.delete_object(pair, &key).sign(GOOD_FOR),
        }
    }

    /// The address that says whether the bucket is there.
    pub fn itself(&self) -> Url {
        self.named.head_bucket(self.pair.as_ref()).sign(GOOD_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, aws: Aws) -> Result<Bucket> {
        Bucket::parse(&Url::parse(text).unwrap(), aws)
    }

    fn aws(endpoint: &str) -> Aws {
        Aws {
            endpoint: (!endpoint.is_empty()).then(|| endpoint.into()),
            region: Some("eu-north-1".into()),
            ..Aws::default()
        }
    }

    fn place(text: &str, endpoint: &str) -> String {
        parse(text, aws(endpoint)).unwrap().entry(Verb::Get, "0b/70").to_string()
    }

    #[test]
    fn a_bucket_is_a_host_of_amazons_and_a_folder_elsewhere() {
        assert_eq!(place("s3://team/torch/x", ""), "https://team.s3.eu-north-1.amazonaws.com/torch/x/0b/70");
        assert_eq!(place("s3://team", ""), "https://team.s3.eu-north-1.amazonaws.com/0b/70");
        // What is good for *.s3.… is not good for a.b.s3.…
        assert_eq!(place("s3://a.b/x/", ""), "https://s3.eu-north-1.amazonaws.com/a.b/x/0b/70");
        assert_eq!(place("s3://team/a%20b", "http://10.0.0.1:9000"), "http://10.0.0.1:9000/team/a%20b/0b/70");
        let shown = parse("s3://team/x", aws("http://10.0.0.1:9000")).unwrap().shown();
        assert_eq!(shown, "s3://team/x/ at 10.0.0.1:9000");
    }

    #[test]
    fn an_address_is_signed_and_holds_no_key() {
        let secret = || Some(Zeroizing::new("s3cret".to_owned()));
        let with = |id: Option<&str>, session: bool| Aws {
            id: id.map(str::to_owned),
            secret: secret(),
            session: session.then(secret).flatten(),
            ..aws("")
        };
        let signed = parse("s3://team", with(Some("id"), false)).unwrap().entry(Verb::Put, "0b/70").to_string();
        assert!(
            signed.contains("X-Amz-Credential=id%2F")
                && signed.contains("X-Amz-Signature=")
                && !signed.contains("s3cret")
        );
        // A session's token stands in it; messages leave it out.
        let url = parse("s3://team", with(Some("id"), true)).unwrap().itself().to_string();
        assert!(url.contains("s3cret") && !crate::error::without_secrets(&url).contains("s3cret"), "{url}");
        let e = parse("s3://team", with(None, false)).err().unwrap();
        assert!(e.what().ends_with("there is a key and not its name") && !format!("{e:?}").contains("s3cret"), "{e}");
        for (bad, says) in
            [("s3:///x", "no bucket"), ("s3://team:80/x", "no bucket"), ("s3://team/a//b", "has no name")]
        {
            let e = parse(bad, Aws::default()).err().unwrap();
            assert!(e.what().contains(says), "{e}");
        }
        for endpoint in ["ftp://h", "no address", "https://u:s3cret@h"] {
            let e = parse("s3://team", aws(endpoint)).err().unwrap();
            assert!(e.what().contains("AWS_ENDPOINT_URL: ") && !format!("{e:?}").contains("s3cret"), "{e}");
        }
    }
}
