//! `git+https://` and `git+file://` coordinates: an exact commit with all its nested submodules,
//! written as one tar archive whose bytes depend on the commit alone.
//!
//! libgit2 is built without a TLS library; HTTPS goes through the same client as every other
//! download, so certificates and proxies are set up once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use git2::{FetchOptions, ObjectType, Oid, Repository};
use url::Url;

use super::http;
use super::unpack::{Bounds, DEEPEST_PATH, LONGEST_PATH};
use crate::error::{Context, Error, Result};
use crate::event::Sink;
use crate::store::lock_at;

/// Submodules of submodules deeper than this are a mistake or an attack.
const MAX_DEPTH: usize = 8;

/// Bytes of one blob, which libgit2 has in memory as a whole.
const LARGEST_BLOB: u64 = 256 << 20;
/// Bytes of a commit, or of one folder's tree: a hundred thousand names, and more.
const LARGEST_TREE: u64 = 16 << 20;
/// Bytes of what a symbolic link leads to.
const LONGEST_LINK: u64 = 4096;
/// Bytes of all paths together, which are in memory until the archive is written.
const MOST_OF_PATHS: u64 = 64 << 20;
/// Files, folders and submodules together, whatever the bounds are.
const MOST_ENTRIES: u64 = 2_000_000;
/// Submodules, those of submodules included: each is another repository.
const MOST_SUBMODULES: u64 = 1000;
/// Bytes of what a server sends for one fetch; all of PyTorch's history is smaller.
const MOST_SENT: u64 = 8 << 30;
/// Objects that a server sends for one fetch.
const MOST_OBJECTS: usize = 5_000_000;

