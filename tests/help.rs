//! What people read first.

use crate::support::{Workspace, root};

/// All commands and the commands below them, as their own help names them.
fn commands(w: &Workspace) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut next = 0;
    while let Some(above) = all.get(next).cloned() {
        let help = help(w, &above);
        let list = help.split_once("\nCommands:\n").map(|(_, rest)| rest.split("\n\n").next().unwrap());
        for line in list.unwrap_or_default().lines().filter(|l| !l.starts_with("   ")) {
            let name = line.split_whitespace().next().unwrap();
            if name != "help" {
                all.push([above.clone(), vec![name.to_owned()]].concat());
            }
        }
        next += 1;
    }
    all
}

fn help(w: &Workspace, command: &[String]) -> String {
    let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
    args.push("--help");
    w.run(&args).exits(0).stdout
}

#[test]
fn every_command_and_every_command_below_one_has_help_with_an_example() {
    let w = Workspace::new();
    let all = commands(&w);
    assert!(all.len() > 30, "{all:?}");
    for command in &all {
        let help = help(&w, command);
        let name = command.join(" ");
        let examples = help.split_once("Example").map(|(_, rest)| rest).unwrap_or_default();
        assert!(examples.contains(format!("cargo xtask {name}").trim_end()), "{name}:\n{help}");
    }
}

#[test]
fn help_fits_a_terminal_of_80_columns_and_no_example_is_broken_for_it() {
    let w = Workspace::new();
    for command in commands(&w) {
        let help = help(&w, &command);
        let name = command.join(" ");
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
        let examples = help.split_once("Example").map(|(_, rest)| rest).unwrap_or_default();
        let mut lines = examples.lines().skip(1).take_while(|l| !l.is_empty());
        // What clap broke goes on at the margin.
        assert!(lines.all(|l| l.starts_with("  ") || l.starts_with("Exit code")), "{name}: {examples}");
    }
}

/// clap breaks what is longer than 80 columns, and keeps the indent: in the help that it prints this cannot be told
/// from lines that were meant.
#[test]
fn what_stands_below_a_help_needs_not_be_broken() {
    let mut blocks = 0;
    let files = walkdir::WalkDir::new(root().join("xtask/src/cli")).into_iter().map(Result::unwrap);
    for file in files.filter(|f| f.path().extension().is_some_and(|e| e == "rs")) {
        let text = std::fs::read_to_string(file.path()).unwrap();
        for below in text.split("after_help = \"\\\n").skip(1) {
            blocks += 1;
            for line in below.split("\"").next().unwrap().lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", file.path().display());
            }
        }
    }
    assert!(blocks > 30, "{blocks}");
}

#[test]
fn the_list_of_commands_is_the_one_shown_here() {
    let w = Workspace::new();
    insta::assert_snapshot!(help(&w, &[]));
}

#[test]
fn misuse_exits_2() {
    let w = Workspace::new();
    w.run(&["no-such-command"]).exits(2);
    w.run(&["build-torch", "--jobs", "0"]).exits(2);
    w.run(&[]).exits(2);
}

#[test]
fn a_man_page_is_written_for_every_command() {
    let w = Workspace::new();
    w.run(&["man", "--out", w.path().join("man1").to_str().unwrap()]).exits(0).says("pages in");
    for command in commands(&w) {
        let page = [vec!["torchmill".to_owned()], command].concat().join("-");
        let text = std::fs::read_to_string(w.path().join("man1").join(format!("{page}.1"))).unwrap();
        // Where something else is said first, they stand below it, in the same section.
        let titles = [".SH EXAMPLES\n", "\nExamples:\n", "\nExample:\n"];
        let examples = titles.iter().any(|title| text.contains(title));
        assert!(text.contains(".TH ") && examples, "{page}:\n{text}");
        assert!(!text.contains("cargo xtask"), "{page}:\n{text}");
        // man fills lines, unless told otherwise: a command that it broke in two cannot be typed.
        let (_, examples) = text.split_once(".nf\n").unwrap_or_else(|| panic!("{page}:\n{text}"));
        assert!(examples.contains("\n  torchmill") || examples.starts_with("  torchmill"), "{page}:\n{text}");
    }
}

#[test]
fn nothing_is_coloured_where_no_color_is_set() {
    let w = Workspace::new();
    let ran = w.run(&["lock", "--recipe", "none"]).exits(2);
    assert!(!ran.stderr.contains('\u{1b}'));
}
