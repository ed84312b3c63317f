//! What a press of TAB offers, in the shells themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Workspace;

#[test]
fn completions_are_made_for_every_shell() {
    let w = Workspace::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = w.run(&["completions", shell]).exits(0).stdout;
        assert!(script.contains("torchmill"), "{shell}");
        assert_eq!(script.contains("xtask"), ["bash", "zsh", "fish"].contains(&shell), "{shell}");
    }
}

/// A repository with two recipes, the program as it stands in a clone and as it is installed, and a shell's script.
struct Clone {
    workspace: Workspace,
    elsewhere: tempfile::TempDir,
    script: PathBuf,
}

impl Clone {
    fn new(shell: &str) -> Self {
        let workspace = Workspace::new();
        for recipe in ["one", "two"] {
            workspace.write(&format!("recipes/{recipe}.toml"), "");
        }
        let script = workspace.write("completions", workspace.run(&["completions", shell]).exits(0).stdout);
        for place in ["target/debug/torchmill", "bin/torchmill"] {
            let place = workspace.path().join(place);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_torchmill"), place).unwrap();
        }
        Self { workspace, elsewhere: tempfile::tempdir().unwrap(), script }
    }

    /// What `shell` prints in `dir`, without settings of this machine's user.
    fn says(&self, shell: &str, args: &[&str], dir: &Path) -> Vec<String> {
        let bin = self.workspace.path().join("bin");
        let out = Command::new(shell)
            .args(args)
            .current_dir(dir)
            .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
            .env("TERM", "dumb")
            .envs(["CONFIG", "DATA", "CACHE"].map(|kind| (format!("XDG_{kind}_HOME"), self.elsewhere.path())))
            .output()
            .unwrap_or_else(|e| panic!("{shell}: {e}"));
        assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
    }

    /// `offered` is what TAB offers at the end of a line, in a folder.
    fn offers_commands_recipes_and_files(&self, offered: impl Fn(&str, &Path) -> Vec<String>) {
        for command in ["torchmill", "cargo xtask", "cargo +stable xtask"] {
            let tab = |more: &str| offered(&format!("{command} {more}"), self.workspace.path());
            assert_eq!(tab("build-t"), ["build-torch"], "{command}");
            // zsh is given those of one description in an order of its own, and sorts what it shows.
            let recipes = BTreeSet::from_iter(tab("build-torch --recipe "));
            assert_eq!(Vec::from_iter(recipes), ["one", "two"], "{command}");
            assert_eq!(tab("mirror se"), ["serve"], "{command}");
            // bash completes the word behind `=`, the others the whole one; and zsh adds a folder's slash itself.
            let tied = tab("build-torch --recipe=o");
            assert_eq!(
                tied.iter().map(|t| t.trim_start_matches("--recipe=")).collect::<Vec<_>>(),
                ["one"],
                "{command}"
            );
            let file = tab("inspect rec");
            assert_eq!(file.iter().map(|f| f.trim_end_matches('/')).collect::<Vec<_>>(), ["recipes"], "{command}");
        }
    }
}

/// Sources $1 after a completion of cargo's own, and prints what the words after it are completed to.
const BASH: &str = r#"_cargo() { COMPREPLY=(from-cargo); }
complete -F _cargo cargo
source "$1"
shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
function=$(complete -p "$1" | sed 's/.* -F \([^ ]*\) .*/\1/')
"$function" "$1" "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\n' "${COMPREPLY[@]}""#;

#[test]
fn in_bash_tab_offers_commands_recipes_and_files_for_torchmill_and_for_cargo_xtask() {
    let clone = Clone::new("bash");
    let offered = |line: &str, dir: &Path| {
        // Readline makes words of its own of `=`.
        let line = line.replace('=', " = ");
        let args = ["--norc", "-c", BASH, "bash", clone.script.to_str().unwrap()];
        clone.says("bash", &args.into_iter().chain(line.split(' ')).collect::<Vec<_>>(), dir)
    };
    clone.offers_commands_recipes_and_files(offered);
    // What is cargo's own stays cargo's, and so does another repository's xtask.
    assert_eq!(offered("cargo bui", clone.workspace.path()), ["from-cargo"]);
    assert_eq!(offered("cargo xtask build-t", clone.elsewhere.path()), ["from-cargo"]);
}

