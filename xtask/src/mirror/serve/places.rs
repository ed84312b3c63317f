//! Who is connected. There are so many places for all clients and so many for one address; where none is left, the
//! connection on which nothing has moved for longest gives its own up. So whoever connects and says nothing, or asks and
//! does not read, keeps nobody out.
//!
//! Movement is seen at the socket: it does not matter in which state the protocol above is, or whether a body is polled.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A connection on which something moved within this time is not taken away from its client for another one.
const SLACK: Duration = Duration::from_millis(100);
/// How long an answer that was sent before the request was read to its end may wait for the client to take note: were
/// the connection closed at once, the client's system would throw the answer away.
const LINGER: Duration = Duration::from_secs(2);

/// The places, and who has them.
#[derive(Debug)]
pub struct Places {
    most: usize,
    most_of_one: usize,
    started: Instant,
    open: Mutex<Open>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    lines: HashMap<u64, Arc<Line>>,
    of: HashMap<IpAddr, usize>,
}

/// A connection, as the others see it.
#[derive(Debug)]
pub struct Line {
    peer: IpAddr,
    started: Instant,
    /// When something moved last, milliseconds from the start.
    moved: AtomicU64,
    /// How much work is done for it in which nothing can move.
    working: AtomicU32,
    closing: AtomicBool,
    /// Whoever is told so closes it.
    pub cut: Notify,
}

impl Line {
    fn moved(&self) {
        self.moved.store(milliseconds(self.started), Ordering::Relaxed);
    }

    /// How long nothing has moved, at the time `now`.
    fn still(&self, now: u64) -> Duration {
        if self.working.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(now.saturating_sub(self.moved.load(Ordering::Relaxed)))
    }

    /// From now until the value is dropped it is we who are waited for.
    pub fn working(self: &Arc<Self>) -> Working {
        self.working.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(self))
    }
}

/// Work for a client that is waiting.
pub struct Working(Arc<Line>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.moved();
        self.0.working.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place that is free again once this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    id: u64,
    /// The connection that holds the place.
    pub line: Arc<Line>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().remove(self.id);
        self.places.freed.notify_one();
    }
}

/// Why there is no place.
enum Full {
    /// All are in use.
    Wait,
    /// This address has all that one may have, and uses them.
    Address,
}

impl Places {
    /// So many for all clients, so many for one address.
    pub fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        let started = Instant::now();
        Arc::new(Self { most, most_of_one, started, open: Mutex::default(), freed: Notify::new() })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.open().lines.len()
    }

    /// A place for a client at `peer`, as soon as there is one; `None` if its address has too many already.
    pub async fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        loop {
            match self.try_take(peer) {
                Ok(place) => return Some(place),
                Err(Full::Address) => return None,
                // One is free, or may be taken away by now.
                Err(Full::Wait) => drop(tokio::time::timeout(SLACK / 4, self.freed.notified()).await),
            }
        }
    }

    /// A place for a client whose address has too many, if one of them stands still within `patience`.
    pub async fn take_within(self: &Arc<Self>, peer: IpAddr, patience: Duration) -> Option<Place> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(place) = self.take(peer).await {
                return Some(place);
            }
            tokio::time::sleep(SLACK / 4).await;
        }
        None
    }

    fn try_take(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Full> {
        let mut open = self.open();
        let now = milliseconds(self.started);
        let own = open.of.get(&peer).copied().unwrap_or(0);
        if own >= self.most_of_one {
            if !open.give_up(peer, now) {
                return Err(Full::Address);
            }
        } else if open.lines.len() >= self.most {
            // The address that has most gives one up.
            let greedy = open.of.iter().max_by_key(|(_, n)| **n).map(|(peer, _)| *peer);
            if !greedy.is_some_and(|peer| open.give_up(peer, now)) {
                return Err(Full::Wait);
            }
        }
        let id = open.next;
        open.next += 1;
        let line = Arc::new(Line {
            peer,
            started: self.started,
            moved: AtomicU64::new(now),
            working: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            cut: Notify::new(),
        });
        open.lines.insert(id, Arc::clone(&line));
        *open.of.entry(peer).or_default() += 1;
        Ok(Place { places: Arc::clone(self), id, line })
    }

    /// Cuts whoever let the connection stand still for longer than `stall`.
    pub fn sweep(&self, stall: Duration) {
        let now = milliseconds(self.started);
        for line in self.open().lines.values() {
            let most = if line.closing.load(Ordering::Relaxed) { LINGER } else { stall };
            if line.still(now) > most {
                line.cut.notify_one();
            }
        }
    }
}

impl Open {
    /// Takes the stillest connection from `peer` away from its client; whether there was one that stood still.
    fn give_up(&mut self, peer: IpAddr, now: u64) -> bool {
        let lines = self.lines.iter().filter(|(_, l)| l.peer == peer);
        let stillest = lines.map(|(id, l)| (l.still(now), *id)).max();
        let Some((_, id)) = stillest.filter(|(still, _)| *still > SLACK) else { return false };
        if let Some(line) = self.remove(id) {
            line.cut.notify_one();
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Line>> {
        let line = self.lines.remove(&id)?;
        if let Some(n) = self.of.get_mut(&line.peer) {
            *n -= 1;
            if *n == 0 {
                self.of.remove(&line.peer);
            }
        }
        Some(line)
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A socket whose movements are noted, and which is closed so that the client hears the last answer.
#[derive(Debug)]
pub struct Watched {
    socket: TcpStream,
    line: Arc<Line>,
}

impl Watched {
    /// Of the client on `line`.
    pub fn new(socket: TcpStream, line: Arc<Line>) -> Self {
        Self { socket, line }
    }

    fn noted<T>(&self, done: &Poll<io::Result<T>>) {
        if matches!(done, Poll::Ready(Ok(_))) {
            self.line.moved();
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.socket).poll_read(cx, buffer);
        self.noted(&done);
        done
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.noted(&done);
        done
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.noted(&done);
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.line.closing.load(Ordering::Relaxed) {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            self.line.moved();
            self.line.closing.store(true, Ordering::Relaxed);
        }
        // What still comes is thrown away until the client closes, or LINGER is over; none of it counts as movement.
        let mut scratch = [0; 8 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn one_address_cannot_have_all_places() {
        let places = Places::new(8, 4);
        let held: Vec<Place> = (0..4).map_while(|_| places.try_take(at(1)).ok()).collect();
        assert_eq!(held.len(), 4);
        assert!(matches!(places.try_take(at(1)), Err(Full::Address)));
        assert!(places.try_take(at(2)).is_ok());
        drop(held);
        assert_eq!(places.taken(), 0);
        assert!(places.open().of.is_empty());
    }

    #[test]
    fn who_stands_still_gives_up_the_place_and_who_is_worked_for_does_not() {
        let places = Places::new(2, 2);
        let (idle, busy) = (places.try_take(at(1)).ok().unwrap(), places.try_take(at(1)).ok().unwrap());
        let _working = busy.line.working();
        std::thread::sleep(SLACK + Duration::from_millis(50));
        let _new = places.try_take(at(2)).ok().unwrap();
        let told = |place: &Place| {
            let mut told = std::pin::pin!(place.line.cut.notified());
            told.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        assert!(told(&idle));
        assert!(!told(&busy));
        drop(idle);
        assert_eq!(places.taken(), 2);
        assert!(matches!(places.try_take(at(2)), Err(Full::Wait)));
    }
}
