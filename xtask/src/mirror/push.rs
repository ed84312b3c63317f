//! `mirror push`: wheels to a server that speaks the upload API ("legacy"): pypiserver, devpi, our own,
//! and whatever else twine uploads to.
//!
//! Nothing is uploaded that is there: with the same digest that is success, with another it is refused. *There* means on
//! that server: what it shows of an index behind it (devpi's bases), or sends one elsewhere for (pypiserver's fallback),
//! is not. What was uploaded is read back before it is called so. Credentials go to the origin that they are for, and to
//! no other, wherever a page links or redirects to.

mod credentials;
mod form;

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use ureq::Agent;
use url::Url;

pub use credentials::Credentials;

use super::index::Identity;
use super::wheel::Wheel;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Sink};
use crate::platform;
use crate::source::pypi::{self, IndexFile};
use crate::source::{http_body, http_get, http_text};
use crate::stage::farm::{in_clear_text, is_own_host};

/// How often one upload is tried.
const ATTEMPTS: u32 = 4;
/// How often a server is asked whether it shows what it took.
const READS: u32 = 6;
/// Redirects that are followed within a server.
const REDIRECTS: usize = 4;
/// From this size on a server is asked whether it takes an upload before the bytes are sent.
const ASK_FIRST: u64 = 1 << 20;
/// How long a server may think about a whole upload: it reads all of it.
const THINKING: Duration = Duration::from_secs(600);

/// What became of one wheel.
#[derive(Debug, Clone, Serialize)]
pub struct Pushed {
    /// The wheel's file name.
    pub filename: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Whether it had to be sent.
    pub sent: bool,
}

/// A server to upload to.
pub struct Target<'a> {
    /// Where uploads go: the address that twine would be given as `--repository-url`.
    pub url: Url,
    /// Where its simple index is; found out if `None`.
    pub index: Option<Url>,
    /// User and password, or a token; `None` for a server that asks for none.
    pub credentials: Option<Credentials>,
    /// Who is told.
    pub events: &'a dyn Sink,
    /// HTTP client.
    pub agent: Agent,
}

