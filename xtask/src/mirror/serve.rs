//! `mirror serve`: an index over HTTP, for a team's network or a laptop.
//!
//! Pages are read once a change and kept, plain and gzipped. Wheels go out by range, with an ETag that
//! is their SHA-256: a published file never changes.

mod accept;
mod cache;
mod guard;
mod upload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower::ServiceExt;
use tower_http::services::ServeFile;

pub use accept::Form;
pub use guard::Token;

use super::index::{self, Index};
use super::wheel;
use crate::error::{Error, Result};
use crate::platform;

/// How it serves.
#[derive(Debug)]
pub struct Options {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may read; everyone if `None`.
    pub read: Option<Token>,
    /// Who may upload; nobody if `None`.
    pub upload: Option<Token>,
    /// Largest upload, bytes.
    pub most_upload: u64,
    /// Connections at a time; more wait.
    pub most_connections: usize,
    /// Print a line a request.
    pub log: bool,
}

/// What a request needs.
struct Shared {
    index: Index,
    cache: cache::Cache,
    options: Options,
}

/// How long a client may take to send its request's head, and may let a transfer stand still.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Most lines of a request's head.
const MOST_HEADERS: usize = 64;

/// Serves until the process is told to stop. `ready` is called with the address once it listens.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(index: Index, options: Options, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    platform::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::world("serve", format!("no threads for a server: {e}")))?;
    runtime.block_on(run(index, options, ready))
}

async fn run(index: Index, options: Options, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let address = options.address;
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
    let places = Arc::new(tokio::sync::Semaphore::new(options.most_connections));
    let shared = Arc::new(Shared { index, cache: cache::Cache::default(), options });
    let app = router(Arc::clone(&shared));
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MOST_HEADERS)
        .max_buf_size(64 << 10);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(IDLE_TIMEOUT);
    let builder = Arc::new(builder);
    let mut stop = tokio::time::interval(Duration::from_millis(100));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.tick() => {
                if platform::cancelled() {
                    return Ok(());
                }
                continue;
            }
        };
        // A client that is gone, or no file descriptor left: neither ends the server.
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (app, builder, places) = (app.clone(), Arc::clone(&builder), Arc::clone(&places));
        tokio::spawn(async move {
            let Ok(_place) = places.acquire_owned().await else { return };
            let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(peer);
                app.clone().oneshot(request.map(Body::new))
            });
            // What a client does wrong is its own affair.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(start).post(upload::receive))
        .route("/legacy/", post(upload::receive))
        .route("/simple/", get(root_page))
        .route("/simple", get(|| async { moved("/simple/") }))
        .route("/simple/{project}/", get(project_page))
        .route("/simple/{project}", get(|UrlPath(p): UrlPath<String>| async move { to_project(&p) }))
        .route("/files/{project}/{name}", get(file))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        // Uploads have a limit of their own.
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::check))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), log))
        .layer(tower_http::timeout::RequestBodyTimeoutLayer::new(IDLE_TIMEOUT))
        .layer(tower_http::timeout::ResponseBodyTimeoutLayer::new(IDLE_TIMEOUT))
        .with_state(shared)
}

/// One line a request, in the common log format, with milliseconds at the end.
async fn log(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if !shared.options.log {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<SocketAddr>().map_or("-".to_owned(), |p| p.ip().to_string());
    // The query may hold what is nobody's business.
    let line = format!("{} {} {:?}", request.method(), request.uri().path().escape_default(), request.version());
    let started = Instant::now();
    let response = next.run(request).await;
    let size = response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).unwrap_or("-");
    let ms = started.elapsed().as_millis();
    #[allow(clippy::print_stderr)] // the access log is what this program is asked to print
    {
        eprintln!("{peer} - - [{}] \"{line}\" {} {size} {ms}ms", index::now(), response.status().as_u16());
    }
    response
}

fn moved(to: &str) -> Response {
    match HeaderValue::from_str(to) {
        Ok(to) => (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, to)]).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

