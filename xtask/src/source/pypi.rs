//! `pypi:` coordinates: files of the index that pip is configured with (PEP 503, PEP 691).

use std::process::Command;
use std::sync::OnceLock;

use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder};
use serde::Deserialize;
use ureq::Agent;
use url::Url;

use crate::error::{Error, Result};
use crate::recipe::System;
use crate::recipe::is_sha256;

pub use crate::wheel::normalize;

/// One file of a project.
#[derive(Debug, Clone)]
pub struct IndexFile {
    /// File name.
    pub filename: String,
    /// Where it is.
    pub url: String,
    /// Its SHA-256, where the index says it.
    pub sha256: Option<String>,
    /// When it was uploaded (PEP 700, RFC 3339), where the index says it.
    pub uploaded: Option<String>,
    /// The Pythons that it is for, where the index says it.
    pub requires_python: Option<String>,
    /// Whether it was withdrawn (PEP 592): nobody gets it who does not ask for its very version.
    pub yanked: bool,
}

/// What is asked of an index: JSON (PEP 691), else HTML (PEP 503).
pub const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// The index: PIP_INDEX_URL, else what pip's configuration says, else pip's own default.
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
    // pip's parsed configuration, and where there is none, its built-in default: no host of ours.
    const ASK: &str = "\
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

/// The files of `project`, from the JSON form of the index or, failing that, its HTML.
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
        let response = agent.get(&page_url).header("Accept", ACCEPT).call();
        let response = match response {
            Ok(r) => r,
            Err(e) => {
                last = e.to_string();
                continue;
            }
        };
        let status = response.status().as_u16();
        if status != 200 {
            last = format!("HTTP {status}");
            if status < 500 && status != 429 {
                break;
            }
            continue;
        }
        let base = Url::parse(&page_url).map_err(|e| failed(e.to_string()))?;
        return read_page(response, &base).map_err(|e| failed(e.what().to_owned()));
    }
    Err(failed(last))
}

/// The files that a page of a project names.
///
/// # Errors
/// The world: it is no such page.
pub fn read_page(mut response: ureq::http::Response<ureq::Body>, base: &Url) -> Result<Vec<IndexFile>> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        filename: String,
        url: String,
        #[serde(default)]
        hashes: std::collections::BTreeMap<String, String>,
        #[serde(default, rename = "upload-time")]
        uploaded: Option<String>,
        #[serde(default, rename = "requires-python")]
        requires_python: Option<String>,
        /// `true`, or the reason.
        #[serde(default)]
        yanked: serde_json::Value,
    }
    let failed = |what: String| Error::world("index", format!("a page of the index cannot be read: {what}"));
    let json = response.headers().get("content-type").and_then(|v| v.to_str().ok()).is_some_and(|t| t.contains("json"));
    let text = response.body_mut().with_config().limit(64 << 20).read_to_string().map_err(|e| failed(e.to_string()))?;
    // The digest stands in the fragment (PEP 503).
    let absolute = |href: &str| {
        base.join(href).map(|mut u| {
            let sha256 = u.fragment().and_then(|f| f.strip_prefix("sha256=")).map(str::to_owned);
            u.set_fragment(None);
            (u.to_string(), sha256)
        })
    };
    if json {
        let page: Page = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
        return page
            .files
            .into_iter()
            .map(|f| {
                let (url, fragment) = absolute(&f.url).map_err(|e| failed(e.to_string()))?;
                let sha256 = f.hashes.get("sha256").cloned().or(fragment).filter(|d| is_sha256(d));
                let yanked = f.yanked.is_string() || f.yanked.as_bool() == Some(true);
                let (uploaded, requires_python) = (f.uploaded, f.requires_python);
                Ok(IndexFile { url, filename: f.filename, sha256, uploaded, requires_python, yanked })
            })
            .collect();
    }
    Ok(anchors(&text)
        .into_iter()
        .filter_map(|a| {
            let (url, sha256) = absolute(&a.href).ok()?;
            let sha256 = sha256.filter(|d| is_sha256(d));
            let (requires_python, yanked) = (a.requires_python, a.yanked);
            Some(IndexFile { filename: a.text, url, sha256, uploaded: None, requires_python, yanked })
        })
        .collect())
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
    let mut response = agent.get(format!("{}.metadata", wheel.url)).call().map_err(|e| failed(e.to_string()))?;
    match response.status().as_u16() {
        200 => {
            let text = response.body_mut().with_config().limit(MOST_METADATA).read_to_string();
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
    requires_python: Option<String>,
    yanked: bool,
}

/// The anchors of a PEP 503 page.
fn anchors(html: &str) -> Vec<Anchor> {
    let unescape = |s: &str| {
        s.replace("&amp;", "&").replace("&#x27;", "'").replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">")
    };
    let mut out = Vec::new();
    for part in html.split("<a ").skip(1) {
        let Some((tag, rest)) = part.split_once('>') else { continue };
        let Some((text, _)) = rest.split_once("</a>") else { continue };
        let attribute = |name: &str| {
            let value = tag.split_once(name)?.1.trim_start();
            let quote = value.chars().next().unwrap_or('"');
            Some(unescape(value.trim_start_matches(quote).split(quote).next().unwrap_or("")))
        };
        let Some(href) = attribute("href=") else { continue };
        let requires_python = attribute("data-requires-python=");
        out.push(Anchor { href, text: unescape(text.trim()), requires_python, yanked: tag.contains("data-yanked") });
    }
    out
}

/// What markers (PEP 508) are read against, as Python says it there: platform.machine(), platform.system(), os.name,
/// sys.platform.
///
/// # Errors
/// Bad input: `minor` is no version.
pub fn markers(system: System, machine: &str, minor: &str) -> Result<MarkerEnvironment> {
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
    .map_err(|e| Error::misuse("python-version", format!("'{minor}' is no Python version: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_html_index_page_is_read() {
        let got = anchors(
            r#"<html><a href="../../f/x-1.whl#sha256=00" data-requires-python="&gt;=3.9" data-x="1">x-1.whl</a><br/><a data-yanked href='/y'>y</a>"#,
        );
        let anchor = |href: &str, text: &str, python: Option<&str>, yanked| Anchor {
            href: href.to_owned(),
            text: text.to_owned(),
            requires_python: python.map(str::to_owned),
            yanked,
        };
        let first = anchor("../../f/x-1.whl#sha256=00", "x-1.whl", Some(">=3.9"), false);
        assert_eq!(got, [first, anchor("/y", "y", None, true)]);
    }
}
