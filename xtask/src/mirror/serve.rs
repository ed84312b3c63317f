//! `mirror serve`: an index over HTTP/1.1, for a team's network or a laptop.
//!
//! Pages are read once a change and kept, plain and gzipped. Wheels go out by range, with an ETag that
//! is their SHA-256: a published file never changes.
//!
//! ```text
//! places (who is connected, and for how long nothing moves) ─► answer (what is asked for) ─► page, file, upload
//! ```
//!
//! Whoever connects is hostile until a token says otherwise: everything that a client can make us hold (places,
//! buffers, pages, lines of the log) has a bound over all clients together.

mod accept;
mod body;
mod by_kernel;
mod cache;
mod guard;
mod log;
mod places;
mod upload;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_range_header::{RangeUnsatisfiableError, parse_range_header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use percent_encoding::percent_decode_str;

pub use accept::Form;
pub use guard::Token;

use self::log::Log;
use self::places::{Line, Place, Places, Watched};
use super::index::{self, Index};
use super::page;
use super::wheel;
use crate::error::{Error, Result};
use crate::platform;

/// How it serves.
#[derive(Debug)]
pub struct Options {
    /// Where it listens.
    pub address: SocketAddr,
    /// What the start page calls it, without a slash at the end; as it was asked for, by http, if `None`.
    pub public_url: Option<String>,
    /// Who may read; everyone if `None`.
    pub read: Option<Token>,
    /// Who may upload; nobody if `None`.
    pub upload: Option<Token>,
    /// Largest upload, bytes.
    pub most_upload: u64,
    /// Connections at a time.
    pub most_connections: usize,
    /// Connections at a time from one address, of IPv6 from one /64; half of all if `None`.
    pub most_of_one: Option<usize>,
    /// How long a client may take to send its request's head, first byte and all.
    pub head_timeout: Duration,
    /// How long a client may let a transfer stand still.
    pub stall_timeout: Duration,
    /// Print a line a request.
    pub log: bool,
}

/// What a request needs.
struct Shared {
    index: Index,
    cache: cache::Cache,
    options: Options,
    places: Arc<Places>,
    log: Option<Log>,
    /// Uploads at a time: each takes memory and files, and a thread while somebody else changes the index.
    uploads: tokio::sync::Semaphore,
    /// Wheels that are examined at a time: each takes memory.
    examined: tokio::sync::Semaphore,
}

/// Most lines of a request's head, and most bytes.
const MOST_HEADERS: usize = 64;
const MOST_HEAD: usize = 16 << 10;
/// Files that a connection has open, its socket and what it asks for; and what the program itself needs, the locks of
/// uploads as well.
const FILES_OF_ONE: u64 = 2;
const FILES_OF_OURS: u64 = 128 + MOST_UPLOADS as u64;
/// Bytes of files that are on their way to all clients together, and bounds of one piece.
const ON_THEIR_WAY: usize = 48 << 20;
const PIECE: (usize, usize) = (8 << 10, 64 << 10);
/// Bytes that wait in the kernel for a client.
const UNSENT: i32 = 128 << 10;
/// Uploads that are taken at once, far fewer than the threads that may wait (512, as tokio has it); and those of them that
/// are examined.
const MOST_UPLOADS: usize = 64;
const MOST_EXAMINED: usize = 2;
/// How often it looks around: whether it is to end, and who stands still.
const TICK: Duration = Duration::from_millis(100);
/// After it was told to end: how long answers under way may take, and how long what cannot be interrupted.
const GRACE: Duration = Duration::from_secs(3);
const LAST: Duration = Duration::from_secs(2);

/// Serves until the process is told to stop. `ready` is called with the address once it listens.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(index: Index, mut options: Options, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let files = platform::raise_open_files().saturating_sub(FILES_OF_OURS) / FILES_OF_ONE;
    options.most_connections = options.most_connections.min(usize::try_from(files).unwrap_or(usize::MAX)).max(1);
    let most_of_one = options.most_of_one.unwrap_or(options.most_connections.div_ceil(2));
    let (log, writer) = options.log.then(Log::start).unzip();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::world("serve", format!("no threads for a server: {e}")))?;
    let shared = Arc::new(Shared {
        index,
        cache: cache::Cache::default(),
        places: Places::new(options.most_connections, most_of_one),
        options,
        log,
        uploads: tokio::sync::Semaphore::new(MOST_UPLOADS),
        examined: tokio::sync::Semaphore::new(MOST_EXAMINED),
    });
    // The loop that accepts runs on this thread: nothing that a client does keeps it from hearing that it is to end.
    let done = runtime.block_on(run(shared, ready));
    runtime.shutdown_timeout(LAST);
    if let Some(writer) = writer {
        writer.finish();
    }
    done
}

