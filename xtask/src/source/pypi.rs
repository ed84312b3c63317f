//! `pypi:` coordinates: files of the index that pip is configured with (PEP 503, PEP 691).

use std::cmp::Reverse;
use std::fmt;
use std::process::Command;
use std::str::FromStr;
use std::sync::OnceLock;

use html5gum::{Token, Tokenizer};
use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use ureq::{Agent, ResponseExt};
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::recipe::{System, is_sha256};
use crate::wheel::Name;

pub use crate::wheel::normalize;

/// One file of a project.
#[derive(Debug, Clone)]
pub struct IndexFile {
    /// The name that installers parse: a wheel's, or a source archive's.
    pub filename: String,
    /// Absolute address, made of the page's own and what stands in it.
    pub url: String,
    /// Its SHA-256, where the index says it.
    pub sha256: Option<String>,
    /// Whether it is passed over unless it is asked for exactly (PEP 592).
    pub yanked: bool,
    /// `Requires-Python`, where the index says it.
    pub requires_python: Option<String>,
    /// When it was uploaded (PEP 700, RFC 3339), where the index says it.
    pub uploaded: Option<String>,
}

/// What is asked of an index: JSON (PEP 691), else HTML (PEP 503).
pub const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// Most files of a page: the largest projects of public indexes have some ten thousand.
const MOST_FILES: usize = 200_000;

/// The index: PIP_INDEX_URL, else what pip's configuration says, else pip's own default.
///
/// # Errors
/// The world: there is no setting, and no pip to ask for its default.
pub fn index_url() -> Result<String> {
    static URL: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    URL.get_or_init(find_index_url).clone().map_err(|what| {
        Error::world("no-index", what).next("set PIP_INDEX_URL to the index that pip uses on this machine")
    })
}

fn find_index_url() -> std::result::Result<String, String> {
    if let Ok(url) = std::env::var("PIP_INDEX_URL")
        && !url.is_empty()
    {
        return Ok(url);
    }
    // pip's parsed configuration, and where there is none, its built-in default: no host of ours. What lies in the
    // current folder is no pip of this machine's; `-I` would lose one that the user installed.
    const ASK: &str = "\
import sys
if sys.path[:1] == ['']:
    del sys.path[0]
from pip._internal.configuration import Configuration
from pip._internal.models.index import PyPI
c = Configuration(isolated=False)
c.load()
d = dict(c.items())
if d and all(isinstance(v, dict) for v in d.values()):
    d = {k: v for part in d.values() for k, v in part.items()}
print(d.get('install.index-url') or d.get('download.index-url') or d.get('global.index-url') or d.get(':env:.index-url') or PyPI.simple_url)";
    let mut reasons = Vec::new();
    for python in ["python3", "python"] {
        match Command::new(python).args(["-c", ASK]).output() {
            Ok(out) if out.status.success() => {
                let url = String::from_utf8_lossy(&out.stdout).trim().to_owned();
                if Url::parse(&url).is_ok() {
                    return Ok(url);
                }
                reasons.push(format!("{python} said '{url}'"));
            }
            Ok(out) => reasons
                .push(format!("{python}: {}", String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or("failed"))),
            Err(e) => reasons.push(format!("{python}: {e}")),
        }
    }
    Err(format!("cannot find out which package index pip uses ({})", reasons.join("; ")))
}

/// The files of `project`, from the JSON form of the index or, failing that, its HTML. Wheels of other projects on its
/// page are passed over, as installers do.
///
/// # Errors
/// Bad input: the index has no such project. The world: it does not answer.
pub fn files(agent: &Agent, project: &str) -> Result<Vec<IndexFile>> {
    let page_url = format!("{}/{}/", index_url()?.trim_end_matches('/'), normalize(project));
    let failed = |what: String| {
        Error::world("index", format!("the package index did not answer for '{project}': {what}"))
            .next("check the network, or PIP_INDEX_URL and pip's configuration")
    };
    let mut last = String::new();
    for attempt in 0..4u32 {
        if attempt > 0 {
            std::thread::sleep(std::time::Duration::from_millis(300 << attempt));
        }
        let response = super::http_get(agent, &page_url).header("Accept", ACCEPT).call();
        let response = match response {
            Ok(r) => r,
            Err(e) => {
                last = e.to_string();
                continue;
            }
        };
        let status = response.status().as_u16();
        if status == 404 {
            return Err(Error::misuse(Kind::NoPackage.code(), format!("the package index has no '{project}'"))
                .next("check the name"));
        }
        if status != 200 {
            last = format!("HTTP {status}");
            if status < 500 && status != 429 {
                break;
            }
            continue;
        }
        let base = stands_at(&response, &page_url).map_err(failed)?;
        let mut files = read_page(response, &base).map_err(|e| failed(e.what().to_owned()))?;
        let own = normalize(project);
        files.retain(|f| f.filename.parse::<Name>().ok().is_none_or(|name| name.project == own));
        return Ok(files);
    }
    Err(failed(last))
}

