//! Names of C++ classes that show what a library holds. A class with virtual functions leaves its
//! mangled name in the binary (type info), and that survives stripping; an error's text does not
//! come from there, so it never counts.

use aho_corasick::{AhoCorasick, MatchKind};
use serde::Serialize;

/// What a class stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// c10d's libuv store server.
    LibuvStore,
    /// c10d's other store server. Where its name is missing, that says nothing: Debian's 2.6.0 and PyPI's 2.15.0 for Linux
    /// have the server and not this name.
    LegacyStore,
    /// ProcessGroupGloo.
    Gloo,
    /// Gloo's TCP transport.
    GlooTcp,
    /// Gloo's TLS transport.
    GlooTls,
    /// Gloo's libuv transport.
    GlooUv,
    /// Gloo's InfiniBand transport.
    GlooIbverbs,
    /// ProcessGroupNCCL.
    Nccl,
    /// ProcessGroupMPI.
    Mpi,
    /// ProcessGroupUCC.
    Ucc,
    /// The error of a store that was asked for libuv in vain: a text, and in every build with `USE_DISTRIBUTED`.
    ErrorText,
    /// The flags of the C++ compiler, as `torch.__config__.show()` tells them (`CXX_FLAGS`): a place in their text, which
    /// PyTorch's list file gives this define. No class, but a constant.
    CxxFlags,
    /// A function of c10 that takes a `std::string` of the C++11 ABI (libstdc++).
    NewAbi,
    /// The same with the ABI before C++11.
    OldAbi,
}

/// Class, its name by the Itanium ABI (ELF, Mach-O, mingw), its type descriptor's name by MSVC.
const NAMES: &[(Class, &str, &str)] = &[
    (Class::LibuvStore, "N4c10d6detail16LibUVStoreDaemonE", ".?AVLibUVStoreDaemon@detail@c10d@@"),
    (Class::LegacyStore, "N4c10d6detail20TCPStoreMasterDaemonE", ".?AVTCPStoreMasterDaemon@detail@c10d@@"),
    (Class::Gloo, "N4c10d16ProcessGroupGlooE", ".?AVProcessGroupGloo@c10d@@"),
    (Class::GlooTcp, "N4gloo9transport3tcp6DeviceE", ".?AVDevice@tcp@transport@gloo@@"),
    (Class::GlooTls, "N4gloo9transport3tcp3tls6DeviceE", ".?AVDevice@tls@tcp@transport@gloo@@"),
    (Class::GlooUv, "N4gloo9transport2uv6DeviceE", ".?AVDevice@uv@transport@gloo@@"),
    (Class::GlooIbverbs, "N4gloo9transport7ibverbs6DeviceE", ".?AVDevice@ibverbs@transport@gloo@@"),
    (Class::Nccl, "N4c10d16ProcessGroupNCCLE", ".?AVProcessGroupNCCL@c10d@@"),
    (Class::Mpi, "N4c10d15ProcessGroupMPIE", ".?AVProcessGroupMPI@c10d@@"),
    (Class::Ucc, "N4c10d15ProcessGroupUCCE", ".?AVProcessGroupUCC@c10d@@"),
];

/// Other texts that tell something, each by itself.
const TEXTS: &[(Class, &str)] = &[
    (Class::ErrorText, "use_libuv was requested but PyTorch was bu"),
    (Class::CxxFlags, " -DUSE_PTHREADPOOL"),
    (Class::NewAbi, "_ZN3c106detail14torchCheckFailEPKcS2_jRKNSt7__cxx1112basic_string"),
    (Class::OldAbi, "_ZN3c106detail14torchCheckFailEPKcS2_jRKSs"),
];

/// One place where a class' name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The class that the name is of.
    pub class: Class,
    /// Whether it is MSVC's form of the name.
    pub msvc: bool,
    /// Offset of the name's first byte in the file.
    pub offset: u64,
}

/// Most places of one name that are kept: a library that repeats it more often is up to something.
const MOST_HITS: u16 = 512;

