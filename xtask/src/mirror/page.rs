//! The pages of an index: JSON (PEP 691, with the fields of PEP 700 and PEP 714) and HTML (PEP 503).
//! The JSON form is what the index itself reads; keys of its own begin with `_`, which clients ignore
//! (PEP 691).

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::LazyLock;

use base64::Engine;
use maud::{DOCTYPE, Markup, html};
use pep440_rs::Version;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::wheel::{About, Name, REPORT, is_beside};
use crate::ui::page::document;

/// Version of the simple API that is spoken (PEP 700).
const API_VERSION: &str = "1.1";

/// Largest page that is read, bytes: one of a hundred thousand files is smaller.
pub const MOST_PAGE: u64 = 256 << 20;

/// `meta` of both kinds of page (PEP 691): which version of the simple API the rest is written in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Meta {
    /// `MAJOR.MINOR`; installers warn of a newer minor version and refuse a newer major one.
    pub api_version: String,
}

impl Default for Meta {
    fn default() -> Self {
        Self { api_version: API_VERSION.into() }
    }
}

/// `yanked` of PEP 592: `false`, or the reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Yanked {
    /// `false`: it is not; `true`: it is, without a reason.
    Flag(bool),
    /// It is, for this reason.
    Reason(String),
}

impl Default for Yanked {
    fn default() -> Self {
        Self::Flag(false)
    }
}

impl Serialize for Yanked {
    /// A reason is a text that is not empty (PEP 691): pip takes an empty one for no yank at all.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Flag(is) => serializer.serialize_bool(*is),
            Self::Reason(reason) if reason.is_empty() => serializer.serialize_bool(true),
            Self::Reason(reason) => serializer.serialize_str(reason),
        }
    }
}

impl Yanked {
    /// The reason, if it is yanked; an empty one, if none was given.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Flag(false) => None,
            Self::Flag(true) => Some(""),
            Self::Reason(r) => Some(r),
        }
    }
}

/// `core-metadata` of PEP 714: the digests of the METADATA file beside.
pub type Hashes = BTreeMap<String, String>;

/// One file of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct File {
    /// The wheel's name, as it was uploaded: what installers parse (the wheel specification, "File name convention").
    pub filename: String,
    /// Where the file is, relative to the page, so that an index can be moved.
    pub url: String,
    /// Digests of the file.
    pub hashes: Hashes,
    /// `Requires-Python` of METADATA: pip passes over the file where the running Python is outside (PEP 503).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires_python: Option<String>,
    /// Bytes (PEP 700).
    pub size: u64,
    /// When it was published (PEP 700): RFC 3339 in UTC, what uv's `--exclude-newer` goes by.
    pub upload_time: String,
    /// Whether installers pass over it unless it is asked for exactly (PEP 592).
    #[serde(default)]
    pub yanked: Yanked,
    /// Digests of FILE.metadata beside the file (PEP 658), under the name that PEP 714 gave it.
    pub core_metadata: Hashes,
    /// The same under the name that PEP 658 first had in JSON.
    pub dist_info_metadata: Hashes,
    /// Version, as the file name has it.
    #[serde(rename = "_version")]
    pub version: String,
    /// What the start page tells people of it; installers skip it.
    #[serde(rename = "_about", default)]
    pub about: About,
    /// Statement, bill of materials, manifest, validation report: file name → SHA-256.
    #[serde(rename = "_beside", default)]
    pub beside: BTreeMap<String, String>,
}

/// The page of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectPage {
    /// The version of the API that the page speaks.
    pub meta: Meta,
    /// The project's name, normalized (PEP 503).
    pub name: String,
    /// All versions (PEP 700).
    pub versions: Vec<String>,
    /// The files that are published, yanked ones included.
    pub files: Vec<File>,
    /// Names of files that were removed, with the digest that they had and why: nothing else may ever
    /// come under such a name.
    #[serde(rename = "_removed", default)]
    pub removed: BTreeMap<String, Tombstone>,
}

/// What is left of a removed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// SHA-256 that it had.
    pub sha256: String,
    /// Why it was removed.
    pub reason: String,
    /// When it was removed (RFC 3339).
    pub time: String,
}

