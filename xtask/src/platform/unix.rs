//! Linux and macOS.
#![allow(unsafe_code)] // process groups, namespaces and prctl have no safe interface in std

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};

/// Gives the command a process group of its own, so that [`kill_tree`] reaches all of it and the
/// terminal's Ctrl-C reaches only us.
pub fn new_process_group(command: &mut Command) {
    command.process_group(0);
}

/// Gives the command a session of its own as well: it has no terminal, so nothing in it can type into ours.
pub fn new_session(command: &mut Command) {
    // SAFETY: setsid() may be called between fork and exec, and touches no memory.
    unsafe {
        command.pre_exec(|| if libc::setsid() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
    }
}

/// Ends a process group: SIGTERM first, so that ninja and compilers clean up.
pub fn kill_tree(pid: u32, hard: bool) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: kill() takes plain integers; a group that is gone gives ESRCH.
        unsafe { libc::kill(-pid, if hard { libc::SIGKILL } else { libc::SIGTERM }) };
    }
}

/// Ends this process quietly when nobody reads its output any more (`… | head`), as programs do that
/// are not written in Rust.
pub fn die_of_broken_pipes() {
    // SAFETY: SIG_DFL is a valid disposition; called before other threads exist.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Lets this process outlive its terminal and its readers: when the terminal goes away, what is read from it or written
/// to it leads nowhere; writing from the background stops nothing; a reader that ends is an error of that write and no
/// more. Programs that are started later are as they always are.
pub fn outlive_terminal() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: a handler that does nothing may run at any time; unlike SIG_IGN it is not inherited.
    unsafe {
        for signal in [libc::SIGHUP, libc::SIGPIPE] {
            libc::signal(signal, nothing as *const () as libc::sighandler_t);
        }
        // With a handler the kernel would send it again and again.
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
    }
    // SAFETY: isatty takes an integer.
    let terminals: Vec<libc::c_int> = (0..=2).filter(|&fd| unsafe { libc::isatty(fd) } == 1).collect();
    if !terminals.is_empty() {
        std::thread::spawn(move || let_go_of(&terminals));
    }
}

/// Waits until the terminal is gone, and has its file descriptors lead nowhere: who writes to a terminal that is gone
/// gets an error, and a background process is sent no signal.
fn let_go_of(terminals: &[libc::c_int]) {
    let mut watched: Vec<_> = terminals.iter().map(|&fd| libc::pollfd { fd, events: 0, revents: 0 }).collect();
    // SAFETY: the list lives across the call, and its length is its own.
    while unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, -1) } < 1 {}
    let Ok(nowhere) = File::options().read(true).write(true).open("/dev/null") else { return };
    for &fd in terminals {
        // SAFETY: both are open file descriptors.
        unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&nowhere), fd) };
    }
}

/// Lets no more than `bytes` of what is written to a TCP socket wait in the kernel unsent: a client that does not read then
/// costs that, and not the megabytes that a fast one may have on the way.
#[cfg(target_os = "linux")]
pub fn bound_unsent(socket: &impl std::os::fd::AsRawFd, bytes: i32) {
    // SAFETY: the option is an int, which lives across the call.
    unsafe {
        let (value, size) = ((&raw const bytes).cast(), size_of::<i32>() as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, value, size);
    }
}

/// The kernel's own bound holds.
#[cfg(not(target_os = "linux"))]
pub fn bound_unsent<T>(_socket: &T, _bytes: i32) {}

/// Lets a TCP connection on which nothing is said last: what stands between (a firewall, NAT) forgets one that is silent
/// for minutes. So the other machine is asked for a sign of life `every` so often, and is gone if three do not come.
///
/// # Errors
/// It is no such connection.
#[cfg(target_os = "linux")]
pub fn keep_alive(socket: &impl std::os::fd::AsFd, every: Duration) -> std::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, every)?;
    sockopt::set_tcp_keepintvl(socket, every)?;
    Ok(sockopt::set_tcp_keepcnt(socket, 3)?)
}

