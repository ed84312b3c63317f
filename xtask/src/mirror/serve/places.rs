//! Who is connected. There are so many places for all clients and so many for one address; where none is left, the
//! connection on which nothing has moved for longest gives its own up. So whoever connects and says nothing, or asks and
//! does not read, keeps nobody out. Of those who wait at one address, who came last is served first, and who has waited
//! longest is sent away: among thousands that only hold places, whoever wants something is heard.
//!
//! A host has a whole /64 of IPv6 addresses, which count as one here.
//!
//! Movement is seen at the socket: it does not matter in which state the protocol above is, or whether a body is polled.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::by_kernel::ByKernel;

/// A connection on which something moved within this time is not taken away from its client for another one.
const SLACK: Duration = Duration::from_millis(100);
/// How long an answer that was sent before the request was read to its end may wait for the client to take note: were
/// the connection closed at once, the client's system would throw the answer away.
const LINGER: Duration = Duration::from_secs(2);

/// Clients that wait for a place, and how long.
const MOST_WAITING: usize = 64;
const PATIENCE: Duration = Duration::from_millis(800);

/// The places, and who has them.
#[derive(Debug)]
pub struct Places {
    most: usize,
    most_of_one: usize,
    started: Instant,
    open: Mutex<Open>,
    freed: Notify,
    waiting: Mutex<VecDeque<Arc<Waiting>>>,
}

/// The address that a client at `peer` counts under: its own, of IPv6 the beginning of its /64 (RFC 4291, 2.5.4).
fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(peer) => Ipv6Addr::from_bits(peer.to_bits() & (u128::MAX << 64)).into(),
        peer => peer,
    }
}

/// A client that waits for a place.
#[derive(Debug)]
struct Waiting {
    peer: IpAddr,
    sent_away: Notify,
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
    /// The body that is on its way, if the kernel sends it.
    by_kernel: Mutex<Option<ByKernel>>,
    /// Whoever is told so closes it.
    pub cut: Notify,
}

impl Line {
    fn moved(&self) {
        self.moved.store(milliseconds(self.started), Ordering::Relaxed);
    }

    /// How long nothing has moved, at the time `now`.
    fn still(&self, now: u64) -> Duration {
        if self.is_worked_for() {
            return Duration::ZERO;
        }
        Duration::from_millis(now.saturating_sub(self.moved.load(Ordering::Relaxed)))
    }

    /// From now on the kernel writes the bytes of this body.
    pub fn sends(&self, body: ByKernel) {
        *self.by_kernel() = Some(body);
    }

