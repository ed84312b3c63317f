//! `completions`: for shells.
//!
//! What a shell is given asks this program at each press of TAB, so it knows the recipes that are there. In the
//! repository the command is `cargo xtask`, which is cargo's to complete: bash, zsh and fish get a function that
//! takes over for that word alone and asks the program that was built last.

use clap::{Args as ClapArgs, ValueEnum};
use clap_complete::env::Shells;

use crate::error::{Error, Result};

/// Set by the shell's function; its value is the shell.
pub const VARIABLE: &str = "TORCHMILL_COMPLETE";

/// Print a shell's completion script, also for the xtask of a clone
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  source <(cargo xtask completions bash)            in ~/.bashrc
  cargo xtask completions fish > ~/.config/fish/conf.d/torchmill.fish
  torchmill completions zsh > ~/.zsh/torchmill.zsh  and source it after compinit

They know the recipes. In bash, zsh and fish they complete cargo's xtask too, in
a clone where it was built.")]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

/// Runs the command.
///
/// # Errors
/// Misuse: there are none for that shell.
pub fn run(args: &Args) -> Result<()> {
    let name = args.shell.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    let shells = Shells::builtins();
    let script = |name: &str, bin: &str, completer: &str, shell: &str| -> Result<String> {
        let mut text = Vec::new();
        match shells.completer(shell) {
            Some(shell) => shell.write_registration(VARIABLE, name, bin, completer, &mut text)?,
            None => return Err(Error::misuse("shell", format!("there are no completions for {shell}"))),
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    println!("{}", script("torchmill", "torchmill", "torchmill", &name)?);
    if let Some(of_cargo) = of_cargo(args.shell) {
        // As if there were a program `cargo-xtask`: what completes it is called for `cargo xtask`.
        println!("{}", script("cargo_xtask", "cargo-xtask", "_torchmill_of_this_repository", &name)?);
        println!("{of_cargo}");
    }
    Ok(())
}

/// The program that was built last in the repository around the current folder; cargo's own completion where the
/// line is not `cargo xtask` or `cargo +TOOLCHAIN xtask`, and in a repository that has no such program: other people
/// have an `xtask` too.
fn of_cargo(shell: Shell) -> Option<&'static str> {
    Some(match shell {
        Shell::Bash => {
            r#"_torchmill_of_this_repository() {
    local dir=$PWD
    while [[ -n $dir && ! -x $dir/target/debug/torchmill ]]; do dir=${dir%/*}; done
    [[ -n $dir ]] || return
    [[ $# == 0 ]] || "$dir/target/debug/torchmill" "$@"
}
# Calls $1 for the line from word $2 on. Readline makes three words of --recipe=x: the second one goes.
_torchmill_from_word() {
    local line=("${COMP_WORDS[@]}") cursor=$COMP_CWORD i
    local COMP_WORDS=() COMP_CWORD
    for ((i = $2; i < ${#line[@]}; i++)); do
        [[ ${line[i]} == = && $i -lt $cursor ]] || COMP_WORDS+=("${line[i]}")
        [[ $i == "$cursor" ]] && COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    done
    "$1" "${@:3}"
}
_torchmill() { _torchmill_from_word _clap_complete_torchmill 0 "$@"; }
complete -o nospace -o bashdefault -o default -F _torchmill torchmill
# What completed cargo until now; bash-completion would load it at the first TAB only.
declare -F _comp_load > /dev/null && _comp_load cargo
declare -F _completion_loader > /dev/null && _completion_loader cargo
_torchmill_cargo_now=$(complete -p cargo 2> /dev/null | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
[[ $_torchmill_cargo_now == _torchmill_cargo ]] || _torchmill_cargo_before=$_torchmill_cargo_now
_torchmill_cargo() {
    local xtask=1
    [[ ${COMP_WORDS[1]} == +* ]] && xtask=2
    if [[ ${COMP_WORDS[xtask]} == xtask && $COMP_CWORD -gt $xtask ]] && _torchmill_of_this_repository; then
        _torchmill_from_word _clap_complete_cargo_xtask $xtask xtask "$2" "$3"
    elif declare -F "$_torchmill_cargo_before" > /dev/null; then
        "$_torchmill_cargo_before" "$@"
    fi
}
complete -o bashdefault -o default -F _torchmill_cargo cargo"#
        }
        Shell::Zsh => {
            r#"_torchmill_of_this_repository() {
    local dir=$PWD
    while [[ -n $dir && ! -x $dir/target/debug/torchmill ]]; do dir=${dir%/*}; done
    [[ -n $dir ]] || return
    [[ $# == 0 ]] || "$dir/target/debug/torchmill" "$@"
}
# What completed cargo until now.
[[ ${_comps[cargo]-} == _torchmill_cargo ]] || _torchmill_cargo_before=${_comps[cargo]:-_default}
_torchmill_cargo() {
    local -i xtask=2
    [[ $words[2] == +* ]] && xtask=3
    if [[ $words[xtask] == xtask ]] && (( CURRENT > xtask )) && _torchmill_of_this_repository; then
        shift $(( xtask - 1 )) words
        (( CURRENT -= xtask - 1 ))
        _clap_dynamic_completer_cargo_xtask
    else
        eval "$_torchmill_cargo_before"
    fi
}
compdef _torchmill_cargo cargo
# As a file _torchmill in a folder of fpath this is run by the first TAB, which wants its answer too.
[[ $funcstack[1] != _torchmill ]] || _clap_dynamic_completer_torchmill"#
        }
        Shell::Fish => {
            r#"function _torchmill_of_this_repository
    set --local dir $PWD
    while test -n "$dir"; and not test -x "$dir/target/debug/torchmill"
        set dir (string replace --regex '/[^/]*$' '' -- $dir)
    end
    test -n "$dir"; or return
    test (count $argv) -eq 0; or "$dir/target/debug/torchmill" $argv
end
# The line's words from xtask on, without the one that is being typed.
function _torchmill_words_of_xtask
    set --local words (commandline --current-process --tokenize --cut-at-cursor)[2..]
    string match --quiet -- '+*' $words[1]; and set --erase words[1]
    test "$words[1]" = xtask; and printf '%s\n' $words
end
complete --keep-order --exclusive --command cargo --condition '_torchmill_words_of_xtask >/dev/null; and _torchmill_of_this_repository' --arguments "(TORCHMILL_COMPLETE=fish _torchmill_of_this_repository -- (_torchmill_words_of_xtask) (commandline --current-token))""#
        }
        Shell::Elvish | Shell::Powershell => return None,
    })
}