/// A connection lasts as long as what stands between lets it.
///
/// # Errors
/// Never.
#[cfg(not(target_os = "linux"))]
pub fn keep_alive<T>(_socket: &T, _every: Duration) -> std::io::Result<()> {
    Ok(())
}

/// A file that is in memory alone, and goes with its last user.
///
/// # Errors
/// `Unsupported` where there is none.
pub fn memory_file() -> std::io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{MemfdFlags, memfd_create};
        Ok(File::from(memfd_create("torchmill", MemfdFlags::CLOEXEC)?))
    }
    #[cfg(not(target_os = "linux"))]
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Writes as much of `bytes` to a socket as it takes, and lets it wait there for what is written next.
///
/// # Errors
/// `Unsupported` where that is not known; whatever writing meets.
pub fn send_more(socket: &impl std::os::fd::AsFd, bytes: &[u8]) -> std::io::Result<usize> {
    #[cfg(target_os = "linux")]
    {
        use rustix::net::{SendFlags, send};
        Ok(send(socket, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (socket, bytes);
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Writes as much of `count` bytes at `at` in `file` to a socket as it takes, without copying them: `sendfile(2)`.
///
/// # Errors
/// `Unsupported` where that is not known; whatever writing meets.
pub fn send_of(socket: &impl std::os::fd::AsFd, file: &File, at: u64, count: usize) -> std::io::Result<usize> {
    #[cfg(target_os = "linux")]
    {
        let mut at = at;
        Ok(rustix::fs::sendfile(socket, file, Some(&mut at), count)?)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (socket, file, at, count);
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Opens a regular file for reading, and nothing else: no folder, no device, no pipe that nobody writes to; unless
/// `follow`, no symbolic link either.
///
/// # Errors
/// Whatever keeps it from being opened; `InvalidInput` for what is no regular file.
pub fn open_regular(path: &Path, follow: bool) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // O_NONBLOCK: opening a pipe waits for nobody.
    let flags = libc::O_NONBLOCK | if follow { 0 } else { libc::O_NOFOLLOW };
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    super::regular(file)
}

/// Opens the file at `path` for reading and writing, which is made if need be. No symbolic link is followed: it may lead to
/// a file that is not meant.
///
/// # Errors
/// Whatever keeps it from being opened; the file is named.
pub fn open_or_make(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW);
    options.open(path).map_err(|e| std::io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// What the system knows a file by, beside its name: device, number, and when anything about it changed last.
pub type FileId = (u64, u64, i64, i64);

/// Of a file.
pub fn file_id(about: &std::fs::Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt;
    (about.dev(), about.ino(), about.ctime(), about.ctime_nsec())
}

/// Whether `file` is the one that stands at `path` now: whoever waited for the lock of a file may have it once that was
/// removed, and another one, which others lock, stands in its place.
pub fn stands_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |about: std::io::Result<std::fs::Metadata>| about.ok().map(|about| (about.dev(), about.ino()));
    let there = of(std::fs::metadata(path));
    there.is_some() && there == of(file.metadata())
}

/// What is another text after every change of a file's bytes, whichever times it was given; `None` where nothing is, for
/// want of a time that nobody can set.
pub fn stamp(about: &std::fs::Metadata) -> Option<String> {
    let (device, number, seconds, nanoseconds) = file_id(about);
    Some(format!("{device} {number} {} {seconds}.{nanoseconds:09}", about.len()))
}

/// Reads at `offset` what can be had at once; `WouldBlock` where a disk or a server would be waited for.
///
/// # Errors
/// `WouldBlock`, and whatever else reading meets.
pub fn read_at_once(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let flags = ReadWriteFlags::NOWAIT;
        match preadv2(file, &mut [std::io::IoSliceMut::new(buffer)], offset, flags) {
            // Some file systems know no such flag.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(std::io::ErrorKind::WouldBlock.into()),
            done => Ok(done?),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, buffer, offset);
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

/// Reads at `offset`.
///
/// # Errors
/// Whatever reading meets.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

/// Asks the kernel to end this process when its parent dies (even by kill -9). Linux only.
pub fn die_with_parent() {
    #[cfg(target_os = "linux")]
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0);
    }
}

/// Raises this process' limit on open files as far as it goes: a server has one for each connection. Returns how many
/// it may have.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes the structure, setrlimit reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            let before = limit.rlim_cur;
            limit.rlim_cur = limit.rlim_max;
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
                limit.rlim_cur = before;
            }
        }
    }
    limit.rlim_cur
}