/// Finds class names in bytes that come in pieces.
pub struct Scanner {
    finder: AhoCorasick,
    longest: usize,
    kept: Vec<u8>,
    at: u64,
    hits: Vec<Hit>,
    /// How often each pattern was found, up to [`MOST_HITS`].
    found: Vec<u16>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner that has seen nothing.
    pub fn new() -> Self {
        let texts = TEXTS.iter().map(|(_, text)| *text);
        let patterns: Vec<&str> = NAMES.iter().flat_map(|(_, i, m)| [*i, *m]).chain(texts).collect();
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(&patterns)
            .unwrap_or_else(|e| unreachable!("a constant table of names: {e}"));
        let longest = patterns.iter().map(|p| p.len()).max().unwrap_or(1);
        let found = vec![0; patterns.len()];
        Self { finder, longest, kept: Vec::new(), at: 0, hits: Vec::new(), found }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        // A name may begin at the end of the piece before: look at the seam by itself.
        if !self.kept.is_empty() {
            let head = &bytes[..bytes.len().min(self.longest)];
            let seam = [&self.kept[..], head].concat();
            let (start, end) = (self.at - self.kept.len() as u64, self.kept.len());
            self.search(&seam, start, |from, to| from < end && to > end);
        }
        self.search(bytes, self.at, |_, _| true);
        self.at += bytes.len() as u64;
        let keep = self.longest - 1;
        if bytes.len() >= keep {
            self.kept = bytes[bytes.len() - keep..].to_vec();
        } else {
            self.kept.extend_from_slice(bytes);
            let excess = self.kept.len().saturating_sub(keep);
            self.kept.drain(..excess);
        }
    }

    fn search(&mut self, bytes: &[u8], base: u64, counts: impl Fn(usize, usize) -> bool) {
        for m in self.finder.find_iter(bytes) {
            let index = m.pattern().as_usize();
            if counts(m.start(), m.end()) && self.found[index] < MOST_HITS {
                self.found[index] += 1;
                let (class, msvc) = match index.checked_sub(2 * NAMES.len()) {
                    Some(text) => (TEXTS[text].0, false),
                    None => (NAMES[index / 2].0, index % 2 == 1),
                };
                let hit = Hit { class, msvc, offset: base + m.start() as u64 };
                self.hits.push(hit);
            }
        }
    }

    /// How many bytes of a name, at most, can follow a place inside it.
    pub fn seam(&self) -> usize {
        self.longest - 1
    }

    /// Adds what another scanner found elsewhere in the same file.
    pub fn add(&mut self, hits: impl Iterator<Item = Hit>) {
        self.hits.extend(hits);
    }

    /// All places, in the order that they were found.
    pub fn finish(self) -> Vec<Hit> {
        self.hits
    }
}

/// Symbol names that a class of this mangled name leaves: name of the type, type info, virtual table.
pub fn itanium_symbols(class: Class) -> [String; 3] {
    let name = NAMES.iter().find(|(c, ..)| *c == class).map_or("", |(_, name, _)| name);
    ["_ZTS", "_ZTI", "_ZTV"].map(|prefix| format!("{prefix}{name}"))
}

/// The bytes that type info of `class` holds, by the Itanium ABI and by MSVC.
pub fn names(class: Class) -> (&'static str, &'static str) {
    NAMES.iter().find(|(c, ..)| *c == class).map_or(("", ""), |(_, itanium, msvc)| (itanium, msvc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_is_found_once_however_the_bytes_are_cut(before in 0usize..300, cuts in prop::collection::vec(1usize..60, 1..20)) {
            let mut bytes = vec![b'x'; before];
            bytes.extend_from_slice(names(Class::LibuvStore).0.as_bytes());
            bytes.extend_from_slice(&[0; 90]);
            let mut scanner = Scanner::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                scanner.feed(now);
                rest = later;
            }
            prop_assert_eq!(scanner.finish(), vec![Hit { class: Class::LibuvStore, msvc: false, offset: before as u64 }]);
        }
    }
}
