//! The door of the room in which the farm's engine runs: what it may ask outside, and how that is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::wire::{self, Message};
use super::{Farm, PATIENCE, STATUS};
use crate::platform::{self, Visitor};

/// Where it gives a place for a compile.
const ALLOC: &str = "/api/v1/scheduler/alloc_job";
/// Where it says which certificate a worker has.
const CERTIFICATE: &str = "/api/v1/scheduler/server_certificate/";

/// How often a worker that says nothing, as while it compiles, is asked for a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// What a visitor says first if it wants the scheduler.
pub const TO_SCHEDULER: &str = "scheduler";

/// What came of asking.
#[derive(Debug, Default)]
pub struct Tally {
    /// The workers that the scheduler named.
    named: Mutex<BTreeSet<SocketAddrV4>>,
    /// Objects that each worker was given and answered for.
    answered: Mutex<BTreeMap<SocketAddrV4, u64>>,
    /// Connections to workers, now.
    open: AtomicUsize,
    failed: Mutex<(u64, String)>,
}

impl Tally {
    /// Connections to workers, now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// How often each worker answered.
    pub fn answered(&self) -> BTreeMap<SocketAddrV4, u64> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often nothing came of asking, and why the last time.
    pub fn failed(&self) -> (u64, String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, why: &str) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed = (failed.0 + 1, crate::error::without_secrets(why));
    }
}

/// Serves one visitor to its end.
pub fn serve(mut visitor: Box<dyn Visitor>, farm: &Farm, tally: &Tally) {
    let Ok(to) = line(&mut visitor) else { return };
    let served = if to == TO_SCHEDULER { scheduler(&mut visitor, farm, tally) } else { worker(visitor, &to, tally) };
    if let Err(e) = served {
        tally.fail(&e.to_string());
    }
}

/// The line with which a visitor says where it wants to.
fn line(from: &mut impl Read) -> io::Result<String> {
    let (mut out, mut byte) = (Vec::new(), [0u8]);
    loop {
        from.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return String::from_utf8(out).map_err(io::Error::other),
            _ if out.len() > 64 => return Err(io::ErrorKind::InvalidData.into()),
            byte => out.push(byte),
        }
    }
}

/// Asks the scheduler what the visitor asks, with the farm's token.
fn scheduler(visitor: &mut Box<dyn Visitor>, farm: &Farm, tally: &Tally) -> io::Result<()> {
    let request = Message::read(visitor, false)?;
    let (status, body) = match asked(&request, farm) {
        Ok(answer) => answer,
        // The engine takes it for a scheduler that has no time, and compiles in its room.
        Err(e) => {
            tally.fail(&format!("the scheduler does not answer: {e}"));
            (503, Vec::new())
        }
    };
    if let ("POST", ALLOC) = request.asks()
        && status == 200
    {
        match wire::place(&body) {
            Some(Ok(worker)) => drop(tally.named.lock().unwrap_or_else(PoisonError::into_inner).insert(worker)),
            Some(Err(why)) => tally.fail(&format!("the scheduler gave no place: {why}")),
            None => tally.fail("the scheduler's answer is none that is known here: is it of another version?"),
        }
    }
    if matches!(status, 401 | 403) {
        tally.fail(&format!("the scheduler answered {status}: the token is not the one that it takes"));
    }
    Message::answer(status, "application/octet-stream", &body, visitor)
}

/// Status and body of the scheduler's answer.
fn asked(request: &Message, farm: &Farm) -> io::Result<(u16, Vec<u8>)> {
    let (method, path) = request.asks();
    let is_address = |text: &str| text.parse::<SocketAddrV4>().is_ok();
    let allowed = match (method, path) {
        ("POST", ALLOC) | ("GET", STATUS) => true,
        ("GET", path) => path.strip_prefix(CERTIFICATE).is_some_and(is_address),
        _ => false,
    };
    if !allowed {
        return Ok((404, Vec::new()));
    }
    let url = farm.scheduler.join(path).map_err(io::Error::other)?;
    let authorization = farm.token.as_ref().map(|token| zeroize::Zeroizing::new(format!("Bearer {}", **token)));
    let sent = if method == "POST" {
        let ask = farm.agent.post(url.as_str()).header("Content-Type", "application/octet-stream");
        match &authorization {
            Some(value) => ask.header("Authorization", value.as_str()),
            None => ask,
        }
        .send(&request.body[..])
    } else {
        farm.agent.get(url.as_str()).call()
    };
    let mut response = sent.map_err(io::Error::other)?;
    let body = response.body_mut().with_config().limit(1 << 20).read_to_vec().map_err(io::Error::other)?;
    Ok((response.status().as_u16(), body))
}