async fn run(shared: Arc<Shared>, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let address = shared.options.address;
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() };
    let listener = socket
        .and_then(|s| {
            s.set_reuseaddr(true)?;
            s.bind(address)?;
            s.listen(4096)
        })
        .map_err(|e| {
            Error::world("listen", format!("cannot listen on {address}: {e}"))
                .next("choose another --port, or end what listens there")
        })?;
    ready(listener.local_addr().unwrap_or(address));
    let end = GracefulShutdown::new();
    tokio::select! {
        () = accept(&shared, &listener, &end) => {}
        () = told_to_end(&shared) => {}
    }
    let _ = tokio::time::timeout(GRACE, end.shutdown()).await;
    Ok(())
}

/// Lets clients in, for ever. Whoever there is no place for waits beside: it keeps nobody behind it from being seen.
async fn accept(shared: &Arc<Shared>, listener: &tokio::net::TcpListener, end: &GracefulShutdown) {
    loop {
        // A client that is gone, or no file descriptor left: neither ends the server.
        let Ok((socket, peer)) = listener.accept().await else {
            tokio::time::sleep(TICK / 5).await;
            continue;
        };
        if let Some(place) = shared.places.take(peer.ip()) {
            connect(shared, socket, peer, place, end.watcher());
            continue;
        }
        let place = shared.places.take_in_time(peer.ip());
        let (shared, watcher) = (Arc::clone(shared), end.watcher());
        tokio::spawn(async move {
            match place.await {
                Some(place) => connect(&shared, socket, peer, place, watcher),
                None => refuse(&socket),
            }
        });
    }
}

/// Looks around until the process is told to stop.
async fn told_to_end(shared: &Shared) {
    let mut tick = tokio::time::interval(TICK);
    while !platform::cancelled() {
        tick.tick().await;
        shared.places.sweep(shared.options.stall_timeout);
    }
}

/// Answers the requests of a connection, until it ends or has to give up its place.
fn connect(shared: &Arc<Shared>, socket: tokio::net::TcpStream, peer: SocketAddr, place: Place, end: Watcher) {
    let _ = socket.set_nodelay(true);
    platform::bound_unsent(&socket, UNSENT);
    let (shared, line) = (Arc::clone(shared), Arc::clone(&place.line));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.options.head_timeout)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEAD);
    let io = TokioIo::new(Watched::new(socket, Arc::clone(&line)));
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (shared, line) = (Arc::clone(&shared), Arc::clone(&line));
        async move { Ok::<_, std::convert::Infallible>(logged(&shared, &line, peer, request.map(Body::new)).await) }
    });
    let connection = end.watch(builder.serve_connection(io, service));
    tokio::spawn(async move {
        tokio::select! {
            // What a client does wrong is its own affair.
            _ = connection => {}
            () = place.line.cut.notified() => {}
        }
    });
}

/// Says why an address gets no more connections, if that can be said without waiting.
fn refuse(socket: &tokio::net::TcpStream) {
    let _ = socket.try_write(
        b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n",
    );
}

