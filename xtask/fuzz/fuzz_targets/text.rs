//! Texts of other people: Python files of a torch, tracebacks, the code of a function, RECORD files,
//! statements, envelopes.
#![no_main]
use libfuzzer_sys::fuzz_target;
use torchmill::artifact::{dsse::Envelope, provenance::Statement};
use torchmill::inspect::Files;
use torchmill::wheel::record;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (version, rest) = text.split_once('\n').unwrap_or(("2.6.0", &text));
    for windows in [false, true] {
        let files = Files {
            rendezvous: rest,
            static_rendezvous: Some(rest),
            c10d_backend: Some(rest),
            dynamic_rendezvous: Some(rest),
        };
        let _ = torchmill::inspect::start_defaults(files, version, windows, true);
    }
    let _ = torchmill::doctor::explain(data);
    for aarch64 in [false, true] {
        let _ = torchmill::inspect::uv_version_in_code(data, aarch64);
    }
    let _ = record::parse(&text);
    let _ = Statement::parse(data, "fuzz");
    let _ = Envelope::parse(data, "fuzz").map(|e| e.payload("fuzz"));
});