/// Of these files the one that fits best, as installers choose: by `rank` (smaller is better, `None` is not at all), one
/// that is yanked only where there is no other (PEP 592: a release may be yanked in part), and of those that are alike the
/// last build (PEP 427).
pub fn best<'f>(
    files: impl IntoIterator<Item = &'f IndexFile>,
    rank: impl Fn(&IndexFile) -> Option<u32>,
) -> Option<&'f IndexFile> {
    let build = |f: &IndexFile| f.filename.parse::<Name>().ok().and_then(|name| name.build_order());
    let ranked = files.into_iter().filter_map(|f| Some(((f.yanked, rank(f)?, Reverse(build(f)), &f.filename), f)));
    ranked.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, file)| file)
}

/// Whether what states `requires` (`Requires-Python`) runs on a Python (`3.11`): on the last of its patch releases, for some
/// are left out by number.
pub fn runs_on(requires: Option<&str>, python: &str) -> bool {
    let python = Version::from_str(&format!("{python}.99")).ok();
    requires.map(VersionSpecifiers::from_str).is_none_or(|s| s.is_ok_and(|s| python.is_none_or(|p| s.contains(&p))))
}

/// Where the page stands that was asked for at `asked`: redirects may have led elsewhere, and its links are relative to
/// that.
fn stands_at(response: &ureq::http::Response<ureq::Body>, asked: &str) -> std::result::Result<Url, String> {
    let parse = |address: &str| Url::parse(address).map_err(|e| e.to_string());
    Ok(signed_in(parse(&response.get_uri().to_string())?, &parse(asked)?))
}

/// `url` with the user and the password of `of`, if it is of the same origin and names none: what a page of an index
/// that asks for them links to there asks for them too, and what is elsewhere is not told them.
fn signed_in(mut url: Url, of: &Url) -> Url {
    if url.origin() == of.origin() && url.username().is_empty() && url.password().is_none() {
        // An address without a host has neither.
        let _ = url.set_username(of.username());
        let _ = url.set_password(of.password());
    }
    url
}

/// The files that a page of a project names.
///
/// # Errors
/// The world: it is no such page.
pub fn read_page(response: ureq::http::Response<ureq::Body>, base: &Url) -> Result<Vec<IndexFile>> {
    let json = response.headers().get("content-type").and_then(|v| v.to_str().ok()).is_some_and(|t| t.contains("json"));
    let text = super::http_text(response, 64 << 20);
    parse_page(&text.map_err(|e| unreadable(e.to_string()))?, json, base)
}

fn unreadable(what: String) -> Error {
    Error::world("index", format!("a page of the index cannot be read: {what}"))
}

