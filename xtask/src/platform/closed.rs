//! A closed room for code of others: a program sees the folders that it is given and nothing else of
//! the file system, no network, no other process, has no privilege, and cannot type into the terminal that it was started
//! from (Linux: namespaces(7), seccomp(2)).
//!
//! The room is built by a helper, which is this program under a hidden command: outside → (namespaces)
//! → init, process 1 of the room → the program. When the helper ends, the kernel ends all of them.
#![allow(unsafe_code)] // namespaces, mounts, capabilities and seccomp have no safe interface in std

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::unix;
use crate::error::Error;

/// The hidden command that builds a closed room and becomes a program in it.
pub const CLOSED_COMMAND: &str = "__closed";

/// What a program in the room can reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// An empty folder, in which the room is built; nothing is written to it.
    pub at: PathBuf,
    /// Files and folders that can be read: where they are, and where they are in the room.
    pub read: Vec<(PathBuf, PathBuf)>,
    /// Folders that can be written too.
    pub write: Vec<PathBuf>,
    /// Where the program starts.
    pub cwd: PathBuf,
    /// The root folder of the system that it sees, such as one that debootstrap made; this one's own if `None`.
    #[serde(default)]
    pub system: Option<PathBuf>,
    /// Every IPv4 address leads to the room itself: a program in it can stand in for others that have one.
    #[serde(default)]
    pub all_addresses: bool,
}

/// What compilers, linkers and interpreters of the system stand in, and what they read of `/etc`.
/// No secret is in it: `/etc` as a whole holds some.
const SYSTEM: [&str; 22] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/hosts",
    "/etc/mime.types",
    "/etc/ccache.conf",
    "/etc/python3",
    "/etc/python3.11",
];
/// What root is called in the room, where it is not root.
const NOT_ROOT: u32 = 1000;
/// Devices that hold nothing.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Whether a room can be built here; the reason, if not.
///
/// # Errors
/// What the kernel does not offer.
pub fn supported() -> Result<(), String> {
    let dir = super::scratch::Scratch::new().map_err(|e| format!("no folder for it: {e}"))?;
    let room = Room { at: dir.path().to_owned(), cwd: "/".into(), ..Room::default() };
    let me = super::program::own_program().map_err(|e| format!("this program's own file cannot be found: {e}"))?;
    let spec = serde_json::to_string(&room).map_err(|e| e.to_string())?;
    let out = std::process::Command::new(me)
        .args([CLOSED_COMMAND, &spec, "/bin/sh", "-c", "test -e /proc/self/exe"])
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    if out.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&out.stderr).lines().next().unwrap_or("the helper failed").to_owned())
}

/// Builds the room and runs `argv` in it; ends as it ended. Called in a helper process that has one
/// thread. Returns only on failure.
pub fn enter(room: &Room, argv: &[OsString]) -> Error {
    let failed = |what: &str, e: io::Error| Error::world("closed-room", format!("no closed room: {what}: {e}"));
    // SAFETY: plain numbers: it dies with its parent, and a request to stop is for the program inside.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
    }
    no_dumps(true);
    if let Err((what, e)) = close_inherited().and_then(|()| namespaces()) {
        return failed(what, e);
    }
    // SAFETY: this process has one thread; the child goes on with the same memory.
    match unsafe { libc::fork() } {
        -1 => failed("a process for it", io::Error::last_os_error()),
        0 => init(room, argv),
        child => std::process::exit(wait_for(child)),
    }
}

/// Process 1: builds the room, starts the program, and takes in whoever is left without a parent.
fn init(room: &Room, argv: &[OsString]) -> ! {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number: nothing in the room outlives the helper.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    let end = |e: &Error| -> ! {
        unix::say(&format!("{}\n", e.what()));
        std::process::exit(3)
    };
    if let Err((what, e)) = build(room) {
        end(&Error::world("closed-room", format!("no closed room: {what}: {e}")));
    }
    unix::loopback_up();
    if room.all_addresses
        && let Err(e) = every_address_is_ours()
    {
        end(&Error::world("closed-room", format!("no closed room: addresses of its own: {e}")));
    }
    // SAFETY: as above.
    match unsafe { libc::fork() } {
        -1 => end(&Error::world("closed-room", io::Error::last_os_error().to_string())),
        0 => {
            if let Err(e) = drop_privileges() {
                end(&Error::world("closed-room", format!("no closed room: privileges cannot be given up: {e}")));
            }
            unix::set_umask(0o022);
            // SAFETY: SIG_DFL is a valid disposition.
            unsafe {
                libc::signal(libc::SIGTERM, libc::SIG_DFL);
                libc::signal(libc::SIGINT, libc::SIG_DFL);
            }
            end(&unix::exec(argv))
        }
        program => loop {
            let mut status = 0;
            // SAFETY: waits for any child; the status is written before it is read.
            let ended = unsafe { libc::waitpid(-1, &raw mut status, 0) };
            if ended == program {
                std::process::exit(code_of(status));
            }
            if ended < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                std::process::exit(3);
            }
        },
    }
}

