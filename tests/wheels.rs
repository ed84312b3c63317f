//! The strict reader of wheels, held against a corpus of altered ones: what is right is taken, what
//! readers understand differently is not; and what is taken, pip and uv install alike, file by file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use super::support::zips::{End, Part, archive, deflated, extra, stored};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256, Sha384, Sha512};
use torchmill::error::Exit;
use torchmill::wheel::{Name, Wheel, entry_points, target};

const FILE: &str = "demo-1.0-py3-none-any.whl";
const INFO: &str = "demo-1.0.dist-info";
const METADATA: &str = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n\nA demo.\n";
const WHEEL: &str = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";

/// What is expected of an altered wheel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Right,
    Wrong,
    /// A byte was changed: whatever it is, it is not two things.
    Either,
}

struct Case {
    label: String,
    file: String,
    bytes: Vec<u8>,
    is: Is,
}

#[derive(Default)]
struct Corpus(Vec<Case>);

fn line(name: &str, data: &[u8]) -> String {
    let name = if name.contains([',', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() };
    format!("{name},sha256={},{}\n", URL_SAFE_NO_PAD.encode(Sha256::digest(data)), data.len())
}

/// The files of a wheel, RECORD not among them.
fn files() -> Vec<(String, Vec<u8>)> {
    vec![
        ("demo/__init__.py".into(), b"x = 1\n".repeat(40)),
        ("demo/data.bin".into(), vec![7; 3000]),
        (format!("{INFO}/METADATA"), METADATA.into()),
        (format!("{INFO}/WHEEL"), WHEEL.into()),
    ]
}

fn record(files: &[(String, Vec<u8>)]) -> String {
    files.iter().map(|(n, d)| line(n, d)).collect::<String>() + &format!("{INFO}/RECORD,,\n")
}

fn parts(files: &[(String, Vec<u8>)], record: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = files.iter().map(|(n, d)| deflated(n, d)).collect();
    parts.push(deflated(&format!("{INFO}/RECORD"), record.as_bytes()));
    parts
}

fn plain() -> Vec<Part> {
    parts(&files(), &record(&files()))
}

impl Corpus {
    fn bytes(&mut self, label: impl Into<String>, is: Is, bytes: Vec<u8>) {
        self.0.push(Case { label: label.into(), file: FILE.into(), bytes, is });
    }

    fn parts(&mut self, label: impl Into<String>, is: Is, change: impl FnOnce(&mut Vec<Part>)) {
        let mut parts = plain();
        change(&mut parts);
        self.bytes(label, is, archive(&parts, |_, _| {}));
    }

    fn first(&mut self, label: impl Into<String>, is: Is, change: impl FnOnce(&mut Part)) {
        self.parts(label, is, |p| change(&mut p[0]));
    }

    /// With more files, which RECORD knows.
    fn with(&mut self, label: impl Into<String>, is: Is, more: &[(&str, &[u8])]) {
        let mut files = files();
        files.extend(more.iter().map(|(n, d)| ((*n).to_owned(), d.to_vec())));
        self.bytes(label, is, archive(&parts(&files, &record(&files)), |_, _| {}));
    }

    fn files(&mut self, label: impl Into<String>, is: Is, change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) {
        let mut files = files();
        change(&mut files);
        self.bytes(label, is, archive(&parts(&files, &record(&files)), |_, _| {}));
    }

    fn record(&mut self, label: impl Into<String>, is: Is, record: &str) {
        self.bytes(label, is, archive(&parts(&files(), record), |_, _| {}));
    }
}

fn names(c: &mut Corpus) {
    for good in [
        "demo/a.py",
        "demo/b c.txt",
        "demo/größe.txt",
        "demo/日本.txt",
        "demo/.hidden",
        "demo/a..b",
        "demo/comma,name",
        "demo/con_.py",
        "top.py",
        "demo/a+b=c@d%20.txt",
        "demo/x'y.txt",
        "demo/(1)[2]{3}.txt",
        "demo/~tilde",
        "demo/deep/er/and/deep/er/x",
    ] {
        c.with(format!("name {good}"), Is::Right, &[(good, b"1")]);
    }
    for bad in [
        "/etc/passwd",
        "//x/y",
        "../up.py",
        "demo/../../up.py",
        "demo/./a.py",
        "./demo/b.py",
        "demo//b.py",
        "demo/..",
        "demo\\b.py",
        "..\\up.py",
        "C:\\x.py",
        "C:x.py",
        "\\\\host\\x",
        "demo/nul",
        "demo/NUL.txt",
        "aux/x.py",
        "demo/com1.py",
        "demo/LPT9",
        "demo/a.",
        "demo/a ",
        "demo./a.py",
        "demo/a:stream",
        "demo/a\0.py",
        "demo/a\n.py",
        "demo/a\r.py",
        "demo/\x1b[2J.py",
        "demo/a\u{7f}",
        "demo/a\u{85}b",
        "demo/a\u{2028}b",
        "\u{feff}demo/a",
        "demo/a?",
        "demo/a*b",
        "demo/a|b",
        "demo/<a>",
        "demo/\"a\"",
        "",
    ] {
        c.with(format!("name {bad:?}"), Is::Wrong, &[(bad, b"1")]);
    }
    let long = format!("demo/{}", "a".repeat(256));
    c.with("a segment of 256 bytes", Is::Wrong, &[(&long, b"1")]);
    for (a, b) in [
        ("demo/a.py", "demo/a.py"),
        ("demo/a.py", "demo/A.py"),
        ("demo/a.py", "DEMO/a.py"),
        ("demo/\u{e9}", "demo/e\u{301}"),
        ("demo/straße", "demo/STRASSE"),
        ("demo/x", "demo/x/y"),
        ("demo/x/y", "demo/X"),
        ("demo/ſ", "demo/s"),
        // What ZFS takes for one where it is told to, and Linux in folders without case.
        ("demo/ﬁle", "demo/file"),
        ("demo/\u{ff41}.py", "demo/a.py"),
        ("demo/a\u{ff0f}b", "demo/a/b"),
        ("demo/x\u{fe0f}", "demo/x"),
        ("demo/x\u{34f}", "demo/X"),
        ("demo/\u{3164}x", "demo/x"),
    ] {
        c.with(format!("twins {a} and {b}"), Is::Wrong, &[(a, b"1"), (b, b"2")]);
    }
    c.with("a file called as a folder of others", Is::Wrong, &[("demo", b"1")]);
    c.parts("a name that is not UTF-8", Is::Wrong, |p| p[0].name = b"demo/\xff.py".to_vec());
    c.first("a name in UTF-8 that is not said to be", Is::Wrong, |p| {
        p.name = "demo/ä.py".into();
        p.flags = 0;
    });
    c.parts("a folder", Is::Right, |p| p.insert(0, Part { attributes: 0o40755 << 16 | 0x10, ..stored("demo/", b"") }));
    c.parts("a folder with bytes", Is::Wrong, |p| p.insert(0, stored("demo/", b"x")));
    c.parts("a folder that is a file by its mode", Is::Wrong, |p| p.insert(0, stored("demo/", b"")));
}

fn headers(c: &mut Corpus) {
    type Change = fn(&mut Part);
    let wrong: [(&str, Change); 39] = [
        ("another name in front", |p| p.local_name = Some(b"demo/__main__.py".to_vec())),
        ("a shorter name in front", |p| p.local_name = Some(b"demo/__init__.p".to_vec())),
        ("another checksum in front", |p| p.local_crc = Some(1)),
        ("no checksum in front", |p| p.local_crc = Some(0)),
        ("a wrong checksum in both", |p| p.crc ^= 1),
        ("another size in front", |p| p.local_size = Some(9)),
        ("another packed size in front", |p| p.local_stated = Some(9)),
        ("a larger size", |p| p.size += 1),
        ("a smaller size", |p| p.size -= 1),
        ("a larger packed size", |p| p.stated = Some(p.packed.len() as u32 + 1)),
        ("a smaller packed size", |p| p.stated = Some(p.packed.len() as u32 - 1)),
        ("a size that cannot be", |p| p.size = 4_000_000_000),
        ("another method in front", |p| p.local_method = Some(0)),
        ("said to be stored", |p| p.method = 0),
        ("encrypted", |p| p.flags = 1),
        ("encrypted in front", |p| p.local_flags = Some(1)),
        ("sizes follow, in front alone", |p| p.local_flags = Some(8)),
        ("sizes follow, and do not", |p| p.flags = 8),
        ("UTF-8 in front alone", |p| p.local_flags = Some(1 << 11)),
        ("a second name", |p| p.extra = extra(0x7075, b"\x01\0\0\0\0demo/other.py")),
        ("a second name in front", |p| p.local_extra = extra(0x7075, b"\x01\0\0\0\0demo/other.py")),
        ("AES", |p| p.extra = extra(0x9901, &[1, 0, b'A', b'E', 3, 8, 0])),
        ("an extra field that is cut off", |p| p.extra = vec![1, 2, 9, 0, 1]),
        ("an extra field of two bytes", |p| p.local_extra = vec![1, 2]),
        ("a ZIP64 field that nobody asks for", |p| p.extra = extra(1, &[0; 8])),
        ("ZIP64 sizes that are not there", |p| p.size = u32::MAX),
        ("two ZIP64 fields", |p| p.local_extra = [extra(1, &[0; 16]), extra(1, &[1; 16])].concat()),
        ("other sizes in a ZIP64 field in front", |p| p.local_extra = extra(1, &[0; 16])),
        ("half a ZIP64 field in front", |p| p.local_extra = extra(1, &u64::from(p.size).to_le_bytes())),
        ("an empty ZIP64 field in front", |p| p.local_extra = extra(1, &[])),
        ("two extra fields of one kind", |p| p.extra = extra(0x5455, &[1, 0, 0, 0, 0]).repeat(2)),
        ("two extra fields of one kind in front", |p| p.local_extra = extra(0x5455, &[1, 0, 0, 0, 0]).repeat(2)),
        ("a comment in an extra field", |p| p.extra = extra(0x6375, &[1])),
        ("a comment", |p| p.comment = b"hello".to_vec()),
        ("another part", |p| p.disk = 1),
        ("its place past the end", |p| p.offset = Some(1 << 30)),
        ("its place one off", |p| p.offset = Some(1)),
        ("bytes behind it", |p| p.behind = b"hidden".to_vec()),
        ("a whole header behind it", |p| p.behind = [b"PK\x03\x04".to_vec(), vec![0; 26]].concat()),
    ];
    for (label, change) in wrong {
        c.first(label, Is::Wrong, change);
    }
    for method in [1, 6, 9, 12, 14, 19, 20, 93, 95, 97, 98, 99, 255] {
        c.first(format!("method {method}"), Is::Wrong, |p| p.method = method);
    }
    for bit in 0..16 {
        // How hard deflate tried (1, 2) and UTF-8 (11) mean nothing here.
        let is = if [1, 2, 11].contains(&bit) { Is::Right } else { Is::Wrong };
        c.first(format!("flag {bit}"), is, |p| p.flags |= 1 << bit);
    }
    for (label, mode, is) in [
        ("a symbolic link", 0o120_777, Is::Wrong),
        ("a pipe", 0o010_644, Is::Wrong),
        ("a character device", 0o020_644, Is::Wrong),
        ("a block device", 0o060_644, Is::Wrong),
        ("a socket", 0o140_644, Is::Wrong),
        ("a folder by its mode", 0o040_755, Is::Wrong),
        ("set-user-ID", 0o104_755, Is::Wrong),
        ("set-group-ID", 0o102_755, Is::Wrong),
        ("no mode", 0, Is::Right),
        ("a program", 0o100_755, Is::Right),
    ] {
        c.first(label, is, |p| p.attributes = mode << 16);
    }
    // What pip makes a program of and uv does not, or the other way round, by system and mode.
    for (label, system, mode, is) in [
        ("a file of Windows", 0, 0o100_666, Is::Right),
        ("a program of Windows", 0, 0o100_755, Is::Wrong),
        ("a program of its owner, of Windows", 0, 0o100_744, Is::Wrong),
        ("a program of a Macintosh", 19, 0o100_755, Is::Wrong),
        ("a program of nobody's system", 255, 0o100_755, Is::Wrong),
        ("a mode without a kind, of Windows", 0, 0o755, Is::Wrong),
        // Real ones have it (protobuf 5.28.3): the same file, of which only uv makes a program.
        ("a mode without a kind", 3, 0o777, Is::Right),
    ] {
        c.first(label, is, |p| (p.system, p.attributes) = (Some(system), mode << 16));
    }
    c.parts("a folder of Windows", Is::Right, |p| {
        p.insert(0, Part { system: Some(0), attributes: 0o40777 << 16 | 0x10, ..stored("demo/", b"") });
    });
    c.first("a folder by its DOS attribute", Is::Wrong, |p| p.attributes |= 0x10);
    c.first("times in an extra field", Is::Right, |p| p.extra = extra(0x5455, &[1, 0, 0, 0, 0]));
    c.first("the same sizes in a ZIP64 field in front", Is::Right, |p| {
        let sizes = [u64::from(p.size), p.packed.len() as u64].map(u64::to_le_bytes);
        p.local_extra = extra(1, &sizes.concat());
    });
    c.parts("stored members", Is::Right, |p| {
        let files = files();
        p[0] = stored(&files[0].0, &files[0].1);
        p[1] = stored(&files[1].0, &files[1].1);
    });
    streams(c);
}

/// What stands in the packed bytes, and behind them.
fn streams(c: &mut Corpus) {
    c.first("bytes behind the end of the packed ones", Is::Wrong, |p| p.packed.extend(b"hidden"));
    c.first("a second stream behind the first", Is::Wrong, |p| p.packed.extend(p.packed.clone()));
    c.first("a stream without its end", Is::Wrong, |p| {
        p.packed.truncate(p.packed.len() - 1);
    });
    c.first("a stream that is damaged", Is::Wrong, |p| {
        for b in &mut p.packed {
            *b = !*b;
        }
    });
    let sizes = |p: &Part, signed: bool| {
        let mut out = if signed { b"PK\x07\x08".to_vec() } else { Vec::new() };
        for v in [p.crc, p.packed.len() as u32, p.size] {
            out.extend(v.to_le_bytes());
        }
        out
    };
    for signed in [true, false] {
        c.first(format!("sizes behind the bytes, signed: {signed}"), Is::Right, |p| {
            p.behind = sizes(p, signed);
            p.flags = 8;
        });
        c.first(format!("sizes behind the bytes and none in front, signed: {signed}"), Is::Right, |p| {
            p.behind = sizes(p, signed);
            p.flags = 8;
            (p.local_crc, p.local_size, p.local_stated) = (Some(0), Some(0), Some(0));
        });
        c.first(format!("other sizes behind the bytes, signed: {signed}"), Is::Wrong, |p| {
            p.behind = sizes(&Part { size: p.size + 1, ..p.clone() }, signed);
            p.flags = 8;
            (p.local_crc, p.local_size, p.local_stated) = (Some(0), Some(0), Some(0));
        });
    }
    c.parts("a stored member whose size follows", Is::Wrong, |p| {
        let files = files();
        p[0] = stored(&files[0].0, &files[0].1);
        p[0].behind = sizes(&p[0], true);
        p[0].flags = 8;
    });
    c.parts("members that share their bytes", Is::Wrong, |p| {
        p[1].offset = Some(0);
    });
    c.parts("the members in another order", Is::Right, |p| p.reverse());
    c.parts("a bomb", Is::Wrong, |p| {
        p[1].size = 3_000_000;
        p[1].packed = vec![3, 0];
    });
}

fn ends(c: &mut Corpus) {
    type Change = fn(&mut End, u32);
    let wrong: [(&str, Change); 16] = [
        ("a comment at the end", |e, _| e.comment = b"hello".to_vec()),
        ("an archive in the comment", |e, _| e.comment = archive(&plain(), |_, _| {})),
        ("one member too few", |e, _| (e.here, e.all) = (e.here - 1, e.all - 1)),
        ("one member too many", |e, _| (e.here, e.all) = (e.here + 1, e.all + 1)),
        ("counts that differ", |e, _| e.all += 1),
        ("no members", |e, _| (e.here, e.all) = (0, 0)),
        ("a directory that is larger", |e, _| e.size += 1),
        ("a directory that is smaller", |e, _| e.size -= 1),
        ("a directory one byte later", |e, _| e.offset += 1),
        ("a directory one byte before", |e, _| e.offset -= 1),
        ("the second of two parts", |e, _| (e.disk, e.first_disk) = (1, 1)),
        ("bytes before the end", |e, _| e.before = b"hidden".to_vec()),
        ("an end before the end", |e, _| e.before = b"PK\x05\x06".iter().copied().chain([0; 18]).collect()),
        ("a ZIP64 record that is not there", |e, _| e.offset = u32::MAX),
        ("a ZIP64 record that nobody refers to", |e, at| e.before = zip64(e, at)),
        ("a ZIP64 record that disagrees", |e, at| {
            e.before = zip64(&End { size: e.size - 46, ..e.clone() }, at);
            (e.here, e.all) = (u16::MAX, u16::MAX);
        }),
    ];
    for (label, change) in wrong {
        c.bytes(label, Is::Wrong, archive(&plain(), change));
    }
    c.bytes(
        "a ZIP64 record",
        Is::Right,
        archive(&plain(), |e, at| {
            e.before = zip64(e, at);
            (e.here, e.all, e.size, e.offset) = (u16::MAX, u16::MAX, u32::MAX, u32::MAX);
        }),
    );
    let whole = archive(&plain(), |_, _| {});
    let other = archive(&parts(&files()[1..], &record(&files()[1..])), |_, _| {});
    c.bytes("as it should be", Is::Right, whole.clone());
    c.bytes("bytes before it", Is::Wrong, [b"#!/bin/sh\n".as_slice(), &whole].concat());
    c.bytes("bytes behind it", Is::Wrong, [&whole[..], b"\0"].concat());
    c.bytes("another archive before it", Is::Wrong, [&other[..], &whole].concat());
    c.bytes("the same archive behind it", Is::Wrong, [&whole[..], &whole].concat());
    c.bytes("cut off", Is::Wrong, whole[..whole.len() - 1].to_vec());
    c.bytes("cut in two", Is::Wrong, whole[..whole.len() / 2].to_vec());
    c.bytes("empty", Is::Wrong, Vec::new());
    c.bytes("an archive without members", Is::Wrong, archive(&[], |_, _| {}));
    // Every byte of the end, of the first entry of the directory and of the first header.
    let at = |signature: &[u8]| whole.windows(4).position(|w| w == signature).unwrap();
    for (what, begin, length) in
        [("end", whole.len() - 22, 22), ("entry", at(b"PK\x01\x02"), 46), ("header", at(b"PK\x03\x04"), 30)]
    {
        for i in 0..length {
            let mut changed = whole.clone();
            changed[begin + i] = changed[begin + i].wrapping_add(1);
            c.bytes(format!("byte {i} of the {what} changed"), Is::Either, changed);
        }
    }
}

fn zip64(e: &End, at: u32) -> Vec<u8> {
    let mut out = b"PK\x06\x06".to_vec();
    out.extend(44u64.to_le_bytes());
    out.extend([45, 0, 45, 0]);
    out.extend([0; 8]);
    for v in [u64::from(e.here), u64::from(e.all), u64::from(e.size), u64::from(e.offset)] {
        out.extend(v.to_le_bytes());
    }
    out.extend(b"PK\x06\x07");
    out.extend(0u32.to_le_bytes());
    out.extend(u64::from(at).to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out
}

fn wheels(c: &mut Corpus) {
    for gone in ["METADATA", "WHEEL"] {
        c.files(format!("no {gone}"), Is::Wrong, |f| f.retain(|(n, _)| !n.ends_with(gone)));
    }
    c.parts("no RECORD", Is::Wrong, |p| drop(p.pop()));
    c.with("a second dist-info", Is::Wrong, &[("other-1.0.dist-info/METADATA", b"Name: other\n")]);
    c.with("a second dist-info in capitals", Is::Wrong, &[("OTHER-1.0.DIST-INFO/METADATA", b"Name: other\n")]);
    for (file, is) in [
        ("Demo-1.0-py3-none-any.whl", Is::Right),
        ("demo-1.0.0-py3-none-any.whl", Is::Right),
        ("other-1.0-py3-none-any.whl", Is::Wrong),
        ("demo-1.1-py3-none-any.whl", Is::Wrong),
        ("demo-1.0-1-py3-none-any.whl", Is::Right),
        ("demo-1.0-PY3-none-any.whl", Is::Wrong),
        ("demo-1.0-py3-none-Any.whl", Is::Wrong),
        ("demo_x-1.0-py3-none-any.whl", Is::Wrong),
    ] {
        c.0.push(Case { label: format!("called {file}"), file: file.into(), bytes: archive(&plain(), |_, _| {}), is });
    }
    let swap = |c: &mut Corpus, label: &str, is, file: &str, text: &str| {
        c.files(label, is, |f| f.iter_mut().filter(|(n, _)| n.ends_with(file)).for_each(|(_, d)| *d = text.into()));
    };
    swap(c, "METADATA of another name", Is::Wrong, "METADATA", &METADATA.replace("demo", "other"));
    swap(c, "METADATA of another version", Is::Wrong, "METADATA", &METADATA.replace("1.0", "2.0"));
    swap(c, "METADATA that spells the version otherwise", Is::Right, "METADATA", &METADATA.replace("1.0", "1.0.0"));
    swap(
        c,
        "METADATA with two names",
        Is::Wrong,
        "METADATA",
        &METADATA.replace("Name: demo", "Name: demo\nName: other"),
    );
    for (label, name, version) in [
        ("a blank behind the name", "demo ", "1.0"),
        ("a blank of another alphabet behind the name", "demo\u{a0}", "1.0"),
        ("one before the name", "\u{3000}demo", "1.0"),
        ("one behind the version", "demo", "1.0\u{a0}"),
    ] {
        let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\n");
        swap(c, &format!("METADATA with {label}"), Is::Wrong, "METADATA", &text);
    }
    swap(c, "METADATA without a name", Is::Wrong, "METADATA", &METADATA.replace("Name: demo\n", ""));
    swap(
        c,
        "METADATA with a name after the headers",
        Is::Wrong,
        "METADATA",
        "Metadata-Version: 2.1\nVersion: 1.0\n\nName: demo\n",
    );
    swap(
        c,
        "METADATA with a need in code",
        Is::Wrong,
        "METADATA",
        &METADATA.replace("Version: 1.0\n", "Version: 1.0\nRequires-Dist: =?utf-8?q?wheel?=\n"),
    );
    for (label, is, line) in [
        ("a need", Is::Right, "Requires-Dist: numpy>=1.26; python_version >= '3.9'"),
        ("a need of an older form", Is::Right, "Requires-Dist: numpy (>=1.26,<3)"),
        ("a need that is no requirement", Is::Wrong, "Requires-Dist: numpy>=one"),
        ("a need of a range that is none", Is::Wrong, "Requires-Dist: numpy>=1.9.*"),
        ("a need without a name", Is::Wrong, "Requires-Dist: >=1.0"),
        ("an empty need", Is::Wrong, "Requires-Dist:"),
        ("a need under a variable's older name", Is::Right, "Requires-Dist: foo; os.name == 'posix'"),
        ("a need where a text is another one", Is::Wrong, "Requires-Dist: foo; 'a' != 'b'"),
        ("a need where a variable is another one", Is::Wrong, "Requires-Dist: foo; os_name != sys_platform"),
        ("a range of Pythons", Is::Right, "Requires-Python: >=3.8, !=3.9.0, <4"),
        ("a range of Pythons that is none", Is::Wrong, "Requires-Python: 3.8 or newer"),
        ("two ranges of Pythons", Is::Wrong, "Requires-Python: >=3.8\nRequires-Python: >=3.9"),
        ("a need over two lines", Is::Wrong, "Requires-Dist: foo\n >=1"),
        ("a need on the next line", Is::Wrong, "Requires-Dist:\n foo"),
        ("a range of Pythons over two lines", Is::Wrong, "Requires-Python: >=3\n ,<4"),
        ("an extra over two lines", Is::Wrong, "Provides-Extra: a\n b"),
        ("a summary over two lines", Is::Right, "Summary: a\n b"),
        ("an address", Is::Right, "Requires-Dist: foo @ https://h/foo-1.0-py3-none-any.whl ; python_version > '3'"),
        ("a repository", Is::Right, "Requires-Dist: foo[a]@git+https://h/r@main"),
        ("an address with a marker right behind it", Is::Wrong, "Requires-Dist: foo @ https://h/y.whl;os_name>\"a\""),
        ("an address of no archive", Is::Wrong, "Requires-Dist: foo[a]@https://h"),
        ("an address with a blank", Is::Wrong, "Requires-Dist: foo @ https://h/a b.whl"),
        ("a repository that uv does not read", Is::Wrong, "Requires-Dist: foo @ hg+https://h/r"),
        ("an address with a variable of the environment", Is::Wrong, "Requires-Dist: foo @ https://h/${HOME}/y.whl"),
    ] {
        let text = METADATA.replace("Version: 1.0\n", &format!("Version: 1.0\n{line}\n"));
        swap(c, &format!("METADATA with {label}"), is, "METADATA", &text);
    }
    let append = |c: &mut Corpus, label: &str, is, file: &str, text: &[u8]| {
        c.files(label, is, |f| f.iter_mut().filter(|(n, _)| n.ends_with(file)).for_each(|(_, d)| d.extend(text)));
    };
    append(c, "METADATA with a description in many letters", Is::Right, "METADATA", "größe: 日本\n".as_bytes());
    append(c, "METADATA with a description that is not UTF-8", Is::Wrong, "METADATA", b"caf\xe9\n");
    append(c, "WHEEL with a text behind it", Is::Right, "WHEEL", b"\ncaf\n");
    append(c, "WHEEL with a text behind it that is not UTF-8", Is::Wrong, "WHEEL", b"\ncaf\xe9\n");
    swap(c, "METADATA in CRLF", Is::Right, "METADATA", &METADATA.replace('\n', "\r\n"));
    swap(
        c,
        "METADATA with a lone CR",
        Is::Wrong,
        "METADATA",
        "Metadata-Version: 2.1\nName: demo\rName: other\nVersion: 1.0\n\n",
    );
    swap(c, "an empty METADATA", Is::Wrong, "METADATA", "");
    swap(c, "WHEEL of version 2", Is::Wrong, "WHEEL", &WHEEL.replace("Version: 1.0", "Version: 2.0"));
    let digits = WHEEL.replace("1.0", &format!("1.{}", "9".repeat(5000)));
    swap(c, "WHEEL of a version of thousands of digits", Is::Wrong, "WHEEL", &digits);
    swap(c, "WHEEL of no version", Is::Wrong, "WHEEL", "Root-Is-Purelib: true\n");
    swap(c, "an empty WHEEL", Is::Wrong, "WHEEL", "");
    swap(c, "WHEEL with its version in small letters", Is::Wrong, "WHEEL", &WHEEL.replace("Wheel-V", "wheel-v"));
    swap(c, "WHEEL that is pure in small letters", Is::Wrong, "WHEEL", &WHEEL.replace("Root-Is", "root-is"));
    swap(c, "WHEEL with a tag in capitals", Is::Right, "WHEEL", &WHEEL.replace("Tag", "TAG"));
    swap(c, "WHEEL that is neither pure nor not", Is::Wrong, "WHEEL", &WHEEL.replace("true", "maybe"));
    for file in ["INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "installer", "Direct_URL.json"] {
        c.with(format!("{file} in dist-info"), Is::Wrong, &[(&format!("{INFO}/{file}"), b"pip\n")]);
    }
    c.with("a licence in dist-info", Is::Right, &[(&format!("{INFO}/licenses/LICENSE"), b"MIT\n")]);
    for (name, is) in [
        ("demo-1.0.data/purelib/demo/more.py", Is::Right),
        ("demo-1.0.data/platlib/demo/more.py", Is::Right),
        ("demo-1.0.data/scripts/demo-run", Is::Right),
        ("demo-1.0.data/data/share/demo/x.txt", Is::Right),
        ("demo-1.0.data/headers/demo.h", Is::Right),
        ("demo-1.0.data/purelib/demo/__init__.py", Is::Wrong),
        ("demo-1.0.data/purelib/DEMO/__init__.py", Is::Wrong),
        ("demo-1.0.data/elsewhere/x", Is::Wrong),
        ("demo-1.0.data/x", Is::Wrong),
        ("demo-1.0.data/purelib", Is::Wrong),
        ("demo-1.0.data", Is::Wrong),
        ("other-1.0.data/purelib/x.py", Is::Wrong),
        ("demo-1.0.DATA/purelib/x.py", Is::Wrong),
        ("x.data/purelib/x.py", Is::Wrong),
        ("demo-1.0.data/data/lib/python3.11/site-packages/demo/__init__.py", Is::Wrong),
        ("demo-1.0.data/purelib/demo-1.0.dist-info/METADATA", Is::Wrong),
        ("demo-1.0.data/purelib/demo-1.0.dist-info/INSTALLER", Is::Wrong),
        ("demo-1.0.data/platlib/other-2.0.DIST-INFO/METADATA", Is::Wrong),
        ("demo-1.0.data/data/include/site/python3.11/demo/a.h", Is::Wrong),
        ("demo-1.0.data/scripts/sub/demo-run", Is::Wrong),
        ("demo-1.0.data/scripts/python", Is::Wrong),
        ("demo-1.0.data/data/bin/python3.11", Is::Wrong),
        // What is a folder wherever it is installed.
        ("demo-1.0.data/data/bin", Is::Wrong),
        ("demo-1.0.data/data/lib", Is::Wrong),
        ("demo-1.0.data/data/lib64", Is::Wrong),
        ("demo-1.0.data/data/Include", Is::Wrong),
        ("demo-1.0.data/data/lib/python3.11", Is::Wrong),
        ("demo-1.0.data/data/lib/demo", Is::Right),
        // What Python compiles itself.
        ("demo/__pycache__/__init__.cpython-311.pyc", Is::Wrong),
        ("demo/__PYCACHE__/other.PYC", Is::Wrong),
        ("demo-1.0.data/purelib/demo/__pycache__/more.cpython-311.pyc", Is::Wrong),
        ("__pycache__/top.cpython-311.pyc", Is::Wrong),
        ("demo/closed.pyc", Is::Right),
        // What counts as a distribution beside the one of dist-info.
        ("torch-9.9.egg-info/PKG-INFO", Is::Wrong),
        ("demo.egg-info/PKG-INFO", Is::Wrong),
        ("torch-9.9.Egg-Info", Is::Wrong),
        ("torch.egg-link", Is::Wrong),
        ("torch-9.9-py3.11.egg/EGG-INFO/PKG-INFO", Is::Wrong),
        ("demo-1.0.data/purelib/torch-9.9.egg-info/PKG-INFO", Is::Wrong),
        ("demo-1.0.data/platlib/torch.egg-link", Is::Wrong),
        ("demo/inner.egg-info/PKG-INFO", Is::Right),
    ] {
        c.with(format!("member {name}"), is, &[(name, b"#!python\n")]);
    }
    for (one, other) in [
        ("headers/demo.h", "data/include/python3.11/demo/demo.h"),
        ("data/lib/python3.11/x.txt", "data/lib64/python3.11/x.txt"),
        // A file where the other one needs a folder.
        ("purelib/x", "platlib/x/y.py"),
        ("data/lib/python3.11/x", "data/lib64/python3.11/x/y"),
        ("headers/x", "data/include/python3.11/demo/X/y.h"),
    ] {
        let [a, b] = [one, other].map(|path| format!("demo-1.0.data/{path}"));
        c.with(format!("members {one} and {other}"), Is::Wrong, &[(&a, b"1"), (&b, b"2")]);
    }
    for file in ["demo", "Demo", "demo/__init__.py/x"] {
        let path = format!("demo-1.0.data/purelib/{file}");
        c.with(format!("the file {file} beside demo/__init__.py"), Is::Wrong, &[(&path, b"1")]);
    }
    for (is, script) in [
        (Is::Right, "#!python\nprint(1)\r\n"),
        (Is::Right, "#!pythonw\n"),
        (Is::Right, "#!/bin/sh\recho\n"),
        (Is::Right, "#!/usr/bin/python3 -u\r\nprint(1)\n"),
        // Of such a line pip leaves nothing, and uv what stands behind `#!python`; where nothing does, it gives up.
        (Is::Wrong, "#!python\r\nprint(1)\n"),
        (Is::Wrong, "#!python -u\nprint(1)\n"),
        (Is::Wrong, "#!python3\nprint(1)\n"),
        (Is::Wrong, "#!python\rprint(1)\n"),
        (Is::Wrong, "#!pythonw\rprint(1)"),
        (Is::Wrong, "#!python"),
        (Is::Wrong, "#!pythonw"),
    ] {
        c.with(format!("the script {script:?}"), is, &[("demo-1.0.data/scripts/demo-run", script.as_bytes())]);
    }
}

/// What installers make programs of: pip and uv read it in ways of their own.
fn programs(c: &mut Corpus) {
    let file = format!("{INFO}/entry_points.txt");
    let scripts = |lines: &str| format!("[console_scripts]\n{lines}");
    for (label, is, text) in [
        ("a program", Is::Right, scripts("hello = demo:main\n")),
        ("in CRLF", Is::Right, scripts("hello = demo:main\n").replace('\n', "\r\n")),
        ("with a comment, indented", Is::Right, "# ours\n\n  [console_scripts]\n  hello = demo.a:B.c\n".into()),
        ("with extras", Is::Right, scripts("hello = demo:main [x, y]\n")),
        ("with an extra with a dash", Is::Right, scripts("hello = demo:main[ x-y,z ]\n")),
        ("with no extra", Is::Wrong, scripts("hello = demo:main []\n")),
        ("with an extra after nothing", Is::Wrong, scripts("hello = demo:main [x,]\n")),
        ("with an extra with a dot", Is::Wrong, scripts("hello = demo:main [x.y]\n")),
        ("with extras that no comma parts", Is::Wrong, scripts("hello = demo:main [x y]\n")),
        ("with a second extra with a dash", Is::Wrong, scripts("hello = demo:main [x, y-z]\n")),
        ("with a blank before a comma", Is::Wrong, scripts("hello = demo:main [x , y]\n")),
        ("with other sections", Is::Right, "[pytest11]\na-b = demo:x\n[a.b]\nc d = any thing # at all\n".into()),
        ("two names in other cases", Is::Wrong, scripts("hello = demo:main\nHello = demo:main\n")),
        ("a name twice", Is::Wrong, scripts("hello = demo:main\nhello = demo:other\n")),
        ("a name twice in another section", Is::Wrong, "[plug]\na = demo:b\na = demo:c\n".into()),
        ("a section twice", Is::Wrong, scripts("hello = demo:main\n[console_scripts]\nhi = demo:main\n")),
        ("a program with and without a window", Is::Wrong, scripts("a = demo:b\n[gui_scripts]\na = demo:b\n")),
        ("a path that leaves", Is::Wrong, scripts("../../evil = demo:main\n")),
        ("a path", Is::Wrong, scripts("sub/evil = demo:main\n")),
        ("a name with a blank", Is::Wrong, scripts("hello world = demo:main\n")),
        ("an interpreter", Is::Wrong, scripts("python = demo:main\n")),
        ("an interpreter in capitals", Is::Wrong, scripts("Python3.11 = demo:main\n")),
        ("another interpreter", Is::Wrong, scripts("pypy3 = demo:main\n")),
        ("what only begins so", Is::Right, scripts("python-config = demo:main\n")),
        ("code", Is::Wrong, scripts("hello = demo:main;import os\n")),
        ("a call", Is::Wrong, scripts("hello = demo:main()\n")),
        ("a module alone", Is::Wrong, scripts("hello = demo\n")),
        ("a module with a dash", Is::Wrong, scripts("hello = demo-x:main\n")),
        ("a colon for the sign", Is::Wrong, scripts("hello: demo:main\n")),
        ("a comment behind", Is::Wrong, scripts("hello = demo:main # c\n")),
        ("a value on the next line", Is::Wrong, scripts("hello = demo:\n  main\n")),
        ("no section", Is::Wrong, "hello = demo:main\n".into()),
        ("no sign", Is::Wrong, "[plug]\nhello\n".into()),
        ("an empty name", Is::Wrong, scripts("= demo:main\n")),
        ("brackets in brackets", Is::Wrong, "[[console_scripts]]\nhello = demo:main\n".into()),
        ("a comment behind a section", Is::Wrong, "[console_scripts] # x\nhello = demo:main\n".into()),
        ("defaults", Is::Wrong, "[DEFAULT]\nhello = demo:main\n[console_scripts]\n".into()),
        ("a mark at its beginning", Is::Wrong, format!("\u{feff}{}", scripts("hello = demo:main\n"))),
        ("a line that ends elsewhere", Is::Wrong, scripts("hello = demo:main\u{2028}hi = demo:main\n")),
        ("nothing", Is::Right, String::new()),
    ] {
        c.with(format!("entry points: {label}"), is, &[(&file, text.as_bytes())]);
    }
    c.with("entry points: not UTF-8", Is::Wrong, &[(&file, b"[console_scripts]\nh\xe9 = demo:main\n")]);
    c.with("entry points: spelled otherwise", Is::Wrong, &[(&format!("{INFO}/Entry_Points.txt"), b"")]);
    let one = scripts("hello = demo:main\n");
    for other in [
        "scripts/hello",
        "data/bin/HELLO",
        "scripts/hello.exe",
        "scripts/hello-script.py",
        "scripts/hello.pya",
        "scripts/hello.PYA",
    ] {
        let member = format!("demo-1.0.data/{other}");
        c.with(
            format!("entry points: {other} as well"),
            Is::Wrong,
            &[(&file, one.as_bytes()), (&member, b"#!python\n")],
        );
    }
}

fn records(c: &mut Corpus) {
    let right = record(&files());
    let lines: Vec<&str> = right.lines().collect();
    let first = lines[0].to_owned();
    let name = files()[0].0.clone();
    let data = files()[0].1.clone();
    let replace = |by: &str| right.replacen(&first, by, 1);
    c.record("RECORD in CRLF", Is::Right, &right.replace('\n', "\r\n"));
    c.record("RECORD with an empty line", Is::Wrong, &right.replacen('\n', "\n\n", 1));
    c.record("RECORD without its last newline", Is::Right, right.trim_end());
    c.record("RECORD with quotes", Is::Right, &replace(&first.replacen(&name, &format!("\"{name}\""), 1)));
    c.record(
        "SHA-384",
        Is::Right,
        &replace(&format!("{name},sha384={},{}", URL_SAFE_NO_PAD.encode(Sha384::digest(&data)), data.len())),
    );
    c.record(
        "SHA-512",
        Is::Right,
        &replace(&format!("{name},sha512={},{}", URL_SAFE_NO_PAD.encode(Sha512::digest(&data)), data.len())),
    );
    for (label, text) in [
        ("a file that RECORD does not list", right.replacen(&format!("{first}\n"), "", 1)),
        ("a file of RECORD that is missing", format!("{}{right}", line("demo/gone.py", b"1"))),
        ("a line twice", format!("{first}\n{right}")),
        ("a second line with another digest", format!("{}{right}", line(&name, b"1"))),
        ("another digest", replace(line(&name, b"1").trim_end())),
        ("another size", replace(&first.replace(&format!(",{}", data.len()), ",1"))),
        ("no size", replace(&first.replace(&format!(",{}", data.len()), ","))),
        ("no digest", replace(&format!("{name},,{}", data.len()))),
        ("MD5", replace(&format!("{name},md5=XrY7u-Ae7tCTyyK7j1rNww,{}", data.len()))),
        ("SHA-1", replace(&format!("{name},sha1=2jmj7l5rSw0yVb_vlWAYkK_YBwk,{}", data.len()))),
        ("a digest of no name", replace(&format!("{name},=abc,1"))),
        (
            "a digest in hexadecimal",
            replace(&format!("{name},sha256={},{}", hex::encode(Sha256::digest(&data)), data.len())),
        ),
        ("two fields", replace(&name)),
        ("four fields", replace(&format!("{first},more"))),
        ("a size with a sign", replace(&first.replace(&format!(",{}", data.len()), &format!(",+{}", data.len())))),
        ("a path with a dot", replace(&first.replacen("demo/", "./demo/", 1))),
        ("a path with a backslash", replace(&first.replacen("demo/", "demo\\", 1))),
        ("a path in capitals", replace(&first.replacen("demo/", "DEMO/", 1))),
        ("a path outside", format!("../../evil.py,,\n{right}")),
        ("RECORD that does not list itself", right.replace(&format!("{INFO}/RECORD,,\n"), "")),
        ("its own digest", right.replace("RECORD,,", line("RECORD", b"1").trim_end())),
        ("a mark at its beginning", format!("\u{feff}{right}")),
        ("an open quote", format!("{right}\"")),
        ("an empty RECORD", String::new()),
    ] {
        c.record(format!("RECORD: {label}"), Is::Wrong, &text);
    }
    c.parts("RECORD that is not UTF-8", Is::Wrong, |p| {
        let at = p.len() - 1;
        p[at] = deflated(&format!("{INFO}/RECORD"), &[right.as_bytes(), b"\xff,,\n"].concat());
    });
}

fn corpus() -> Vec<Case> {
    let mut c = Corpus::default();
    for add in [names, headers, ends, wheels, programs, records] {
        add(&mut c);
    }
    c.0
}

/// What is wrong with a wheel; nothing, if it is taken.
fn judged(case: &Case) -> Result<(), String> {
    let name: Name = case.file.parse().unwrap();
    let wheel = Wheel::open(&name, &case.bytes).map_err(|e| {
        assert_eq!(e.exit(), Exit::Misuse, "{}: {e}", case.label);
        let what = e.what().to_owned();
        assert!(!what.chars().any(char::is_control), "{}: {what:?}", case.label);
        what
    })?;
    let faults = wheel.faults().unwrap();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

#[test]
fn what_is_right_is_taken_and_what_readers_understand_differently_is_not() {
    let corpus = corpus();
    assert!(corpus.len() >= 400, "{} wheels", corpus.len());
    let mut wrong = Vec::new();
    for case in &corpus {
        let judged = judged(case);
        match case.is {
            Is::Right if judged.is_err() => wrong.push(format!("{}: refused: {}", case.label, judged.unwrap_err())),
            Is::Wrong if judged.is_ok() => wrong.push(format!("{}: taken", case.label)),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), corpus.len(), wrong.join("\n"));
}

/// What an installer made: bytes by path, and whether it is a program.
type Installed = BTreeMap<String, (Vec<u8>, bool)>;

/// Files below `dir`, but those that an installer writes.
fn installed(dir: &Path) -> Installed {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap).filter(|e| !e.file_type().is_dir()) {
        assert!(entry.file_type().is_file(), "{} is no plain file", entry.path().display());
        let name = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        // Where headers go below include/ is the scheme of the Python, which each of them asks in its own way.
        let name = match name.strip_prefix("include/").and_then(|rest| rest.rsplit("python3.").next()) {
            Some(rest) => format!("include/{}", rest.split_once('/').map_or(rest, |(_, below)| below)),
            None => name,
        };
        let own = ["/INSTALLER", "/REQUESTED", "/RECORD", "/direct_url.json", "/uv_cache.json", "/uv_build.json"];
        // uv marks the folder as its own.
        if !own.iter().any(|o| name.ends_with(o)) && !["CACHEDIR.TAG", ".gitignore", ".lock"].contains(&name.as_str()) {
            let runs = torchmill::platform::is_executable(entry.path()).unwrap();
            files.insert(name, (std::fs::read(entry.path()).unwrap(), runs));
        }
    }
    files
}

#[test]
fn modes_mean_nothing_to_a_wheel_for_windows_alone() {
    let mut parts = plain();
    (parts[0].system, parts[0].attributes) = (Some(0), 0o100_777 << 16);
    let bytes = archive(&parts, |_, _| {});
    let taken = |file: &str| Wheel::open(&file.parse().unwrap(), &bytes).is_ok();
    assert!(taken("demo-1.0-py3-none-win_amd64.whl") && taken("demo-1.0-py3-none-win32.win_arm64.whl"));
    assert!(!taken(FILE) && !taken("demo-1.0-py3-none-win_amd64.linux_x86_64.whl"));
}

#[test]
fn on_windows_the_first_line_of_a_script_ends_as_every_line_does() {
    let mut files = files();
    files.push(("demo-1.0.data/scripts/demo-run".into(), b"#!python\r\nprint(1)\r\n".to_vec()));
    let bytes = archive(&parts(&files, &record(&files)), |_, _| {});
    let taken = |file: &str| Wheel::open(&file.parse().unwrap(), &bytes).is_ok();
    assert!(taken("demo-1.0-py3-none-win_amd64.whl") && !taken(FILE));
}

#[test]
#[ignore = "needs uv"]
fn what_is_taken_pip_and_uv_install_alike_file_by_file() {
    let taken: Vec<Case> = corpus().into_iter().filter(|c| judged(c).is_ok()).collect();
    assert!(taken.len() > 40, "{}", taken.len());
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (i, case) in taken.iter().enumerate() {
        let at = |who: &str| dir.path().join(format!("{i}-{who}"));
        std::fs::create_dir(at("wheel")).unwrap();
        let path = at("wheel").join(&case.file);
        std::fs::write(&path, &case.bytes).unwrap();
        let mut seen = Vec::new();
        for (who, program, args) in [
            (
                "pip",
                "python3",
                &[
                    "-m",
                    "pip",
                    "install",
                    "-q",
                    "--no-compile",
                    "--ignore-installed",
                    "--disable-pip-version-check",
                    "--root-user-action=ignore",
                ][..],
            ),
            ("uv", "uv", &["pip", "install", "-q", "--no-cache", "--link-mode=copy", "--python", "python3"]),
        ] {
            let ran = Command::new(program)
                .args(args)
                .args(["--no-deps", "--no-index", "--prefix"])
                .arg(at(who))
                .arg(&path)
                .output();
            let ran = ran.unwrap_or_else(|e| panic!("{program} cannot be run: {e}"));
            if ran.status.success() {
                seen.push(installed(&at(who)));
            } else {
                wrong.push(format!("{}: {who} refuses: {}", case.label, String::from_utf8_lossy(&ran.stderr).trim()));
            }
        }
        // Each writes the programs of the entry points in words of its own: by name, they are the same.
        for program in programs_of(case) {
            let made = seen.iter_mut().filter_map(|files| files.remove(&format!("bin/{program}")));
            let made = made.filter(|(_, runs)| *runs).count();
            if made != seen.len() {
                wrong.push(format!("{}: only {made} of both make the program {program}", case.label));
            }
        }
        let [pip, uv] = &seen[..] else { continue };
        let bytes = |of: &Installed, name: &str| of.get(name).map(|(bytes, _)| bytes.clone());
        if let Some(difference) = pip.iter().chain(uv).find(|(name, _)| bytes(pip, name) != bytes(uv, name)) {
            wrong.push(format!("{}: pip and uv differ in {}", case.label, difference.0));
        }
        for (who, files) in [("pip", pip), ("uv", uv)] {
            if let Some(what) = other_than(case, files) {
                wrong.push(format!("{}: {who}: {what}", case.label));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), taken.len(), wrong.join("\n"));
    eprintln!("{} wheels installed by both, file by file", taken.len());
}

/// The programs that the reader sees.
fn programs_of(case: &Case) -> Vec<String> {
    let wheel = Wheel::open(&case.file.parse().unwrap(), &case.bytes).unwrap();
    let member = wheel.archive().member(&format!("{INFO}/entry_points.txt"));
    member.map_or(Vec::new(), |m| entry_points::programs(&wheel.archive().small(m, 1 << 20).unwrap()).unwrap())
}

/// In what the files that were installed are other ones than those that the reader sees.
fn other_than(case: &Case, installed: &Installed) -> Option<String> {
    let name: Name = case.file.parse().unwrap();
    let wheel = Wheel::open(&name, &case.bytes).unwrap();
    let mut left = installed.clone();
    for member in wheel.members().iter().filter(|m| !m.is_folder() && !m.name.ends_with("/RECORD")) {
        let mut bytes = Vec::new();
        wheel.archive().read(member).read_to_end(&mut bytes).unwrap();
        let target = target(&member.name, "demo-1.0.data").unwrap();
        let (scheme, path) = target.split_once('/').unwrap();
        let fits = |n: &String| match scheme {
            "lib" => n.ends_with(&format!("site-packages/{path}")),
            "scripts" => *n == format!("bin/{path}"),
            "headers" => n.starts_with("include/") && n.ends_with(path),
            _ => n == path,
        };
        let Some(found) = left.keys().find(|n| fits(n)).cloned() else {
            return Some(format!("{} is not installed", member.name));
        };
        let (has, runs) = left.remove(&found).unwrap();
        // The first line of a script names the Python that it is installed for.
        if has != bytes && scheme != "scripts" {
            return Some(format!("{} has other bytes", member.name));
        }
        // uv makes a program of every script, pip of those whose mode says so.
        let should = member.is_program().filter(|should| *should || scheme != "scripts");
        if should.is_some_and(|should| should != runs) {
            return Some(format!("whether {} is a program is {runs}", member.name));
        }
    }
    left.keys().next().map(|more| format!("{more} was installed, and the reader does not see it"))
}
