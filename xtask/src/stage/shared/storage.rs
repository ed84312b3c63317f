//! Where entries of a shared cache are: a folder, a server that takes files by HTTP (WebDAV, nginx), a bucket of an
//! S3-compatible store, a Redis. Entries stand where ccache puts them itself: in two folders' worth of names for files,
//! under `ccache:` in a Redis.

use std::io::{self, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use ureq::http::Response;
use ureq::{Agent, Body};
use url::Url;
use zeroize::Zeroizing;

use super::bucket::{Aws, Bucket, GOOD_FOR, Verb};
use super::resp::{self, Reply};
use crate::error::{Error, Result};
use crate::platform;
use crate::source::{http_agent_within, minutes_apart, server_clock};
use crate::stage::farm::{in_clear_text, is_own_host};
use crate::store::write_atomically;

/// Until a server must have taken a connection; and until it must have answered.
const PATIENCE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(20)];
/// Bytes of one entry.
const MOST_ENTRY: u64 = 512 << 20;
/// The port of a Redis that names none.
const REDIS_PORT: u16 = 6379;

/// Who asks, from the environment: `TORCHMILL_CACHE_USERNAME` and `TORCHMILL_CACHE_PASSWORD`, or
/// `TORCHMILL_CACHE_TOKEN`; or from files. Read before the environment is scrubbed, wiped with its last use, never shown.
#[derive(Clone, Default)]
pub struct Credentials {
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    token: Option<Zeroizing<String>>,
}

impl Credentials {
    /// What the environment has.
    pub fn of_environment() -> Self {
        Self {
            user: platform::secret_variable("TORCHMILL_CACHE_USERNAME").map(|user| user.to_string()),
            password: platform::secret_variable("TORCHMILL_CACHE_PASSWORD"),
            token: platform::secret_variable("TORCHMILL_CACHE_TOKEN"),
        }
    }

    /// A user and what stands in files: a password, or a token in the place of both.
    pub fn of_files(
        user: Option<String>,
        password: Option<Zeroizing<String>>,
        token: Option<Zeroizing<String>>,
    ) -> Self {
        Self { user, password, token }
    }

    /// Whether there is a secret among them.
    pub fn is_some(&self) -> bool {
        self.password.is_some() || self.token.is_some()
    }

    /// The header of HTTP that says it.
    fn header(&self) -> Option<Zeroizing<String>> {
        if let Some(token) = &self.token {
            return Some(Zeroizing::new(format!("Bearer {}", **token)));
        }
        let password = self.password.as_ref()?;
        let pair = Zeroizing::new(format!("{}:{}", self.user.as_deref().unwrap_or_default(), **password));
        Some(Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()))))
    }
}

/// Where entries are.
pub enum Storage {
    /// Files in a folder, which may be that of another machine.
    Folder(PathBuf),
    /// Files of a server, or objects of a bucket.
    Http(Http),
    /// Values of a Redis.
    Redis(Redis),
}

/// What answers to HTTP.
pub struct Http {
    at: At,
    agent: Agent,
}

/// Where entries are on a server, and who asks.
enum At {
    /// A server that takes files.
    Files { base: Url, authorization: Option<Zeroizing<String>> },
    /// A bucket, whose addresses are signed.
    Bucket(Bucket),
}

/// A Redis.
pub struct Redis {
    host: String,
    port: u16,
    database: Option<u32>,
    credentials: Credentials,
    /// Until it must have answered.
    patience: Duration,
    idle: Mutex<Vec<BufReader<Timed>>>,
}

/// A connection on which a question and all of its answer have to be over in time: a server may send a byte now and
/// then for ever.
struct Timed {
    stream: TcpStream,
    patience: Duration,
    by: Instant,
}

impl Timed {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, patience, by: Instant::now() + patience }
    }

    /// The time for another question begins.
    fn begin(&mut self) {
        self.by = Instant::now() + self.patience;
    }

    /// The same connection a second time, with the same time left.
    fn again(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, ..*self })
    }

    fn late(&self) -> io::Error {
        let why = format!("it was not done within {} s", self.patience.as_secs_f32());
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.by.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.late()) } else { Ok(left) }
    }

    /// What a system says of a time that is over is nothing for people.
    fn told(&self, e: io::Error) -> io::Error {
        if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) { self.late() } else { e }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer).map_err(|e| self.told(e))
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buffer).map_err(|e| self.told(e))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The kinds of addresses that are known.
const KINDS: [&str; 5] = ["file", "http", "https", "s3", "redis"];