/// Whether the network can be cut off from a child: a network namespace can be made.
pub fn sandbox_supported() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::sync::OnceLock;
        static SUPPORTED: OnceLock<bool> = OnceLock::new();
        *SUPPORTED.get_or_init(|| tried(&unshare_network).is_ok())
    }
    #[cfg(not(target_os = "linux"))]
    {
        false
    }
}

/// Does `what` in a child that ends with it. The reason, if it fails.
#[cfg(target_os = "linux")]
fn tried(what: &dyn Fn() -> std::io::Result<()>) -> std::result::Result<(), String> {
    // SAFETY: the child makes no use of what another thread may hold before _exit.
    let status = unsafe {
        let pid = libc::fork();
        if pid == 0 {
            // Who may not be dumped may not write its own map of users.
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            libc::_exit(what().map_or_else(|e| e.raw_os_error().unwrap_or(1), |()| 0));
        }
        let mut status = 0;
        if pid < 0 || libc::waitpid(pid, &raw mut status, 0) != pid || !libc::WIFEXITED(status) {
            return Err("no process could be made to try it".into());
        }
        libc::WEXITSTATUS(status)
    };
    if status == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(status).to_string()) }
}

#[cfg(target_os = "linux")]
fn unshare_network() -> std::io::Result<()> {
    unshare(libc::CLONE_NEWNET)
}

/// Leaves the namespaces that `flags` name for ones of its own, in a user namespace of its own where it may not do so
/// otherwise.
#[cfg(target_os = "linux")]
fn unshare(flags: libc::c_int) -> std::io::Result<()> {
    // SAFETY: unshare() takes flags; getuid/getgid cannot fail.
    unsafe {
        if libc::unshare(flags) == 0 {
            return Ok(());
        }
        let (uid, gid) = (libc::getuid(), libc::getgid());
        if libc::unshare(libc::CLONE_NEWUSER | flags) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
        Ok(())
    }
}

/// Brings the loopback interface up in a fresh network namespace: stores under test listen on it.
#[cfg(target_os = "linux")]
pub(super) fn loopback_up() {
    // SAFETY: the request structure is zeroed and lives across both calls.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return;
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        if libc::ioctl(socket, libc::SIOCGIFFLAGS as _, &raw mut request) == 0 {
            request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
            libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw mut request);
        }
        libc::close(socket);
    }
}

