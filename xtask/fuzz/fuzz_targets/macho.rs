//! Any content after the first bytes of a Mach-O file.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| torchmill_fuzz::library(b"\xcf\xfa\xed\xfe", data));
