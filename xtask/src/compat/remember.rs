//! Symbol tables of a torch's libraries, remembered by the digest of the library: unpacking half a gigabyte for
//! some names is done once. Each says of which library it is, and the digest of itself; one that does not is none.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use torchmill_bytes::digest::sha256 as digest;

use crate::error::Result;
use crate::inspect::{Format, Names, Symbols};
use crate::platform;
use crate::store::{Store, write_atomically};

/// Raised when the reader of symbols finds more or less than before: what was remembered does not count then.
const VERSION: u32 = 1;
/// Largest table that is read back, bytes unpacked.
const LARGEST: u64 = 1 << 30;
/// The same, bytes packed.
const LARGEST_PACKED: u64 = 1 << 28;

/// A folder of tables; none where there is no place for one.
#[derive(Debug, Clone, Default)]
pub struct Memory(Option<PathBuf>);

#[derive(Serialize, Deserialize)]
struct Kept {
    format: Format,
    machine: String,
    name: Option<String>,
    needed: Vec<String>,
    reexported: Vec<String>,
    defines: std::collections::BTreeSet<String>,
    exports: String,
}

impl Memory {
    /// The one in the store.
    pub fn of(store: &Store) -> Self {
        Self(Some(store.cache("symbols")))
    }

    fn path(&self, sha256: &[u8; 32]) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(format!("{}.v{VERSION}", hex::encode(sha256))))
    }

    /// What the library with this digest gives; nothing of what it takes. `None` where it was not seen yet.
    pub fn get(&self, sha256: &[u8; 32]) -> Option<Vec<Symbols>> {
        let file = platform::read_regular(&self.path(sha256)?, LARGEST_PACKED).ok()?;
        let reader = std::io::Read::take(zstd::Decoder::new(judged(&file, sha256)?).ok()?, LARGEST);
        let kept: Vec<Kept> = serde_json::from_reader(std::io::BufReader::with_capacity(1 << 18, reader)).ok()?;
        let symbols = |k: Kept| Symbols {
            format: k.format,
            machine: k.machine,
            name: k.name,
            needed: k.needed,
            reexported: k.reexported,
            exports: Names::read(k.exports),
            imports: Vec::new(),
            defines: k.defines,
            versions: std::collections::BTreeSet::new(),
        };
        Some(kept.into_iter().map(symbols).collect())
    }

    /// Remembers it. That this fails costs time later, and nothing else.
    pub fn put(&self, sha256: &[u8; 32], found: &[Symbols]) {
        if let Some(path) = self.path(sha256) {
            let _ = write(&path, sha256, found);
        }
    }
}

/// What stands before a table: of which library it is, and its digest.
fn head(library: &[u8; 32], table: &[u8]) -> String {
    format!("{} {}\n", hex::encode(library), digest(table))
}

/// The table in a file, packed, if it is the one of this library that was written.
fn judged<'f>(file: &'f [u8], library: &[u8; 32]) -> Option<&'f [u8]> {
    let (said, table) = file.split_at(file.iter().position(|b| *b == b'\n')? + 1);
    (said == head(library, table).as_bytes()).then_some(table)
}

fn write(path: &Path, library: &[u8; 32], found: &[Symbols]) -> Result<()> {
    let kept: Vec<Kept> = found
        .iter()
        .map(|s| Kept {
            format: s.format,
            machine: s.machine.clone(),
            name: s.name.clone(),
            needed: s.needed.clone(),
            reexported: s.reexported.clone(),
            defines: s.defines.clone(),
            exports: s.exports.text().to_owned(),
        })
        .collect();
    let mut packer = zstd::Encoder::new(Vec::new(), 3)?;
    serde_json::to_writer(&mut packer, &kept).map_err(std::io::Error::other)?;
    let table = packer.finish()?;
    write_atomically(path, &[head(library, &table).as_bytes(), table.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_got_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory(Some(dir.path().join("symbols")));
        let found = Symbols {
            format: Format::Elf,
            machine: "x86_64".into(),
            name: Some("libc10.so".into()),
            needed: vec!["libc.so.6".into()],
            reexported: Vec::new(),
            exports: Names::new([&b"b"[..], b"a"].into_iter()),
            imports: Vec::new(),
            defines: Default::default(),
            versions: Default::default(),
        };
        assert!(memory.get(&[1; 32]).is_none());
        memory.put(&[1; 32], &[found]);
        let got = memory.get(&[1; 32]).unwrap();
        assert!(got[0].exports.contains("a") && got[0].needed == ["libc.so.6"]);
        let path = memory.path(&[1; 32]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for n in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[n] ^= 1;
            std::fs::write(&path, changed).unwrap();
            assert!(memory.get(&[1; 32]).is_none(), "byte {n}");
            std::fs::write(&path, &bytes[..n]).unwrap();
            assert!(memory.get(&[1; 32]).is_none(), "{n} bytes");
        }
        // As an earlier version wrote it; and that of another library.
        std::fs::write(&path, judged(&bytes, &[1; 32]).unwrap()).unwrap();
        assert!(memory.get(&[1; 32]).is_none());
        std::fs::write(memory.path(&[2; 32]).unwrap(), &bytes).unwrap();
        assert!(memory.get(&[2; 32]).is_none());
        std::fs::write(&path, &bytes).unwrap();
        assert!(memory.get(&[1; 32]).is_some());
        assert!(Memory::default().get(&[1; 32]).is_none());
    }
}
