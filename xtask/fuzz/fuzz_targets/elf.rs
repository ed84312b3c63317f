//! An ELF file with any content ends in a library or an error, and so does the content by itself.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: Vec<u8>| {
    let _ = xtask::inspect::library(&data);
    let mut whole = b"\x7fELF\x02\x01".to_vec();
    whole.extend_from_slice(&data);
    // The class' name somewhere makes the search for proof run.
    whole.extend_from_slice(b"N4c10d6detail16LibUVStoreDaemonE\0.?AVLibUVStoreDaemon@detail@c10d@@\0");
    let _ = xtask::inspect::library(&whole);
});