fn wait_for(child: i32) -> i32 {
    loop {
        let mut status = 0;
        // SAFETY: waits for a child of ours; the status is written before it is read.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            return code_of(status);
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return 3;
        }
    }
}

fn code_of(status: i32) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

type Step<T = ()> = Result<T, (&'static str, io::Error)>;

fn checked(what: &'static str, result: libc::c_int) -> Step {
    if result < 0 { Err((what, io::Error::last_os_error())) } else { Ok(()) }
}

/// Closes what this process was started with beside its three streams: from a folder that a shell had open, a way leads
/// out of any root (openat(2)), and a file is one of the user's.
fn close_inherited() -> Step {
    const WHAT: &str = "closing what was left open";
    // SAFETY: close_range(2) takes numbers, and this process has opened nothing that it still uses.
    if unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) } == 0 {
        return Ok(());
    }
    // Linux before 5.9 has no such call. What lists them is open itself, and is gone before they are closed.
    let open: Vec<libc::c_int> = std::fs::read_dir("/proc/self/fd")
        .map_err(|e| (WHAT, e))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in open {
        // SAFETY: as above.
        unsafe { libc::close(number) };
    }
    Ok(())
}

/// Namespaces of its own for users, mounts, processes, network, messages and the host's name.
fn namespaces() -> Step {
    const ALL: libc::c_int =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // SAFETY: unshare() takes flags; getuid() and getgid() cannot fail.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    // SAFETY: as above. Root goes into a user namespace too: what is a device, or belongs to the kernel, is out of its reach.
    let users = unsafe { libc::unshare(libc::CLONE_NEWUSER | ALL) };
    if users < 0 {
        let e = io::Error::last_os_error();
        if !unix::is_root() {
            return Err(("namespaces", e));
        }
        // SAFETY: as above. Without user namespaces root keeps no capability all the same.
        return checked("namespaces", unsafe { libc::unshare(ALL) });
    }
    let map = |path: &str, text: String| std::fs::write(path, text).map_err(|e| ("the user's map", e));
    // A user 0 without capabilities could not make a user namespace of its own (user_namespaces(7): CAP_SETFCAP), and
    // with it none of the closed rooms that a build makes.
    let (user, group) = (if uid == 0 { NOT_ROOT } else { uid }, if gid == 0 { NOT_ROOT } else { gid });
    map("/proc/self/setgroups", "deny".into())?;
    map("/proc/self/uid_map", format!("{user} {uid} 1"))?;
    map("/proc/self/gid_map", format!("{group} {gid} 1"))
}