/// Becomes `argv`, without network where `cut_network` (best effort: see [`sandbox_supported`]), and with the folders
/// `hidden` empty (or not at all), with `umask`. Called in a helper process that has one thread. Returns only on
/// failure.
pub fn sandbox_exec(cut_network: bool, hidden: &[PathBuf], argv: &[OsString]) -> Error {
    die_with_parent();
    set_umask(0o022);
    #[cfg(target_os = "linux")]
    {
        if !hidden.is_empty()
            && let Err(e) = hide(hidden)
        {
            return Error::world("no-namespaces", format!("folders of this machine cannot be hidden: {e}"));
        }
        if cut_network && unshare_network().is_ok() {
            loopback_up();
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (cut_network, hidden);
    exec(argv)
}

/// Whether folders can be hidden from a child: a mount namespace can be made. The reason, if not.
///
/// # Errors
/// What the kernel does not offer.
pub fn hiding_supported() -> std::result::Result<(), String> {
    #[cfg(target_os = "linux")]
    {
        let any = [PathBuf::from("/tmp")];
        tried(&|| hide(&any))
    }
    #[cfg(not(target_os = "linux"))]
    Err("this system has no namespaces".into())
}

/// Makes a mount namespace in which an empty folder that cannot be written lies over each of `folders`.
#[cfg(target_os = "linux")]
fn hide(folders: &[PathBuf]) -> std::io::Result<()> {
    let checked = |result: libc::c_int| if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
    unshare(libc::CLONE_NEWNS)?;
    // SAFETY: the paths are C strings that outlive each call; what is null may be null (mount(2)).
    unsafe {
        let (none, flags) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        checked(libc::mount(none, c"/".as_ptr(), none, flags, none.cast()))?;
        for folder in folders {
            let folder = CString::new(folder.as_os_str().as_bytes())?;
            let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;
            checked(libc::mount(c"tmpfs".as_ptr(), folder.as_ptr(), c"tmpfs".as_ptr(), flags, none.cast()))?;
        }
    }
    Ok(())
}

/// Becomes `argv`. Returns only on failure.
pub fn exec(argv: &[OsString]) -> Error {
    let Some((program, arguments)) = argv.split_first() else {
        return Error::misuse("exec", "nothing to run");
    };
    let e = Command::new(program).args(arguments).exec();
    Error::world("exec", format!("cannot run {}: {e}", Path::new(program).display()))
}

/// Becomes `argv` with the environment `env` and no other, as `user` and its group if one is named. Returns only on
/// failure.
pub fn exec_as(argv: &[OsString], env: &[(&str, OsString)], user: Option<(u32, u32)>) -> Error {
    let Some((program, arguments)) = argv.split_first() else {
        return Error::misuse("exec", "nothing to run");
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(env.iter().map(|(name, value)| (name, value))).current_dir("/");
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    let e = command.exec();
    Error::world("exec", format!("cannot run {}: {e}", Path::new(program).display()))
}

/// Runs `argv` to its end: its exit code (128 and the signal's number if one ended it, which is also
/// said), and the peak resident memory, in bytes, of the largest process that it was or started.
///
/// # Errors
/// Misuse: `argv` is empty. The world: it cannot be started.
pub fn run_measured(argv: &[OsString]) -> Result<(i32, u64)> {
    use std::os::unix::process::ExitStatusExt;
    let status = super::status_of(argv)?;
    // SAFETY: the structure is zeroed, and written by the call before it is read.
    let peak = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        u64::try_from(usage.ru_maxrss).unwrap_or(0)
    };
    // Linux counts KiB, macOS bytes (getrusage(2)).
    let peak = if cfg!(target_os = "macos") { peak } else { peak * 1024 };
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => {
            let signal = signal.unwrap_or(0);
            let how = if signal == libc::SIGKILL { "Killed" } else { "ended" };
            write_stderr(&format!("{}: {how} (signal {signal})\n", argv[0].to_string_lossy()));
            128 + signal
        }
    };
    Ok((code, peak))
}

/// Says something where there is nobody else to say it.
#[cfg(target_os = "linux")]
pub(super) fn say(text: &str) {
    write_stderr(text);
}

fn write_stderr(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Sets the mask for new files' modes.
pub fn set_umask(mask: u32) {
    // SAFETY: umask() takes an integer and cannot fail.
    unsafe { libc::umask(mask as libc::mode_t) };
}

/// Makes a symbolic link at `link` that leads to `target`.
///
/// # Errors
/// The world: it cannot be made.
pub fn symlink(target: &Path, link: &Path) -> Result<()> {
    Ok(fs_err::os::unix::fs::symlink(target, link)?)
}

/// Removes a link that [`symlink`] made, and not what it leads to.
///
/// # Errors
/// The world: it cannot be removed.
pub fn remove_link(link: &Path) -> Result<()> {
    Ok(fs_err::remove_file(link)?)
}

/// Open files can be renamed and removed here.
pub fn is_held(_error: &std::io::Error) -> bool {
    false
}

/// Folders of the system's programs.
pub fn system_programs() -> Vec<PathBuf> {
    ["/usr/bin", "/bin"].map(PathBuf::from).into()
}

/// What every program needs in its environment here: nothing.
pub fn own_variables(_work: &Path) -> Vec<(String, String)> {
    Vec::new()
}

/// Lets this process and all that it starts run on `count` cores at the most, of those that it may use: programs that
/// ask how many there are, are told so.
#[cfg(target_os = "linux")]
pub fn use_cores(count: usize) {
    // SAFETY: the sets are plain data of the size that is said, and live across the calls.
    unsafe {
        let (mut may, mut fewer): (libc::cpu_set_t, libc::cpu_set_t) = (std::mem::zeroed(), std::mem::zeroed());
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut may) != 0 {
            return;
        }
        let mut cores: Vec<usize> =
            (0..libc::CPU_SETSIZE as usize).filter(|core| libc::CPU_ISSET(*core, &may)).collect();
        // Not all on the first ones.
        let first = std::process::id() as usize % cores.len().max(1);
        cores.rotate_left(first);
        cores.into_iter().take(count.max(1)).for_each(|core| libc::CPU_SET(core, &mut fewer));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const fewer);
    }
}

