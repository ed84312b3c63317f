//! HTTP downloads that resume, hash while streaming, and give up on a stalled server.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::config::Config;
use ureq::tls::{RootCerts, TlsConfig};

use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::{logging, platform};

/// A server that sends nothing for this long is given up on (and asked again).
const STALL: Duration = Duration::from_secs(30);

/// Builds the agent that everything here uses: the machine's certificates and proxies.
pub fn agent() -> Agent {
    agent_following(8)
}

/// The same for what is asked for beside a build, which cannot wait: a connection must stand within `connect`, and
/// everything be over within `whole`. No redirect is followed: what is told to one server is told to no other.
pub fn agent_within(connect: Duration, whole: Duration) -> Agent {
    platform::no_dumps(false);
    let config: Config = Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .user_agent(concat!("torchmill/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .timeout_connect(Some(connect))
        .timeout_global(Some(whole))
        .max_redirects(0)
        .middleware(tell)
        .build();
    config.new_agent()
}

/// How long a server may send nothing: [`STALL`], or `TORCHMILL_STALL_SECONDS`.
fn stall() -> Duration {
    std::env::var("TORCHMILL_STALL_SECONDS").ok().and_then(|s| s.parse().ok()).map_or(STALL, Duration::from_secs)
}

/// Bytes a second below which a server is given up on, as one that sends nothing: it may send a byte now and then for
/// ever.
const SLOWEST: u64 = 1024;

/// All of an answer, redirects before it included, comes within this time: a bound where no other holds.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A body that ends with an error once it was waited for for four times as long as it may bring nothing, and has brought
/// less than 1 KiB for each second of that.
struct Steady<R> {
    body: R,
    patience: Duration,
    waited: Duration,
    bytes: u64,
}

impl<R: Read> Read for Steady<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = Instant::now();
        let n = self.body.read(buffer)?;
        // What is done with the bytes between two reads is not the server's time.
        self.waited += asked.elapsed();
        self.bytes += n as u64;
        if n > 0 && self.waited >= self.patience {
            let seconds = self.waited.as_secs();
            if self.bytes < SLOWEST.saturating_mul(seconds) {
                let what = format!("the server sent {} bytes in {seconds} seconds", self.bytes);
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(n)
    }
}

/// A body of at most `limit` bytes, which ends with an error where the server sends too slowly.
pub fn body(response: ureq::http::Response<ureq::Body>, limit: u64) -> impl Read + Send + Sync + 'static {
    let body = response.into_body().into_with_config().limit(limit).reader();
    Steady { body, patience: stall().saturating_mul(4), waited: Duration::ZERO, bytes: 0 }
}

/// All of a body of at most `limit` bytes, as text.
///
/// # Errors
/// It is cut, longer, no UTF-8, or comes too slowly.
pub fn text(response: ureq::http::Response<ureq::Body>, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    body(response, limit).read_to_string(&mut text)?;
    Ok(text)
}

/// The same, following at most this many redirects; with none, the redirect itself is the answer.
pub fn agent_following(redirects: u32) -> Agent {
    // Addresses and proxies may hold a password: it ends up in no dump of memory.
    platform::no_dumps(false);
    let config: Config = Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .user_agent(concat!("torchmill/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(stall()))
        .timeout_recv_body(Some(LONGEST))
        .max_redirects(redirects)
        .middleware(tell)
        .build();
    config.new_agent()
}

/// Minutes between two clocks from which tokens, signatures and certificates fail for it.
const CLOCKS: Duration = Duration::from_secs(5 * 60);

/// What the clock of whoever answered said then (`Date`, RFC 9110).
pub fn server_clock<B>(response: &ureq::http::Response<B>) -> Option<std::time::SystemTime> {
    let date = response.headers().get("Date")?.to_str().ok()?;
    httpdate::parse_http_date(date).ok()
}

/// Minutes between the clock of whoever answered and this machine's, where those are so many that what is good for a
/// time may be taken for too old or too young.
pub fn minutes_apart<B>(response: &ureq::http::Response<B>) -> Option<u64> {
    let date = server_clock(response)?;
    let now = std::time::SystemTime::now();
    let apart = now.duration_since(date).unwrap_or_else(|e| e.duration());
    (apart >= CLOCKS).then_some(apart.as_secs() / 60)
}

/// Tells the log of a request and its answer.
fn tell(
    request: ureq::http::Request<ureq::SendBody<'_>>,
    next: ureq::middleware::MiddlewareNext<'_>,
) -> std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let asked = tracing::enabled!(target: "http", tracing::Level::INFO).then(|| {
        let part = request.headers().get("range").and_then(|v| v.to_str().ok()).unwrap_or_default();
        format!("{} {} {part}", request.method(), logging::redact(&request.uri().to_string()))
    });
    let started = Instant::now();
    let answer = next.handle(request);
    if let Some(asked) = asked {
        let seconds = started.elapsed().as_secs_f64();
        match &answer {
            Ok(response) => {
                tracing::info!(target: "http", seconds, "{}: {}", asked.trim_end(), response.status());
            }
            Err(e) => {
                tracing::info!(target: "http", seconds, "{}: {}", asked.trim_end(), logging::redact(&e.to_string()));
            }
        }
    }
    answer
}

/// A request for `url`. What was asked for by https does not come by http, whatever a server redirects to.
pub fn get(agent: &Agent, url: &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
    let https = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    agent.get(url).config().https_only(https).build()
}

/// Why a download did not work, and whether asking again may help.
#[derive(Debug)]
pub enum Failure {
    /// The server said no: asking again will not help.
    Refused(String),
    /// Cut, stalled, 5xx: asking again may help.
    Passing(String),
    /// Our own disk failed.
    Local(Error),
}

/// Where a download stands: what is already on disk, hashed.
pub struct Progress {
    file: fs_err::File,
    hash: Sha256,
    /// Bytes on disk, from where a request goes on (`Range`, RFC 9110).
    pub size: u64,
}

impl Progress {
    /// Opens (or goes on with) the part file at `path`.
    ///
    /// # Errors
    /// The world: it cannot be read or made.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = fs_err::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0u8; 1 << 18];
        let mut size = 0;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            size += n as u64;
        }
        Ok(Self { file, hash, size })
    }

    /// Begins again from nothing.
    ///
    /// # Errors
    /// The world: it cannot be written.
    pub fn restart(&mut self) -> Result<()> {
        use std::io::Seek;
        self.file.set_len(0)?;
        self.file.seek(io::SeekFrom::Start(0))?;
        self.hash = Sha256::new();
        self.size = 0;
        Ok(())
    }

    /// Appends bytes, and takes them into the digest.
    ///
    /// # Errors
    /// The world: the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// The digest of all that is there.
    pub fn digest(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }
}