/// Answers, and notes it: one line a request, in the common log format, with milliseconds at the end.
async fn logged(shared: &Arc<Shared>, line: &Arc<Line>, peer: SocketAddr, request: Request) -> Response {
    let Some(log) = &shared.log else { return answer(shared, line, request).await };
    // The query may hold what is nobody's business.
    let mut path = request.uri().path().escape_default().to_string();
    path.truncate(512);
    // A method is any word; thousands of lines may wait to be written.
    let asked = format!("{:.32} {path} {:?}", request.method().as_str(), request.version());
    let started = Instant::now();
    let response = answer(shared, line, request).await;
    let size = response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).unwrap_or("-");
    let (status, ms) = (response.status().as_u16(), started.elapsed().as_millis());
    log.line(format!("{} - - [{}] \"{asked}\" {status} {size} {ms}ms", peer.ip(), index::now()));
    response
}

/// The answer to a request, with what every answer says.
async fn answer(shared: &Arc<Shared>, line: &Arc<Line>, request: Request) -> Response {
    let mut response = match guard::refusal(&shared.options, &request) {
        Some(refusal) => refusal,
        None => route(shared, line, request).await,
    };
    // The length of what HEAD leaves out is that of what GET sends; what 304 leaves out has one too (RFC 9110, 8.6).
    let length = response.body().size_hint().exact().filter(|_| response.status() != StatusCode::NOT_MODIFIED);
    let out = response.headers_mut();
    if let Some(length) = length {
        out.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // What did not say that it may be kept is true only now: errors above all.
    out.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn route(shared: &Arc<Shared>, line: &Arc<Line>, request: Request) -> Response {
    let path = request.uri().path();
    let headers = request.headers();
    if request.method() == Method::POST {
        return if matches!(path, "/" | "/legacy/") {
            upload::receive(shared, line, request).await
        } else {
            text(StatusCode::NOT_FOUND, "uploads go to /legacy/\n")
        };
    }
    // Of what HEAD asks for there are no ranges (RFC 9110, 14.2).
    let range = headers.get(header::RANGE).filter(|_| request.method() == Method::GET);
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments[..] {
        [""] => start(shared, headers),
        ["simple"] => moved("/simple/"),
        ["simple", ""] => simple(shared, line, None, headers),
        ["simple", project] => to_project(&decoded(project)),
        ["simple", project, ""] => match decoded(project) {
            p if index::project_name(&p).as_deref() == Some(&p) => simple(shared, line, Some(&p), headers),
            p => to_project(&p),
        },
        ["files", project, name] => file(shared, &decoded(project), &decoded(name), headers, range),
        _ => missing(),
    }
}

/// A segment of a path as it is meant; what is no UTF-8 names nothing here.
fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8().map(|s| s.into_owned()).unwrap_or_default()
}

fn text(status: StatusCode, said: impl Into<String>) -> Response {
    (status, said.into()).into_response()
}

fn missing() -> Response {
    text(StatusCode::NOT_FOUND, "not found\n")
}

fn moved(to: &str) -> Response {
    match HeaderValue::from_str(to) {
        Ok(to) => (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, to)]).into_response(),
        Err(_) => missing(),
    }
}

fn to_project(segment: &str) -> Response {
    match index::project_name(segment) {
        Some(name) => moved(&format!("/simple/{name}/")),
        None => missing(),
    }
}

impl Shared {
    /// How long a page may be kept, and by whom: what a token guards is kept by nobody else.
    fn page_lifetime(&self) -> HeaderValue {
        // An index changes: who asks again is told at once, and by 304 where nothing did.
        HeaderValue::from_static(if self.options.read.is_some() { "private, no-store" } else { "no-cache" })
    }

    /// The same of a file.
    fn file_lifetime(&self) -> HeaderValue {
        HeaderValue::from_static(if self.options.read.is_some() {
            "private, max-age=31536000, immutable"
        } else {
            "public, max-age=31536000, immutable"
        })
    }

