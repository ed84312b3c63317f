//! A compiler cache that machines share. ccache is its engine, with its own remote storage; but what compiles has no
//! network, and must not learn a password. So ccache speaks to a socket in the work folder, in the one protocol that it
//! speaks over sockets (Redis'), and this program, outside of the sandbox, asks the folder or the server: with
//! credentials, TLS, and signatures that ccache does not know. A cache that is away, slow, full or read-only costs a
//! warning and time; after a few failures it is not asked any more.

use std::collections::BTreeSet;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;

pub mod bucket;
pub mod resp;
pub mod signed;
pub mod storage;

use resp::Reply;
use signed::Trust;
use storage::Storage;

use crate::artifact::dsse::key_id;
use crate::error::Result;
use crate::event::Sink;
use crate::platform::Visitor;
use crate::store::{lock_at, read_if_there, remove_if_there, write_atomically};

/// Failures in a row after which a cache is not asked any more in this run: it costs each of them its patience. So does
/// what is so slow, each time.
const MOST_FAILURES: u64 = 3;
/// What takes as long for less than these bytes is slow: most objects are compiled in that time. Over a link that is slow
/// by itself more comes in that time, also where many compiles share it, and what comes is worth the wait.
const SLOW: Duration = Duration::from_secs(5);
const LITTLE: usize = 128 << 10;

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
    pub fn writes(&self) -> bool {
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

/// Entries that are not read any more: one of them was not what this machine's compiler makes.
#[derive(Debug, Default)]
pub struct Refused {
    /// Where they are written down; nowhere if `None`.
    file: Option<PathBuf>,
    keys: Mutex<BTreeSet<String>>,
    /// Whether what ccache sends now is the honest one of such an entry.
    noting: AtomicBool,
}

impl Refused {
    /// Those of the shared cache whose entries ccache keeps in `folder`: the list outlives the folder.
    ///
    /// # Errors
    /// The world: the list is there and cannot be read, so that nobody knows what it forbids.
    pub fn beside(folder: &Path) -> Result<Self> {
        let file = folder.with_extension("refused");
        let keys = Mutex::new(listed(&file)?);
        Ok(Self { file: Some(file), keys, noting: AtomicBool::new(false) })
    }

    /// Until what it gives is dropped, each entry that ccache makes anew is one that is not read any more.
    pub fn noting(&self) -> Noting<'_> {
        self.noting.store(true, Ordering::SeqCst);
        Noting(&self.noting)
    }

    /// Changes the list by `change`, which says whether it did: here, and in the file, with what other runs that share it
    /// have written there since.
    fn change(&self, change: impl Fn(&mut BTreeSet<String>) -> bool) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !change(&mut keys) {
            return;
        }
        let Some(file) = &self.file else { return };
        let written = || -> Result<()> {
            // One for all lists: nothing stays under the name of a cache that is gone.
            let _alone = lock_at(&file.with_file_name("refused.lock"), Duration::from_millis(20), || {})?;
            let mut all = listed(file)?;
            change(&mut all);
            if all.is_empty() {
                return remove_if_there(file);
            }
            let text: String = all.iter().map(|key| format!("{key}\n")).collect();
            write_atomically(file, text.as_bytes())
        };
        // This run knows it in any case; another one draws its own sample.
        let _ = written();
    }

    fn has(&self, key: &str) -> bool {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// Notes an entry that ccache made anew, if it is one of these.
    fn made(&self, key: &str) {
        if !self.noting.load(Ordering::SeqCst) {
            return;
        }
        self.change(|keys| keys.insert(key.to_owned()));
    }

    /// Makes it an entry that is read: this machine has put its own there.
    fn replaced(&self, key: &str) {
        self.change(|keys| keys.remove(key));
    }
}

/// The entries that are listed in `file`.
fn listed(file: &Path) -> Result<BTreeSet<String>> {
    let text = read_if_there(file)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}

/// While it lives, what is made anew is what was false.
#[derive(Debug)]
pub struct Noting<'a>(&'a AtomicBool);

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
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
    /// Failures in a row, of reading and of writing: that one works says nothing of the other.
    row: [AtomicU64; 2],
    /// Slow answers in a row, of both, and when the last of them was there.
    slow: Mutex<[(u64, Option<Instant>); 2]>,
    last: Mutex<String>,
}

const READING: usize = 0;
const WRITING: usize = 1;

