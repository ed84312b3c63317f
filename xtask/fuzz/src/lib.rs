//! What the fuzz targets share.

use std::io::{Read, Write};
use std::sync::OnceLock;

use xtask::inspect::{Depth, Packed, ReadAt, inspect, scan_packed_from};

/// A library with `magic` before any content ends in a description or an error, and so does the
/// content by itself; and in a wheel on a server, of which a verdict reads as little as it can.
pub fn library(magic: &[u8], data: &[u8]) {
    let _ = xtask::inspect::library(&data.to_vec());
    // The class' name somewhere makes the search for proof run.
    let names = b"N4c10d6detail16LibUVStoreDaemonE\0.?AVLibUVStoreDaemon@detail@c10d@@\0";
    let whole = [magic, data, names].concat();
    let _ = xtask::inspect::library(&whole);
    // Longer than what is always read of one.
    let _ = inspect("fuzz", &Far(wheel(&[&whole[..], &[0; 40 << 10]].concat())), Depth::Verdict);
}

/// Bytes that come from afar.
struct Far(Vec<u8>);

impl ReadAt for Far {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn is_near(&self) -> bool {
        false
    }
}

/// An archive with nothing but the store's library.
fn wheel(library: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("torch/lib/torch_cpu.dll", options).unwrap();
    zip.write_all(library).unwrap();
    zip.finish().unwrap().into_inner()
}

/// Bytes of the shape of machine code: few values, with repeats from a little before, and a name here and there.
fn code(mut seed: u32) -> Vec<u8> {
    let mut random = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    let mut out = Vec::with_capacity(1 << 20);
    while out.len() < 1 << 20 {
        match random(64) {
            0..20 if out.len() > 100 => {
                let back = 1 + random(out.len().min(32 << 10) as u32 - 1) as usize;
                for _ in 0..3 + random(40) {
                    out.push(out[out.len() - back]);
                }
            }
            20 => out.extend_from_slice(b"N4c10d6detail16LibUVStoreDaemonE"),
            _ => out.extend((0..1 + random(8)).map(|_| random(48) as u8).collect::<Vec<u8>>()),
        }
    }
    out
}

/// Streams of several compression levels, stored blocks among them.
fn streams() -> &'static [Vec<u8>] {
    static STREAMS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    STREAMS.get_or_init(|| {
        let pack = |level: u32| {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(&code(level)).unwrap();
            encoder.finish().unwrap()
        };
        [0, 1, 6, 9].map(pack).into()
    })
}

/// `data` chooses a stream, where its second half is begun, and what is changed in it: place and byte in turn.
pub fn inflate(data: &[u8]) {
    let [which, at, changes @ ..] = data else { return };
    let mut stream = streams()[usize::from(*which) % streams().len()].clone();
    for change in changes.chunks_exact(4) {
        let place = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize % stream.len();
        stream[place] = change[3];
    }
    // Size and checksum as if it were meant so, as far as it can be unpacked: else nothing but they would be looked at.
    let mut plain = Vec::new();
    let _ = flate2::read::DeflateDecoder::new(&stream[..]).take(64 << 20).read_to_end(&mut plain);
    let length = stream.len() as u64;
    let packed =
        Packed { source: &stream, range: 0..length, size: plain.len() as u64, crc: crc32fast::hash(&plain) };
    let say = |beside| {
        let scanned = scan_packed_from(&packed, length * u64::from(*at) / 256, beside);
        // What is wrong first depends on how far one reads at a time.
        scanned.map(|s| (s.hits, s.head)).ok()
    };
    assert_eq!(say(false), say(true));
}

/// What reads the texts of an index ends in a value or an error; what is read is what is read again.
pub fn pages(text: &str) {
    use xtask::mirror::{ProjectPage, lock::IndexLock, requirements, serve::Form};
    let base = "https://h/simple/x/".parse().unwrap();
    for json in [false, true] {
        if let Ok(files) = xtask::source::pypi::parse_page(text, json, &base) {
            assert!(files.iter().all(|f| !f.url.starts_with("http://")));
        }
    }
    if let Ok(page) = serde_json::from_str::<ProjectPage>(text) {
        let html = page.html();
        assert!(!html.contains("<script"), "{html}");
        let again = serde_json::to_string(&page).unwrap();
        assert_eq!(serde_json::from_str::<ProjectPage>(&again).unwrap(), page);
    }
    if let Ok(lock) = IndexLock::parse(text) {
        assert_eq!(IndexLock::parse(&lock.render().unwrap()).unwrap(), lock);
    }
    let _ = requirements::parse(text);
    let _ = Form::wanted(text);
}