/// Mounts what the room has, and turns it into the root.
fn build(room: &Room) -> Step {
    mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE, "the mounts' own copy")?;
    mount(Some("tmpfs"), &room.at, Some("tmpfs"), libc::MS_NOSUID | libc::MS_NODEV, "an empty root")?;
    for path in SYSTEM.map(Path::new) {
        let from = room.system.as_ref().map_or_else(|| path.to_owned(), |system| below(system, path));
        match std::fs::read_link(&from) {
            // Where /bin is a link to /usr/bin, it is one in the room.
            Ok(to) if path.components().count() == 2 => {
                std::os::unix::fs::symlink(to, inside(room, path)).map_err(|e| ("the system's folders", e))?;
            }
            // A link in another system's root leads to a place there, which only its own root finds.
            Ok(to) if room.system.is_some() && to.is_absolute() => {}
            _ if from.exists() => bind(&from, &inside(room, path), true)?,
            _ => {}
        }
    }
    for name in DEVICES {
        let device = Path::new("/dev").join(name);
        if device.exists() {
            bind(&device, &inside(room, &device), false)?;
        }
    }
    for (dir, what) in [("tmp", "an empty /tmp"), ("dev/shm", "an empty /dev/shm")] {
        let dir = room.at.join(dir);
        std::fs::create_dir_all(&dir).map_err(|e| (what, e))?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), libc::MS_NOSUID | libc::MS_NODEV, what)?;
    }
    // After the empty ones: what is given may stand below /tmp. What stands below another comes after it.
    let written = room.write.iter().map(|p| (p, p, false));
    let mut given: Vec<_> = written.chain(room.read.iter().map(|(from, to)| (from, to, true))).collect();
    given.sort_by_key(|(_, to, _)| to.components().count());
    for (from, to, read_only) in given {
        bind(from, &inside(room, to), read_only)?;
    }
    let processes = room.at.join("proc");
    std::fs::create_dir_all(&processes).map_err(|e| ("/proc", e))?;
    mount(
        Some("proc"),
        &processes,
        Some("proc"),
        libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        "/proc of its own",
    )?;
    settings_read_only(&processes)?;
    pivot(&room.at)?;
    // It may be one of which nothing is shown.
    std::fs::create_dir_all(&room.cwd)
        .and_then(|()| std::env::set_current_dir(&room.cwd))
        .map_err(|e| ("the folder to start in", e))
}

/// Makes all of `/proc`, which stands at `processes`, read-only but for the processes: what is written there sets the
/// kernel itself (`core_pattern` names a program that it runs outside of any room), and of the writer it asks no more
/// than to be the system's root, whatever that user is called in a namespace, and without any capability.
fn settings_read_only(processes: &Path) -> Step {
    use std::os::unix::fs::PermissionsExt;
    const WHAT: &str = "/proc of which nothing can be set";
    for entry in std::fs::read_dir(processes).map_err(|e| (WHAT, e))? {
        let entry = entry.map_err(|e| (WHAT, e))?;
        let is_process = entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        // One that is gone by now needs nothing.
        let Some(about) = entry.metadata().ok().filter(|about| !is_process && !about.is_symlink()) else { continue };
        if !about.is_dir() && about.permissions().mode() & 0o222 == 0 {
            continue;
        }
        let path = entry.path();
        mount(path.to_str(), &path, None, libc::MS_BIND, WHAT)?;
        attributes(&path, true)?;
    }
    Ok(())
}

/// Makes all IPv4 addresses those of the loopback interface (rtnetlink(7): RTM_NEWROUTE into the local table, which is
/// `ip route add local 0.0.0.0/0 dev lo`).
fn every_address_is_ours() -> io::Result<()> {
    /// The header of the message, the route, and the one attribute that it has.
    #[repr(C)]
    struct Request {
        header: libc::nlmsghdr,
        route: [u8; 12],
        attribute: [u16; 2],
        interface: u32,
    }
    const LENGTH: u32 = size_of::<Request>() as u32;
    let mut request = Request {
        header: libc::nlmsghdr {
            nlmsg_len: LENGTH,
            nlmsg_type: libc::RTM_NEWROUTE,
            nlmsg_flags: (libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_ACK) as u16,
            nlmsg_seq: 1,
            nlmsg_pid: 0,
        },
        // Family, lengths of destination and source, type of service, table, protocol, scope, type, flags.
        route: [
            libc::AF_INET as u8,
            0,
            0,
            0,
            libc::RT_TABLE_LOCAL,
            libc::RTPROT_BOOT,
            libc::RT_SCOPE_HOST,
            libc::RTN_LOCAL,
            0,
            0,
            0,
            0,
        ],
        attribute: [8, libc::RTA_OIF],
        // SAFETY: the name is a C string.
        interface: unsafe { libc::if_nametoindex(c"lo".as_ptr()) },
    };
    let mut answer = [0u8; 256];
    // SAFETY: what is sent and what is received lives across the calls, and has the lengths that are said.
    unsafe {
        let socket = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let sent = libc::send(socket, (&raw mut request).cast(), LENGTH as usize, 0);
        let got = if sent < 0 { sent } else { libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), 0) };
        let failed = io::Error::last_os_error();
        libc::close(socket);
        if got < 0 {
            return Err(failed);
        }
    }
    // After the header of 16 bytes: 0, or a negative errno.
    match answer.get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn inside(room: &Room, path: &Path) -> PathBuf {
    below(&room.at, path)
}