/// Writes the tree of `commit` in the repository at `url`, submodules included, to `out` as a tar
/// archive with sorted members. `mirrors` is a folder for bare repositories, kept between calls. Blobs
/// and trees are in memory one at a time; files are within `bounds`, and paths within bounds of their own.
///
/// # Errors
/// The world: the repository does not answer or does not have the commit. Bad input: its tree is above `bounds`.
pub fn archive(
    url: &str,
    commit: &str,
    mirrors: &Path,
    bounds: Bounds,
    out: &mut impl Write,
    events: &dyn Sink,
) -> Result<()> {
    register_transport();
    let mut found = Found::within(bounds);
    collect(url, commit, "", mirrors, &mut found, events, 0)?;
    let mut tar = tar::Builder::new(out);
    for (path, member) in &found.members {
        crate::platform::check_cancelled()?;
        let git = |e: git2::Error| Error::world("git", format!("{url}: '{path}': {}", e.message()));
        let blob = found.repositories[member.repository].find_blob(member.blob).map_err(git)?;
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        if member.mode == LINK {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            tar.append_link(&mut header, path, String::from_utf8_lossy(blob.content()).as_ref())?;
        } else {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(if member.mode & 0o111 != 0 { 0o755 } else { 0o644 });
            header.set_size(blob.content().len() as u64);
            tar.append_data(&mut header, path, blob.content())?;
        }
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

/// The tags of the repository at `url`, each with the commit that it leads to.
///
/// # Errors
/// The repository cannot be reached.
pub fn tags(url: &str) -> Result<BTreeMap<String, String>> {
    register_transport();
    let git = |e: git2::Error| unreachable_repository(url, &e);
    let mut remote = git2::Remote::create_detached(url).map_err(git)?;
    remote.connect(git2::Direction::Fetch).map_err(git)?;
    let mut out = BTreeMap::new();
    for head in remote.list().map_err(git)? {
        let Some(name) = head.name().strip_prefix("refs/tags/") else { continue };
        match name.strip_suffix("^{}") {
            // What an annotated tag leads to; it is listed behind the tag itself.
            Some(peeled) => out.insert(peeled.to_owned(), head.oid().to_string()),
            None => out.insert(name.to_owned(), head.oid().to_string()),
        };
    }
    Ok(out)
}

/// One commit of a repository, to look into without its submodules.
pub struct Snapshot {
    repository: Repository,
    commit: Oid,
    url: String,
}

/// A submodule: another repository at a commit of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Submodule {
    /// Where it stands in the tree.
    pub path: String,
    /// Address of its repository, as `.gitmodules` has it.
    pub url: String,
    /// The commit that the tree pins, hexadecimal.
    pub commit: String,
}

impl Snapshot {
    /// Fetches `commit` of the repository at `url`, into the same bare repositories that [`archive`] uses.
    ///
    /// # Errors
    /// The repository cannot be reached, or has no such commit.
    pub fn fetch(url: &str, commit: &str, mirrors: &Path, events: &dyn Sink) -> Result<Self> {
        register_transport();
        let repository = mirror(url, commit, mirrors, events).doing(|| format!("fetching {url} at {commit}"))?;
        let commit = Oid::from_str(commit).map_err(|e| Error::misuse("git", e.message().to_owned()))?;
        Ok(Self { repository, commit, url: url.to_owned() })
    }

    /// When it was committed, seconds since 1970.
    ///
    /// # Errors
    /// The repository on disk is damaged.
    pub fn time(&self) -> Result<i64> {
        check_size(&self.repository, self.commit, "the commit", LARGEST_TREE, &self.url)?;
        Ok(self.repository.find_commit(self.commit).map_err(|e| failed(&self.url, &e))?.time().seconds())
    }

    /// The text of the file at `path`; `None` where there is no such file.
    ///
    /// # Errors
    /// The repository on disk is damaged. Bad input: the file, or a folder on the way to it, is larger than is read.
    pub fn text(&self, path: &str) -> Result<Option<String>> {
        text(&self.repository, root_of(&self.repository, self.commit, &self.url)?, path, &self.url)
    }

    /// The submodules that stand in the tree and in `.gitmodules`, by path.
    ///
    /// # Errors
    /// As [`Snapshot::text`]. Bad input: `.gitmodules` names more of them than are fetched.
    pub fn submodules(&self) -> Result<Vec<Submodule>> {
        let root = root_of(&self.repository, self.commit, &self.url)?;
        let named = submodules(&self.repository, root, &self.url)?;
        // Each is looked for from the top of the tree.
        if named.len() as u64 > MOST_SUBMODULES {
            let (url, found) = (&self.url, named.len());
            let what = format!("{url}: .gitmodules names {found} submodules; at most {MOST_SUBMODULES} are read");
            return Err(Error::misuse("git-bound", what));
        }
        let mut links = Vec::new();
        for (path, url) in named {
            if let Some((ObjectType::Commit, id)) = at(&self.repository, root, &path, &self.url)? {
                links.push(Submodule { url: resolve(&self.url, &url), commit: id.to_string(), path });
            }
        }
        Ok(links)
    }
}

fn unreachable_repository(url: &str, e: &git2::Error) -> Error {
    Error::world("git", format!("{url}: {}", e.message()))
        .next("check the URL and the network; a private repository needs a mirror that can be read")
}

const LINK: i32 = 0o120_000;

/// What the trees of a commit and of its submodules have.
struct Found {
    bounds: Bounds,
    /// Bytes of all files.
    bytes: u64,
    /// Files, folders and submodules that were met.
    entries: u64,
    /// Bytes of all their paths.
    paths: u64,
    submodules: u64,
    repositories: Vec<Repository>,
    members: BTreeMap<String, Member>,
}

struct Member {
    repository: usize,
    blob: Oid,
    mode: i32,
}

impl Found {
    fn within(bounds: Bounds) -> Self {
        let (repositories, members) = (Vec::new(), BTreeMap::new());
        Self { bounds, bytes: 0, entries: 0, paths: 0, submodules: 0, repositories, members }
    }

    /// Counts whatever stands in a tree.
    fn meet(&mut self, path: &str, url: &str) -> Result<()> {
        if path.len() > LONGEST_PATH || path.split('/').count() > DEEPEST_PATH {
            let shown: String = path.chars().take(40).collect();
            return Err(Error::misuse(
                "git-bound",
                format!("{url}: '{shown}…' has a path of more than {LONGEST_PATH} bytes or {DEEPEST_PATH} folders"),
            ));
        }
        self.entries += 1;
        self.paths += path.len() as u64;
        // Git makes no folder without a file in it, so there are no more than so many for each.
        let most = self.bounds.members.saturating_mul(DEEPEST_PATH as u64).min(MOST_ENTRIES);
        if self.entries > most || self.paths > MOST_OF_PATHS {
            return Err(Error::misuse(
                "git-bound",
                format!(
                    "{url}: its tree has more than {most} files, folders and submodules, or {MOST_OF_PATHS} bytes of paths"
                ),
            ));
        }
        Ok(())
    }

    /// Takes a file or a link in, if there is room for it.
    fn take(&mut self, path: String, member: Member, size: u64, url: &str) -> Result<()> {
        let most = if member.mode == LINK { LONGEST_LINK } else { LARGEST_BLOB };
        if size > most {
            return Err(too_large(&format!("'{path}'"), size, most, url));
        }
        self.bytes = self.bytes.saturating_add(size);
        self.members.insert(path, member);
        if self.bytes > self.bounds.bytes || self.members.len() as u64 > self.bounds.members {
            return Err(Error::misuse(
                "git-bound",
                format!(
                    "{url}: its tree has more than {} files or {} bytes, which is what the recipe's limits or its lock allow",
                    self.bounds.members, self.bounds.bytes
                ),
            )
            .next("if it is that large, raise limits.unpacked or limits.members in the recipe, and lock it again"));
        }
        Ok(())
    }

    /// Takes in the files of the tree `root`, which stand below `prefix`. Returns its submodules, by path, each with its
    /// commit.
    fn walk(
        &mut self,
        repository: &Repository,
        root: Oid,
        prefix: &str,
        url: &str,
    ) -> Result<BTreeMap<String, String>> {
        let objects = repository.odb().map_err(|e| failed(url, &e))?;
        let (index, mut links) = (self.repositories.len(), BTreeMap::new());
        let mut open = vec![(String::new(), root)];
        while let Some((dir, id)) = open.pop() {
            for entry in &tree(repository, id, url)? {
                crate::platform::check_cancelled()?;
                let name =
                    entry.name().map_err(|_| Error::misuse("git", format!("{url}: a name in '{dir}' is not UTF-8")))?;
                let path = format!("{prefix}{dir}{name}");
                self.meet(&path, url)?;
                if name == ".." || name == "." || name.eq_ignore_ascii_case(".git") || name.contains('/') {
                    return Err(Error::misuse("git", format!("{url}: the tree has a member called '{dir}{name}'")));
                }
                match entry.kind() {
                    Some(ObjectType::Tree) => open.push((format!("{dir}{name}/"), entry.id())),
                    Some(ObjectType::Blob) => {
                        // Its size alone is read here: a tree can name one blob a hundred million times.
                        let (size, _) = objects.read_header(entry.id()).map_err(|e| failed(url, &e))?;
                        let member = Member { repository: index, blob: entry.id(), mode: entry.filemode() };
                        self.take(path, member, size as u64, url)?;
                    }
                    Some(ObjectType::Commit) => {
                        self.submodules += 1;
                        if self.submodules > MOST_SUBMODULES {
                            return Err(Error::misuse(
                                "git-bound",
                                format!("{url}: '{path}' is one of more than {MOST_SUBMODULES} submodules"),
                            ));
                        }
                        links.insert(format!("{dir}{name}"), entry.id().to_string());
                    }
                    _ => {}
                }
            }
        }
        Ok(links)
    }
}

fn failed(url: &str, e: &git2::Error) -> Error {
    Error::world("git", format!("{url}: {}", e.message()))
}

fn too_large(what: &str, size: u64, most: u64, url: &str) -> Error {
    Error::misuse("git-bound", format!("{url}: {what} has {size} bytes; at most {most} are read"))
}

/// An error if the object `id`, which is to be read as a whole, has more than `most` bytes.
fn check_size(repository: &Repository, id: Oid, what: &str, most: u64, url: &str) -> Result<()> {
    let header = repository.odb().and_then(|objects| objects.read_header(id));
    let (size, _) = header.map_err(|e| failed(url, &e))?;
    if size as u64 > most { Err(too_large(what, size as u64, most, url)) } else { Ok(()) }
}

/// The tree `id`, if it is small enough to be read.
fn tree<'r>(repository: &'r Repository, id: Oid, url: &str) -> Result<git2::Tree<'r>> {
    check_size(repository, id, &format!("the tree {id}"), LARGEST_TREE, url)?;
    repository.find_tree(id).map_err(|e| failed(url, &e))
}

