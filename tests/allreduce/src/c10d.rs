//! c10d through the shim: the one place with `unsafe` calls into C++.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use tch::Tensor;

use crate::failure::{Failure, Result};

unsafe extern "C" {
    fn c10d_error() -> *const c_char;
    fn c10d_has_gloo() -> c_int;
    fn c10d_has_nccl() -> c_int;
    fn c10d_store(
        host: *const c_char,
        port: u16,
        world: i64,
        server: c_int,
        libuv: c_int,
        timeout_ms: i64,
    ) -> *mut c_void;
    fn c10d_store_free(store: *mut c_void);
    fn c10d_store_port(store: *mut c_void) -> u16;
    fn c10d_store_is_libuv(store: *mut c_void) -> c_int;
    fn c10d_store_set(store: *mut c_void, key: *const c_char, data: *const u8, len: usize) -> c_int;
    fn c10d_store_get(store: *mut c_void, key: *const c_char, out: *mut u8, capacity: usize) -> i64;
    fn c10d_store_add(store: *mut c_void, key: *const c_char, by: i64, now: *mut i64) -> c_int;
    fn c10d_store_wait(store: *mut c_void, key: *const c_char, timeout_ms: i64) -> c_int;
    fn c10d_store_check(store: *mut c_void, key: *const c_char) -> c_int;
    fn c10d_group(
        backend: *const c_char,
        store: *mut c_void,
        prefix: *const c_char,
        rank: c_int,
        world: c_int,
        timeout_ms: i64,
        address: *const c_char,
    ) -> *mut c_void;
    fn c10d_group_free(group: *mut c_void);
    fn c10d_allreduce(group: *mut c_void, tensor: *mut c_void) -> c_int;
    fn c10d_barrier(group: *mut c_void) -> c_int;
    fn c10d_config(out: *mut u8, capacity: usize) -> i64;
}

/// What the last call on this thread failed with: its first line, which says what happened.
fn failure(doing: &str) -> Failure {
    // SAFETY: a string of this thread, NUL-terminated, valid until the next failing call.
    let text = unsafe { CStr::from_ptr(c10d_error()) }.to_string_lossy();
    let first = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("no reason was given");
    Failure::world(format!("{doing}: {}", first.trim()))
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Failure::misuse(format!("'{text}' holds a NUL byte")))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Whether the shim was compiled with Gloo's headers.
pub fn has_gloo() -> bool {
    // SAFETY: returns a constant.
    unsafe { c10d_has_gloo() == 1 }
}

/// Whether the shim was compiled with NCCL's and CUDA's headers.
pub fn has_nccl() -> bool {
    // SAFETY: returns a constant.
    unsafe { c10d_has_nccl() == 1 }
}

/// How torch was built: `torch.__config__.show()`.
pub fn config() -> String {
    let mut text = vec![0u8; 64 << 10];
    // SAFETY: writes at most `len` bytes.
    let len = unsafe { c10d_config(text.as_mut_ptr(), text.len()) };
    text.truncate(usize::try_from(len).unwrap_or(0).min(text.len()));
    String::from_utf8_lossy(&text).into_owned()
}

/// Which of TCPStore's two servers is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreBackend {
    /// The event loop of libuv.
    Libuv,
    /// The loop over `poll` that came before it.
    Legacy,
}

/// A `c10d::TCPStore`: the server with its own client, or a client. Its calls may come from several
/// threads; one call at a time goes over the wire.
pub struct Store(NonNull<c_void>);

