//! The upload API that twine and its kin speak ("legacy"): one form with the file in it. What arrives
//! goes to a hidden folder, is examined like any other wheel, and published only then.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use blake2::Blake2b256;
use http_body::Frame;
use md5::Md5;
use sha2::Digest;

use super::Shared;
use super::places::Line;
use crate::error::{Error, Exit, Kind};
use crate::event::Silent;
use crate::mirror::index::{Outcome, same_version};
use crate::mirror::wheel::{Name, Wheel};

/// Most bytes of a field that is no file, and of one that is kept.
const MOST_FIELD: usize = 1 << 20;
const MOST_KEPT: usize = 4 << 10;

/// Folder for what is uploaded, in that of the change.
const UPLOAD: &str = "upload";

/// Bytes of an upload that are written at once.
const AT_ONCE: usize = 256 << 10;

/// Most bytes from one field's end to the next one's beginning.
const MOST_HEAD: u64 = 64 << 10;

/// How long the rest of a refused upload is read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an upload is refused.
struct Refusal(StatusCode, String);

impl From<MultipartError> for Refusal {
    fn from(e: MultipartError) -> Self {
        Self(e.status(), e.body_text())
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        let status = match (e.exit(), e.kind()) {
            (_, Some(Kind::Taken | Kind::Removed)) => StatusCode::CONFLICT,
            (Exit::World, Some(Kind::DiskFull)) => StatusCode::INSUFFICIENT_STORAGE,
            (Exit::World | Exit::Stopped, _) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, e.what().to_owned())
    }
}

impl From<std::io::Error> for Refusal {
    fn from(e: std::io::Error) -> Self {
        Error::from(e).into()
    }
}

/// Takes an upload.
pub async fn receive(shared: &Arc<Shared>, line: &Arc<Line>, request: Request) -> Response {
    match take(shared, line, request).await {
        Ok(outcome) => {
            let said = if outcome == Outcome::Published { "published\n" } else { "already there, the same bytes\n" };
            (StatusCode::OK, said).into_response()
        }
        Err(Refusal(status, why)) => {
            (status, format!("{}\n", without_places(&why, shared.index.root()))).into_response()
        }
    }
}

/// What is said to whoever sent something: where it lies here is no business of theirs.
fn without_places(why: &str, root: &Path) -> String {
    let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    [real.as_path(), root].iter().fold(why.to_owned(), |why, root| why.replace(&format!("{}/", root.display()), ""))
}

/// The bytes of a form, a piece at a time: the reader of forms keeps all that it can get at once, and what it waits for
/// between two fields without a bound.
struct Paced {
    body: Body,
    gave: bool,
    head: Arc<AtomicU64>,
}

/// In place of the number of bytes, where no field's beginning is waited for.
const IN_A_FIELD: u64 = u64::MAX;

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if std::mem::take(&mut self.gave) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.gave = true;
            let more = frame.data_ref().map_or(0, |data| data.len() as u64);
            let before = self.head.load(Ordering::Relaxed);
            if before != IN_A_FIELD {
                if before > MOST_HEAD {
                    return Poll::Ready(Some(Err("a field that does not begin".into())));
                }
                self.head.store(before + more, Ordering::Relaxed);
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

async fn take(shared: &Arc<Shared>, line: &Arc<Line>, request: Request) -> Result<Outcome, Refusal> {
    let bad = |what: &str| Refusal(StatusCode::BAD_REQUEST, what.to_owned());
    // Who waited for longer would be taken for one who does not go on.
    let turn = tokio::time::timeout(shared.options.stall_timeout / 2, shared.uploads.acquire()).await;
    let Ok(Ok(_upload)) = turn else {
        let what = "as many uploads are under way as are taken at once: try again later";
        return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, what.to_owned()));
    };
    let head = Arc::new(AtomicU64::new(0));
    let request = {
        let (parts, body) = request.into_parts();
        let most = usize::try_from(shared.options.most_upload).unwrap_or(usize::MAX).saturating_add(MOST_FIELD);
        let limited = http_body_util::Limited::new(Paced { body, gave: false, head: Arc::clone(&head) }, most);
        let mut request = Request::from_parts(parts, Body::new(limited));
        // The extractor's own bound is far below a wheel.
        DefaultBodyLimit::disable().apply(&mut request);
        request
    };
    let mut form = Multipart::from_request(request, &()).await.map_err(|e| Refusal(e.status(), e.body_text()))?;
    // Somebody else's change may have to be waited for.
    let place = tokio::task::block_in_place(|| shared.index.begin(&Silent))?;
    let dir = place.place(UPLOAD);
    fs_err::create_dir(&dir)?;
    let mut read = read_form(&mut form, &head, &dir, shared.options.most_upload).await;
    if !matches!(head.load(Ordering::Relaxed), 0..=MOST_HEAD | IN_A_FIELD) {
        let what = format!("between two fields of the form are more than {MOST_HEAD} bytes");
        read = Err(Refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, what));
    } else if read.is_err() {
        head.store(IN_A_FIELD, Ordering::Relaxed);
        // Whoever is told no in the middle of sending hears it only after having sent.
        let _ = tokio::time::timeout(PATIENCE, drain(&mut form)).await;
    }
    let Form { action, stated, name, version, file } = read?;
    if action.as_deref() != Some("file_upload") {
        return Err(bad("only ':action' file_upload is spoken"));
    }
    let path = file.ok_or_else(|| bad("the form has no file ('content')"))?;
    let index = shared.index.clone();
    // From here on it is the client who waits.
    let _working = line.working();
    let _turn = shared.examined.acquire().await.map_err(|e| Refusal(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    // Reading a whole wheel is no work for the threads that answer.
    let done = tokio::task::spawn_blocking(move || {
        let wheel = Wheel::examine(&path)?;
        for (algorithm, stated) in stated {
            let own = match algorithm {
                Algorithm::Sha256 => wheel.sha256.clone(),
                Algorithm::Blake2b256 => digest_of::<Blake2b256>(&path)?,
                Algorithm::Md5 => digest_of::<Md5>(&path)?,
            };
            if !stated.eq_ignore_ascii_case(&own) {
                let (name, stated) = (algorithm.name(), stated.escape_debug());
                return Err(Error::misuse("digest", format!("the file has the {name} {own}; the form says {stated}")));
            }
        }
        // What installers would be shown is the wheel's own; a form that means another one is a mistake of its sender.
        let other = |key: &str, stated: &str, own: &str| {
            Error::misuse("form", format!("the form says {key} '{}'; the wheel is of {own}", stated.escape_debug()))
        };
        if let Some(name) = name.filter(|name| crate::wheel::normalize(name) != wheel.name.project) {
            return Err(other("name", &name, &wheel.name.project));
        }
        if let Some(version) = version.filter(|version| !same_version(version, &wheel.name.version)) {
            return Err(other("version", &version, &wheel.name.version));
        }
        index.add(&[wheel], &Silent)
    })
    .await;
    drop(place);
    match done {
        Ok(added) => added?.first().map(|a| a.outcome).ok_or_else(|| bad("nothing was published")),
        Err(_) => Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the upload could not be examined".into())),
    }
}

/// What a form may say of its file's bytes. The SHA-256 is what counts from there on; whoever says more is told of what
/// does not hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Blake2b256,
    Md5,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Blake2b256 => "BLAKE2b-256",
            Self::Md5 => "MD5",
        }
    }
}

