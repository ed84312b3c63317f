//! `git+https://` and `git+file://` coordinates: an exact commit with all its nested submodules,
//! written as one tar archive whose bytes depend on the commit alone.
//!
//! libgit2 is built without a TLS library; HTTPS goes through the same client as every other
//! download, so certificates and proxies are set up once.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Once;

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use git2::{FetchOptions, ObjectType, Oid, Repository};

use super::http;
use super::unpack::Bounds;
use crate::error::{Context, Error, Result};
use crate::event::Sink;

/// Submodules of submodules deeper than this are a mistake or an attack.
const MAX_DEPTH: usize = 8;

/// Bytes of one blob, which libgit2 has in memory as a whole.
const LARGEST_BLOB: u64 = 256 << 20;
/// Bytes of what a symbolic link leads to.
const LONGEST_LINK: u64 = 4096;
/// Bytes of what a server sends for one fetch; all of PyTorch's history is smaller.
const MOST_SENT: u64 = 8 << 30;
/// Objects that a server sends for one fetch.
const MOST_OBJECTS: usize = 5_000_000;

/// Writes the tree of `commit` in the repository at `url`, submodules included, to `out` as a tar
/// archive with sorted members. `mirrors` is a folder for bare repositories, kept between calls. Blobs
/// are in memory one at a time, and all of them are within `bounds`.
pub fn archive(
    url: &str,
    commit: &str,
    mirrors: &Path,
    bounds: Bounds,
    out: &mut impl Write,
    events: &dyn Sink,
) -> Result<()> {
    register_transport();
    let mut found = Found { bounds, bytes: 0, repositories: Vec::new(), members: BTreeMap::new() };
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

const LINK: i32 = 0o120_000;

/// What the trees of a commit and of its submodules have.
struct Found {
    bounds: Bounds,
    bytes: u64,
    repositories: Vec<Repository>,
    members: BTreeMap<String, Member>,
}

struct Member {
    repository: usize,
    blob: Oid,
    mode: i32,
}

impl Found {
    /// Takes a member in, if there is room for it.
    fn take(&mut self, path: String, member: Member, size: u64, url: &str) -> Result<()> {
        let most = if member.mode == LINK { LONGEST_LINK } else { LARGEST_BLOB };
        if size > most {
            return Err(Error::misuse(
                "git-bound",
                format!("{url}: '{path}' has {size} bytes; at most {most} are read"),
            ));
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
    let at = found.repositories.len();
    let git = |e: git2::Error| Error::world("git", format!("{url}: {}", e.message()));
    let oid = Oid::from_str(commit).map_err(git)?;
    // libgit2 hashes every object that it reads, so this is the commit and nothing else.
    let commit_object = repository.find_commit(oid).map_err(git)?;
    let tree = commit_object.tree().map_err(git)?;
    let objects = repository.odb().map_err(git)?;
    let mut links = Vec::new();
    let mut failed = None;
    tree.walk(git2::TreeWalkMode::PreOrder, |dir, entry| {
        let result = (|| {
            let name =
                entry.name().map_err(|_| Error::misuse("git", format!("{url}: a name in '{dir}' is not UTF-8")))?;
            if name == ".." || name == "." || name.eq_ignore_ascii_case(".git") || name.contains('/') {
                return Err(Error::misuse("git", format!("{url}: the tree has a member called '{dir}{name}'")));
            }
            let path = format!("{prefix}{dir}{name}");
            match (entry.kind(), entry.filemode()) {
                (Some(ObjectType::Blob), mode) => {
                    // Its size alone is read here: a tree can name one blob a hundred million times.
                    let (size, _) = objects.read_header(entry.id()).map_err(git)?;
                    let member = Member { repository: at, blob: entry.id(), mode };
                    found.take(path, member, size as u64, url)?;
                }
                (Some(ObjectType::Commit), _) => links.push((format!("{dir}{name}"), entry.id().to_string())),
                _ => {}
            }
            Ok(())
        })();
        match result {
            Ok(()) => git2::TreeWalkResult::Ok,
            Err(e) => {
                failed = Some(e);
                git2::TreeWalkResult::Abort
            }
        }
    })
    .or_else(|e| if failed.is_some() { Ok(()) } else { Err(git(e)) })?;
    if let Some(e) = failed {
        return Err(e);
    }
    let modules = if links.is_empty() { BTreeMap::new() } else { submodules(&repository, &tree).map_err(git)? };
    drop((tree, commit_object, objects));
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

/// `path → url` of `.gitmodules` in `tree`.
fn submodules(repository: &Repository, tree: &git2::Tree<'_>) -> Result<BTreeMap<String, String>, git2::Error> {
    let mut out = BTreeMap::new();
    let Ok(entry) = tree.get_path(Path::new(".gitmodules")) else { return Ok(out) };
    let blob = repository.find_blob(entry.id())?;
    let mut path = None;
    let mut url = None;
    for line in String::from_utf8_lossy(blob.content()).lines().chain(["[end]"]) {
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

/// A bare repository that holds `commit` of `url`: shallow where the server allows it.
fn mirror(url: &str, commit: &str, mirrors: &Path, events: &dyn Sink) -> Result<Repository> {
    use sha2::{Digest, Sha256};
    let dir = mirrors.join(&hex::encode(Sha256::digest(url.as_bytes()))[..24]);
    let git = |e: git2::Error| {
        Error::world("git", format!("{url}: {}", e.message()))
            .next("check the URL and the network; a private repository needs a mirror that can be read")
    };
    let repository = match Repository::open_bare(&dir) {
        Ok(r) => r,
        Err(_) => {
            fs_err::create_dir_all(&dir)?;
            Repository::init_bare(&dir).map_err(git)?
        }
    };
    let oid = Oid::from_str(commit).map_err(git)?;
    if repository.find_commit(oid).is_ok_and(|c| c.tree().is_ok()) {
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
            Ok(()) if repository.find_commit(oid).is_ok() => {
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
                    Transport::smart(remote, true, HttpTransport { agent: http::agent() })
                })
            };
            debug_assert!(registered.is_ok());
        }
    });
}

/// The smart HTTP protocol (gitprotocol-http) over our HTTP client.
struct HttpTransport {
    agent: ureq::Agent,
}

impl SmartSubtransport for HttpTransport {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let url = url.trim_end_matches('/');
        let (url, post) = match action {
            Service::UploadPackLs => (format!("{url}/info/refs?service=git-upload-pack"), false),
            Service::UploadPack => (format!("{url}/git-upload-pack"), true),
            Service::ReceivePackLs | Service::ReceivePack => {
                return Err(git2::Error::from_str("pushing is not supported"));
            }
        };
        Ok(Box::new(HttpStream { agent: self.agent.clone(), url, post, request: Vec::new(), response: None }))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

struct HttpStream {
    agent: ureq::Agent,
    url: String,
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
            let response = if self.post {
                let https = self.url.starts_with("https://");
                self.agent
                    .post(&self.url)
                    .config()
                    .https_only(https)
                    .build()
                    .header("Content-Type", "application/x-git-upload-pack-request")
                    .header("Accept", "application/x-git-upload-pack-result")
                    .send(&self.request[..])
            } else {
                http::get(&self.agent, &self.url).call()
            }
            .map_err(io::Error::other)?;
            if response.status().as_u16() != 200 {
                return Err(io::Error::other(format!("HTTP {} from {}", response.status(), self.url)));
            }
            self.response = Some(Box::new(response.into_body().into_with_config().limit(MOST_SENT).reader()));
        }
        self.response.as_mut().map_or(Ok(0), |r| r.read(buffer))
    }
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
}
