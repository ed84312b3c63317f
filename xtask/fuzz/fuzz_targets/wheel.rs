//! A wheel that the strict reader takes is the same to another reader, file by file; everything else ends in an
//! error. The first byte chooses what is fuzzed: the bytes as they are, or changes in a wheel that is right.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| torchmill_fuzz::wheel(data));