fn to_project(segment: &str) -> Response {
    match index::project_name(segment) {
        Some(name) => moved(&format!("/simple/{name}/")),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn start(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).filter(|h| guard::is_host(h)).map(str::to_owned);
    page(&shared, "index.html", "text/html; charset=utf-8", &headers, host.map(|h| format!("http://{h}")))
}

async fn root_page(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    simple(&shared, "simple", &headers)
}

async fn project_page(
    State(shared): State<Arc<Shared>>,
    UrlPath(segment): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    match index::project_name(&segment) {
        Some(name) if name == segment => simple(&shared, &format!("simple/{name}"), &headers),
        Some(name) => moved(&format!("/simple/{name}/")),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A page of the simple API in the form that the client wants most.
fn simple(shared: &Shared, folder: &str, headers: &HeaderMap) -> Response {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let Some(form) = Form::wanted(&accept.join(",")) else {
        let text = format!("this index speaks {}, {} and text/html\n", Form::JSON, Form::HTML);
        return (StatusCode::NOT_ACCEPTABLE, text).into_response();
    };
    page(shared, &format!("{folder}/{}", form.file()), form.content_type(), headers, None)
}

/// A page from the cache: conditional, gzipped for whoever takes that. `here` stands in for the address
/// of the index on the start page.
fn page(shared: &Shared, name: &str, kind: &'static str, headers: &HeaderMap, here: Option<String>) -> Response {
    let Some(page) = shared.cache.get(&shared.index.root().join(name)) else {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    };
    let mut response = if let Some(here) = here {
        let text = String::from_utf8_lossy(&page.plain).replacen("URL-OF-THIS-INDEX", &here, 1);
        text.into_response()
    } else {
        let etag = HeaderValue::from_str(&page.etag).unwrap_or(HeaderValue::from_static("\"\""));
        if matches(headers, &page.etag) {
            return (
                StatusCode::NOT_MODIFIED,
                [(header::ETAG, etag), (header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"))],
            )
                .into_response();
        }
        let gzip = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(accept::takes_gzip);
        let mut response = if gzip {
            let mut r = page.gzip.clone().into_response();
            r.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            r
        } else {
            page.plain.clone().into_response()
        };
        response.headers_mut().insert(header::ETAG, etag);
        response
    };
    // The layers above hide the length from whoever sends the body.
    let length = response.body().size_hint().exact();
    let out = response.headers_mut();
    if let Some(length) = length {
        out.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    out.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    // An index changes: who asks again is told at once, and by 304 where nothing did.
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Whether `If-None-Match` names this page.
fn matches(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|list| list.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == etag || t == "*"))
}

/// A published file: by range, conditional.
async fn file(
    State(shared): State<Arc<Shared>>,
    UrlPath((project, name)): UrlPath<(String, String)>,
    headers: HeaderMap,
    method: Method,
    request: Request,
) -> Response {
    let missing = || (StatusCode::NOT_FOUND, "not found\n").into_response();
    let plain = |s: &str| {
        !s.is_empty() && !s.starts_with('.') && s.chars().all(|c| c.is_ascii_alphanumeric() || "._-+!".contains(c))
    };
    if index::project_name(&project).as_deref() != Some(&project) || !plain(&name) {
        return missing();
    }
    // Only what a page names is published: a file in the folder alone is an add that was killed.
    let Some(digest) = shared.cache.digest(&shared.index, &project, &name) else { return missing() };
    let etag = format!("\"{digest}\"");
    let tag = HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""));
    if matches(&headers, &etag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let path: PathBuf = shared.index.files(&project).join(&name);
    let mut inner = Request::builder().method(method).uri(request.uri().clone());
    let range_holds = headers.get(header::IF_RANGE).is_none_or(|v| v.as_bytes() == etag.as_bytes());
    for name in [header::RANGE, header::IF_MODIFIED_SINCE] {
        if let Some(value) = headers.get(&name).filter(|_| name != header::RANGE || range_holds) {
            inner = inner.header(name, value);
        }
    }
    let Ok(inner) = inner.body(Body::empty()) else { return missing() };
    let kind = content_type(&name);
    let served = match kind.parse() {
        Ok(mime) => ServeFile::new_with_mime(path, &mime).oneshot(inner).await,
        Err(_) => ServeFile::new(path).oneshot(inner).await,
    };
    let Ok(response) = served;
    let mut response = response.map(Body::new);
    let out = response.headers_mut();
    out.insert(header::ETAG, tag);
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A report is a page of styles and drawings: it has no business with scripts or other hosts.
    out.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"),
    );
    response
}

fn content_type(name: &str) -> &'static str {
    if name.ends_with(".json") {
        "application/json"
    } else if name.ends_with(".metadata") {
        "text/plain"
    } else if name.ends_with(wheel::REPORT) {
        "text/html; charset=utf-8"
    } else {
        "application/octet-stream"
    }
}