/// Downloads `url` into `progress`, going on where it stands. `expected` is the size in bytes if it
/// is known. Returns when the server says that it sent everything.
///
/// # Errors
/// [`Failure::Passing`] where another try may help, [`Failure::Refused`] where none will, [`Failure::Local`] where it
/// is this machine.
pub fn download(
    agent: &Agent,
    url: &str,
    progress: &mut Progress,
    expected: Option<u64>,
    file: &str,
    events: &dyn Sink,
) -> std::result::Result<(), Failure> {
    if expected.is_some_and(|size| size == progress.size) {
        return Ok(());
    }
    let mut request = get(agent, url).header("Accept-Encoding", "identity");
    if progress.size > 0 {
        request = request.header("Range", format!("bytes={}-", progress.size));
    }
    let response = request.call().map_err(|e| {
        let asked = logging::redact(url);
        match e {
            ureq::Error::BadUri(_) => Failure::Refused(format!("{asked}: {e}")),
            ureq::Error::TooManyRedirects => Failure::Refused(format!("the redirects from {asked} never end: {e}")),
            ureq::Error::RequireHttpsOnly(_) => {
                Failure::Refused(format!("{asked} leads from https to plain http: {e}"))
            }
            e => Failure::Passing(e.to_string()),
        }
    })?;
    let status = response.status().as_u16();
    match status {
        206 if starts_at(&response, progress.size) => {}
        // The server ignores ranges, or means another file: from the beginning.
        200 | 206 => progress.restart().map_err(Failure::Local)?,
        416 => {
            progress.restart().map_err(Failure::Local)?;
            return Err(Failure::Passing("the server has no such range (HTTP 416); starting over".into()));
        }
        408 | 425 | 429 | 500..=599 => return Err(Failure::Passing(format!("HTTP {status}"))),
        _ => return Err(Failure::Refused(format!("HTTP {status}"))),
    }
    if status == 206 && progress.size == 0 {
        return Err(Failure::Passing("the server answered with a part that was not asked for".into()));
    }
    let announced = response
        .headers()
        .get("content-length")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok())
        // It may be any number.
        .map(|n| n.saturating_add(progress.size));
    if let (Some(expected), Some(announced)) = (expected, announced)
        && announced > expected
    {
        return Err(Failure::Refused(format!("the server announces {announced} bytes where the lock says {expected}")));
    }
    events.emit(Event::DownloadStarted { file: file.to_owned(), size: expected.or(announced) });
    let mut body = body(response, u64::MAX);
    let mut buffer = vec![0u8; 1 << 17];
    loop {
        if platform::cancelled() {
            return Err(Failure::Local(Error::cancelled()));
        }
        let n =
            body.read(&mut buffer).map_err(|e| Failure::Passing(format!("cut after {} bytes: {e}", progress.size)))?;
        if n == 0 {
            break;
        }
        // Where nobody says how long it is, an end all the same: before the disk's.
        if expected.is_none() && progress.size + n as u64 > MOST {
            return Err(Failure::Refused(format!("it is longer than {MOST} bytes, which no wheel is")));
        }
        if expected.is_some_and(|size| progress.size + n as u64 > size) {
            return Err(Failure::Refused(format!(
                "the server sends more than the {} bytes that the lock says",
                expected.unwrap_or(0)
            )));
        }
        progress.write(&buffer[..n]).map_err(Failure::Local)?;
        events.emit(Event::DownloadProgress { file: file.to_owned(), bytes: progress.size });
    }
    match expected.or(announced) {
        Some(size) if progress.size < size => {
            Err(Failure::Passing(format!("cut after {} of {size} bytes", progress.size)))
        }
        _ => Ok(()),
    }
}

