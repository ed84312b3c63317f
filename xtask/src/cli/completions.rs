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

/// Print a shell's completion script, for torchmill and for cargo xtask
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  source <(cargo xtask completions bash)            in ~/.bashrc
  cargo xtask completions fish > ~/.config/fish/conf.d/torchmill.fish
  torchmill completions zsh > ~/.zsh/torchmill.zsh  and source it after compinit

They know the recipes. `cargo xtask` is completed in bash, zsh and fish, once it
was built; `torchmill` in all of them.")]
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

/// The program that was built last in the repository around the current folder, and cargo's own completion where
/// the first word is not `xtask`.
fn of_cargo(shell: Shell) -> Option<&'static str> {
    Some(match shell {
        Shell::Bash => {
            r#"_torchmill_of_this_repository() {
    local dir=$PWD
    while [[ -n $dir && ! -x $dir/target/debug/torchmill ]]; do dir=${dir%/*}; done
    [[ -n $dir ]] && "$dir/target/debug/torchmill" "$@"
}
# What completed cargo until now; bash-completion would load it at the first TAB only.
declare -F _comp_load > /dev/null && _comp_load cargo
declare -F _completion_loader > /dev/null && _completion_loader cargo
_torchmill_cargo_before=$(complete -p cargo 2> /dev/null | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
[[ $_torchmill_cargo_before == _torchmill_cargo ]] && _torchmill_cargo_before=_cargo
_torchmill_cargo() {
    if [[ ${COMP_WORDS[1]} == xtask && $COMP_CWORD -gt 1 ]]; then
        local COMP_WORDS=("${COMP_WORDS[@]:1}") COMP_CWORD=$((COMP_CWORD - 1))
        _clap_complete_cargo_xtask xtask "$2" "$3"
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
    [[ -n $dir ]] && "$dir/target/debug/torchmill" "$@"
}
_torchmill_cargo() {
    if [[ $words[2] == xtask && $CURRENT -gt 2 ]]; then
        shift words
        (( CURRENT-- ))
        _clap_dynamic_completer_cargo_xtask
    else
        _cargo "$@"
    fi
}
compdef _torchmill_cargo cargo"#
        }
        Shell::Fish => {
            r#"function _torchmill_of_this_repository
    set dir $PWD
    while test -n "$dir" -a ! -x "$dir/target/debug/torchmill"
        set dir (string replace -r '/[^/]*$' '' -- $dir)
    end
    test -n "$dir" && $dir/target/debug/torchmill $argv
end
complete --keep-order --exclusive --command cargo --condition '__fish_seen_subcommand_from xtask' --arguments "(TORCHMILL_COMPLETE=fish _torchmill_of_this_repository -- (commandline --current-process --tokenize --cut-at-cursor)[2..] (commandline --current-token))""#
        }
        Shell::Elvish | Shell::Powershell => return None,
    })
}