impl ProjectPage {
    /// A project without files.
    pub fn new(name: &str) -> Self {
        Self {
            meta: Meta::default(),
            name: name.to_owned(),
            versions: Vec::new(),
            files: Vec::new(),
            removed: BTreeMap::new(),
        }
    }

    /// Whether it is the page of the project `name`, and all names on it are names of files.
    ///
    /// # Errors
    /// The first that is not, in a sentence.
    pub fn check(&self, name: &str) -> Result<(), String> {
        if self.name != name {
            return Err(format!("it is the page of '{}'", self.name.escape_debug()));
        }
        for file in self.files.iter().map(|file| &file.filename).chain(self.removed.keys()) {
            let of = file.parse::<Name>()?.project;
            if of != name {
                return Err(format!("'{file}' is a file of {of}"));
            }
        }
        // What goes with a file is removed with it: of another one's nothing.
        for file in &self.files {
            if let Some(bad) = file.beside.keys().find(|name| !is_beside(&file.filename, name)) {
                return Err(format!("'{}' is no file that lies beside {}", bad.escape_debug(), file.filename));
            }
        }
        Ok(())
    }

    /// The PEP 503 page.
    pub fn html(&self) -> String {
        simple(
            &format!("Links for {}", self.name),
            html! {
                h1 { "Links for " (self.name) }
                @for f in &self.files {
                    (anchor(f))
                    (said_of(f))
                    br;
                }
            },
        )
    }
}

/// A page of the simple API (PEP 503, PEP 629).
fn simple(title: &str, body: Markup) -> String {
    html! {
        (DOCTYPE)
        html {
            head {
                meta name="pypi:repository-version" content=(API_VERSION);
                title { (title) }
            }
            body { (body) }
        }
    }
    .into_string()
}

fn anchor(f: &File) -> Markup {
    let digest = |h: &Hashes| h.get("sha256").map(|d| format!("sha256={d}")).unwrap_or_default();
    let metadata = digest(&f.core_metadata);
    html! {
        a href=(format!("{}#{}", f.url, digest(&f.hashes)))
          data-requires-python=[f.requires_python.as_deref()]
          data-yanked=[f.yanked.reason()]
          data-core-metadata=(metadata)
          data-dist-info-metadata=(metadata) { (f.filename) }
    }
}

/// What people want to know of a file: installers read the anchor alone (PEP 503).
fn said_of(f: &File) -> Markup {
    html! {
        @if let Some(reason) = f.yanked.reason() { " yanked" @if !reason.is_empty() { ": " (reason) } "," }
        @match f.about.libuv {
            Some(true) => " with the libuv store,",
            Some(false) => " without the libuv store,",
            None => {}
        }
        " " code { "sha256:" (f.hashes.get("sha256").map_or("", String::as_str)) }
    }
}

/// The page of the index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootPage {
    /// The version of the API that the page speaks.
    pub meta: Meta,
    /// Every project that has a page.
    pub projects: Vec<ProjectName>,
}

/// A project on the page of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectName {
    /// The project's name, normalized (PEP 503).
    pub name: String,
}

impl RootPage {
    /// Of these projects.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut projects: Vec<_> = names.into_iter().map(|name| ProjectName { name }).collect();
        projects.sort_by(|a, b| a.name.cmp(&b.name));
        Self { meta: Meta::default(), projects }
    }

    /// The PEP 503 page.
    pub fn html(&self) -> String {
        simple("Simple index", html! { @for p in &self.projects { a href=(format!("{}/", p.name)) { (p.name) } br; } })
    }
}

/// What stands on the start page where only the server knows what belongs there.
pub const HERE: &str = "URL-OF-THIS-INDEX";

/// The look of its pages.
pub const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");

/// What a page of the index may do in a browser: run and look as what it brings along says, and nothing else.
pub fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let of = |text: &str| base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text));
        format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            of(SCRIPT),
            of(STYLE)
        )
    });
    &POLICY
}

/// A flame on a millstone, as a browser's tab shows it.
pub const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' \
                    r='7.5' fill='%230b63c5'/%3E%3Cpath d='M8 2c3 3 4 5 4 7a4 4 0 0 1-8 0c0-1 .5-2 1.5-3 .5 1 1 1.5 1.5 \
                    1.5C7 6 7 4 8 2z' fill='%23fff'/%3E%3C/svg%3E";