impl Tally {
    /// How often in all it failed, or was not asked any more.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    /// Whether it is not asked any more.
    fn has_given_up(&self, at: usize) -> bool {
        let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner)[at].0;
        self.row[at].load(Ordering::SeqCst).max(slow) >= MOST_FAILURES
    }

    /// What `ask` gives, with a note of how long it took for so many `bytes` of it.
    fn timing<T>(
        &self,
        at: usize,
        bytes: impl FnOnce(&T) -> usize,
        ask: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let began = Instant::now();
        let given = ask()?;
        self.timed(at, [began, Instant::now()], bytes(&given));
        Ok(given)
    }

    /// Notes an answer that was asked for at `began`, was there at `ended`, and moved `bytes`. Of several that were asked for
    /// at once, one counts: what held up one held up all.
    fn timed(&self, at: usize, [began, ended]: [Instant; 2], bytes: usize) {
        let took = ended.duration_since(began);
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, before) = &mut slow[at];
        if *count >= MOST_FAILURES {
            return;
        }
        if took < SLOW || bytes >= LITTLE {
            *count = 0;
        } else if before.is_none_or(|before| before <= began) {
            (*count, *before) = (*count + 1, Some(ended));
            if *count >= MOST_FAILURES {
                self.fail(format!("it took {} s for {bytes} bytes, and was slow before that", took.as_secs()));
            }
        }
    }

    fn fail(&self, why: String) {
        self.failed.fetch_add(1, Ordering::SeqCst);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

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
            let end = match (self.has_given_up(READING), self.has_given_up(WRITING)) {
                (true, true) => "; it was not asked any more",
                (true, false) => "; nothing was read from there any more",
                (false, true) => "; nothing was written there any more",
                (false, false) => "",
            };
            events.warn(format!("the shared cache {shown} failed {failed} times, the last time because {last}{end}"));
        }
    }
}

/// Answers one process of ccache to its end.
pub fn serve(visitor: Box<dyn Visitor>, shared: &Shared, tally: &Tally, refused: &Refused) {
    let mut reader = BufReader::new(visitor);
    while let Ok(Some(words)) = resp::command(&mut reader) {
        let reply = reply(&words, shared, tally, refused);
        if resp::answer(reader.get_mut(), &reply).is_err() {
            return;
        }
    }
}

