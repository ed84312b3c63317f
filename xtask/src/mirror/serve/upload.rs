//! The upload API that twine and its kin speak ("legacy"): one form with the file in it. What arrives
//! goes to a hidden folder, is examined like any other wheel, and published only then.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::places::Line;
use crate::error::{Error, Exit, Kind};
use crate::event::Silent;
use crate::mirror::index::Outcome;
use crate::mirror::wheel::{Name, Wheel};

/// Most bytes of a field that is no file.
const MOST_FIELD: usize = 1 << 20;

/// Folder for what is uploaded, in that of the change.
const UPLOAD: &str = "upload";

/// Bytes of an upload that are written at once.
const AT_ONCE: usize = 256 << 10;

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
            // Where it lies here is no business of whoever sent it.
            let why = why.replace(&format!("{}/", shared.index.root().display()), "");
            (status, format!("{why}\n")).into_response()
        }
    }
}

async fn take(shared: &Arc<Shared>, line: &Arc<Line>, request: Request) -> Result<Outcome, Refusal> {
    let bad = |what: &str| Refusal(StatusCode::BAD_REQUEST, what.to_owned());
    let request = {
        let (parts, body) = request.into_parts();

        let limited = http_body_util::Limited::new(
            body,
            usize::try_from(shared.options.most_upload).unwrap_or(usize::MAX) + MOST_FIELD,
        );
        let mut request = Request::from_parts(parts, axum::body::Body::new(limited));
        // The extractor's own bound is far below a wheel.
        DefaultBodyLimit::disable().apply(&mut request);
        request
    };
    let mut form = Multipart::from_request(request, &()).await.map_err(|e| Refusal(e.status(), e.body_text()))?;
    // Somebody else's change may have to be waited for.
    let place = tokio::task::block_in_place(|| shared.index.begin(&Silent))?;
    let dir = place.place(UPLOAD);
    fs_err::create_dir(&dir)?;
    let read = read_form(&mut form, &dir, shared.options.most_upload).await;
    if read.is_err() {
        // Whoever is told no in the middle of sending hears it only after having sent.
        let _ = tokio::time::timeout(PATIENCE, drain(&mut form)).await;
    }
    let Form { action, stated, file } = read?;
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
        if let Some(stated) = stated
            && !stated.eq_ignore_ascii_case(&wheel.sha256)
        {
            let what = format!("the file has the SHA-256 {}; the form says {stated}", wheel.sha256);
            return Err(Error::misuse("digest", what));
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

/// The fields that count.
#[derive(Default)]
struct Form {
    action: Option<String>,
    stated: Option<String>,
    file: Option<PathBuf>,
}

/// Reads the form; its file goes to `dir`.
async fn read_form(form: &mut Multipart, dir: &Path, most: u64) -> Result<Form, Refusal> {
    let mut read = Form::default();
    while let Some(field) = form.next_field().await? {
        match field.name() {
            Some(":action") => read.action = Some(text(field).await?),
            Some("sha256_digest") => read.stated = Some(text(field).await?),
            Some("content") => {
                let name = field.file_name().unwrap_or_default().to_owned();
                // The name decides where it will stand: it is judged before a byte is written.
                name.parse::<Name>().map_err(|e| Refusal(StatusCode::BAD_REQUEST, e))?;
                let path = dir.join(name);
                write(field, &path, most).await?;
                read.file = Some(path);
            }
            _ => drop(text(field).await?),
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
        bytes.extend_from_slice(&piece);
        if bytes.len() > MOST_FIELD {
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("a field has more than {MOST_FIELD} bytes")));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