/// The start page: which wheels are there, for whom, and the line that installs them.
pub fn start(projects: &[ProjectPage]) -> String {
    // torch is what people come for; the others follow by name.
    let (torch, others): (Vec<_>, Vec<_>) = projects.iter().partition(|p| p.name == "torch");
    let newest = torch.iter().find_map(|p| recommended(&p.files));
    let body = html! {
        main {
            h1 { "Wheels" }
            @if let Some(f) = newest {
                p { "To install the newest torch of this index whose store has libuv:" }
                div.first {
                    pre id="install" { "pip install --index-url " span.here { (HERE) } "/simple/ 'torch==" (f.version) "'" }
                    button hidden data-of="install" { "copy" }
                }
                p.soft { "With " code { "--require-hashes" } " and the digests below nothing else can come in. Another index beside this one: see the recipe against dependency confusion in torchmill's docs/mirror.md." }
            } @else if torch.iter().any(|p| p.files.iter().any(|f| offered(f) && proven(f))) {
                p { "No torch of this index has the libuv store in all of its wheels: the table says which have it." }
            } @else if !torch.is_empty() {
                p { "No torch of this index has the libuv store." }
            }
            @if projects.is_empty() { p { "Nothing is published yet: " code { "cargo xtask mirror add --index DIR WHEEL" } "." } }
            p hidden { input id="search" type="search" placeholder="search: name, version, cp311, linux, libuv" aria-label="search"; }
            @for p in torch.iter().chain(&others) { (project(p)) }
            p.soft { "For programs: " a href="simple/" { "simple/" } " (PEP 503, PEP 691)." }
        }
        script { (maud::PreEscaped(SCRIPT)) }
    };
    document("Wheels", STYLE, &html! { link rel="icon" href=(ICON); }, &body)
}

/// Whether installers take the file by themselves (PEP 592).
fn offered(file: &File) -> bool {
    file.yanked.reason().is_none()
}

fn proven(file: &File) -> bool {
    file.about.libuv == Some(true)
}

/// A file of the release that the page recommends: of the newest whose every wheel has the libuv store, for the page does
/// not know which one an installer takes; of a pre-release only where there is no other.
fn recommended(files: &[File]) -> Option<&File> {
    let mut releases: BTreeMap<Version, (bool, &File)> = BTreeMap::new();
    for file in files.iter().filter(|f| offered(f)) {
        if let Ok(version) = Version::from_str(&file.version) {
            releases.entry(version).or_insert((true, file)).0 &= proven(file);
        }
    }
    let of_libuv = || releases.iter().rev().filter(|(_, (all, _))| *all);
    let newest = of_libuv().find(|(version, _)| !version.any_prerelease()).or_else(|| of_libuv().next());
    newest.map(|(_, (_, file))| *file)
}

/// Files as people want to see them: with the libuv store first, the newest first.
fn in_order(files: &[File]) -> Vec<&File> {
    let (proven, rest): (Vec<&File>, Vec<&File>) = files.iter().rev().partition(|f| f.about.libuv == Some(true));
    proven.into_iter().chain(rest).collect()
}

fn project(p: &ProjectPage) -> Markup {
    let is_torch = p.name == "torch";
    html! {
        section aria-labelledby=(p.name) {
            h2 id=(p.name) { (p.name) }
            div.scroll { table {
                thead { tr {
                    th scope="col" { "version" } th scope="col" { "Python" } th scope="col" { "platform" }
                    @if is_torch { th scope="col" { "CUDA" } th scope="col" { "libuv store" } }
                    th scope="col" { "size" } th scope="col" { "file" }
                } }
                tbody { @for f in in_order(&p.files) { (row(&p.name, f, is_torch)) } }
            } }
        }
    }
}

/// Address of a file beside `f`, from the start page.
fn beside(f: &File, name: &str) -> String {
    let url = f.url.trim_start_matches("../../");
    let folder = url.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{}", name.replace('+', "%2B"))
}