/// The tree that `commit` has. libgit2 hashes every object that it reads, so it is that of this commit and nothing else.
fn root_of(repository: &Repository, commit: Oid, url: &str) -> Result<Oid> {
    check_size(repository, commit, "the commit", LARGEST_TREE, url)?;
    Ok(repository.find_commit(commit).map_err(|e| failed(url, &e))?.tree_id())
}

/// What stands at `path` in the tree `root`, if anything does.
fn at(repository: &Repository, root: Oid, path: &str, url: &str) -> Result<Option<(ObjectType, Oid)>> {
    let mut found = (ObjectType::Tree, root);
    for name in path.split('/') {
        // git2 panics at a name with a NUL, which nothing has.
        if found.0 != ObjectType::Tree || name.contains('\0') {
            return Ok(None);
        }
        let tree = tree(repository, found.1, url)?;
        match tree.get_name(name).and_then(|entry| Some((entry.kind()?, entry.id()))) {
            Some(next) => found = next,
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// The text of the file at `path` in the tree `root`; `None` where there is no such file.
fn text(repository: &Repository, root: Oid, path: &str, url: &str) -> Result<Option<String>> {
    let Some((ObjectType::Blob, id)) = at(repository, root, path, url)? else { return Ok(None) };
    check_size(repository, id, &format!("'{path}'"), crate::platform::MOST_TEXT, url)?;
    let blob = repository.find_blob(id).map_err(|e| failed(url, &e))?;
    Ok(Some(String::from_utf8_lossy(blob.content()).into_owned()))
}

fn collect(
    url: &str,
    commit: &str,
    prefix: &str,
    mirrors: &Path,
    found: &mut Found,
    events: &dyn Sink,
    depth: usize,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::misuse(
            "git",
            format!("submodules are nested deeper than {MAX_DEPTH} levels at '{prefix}'"),
        ));
    }
    let repository = mirror(url, commit, mirrors, events).doing(|| format!("fetching {url} at {commit}"))?;
    let oid = Oid::from_str(commit).map_err(|e| failed(url, &e))?;
    let root = root_of(&repository, oid, url)?;
    let links = found.walk(&repository, root, prefix, url)?;
    let modules = if links.is_empty() { BTreeMap::new() } else { submodules(&repository, root, url)? };
    found.repositories.push(repository);
    for (path, commit) in links {
        let relative = modules.get(&path).ok_or_else(|| {
            Error::misuse("git", format!("{url}: '{prefix}{path}' is a submodule, but .gitmodules has no URL for it"))
        })?;
        let sub_url = resolve(url, relative);
        if url.starts_with("https://") && sub_url.starts_with("http://") {
            return Err(Error::misuse(
                "git",
                format!("{url} comes by https, and its submodule by plain http: {sub_url}"),
            )
            .next("name the submodule as a source of its own, by an https address"));
        }
        if !sub_url.starts_with("https://") && !sub_url.starts_with("http://") && !sub_url.starts_with("file://") {
            return Err(Error::misuse(
                "git",
                format!("{url}: submodule '{path}' has the URL '{sub_url}'; only https and file are fetched"),
            ));
        }
        if sub_url.starts_with("file://") && !url.starts_with("file://") {
            return Err(Error::misuse(
                "git",
                format!("{url}: submodule '{path}' points into this machine ('{sub_url}')"),
            ));
        }
        collect(&sub_url, &commit, &format!("{prefix}{path}/"), mirrors, found, events, depth + 1)?;
    }
    Ok(())
}

/// `path → url` of `.gitmodules` in the tree `root` of the repository at `parent`.
fn submodules(repository: &Repository, root: Oid, parent: &str) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    let Some(said) = text(repository, root, ".gitmodules", parent)? else { return Ok(out) };
    let mut path = None;
    let mut url = None;
    for line in said.lines().chain(["[end]"]) {
        let line = line.trim();
        if line.starts_with('[') {
            if let (Some(p), Some(u)) = (path.take(), url.take()) {
                out.insert(p, u);
            }
        } else if let Some((key, value)) = line.split_once('=') {
            match key.trim() {
                "path" => path = Some(value.trim().trim_matches('"').to_owned()),
                "url" => url = Some(value.trim().trim_matches('"').to_owned()),
                _ => {}
            }
        }
    }
    Ok(out)
}