/// Digest of the file at `path`, hexadecimal.
fn digest_of<D: Digest>(path: &Path) -> Result<String, Error> {
    let mut file = fs_err::File::open(path)?;
    let (mut hash, mut bytes) = (D::new(), vec![0; AT_ONCE]);
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&bytes[..n]),
        }
    }
}

/// The fields that count.
#[derive(Default)]
struct Form {
    action: Option<String>,
    stated: BTreeMap<Algorithm, String>,
    name: Option<String>,
    version: Option<String>,
    file: Option<PathBuf>,
}

/// Reads the form; its file goes to `dir`.
async fn read_form(form: &mut Multipart, head: &AtomicU64, dir: &Path, most: u64) -> Result<Form, Refusal> {
    let mut read = Form::default();
    loop {
        head.store(0, Ordering::Relaxed);
        let Some(field) = form.next_field().await? else { break };
        head.store(IN_A_FIELD, Ordering::Relaxed);
        match field.name() {
            Some(":action") => read.action = Some(text(field).await?),
            Some("sha256_digest") => drop(read.stated.insert(Algorithm::Sha256, text(field).await?)),
            Some("blake2_256_digest") => drop(read.stated.insert(Algorithm::Blake2b256, text(field).await?)),
            Some("md5_digest") => drop(read.stated.insert(Algorithm::Md5, text(field).await?)),
            Some("name") => read.name = Some(text(field).await?),
            Some("version") => read.version = Some(text(field).await?),
            Some("content") => {
                let name = field.file_name().unwrap_or_default().to_owned();
                // The name decides where it will stand: it is judged before a byte is written.
                name.parse::<Name>().map_err(|e| Refusal(StatusCode::BAD_REQUEST, e))?;
                let path = dir.join(name);
                write(field, &path, most).await?;
                read.file = Some(path);
            }
            _ => skip(field).await?,
        }
    }
    Ok(read)
}

async fn drain(form: &mut Multipart) {
    while let Ok(Some(mut field)) = form.next_field().await {
        while let Ok(Some(_)) = field.chunk().await {}
    }
}

async fn text(mut field: Field<'_>) -> Result<String, Refusal> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await? {
        if bytes.len() + piece.len() > MOST_KEPT {
            let what = format!("the field '{}' has more than {MOST_KEPT} bytes", field.name().unwrap_or_default());
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, what));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Passes over a field that nobody here asks for, such as a description.
async fn skip(mut field: Field<'_>) -> Result<(), Refusal> {
    let mut size = 0;
    while let Some(piece) = field.chunk().await? {
        size += piece.len();
        if size > MOST_FIELD {
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("a field has more than {MOST_FIELD} bytes")));
        }
    }
    Ok(())
}

async fn write(mut field: Field<'_>, path: &Path, most: u64) -> Result<(), Refusal> {
    let mut out = fs_err::File::create(path)?;
    let mut size = 0u64;
    let mut waiting = Vec::with_capacity(AT_ONCE);
    while let Some(piece) = field.chunk().await? {
        size += piece.len() as u64;
        if size > most {
            let what = format!("the file has more than {most} bytes (--max-upload)");
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, what));
        }
        waiting.extend_from_slice(&piece);
        if waiting.len() >= AT_ONCE {
            // A slow disk keeps this client waiting, and no other.
            tokio::task::block_in_place(|| out.write_all(&waiting))?;
            waiting.clear();
        }
    }
    tokio::task::block_in_place(|| out.write_all(&waiting))?;
    Ok(())
}