/// What is answered to one command. Commands that only greet are agreed to.
fn reply(words: &[Vec<u8>], shared: &Shared, tally: &Tally, refused: &Refused) -> Reply {
    let word = |at: usize| words.get(at).map(Vec::as_slice).unwrap_or_default();
    let name = word(0).to_ascii_uppercase();
    if !matches!(name.as_slice(), b"GET" | b"SET" | b"EXISTS" | b"DEL") {
        return Reply::Ok;
    }
    let key = std::str::from_utf8(word(1)).unwrap_or_default();
    let Some(key) = key.strip_prefix("ccache:").filter(|key| storage::is_key(key)) else {
        return Reply::Error("no key of ccache".into());
    };
    let at = if name == b"GET" || name == b"EXISTS" { READING } else { WRITING };
    if tally.has_given_up(at) {
        return without(&name);
    }
    let done = match name.as_slice() {
        b"GET" if refused.has(key) => Ok(Reply::Nil),
        b"GET" => get(key, shared, tally),
        b"SET" => {
            refused.made(key);
            put(key, word(2), shared, tally, refused)
        }
        b"EXISTS" if refused.has(key) => Ok(Reply::Number(0)),
        b"EXISTS" if !shared.writes() => Ok(Reply::Number(1)),
        b"EXISTS" => tally.timing(READING, |_| 0, || shared.storage.has(key)).map(|there| Reply::Number(there.into())),
        _ => shared.storage.remove(key).map(|()| Reply::Number(1)),
    };
    match done {
        Ok(reply) => {
            tally.row[at].store(0, Ordering::SeqCst);
            reply
        }
        Err(e) => {
            tally.fail(crate::error::without_secrets(&e.to_string()));
            tally.row[at].fetch_add(1, Ordering::SeqCst);
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
    let size = |entry: &Option<Vec<u8>>| entry.as_ref().map_or(0, Vec::len);
    let Some(bytes) = tally.timing(READING, size, || shared.storage.get(key))? else { return Ok(Reply::Nil) };
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

fn put(key: &str, entry: &[u8], shared: &Shared, tally: &Tally, refused: &Refused) -> io::Result<Reply> {
    if !shared.writes() {
        return Ok(Reply::Ok);
    }
    let ask = || match &shared.secret {
        Some(secret) => shared.storage.put(key, &signed::seal(key, entry, secret)),
        None => shared.storage.put(key, entry),
    };
    tally.timing(WRITING, |_| entry.len(), ask)?;
    tally.written.fetch_add(1, Ordering::SeqCst);
    refused.replaced(key);
    Ok(Reply::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ccache:0b70bc6vgqa19hcncjsocluhakb5ajmi8";

    fn asked(shared: &Shared, tally: &Tally, words: &[&str]) -> Reply {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        reply(&words, shared, tally, &Refused::default())
    }

    #[test]
    fn an_entry_that_was_false_and_cannot_be_written_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let ours = SigningKey::from_bytes(&[7; 32]);
        let storage = || Storage::Folder(dir.path().join("cache"));
        let (name, folder) = (KEY.strip_prefix("ccache:").unwrap(), dir.path().join("shared-x"));
        let keys = || Trust::Keys(vec![ours.verifying_key()]);
        let writer = Shared { storage: storage(), trust: keys(), secret: Some(ours.clone()) };
        let tally = Tally::default();
        asked(&writer, &tally, &["SET", KEY, "false"]);
        let reader = Shared { storage: storage(), trust: keys(), secret: None };
        let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let refused = Refused::beside(&folder).unwrap();
        assert_eq!(reply(&words(&["GET", KEY]), &reader, &tally, &refused), Reply::Value(b"false".to_vec()));
        // What is made at other times is no sign of anything.
        reply(&words(&["SET", KEY, "true"]), &reader, &tally, &refused);
        assert!(!refused.has(name));
        let noting = refused.noting();
        reply(&words(&["SET", KEY, "true"]), &reader, &tally, &refused);
        drop(noting);
        // The next run knows it too.
        let refused = Refused::beside(&folder).unwrap();
        assert_eq!(reply(&words(&["GET", KEY]), &reader, &tally, &refused), Reply::Nil);
        // Who may write puts it right.
        let noting = refused.noting();
        reply(&words(&["SET", KEY, "true"]), &writer, &tally, &refused);
        drop(noting);
        assert_eq!(reply(&words(&["GET", KEY]), &writer, &tally, &refused), Reply::Value(b"true".to_vec()));
    }

    #[test]
    fn a_cache_that_takes_nothing_is_given_nothing_any_more_though_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        // A file where a folder would be: nothing can be written below it.
        std::fs::write(dir.path().join("cache"), "").unwrap();
        let shared =
            Shared { storage: Storage::Folder(dir.path().join("cache")), trust: Trust::Unsigned, secret: None };
        let tally = Tally::default();
        for _ in 0..5 {
            asked(&shared, &tally, &["SET", KEY, "entry"]);
            tally.row[READING].store(0, Ordering::SeqCst);
        }
        assert_eq!(tally.failed(), MOST_FAILURES);
    }

    #[test]
    fn a_cache_that_takes_longer_than_a_compile_is_not_asked_any_more_and_one_that_was_held_up_once_is() {
        let start = Instant::now();
        let tally = |answers: &[(u64, u64, usize)]| {
            let tally = Tally::default();
            for (began, ended, bytes) in answers {
                tally.timed(READING, [began, ended].map(|s| start + Duration::from_secs(*s)), *bytes);
            }
            tally
        };
        let slow = tally(&[(0, 6, 0), (6, 12, 900), (20, 29, 0)]);
        assert_eq!((slow.failed(), slow.row[WRITING].load(Ordering::SeqCst)), (1, 0));
        let heard = crate::event::Heard::default();
        slow.tell("/cache", &heard);
        let said = heard.take_all().concat();
        assert!(said.contains("because it took 9 s for 0 bytes") && said.contains("nothing was read"), "{said}");
        // It is not read.
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::Folder(dir.path().to_owned());
        let shared = Shared { storage, trust: Trust::Unsigned, secret: None };
        asked(&shared, &slow, &["SET", KEY, "entry"]);
        assert_eq!(asked(&shared, &slow, &["GET", KEY]), Reply::Nil);
        for fine in [
            // All at a time.
            &[(0, 6, 0), (1, 7, 0), (2, 8, 0), (3, 9, 0)][..],
            // One that was not slow among them, and large ones.
            &[(0, 6, 0), (6, 12, 0), (12, 13, 0), (13, 19, 0), (19, 25, 0)],
            &[(0, 18, LITTLE), (18, 36, LITTLE), (36, 54, LITTLE)],
            // Objects over a link of 250 kbit/s: each takes a compiler longer.
            &[(0, 6, 190_000), (6, 13, 220_000), (13, 19, 180_000)],
        ] {
            let tally = tally(fine);
            assert_eq!(tally.failed(), 0, "{fine:?}");
            assert_eq!(asked(&shared, &tally, &["GET", KEY]), Reply::Value(b"entry".to_vec()), "{fine:?}");
        }
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
    fn runs_that_share_a_list_of_false_entries_lose_none_of_it_and_one_that_cannot_be_read_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("shared-x");
        let (one, other) = (Refused::beside(&folder).unwrap(), Refused::beside(&folder).unwrap());
        for (run, key) in [(&one, "a"), (&other, "b")] {
            let _noting = run.noting();
            run.made(key);
        }
        let next = Refused::beside(&folder).unwrap();
        assert!(next.has("a") && next.has("b"));
        one.replaced("a");
        let next = Refused::beside(&folder).unwrap();
        assert!(!next.has("a") && next.has("b"));
        let list = folder.with_extension("refused");
        std::fs::remove_file(&list).unwrap();
        std::fs::create_dir(&list).unwrap();
        assert!(Refused::beside(&folder).is_err());
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