/// Resolves a submodule URL that begins with `./` or `../` against its parent's.
fn resolve(parent: &str, url: &str) -> String {
    if !url.starts_with("./") && !url.starts_with("../") {
        return url.to_owned();
    }
    let mut base = parent.trim_end_matches('/').to_owned();
    let mut rest = url;
    loop {
        if let Some(r) = rest.strip_prefix("./") {
            rest = r;
        } else if let Some(r) = rest.strip_prefix("../") {
            rest = r;
            base.truncate(base.rfind('/').unwrap_or(base.len()));
        } else {
            return format!("{base}/{rest}");
        }
    }
}

/// Whether the repository has `commit` and its tree. One that is too large to be read is there: whoever reads it says so.
fn has(repository: &Repository, commit: Oid) -> bool {
    let header = |id: Oid| repository.odb().and_then(|objects| objects.read_header(id));
    match header(commit) {
        Ok((size, ObjectType::Commit)) if size as u64 > LARGEST_TREE => true,
        Ok((_, ObjectType::Commit)) => repository.find_commit(commit).is_ok_and(|c| header(c.tree_id()).is_ok()),
        _ => false,
    }
}

/// A bare repository that holds `commit` of `url`: shallow where the server allows it.
fn mirror(url: &str, commit: &str, mirrors: &Path, events: &dyn Sink) -> Result<Repository> {
    use sha2::{Digest, Sha256};
    let dir = mirrors.join(&hex::encode(Sha256::digest(url.as_bytes()))[..24]);
    let git = |e: git2::Error| unreachable_repository(url, &e);
    let oid = Oid::from_str(commit).map_err(git)?;
    if let Ok(repository) = Repository::open_bare(&dir)
        && has(&repository, oid)
    {
        return Ok(repository);
    }
    // Two that make one repository at once spoil each other's files, and of two that fetch, each forgets what the other
    // noted of where its history ends.
    fs_err::create_dir_all(mirrors)?;
    let _alone = lock_at(&dir.with_extension("lock"), Duration::from_millis(50), || {
        events.note(format!("waiting for another fetch of {url}"));
    })?;
    let repository = match Repository::open_bare(&dir) {
        Ok(r) => r,
        Err(_) => {
            fs_err::create_dir_all(&dir)?;
            Repository::init_bare(&dir).map_err(git)?
        }
    };
    // Whoever held the lock may have fetched it.
    if has(&repository, oid) {
        return Ok(repository);
    }
    events.note(format!("fetching {url} at {}", &commit[..12]));
    let exact = format!("+{commit}:refs/torchmill/{commit}");
    let attempts: [(&[&str], i32); 3] = [
        (&[exact.as_str()], 1),
        (&[exact.as_str()], 0),
        (&["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"], 0),
    ];
    let mut last = None;
    for (refspecs, depth) in attempts {
        let mut remote = repository.remote_anonymous(url).map_err(git)?;
        let mut options = FetchOptions::new();
        let mut watch = git2::RemoteCallbacks::new();
        watch.transfer_progress(|p| {
            p.received_bytes() as u64 <= MOST_SENT && p.total_objects() <= MOST_OBJECTS && !crate::platform::cancelled()
        });
        options.remote_callbacks(watch);
        options.download_tags(git2::AutotagOption::None);
        if depth > 0 {
            options.depth(depth);
        }
        match remote.fetch(refspecs, Some(&mut options), None) {
            Ok(()) if has(&repository, oid) => {
                drop(remote);
                return Ok(repository);
            }
            Ok(()) => last = None,
            Err(e) => last = Some(e),
        }
    }
    Err(match last {
        Some(e) => git(e),
        None => Error::world("git", format!("{url} has no commit {commit}"))
            .next("check the commit id, or add a repository that has it"),
    })
}

