//! CUDA fat binaries: which GPU architectures a library really holds code for. The layout is that of
//! `fatbinary_section.h` and of the headers that `cuobjdump --list-elf` walks: a chain of
//! containers, each { magic, version, header size, size }, with entries { kind, version, header
//! size, size, …, architecture }.

use std::collections::BTreeMap;

use crate::wheel::{ReadAt, slice, u16_at, u32_at, u64_at};

const MAGIC: u32 = 0xba55_ed50;
const CONTAINER_HEADER: u64 = 16;
/// An entry's header up to and with its architecture.
const ENTRY_HEADER: u64 = 32;
/// Most entries that are counted: far more than the largest library has.
const MOST: u64 = 1 << 20;

/// Counts the images in `section` by kind and architecture, into `out`.
pub fn count(section: &dyn ReadAt, out: &mut BTreeMap<String, u64>) {
    let (mut at, mut seen) = (0u64, 0u64);
    while let Some(header) = slice(section, at, CONTAINER_HEADER) {
        if u32_at(&header, 0) != MAGIC {
            // Containers are padded to eight bytes.
            at += 8;
            seen += 1;
            if seen > MOST {
                return;
            }
            continue;
        }
        let header_size = u64::from(u16_at(&header, 6)).max(CONTAINER_HEADER);
        let size = u64_at(&header, 8);
        let Some(end) = at.checked_add(header_size).and_then(|a| a.checked_add(size)) else { return };
        let mut entry = at + header_size;
        while entry < end {
            let Some(e) = slice(section, entry, ENTRY_HEADER) else { return };
            let (kind, header_size, size) = (u16_at(&e, 0), u64::from(u32_at(&e, 4)), u64_at(&e, 8));
            let architecture = u32_at(&e, 28);
            match kind {
                1 => *out.entry(format!("ptx compute_{architecture}")).or_default() += 1,
                2 => *out.entry(format!("cubin sm_{architecture}")).or_default() += 1,
                _ => {}
            }
            seen += 1;
            let next = entry.checked_add(header_size).and_then(|n| n.checked_add(size));
            match next {
                Some(next) if next > entry && seen <= MOST => entry = next,
                _ => return,
            }
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(kind: u16, architecture: u32, body: usize) -> Vec<u8> {
        let mut e = vec![0u8; 64];
        e[..2].copy_from_slice(&kind.to_le_bytes());
        e[4..8].copy_from_slice(&64u32.to_le_bytes());
        e[8..16].copy_from_slice(&(body as u64).to_le_bytes());
        e[28..32].copy_from_slice(&architecture.to_le_bytes());
        e.extend(vec![0xaa; body]);
        e
    }

    fn container(entries: &[Vec<u8>]) -> Vec<u8> {
        let body = entries.concat();
        let mut c = MAGIC.to_le_bytes().to_vec();
        c.extend_from_slice(&1u16.to_le_bytes());
        c.extend_from_slice(&16u16.to_le_bytes());
        c.extend_from_slice(&(body.len() as u64).to_le_bytes());
        c.extend(body);
        c
    }

    #[test]
    fn images_are_counted_by_kind_and_architecture() {
        let mut section = container(&[entry(2, 80, 40), entry(2, 90, 16), entry(1, 90, 8)]);
        section.extend([0; 8]);
        section.extend(container(&[entry(2, 90, 0)]));
        let mut out = BTreeMap::new();
        count(&section, &mut out);
        let found: Vec<_> = out.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        assert_eq!(found, [("cubin sm_80", 1), ("cubin sm_90", 2), ("ptx compute_90", 1)]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut section = MAGIC.to_le_bytes().to_vec();
            section.extend(bytes);
            count(&section, &mut BTreeMap::new());
        }
    }
}