/// No such bounds here.
#[cfg(not(target_os = "linux"))]
pub fn use_cores(_count: usize) {}

/// Whether the user is root.
pub fn is_root() -> bool {
    // SAFETY: geteuid() cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The user that this process runs as.
pub fn this_user() -> u32 {
    // SAFETY: geteuid() cannot fail.
    unsafe { libc::geteuid() }
}

/// How others than this user can write to one of `folders`, by owner and mode; `None` where they cannot. What is not
/// there nobody can write to.
pub fn shared_with(folders: &[PathBuf]) -> Option<String> {
    folders.iter().find_map(|path| {
        let (owner, mode) = owner_and_mode(path)?;
        let shared = owner != this_user() || mode & 0o022 != 0;
        shared.then(|| format!("{} belongs to user {owner} and has the mode {mode:04o}", path.display()))
    })
}

/// How others than this user and root can put something else in the place of what stands in `folder`; `None` where they
/// cannot. Every folder and link on the way counts. A folder like /tmp lets everybody write, and nobody touch what is not
/// theirs.
pub fn replaceable_by_others(folder: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let reversed = |path: &Path| path.iter().map(OsString::from).rev().collect::<Vec<_>>();
    let (mut at, mut ahead, mut links) = (PathBuf::from("/"), reversed(folder), 0);
    loop {
        let about = std::fs::symlink_metadata(&at).ok()?;
        let (owner, mode) = (about.uid(), about.mode() & 0o7777);
        let is_link = about.file_type().is_symlink();
        let is_open = !is_link && mode & 0o022 != 0 && mode & 0o1000 == 0;
        if is_open || !([this_user(), 0].contains(&owner) || is_unmapped(owner)) {
            return Some(format!("{} belongs to user {owner} and has the mode {mode:04o}", at.display()));
        }
        if is_link {
            links += 1;
            // As many as Linux follows.
            if links > 40 {
                return None;
            }
            let target = std::fs::read_link(&at).ok()?;
            at.pop();
            ahead.extend(reversed(&target));
        }
        // An absolute part begins anew, at the root folder.
        match ahead.pop()? {
            part if part == ".." => drop(at.pop()),
            part if part == "." => {}
            part => at.push(part),
        }
    }
}

/// Whether a file of this owner belongs to a user whom this process has no number for: inside of a container, any of
/// those outside, root among them.
fn is_unmapped(owner: u32) -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    read("/proc/sys/kernel/overflowuid").trim() == owner.to_string() && !is_mapped(owner, &read("/proc/self/uid_map"))
}

/// Whether `uid_map` (user_namespaces(7): first number inside, first one outside, how many) has a number for `user`.
fn is_mapped(user: u32, uid_map: &str) -> bool {
    uid_map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if (first..first.saturating_add(count)).contains(&user.into()))
    })
}

/// Whether `path` itself, not what it may lead to, is this user's.
pub fn is_own(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).is_ok_and(|about| about.uid() == this_user())
}

fn owner_and_mode(path: &Path) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(path).ok()?;
    Some((about.uid(), about.mode() & 0o7777))
}