fn register_transport() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for scheme in ["https", "http"] {
            // SAFETY: called once, before any other use of libgit2's transports from this program;
            // the factory is 'static and thread-safe.
            #[allow(unsafe_code)] // git2 marks registration unsafe because it is not synchronized
            let registered = unsafe {
                git2::transport::register(scheme, move |remote| {
                    let transport = HttpTransport { agent: http::agent_following(0), base: Arc::default() };
                    Transport::smart(remote, true, transport)
                })
            };
            debug_assert!(registered.is_ok());
        }
    });
}

/// The smart HTTP protocol (gitprotocol-http) over our HTTP client.
struct HttpTransport {
    agent: ureq::Agent,
    /// Where the repository really is, once `info/refs` was answered: redirects are followed there and nowhere else,
    /// as git does (`http.followRedirects=initial`).
    base: Arc<Mutex<Option<Url>>>,
}

impl SmartSubtransport for HttpTransport {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let post = match action {
            Service::UploadPackLs => false,
            Service::UploadPack => true,
            Service::ReceivePackLs | Service::ReceivePack => {
                return Err(git2::Error::from_str("pushing is not supported"));
            }
        };
        let asked = Url::parse(url.trim_end_matches('/')).map_err(|e| git2::Error::from_str(&format!("{url}: {e}")))?;
        let (agent, base) = (self.agent.clone(), Arc::clone(&self.base));
        Ok(Box::new(HttpStream { agent, asked, base, post, request: Vec::new(), response: None }))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

struct HttpStream {
    agent: ureq::Agent,
    /// The repository as it was asked for.
    asked: Url,
    base: Arc<Mutex<Option<Url>>>,
    post: bool,
    request: Vec<u8>,
    response: Option<Box<dyn Read + Send>>,
}

impl Write for HttpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.request.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for HttpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.response.is_none() {
            let response = if self.post { self.upload_pack() } else { self.info_refs() }?;
            self.response = Some(Box::new(http::body(response, MOST_SENT)));
        }
        self.response.as_mut().map_or(Ok(0), |r| r.read(buffer))
    }
}