impl Target<'_> {
    /// Uploads what is not there yet. A failure leaves what was sent before where it is; the same call
    /// goes on after it.
    ///
    /// # Errors
    /// Bad input: another file has that name there; the server refuses. The world: it does not answer.
    pub fn push(&self, wheels: &[Wheel]) -> Result<Vec<Pushed>> {
        if self.credentials.is_some() && crosses_in_clear(&self.url) {
            self.events.warn(in_clear_text(&shown(&self.url)));
        }
        // Everything is looked up before anything is sent: a set that cannot go is not half there.
        let mut todo = Vec::new();
        let mut seen: HashMap<Identity, &Wheel> = HashMap::new();
        for wheel in wheels {
            platform::check_cancelled()?;
            let twin = Identity::of(&wheel.name).and_then(|id| seen.insert(id, wheel));
            if let Some(twin) = twin.filter(|t| t.sha256 != wheel.sha256) {
                let (a, b) = (twin.path.display(), wheel.path.display());
                return Err(Error::misuse(Kind::Taken.code(), format!("{a} and {b} are one release with other bytes"))
                    .next("push the one that is meant"));
            }
            // What was named before, under whatever spelling, is there by then.
            todo.push((wheel, twin.is_some() || self.look_first(wheel)? == Seen::Same));
        }
        let mut pushed = Vec::new();
        for (wheel, there) in todo {
            platform::check_cancelled()?;
            if !there {
                self.upload(wheel)?;
            }
            pushed.push(Pushed { filename: wheel.filename.clone(), sha256: wheel.sha256.clone(), sent: !there });
        }
        Ok(pushed)
    }

    /// Addresses where its index may be, the nearest to where uploads go first.
    fn indexes(&self) -> Vec<Url> {
        let base = |u: &Url| {
            let mut u = u.clone();
            u.set_query(None);
            u.set_fragment(None);
            if !u.path().ends_with('/') {
                u.set_path(&format!("{}/", u.path()));
            }
            u
        };
        if let Some(index) = &self.index {
            return vec![base(index)];
        }
        // devpi has its pages below the index it uploads to; pypiserver and we at the root.
        let upload = base(&self.url);
        let mut indexes: Vec<Url> =
            [DEVPI, "simple/", "../simple/"].iter().filter_map(|t| upload.join(t).ok()).collect();
        indexes.dedup();
        indexes
    }

    /// What the server has before anything is sent. One that cannot say it now may have other bytes under that name,
    /// and some write over what they have.
    fn look_first(&self, wheel: &Wheel) -> Result<Seen> {
        let mut status = 0;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                let again = format!("trying again ({} of {ATTEMPTS})", attempt + 1);
                self.events.warn(format!("{} answers {status} for its pages; {again}", shown(&self.url)));
                std::thread::sleep(Duration::from_millis(400 << attempt));
            }
            platform::check_cancelled()?;
            match self.look(wheel)? {
                Seen::Fails(failure) => status = failure,
                seen => return Ok(seen),
            }
        }
        let (who, file) = (shown(&self.url), &wheel.filename);
        let what = format!("{who} answers {status} for its pages: whether it has '{file}' cannot be told");
        let e =
            Error::world("push", what).next("nothing was sent; the same command looks again once the server is well");
        Err(if self.index.is_some() {
            e
        } else {
            e.next("or name its index with --simple: it was looked for where servers have it mostly, and one such address failed")
        })
    }

    /// What the server itself has under the name of a wheel.
    fn look(&self, wheel: &Wheel) -> Result<Seen> {
        let mut seen = Seen::NoPage;
        let project = &wheel.name.project;
        // Where there was no page, nearer to where uploads go; and what that means if an index stands there.
        let mut nearer: Vec<(Url, Seen)> = Vec::new();
        for index in self.indexes() {
            let (page, files) = match self.page(&index, project)? {
                Page::Is(page, files) => (page, files),
                Page::None => {
                    nearer.push((index, Seen::Nothing));
                    continue;
                }
                // Where one of the other addresses has the page, this one has none.
                Page::Fails(status) => {
                    nearer.push((index, Seen::Fails(status)));
                    if seen == Seen::NoPage {
                        seen = Seen::Fails(status);
                    }
                    continue;
                }
            };
            seen = Seen::Nothing;
            // The same release is the same whatever its spelling.
            let id = Identity::of(&wheel.name);
            let is = |name: &str| name == wheel.filename || id.is_some() && Identity::parse(name) == id;
            let own = |f: &&IndexFile| is(&f.filename) && self.is_own(&page, &f.url);
            let exactly = |f: &&IndexFile| f.filename == wheel.filename && own(f);
            let Some(file) = files.iter().find(exactly).or_else(|| files.iter().find(own)) else {
                // Its page, and not what a server answers to whatever it is asked for: what stands further away is the
                // page of another index.
                let is_of_it = |f: &IndexFile| pypi::normalize(&f.filename).starts_with(&format!("{project}-"));
                if files.iter().any(is_of_it) {
                    return Ok(seen);
                }
                continue;
            };
            // An index without this project is the one that is uploaded to, if it stands nearer.
            for (index, seen) in &nearer {
                if self.is_index(index)? {
                    return Ok(*seen);
                }
            }
            let digest = match &file.sha256 {
                Some(digest) => digest.to_ascii_lowercase(),
                None => self.digest_of(&file.url, wheel.size)?,
            };
            if digest == wheel.sha256 {
                // An index that shows what another one has looks the same.
                if let Some(host) = elsewhere(&page, &file.url) {
                    self.events.warn(format!(
                        "{} has '{}' from {host}: taken for the server's own, since --simple names that page",
                        shown(&page),
                        file.filename
                    ));
                }
                return Ok(Seen::Same);
            }
            return Err(Error::misuse(
                Kind::Taken.code(),
                format!(
                    "{} has '{}' with the SHA-256 {digest}; {} has {}",
                    page.host_str().unwrap_or("the server"),
                    file.filename,
                    wheel.path.display(),
                    wheel.sha256
                ),
            )
            .next("a published file never changes: build with another version, local label or build number"));
        }
        Ok(seen)
    }

    /// Whether what a page links to is the server's own: on its origin, unless the user named the index; and where the
    /// page is a devpi's, of that index and not of one of its bases.
    fn is_own(&self, page: &Url, link: &str) -> bool {
        let Ok(link) = Url::parse(link) else { return false };
        let same = link.origin() == page.origin();
        match page.path().split_once(DEVPI) {
            Some((index, _)) => same && link.path().starts_with(index),
            None => same || self.index.is_some(),
        }
    }

    /// Asks for a page; a redirect is an answer.
    fn ask(&self, url: &Url) -> Result<ureq::http::Response<ureq::Body>> {
        let request = self.agent.get(url.as_str()).config().max_redirects(0).build().header("Accept", pypi::ACCEPT);
        self.authorized(request, url).call().map_err(|e| {
            Error::world("push", format!("{} does not answer: {e}", shown(url)))
                .next("check the address and the network")
        })
    }

    /// Whether an index stands at an address: it lists what it has.
    fn is_index(&self, index: &Url) -> Result<bool> {
        Ok(self.ask(index)?.status().as_u16() == 200)
    }

    /// The page of a project of an index.
    fn page(&self, index: &Url, project: &str) -> Result<Page> {
        let Ok(mut url) = index.join(&format!("{project}/")) else { return Ok(Page::None) };
        for _ in 0..=REDIRECTS {
            let response = self.ask(&url)?;
            match response.status().as_u16() {
                200 => return pypi::read_page(response, &url).map(|files| Page::Is(url, files)),
                status @ (401 | 403) => return Err(self.refused(status, "")),
                300..=399 => match target(&response, &url) {
                    // One that the user named may have another address on its host: that of its number.
                    Some(to)
                        if to.origin() == url.origin()
                            && (self.index.is_some() || to.path().starts_with(index.path())) =>
                    {
                        url = to;
                    }
                    // A fallback to another index, also one of the same host: what is there is not in this one.
                    _ => return Ok(Page::None),
                },
                // What stands before a server has numbers of its own for what fails behind it (520 to 530).
                status @ (408 | 425 | 429 | 500..=599) => return Ok(Page::Fails(status)),
                _ => return Ok(Page::None),
            }
        }
        Ok(Page::None)
    }

    /// SHA-256 of a file on the server; one that is longer than `size` is another file anyway.
    fn digest_of(&self, url: &str, size: u64) -> Result<String> {
        let failed = |e: String| Error::world("push", format!("what the server has cannot be read to compare it: {e}"));
        let address = Url::parse(url).map_err(|e| failed(e.to_string()))?;
        let request = self.authorized(http_get(&self.agent, url), &address);
        let response = request.call().map_err(|e| failed(e.to_string()))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(failed(format!("{} answers {status}", shown(&address))));
        }
        let mut body = http_body(response, u64::MAX).take(size + 1);
        crate::store::digest_reader(&mut body).map(|(digest, _)| digest).map_err(|e| failed(e.to_string()))
    }

    /// Adds the credentials, if `url` is of the origin that they are for.
    fn authorized<B>(&self, request: ureq::RequestBuilder<B>, url: &Url) -> ureq::RequestBuilder<B> {
        match &self.credentials {
            Some(c) if url.origin() == self.url.origin() => request.header("Authorization", c.header().as_str()),
            _ => request,
        }
    }

    fn upload(&self, wheel: &Wheel) -> Result<()> {
        let file = wheel.filename.clone();
        self.events.emit(Event::DownloadStarted { file: file.clone(), size: Some(wheel.size) });
        let done = self.try_upload(wheel).and_then(|()| self.read_back(wheel));
        self.events.emit(Event::DownloadFinished { file });
        done
    }

    /// Looks whether the server shows what it took.
    fn read_back(&self, wheel: &Wheel) -> Result<()> {
        let mut seen = Seen::NoPage;
        for attempt in 0..READS {
            if attempt > 0 {
                std::thread::sleep(Duration::from_millis(200 << attempt));
            }
            platform::check_cancelled()?;
            seen = self.look(wheel)?;
            if seen == Seen::Same {
                return Ok(());
            }
        }
        let what = format!("{} took {} and does not show it", shown(&self.url), wheel.filename);
        let e = Error::world("not-read-back", what);
        Err(match seen {
            Seen::NoPage => e.next("its index was not found: name it with --simple"),
            Seen::Fails(status) => {
                e.next(format!("it answers {status} for its pages; the same command looks again once it is well"))
            }
            Seen::Nothing | Seen::Same => e.next(SLOW_OR_LOST),
        })
    }

    fn try_upload(&self, wheel: &Wheel) -> Result<()> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.events.warn(format!("{last}; trying again ({} of {ATTEMPTS})", attempt + 1));
                std::thread::sleep(Duration::from_millis(400 << attempt));
                // The last try may have arrived after all.
                if self.look(wheel)? == Seen::Same {
                    return Ok(());
                }
            }
            match self.send(wheel) {
                Ok((status, _)) if (200..300).contains(&status) => {
                    return Ok(());
                }
                Ok((status, said)) if status >= 500 || status == 429 => {
                    last = format!("the server answered {status}: {said}")
                }
                Ok((status, said)) => {
                    // Somebody else may have been faster with the same bytes; with others, this says so.
                    if status == 409 && self.look(wheel)? == Seen::Same {
                        return Ok(());
                    }
                    return Err(self.refused(status, &said));
                }
                Err(ureq::Error::Io(e)) if e.get_ref().is_some_and(|e| e.is::<form::Changed>()) => {
                    let what = format!("{} changed while it was sent: the server did not get it", wheel.path.display());
                    return Err(Error::world("changed", what).next("push it again once nobody writes to it"));
                }
                Err(e) => last = format!("the connection failed: {e}"),
            }
        }
        Err(Error::world("push", format!("{} could not be uploaded: {last}", wheel.filename))
            .next("the same command goes on where it stopped: what is there is not sent again"))
    }

    /// Sends one form; the status and the beginning of what was said.
    fn send(&self, wheel: &Wheel) -> std::result::Result<(u16, String), ureq::Error> {
        let form = form::Form::new(wheel);
        let mut body = form.open(&wheel.path, self.events)?;
        let mut request = self
            .agent
            .post(self.url.as_str())
            .config()
            // An upload that is redirected would arrive without its body, and be called a success.
            .max_redirects(0)
            .timeout_recv_response(Some(THINKING))
            .build()
            .header("Content-Type", form.content_type())
            .header("Content-Length", form.length().to_string());
        if form.length() >= ASK_FIRST {
            // Who may not upload hears it before gigabytes were sent, and not as a broken connection.
            request = request.header("Expect", "100-continue");
        }
        let request = self.authorized(request, &self.url);
        let response = request.send(ureq::SendBody::from_reader(&mut body))?;
        let status = response.status().as_u16();
        if let Some(to) = target(&response, &self.url) {
            return Ok((status, format!("it sends uploads on to {}", shown(&to))));
        }
        let text = http_text(response, 64 << 10).unwrap_or_default();
        let said = self.credentials.as_ref().map_or_else(|| text.clone(), |c| c.conceal(&text));
        Ok((status, first_words(&said)))
    }

    fn refused(&self, status: u16, said: &str) -> Error {
        let who = shown(&self.url);
        let e = Error::world(
            "refused",
            format!("{who} answered {status}{}{said}", if said.is_empty() { "" } else { ": " }),
        );
        match status {
            401 if self.credentials.is_none() => e.next("give credentials: netrc, TORCHMILL_UPLOAD_USERNAME and TORCHMILL_UPLOAD_PASSWORD, or --credential-command"),
            401 | 403 => e.next("this user may not upload there: check user, password or token, and the server's own rules"),
            409 => e.next("another file has that name: a published file never changes"),
            300..=399 => e.next("give the address that it names with --to, if you trust it: credentials do not go there by themselves"),
            413 => e.next("the server takes no file of this size: its operator can raise the limit (nginx: client_max_body_size)"),
            _ => e.next("the server's log says more"),
        }
    }
}

