//! METADATA, file names and entry points: no value that counts goes over a line, and no program leaves its folder.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| torchmill_fuzz::metadata(data));