type Response = ureq::http::Response<ureq::Body>;

impl HttpStream {
    /// Asks for the references, follows where the server sends us, and keeps the base that was found.
    fn info_refs(&self) -> io::Result<Response> {
        let mut url = below(&self.asked, INFO_REFS);
        url.set_query(Some(INFO_REFS_QUERY));
        let mut seen = BTreeSet::from([without_user(&url).to_string()]);
        loop {
            let response = self.agent.get(url.as_str()).call().map_err(io::Error::other)?;
            match response.status().as_u16() {
                200 => {
                    *self.base.lock().unwrap_or_else(PoisonError::into_inner) = Some(base_of(&url)?);
                    return Ok(response);
                }
                301 | 302 | 303 | 307 | 308 => {
                    let location = response.headers().get("location").and_then(|v| v.to_str().ok());
                    let next = redirected(&url, location.unwrap_or_default())?;
                    if seen.len() > MAX_REDIRECTS || !seen.insert(without_user(&next).to_string()) {
                        return Err(io::Error::other(format!(
                            "the redirects never end: after {} of them {} sends us to {}",
                            seen.len() - 1,
                            without_user(&url),
                            without_user(&next)
                        )));
                    }
                    url = next;
                }
                status => return Err(io::Error::other(format!("HTTP {status} from {}", without_user(&url)))),
            }
        }
    }

    /// Sends the request to where `info/refs` was answered.
    fn upload_pack(&self) -> io::Result<Response> {
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let url = below(base.as_ref().unwrap_or(&self.asked), UPLOAD_PACK);
        let response = self
            .agent
            .post(url.as_str())
            .config()
            .https_only(url.scheme() == "https")
            .build()
            .header("Content-Type", "application/x-git-upload-pack-request")
            .header("Accept", "application/x-git-upload-pack-result")
            .send(&self.request[..])
            .map_err(io::Error::other)?;
        match response.status().as_u16() {
            200 => Ok(response),
            status => Err(io::Error::other(format!("HTTP {status} from {}", without_user(&url)))),
        }
    }
}

const INFO_REFS: &str = "info/refs";
const INFO_REFS_QUERY: &str = "service=git-upload-pack";
const UPLOAD_PACK: &str = "git-upload-pack";

/// As many as curl follows for git.
const MAX_REDIRECTS: usize = 20;

