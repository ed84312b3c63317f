//! However a DEFLATE stream is damaged, and wherever its second half is begun: two halves say what one pass says.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| torchmill_fuzz::inflate(data));
