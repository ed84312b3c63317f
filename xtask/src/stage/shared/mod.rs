//! A compiler cache that machines share. ccache is its engine, with its own remote storage; but what compiles has no
//! network, and must not learn a password. So ccache speaks to a socket in the work folder, in the one protocol that it
//! speaks over sockets (Redis'), and this program, outside of the sandbox, asks the folder or the server: with
//! credentials, TLS, and signatures that ccache does not know. A cache that is away, slow, full or read-only costs a
//! warning and time; after a few failures it is not asked any more.

use std::io::{self, BufReader};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ed25519_dalek::SigningKey;

pub mod bucket;
pub mod resp;
pub mod signed;
pub mod storage;

use resp::Reply;
use signed::Trust;
use storage::Storage;

use crate::artifact::dsse::key_id;
use crate::event::Sink;
use crate::platform::Visitor;

/// Failures in a row after which a cache is not asked any more in this run: it costs each of them its patience.
const MOST_FAILURES: u64 = 3;

/// A cache, whose entries are read, and by whom what is written is signed.
pub struct Shared {
    /// Where entries are.
    pub storage: Storage,
    /// Whose entries are read.
    pub trust: Trust,
    /// The key that signs what is written; nothing is signed if `None`.
    pub secret: Option<SigningKey>,
}

impl Shared {
    /// Whether anything is written there. Whoever reads signed entries alone has no use for one without a signature.
    fn writes(&self) -> bool {
        self.secret.is_some() || self.trust == Trust::Unsigned
    }