/// The files that the text of a page names, which stands at `base`: PEP 691 if it is JSON, else PEP 503.
///
/// # Errors
/// The world: it is no such page, leads from https to plain http, or names more files than any project has.
pub fn parse_page(text: &str, json: bool, base: &Url) -> Result<Vec<IndexFile>> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        meta: Meta,
        files: Vec<File>,
    }
    #[derive(Deserialize, Default)]
    struct Meta {
        #[serde(default, rename = "api-version")]
        version: String,
    }
    #[derive(Deserialize)]
    struct File {
        filename: String,
        url: String,
        #[serde(default)]
        hashes: Hashes,
        #[serde(default)]
        yanked: Yanked,
        #[serde(default, rename = "requires-python")]
        requires_python: Option<String>,
        #[serde(default, rename = "upload-time")]
        uploaded: Option<String>,
    }
    #[derive(Deserialize, Default)]
    struct Hashes {
        #[serde(default)]
        sha256: Option<String>,
    }
    // The digest stands in the fragment (PEP 503).
    let named = |filename: String| IndexFile {
        filename,
        url: String::new(),
        sha256: None,
        uploaded: None,
        yanked: false,
        requires_python: None,
    };
    // Installers go by what a page of HTML says its addresses are relative to.
    let stated = if json { None } else { base_of(text) };
    let from = match &stated {
        Some(href) => base.join(href).map_err(|e| unreadable(format!("its base '{href}' is no address: {e}")))?,
        None => base.clone(),
    };
    let placed = |file: IndexFile, href: &str| {
        let url = from.join(href).map_err(|e| unreadable(format!("'{href}' is no address: {e}")))?;
        let mut url = signed_in(url, base);
        if base.scheme() == "https" && url.scheme() == "http" {
            return Err(unreadable(format!("it came by https and leads to plain http for {}", file.filename)));
        }
        let fragment = url.fragment().and_then(|f| f.strip_prefix("sha256=")).map(str::to_owned);
        url.set_fragment(None);
        let sha256 = file.sha256.or(fragment).filter(|d| is_sha256(d));
        Ok(IndexFile { url: url.to_string(), sha256, ..file })
    };
    if json {
        // A file has a brace of its own, and a few for digests; our index's has six. Of all else nothing is kept.
        few_files(memchr::memchr_iter(b'{', text.as_bytes()).count() / 8)?;
        let page: Page = serde_json::from_str(text).map_err(|e| unreadable(e.to_string()))?;
        known_version(&page.meta.version)?;
        few_files(page.files.len())?;
        let read = |f: File| {
            let said = IndexFile {
                sha256: f.hashes.sha256,
                uploaded: f.uploaded,
                yanked: f.yanked.0,
                requires_python: f.requires_python,
                ..named(f.filename)
            };
            placed(said, &f.url)
        };
        return page.files.into_iter().map(read).collect();
    }
    known_version(&stated_version(text))?;
    let read = |a: Anchor| {
        placed(IndexFile { yanked: a.yanked, requires_python: a.requires_python, ..named(a.text) }, &a.href)
    };
    let anchors = anchors(text);
    few_files(anchors.len())?;
    anchors.into_iter().map(read).collect()
}

/// An error for a page with more files than any project has.
fn few_files(files: usize) -> Result<()> {
    if files > MOST_FILES {
        return Err(unreadable(format!("it names more than {MOST_FILES} files")));
    }
    Ok(())
}

/// Whether a file is yanked: unless it is `false` or `null`, what stands there says so (PEP 691). It may be any value,
/// and is not kept.
#[derive(Default)]
struct Yanked(bool);

impl<'de> Deserialize<'de> for Yanked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Said;

        impl<'de> Visitor<'de> for Said {
            type Value = Yanked;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("false, true or a reason")
            }

            fn visit_unit<E>(self) -> Result<Yanked, E> {
                Ok(Yanked(false))
            }

            fn visit_bool<E>(self, is: bool) -> Result<Yanked, E> {
                Ok(Yanked(is))
            }

            fn visit_str<E>(self, _: &str) -> Result<Yanked, E> {
                Ok(Yanked(true))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Yanked, E> {
                Ok(Yanked(true))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Yanked, E> {
                Ok(Yanked(true))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Yanked, E> {
                Ok(Yanked(true))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Yanked, A::Error> {
                IgnoredAny.visit_seq(items).map(|_| Yanked(true))
            }

            fn visit_map<A: MapAccess<'de>>(self, items: A) -> Result<Yanked, A::Error> {
                IgnoredAny.visit_map(items).map(|_| Yanked(true))
            }
        }

        deserializer.deserialize_any(Said)
    }
}

/// An error for a page of a version of the API that may mean something else by the same words (PEP 629).
fn known_version(version: &str) -> Result<()> {
    match version.split('.').next().map(str::trim) {
        Some("" | "1") | None => Ok(()),
        Some(_) => {
            Err(unreadable(format!("it has version {} of the simple API, and 1 is known", version.escape_debug())))
        }
    }
}

/// The METADATA that an index serves beside a wheel (PEP 658); `None` where it serves none.
///
/// # Errors
/// The world: the index does not answer.
pub fn metadata_beside(agent: &Agent, wheel: &IndexFile) -> Result<Option<String>> {
    let failed = |what: String| {
        Error::world(
            "index",
            format!("the package index did not answer for the METADATA of {}: {what}", wheel.filename),
        )
        .next("check the network, or PIP_INDEX_URL and pip's configuration")
    };
    let asked = super::http_get(agent, &format!("{}.metadata", wheel.url));
    let response = asked.call().map_err(|e| failed(e.to_string()))?;
    match response.status().as_u16() {
        200 => {
            let text = super::http_text(response, MOST_METADATA);
            text.map(Some).map_err(|e| failed(e.to_string()))
        }
        403 | 404 | 410 => Ok(None),
        status => Err(failed(format!("HTTP {status}"))),
    }
}

/// Largest METADATA that is read, bytes.
const MOST_METADATA: u64 = 4 << 20;