/// What to do about an upload that a server does not show.
const SLOW_OR_LOST: &str =
    "ask its operator: the server may be slow to show what is new, or throw it away; the same command looks again";

/// A page that a server was asked for.
enum Page {
    /// It is there, at this address after redirects, and names these files.
    Is(Url, Vec<IndexFile>),
    /// There is none, or it is another server's.
    None,
    /// Whether there is one the server cannot say now, but answers this.
    Fails(u16),
}

/// What a server has under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// No page of it was found.
    NoPage,
    /// No page of it was found, and one was asked for to which the server answered this, as one that is not well.
    Fails(u16),
    /// A page, and no such file of its own.
    Nothing,
    /// The same bytes.
    Same,
}

/// Where a devpi has the pages of an index, below its address.
const DEVPI: &str = "+simple/";

/// Whether what is sent to an address can be read on the way: without TLS, past this machine's own networks.
fn crosses_in_clear(to: &Url) -> bool {
    to.scheme() == "http" && !is_own_host(to.host_str().unwrap_or_default())
}

/// The host that a page links to, if that is another origin than its own.
fn elsewhere(page: &Url, link: &str) -> Option<String> {
    let link = Url::parse(link).ok().filter(|link| link.origin() != page.origin())?;
    link.host_str().map(str::to_owned)
}

