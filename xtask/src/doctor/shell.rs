//! How a variable is set in Windows' two shells. What is right in the one is wrong in the other, and not always told:
//! `set` is Set-Variable in PowerShell, which makes no variable of the environment, and says nothing. So what is to
//! help on Windows is given for both, unless it shows which of them it is.

/// The line for cmd.exe; an empty `value` takes the variable away. The quotes are not part of the value; without them,
/// a blank at the end of the line is.
pub fn cmd(variable: &str, value: &str) -> String {
    format!("set \"{variable}={value}\"")
}

/// The line for PowerShell; an empty `value` takes the variable away.
pub fn powershell(variable: &str, value: &str) -> String {
    // An empty text takes it away as well up to 7.4, and is a value from 7.5 on.
    if value.is_empty() { format!("$env:{variable} = $null") } else { format!("$env:{variable} = \"{value}\"") }
}

/// Both, as lines to paste, each with whose it is in a remark that its shell passes over.
pub fn lines(variable: &str, value: &str) -> Vec<String> {
    vec![
        format!("{}   & rem in cmd.exe", cmd(variable, value)),
        format!("{}   # in PowerShell", powershell(variable, value)),
    ]
}

/// Both, in a sentence.
pub fn words(variable: &str, value: &str) -> String {
    format!("{} (cmd.exe) or {} (PowerShell)", cmd(variable, value), powershell(variable, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_of_windows_is_told_its_own_line() {
        assert_eq!(
            lines("USE_LIBUV", "0"),
            ["set \"USE_LIBUV=0\"   & rem in cmd.exe", "$env:USE_LIBUV = \"0\"   # in PowerShell"]
        );
        assert_eq!(
            lines("USE_LIBUV", ""),
            ["set \"USE_LIBUV=\"   & rem in cmd.exe", "$env:USE_LIBUV = $null   # in PowerShell"]
        );
        assert_eq!(words("A", "1"), "set \"A=1\" (cmd.exe) or $env:A = \"1\" (PowerShell)");
    }
}
