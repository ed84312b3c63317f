//! What the benches of whole builds share: a recipe that is built in the store, and its build folder emptied.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// This program, with nothing of others: settings may name a cache or a farm.
pub fn xtask(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.args(args).current_dir(root()).env_remove("TORCHMILL_SETTINGS").stdin(Stdio::null());
    command
}

pub fn plan(recipe: &str) -> Value {
    let out = xtask(&["build-torch", "--dry-run", "--json", "--recipe", recipe]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice::<Value>(&out.stdout).expect("a plan")["plan"].clone()
}

/// Whether nothing is left to do.
pub fn is_built(plan: &Value) -> bool {
    plan["stages"].as_array().unwrap().iter().all(|s| s["cached"] == true)
}

/// Folder of a stage's result.
pub fn stage(plan: &Value, work: &Path, name: &str) -> PathBuf {
    let stages = plan["stages"].as_array().unwrap();
    let key = stages.iter().find(|s| s["stage"] == name).unwrap()["key"].as_str().unwrap();
    work.ancestors().nth(2).unwrap().join("stages").join(name).join(&key[..20])
}

/// Empties the build folder, and takes the results of these stages out of the store.
pub fn forget(plan: &Value, work: &Path, stages: &[&str]) {
    remove(work);
    for name in stages {
        remove(&stage(plan, work, name));
    }
}

pub fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

pub fn remove(dir: &Path) {
    torchmill::store::remove_tree(dir).unwrap();
}

/// Nobody's build begins while the system still writes what the one before left: gigabytes.
pub fn written() {
    assert!(Command::new("sync").status().unwrap().success());
}