/// Longest file that is downloaded where only its digest is known, in bytes.
const MOST: u64 = 16 << 30;

/// Downloads `url`, whose SHA-256 is known, to a file at `to`.
///
/// # Errors
/// The world: no answer, or other bytes.
pub fn download_to(agent: &Agent, url: &str, to: &Path, sha256: &str, events: &dyn Sink) -> Result<()> {
    const ATTEMPTS: u32 = 4;
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut progress = Progress::open(to)?;
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            events.warn(format!("{name}: {last}; trying again"));
            std::thread::sleep(Duration::from_millis(300 << attempt));
        }
        let done = download(agent, url, &mut progress, None, &name, events);
        events.emit(Event::DownloadFinished { file: name.clone() });
        match done {
            Ok(()) if progress.digest() == sha256 => return Ok(()),
            Ok(()) => {
                let found = progress.digest();
                return Err(Error::world("digest", format!("{name} has the SHA-256 {found}; {sha256} was promised"))
                    .next("the server sends other bytes than it promises: do not use them, and tell its operator"));
            }
            Err(Failure::Local(e)) => return Err(e),
            Err(Failure::Refused(what)) => return Err(Error::world("download", format!("{name}: {what}"))),
            Err(Failure::Passing(what)) => last = what,
        }
    }
    Err(Error::world("download", format!("{name}: {last}")).next("check the network, and try again"))
}

fn starts_at(response: &ureq::http::Response<ureq::Body>, offset: u64) -> bool {
    response
        .headers()
        .get("content-range")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.trim().strip_prefix("bytes "))
        .and_then(|v| v.split('-').next())
        .and_then(|v| v.parse::<u64>().ok())
        == Some(offset)
}