/// An anchor of a PEP 503 page.
#[derive(Debug, PartialEq, Eq)]
struct Anchor {
    href: String,
    text: String,
    yanked: bool,
    requires_python: Option<String>,
}

/// The version of the API that a page of HTML states (PEP 629); empty if it states none.
fn stated_version(html: &str) -> String {
    let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let version = Tokenizer::new(html).flatten().find_map(|token| match token {
        Token::StartTag(tag) if *tag.name == b"meta" => {
            let value = |key: &[u8]| tag.attributes.get(key).map(|v| text_of(v));
            value(b"name").filter(|name| name == "pypi:repository-version").and(value(b"content"))
        }
        _ => None,
    });
    version.unwrap_or_default()
}

/// What the first `<base href>` of a page says.
fn base_of(html: &str) -> Option<String> {
    Tokenizer::new(html).flatten().find_map(|token| match token {
        Token::StartTag(tag) if *tag.name == b"base" => {
            tag.attributes.get(&b"href"[..]).map(|v| String::from_utf8_lossy(v).into_owned())
        }
        _ => None,
    })
}

/// The anchors of a page, as browsers and installers read them: not what stands in a comment, entities resolved. One
/// more than a page may have ends the reading.
fn anchors(html: &str) -> Vec<Anchor> {
    let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut out = Vec::new();
    let mut open: Option<Anchor> = None;
    for token in Tokenizer::new(html).flatten() {
        match token {
            Token::StartTag(tag) if *tag.name == b"a" => {
                let value = |key: &[u8]| tag.attributes.get(key).map(|v| text_of(v));
                open = value(b"href").map(|href| Anchor {
                    href,
                    text: String::new(),
                    yanked: value(b"data-yanked").is_some(),
                    requires_python: value(b"data-requires-python"),
                });
            }
            Token::String(text) => {
                if let Some(anchor) = &mut open {
                    anchor.text.push_str(&text_of(&text));
                }
            }
            Token::EndTag(tag) if *tag.name == b"a" => {
                out.extend(open.take().map(|anchor| Anchor { text: anchor.text.trim().to_owned(), ..anchor }));
                if out.len() > MOST_FILES {
                    break;
                }
            }
            _ => {}
        }
    }
    out
}

/// Where wheels must run.
#[derive(Debug, Clone, Copy)]
pub struct Platform<'a> {
    /// Operating system.
    pub system: System,
    /// `x86_64`, `aarch64`.
    pub machine: &'a str,
    /// Version of Python to the minor one: `3.11`.
    pub minor: &'a str,
}