    /// Bytes of a piece of a file: so that all clients together hold no more than [`ON_THEIR_WAY`].
    fn piece(&self) -> usize {
        (ON_THEIR_WAY / self.places.taken().max(1)).clamp(PIECE.0, PIECE.1)
    }
}

/// The start page. The address that it was told, else that under which it was asked for, stands in for the one that it
/// cannot know; what stands before and behind that, all clients share.
fn start(shared: &Shared, headers: &HeaderMap) -> Response {
    let found = shared.cache.get(&shared.index.root().join("index.html"));
    let mut response = page(shared, None, found.as_deref(), "text/html; charset=utf-8", headers);
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).filter(|h| guard::is_host(h));
    // Whether a proxy was asked by https, a header could say, and whoever reaches this server could write it.
    let here = shared.options.public_url.clone().or_else(|| host.map(|host| format!("http://{host}")));
    if let Some(here) = here
        && response.status() == StatusCode::OK
        && let Some(page) = found
        && let Some(at) = page.here
    {
        let all = &page.plain.bytes;
        let pieces = [all.slice(..at), Bytes::from(here), all.slice(at + page::HERE.len()..)];
        *response.body_mut() = Body::new(body::Pieces::new(pieces));
        let out = response.headers_mut();
        for stale in [header::ETAG, header::CONTENT_ENCODING] {
            out.remove(stale);
        }
        // Whoever asks by another name gets another page: no cache in between may mix them up.
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
    response
}

/// A page of the simple API, a project's or the list of all, in the form that the client wants most.
fn simple(shared: &Shared, line: &Line, project: Option<&str>, headers: &HeaderMap) -> Response {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let Some(form) = Form::wanted(&accept.join(",")) else {
        let said = format!("this index speaks {}, {} and text/html\n", Form::JSON, Form::HTML);
        return text(StatusCode::NOT_ACCEPTABLE, said);
    };
    let found = match project {
        Some(project) => shared.cache.of_project(&shared.index, project, form),
        None => shared.cache.get(&shared.index.root().join("simple").join(form.file())),
    };
    page(shared, Some(line), found.as_deref(), form.content_type(), headers)
}

/// A page from the cache: conditional, gzipped for whoever takes that; by the kernel, where `line` says to whom.
fn page(
    shared: &Shared,
    line: Option<&Line>,
    found: Option<&cache::Page>,
    kind: &'static str,
    headers: &HeaderMap,
) -> Response {
    let Some(page) = found else { return missing() };
    let gzip = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(accept::takes_gzip);
    let form = if gzip { &page.gzip } else { &page.plain };
    let mut response = if matches(headers, &[&page.plain.etag, &page.gzip.etag]) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        if let (Some(line), Some(kept)) = (line, &form.by_kernel) {
            line.sends(kept.clone());
        }
        let mut whole = form.bytes.clone().into_response();
        if gzip {
            whole.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        whole
    };
    let out = response.headers_mut();
    out.insert(header::ETAG, form.etag.clone());
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    out.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    out.insert(header::CACHE_CONTROL, shared.page_lifetime());
    static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| HeaderValue::from_str(page::policy()).ok());
    if let Some(policy) = &*POLICY {
        out.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    }
    response
}

/// Whether `If-None-Match` names one of these.
fn matches(headers: &HeaderMap, etags: &[&HeaderValue]) -> bool {
    headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|list| {
        let mut named = list.split(',').map(|t| t.trim().trim_start_matches("W/"));
        named.any(|t| t == "*" || etags.iter().any(|e| e.as_bytes() == t.as_bytes()))
    })
}

