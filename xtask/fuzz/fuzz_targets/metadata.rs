//! METADATA and file names: no value that counts goes over a line, whatever stands there.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| torchmill_fuzz::metadata(data));
