//! Any content after the first bytes of an ELF file.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| torchmill_fuzz::library(b"\x7fELF\x02\x01", data));
