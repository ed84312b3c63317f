//! Archives are hostile until proved otherwise.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use torchmill::source::unpack::{Bounds, Target, unpack};

const BOUNDS: Bounds = Bounds { bytes: 1 << 20, members: 100 };

fn try_unpack(bytes: &[u8], target: impl Fn(&Path) -> Target) -> (tempfile::TempDir, torchmill::Result<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    std::fs::write(&archive, bytes).unwrap();
    let result =
        unpack(&archive, "archive", &[target(&dir.path().join("out"))], BOUNDS, 1_738_108_800).map(|u| u.files);
    (dir, result)
}

fn all(dir: &Path) -> Target {
    Target::all(dir)
}

/// A tar archive with raw names and kinds, as no well-meant tool writes it.
fn raw_tar(members: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, text) in members {
        let mut header = tar::Header::new_gnu();
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        let content = if link { "" } else { text };
        if link {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content.as_bytes());
        out.resize(out.len().div_ceil(512) * 512, 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn sample() -> Vec<u8> {
    crate::support::tar(
        "top-1.0",
        &BTreeMap::from([("a.txt".to_owned(), "a".to_owned()), ("d/b.txt".to_owned(), "b".to_owned())]),
    )
}

fn deb(data: &[u8]) -> Vec<u8> {
    let mut ar = ar::Builder::new(Vec::new());
    ar.append(&ar::Header::new(b"debian-binary".to_vec(), 4), &b"2.0\n"[..]).unwrap();
    ar.append(&ar::Header::new(b"data.tar".to_vec(), data.len() as u64), data).unwrap();
    ar.into_inner().unwrap()
}

/// A member of an ar archive, with a name and a size as they stand in its header.
fn ar_member(name: &str, size: &str, content: &str) -> String {
    format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n{content}", 0, 0, 0, 644)
}

fn zipped(names: &[&str]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for name in names {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(b"z").unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn every_known_compression_is_unpacked_to_the_same_files() {
    let tar = sample();
    let gz = {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(&tar).unwrap();
        e.finish().unwrap()
    };
    let xz = {
        let mut e = liblzma::write::XzEncoder::new(Vec::new(), 1);
        e.write_all(&tar).unwrap();
        e.finish().unwrap()
    };
    let bz2 = {
        let mut e = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        e.write_all(&tar).unwrap();
        e.finish().unwrap()
    };
    let zst = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let package = deb(&tar);
    for bytes in [tar, gz, xz, bz2, zst, package] {
        let (dir, result) = try_unpack(&bytes, |d| Target { strip: 1, ..Target::all(d) });
        assert_eq!(result.unwrap(), 2);
        assert_eq!(std::fs::read_to_string(dir.path().join("out/d/b.txt")).unwrap(), "b");
    }
    let (dir, result) = try_unpack(&zipped(&["top/a.txt", "top/d/b.txt"]), |d| Target { strip: 1, ..Target::all(d) });
    assert_eq!(result.unwrap(), 2);
    assert!(dir.path().join("out/d/b.txt").is_file());
}

#[test]
fn a_header_of_a_debian_package_is_believed_in_nothing_that_it_cannot_hold() {
    let right = ar_member("debian-binary", "4", "2.0\n");
    for (members, says) in [
        // Names that other archives keep in a table, or behind the header.
        (ar_member("/9", "0", ""), "without data.tar"),
        (ar_member("//", "9999999999", ""), "is cut off"),
        (ar_member("#1/9999999999", "9999999999", ""), "is cut off"),
        (ar_member("debian-binary", "4", "2.0"), "is cut off"),
        (ar_member("data.tar", "x", ""), "a header of its ar archive is none"),
        (ar_member("data.tar", "-1", ""), "a header of its ar archive is none"),
        (ar_member("data.tar", "+1", ""), "a header of its ar archive is none"),
        (ar_member("data.tar", "", ""), "a header of its ar archive is none"),
        (ar_member("data.tar", "0", "").replace('`', "'"), "a header of its ar archive is none"),
        (right.clone(), "without data.tar"),
        (format!("{right}data.tar"), "is cut off"),
        (String::new(), "without data.tar"),
    ] {
        let bytes = format!("!<arch>\n{members}").into_bytes();
        let (_d, result) = try_unpack(&bytes, all);
        let e = result.unwrap_err();
        assert_eq!(e.code(), "archive-broken", "{members}: {e}");
        assert!(e.what().contains(says), "{members}: {e}");
        let e = torchmill::inspect::inspect("a.deb", &bytes, torchmill::inspect::Depth::Full).unwrap_err();
        assert!(e.what().contains(says), "{members}: {e}");
    }
    // GNU's ar ends a name with a stroke; a member of an odd size has a byte behind it.
    let tar = sample();
    let head = right + &ar_member("control.tar/", "3", "abc\n") + &ar_member("data.tar/", &tar.len().to_string(), "");
    let (_d, result) = try_unpack(&[&b"!<arch>\n"[..], head.as_bytes(), &tar[..]].concat(), all);
    assert_eq!(result.unwrap(), 2);
}

#[test]
fn strip_only_and_keep_choose_members() {
    let (dir, result) = try_unpack(&sample(), |d| Target { strip: 1, only: Some("d".into()), ..Target::all(d) });
    assert_eq!(result.unwrap(), 1);
    assert!(dir.path().join("out/b.txt").is_file());
    let (dir, result) = try_unpack(&sample(), |d| Target { keep: vec!["top-1.0/a.txt".into()], ..Target::all(d) });
    assert_eq!(result.unwrap(), 1);
    assert!(dir.path().join("out/top-1.0/a.txt").is_file());
}

#[test]
fn what_leaves_the_folder_is_refused() {
    use tar::EntryType as T;
    for (bytes, word) in [
        (raw_tar(&[("../evil", T::Regular, "x")]), "'..'"),
        (raw_tar(&[("a/../../evil", T::Regular, "x")]), "'..'"),
        (raw_tar(&[("/etc/evil", T::Regular, "x")]), "absolute"),
        (raw_tar(&[("l", T::Symlink, "/etc/passwd")]), "absolute"),
        (raw_tar(&[("d/l", T::Symlink, "../../evil")]), "leaves the archive"),
        (raw_tar(&[("l", T::Link, "../evil")]), "leaves the archive"),
        (raw_tar(&[("dev", T::Char, "")]), "device node"),
        (raw_tar(&[("fifo", T::Fifo, "")]), "device node, FIFO"),
        (raw_tar(&[("a\\..\\b", T::Regular, "x")]), "backslash"),
        (zipped(&["../evil"]), "'..'"),
        (zipped(&["/abs"]), "absolute"),
    ] {
        let (dir, result) = try_unpack(&bytes, all);
        let e = result.unwrap_err();
        assert_eq!(e.code(), "archive-unsafe", "{e}");
        assert!(e.what().contains(word), "{e}");
        assert!(!dir.path().join("evil").exists() && !dir.path().parent().unwrap().join("evil").exists());
    }
}

#[test]
fn a_member_that_would_overwrite_another_is_refused() {
    use tar::EntryType as T;
    let (_d, result) = try_unpack(&raw_tar(&[("a", T::Regular, "1"), ("./a", T::Regular, "2")]), all);
    assert!(result.unwrap_err().what().contains("twice"));
    let (_d, result) = try_unpack(&raw_tar(&[("a", T::Regular, "1"), ("a/b", T::Regular, "2")]), all);
    assert!(result.unwrap_err().what().contains("as if it were a folder"));
}

#[test]
fn writing_through_a_link_is_impossible() {
    use tar::EntryType as T;
    // The link is inside, but a member below it would go where it points to.
    let (dir, result) =
        try_unpack(&raw_tar(&[("real/x", T::Regular, "x"), ("l", T::Symlink, "real"), ("l/y", T::Regular, "y")]), all);
    result.unwrap();
    assert!(!dir.path().join("out/real/y").exists());
    assert!(!dir.path().join("out/l").is_symlink());
}

#[test]
fn links_become_real_files() {
    use tar::EntryType as T;
    let (dir, result) = try_unpack(
        &raw_tar(&[
            ("d/x", T::Regular, "text"),
            ("l", T::Symlink, "d/x"),
            ("h", T::Link, "d/x"),
            ("dd", T::Symlink, "d"),
            ("chain", T::Symlink, "l"),
            ("dangling", T::Symlink, "none"),
        ]),
        all,
    );
    result.unwrap();
    for name in ["l", "h", "dd/x", "chain"] {
        let path = dir.path().join("out").join(name);
        assert!(!path.is_symlink() && std::fs::read_to_string(&path).unwrap() == "text", "{name}");
    }
}

#[test]
fn bombs_stop_at_the_bound() {
    let big = "0".repeat(2 << 20);
    let tar = crate::support::tar("t", &BTreeMap::from([("big".to_owned(), big)]));
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    e.write_all(&tar).unwrap();
    let (_d, result) = try_unpack(&e.finish().unwrap(), all);
    assert!(result.unwrap_err().what().contains("bound of 1 MiB"));
    let many: BTreeMap<String, String> = (0..101).map(|i| (i.to_string(), String::new())).collect();
    let (_d, result) = try_unpack(&crate::support::tar("t", &many), all);
    assert!(result.unwrap_err().what().contains("bound of 100 members"));
}

#[test]
fn paths_and_links_have_bounds() {
    let tar = |name: &str, link: Option<&str>, count: usize| {
        let mut tar = tar::Builder::new(Vec::new());
        for i in 0..count {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o644);
            let name = if count == 1 { name.to_owned() } else { format!("{name}{i}") };
            match link {
                Some(to) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    tar.append_link(&mut header, name, to).unwrap();
                }
                None => tar.append_data(&mut header, name, &b""[..]).unwrap(),
            }
        }
        tar.into_inner().unwrap()
    };
    let (deep, long) = ("d/".repeat(70) + "x", "n".repeat(5000));
    for bytes in [tar(&deep, None, 1), tar(&long, None, 1), tar("l", Some(&deep), 1), tar("l", Some(&long), 1)] {
        let (_d, result) = try_unpack(&bytes, all);
        assert!(result.unwrap_err().what().contains("a path of more than 4096 bytes or 64 folders"));
    }
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("links.tar");
    std::fs::write(&archive, tar("l", Some("a"), 20_001)).unwrap();
    let bounds = Bounds { bytes: 1 << 20, members: 30_000 };
    let e = unpack(&archive, "archive", &[all(&dir.path().join("out"))], bounds, 0).unwrap_err();
    assert!(e.what().contains("one of more than 20000 links"), "{e}");
}

#[test]
fn broken_and_foreign_files_are_named_and_never_a_panic() {
    let (_d, result) = try_unpack(b"<html>no such file</html>", all);
    assert_eq!(result.unwrap_err().code(), "archive");
    let tar = sample();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar).unwrap();
    let gz = gz.finish().unwrap();
    for cut in [11, gz.len() / 2, gz.len() - 9] {
        let (_d, result) = try_unpack(&gz[..cut], all);
        assert_eq!(result.unwrap_err().code(), "archive-broken", "cut at {cut}");
    }
    let zip = zipped(&["a"]);
    let (_d, result) = try_unpack(&zip[..zip.len() - 10], all);
    assert_eq!(result.unwrap_err().code(), "archive-broken");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
    #[test]
    fn flipped_bytes_never_panic_and_never_escape(position in 0usize..3000, value: u8) {
        let mut bytes = sample();
        let n = bytes.len();
        bytes[position % n] = value;
        let (dir, _) = try_unpack(&bytes, all);
        let stray = std::fs::read_dir(dir.path()).unwrap().flatten().filter(|e| !["archive", "out"].contains(&e.file_name().to_str().unwrap())).count();
        proptest::prop_assert_eq!(stray, 0);
    }
}