/// A published file: by `range`, conditional.
fn file(shared: &Shared, project: &str, name: &str, headers: &HeaderMap, range: Option<&HeaderValue>) -> Response {
    if index::project_name(project).as_deref() != Some(project) || !wheel::is_file_name(name) {
        return missing();
    }
    // Only what a page names is published: a file in the folder alone is an add that was killed.
    let Some(published) = shared.cache.published(&shared.index, project, name) else { return missing() };
    let tag = published.etag;
    let mut response = if matches(headers, &[&tag]) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let path = shared.index.files(project).join(name);
        let Ok(about) = path.symlink_metadata() else { return missing() };
        let (source, size) = match shared.cache.small(&path, &about) {
            Some(bytes) => (Source::Kept(bytes), about.len()),
            None => {
                let Ok(file) = platform::open_regular(&path, false) else { return missing() };
                let Ok(size) = file.metadata().map(|m| m.len()) else { return missing() };
                (Source::File(file), size)
            }
        };
        if published.size.is_some_and(|s| s != size) {
            let said =
                "the file was changed after it was published: `mirror check` says more to whoever keeps this index\n";
            return text(StatusCode::INTERNAL_SERVER_ERROR, said);
        }
        let range_holds = headers.get(header::IF_RANGE).is_none_or(|v| *v == tag);
        send(shared, source, size, range.filter(|_| range_holds))
    };
    if response.status().is_client_error() {
        return response;
    }
    let out = response.headers_mut();
    out.insert(header::ETAG, tag);
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
    out.insert(header::CACHE_CONTROL, shared.file_lifetime());
    // A report is a page of styles and drawings: it has no business with scripts or other hosts.
    out.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"),
    );
    response
}

/// Where the bytes of a file are.
enum Source {
    Kept(Bytes),
    File(std::fs::File),
}

/// The bytes of a file: all, or the one range that is asked for.
fn send(shared: &Shared, source: Source, size: u64, range: Option<&HeaderValue>) -> Response {
    let range = range.and_then(|v| v.to_str().ok());
    // The last no bytes of a file are nothing that could be sent (RFC 9110, 14.1.2).
    let is_nothing = range.and_then(|v| v.trim().strip_prefix("bytes=-")).is_some_and(|n| n.bytes().all(|b| b == b'0'));
    let ranges = range
        .filter(|_| !is_nothing)
        .and_then(|v| parse_range_header(v).ok())
        .filter(|_| size > 0)
        .map(|parsed| parsed.validate(size));
    let (status, range) = match ranges.as_ref().map(|r| r.as_deref()) {
        Some(Ok([one])) => (StatusCode::PARTIAL_CONTENT, *one.start()..one.end() + 1),
        // More of the end than there is: all of it.
        Some(Err(RangeUnsatisfiableError::FileSuffixOutOfBounds)) => (StatusCode::OK, 0..size),
        Some(Err(_)) | None if ranges.is_some() || is_nothing => {
            let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such range\n");
            content_range(&mut response, &format!("bytes */{size}"));
            return response;
        }
        // Several ranges at once, or what cannot be read: a server may answer with all (RFC 9110, 14.2).
        _ => (StatusCode::OK, 0..size),
    };
    let said = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let mut response = match source {
        Source::Kept(bytes) => Body::from(bytes.slice(place(range.start)..place(range.end))).into_response(),
        Source::File(file) => Body::new(body::FileBody::new(file, range, shared.piece())).into_response(),
    };
    *response.status_mut() = status;
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status == StatusCode::PARTIAL_CONTENT {
        content_range(&mut response, &said);
    }
    response
}

fn content_range(response: &mut Response, said: &str) {
    if let Ok(value) = HeaderValue::from_str(said) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
}

fn content_type(name: &str) -> &'static str {
    if name.ends_with(".json") {
        "application/json"
    } else if name.ends_with(".metadata") {
        "text/plain; charset=utf-8"
    } else if name.ends_with(wheel::REPORT) {
        "text/html; charset=utf-8"
    } else {
        "application/octet-stream"
    }
}