// SAFETY: TCPStore guards its client with a mutex.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Starts a server on `port` (0: a free one) of every interface, and connects to it.
    pub fn serve(port: u16, backend: StoreBackend, timeout: Duration) -> Result<Self> {
        Self::open("127.0.0.1", port, true, backend, timeout)
            .map_err(|e| e.doing(format!("serving a store on port {port}")))
    }

    /// Connects to the server at `host:port`.
    pub fn connect(host: &str, port: u16, backend: StoreBackend, timeout: Duration) -> Result<Self> {
        Self::open(host, port, false, backend, timeout)
    }

    fn open(host: &str, port: u16, server: bool, backend: StoreBackend, timeout: Duration) -> Result<Self> {
        let host = c_string(host)?;
        let libuv = c_int::from(backend == StoreBackend::Libuv);
        // SAFETY: `host` lives through the call.
        let store = unsafe { c10d_store(host.as_ptr(), port, -1, c_int::from(server), libuv, millis(timeout)) };
        NonNull::new(store).map(Self).ok_or_else(|| failure("TCPStore"))
    }

    /// The port of the server.
    pub fn port(&self) -> u16 {
        // SAFETY: the handle is valid as long as `self`.
        unsafe { c10d_store_port(self.0.as_ptr()) }
    }

    /// Whether it says of itself that it runs on libuv.
    pub fn is_libuv(&self) -> bool {
        // SAFETY: as above.
        unsafe { c10d_store_is_libuv(self.0.as_ptr()) == 1 }
    }

    /// Sets a key.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: key and value live through the call.
        let rc = unsafe { c10d_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr(), value.len()) };
        if rc == 0 { Ok(()) } else { Err(failure("set")) }
    }

    /// Length of a key's value, which is waited for; as much of it as fits is written to `out`.
    pub fn get(&self, key: &str, out: &mut [u8]) -> Result<usize> {
        let key = c_string(key)?;
        // SAFETY: writes at most `len` bytes.
        let len = unsafe { c10d_store_get(self.0.as_ptr(), key.as_ptr(), out.as_mut_ptr(), out.len()) };
        usize::try_from(len).map_err(|_| failure("get"))
    }

    /// Adds to a counter and returns it.
    pub fn add(&self, key: &str, by: i64) -> Result<i64> {
        let key = c_string(key)?;
        let mut now = 0;
        // SAFETY: `now` is written before the call returns 0.
        let rc = unsafe { c10d_store_add(self.0.as_ptr(), key.as_ptr(), by, &raw mut now) };
        if rc == 0 { Ok(now) } else { Err(failure("add")) }
    }

    /// Waits until a key is there.
    pub fn wait(&self, key: &str, timeout: Duration) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: `key` lives through the call.
        let rc = unsafe { c10d_store_wait(self.0.as_ptr(), key.as_ptr(), millis(timeout)) };
        if rc == 0 { Ok(()) } else { Err(failure("wait")) }
    }

    /// Whether a key is there.
    pub fn check(&self, key: &str) -> Result<bool> {
        let key = c_string(key)?;
        // SAFETY: `key` lives through the call.
        match unsafe { c10d_store_check(self.0.as_ptr(), key.as_ptr()) } {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(failure("check")),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the handle is freed once.
        unsafe { c10d_store_free(self.0.as_ptr()) }
    }
}

/// A process group of one backend.
pub struct Group(NonNull<c_void>);

/// Which backend, and where it listens.
pub struct GroupOptions<'a> {
    /// `gloo` or `nccl`.
    pub backend: &'a str,
    /// This rank.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Bound on one collective.
    pub timeout: Duration,
    /// Gloo: address or host name to listen on, `interface:NAME`, or empty for the default.
    pub address: &'a str,
}

impl Group {
    /// Joins the group; returns when all its ranks have.
    pub fn join(store: &Store, options: &GroupOptions<'_>) -> Result<Self> {
        let (backend, prefix) = (c_string(options.backend)?, c_string("allreduce")?);
        let address = c_string(options.address)?;
        let as_int = |n: usize| c_int::try_from(n).unwrap_or(c_int::MAX);
        // SAFETY: all strings live through the call; the group holds its own reference to the store.
        let group = unsafe {
            c10d_group(
                backend.as_ptr(),
                store.0.as_ptr(),
                prefix.as_ptr(),
                as_int(options.rank),
                as_int(options.world),
                millis(options.timeout),
                address.as_ptr(),
            )
        };
        NonNull::new(group).map(Self).ok_or_else(|| failure(&format!("joining the {} group", options.backend)))
    }

    /// Sums `tensor` over all ranks, in place. With NCCL the device has to be synchronized before a
    /// clock is read.
    pub fn allreduce(&self, tensor: &mut Tensor) -> Result<()> {
        // SAFETY: tch's pointer is an at::Tensor*, which the call copies (a reference is counted).
        let rc = unsafe { c10d_allreduce(self.0.as_ptr(), tensor.as_mut_ptr().cast()) };
        if rc == 0 { Ok(()) } else { Err(failure("all-reduce")) }
    }

    /// Waits until all ranks are here.
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: the handle is valid as long as `self`.
        if unsafe { c10d_barrier(self.0.as_ptr()) } == 0 { Ok(()) } else { Err(failure("barrier")) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the handle is freed once.
        unsafe { c10d_group_free(self.0.as_ptr()) }
    }
}
