//! Zip archives with every field under control: what a writer that means harm, or has a fault, may write.

use std::io::Write;

/// A member, as its two headers tell of it. What is `None` in front of its bytes is as in the directory.
#[derive(Clone, Default)]
pub struct Part {
    pub name: Vec<u8>,
    pub local_name: Option<Vec<u8>>,
    /// The bytes as packed.
    pub packed: Vec<u8>,
    pub method: u16,
    pub local_method: Option<u16>,
    pub flags: u16,
    pub local_flags: Option<u16>,
    pub crc: u32,
    pub local_crc: Option<u32>,
    pub size: u32,
    pub local_size: Option<u32>,
    /// The packed size that is stated, where it is not the true one.
    pub stated: Option<u32>,
    pub local_stated: Option<u32>,
    pub extra: Vec<u8>,
    pub local_extra: Vec<u8>,
    pub comment: Vec<u8>,
    /// Who wrote it (APPNOTE 4.4.2): Unix, where nothing else is said.
    pub system: Option<u8>,
    pub attributes: u32,
    /// What stands behind its bytes.
    pub behind: Vec<u8>,
    /// Its header's place, where the directory lies about it.
    pub offset: Option<u32>,
    pub disk: u16,
}

/// A deflated member.
pub fn deflated(name: &str, data: &[u8]) -> Part {
    let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
    packer.write_all(data).unwrap();
    Part { packed: packer.finish().unwrap(), method: 8, ..stored(name, data) }
}

/// A member as it is.
pub fn stored(name: &str, data: &[u8]) -> Part {
    Part {
        name: name.into(),
        packed: data.to_vec(),
        crc: crc32fast::hash(data),
        size: data.len() as u32,
        flags: if name.is_ascii() { 0 } else { 1 << 11 },
        attributes: 0o100_644 << 16,
        ..Part::default()
    }
}

/// The end of an archive, as it would be, to be changed.
#[derive(Clone, Default)]
pub struct End {
    pub here: u16,
    pub all: u16,
    pub size: u32,
    pub offset: u32,
    pub disk: u16,
    pub first_disk: u16,
    pub comment: Vec<u8>,
    /// What stands between the directory and the end.
    pub before: Vec<u8>,
}

/// An archive of `parts`; `change` may change its end, and is told where that begins.
pub fn archive(parts: &[Part], change: impl FnOnce(&mut End, u32)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut offsets = Vec::new();
    for p in parts {
        offsets.push(out.len() as u32);
        let name = p.local_name.as_ref().unwrap_or(&p.name);
        out.extend(0x0403_4b50u32.to_le_bytes());
        for v in [20, p.local_flags.unwrap_or(p.flags), p.local_method.unwrap_or(p.method), 0, 0x5021] {
            out.extend(v.to_le_bytes());
        }
        let packed = p.stated.unwrap_or(p.packed.len() as u32);
        for v in [p.local_crc.unwrap_or(p.crc), p.local_stated.unwrap_or(packed), p.local_size.unwrap_or(p.size)] {
            out.extend(v.to_le_bytes());
        }
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((p.local_extra.len() as u16).to_le_bytes());
        for piece in [name, &p.local_extra, &p.packed, &p.behind] {
            out.extend(piece);
        }
    }
    let start = out.len() as u32;
    for (p, offset) in parts.iter().zip(offsets) {
        out.extend(0x0201_4b50u32.to_le_bytes());
        for v in [u16::from_le_bytes([0x1e, p.system.unwrap_or(3)]), 20, p.flags, p.method, 0, 0x5021] {
            out.extend(v.to_le_bytes());
        }
        for v in [p.crc, p.stated.unwrap_or(p.packed.len() as u32), p.size] {
            out.extend(v.to_le_bytes());
        }
        for v in [p.name.len() as u16, p.extra.len() as u16, p.comment.len() as u16, p.disk, 0] {
            out.extend(v.to_le_bytes());
        }
        out.extend(p.attributes.to_le_bytes());
        out.extend(p.offset.unwrap_or(offset).to_le_bytes());
        for piece in [&p.name, &p.extra, &p.comment] {
            out.extend(piece);
        }
    }
    let count = parts.len() as u16;
    let size = out.len() as u32 - start;
    let mut end = End { here: count, all: count, size, offset: start, ..End::default() };
    let at = out.len() as u32;
    change(&mut end, at);
    out.extend(&end.before);
    out.extend(0x0605_4b50u32.to_le_bytes());
    for v in [end.disk, end.first_disk, end.here, end.all] {
        out.extend(v.to_le_bytes());
    }
    out.extend(end.size.to_le_bytes());
    out.extend(end.offset.to_le_bytes());
    out.extend((end.comment.len() as u16).to_le_bytes());
    out.extend(&end.comment);
    out
}

/// An extra field.
pub fn extra(id: u16, bytes: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &(bytes.len() as u16).to_le_bytes(), bytes].concat()
}
