//! Figures that no machine measured: what `validate --raw` would have written.

use serde_json::{Value, json};

/// Figures of one build, `scale` times as slow as the baseline's, with `wrong` wrong elements.
fn round(scale: f64, wrong: u64, nccl: bool) -> Value {
    let seconds = |base: f64| (0..5).map(|i| base * scale * (1.0 + 0.01 * f64::from(i - 2))).collect::<Vec<_>>();
    let row = |kind: &str, place: &str, bytes: u64| {
        json!({
            "bytes": bytes, "count": bytes / 4, "type": kind, "place": place,
            "seconds": seconds(1e-5 + bytes as f64 * 1e-9), "busbw": 0.0, "wrong": wrong,
        })
    };
    let rows: Vec<Value> = ["float", "half"]
        .iter()
        .flat_map(|kind| ["out", "in"].map(|place| (*kind, place)))
        .flat_map(|(kind, place)| [8u64, 1024, 1 << 20].map(|bytes| row(kind, place, bytes)))
        .collect();
    let latency = json!({ "p50": 30.0, "p90": 50.0, "p99": 80.0, "p999": 120.0, "max": 400.0 });
    let operations: Vec<Value> = ["set", "get", "add", "wait", "check"]
        .map(|name| json!({ "name": name, "rate": 20_000.0 / scale, "latency_us": latency }))
        .into();
    let store: Vec<Value> = [64u32, 1024, 4096]
        .iter()
        .flat_map(|n| [("libuv", 5e-4), ("legacy", 3e-3)].map(|(backend, each)| (*n, backend, each)))
        .map(|(n, backend, each)| {
            json!({
                "backend": backend, "clients": n, "startup_seconds": f64::from(n) * each * scale,
                "barrier_seconds": seconds(f64::from(n) * 1e-4), "operations": operations,
            })
        })
        .collect();
    let operators: Vec<Value> = [("matmul", "float32"), ("softmax", "bfloat16")]
        .iter()
        .map(|(name, kind)| json!({ "name": name, "shape": "64x64", "type": kind, "seconds": seconds(1e-3) }))
        .collect();
    let job = |backend: &str, device: &str, ranks: u32| json!({ "backend": backend, "device": device, "ranks": ranks });
    let mut collective = vec![json!({ "job": job("gloo", "cpu", 2), "rows": { "Ok": rows } })];
    let of_nccl = if nccl { json!({ "Ok": rows }) } else { json!({ "Err": "this build cannot: no nccl" }) };
    collective.push(json!({ "job": job("nccl", "cuda", 4), "rows": of_nccl }));
    json!({ "collective": collective, "store": { "rows": store }, "operators": { "threads": 2, "rows": operators } })
}

/// What `validate --raw` writes.
pub fn measured(scale: f64, wrong: u64) -> Value {
    let facts = |name: &str, digit: &str| {
        json!({
            "name": name, "sha256": digit.repeat(64), "version": "2.6.0+cpu.libuv", "commit": "0".repeat(40),
            "cuda": null, "cxx11_abi": true, "libuv": true, "libuv_version": "1.50.0, compiled in",
            "backends": ["gloo"], "packages": [],
        })
    };
    let scenario = |name: &str, candidate: Value, baseline: Value| json!({ "name": name, "what": "a script", "candidate": candidate, "baseline": baseline });
    let passed = json!({ "passed": { "seconds": 12.5, "libuv": true, "said": {} } });
    let known = "RuntimeError: use_libuv was requested but PyTorch was build without libuv support";
    json!({
        "schema_version": 1,
        "date": "2026-01-31",
        "candidate": facts("ours.whl", "a"),
        "baseline": facts("<script>alert(1)</script>", "b"),
        "machine": { "cpu": "A Processor", "cores": 8, "memory": 34359738368u64, "system": "A System", "gpus": [] },
        "effort": {
            "rounds": 2, "max_bytes": 1048576, "factor": 32, "cell_seconds": 0.1, "clients": [64, 1024, 4096],
            "operations": 4000, "many_ranks": 8, "backend": null, "device": null, "ranks": null,
        },
        "scenarios": [
            scenario("torchrun", passed.clone(), json!({ "failed": { "seconds": 3.0, "why": known } })),
            scenario("s1_train", passed, json!({ "not-available": { "why": "its Python has no lightning" } })),
        ],
        "commands": ["allreduce run --json", "allreduce store --json"],
        "raw": [[round(scale, wrong, true), round(1.0, 0, false)], [round(scale, 0, true), round(1.0, 0, false)]],
        "seconds": 123.0,
    })
}