impl Platform<'_> {
    /// What markers are read against (PEP 508).
    ///
    /// # Errors
    /// Bad input: `minor` is no Python version.
    pub fn environment(self) -> Result<MarkerEnvironment> {
        let Self { system, machine, minor } = self;
        // As Python says it there: platform.machine(), platform.system(), os.name, sys.platform.
        let machine = match (system, machine) {
            (System::Windows, "x86_64") => "AMD64",
            (System::Macos, "aarch64") => "arm64",
            _ => machine,
        };
        let (os, name, sys) = match system {
            System::Linux => ("posix", "Linux", "linux"),
            System::Windows => ("nt", "Windows", "win32"),
            System::Macos => ("posix", "Darwin", "darwin"),
        };
        let full = format!("{minor}.0");
        MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
            implementation_name: "cpython",
            implementation_version: &full,
            os_name: os,
            platform_machine: machine,
            platform_python_implementation: "CPython",
            platform_release: "",
            platform_system: name,
            platform_version: "",
            python_full_version: &full,
            python_version: minor,
            sys_platform: sys,
        })
        .map_err(|e| Error::misuse("recipe", format!("'{minor}' is no Python version: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_came_by_https_leads_to_nothing_by_http() {
        let base = Url::parse("https://h/simple/x/").unwrap();
        let html = |href: &str| format!("<a href=\"{href}\" data-yanked=\"\">x-1.whl</a>");
        let e = parse_page(&html("http://h/x-1.whl"), false, &base).unwrap_err();
        assert!(e.what().contains("plain http"), "{e}");
        let json = r#"{"files": [{"filename": "x-1.whl", "url": "http://h/x-1.whl"}]}"#;
        assert!(parse_page(json, true, &base).is_err());
        let digest = "0".repeat(64);
        let files = parse_page(&html(&format!("../../f/x-1.whl#sha256={digest}")), false, &base).unwrap();
        let [file] = &files[..] else { panic!("{files:?}") };
        assert_eq!(
            (file.url.as_str(), file.sha256.as_ref(), file.yanked),
            ("https://h/f/x-1.whl", Some(&digest), true)
        );
        let there = |base_href: &str| format!("<base href='{base_href}'>{}", html("x-1.whl"));
        let files = parse_page(&there("/f/"), false, &base).unwrap();
        assert_eq!(files[0].url, "https://h/f/x-1.whl");
        assert!(parse_page(&there("http://h/f/"), false, &base).is_err());
        // What is no digest promises nothing.
        assert_eq!(parse_page(&html("x-1.whl#sha256=00"), false, &base).unwrap()[0].sha256, None);
    }

    #[test]
    fn a_user_and_a_password_go_to_the_origin_of_the_page_and_to_no_other() {
        let base = Url::parse("http://me:p%40w@h:8/simple/x/").unwrap();
        let led_to =
            |href: &str| parse_page(&format!("<a href=\"{href}\">x-1.whl</a>"), false, &base).unwrap()[0].url.clone();
        for own in ["../../f/x-1.whl", "/f/x-1.whl", "//h:8/f/x-1.whl", "http://h:8/f/x-1.whl"] {
            assert_eq!(led_to(own), "http://me:p%40w@h:8/f/x-1.whl", "{own}");
        }
        for other in ["http://h/x-1.whl", "https://h:8/x-1.whl", "http://i:8/x-1.whl", "http://you:z@h:8/x-1.whl"] {
            assert_eq!(led_to(other), other);
        }
    }

    #[test]
    fn a_page_of_a_later_api_is_not_read_as_one_of_this() {
        let base = Url::parse("https://h/simple/x/").unwrap();
        let json = |version: &str| format!(r#"{{"meta": {{"api-version": "{version}"}}, "files": []}}"#);
        let html =
            |version: &str| format!("<meta name=\"pypi:repository-version\" content=\"{version}\"><a href=x>x</a>");
        for (version, is_known) in [("1.0", true), ("1.7", true), ("1", true), ("2.0", false), ("two", false)] {
            assert_eq!(parse_page(&json(version), true, &base).is_ok(), is_known, "{version}");
            assert_eq!(parse_page(&html(version), false, &base).is_ok(), is_known, "{version}");
        }
        assert!(parse_page(r#"{"files": []}"#, true, &base).is_ok());
    }

    #[test]
    fn a_file_is_yanked_unless_the_page_says_false_or_nothing() {
        let base = Url::parse("https://h/simple/x/").unwrap();
        let digest = "0".repeat(64);
        for (said, is) in [
            ("", false),
            (r#","yanked":false"#, false),
            (r#","yanked":null"#, false),
            (r#","yanked":true"#, true),
            (r#","yanked":"""#, true),
            (r#","yanked":"why""#, true),
            (r#","yanked":0"#, true),
            (r#","yanked":-1.5"#, true),
            (r#","yanked":[[],{"a":[1]}]"#, true),
            (r#","yanked":{"a":{}}"#, true),
        ] {
            let hashes = format!(r#"{{"md5":"x","sha256":"{digest}"}}"#);
            let page = format!(r#"{{"files":[{{"filename":"x-1.whl","url":"x-1.whl","hashes":{hashes}{said}}}]}}"#);
            let files = parse_page(&page, true, &base).unwrap();
            assert_eq!((files[0].yanked, files[0].sha256.as_ref()), (is, Some(&digest)), "{said}");
        }
    }

    #[test]
    fn an_html_index_page_is_read() {
        let got = anchors(r#"<html><a href="../../f/x-1.whl#sha256=00" data-x="1">x-1.whl</a><br/><a href='/y'>y</a>"#);
        let got: Vec<_> = got.iter().map(|a| (a.href.as_str(), a.text.as_str())).collect();
        assert_eq!(got, [("../../f/x-1.whl#sha256=00", "x-1.whl"), ("/y", "y")]);
        // As HTML may be written, and not what only looks like an anchor.
        let got = anchors(
            "<!-- <a href=\"/c\">c</a> --><A\n data-requires-python='&gt;=3.9, &#60;4'\n HREF=/x-1.whl\n data-yanked> x-1.whl\n</A >\
             <a title='href=\"/no\"'>no</a><abbr href=/no>no</abbr><a href=/cut>cut",
        );
        let [a] = &got[..] else { panic!("{got:?}") };
        assert_eq!((a.href.as_str(), a.text.as_str(), a.yanked), ("/x-1.whl", "x-1.whl", true));
        assert_eq!(a.requires_python.as_deref(), Some(">=3.9, <4"));
    }
}