impl Storage {
    /// Whether `text` is the path of a folder: no address, nor what was meant for one (`https:/host`).
    pub fn is_folder(text: &str) -> bool {
        let kind = text.split_once(':').map_or("", |(kind, _)| kind);
        !text.contains("://") && !KINDS.contains(&kind)
    }

    /// What `text` names: the path of a folder, `file://`, `http://`, `https://`, `s3://BUCKET/FOLDER` or
    /// `redis://HOST[:PORT][/DATABASE]`. `aws` says where a bucket is, and who asks there if `credentials` do not.
    ///
    /// # Errors
    /// Misuse: it names none of these, or a password, which would stand in lists of processes and logs.
    pub fn parse(text: &str, credentials: Credentials, aws: Aws) -> Result<Self> {
        let bad = |what: &str| {
            Error::misuse("cache-url", format!("--cache {text}: {what}")).next(
                "name a folder, or http://HOST/PATH, https://HOST/PATH, s3://BUCKET/FOLDER, redis://HOST:PORT/DATABASE",
            )
        };
        if text.trim().is_empty() {
            return Err(bad("it names nothing"));
        }
        if Self::is_folder(text) {
            return Ok(Self::Folder(std::path::absolute(text)?));
        }
        let url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("a user or a password has no place in an address")
                .next("TORCHMILL_CACHE_USERNAME and TORCHMILL_CACHE_PASSWORD, or TORCHMILL_CACHE_TOKEN, name them"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("what follows '?' or '#' has no place in it"));
        }
        match url.scheme() {
            "file" => Ok(Self::Folder(url.to_file_path().map_err(|()| bad("it is no path of this machine"))?)),
            "http" | "https" => {
                if credentials.token.as_ref().is_some_and(|token| !token.chars().all(|c| c.is_ascii_graphic())) {
                    let what = "the token of the cache has characters that no header can carry";
                    return Err(Error::misuse("cache-token", what).next(
                        "TORCHMILL_CACHE_TOKEN, or the file token-file in [cache] of the settings, is one word",
                    ));
                }
                let mut base = url;
                // Without it, the last part would be taken for a file beside which entries stand.
                if !base.path().ends_with('/') {
                    base.set_path(&format!("{}/", base.path()));
                }
                Ok(Self::Http(Http::new(At::Files { base, authorization: credentials.header() })))
            }
            "s3" => {
                let Credentials { user, password, token } = credentials;
                let aws = match (password, token) {
                    (Some(password), session) => Aws { id: user, secret: Some(password), session, ..aws },
                    // A token without a password belongs to the pair that the environment has.
                    (None, Some(session)) => Aws { session: Some(session), ..aws },
                    (None, None) => aws,
                };
                Ok(Self::Http(Http::new(At::Bucket(Bucket::parse(&url, aws)?))))
            }
            "redis" => {
                let path = url.path().trim_matches('/');
                let database = match path {
                    "" => None,
                    number => Some(number.parse().map_err(|_| bad("a Redis has its databases by number"))?),
                };
                Ok(Self::Redis(Redis {
                    // An IPv6 address without the brackets that it has in a URL.
                    host: url.host_str().ok_or_else(|| bad("it names no host"))?.trim_matches(['[', ']']).to_owned(),
                    port: url.port().unwrap_or(REDIS_PORT),
                    database,
                    credentials,
                    patience: PATIENCE[1],
                    idle: Mutex::default(),
                }))
            }
            other => Err(bad(&format!("'{other}' is no kind of cache that is known here"))),
        }
    }

    /// For people.
    pub fn shown(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Http(Http { at: At::Files { base, .. }, .. }) => base.to_string(),
            Self::Http(Http { at: At::Bucket(bucket), .. }) => bucket.shown(),
            Self::Redis(redis) => {
                let database = redis.database.map_or(String::new(), |n| format!("/{n}"));
                let host = if redis.host.contains(':') { format!("[{}]", redis.host) } else { redis.host.clone() };
                format!("redis://{host}:{}{database}", redis.port)
            }
        }
    }

    /// What the network between sees of it, where that is more than it should: passwords and tokens without TLS, past this
    /// machine's own networks.
    pub fn exposes(&self) -> Option<String> {
        let (host, has_secret) = match self {
            Self::Http(Http { at: At::Files { base, authorization }, .. }) if base.scheme() == "http" => {
                (base.host_str().unwrap_or_default(), authorization.is_some())
            }
            Self::Redis(redis) => (redis.host.as_str(), redis.credentials.is_some()),
            _ => return None,
        };
        (has_secret && !is_own_host(host)).then(|| in_clear_text(&self.shown()))
    }

    /// Whether it is there at all.
    ///
    /// # Errors
    /// It is not, or what is there is no cache.
    pub fn look(&self) -> io::Result<()> {
        match self {
            Self::Folder(path) => {
                let path = path.clone();
                let is_there = within(move || Ok(path.is_dir()))?;
                is_there.then_some(()).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such folder"))
            }
            // Of an object that is not there a store says the same as of a bucket that is not there.
            Self::Http(server @ Http { at: At::Bucket(bucket), agent }) => {
                let response = agent.head(bucket.itself().as_str()).call().map_err(io::Error::other)?;
                match response.status().as_u16() {
                    200..=299 => Ok(()),
                    404 => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such bucket")),
                    _ => Err(server.answered(&response)),
                }
            }
            // What nobody put there: a page for whatever is asked for is no cache.
            _ if self.has("0000000000000000000000000000000")? => {
                Err(io::Error::other("it says that it has what nobody put there: it is no cache"))
            }
            _ => Ok(()),
        }
    }

    /// The entry called `key`.
    ///
    /// # Errors
    /// The storage is away, slow, or says something else than yes or no.
    pub fn get(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(place(key));
                within(move || match platform::read_regular(&path, MOST_ENTRY) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(e),
                })
            }
            Self::Http(server) => {
                let request = server.with(server.agent.get(server.url(Verb::Get, key)?.as_str()));
                let mut response = request.call().map_err(io::Error::other)?;
                match response.status().as_u16() {
                    200 => {
                        let body = response.body_mut().with_config().limit(MOST_ENTRY).read_to_vec();
                        body.map(Some).map_err(io::Error::other)
                    }
                    404 | 410 => Ok(None),
                    _ => Err(server.answered(&response)),
                }
            }
            Self::Redis(redis) => match redis.ask(&[b"GET", &redis_key(key)])? {
                Reply::Value(value) => Ok(Some(value)),
                Reply::Nil => Ok(None),
                other => Err(odd(&other)),
            },
        }
    }

    /// Keeps an entry.
    ///
    /// # Errors
    /// As [`Storage::get`]; the storage is full or read-only.
    pub fn put(&self, key: &str, value: &[u8]) -> io::Result<()> {
        match self {
            Self::Folder(folder) => {
                let (folder, path, value) = (folder.clone(), folder.join(place(key)), value.to_vec());
                within(move || {
                    open_like(&folder, path.parent().unwrap_or(&folder));
                    write_atomically(&path, &value).map_err(io::Error::other)
                })
            }
            Self::Http(server) => {
                let request = server.with(server.agent.put(server.url(Verb::Put, key)?.as_str()));
                let response = request.send(value).map_err(io::Error::other)?;
                match response.status().as_u16() {
                    200..=299 => Ok(()),
                    _ => Err(server.answered(&response)),
                }
            }
            Self::Redis(redis) => match redis.ask(&[b"SET", &redis_key(key), value])? {
                Reply::Ok => Ok(()),
                other => Err(odd(&other)),
            },
        }
    }

    /// Whether there is an entry called `key`.
    ///
    /// # Errors
    /// As [`Storage::get`].
    pub fn has(&self, key: &str) -> io::Result<bool> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(place(key));
                within(move || Ok(path.is_file()))
            }
            Self::Http(server) => {
                let request = server.with(server.agent.head(server.url(Verb::Head, key)?.as_str()));
                let response = request.call().map_err(io::Error::other)?;
                match response.status().as_u16() {
                    200..=299 => Ok(true),
                    404 | 410 => Ok(false),
                    _ => Err(server.answered(&response)),
                }
            }
            Self::Redis(redis) => match redis.ask(&[b"EXISTS", &redis_key(key)])? {
                Reply::Number(n) => Ok(n > 0),
                other => Err(odd(&other)),
            },
        }
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// As [`Storage::put`].
    pub fn remove(&self, key: &str) -> io::Result<()> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(place(key));
                within(move || match std::fs::remove_file(path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                    _ => Ok(()),
                })
            }
            Self::Http(server) => {
                let request = server.with(server.agent.delete(server.url(Verb::Delete, key)?.as_str()));
                let response = request.call().map_err(io::Error::other)?;
                match response.status().as_u16() {
                    200..=299 | 404 | 410 => Ok(()),
                    _ => Err(server.answered(&response)),
                }
            }
            Self::Redis(redis) => redis.ask(&[b"DEL", &redis_key(key)]).map(|_| ()),
        }
    }
}