/// Another user that programs can be started as: `nobody`, if we are root, and if that user may run
/// `program`, a Python, and list `dir`, which is given to that user.
pub fn other_user(program: &Path, dir: &Path) -> Option<u32> {
    const NOBODY: u32 = 65_534;
    if !is_root() || change_owner(dir, NOBODY).is_err() {
        return None;
    }
    let mut probe = Command::new(program);
    probe.args(["-I", "-c", "import os, sys; os.listdir(sys.argv[1])"]).arg(dir).current_dir("/");
    probe.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    probe.uid(NOBODY).gid(NOBODY).status().is_ok_and(|s| s.success()).then_some(NOBODY)
}

/// Gives all files below `dir` to `user`, links themselves and not what they point to.
///
/// # Errors
/// The world: a folder cannot be read, or a file cannot be given away.
pub fn change_owner(dir: &Path, user: u32) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
        if entry.metadata().is_ok_and(|m| m.uid() != user) {
            std::os::unix::fs::lchown(entry.path(), Some(user), Some(user))
                .map_err(|e| Error::world("owner", format!("cannot give {} away: {e}", entry.path().display())))?;
        }
    }
    Ok(())
}

/// Lets `command` run as `user`, with `umask`, in a process group of its own that dies with us.
pub fn enter_variation(command: &mut Command, user: Option<u32>, umask: u32) {
    command.process_group(0);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    // SAFETY: umask() and prctl() may be called between fork and exec, and touch no memory.
    unsafe {
        command.pre_exec(move || {
            set_umask(umask);
            die_with_parent();
            Ok(())
        });
    }
}

/// Bytes free for this user on the file system of `path`.
pub fn free_space(path: &Path) -> Option<u64> {
    let path = CString::new(OsStr::new(path).as_bytes()).ok()?;
    // SAFETY: `path` is a C string, `out` is written by the call before it is read.
    unsafe {
        let mut out: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut out) == 0).then(|| out.f_bavail as u64 * out.f_frsize as u64)
    }
}

/// Bytes of memory that can be used without swapping: the machine's, or the control group's if
/// that is less.
pub fn available_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))
        .and_then(|v| v.trim().trim_end_matches("kB").trim().parse().ok())?;
    let number = |p: &str| std::fs::read_to_string(p).ok()?.trim().parse::<u64>().ok();
    let cgroup = number("/sys/fs/cgroup/memory.max")
        .map(|max| max.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    Some((kib * 1024).min(cgroup.unwrap_or(u64::MAX)))
}

/// Peak resident memory of this process, in bytes.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// CPU seconds, user and system, of this process and of all children that have ended.
pub fn cpu_seconds() -> f64 {
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            // SAFETY: the structure is zeroed, and written by the call before it is read.
            let usage = unsafe {
                let mut usage: libc::rusage = std::mem::zeroed();
                libc::getrusage(who, &raw mut usage);
                usage
            };
            seconds(usage.ru_utime) + seconds(usage.ru_stime)
        })
        .sum()
}

/// Mode 0755 for a folder.
///
/// # Errors
/// The world: its mode cannot be changed.
pub fn make_traversable(dir: &Path) -> Result<()> {
    fs_err::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Has the names in a folder on the disk: what was moved there stays there, whatever happens to the machine.
///
/// # Errors
/// The world: it cannot be written.
pub fn sync_folder(folder: &Path) -> Result<()> {
    fs_err::File::open(folder)?.sync_all()?;
    Ok(())
}

/// Mode 0644 for an open file.
///
/// # Errors
/// The world: its mode cannot be changed.
pub fn make_readable(file: &File) -> Result<()> {
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    Ok(())
}

/// Mode 0755 or 0644 for a file.
///
/// # Errors
/// The world: its mode cannot be changed.
pub fn mark_executable(path: &Path, executable: bool) -> Result<()> {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
    Ok(())
}

/// Whether somebody may execute the file at `path`.
///
/// # Errors
/// The world: its mode cannot be read.
pub fn is_executable(path: &Path) -> Result<bool> {
    Ok(fs_err::metadata(path)?.permissions().mode() & 0o111 != 0)
}