/// Connects the visitor to a worker that the scheduler named. What they say is between them, under TLS with the
/// certificate that the scheduler knows of it.
fn worker(visitor: Box<dyn Visitor>, to: &str, tally: &Tally) -> io::Result<()> {
    let address: SocketAddrV4 = to.parse().map_err(io::Error::other)?;
    if !tally.named.lock().unwrap_or_else(PoisonError::into_inner).contains(&address) {
        return Err(io::Error::other(format!("{address} is no worker that the scheduler named")));
    }
    let stream =
        connected(address).map_err(|e| io::Error::other(format!("the worker {address} does not answer: {e}")))?;
    tally.open.fetch_add(1, Ordering::SeqCst);
    let answered = pumped(visitor, stream);
    tally.open.fetch_sub(1, Ordering::SeqCst);
    if answered? > 0 {
        *tally.answered.lock().unwrap_or_else(PoisonError::into_inner).entry(address).or_default() += 1;
    }
    Ok(())
}

/// A connection to the worker at `address`.
fn connected(address: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::V4(address), PATIENCE[0])?;
    // A compiler is sent in 30 MB of small pieces, and each would wait for the answer to the one before it.
    stream.set_nodelay(true)?;
    platform::keep_alive(&stream, SIGN_OF_LIFE)?;
    Ok(stream)
}

/// Carries bytes both ways until the worker has no more, or the visitor is gone; how many came from the worker.
fn pumped(mut visitor: Box<dyn Visitor>, stream: TcpStream) -> io::Result<u64> {
    let mut back = visitor.again()?;
    let (mut from, mut to) = (stream.try_clone()?, stream);
    let there = std::thread::spawn(move || {
        let _ = io::copy(&mut visitor, &mut to);
        // The visitor is gone, or has said all: whoever waits for it sees so.
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let came = io::copy(&mut from, &mut back);
    let _ = back.flush();
    back.hang_up();
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = there.join();
    came
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_worker_that_compiles_for_minutes_is_asked_for_signs_of_life() {
        use rustix::net::sockopt::{socket_keepalive, tcp_keepcnt, tcp_keepidle, tcp_keepintvl};
        let worker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = worker.local_addr().unwrap() else { panic!("an address of IPv4") };
        let stream = connected(address).unwrap();
        assert!(socket_keepalive(&stream).unwrap());
        let every = [tcp_keepidle(&stream).unwrap(), tcp_keepintvl(&stream).unwrap()];
        assert_eq!((every, tcp_keepcnt(&stream).unwrap()), ([SIGN_OF_LIFE; 2], 3));
    }

    #[test]
    fn nothing_is_asked_but_what_a_compile_needs_and_no_worker_that_the_scheduler_did_not_name() {
        let farm = Farm::parse("http://127.0.0.1:1", None, None).unwrap();
        for (method, path) in [
            ("GET", "/"),
            ("POST", STATUS),
            ("POST", "/api/v1/scheduler/heartbeat_server"),
            ("GET", "/api/v1/scheduler/server_certificate/../status"),
        ] {
            let request = Message { first: format!("{method} {path} HTTP/1.1"), headers: Vec::new(), body: Vec::new() };
            assert_eq!(asked(&request, &farm).unwrap().0, 404, "{method} {path}");
        }
        let alloc = Message { first: format!("POST {ALLOC} HTTP/1.1"), headers: Vec::new(), body: Vec::new() };
        assert!(asked(&alloc, &farm).is_err());
        assert_eq!(line(&mut &b"scheduler\nrest"[..]).unwrap(), TO_SCHEDULER);
        assert!(line(&mut &[b'x'; 100][..]).is_err());
    }
}