    fn by_kernel(&self) -> MutexGuard<'_, Option<ByKernel>> {
        self.by_kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_worked_for(&self) -> bool {
        self.working.load(Ordering::Relaxed) > 0
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

/// Somebody who waits, until this is dropped.
struct Turn {
    places: Arc<Places>,
    waiting: Arc<Waiting>,
}

impl Turn {
    /// A place, once nobody of the address came later and there is one.
    async fn place(&self) -> Place {
        loop {
            let last = self.places.waiting().iter().rfind(|w| w.peer == self.waiting.peer).cloned();
            if last.is_some_and(|w| Arc::ptr_eq(&w, &self.waiting))
                && let Some(place) = self.places.take(self.waiting.peer)
            {
                return place;
            }
            // One is free, or may be taken away by now.
            drop(tokio::time::timeout(SLACK / 4, self.places.freed.notified()).await);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.places.waiting().retain(|w| !Arc::ptr_eq(w, &self.waiting));
    }
}

impl Places {
    /// So many for all clients, so many for one address.
    pub fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        let started = Instant::now();
        Arc::new(Self {
            most,
            most_of_one,
            started,
            open: Mutex::default(),
            freed: Notify::new(),
            waiting: Mutex::default(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.open().lines.len()
    }

    /// A place for a client that there was none for, if somebody leaves or stands still in time; it waits from now on.
    pub fn take_in_time(self: &Arc<Self>, peer: IpAddr) -> impl Future<Output = Option<Place>> + Send + use<> {
        let turn = self.wait(peer);
        async move {
            let sent_away = turn.waiting.sent_away.notified();
            tokio::select! {
                place = turn.place() => Some(place),
                () = sent_away => None,
                () = tokio::time::sleep(PATIENCE) => None,
            }
        }
    }

    /// Lets a client wait; if those are too many, who has waited longest of the addresses of which most wait is sent away.
    fn wait(self: &Arc<Self>, peer: IpAddr) -> Turn {
        let waiting = Arc::new(Waiting { peer: client(peer), sent_away: Notify::new() });
        let mut all = self.waiting();
        all.push_back(Arc::clone(&waiting));
        if all.len() > MOST_WAITING {
            let mut of: HashMap<IpAddr, usize> = HashMap::new();
            all.iter().for_each(|w| *of.entry(w.peer).or_default() += 1);
            let most = of.values().max();
            let longest = all.iter().position(|w| of.get(&w.peer) == most).and_then(|i| all.remove(i));
            longest.inspect(|w| w.sent_away.notify_one());
        }
        Turn { places: Arc::clone(self), waiting }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a client at `peer`, if there is one, or somebody has to give theirs up.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let peer = client(peer);
        let mut open = self.open();
        let now = milliseconds(self.started);
        let own = open.of.get(&peer).copied().unwrap_or(0);
        if own >= self.most_of_one {
            if !open.give_up(now, SLACK, |other, _| other == peer) {
                return None;
            }
        } else if open.lines.len() >= self.most {
            // Of those that have most, who stands stillest gives one up; to an address that has none, also one that is in
            // use, and the next ones where the greediest are all worked for.
            let most = open.of.values().copied().max().unwrap_or(0);
            let given_up = if own == 0 {
                open.give_up(now, Duration::ZERO, |_, _| true)
            } else {
                open.give_up(now, SLACK, |_, n| n == most)
            };
            if !given_up {
                return None;
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
            by_kernel: Mutex::new(None),
            cut: Notify::new(),
        });
        open.lines.insert(id, Arc::clone(&line));
        *open.of.entry(peer).or_default() += 1;
        Some(Place { places: Arc::clone(self), id, line })
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
    /// Of the addresses that `from` chooses (by themselves, and how many connections they have), takes the stillest
    /// connection of those that have most away from its client; whether there was one that stood still for longer than
    /// `slack`. One that is worked for never is.
    fn give_up(&mut self, now: u64, slack: Duration, from: impl Fn(IpAddr, usize) -> bool) -> bool {
        let counted = self.lines.iter().map(|(id, l)| (self.of.get(&l.peer).copied().unwrap_or(0), l, *id));
        let lines = counted.filter(|(n, l, _)| !l.is_worked_for() && from(l.peer, *n));
        let stillest = lines.map(|(n, l, id)| (n, l.still(now), id)).max();
        let Some((_, _, id)) = stillest.filter(|(_, still, _)| slack.is_zero() || *still > slack) else { return false };
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

    /// Has the kernel write `bytes` if it keeps them.
    fn by_kernel(&self, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Option<Poll<io::Result<usize>>> {
        let kept = self.line.by_kernel().clone().filter(|kept| kept.is_in(bytes))?;
        loop {
            match self.socket.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Some(Poll::Ready(Err(e))),
                Poll::Pending => return Some(Poll::Pending),
            }
            match self.socket.try_io(Interest::WRITABLE, || kept.write(&self.socket, bytes)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    // A connection on which nothing is sent keeps nothing.
                    if done.as_ref().is_ok_and(|n| kept.is_done(bytes, *n)) {
                        *self.line.by_kernel() = None;
                    }
                    return Some(Poll::Ready(done));
                }
            }
        }
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
        let done = match self.by_kernel(cx, bytes) {
            Some(done) => done,
            None => Pin::new(&mut self.socket).poll_write_vectored(cx, bytes),
        };
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

    /// Whether somebody was told so.
    fn told(whom: &Notify) -> bool {
        let mut told = std::pin::pin!(whom.notified());
        told.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn one_address_cannot_have_all_places() {
        let places = Places::new(8, 4);
        let held: Vec<Place> = (0..4).map_while(|_| places.take(at(1))).collect();
        assert_eq!(held.len(), 4);
        assert!(places.take(at(1)).is_none());
        assert!(places.take(at(2)).is_some());
        drop(held);
        assert_eq!(places.taken(), 0);
        assert!(places.open().of.is_empty());
    }

    #[test]
    fn who_stands_still_gives_up_the_place_and_who_is_worked_for_does_not() {
        let places = Places::new(2, 2);
        let (idle, busy) = (places.take(at(1)).unwrap(), places.take(at(1)).unwrap());
        let _working = busy.line.working();
        std::thread::sleep(SLACK + Duration::from_millis(50));
        let _new = places.take(at(2)).unwrap();
        assert!(told(&idle.line.cut));
        assert!(!told(&busy.line.cut));
        drop(idle);
        assert_eq!(places.taken(), 2);
        assert!(places.take(at(2)).is_none());
    }

    #[test]
    fn an_address_that_has_none_is_let_in_also_where_everybody_is_busy() {
        let places = Places::new(4, 4);
        let _held: Vec<Place> = (0..4).map_while(|_| places.take(at(1))).collect();
        let second = places.take(at(2)).unwrap();
        assert!(places.take(at(2)).is_none());
        assert_eq!((places.taken(), places.open().of[&second.line.peer]), (4, 1));
    }

    #[test]
    fn all_addresses_of_a_host_count_as_one() {
        let places = Places::new(8, 4);
        let of_one_host = |i: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, i, i, i, i]);
        let held: Vec<Place> = (0..5).map_while(|i| places.take(of_one_host(i))).collect();
        assert_eq!(held.len(), 4);
        // Another host, and one that speaks IPv4 to a socket for both.
        let _other = places.take(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1])).unwrap();
        let mapped = places.take(IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1])).unwrap();
        assert_eq!(mapped.line.peer, at(1));
        assert_eq!(places.open().of.len(), 3);
    }

    #[test]
    fn where_everybody_has_one_the_stillest_of_all_gives_it_to_who_has_none() {
        let places = Places::new(3, 2);
        let held: Vec<Place> = (1..4).map_while(|last| places.take(at(last))).collect();
        std::thread::sleep(SLACK / 4);
        held[0].line.moved();
        held[2].line.moved();
        let new = places.take(at(9)).unwrap();
        assert_eq!(held.iter().map(|place| told(&place.line.cut)).collect::<Vec<_>>(), [false, true, false]);
        // Who has one gets no second one of those that are in use.
        assert!(places.take(at(9)).is_none());
        // Who is worked for keeps the place, and the next ones give theirs up.
        let _working = [held[0].line.working(), new.line.working()];
        let _newest = places.take(at(8)).unwrap();
        assert!(told(&held[2].line.cut) && !told(&held[0].line.cut) && !told(&new.line.cut));
    }

    #[test]
    fn where_the_greediest_is_worked_for_the_next_one_gives_a_place_up() {
        let places = Places::new(3, 2);
        let busy = [places.take(at(1)).unwrap(), places.take(at(1)).unwrap()];
        let _working = busy.each_ref().map(|place| place.line.working());
        let other = places.take(at(2)).unwrap();
        let _new = places.take(at(3)).unwrap();
        assert!(told(&other.line.cut) && !busy.iter().any(|place| told(&place.line.cut)));
    }

    #[test]
    fn of_many_addresses_that_wait_who_has_waited_longest_is_sent_away() {
        let places = Places::new(1, 1);
        let many: Vec<Turn> = (0..=64).map(|last| places.wait(at(last))).collect();
        assert!(many.len() > MOST_WAITING);
        assert!(told(&many[0].waiting.sent_away) && !many[1..].iter().any(|turn| told(&turn.waiting.sent_away)));
    }

    #[test]
    fn of_those_who_wait_the_last_is_first_and_the_first_of_the_many_is_sent_away() {
        let places = Places::new(1, 1);
        let one = places.wait(at(2));
        let many: Vec<Turn> = (0..MOST_WAITING).map(|_| places.wait(at(1))).collect();
        let sent_away = |turn: &Turn| told(&turn.waiting.sent_away);
        assert!(sent_away(&many[0]) && !sent_away(&many[1]) && !sent_away(&one));
        let gets_a_place = |turn: &Turn| {
            let mut place = std::pin::pin!(turn.place());
            place.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        assert!(!gets_a_place(&many[5]));
        assert!(gets_a_place(&many[MOST_WAITING - 1]));
        drop((one, many));
        assert!(places.waiting().is_empty());
    }
}