/// The absolute `path`, below the folder `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn text(path: &Path) -> Step<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|e| ("a path", e.into()))
}

fn mount(from: Option<&str>, to: &Path, kind: Option<&str>, flags: libc::c_ulong, what: &'static str) -> Step {
    let from = from.map(|f| text(Path::new(f))).transpose()?;
    let kind = kind.map(|k| text(Path::new(k))).transpose()?;
    let to = text(to)?;
    let pointer = |s: &Option<CString>| s.as_ref().map_or(std::ptr::null(), |s| s.as_ptr());
    // SAFETY: all pointers are null or C strings that outlive the call.
    checked(what, unsafe { libc::mount(pointer(&from), to.as_ptr(), pointer(&kind), flags, std::ptr::null()) })
}

/// Shows `from` at `to`, with all that is mounted below it.
fn bind(from: &Path, to: &Path, read_only: bool) -> Step {
    let made = if from.is_dir() {
        std::fs::create_dir_all(to)
    } else {
        std::fs::create_dir_all(to.parent().unwrap_or(to))
            .and_then(|()| std::fs::OpenOptions::new().create(true).append(true).open(to).map(drop))
    };
    // A place that is there already, in a folder that can only be read, is as good.
    made.or_else(|e| if to.exists() { Ok(()) } else { Err(e) }).map_err(|e| ("a place for what is shown", e))?;
    let source = from.to_str().ok_or_else(|| ("a path", io::Error::other("it is not UTF-8")))?;
    mount(Some(source), to, None, libc::MS_BIND | libc::MS_REC, "a folder that is shown")?;
    attributes(to, read_only)
}

/// No set-user-ID below `to`, and no writing where it can only be read: for all mounts there (mount_setattr(2)).
fn attributes(to: &Path, read_only: bool) -> Step {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        users: u64,
    }
    const READ_ONLY: u64 = 1;
    const NO_SETUID: u64 = 2;
    const RECURSIVE: libc::c_uint = 0x8000;
    let wanted =
        Attributes { set: NO_SETUID | if read_only { READ_ONLY } else { 0 }, clear: 0, propagation: 0, users: 0 };
    let path = text(to)?;
    // SAFETY: the path is a C string, the structure has the size that is said, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            RECURSIVE,
            &raw const wanted,
            size_of::<Attributes>(),
        )
    };
    checked("folders that can only be read (Linux 5.12)", if result < 0 { -1 } else { 0 })
}

/// Makes `root` the root, and the old one unreachable (pivot_root(2), "pivot_root(".", ".")").
fn pivot(root: &Path) -> Step {
    std::env::set_current_dir(root).map_err(|e| ("the new root", e))?;
    // SAFETY: the paths are C strings; the old root is on top of the new one after the first call.
    unsafe {
        let moved = libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr());
        checked("the new root", if moved < 0 { -1 } else { 0 })?;
        checked("leaving the old root", libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
    }
    std::env::set_current_dir("/").map_err(|e| ("the new root", e))
}

/// No capability is left, none comes back by running a program, and no system call reaches what namespaces do not divide.
fn drop_privileges() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    const LAST: libc::c_ulong = 63;
    // SAFETY: prctl() takes numbers here; capset reads a header and six words that outlive the call.
    unsafe {
        for capability in 0..=LAST {
            // EINVAL past the last one that this kernel knows.
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        let header = Header { version: VERSION_3, pid: 0 };
        let none = [0u32; 6];
        if libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    refuse_system_calls()
}

/// How the kernel calls the machine whose system calls this program makes (linux/audit.h); `None` where that is not
/// known here.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else {
    None
};