fn row(project: &str, f: &File, is_torch: bool) -> Markup {
    let name: Option<Name> = f.filename.parse().ok();
    let part = |of: fn(&Name) -> &str| name.as_ref().map(|n| of(n).replace('.', ", ")).unwrap_or_default();
    let digest = f.hashes.get("sha256").map_or("", String::as_str);
    let libuv = if f.about.libuv == Some(true) { "libuv" } else { "" };
    let words = format!("{project} {} {} {libuv}", f.version, f.filename).to_lowercase();
    html! {
        tr class=[f.yanked.reason().map(|_| "yanked")] data-text=(words) {
            td { (f.version) @if let Some(r) = f.yanked.reason() { span.bad { " yanked" @if !r.is_empty() { ": " (r) } } } }
            td { (part(|n| &n.python)) }
            td { (part(|n| &n.platform)) }
            @if is_torch {
                td { (f.about.cuda.as_deref().unwrap_or("none")) }
                td { @match f.about.libuv {
                    Some(true) => span.good { "✓ yes" },
                    Some(false) => span.bad { "✗ no" },
                    None => "unknown",
                } }
            }
            td { (crate::ui::bytes(f.size)) }
            td {
                a href=(f.url.trim_start_matches("../../")) { (f.filename) }
                @if let Some(report) = f.beside.keys().find(|name| name.ends_with(REPORT)) {
                    " · " a href=(beside(f, report)) { "validation report" }
                }
                details { summary { "digest, making" }
                    code { "sha256:" (digest) } " "
                    button hidden data-copy=(format!("{project}=={} --hash=sha256:{digest}", f.version)) { "copy" }
                    ul { @for name in f.beside.keys() {
                        li {
                            a href=(beside(f, name)) { (name) }
                            // What nobody signed proves nothing, whatever it says.
                            @if name.ends_with(".provenance.json") { " (unsigned)" }
                        }
                    } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torch(name: &str, libuv: Option<bool>) -> File {
        File {
            filename: format!("torch-{name}.whl"),
            url: String::new(),
            hashes: Hashes::new(),
            requires_python: None,
            size: 1,
            upload_time: String::new(),
            yanked: Yanked::default(),
            core_metadata: Hashes::new(),
            dist_info_metadata: Hashes::new(),
            version: name.split('-').next().unwrap_or_default().into(),
            about: About { libuv, ..About::default() },
            beside: BTreeMap::new(),
        }
    }

    #[test]
    fn a_release_is_recommended_only_if_every_wheel_of_it_has_the_libuv_store() {
        let said = |files: &[File]| {
            let page = ProjectPage { files: files.to_vec(), ..ProjectPage::new("torch") };
            let html = start(&[page]);
            let version = html.split("/simple/ 'torch==").nth(1).and_then(|rest| rest.split('\'').next());
            (version.map(str::to_owned), html)
        };
        let mut files = vec![
            torch("2.6.0-cp311-cp311-linux_x86_64", Some(true)),
            torch("2.7.0-cp311-cp311-linux_x86_64", Some(true)),
            // What pip takes on Windows; and what it takes on Linux in place of the other.
            torch("2.8.0-cp311-cp311-linux_x86_64", Some(true)),
            torch("2.8.0-cp311-cp311-win_amd64", Some(false)),
            torch("2.9.0-1-cp311-cp311-linux_x86_64", None),
            torch("2.9.0-cp311-cp311-linux_x86_64", Some(true)),
            torch("2.10.0-cp311-cp311-linux_x86_64", Some(false)),
            torch("2.11.0rc1-cp311-cp311-linux_x86_64", Some(true)),
        ];
        assert_eq!(said(&files).0.as_deref(), Some("2.7.0"));
        files[1].yanked = Yanked::Flag(true);
        assert_eq!(said(&files).0.as_deref(), Some("2.6.0"));
        // A yanked one is nobody's, unless it is asked for.
        files[3].yanked = Yanked::Flag(true);
        assert_eq!(said(&files).0.as_deref(), Some("2.8.0"));
        assert_eq!(said(&files[7..]).0.as_deref(), Some("2.11.0rc1"));
        let (none, html) = said(&files[4..6]);
        assert!(none.is_none() && html.contains("in all of its wheels"), "{html}");
        let (none, html) = said(&files[6..7]);
        assert!(none.is_none() && html.contains("No torch of this index has the libuv store."), "{html}");
    }
}