    /// Who answers for what is read there.
    pub fn writer(&self) -> String {
        match &self.trust {
            Trust::Keys(keys) => format!("one of the keys {}", keys.iter().map(key_id).collect::<Vec<_>>().join(", ")),
            Trust::Unsigned | Trust::Nobody => "whoever can write there".into(),
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({}, …)", self.storage.shown())
    }
}

/// What came of asking.
#[derive(Debug, Default)]
pub struct Tally {
    read: AtomicU64,
    written: AtomicU64,
    /// Entries that were there, and of nobody whose entries are read.
    refused: AtomicU64,
    failed: AtomicU64,
    /// Failures in a row.
    row: AtomicU64,
    last: Mutex<String>,
}

impl Tally {
    /// Tells what came of asking the cache called `shown`.
    pub fn tell(&self, shown: &str, events: &dyn Sink) {
        let number = |of: &AtomicU64| of.load(Ordering::SeqCst);
        let (read, written) = (number(&self.read), number(&self.written));
        events.note(format!("shared cache {shown}: {read} entries read, {written} written"));
        let refused = number(&self.refused);
        if refused > 0 {
            events.note(format!(
                "shared cache {shown}: {refused} entries are of nobody whom you trust, and were not read"
            ));
        }
        let failed = number(&self.failed);
        if failed > 0 {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let end = if number(&self.row) >= MOST_FAILURES { "; it was not asked any more" } else { "" };
            events.warn(format!("the shared cache {shown} failed {failed} times, the last time because {last}{end}"));
        }
    }
}

/// Answers one process of ccache to its end.
pub fn serve(visitor: Box<dyn Visitor>, shared: &Shared, tally: &Tally) {
    let mut reader = BufReader::new(visitor);
    while let Ok(Some(words)) = resp::command(&mut reader) {
        let reply = reply(&words, shared, tally);
        if resp::answer(reader.get_mut(), &reply).is_err() {
            return;
        }
    }
}

/// What is answered to one command. Commands that only greet are agreed to.
fn reply(words: &[Vec<u8>], shared: &Shared, tally: &Tally) -> Reply {
    let word = |at: usize| words.get(at).map(Vec::as_slice).unwrap_or_default();
    let name = word(0).to_ascii_uppercase();
    if !matches!(name.as_slice(), b"GET" | b"SET" | b"EXISTS" | b"DEL") {
        return Reply::Ok;
    }
    let key = std::str::from_utf8(word(1)).unwrap_or_default();
    let Some(key) = key.strip_prefix("ccache:").filter(|key| storage::is_key(key)) else {
        return Reply::Error("no key of ccache".into());
    };
    if tally.row.load(Ordering::SeqCst) >= MOST_FAILURES {
        return without(&name);
    }
    let done = match name.as_slice() {
        b"GET" => get(key, shared, tally),
        b"SET" => put(key, word(2), shared, tally),
        b"EXISTS" if !shared.writes() => Ok(Reply::Number(1)),
        b"EXISTS" => shared.storage.has(key).map(|there| Reply::Number(there.into())),
        _ => shared.storage.remove(key).map(|()| Reply::Number(1)),
    };
    match done {
        Ok(reply) => {
            tally.row.store(0, Ordering::SeqCst);
            reply
        }
        Err(e) => {
            tally.failed.fetch_add(1, Ordering::SeqCst);
            tally.row.fetch_add(1, Ordering::SeqCst);
            *tally.last.lock().unwrap_or_else(PoisonError::into_inner) = crate::error::without_secrets(&e.to_string());
            without(&name)
        }
    }
}

/// What is answered where there is no cache to ask: ccache goes on, and sends nothing that would be lost.
fn without(name: &[u8]) -> Reply {
    match name {
        b"GET" => Reply::Nil,
        b"EXISTS" => Reply::Number(1),
        b"DEL" => Reply::Number(0),
        _ => Reply::Ok,
    }
}

fn get(key: &str, shared: &Shared, tally: &Tally) -> io::Result<Reply> {
    if shared.trust == Trust::Nobody {
        return Ok(Reply::Nil);
    }
    let Some(bytes) = shared.storage.get(key)? else { return Ok(Reply::Nil) };
    match signed::open(key, &bytes, &shared.trust) {
        Some(entry) => {
            tally.read.fetch_add(1, Ordering::SeqCst);
            Ok(Reply::Value(entry.to_owned()))
        }
        None => {
            tally.refused.fetch_add(1, Ordering::SeqCst);
            Ok(Reply::Nil)
        }
    }
}

fn put(key: &str, entry: &[u8], shared: &Shared, tally: &Tally) -> io::Result<Reply> {
    if !shared.writes() {
        return Ok(Reply::Ok);
    }
    match &shared.secret {
        Some(secret) => shared.storage.put(key, &signed::seal(key, entry, secret))?,
        None => shared.storage.put(key, entry)?,
    }
    tally.written.fetch_add(1, Ordering::SeqCst);
    Ok(Reply::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ccache:0b70bc6vgqa19hcncjsocluhakb5ajmi8";

    fn asked(shared: &Shared, tally: &Tally, words: &[&str]) -> Reply {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        reply(&words, shared, tally)
    }

    #[test]
    fn entries_of_nobody_who_is_trusted_are_not_read_and_none_is_written_without_a_signature_then() {
        let dir = tempfile::tempdir().unwrap();
        let ours = SigningKey::from_bytes(&[7; 32]);
        let shared = |trust: Trust, secret: Option<&SigningKey>| Shared {
            storage: Storage::Folder(dir.path().to_owned()),
            trust,
            secret: secret.cloned(),
        };
        let keys = Trust::Keys(vec![ours.verifying_key()]);
        let tally = Tally::default();
        // Readers of signed entries write nothing that they would not read.
        assert_eq!(asked(&shared(keys.clone(), None), &tally, &["SET", KEY, "entry"]), Reply::Ok);
        assert_eq!(asked(&shared(Trust::Unsigned, None), &tally, &["GET", KEY]), Reply::Nil);
        assert_eq!(asked(&shared(Trust::Unsigned, None), &tally, &["SET", KEY, "entry"]), Reply::Ok);
        assert_eq!(asked(&shared(keys.clone(), None), &tally, &["GET", KEY]), Reply::Nil);
        assert_eq!(tally.refused.load(Ordering::SeqCst), 1);
        assert_eq!(asked(&shared(Trust::Nobody, Some(&ours)), &tally, &["SET", KEY, "entry"]), Reply::Ok);
        assert_eq!(asked(&shared(Trust::Nobody, None), &tally, &["GET", KEY]), Reply::Nil);
        assert_eq!(asked(&shared(keys, None), &tally, &["GET", KEY]), Reply::Value(b"entry".to_vec()));
        assert!(matches!(asked(&shared(Trust::Unsigned, None), &tally, &["GET", "ccache:../x"]), Reply::Error(_)));
        assert_eq!(asked(&shared(Trust::Unsigned, None), &tally, &["SELECT", "0"]), Reply::Ok);
    }

    #[test]
    fn a_cache_that_is_away_is_asked_three_times_and_no_more() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", free.local_addr().unwrap());
        drop(free);
        let storage = Storage::parse(&url, storage::Credentials::default(), bucket::Aws::default()).unwrap();
        let (shared, tally) = (Shared { storage, trust: Trust::Unsigned, secret: None }, Tally::default());
        for _ in 0..5 {
            assert_eq!(asked(&shared, &tally, &["GET", KEY]), Reply::Nil);
        }
        assert_eq!(tally.failed.load(Ordering::SeqCst), MOST_FAILURES);
    }
}
