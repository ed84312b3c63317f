//! What the fuzz targets share.

use std::io::{Read, Write};
use std::sync::OnceLock;

use sha2::Digest as _;
use torchmill::inspect::{Depth, Packed, ReadAt, inspect, scan_packed_from};

/// A library with `magic` before any content ends in a description or an error, and so does the
/// content by itself; and in a wheel on a server, of which a verdict reads as little as it can.
pub fn library(magic: &[u8], data: &[u8]) {
    let _ = torchmill::inspect::library(&data.to_vec());
    // The class' name somewhere makes the search for proof run.
    let names = b"N4c10d6detail16LibUVStoreDaemonE\0.?AVLibUVStoreDaemon@detail@c10d@@\0";
    let whole = [magic, data, names].concat();
    let _ = torchmill::inspect::library(&whole);
    let _ = torchmill::inspect::symbols(&whole);
    // Longer than what is always read of one.
    let _ = inspect("fuzz", &Far(archive_of(&[&whole[..], &[0; 40 << 10]].concat())), Depth::Verdict);
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
fn archive_of(library: &[u8]) -> Vec<u8> {
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
    let packed = Packed {
        source: &stream,
        range: 0..length,
        size: plain.len() as u64,
        crc: crc32fast::hash(&plain),
        go_on: &|| Ok(()),
    };
    let say = |beside| {
        let scanned = scan_packed_from(&packed, length * u64::from(*at) / 256, beside);
        // What is wrong first depends on how far one reads at a time.
        scanned.map(|s| (s.hits, s.head)).ok()
    };
    assert_eq!(say(false), say(true));
}

/// What reads the texts of an index ends in a value or an error; what is read is what is read again.
pub fn pages(text: &str) {
    use torchmill::mirror::{ProjectPage, lock::IndexLock, requirements, serve::Form};
    let base = "https://h/simple/x/".parse().unwrap();
    for json in [false, true] {
        if let Ok(files) = torchmill::source::pypi::parse_page(text, json, &base) {
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

/// The files of a wheel with their RECORD, complete.
fn recorded(mut files: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    use torchmill::wheel::record::{line, own_line};
    let path = "demo-1.0.dist-info/RECORD";
    let lines = files.iter().map(|(name, bytes)| line(name, &sha2::Sha256::digest(bytes).into(), bytes.len() as u64));
    let text = lines.collect::<String>() + &own_line(path);
    files.push((path.into(), text.into_bytes()));
    files
}

/// What every wheel has.
fn about() -> Vec<(String, Vec<u8>)> {
    let files: [(&str, &[u8]); 2] = [
        ("demo-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n\n"),
        ("demo-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
    ];
    files.map(|(name, bytes)| (name.into(), bytes.into())).into()
}

/// A zip of these files; none, where its writer refuses a name.
fn zipped(files: &[(String, Vec<u8>)], options: zip::write::SimpleFileOptions) -> Option<Vec<u8>> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name.as_str(), options).ok()?;
        zip.write_all(bytes).ok()?;
    }
    Some(zip.finish().ok()?.into_inner())
}

fn demo(source: &dyn ReadAt) -> torchmill::error::Result<torchmill::wheel::Wheel<'_>> {
    torchmill::wheel::Wheel::open(&"demo-1.0-py3-none-any.whl".parse().unwrap(), source)
}

/// Wheels that are right: as it is, packed, and in the long form of sizes.
fn right_wheels() -> &'static [Vec<u8>] {
    use zip::{CompressionMethod, write::SimpleFileOptions};
    static WHEELS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    WHEELS.get_or_init(|| {
        let mut files = about();
        files.push(("demo/__init__.py".into(), b"x = 1\n".repeat(20)));
        let files = recorded(files);
        let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let packed = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        let wheels = [plain, packed, packed.large_file(true)].map(|options| zipped(&files, options).unwrap());
        for wheel in &wheels {
            assert_eq!(demo(wheel).expect("it is right").faults().unwrap(), Vec::<String>::new());
        }
        wheels.into()
    })
}

