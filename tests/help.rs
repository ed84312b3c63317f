//! What people read first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)] // a test that cannot go on panics

mod support;

use support::Workspace;

const COMMANDS: &[&str] = &[
    "build-torch",
    "fetch",
    "lock",
    "recipe",
    "libuv",
    "tree",
    "inspect",
    "doctor",
    "verify",
    "sign",
    "diff",
    "repro",
    "rebuild",
    "mirror",
    "validate",
    "shell",
    "clean",
    "schema",
    "completions",
];

#[test]
fn every_command_has_help_with_an_example() {
    let w = Workspace::new();
    for command in COMMANDS {
        let help = w.run(&[command, "--help"]).exits(0).stdout;
        assert!(help.contains("Example"), "{command}:\n{help}");
        assert!(help.contains(&format!("cargo xtask {command}")), "{command}:\n{help}");
    }
}

#[test]
fn the_list_of_commands_is_the_one_tested_here() {
    let w = Workspace::new();
    let help = w.run(&["--help"]).exits(0).stdout;
    insta::assert_snapshot!(help);
    for command in COMMANDS {
        assert!(help.contains(command));
    }
}

#[test]
fn misuse_exits_2() {
    let w = Workspace::new();
    w.run(&["no-such-command"]).exits(2);
    w.run(&["build-torch", "--jobs", "0"]).exits(2);
    w.run(&[]).exits(2);
}

#[test]
fn completions_are_made_for_every_shell() {
    let w = Workspace::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(w.run(&["completions", shell]).exits(0).stdout.contains("build-torch"), "{shell}");
    }
}

#[test]
fn nothing_is_coloured_where_no_color_is_set() {
    let w = Workspace::new();
    let ran = w.run(&["lock", "--recipe", "none"]).exits(2);
    assert!(!ran.stderr.contains('\u{1b}'));
}