/// Types $2 and TAB into an interactive zsh that has run $1, and prints what its completion adds.
const ZSH: &str = r#"zmodload zsh/zpty
offered=$(mktemp)
zpty typed "OFFERED=$offered SCRIPT=${(q)1} zsh -f -i"
until_it_says() {
    repeat 600; do
        while zpty -r -t typed drawn; do :; done
        grep -qx $1 $offered && return
        sleep 0.1
    done
    print -u2 "zsh never said $1"
}
# With -O, -A and -D compadd fills an array, and offers nothing. Typed lines may hold no comment.
zpty -w typed 'autoload -Uz compinit; compinit -u -D
_cargo() { compadd from-cargo }
compdef _cargo cargo
compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
    local -a found
    builtin compadd -A found "$@"
    [[ -n $found ]] && print -rl -- $found >> $OFFERED
    builtin compadd "$@"
}
press() { zle complete-word; print :completed >> $OFFERED }
zle -N press; bindkey "^I" press
source $SCRIPT
print :ready >> $OFFERED'
until_it_says :ready
zpty -w -n typed "$2"$'\t'
until_it_says :completed
grep -v '^:' $offered
zpty -d typed
rm $offered"#;

#[test]
#[ignore = "needs zsh"]
fn in_zsh_tab_offers_commands_recipes_and_files_for_torchmill_and_for_cargo_xtask() {
    let clone = Clone::new("zsh");
    let offered = |line: &str, dir: &Path| {
        clone.says("zsh", &["-f", "-c", ZSH, "zsh", clone.script.to_str().unwrap(), line], dir)
    };
    clone.offers_commands_recipes_and_files(offered);
    assert_eq!(offered("cargo fr", clone.workspace.path()), ["from-cargo"]);
    assert_eq!(offered("cargo xtask fr", clone.elsewhere.path()), ["from-cargo"]);
}

#[test]
#[ignore = "needs zsh"]
fn in_zsh_the_first_tab_answers_where_the_script_lies_in_fpath() {
    let clone = Clone::new("zsh");
    let functions = clone.elsewhere.path().join("functions");
    std::fs::create_dir(&functions).unwrap();
    std::fs::copy(&clone.script, functions.join("_torchmill")).unwrap();
    let loads = clone.elsewhere.path().join("loads");
    std::fs::write(&loads, format!("fpath=('{}' $fpath); compinit -u -D\n", functions.display())).unwrap();
    let args = ["-f", "-c", ZSH, "zsh", loads.to_str().unwrap(), "torchmill build-torch --recipe "];
    let recipes = BTreeSet::from_iter(clone.says("zsh", &args, clone.workspace.path()));
    assert_eq!(Vec::from_iter(recipes), ["one", "two"]);
}

#[test]
#[ignore = "needs fish"]
fn in_fish_tab_offers_commands_recipes_and_files_for_torchmill_and_for_cargo_xtask() {
    let clone = Clone::new("fish");
    let program = format!("source '{}'; complete -C $TYPED | string replace -r '\\t.*' ''", clone.script.display());
    let offered = |line: &str, dir: &Path| {
        let program = format!("set TYPED '{line}'; {program}");
        clone.says("fish", &["-c", &program], dir)
    };
    clone.offers_commands_recipes_and_files(offered);
    assert!(offered("cargo bui", clone.workspace.path()).contains(&"build".to_owned()));
    assert_eq!(offered("cargo xtask build-t", clone.elsewhere.path()), [""; 0]);
}