/// Has the kernel refuse what [`filter`] names, to this process and all that it starts. It needs no privilege, since none
/// can come back.
fn refuse_system_calls() -> io::Result<()> {
    let unknown = || io::Error::new(io::ErrorKind::Unsupported, "no filter of system calls is known for this machine");
    let mut steps = filter(ARCHITECTURE.ok_or_else(unknown)?);
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps outlive the call. Without SPEC_ALLOW, some kernels would slow down all that runs
    // below it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A call by which a file gets its mode: the argument that is the mode, and the one that says whether a file is made at
/// all, where the mode means nothing otherwise.
type Mode = (libc::c_long, usize, Option<usize>);

/// From 424 on, a call has one number on all machines.
const FCHMODAT2: libc::c_long = 452;
const IO_URING_SETUP: u32 = 425;
const OPENAT2: u32 = 437;
const MODES: [Mode; 5] = [
    (libc::SYS_fchmod, 1, None),
    (libc::SYS_fchmodat, 2, None),
    (FCHMODAT2, 2, None),
    (libc::SYS_mknodat, 2, None),
    (libc::SYS_openat, 3, Some(2)),
];
/// Those that younger machines do not have.
#[cfg(target_arch = "x86_64")]
const OLDER_MODES: [Mode; 4] =
    [(libc::SYS_chmod, 1, None), (libc::SYS_creat, 1, None), (libc::SYS_mknod, 1, None), (libc::SYS_open, 2, Some(1))];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_MODES: [Mode; 0] = [];

/// What the kernel does at each system call (seccomp(2)). EPERM is the answer to what types into a terminal, which may be
/// that of the user's shell (TIOCSTI, TIOCLINUX), to what reaches the user's keys (keyrings(7)), and to a mode by which
/// a file is run as the user that it belongs to: it stays when the room is gone, for all who find it. A call of another
/// machine's, under other numbers, ends the program. Calls whose modes are not to be seen from here (openat2, io_uring)
/// do not exist, as on older kernels. All else goes on.
fn filter(architecture: u32) -> Vec<libc::sock_filter> {
    use std::mem::offset_of;
    // The low half of an argument, on machines that put it first: ioctl(2) looks at no more of a request, and nobody at
    // more of a mode.
    const fn argument(number: usize) -> usize {
        offset_of!(libc::seccomp_data, args) + number * size_of::<u64>()
    }
    const SET_USER_ID: u32 = 0o4000;
    // O_TMPFILE is a bit of its own and O_DIRECTORY.
    const MAKES: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;
    // Calls of x86-64 that have this bit are those of x32, under other numbers.
    const X32: u32 = 0x4000_0000;
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at: usize| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at as u32, 0, 0);
    let answer = |what: u32| step(libc::BPF_RET | libc::BPF_K, what, 0, 0);
    // Both decide about the next step: it is skipped where what was loaded is `k`, or where `test` with `k` fails.
    let unless = |k: u32| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, 1, 0);
    let only_if = |test: u32, k: u32| step(libc::BPF_JMP | test | libc::BPF_K, k, 0, 1);
    let refusal = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let mut steps = vec![
        load(offset_of!(libc::seccomp_data, arch)),
        unless(architecture),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(offset_of!(libc::seccomp_data, nr)),
        only_if(libc::BPF_JSET, X32),
        refusal,
    ];
    for call in [libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key] {
        steps.extend([only_if(libc::BPF_JEQ, call as u32), refusal]);
    }
    for call in [OPENAT2, IO_URING_SETUP] {
        steps.extend([only_if(libc::BPF_JEQ, call), answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)]);
    }
    let allow = answer(libc::SECCOMP_RET_ALLOW);
    for (call, mode, flags) in MODES.into_iter().chain(OLDER_MODES) {
        let mut judged = Vec::new();
        if let Some(flags) = flags {
            let makes = step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, MAKES, 1, 0);
            judged.extend([load(argument(flags)), makes, allow]);
        }
        judged.extend([load(argument(mode)), only_if(libc::BPF_JSET, SET_USER_ID), refusal, allow]);
        // All that is said of a call is passed over at another one.
        steps.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 0, judged.len() as u8));
        steps.extend(judged);
    }
    steps.extend([unless(libc::SYS_ioctl as u32), allow, load(argument(1))]);
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        steps.extend([only_if(libc::BPF_JEQ, request as u32), refusal]);
    }
    steps.push(allow);
    steps
}

/// This process leaves no memory behind when it breaks, and no process of the same user reads its memory
/// or environment. With `core_only`, the second is left as it is.
pub fn no_dumps(core_only: bool) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit reads the structure; PR_SET_DUMPABLE takes a number.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        if !core_only {
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        }
    }
}