/// What `work` on a folder gives, if it is done in time: a network drive whose server is away answers never.
fn within<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (send, receive) = std::sync::mpsc::channel();
    // Who waits for a drive for ever is this thread alone.
    std::thread::spawn(move || send.send(work()));
    receive.recv_timeout(PATIENCE[1]).unwrap_or_else(|_| {
        let why = format!("the folder does not answer within {} s", PATIENCE[1].as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

/// Makes the folder `inner` of the cache `folder`, if it is not there, for all who may write to the cache: by what this
/// user's umask leaves, it would be for this user alone.
fn open_like(folder: &Path, inner: &Path) {
    if std::fs::create_dir(inner).is_ok() {
        // A drive that knows no modes is as it is.
        let _ = std::fs::metadata(folder).and_then(|about| std::fs::set_permissions(inner, about.permissions()));
    }
}

/// Whether ccache may call an entry so: it becomes a part of paths.
pub fn is_key(key: &str) -> bool {
    (20..=128).contains(&key.len()) && key.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Path of an entry, as ccache lays them out.
fn place(key: &str) -> String {
    let (folder, rest) = key.split_at(2);
    format!("{folder}/{rest}")
}

fn redis_key(key: &str) -> Vec<u8> {
    format!("ccache:{key}").into_bytes()
}

fn odd(reply: &Reply) -> io::Error {
    io::Error::other(match reply {
        Reply::Error(what) => format!("it answered: {what}"),
        _ => "it answered what nobody asked for".into(),
    })
}

impl Http {
    fn new(at: At) -> Self {
        Self { at, agent: http_agent_within(PATIENCE[0], PATIENCE[1]) }
    }

    /// What an answer means that is neither yes nor no.
    fn answered(&self, response: &Response<Body>) -> io::Error {
        let status = response.status().as_u16();
        let is_bucket = matches!(self.at, At::Bucket(_));
        // By its clock, an address is too old by then, and so is refused as one that was signed with another key.
        let too_old = || {
            let behind = server_clock(response)?.duration_since(SystemTime::now()).ok()?;
            (is_bucket && behind >= GOOD_FOR).then_some(behind.as_secs() / 60)
        };
        // S3 says so of a session that is over, too.
        let is_refusal = matches!(status, 401 | 403) || status == 400 && is_bucket;
        let apart = is_refusal.then(|| too_old().or_else(|| minutes_apart(response))).flatten();
        io::Error::other(match (status, apart) {
            (_, Some(minutes)) => format!(
                "it answered {status}, and its clock and this machine's are {minutes} minutes apart: set the one that is wrong"
            ),
            (400, None) if is_bucket => {
                "it answered 400: AWS_REGION is not its region, or the session of AWS_SESSION_TOKEN is over".into()
            }
            (401, None) => "it answered 401: user, password or token are not those that it takes".into(),
            (403, None) => {
                "it answered 403: user, password or token are not those that it takes, or may not do this".into()
            }
            (300..=399, None) => {
                format!("it answered {status}: it is elsewhere (a bucket: AWS_REGION names its region)")
            }
            (405 | 501, None) => format!("it answered {status}: it takes no files"),
            (413, None) => "it answered 413: it takes no file of this size (nginx: client_max_body_size)".into(),
            (507, None) => "it answered 507: it is full".into(),
            (_, None) => format!("it answered {status}"),
        })
    }

    fn url(&self, verb: Verb, key: &str) -> io::Result<Url> {
        match &self.at {
            At::Files { base, .. } => base.join(&place(key)).map_err(io::Error::other),
            At::Bucket(bucket) => Ok(bucket.entry(verb, &place(key))),
        }
    }

    fn with<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.at {
            At::Files { authorization: Some(value), .. } => request.header("Authorization", value.as_str()),
            _ => request,
        }
    }
}

impl Redis {
    fn connect(&self) -> io::Result<BufReader<Timed>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its host has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE[0]) {
                Ok(stream) => return self.introduced(Timed::new(stream, self.patience)),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn introduced(&self, stream: Timed) -> io::Result<BufReader<Timed>> {
        let mut reader = BufReader::new(stream);
        let mut say = |words: &[&[u8]]| {
            let mut writer = reader.get_ref().again()?;
            match resp::ask(&mut writer, &mut reader, words)? {
                Reply::Ok => Ok(()),
                other => Err(odd(&other)),
            }
        };
        if let Some(password) = self.credentials.password.as_ref().or(self.credentials.token.as_ref()) {
            match &self.credentials.user {
                Some(user) => say(&[b"AUTH", user.as_bytes(), password.as_bytes()])?,
                None => say(&[b"AUTH", password.as_bytes()])?,
            }
        }
        if let Some(database) = self.database {
            say(&[b"SELECT", database.to_string().as_bytes()])?;
        }
        Ok(reader)
    }

    fn ask(&self, words: &[&[u8]]) -> io::Result<Reply> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // A server may have closed what was idle.
        match idle.map(|reader| self.ask_on(reader, words)) {
            Some(Ok(reply)) => Ok(reply),
            _ => self.ask_on(self.connect()?, words),
        }
    }

    fn ask_on(&self, mut reader: BufReader<Timed>, words: &[&[u8]]) -> io::Result<Reply> {
        reader.get_mut().begin();
        let mut writer = reader.get_ref().again()?;
        let reply = resp::ask(&mut writer, &mut reader, words)?;
        // What was not read to its end is not used again: `?` above has dropped it.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String> {
        Storage::parse(text, Credentials::default(), Aws::default()).map(|storage| storage.shown())
    }

    #[test]
    fn a_cache_is_a_folder_or_an_address_and_a_password_is_no_part_of_either() {
        let folder = std::path::absolute("/mnt/cache").unwrap().display().to_string();
        assert_eq!(parse("/mnt/cache").unwrap(), folder);
        let address = Url::from_file_path(&folder).unwrap();
        assert_eq!(parse(address.as_str()).unwrap(), folder);
        assert_eq!(parse("https://h.example/a").unwrap(), "https://h.example/a/");
        assert_eq!(parse("redis://h.example/2").unwrap(), "redis://h.example:6379/2");
        assert_eq!(parse("redis://[::1]:7").unwrap(), "redis://[::1]:7");
        for (bad, says) in [
            ("ftp://h", "'ftp' is no kind of cache"),
            ("redis://h/x", "by number"),
            ("https://h/?a=b", "'?'"),
            ("https://u:s3cret@h/", "no place in an address"),
            ("https:/u:s3cret@h/", "no place in an address"),
            ("redis:", "it names no host"),
            (" ", "it names nothing"),
        ] {
            let e = parse(bad).unwrap_err();
            assert!(e.what().contains(says) && !format!("{e:?}").contains("s3cret"), "{e}");
        }
    }

    #[test]
    fn a_password_in_clear_text_past_the_own_networks_is_told() {
        let exposes = |text: &str, token: Option<&str>| {
            let token = token.map(|t| Zeroizing::new(t.to_owned()));
            Storage::parse(text, Credentials::of_files(None, None, token), Aws::default()).unwrap().exposes()
        };
        for far in ["http://h.example/a", "redis://h.example/2", "http://8.8.8.8/", "redis://[2001:db8::1]:7"] {
            let said = exposes(far, Some("s3cret")).unwrap();
            assert!(said.contains("in clear text") && !said.contains("s3cret"), "{said}");
            assert_eq!(said.contains("use https"), far.starts_with("http:"), "{said}");
            assert_eq!(exposes(far, None), None);
        }
        for fine in ["https://h.example/a", "http://10.1.2.3/a", "redis://localhost", "redis://[::1]:7", "/mnt/cache"] {
            assert_eq!(exposes(fine, Some("s3cret")), None, "{fine}");
        }
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_told_before_it_is_sent() {
        let with = |url: &str, token: &str| {
            let token = Some(Zeroizing::new(token.to_owned()));
            Storage::parse(url, Credentials::of_files(None, None, token), Aws::default()).map(|s| s.shown())
        };
        for token in ["s3cret more", "s3cret\nX-More: 1", "s3crét"] {
            let e = with("https://h.example/", token).unwrap_err();
            assert!(e.what().contains("no header can carry") && !format!("{e:?}").contains("s3cr"), "{e}");
        }
        with("https://h.example/", "s3cret~+/=").unwrap();
        // A Redis is told of it in its own way.
        with("redis://h.example", "s3cret more").unwrap();
    }

    #[test]
    fn a_redis_that_says_a_little_now_and_then_is_not_waited_for() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            // Until nobody listens: a value of a hundred bytes, of which it gives twenty in a second.
            let _ = stream.write_all(b"$100\r\n");
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let redis = Redis {
            host: "127.0.0.1".into(),
            port,
            database: None,
            credentials: Credentials::default(),
            patience: Duration::from_millis(400),
            idle: Mutex::default(),
        };
        let began = Instant::now();
        let e = Storage::Redis(redis).get("0b70bc6vgqa19hcncjsocluhakb5ajmi8").unwrap_err();
        assert_eq!(e.to_string(), "it was not done within 0.4 s");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }

    #[cfg(unix)]
    #[test]
    fn who_may_write_to_a_folder_may_write_to_those_that_others_make_in_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        // What no umask that people have leaves.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
        Storage::Folder(dir.path().to_owned()).put("0b70bc6vgqa19hcncjsocluhakb5ajmi8", b"entry").unwrap();
        let mode = std::fs::metadata(dir.path().join("0b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o770, "{mode:o}");
    }

    /// What `look` says of a server that answers `head` to the first request, and that request.
    fn looked(head: &str) -> (String, String) {
        asked(head, |address| {
            Storage::parse(&format!("http://{address}/"), Credentials::default(), Aws::default()).unwrap()
        })
    }

    /// The same of a server that is the endpoint of a bucket.
    fn looked_at_bucket(head: &str) -> String {
        let of = |address: &str| {
            let aws = Aws { endpoint: Some(format!("http://{address}")), ..Aws::default() };
            Storage::parse("s3://team/torch", Credentials::default(), aws).unwrap()
        };
        asked(head, of).0
    }

    fn asked(head: &str, storage: impl FnOnce(&str) -> Storage) -> (String, String) {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let head = head.to_owned();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            write!(stream, "HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let e = storage(&address.to_string()).look().unwrap_err();
        (e.to_string(), answering.join().unwrap())
    }

    #[test]
    fn a_page_for_whatever_is_asked_for_is_no_cache() {
        let (said, asked) = looked("200 OK");
        assert!(said.contains("it is no cache") && asked.starts_with("HEAD "), "{said} {asked}");
    }

    #[test]
    fn who_is_refused_because_of_a_clock_is_told_of_the_clock() {
        let (said, _) = looked("403 Forbidden\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT");
        assert!(said.contains("its clock and this machine's are ") && said.contains("minutes apart"), "{said}");
        let now = httpdate::fmt_http_date(SystemTime::now());
        let (said, _) = looked(&format!("403 Forbidden\r\nDate: {now}"));
        assert!(said.contains("are not those that it takes"), "{said}");
    }

    #[test]
    fn a_bucket_by_whose_clock_a_signed_address_is_too_old_is_told_of_the_clock() {
        let date = |seconds: u64| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
        let said = looked_at_bucket(&format!("403 Forbidden\r\nDate: {}", date(235)));
        assert!(said.contains("this machine's are 3 minutes apart"), "{said}");
        // What is good for two minutes was good.
        let said = looked_at_bucket(&format!("403 Forbidden\r\nDate: {}", date(30)));
        assert!(said.contains("are not those that it takes"), "{said}");
        // Who is asked with a password and not with an address that is good for a time has no use for that.
        let (said, _) = looked(&format!("403 Forbidden\r\nDate: {}", date(190)));
        assert!(said.contains("are not those that it takes"), "{said}");
    }

    #[test]
    fn a_session_that_is_over_and_another_region_are_told_and_so_is_who_sends_elsewhere() {
        let said = looked_at_bucket("400 Bad Request");
        assert!(said.contains("AWS_REGION") && said.contains("AWS_SESSION_TOKEN is over"), "{said}");
        let (said, _) = looked("400 Bad Request");
        assert_eq!(said, "it answered 400");
        let (said, _) = looked("303 See Other\r\nLocation: /login");
        assert!(said.contains("it is elsewhere"), "{said}");
    }

    #[test]
    fn a_folder_keeps_entries_where_ccache_has_them_and_a_missing_one_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::Folder(dir.path().to_owned());
        let key = "0b70bc6vgqa19hcncjsocluhakb5ajmi8";
        assert_eq!(storage.get(key).unwrap(), None);
        storage.put(key, b"entry").unwrap();
        assert!(dir.path().join("0b/70bc6vgqa19hcncjsocluhakb5ajmi8").is_file());
        assert_eq!(storage.get(key).unwrap().as_deref(), Some(&b"entry"[..]));
        storage.remove(key).unwrap();
        assert!(!storage.has(key).unwrap());
        storage.look().unwrap();
        assert!(Storage::Folder(dir.path().join("none")).look().is_err());
        assert!(is_key(key) && !is_key("../../../../etc/passwd") && !is_key("short"));
    }
}
