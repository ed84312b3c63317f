//! `mirror push`: wheels to a server that speaks the upload API ("legacy"): pypiserver, devpi, our own,
//! and whatever else twine uploads to.
//!
//! Nothing is uploaded that is there: with the same digest that is success, with another it is refused.

mod credentials;
mod form;

use std::path::Path;

use serde::Serialize;
use ureq::Agent;
use url::Url;

pub use credentials::Credentials;

use super::wheel::Wheel;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Sink};
use crate::platform;
use crate::source::pypi::{self, IndexFile};

/// How often one upload is tried.
const ATTEMPTS: u32 = 4;

/// What became of one wheel.
#[derive(Debug, Clone, Serialize)]
pub struct Pushed {
    /// File name.
    pub filename: String,
    /// SHA-256.
    pub sha256: String,
    /// Whether it had to be sent.
    pub sent: bool,
}

/// A server to upload to.
pub struct Target<'a> {
    /// Where uploads go.
    pub url: Url,
    /// Where its simple index is; found out if `None`.
    pub index: Option<Url>,
    /// Who uploads.
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
        // Everything is looked up before anything is sent: a set that cannot go is not half there.
        let mut todo = Vec::new();
        for wheel in wheels {
            platform::check_cancelled()?;
            todo.push((wheel, self.is_there(wheel)?));
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

    /// Addresses where the project's page may be.
    fn pages(&self, project: &str) -> Vec<Url> {
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
            return base(index).join(&format!("{project}/")).into_iter().collect();
        }
        // devpi has the page below the index it uploads to; pypiserver and we at the root.
        let upload = base(&self.url);
        let tries = [format!("+simple/{project}/"), format!("simple/{project}/"), format!("../simple/{project}/")];
        tries.iter().filter_map(|t| upload.join(t).ok()).collect()
    }

    /// Whether the same bytes are there under this name.
    fn is_there(&self, wheel: &Wheel) -> Result<bool> {
        for page in self.pages(&wheel.name.project) {
            let Some(files) = self.page(&page)? else { continue };
            let Some(file) = files.iter().find(|f| f.filename == wheel.filename) else { continue };
            let digest = match &file.sha256 {
                Some(digest) => digest.clone(),
                None => self.digest_of(&file.url)?,
            };
            if digest == wheel.sha256 {
                return Ok(true);
            }
            return Err(Error::misuse(
                Kind::Taken.code(),
                format!(
                    "{} has '{}' with the SHA-256 {digest}; {} has {}",
                    page.host_str().unwrap_or("the server"),
                    wheel.filename,
                    wheel.path.display(),
                    wheel.sha256
                ),
            )
            .next("a published file never changes: build with another version, local label or build number"));
        }
        Ok(false)
    }

    fn page(&self, url: &Url) -> Result<Option<Vec<IndexFile>>> {
        let request = self.agent.get(url.as_str()).header("Accept", pypi::ACCEPT);
        match self.authorized(request).call() {
            Ok(response) if response.status().as_u16() == 200 => pypi::read_page(response, url).map(Some),
            Ok(response) if [401, 403].contains(&response.status().as_u16()) => {
                Err(self.refused(response.status().as_u16(), ""))
            }
            Ok(_) => Ok(None),
            Err(e) => Err(Error::world("push", format!("{} does not answer: {e}", shown(url)))
                .next("check the address and the network")),
        }
    }

    fn digest_of(&self, url: &str) -> Result<String> {
        let failed = |e: String| Error::world("push", format!("what the server has cannot be read to compare it: {e}"));
        let mut response = self.authorized(self.agent.get(url)).call().map_err(|e| failed(e.to_string()))?;
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        crate::store::digest_reader(&mut body).map(|(digest, _)| digest).map_err(|e| failed(e.to_string()))
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.credentials {
            Some(c) => request.header("Authorization", c.header()),
            None => request,
        }
    }

    fn upload(&self, wheel: &Wheel) -> Result<()> {
        let file = wheel.filename.clone();
        self.events.emit(Event::DownloadStarted { file: file.clone(), size: Some(wheel.size) });
        let done = self.try_upload(wheel);
        self.events.emit(Event::DownloadFinished { file });
        done
    }

    fn try_upload(&self, wheel: &Wheel) -> Result<()> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.events.warn(format!("{last}; trying again ({} of {ATTEMPTS})", attempt + 1));
                std::thread::sleep(std::time::Duration::from_millis(400 << attempt));
                // The last try may have arrived after all.
                if self.is_there(wheel)? {
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
                    if status == 409 && self.is_there(wheel)? {
                        return Ok(());
                    }
                    return Err(self.refused(status, &said));
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
        let request = self
            .agent
            .post(self.url.as_str())
            .header("Content-Type", form.content_type())
            .header("Content-Length", form.length().to_string());
        let mut response = self.authorized(request).send(ureq::SendBody::from_reader(&mut body))?;
        let text = response.body_mut().with_config().limit(64 << 10).read_to_string().unwrap_or_default();
        Ok((response.status().as_u16(), first_words(&text)))
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
            413 => e.next("the server takes no file of this size: its operator can raise the limit (nginx: client_max_body_size)"),
            _ => e.next("the server's log says more"),
        }
    }
}

/// An address without what it might hold of a user.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
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
        return Err(Error::misuse("url", format!("'{text}' is neither http nor https")));
    }
    if url.password().is_some() {
        // Not repeated: it holds a secret.
        return Err(Error::misuse("url", "the address holds a password: whoever lists processes reads it")
            .next("use netrc, the environment (TORCHMILL_UPLOAD_PASSWORD) or --credential-command"));
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