/// A wheel with members of `data`'s choice: names and bytes in turn, each up to a byte that no UTF-8 has.
fn wheel_of(data: &[u8]) -> Option<Vec<u8>> {
    let mut parts = data.split(|&b| b == 0xff);
    let mut files = about();
    while let Some(name) = parts.next() {
        let name = String::from_utf8_lossy(name).into_owned();
        let bytes = parts.next().unwrap_or_default().to_vec();
        match files.iter_mut().find(|(n, _)| *n == name) {
            Some(file) => file.1 = bytes,
            None => files.push((name, bytes)),
        }
    }
    let own = files.iter().position(|(name, _)| name == "demo-1.0.dist-info/RECORD");
    let files = if own.is_some() { files } else { recorded(files) };
    zipped(&files, zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored))
}

/// What the strict reader takes, another reader reads the same, and no file of it leaves its folder. The first byte
/// says what the others are: an archive, members of one, or changes in a wheel that is right.
pub fn wheel(data: &[u8]) {
    let bytes = match data {
        [0, rest @ ..] => rest.to_vec(),
        [4, rest @ ..] => match wheel_of(rest) {
            Some(bytes) => bytes,
            None => return,
        },
        [which, changes @ ..] => {
            let wheels = right_wheels();
            let mut bytes = wheels[(usize::from(*which) - 1) % wheels.len()].clone();
            // Place and byte in turn; beyond the end, a byte more.
            for change in changes.chunks_exact(3) {
                let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % (bytes.len() + 1);
                if place == bytes.len() { bytes.push(change[2]) } else { bytes[place] = change[2] }
            }
            bytes
        }
        [] => return,
    };
    if let Ok(wheel) = demo(&bytes)
        && wheel.faults().is_ok_and(|faults| faults.is_empty())
    {
        let mut folded = std::collections::BTreeSet::new();
        for member in wheel.members() {
            assert!(!member.name.starts_with('/') && !member.name.contains(['\\', '\0', ':']), "{:?}", member.name);
            assert!(member.name.split('/').all(|part| !["..", "."].contains(&part)), "{:?}", member.name);
            assert!(folded.insert(member.name.to_lowercase()), "{:?} twice", member.name);
        }
    }
    let Ok(archive) = torchmill::wheel::Archive::open(&bytes) else { return };
    let mut other = zip::ZipArchive::new(std::io::Cursor::new(&bytes)).expect("what is taken is an archive to others");
    assert_eq!(archive.members().len(), other.len());
    for member in archive.members().iter().filter(|m| m.size < 1 << 20) {
        let mut ours = Vec::new();
        if archive.read(member).read_to_end(&mut ours).is_err() {
            continue;
        }
        let mut theirs = Vec::new();
        other.by_name(&member.name).expect("by its name").read_to_end(&mut theirs).expect("its bytes");
        assert_eq!(ours, theirs, "{}", member.name);
    }
}

/// No envelope but the one that was signed counts as signed.
pub fn dsse(data: &[u8]) {
    use torchmill::artifact::dsse::Envelope;
    use torchmill::artifact::provenance::Statement;
    let _ = Statement::parse(data, "fuzz")
        .map(|s| (s.recipe_sha256().len(), s.toolchain_sha256().len(), s.builder().len()));
    let Ok(envelope) = Envelope::parse(data, "fuzz") else { return };
    let Ok(payload) = envelope.payload("fuzz") else { return };
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    assert!(envelope.signed_by(&payload, &[key.verifying_key()]).is_none(), "a signature that nobody made");
    let signed = Envelope::sign(&payload, &key);
    assert!(signed.signed_by(&payload, &[key.verifying_key()]).is_some());
    let again = Envelope::parse(&signed.to_bytes().unwrap(), "fuzz").unwrap();
    assert_eq!(again, signed);
}

/// Any text of a recipe, in a workspace of its own.
pub fn recipe(data: &[u8]) {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        for name in ["recipes", "patches"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        // What the project's own recipes are made on.
        for (name, text) in [
            ("_common", include_str!("../../../recipes/_common.toml")),
            ("_git", include_str!("../../../recipes/_git.toml")),
        ] {
            std::fs::write(dir.path().join(format!("recipes/{name}.toml")), text).unwrap();
        }
        dir
    });
    std::fs::write(dir.path().join("recipes/fuzz.toml"), data).unwrap();
    let workspace = torchmill::recipe::Workspace { root: dir.path().to_owned() };
    if let Err(e) = workspace.load("fuzz") {
        assert!(!e.what().is_empty());
    }
}