/// `url` with `path` behind its own.
fn below(url: &Url, path: &str) -> Url {
    let mut out = url.clone();
    out.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
    out
}

/// The repository whose `info/refs` is at `url`. A server that sends us to anything else knows no git.
fn base_of(url: &Url) -> io::Result<Url> {
    let path = url.path().strip_suffix(INFO_REFS).filter(|p| p.ends_with('/'));
    let (Some(path), Some(INFO_REFS_QUERY)) = (path, url.query()) else {
        return Err(io::Error::other(format!(
            "the redirect to {} does not lead to a repository's {INFO_REFS}?{INFO_REFS_QUERY}",
            without_user(url)
        )));
    };
    let mut base = url.clone();
    base.set_query(None);
    base.set_path(path.trim_end_matches('/'));
    Ok(base)
}

/// Where `location` leads from `from`. Who spoke TLS is not sent on in the clear, and a name and password go nowhere
/// but to the server that they are for.
fn redirected(from: &Url, location: &str) -> io::Result<Url> {
    let shown = without_user(from);
    let mut next = from
        .join(location)
        .ok()
        .filter(|u| !location.is_empty() && matches!(u.scheme(), "http" | "https"))
        .ok_or_else(|| io::Error::other(format!("{shown} redirects to '{location}', which is no address of http")))?;
    if from.scheme() == "https" && next.scheme() == "http" {
        return Err(io::Error::other(format!(
            "{shown} redirects to plain http ({}), which is not followed: what was asked for over TLS is not fetched in the clear",
            without_user(&next)
        )));
    }
    let (user, password) = if from.origin() == next.origin() { (from.username(), from.password()) } else { ("", None) };
    // Fails only for addresses without a host, and these have one.
    let _ = next.set_username(user);
    let _ = next.set_password(password);
    next.set_fragment(None);
    Ok(next)
}

/// `url` as it may be shown.
fn without_user(url: &Url) -> Url {
    let mut shown = url.clone();
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_submodule_urls_are_resolved_against_the_parent() {
        assert_eq!(resolve("https://h/a/b.git", "../c.git"), "https://h/a/c.git");
        assert_eq!(resolve("https://h/a/b.git", "./c"), "https://h/a/b.git/c");
        assert_eq!(resolve("https://h/a/b.git", "https://x/y"), "https://x/y");
    }

    fn go(from: &str, location: &str) -> Result<String, String> {
        redirected(&Url::parse(from).unwrap(), location).map(|u| u.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_name_and_password_stay_with_the_server_that_they_are_for() {
        let from = "https://me:secret@h/a/info/refs?service=git-upload-pack";
        assert_eq!(go(from, "/b/info/refs").unwrap(), "https://me:secret@h/b/info/refs");
        assert_eq!(go(from, "https://h:443/b").unwrap(), "https://me:secret@h/b");
        // Another host, another port, a name that the server chose: none of them gets it.
        assert_eq!(go(from, "https://other/b").unwrap(), "https://other/b");
        assert_eq!(go(from, "https://h:8443/b").unwrap(), "https://h:8443/b");
        assert_eq!(go("https://h/a", "https://you:x@other/b").unwrap(), "https://other/b");
    }

    #[test]
    fn tls_is_never_left_and_only_http_is_spoken() {
        let refused = go("https://me:secret@h/a", "http://h/a").unwrap_err();
        assert!(refused.contains("redirects to plain http (http://h/a)") && !refused.contains("secret"), "{refused}");
        assert_eq!(go("http://h/a", "https://h/a").unwrap(), "https://h/a");
        for location in ["", "file:///etc/passwd", "ssh://h/a"] {
            assert!(go("http://h/a", location).unwrap_err().contains("no address of http"), "{location}");
        }
    }

    #[test]
    fn the_base_is_what_stands_before_info_refs() {
        let base = |u: &str| base_of(&Url::parse(u).unwrap()).map(|u| u.to_string());
        assert_eq!(base("https://h/x/y.git/info/refs?service=git-upload-pack").unwrap(), "https://h/x/y.git");
        for strange in ["https://h/login?service=git-upload-pack", "https://h/x/info/refs", "https://h/info/refs?a=b"] {
            assert!(base(strange).is_err(), "{strange}");
        }
    }
}