/// Where an answer sends one on to.
fn target<B>(response: &ureq::http::Response<B>, from: &Url) -> Option<Url> {
    let location = response.headers().get("location").filter(|_| response.status().is_redirection())?;
    from.join(location.to_str().ok()?).ok()
}

/// An address without what it might hold of a user.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    // Some servers take a token there.
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// The beginning of an answer, as one line without markup.
fn first_words(text: &str) -> String {
    let mut out = String::new();
    let mut tag = false;
    for c in text.chars() {
        match c {
            '<' => tag = true,
            '>' => tag = false,
            c if !tag => out.push(if c.is_control() { ' ' } else { c }),
            _ => {}
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

/// Reads the target's address.
///
/// # Errors
/// Bad input: no http address, or one that holds a password.
pub fn address(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|e| Error::misuse("url", format!("'{text}' is no address: {e}")))?;
    if !["http", "https"].contains(&url.scheme()) {
        // `user:password@host` is an address of the scheme `user`.
        let shown = if text.contains('@') { "the address".to_owned() } else { format!("'{text}'") };
        return Err(Error::misuse("url", format!("{shown} is neither http nor https")));
    }
    // An `@` behind the host: a password with `/` in it, which ended the host.
    if url.password().is_some() || !url.username().is_empty() || url.path().contains('@') {
        // Not repeated: a token may stand in the user's place.
        return Err(Error::misuse("url", "the address holds a password or a user: whoever lists processes reads it").next(
            "use netrc, the environment (TORCHMILL_UPLOAD_USERNAME, TORCHMILL_UPLOAD_PASSWORD) or --credential-command",
        ));
    }
    Ok(url)
}

/// Examines wheels before they go anywhere.
///
/// # Errors
/// The first that may not be published.
pub fn examine(paths: &[impl AsRef<Path>]) -> Result<Vec<Wheel>> {
    use rayon::prelude::*;
    let paths: Vec<&Path> = paths.iter().map(AsRef::as_ref).collect();
    paths.par_iter().map(|p| Wheel::examine(p)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_in_clear_text_past_the_own_networks_is_known() {
        let crosses = |to: &str| crosses_in_clear(&address(to).unwrap());
        for far in ["http://wheels.example/legacy/", "http://8.8.8.8/", "http://[2001:db8::1]:8080/"] {
            assert!(crosses(far), "{far}");
        }
        for fine in ["https://wheels.example/", "http://localhost:8080/", "http://10.1.2.3/", "http://[::1]:7/"] {
            assert!(!crosses(fine), "{fine}");
        }
    }
}