/// RECORD: what is read of it is written again and read the same.
pub fn record(text: &str) {
    use torchmill::wheel::record::{Digest, Entry, line, own_line, parse};
    let Ok(entries) = parse(text) else { return };
    let again: String = entries
        .iter()
        .map(|e| match (&e.digest, e.size) {
            (Some(Digest::Sha256(digest)), Some(size)) => line(&e.path, digest, size),
            _ => own_line(&e.path),
        })
        .collect();
    // An empty path, and one that begins with a mark, are lines that are none once they are alone.
    if !entries.is_empty() && !entries.iter().any(|e| e.path.is_empty() || e.path.starts_with('\u{feff}')) {
        let paths = |entries: &[Entry]| entries.iter().map(|e| e.path.clone()).collect::<Vec<_>>();
        assert_eq!(parse(&again).map(|e| paths(&e)), Ok(paths(&entries)));
    }
}

/// METADATA, file names and entry points: no value that counts goes over a line, and no program leaves its folder,
/// whatever stands there.
pub fn metadata(data: &[u8]) {
    use torchmill::wheel::{Metadata, Name, entry_points, fit, target};
    for program in entry_points::programs(data).unwrap_or_default() {
        assert!(!program.is_empty() && !program.contains(['/', '\\', '\n', '\0']) && program != "..", "{program:?}");
    }
    if let Ok(headers) = Metadata::parse(data) {
        for key in ["Name", "Version", "Requires-Python"] {
            if let Ok(value) = headers.one(key) {
                assert!(!value.contains(['\n', '\r', '\0']));
                assert_eq!(headers.all(key).count(), 1);
            }
        }
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(name) = text.parse::<Name>() {
        assert!(name.parsed_version().is_some());
        let _ = fit(&text, "3.11", torchmill::recipe::System::Linux, "x86_64");
    }
    let _ = target(&text, "demo-1.0.data");
}

/// A policy that is read demands something.
pub fn policy(text: &str) {
    // Keys are files, and one is there.
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        use ed25519_dalek::pkcs8::{EncodePublicKey as _, spki::der::pem::LineEnding};
        let dir = tempfile::tempdir().unwrap();
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        std::fs::write(dir.path().join("team.pub"), key.to_public_key_pem(LineEnding::LF).unwrap()).unwrap();
        dir
    });
    if let Ok(policy) = torchmill::artifact::trust::Policy::parse(text, dir.path(), "fuzz") {
        assert!(policy.demands());
    }
}

/// A lock that is read has digests only, and is written as it was read.
pub fn lock(text: &str) {
    use torchmill::recipe::{Lock, is_sha256};
    let path = std::path::Path::new("fuzz.lock");
    let Ok(lock) = Lock::parse(text, path, "lock") else { return };
    assert!(lock.source.values().all(|l| is_sha256(&l.sha256)));
    let written = lock.to_toml("fuzz").expect("what was read is written");
    assert_eq!(Lock::parse(&written, path, "lock").ok(), Some(lock));
}

/// What an archive of objects says of itself has digests only, an entry that is taken leaves no folder, and what comes
/// through the door of a shared cache is a command, or refused.
pub fn objects(data: &[u8]) {
    use torchmill::stage::{objects::About, shared::resp};
    use torchmill::toolchain::objects::{Entry, is_plain};
    if let Ok(about) = About::parse(data, "fuzz") {
        assert!(about.headers.values().all(|digest| digest.len() == 64));
    }
    if let Ok(entry) = serde_json::from_slice::<Entry>(data)
        && entry.fault().is_none()
    {
        assert!(is_plain(&entry.output) && entry.object.len() == 64 && entry.reads.len() == 64);
        assert!(entry.output.split('/').all(|part| !["", ".", ".."].contains(&part)));
    }
    let mut rest = data;
    while let Ok(Some(words)) = resp::command(&mut rest) {
        assert!(words.iter().map(Vec::len).sum::<usize>() <= data.len());
    }
}
