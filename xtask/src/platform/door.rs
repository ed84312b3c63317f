//! A socket in the file system: what runs in a sandbox without network can reach it, and this program, outside of the
//! sandbox, answers there.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// One who came through the door.
pub trait Visitor: Read + Write + Send {
    /// The same visitor a second time, so that it can be heard and told at once.
    ///
    /// # Errors
    /// There is no room for one more open file.
    fn again(&self) -> io::Result<Box<dyn Visitor>>;

    /// Ends what is said, both ways.
    fn hang_up(&self);
}

#[cfg(unix)]
impl Visitor for std::os::unix::net::UnixStream {
    fn again(&self) -> io::Result<Box<dyn Visitor>> {
        Ok(Box::new(self.try_clone()?))
    }

    fn hang_up(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

/// A door that is open until this goes.
pub struct Door {
    at: PathBuf,
    closing: Arc<AtomicBool>,
    watch: Option<JoinHandle<()>>,
}

impl Door {
    /// Opens a door at `at` for this user alone; each visitor is given to `serve`, in a thread of its own.
    ///
    /// # Errors
    /// The socket cannot be made: its path is too long, or this system has none.
    #[cfg(unix)]
    pub fn open(at: &Path, serve: impl Fn(Box<dyn Visitor>) + Send + Sync + 'static) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        // What a killed run left there.
        match std::fs::remove_file(at) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(at)?;
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o600))?;
        let closing = Arc::new(AtomicBool::new(false));
        let (closed, serve) = (Arc::clone(&closing), Arc::new(serve));
        let watch = std::thread::spawn(move || {
            for visitor in listener.incoming() {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                if let Ok(visitor) = visitor {
                    std::thread::spawn(move || serve(Box::new(visitor)));
                }
            }
        });
        Ok(Self { at: at.to_owned(), closing, watch: Some(watch) })
    }

    /// No such sockets here.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(unix))]
    pub fn open(at: &Path, serve: impl Fn(Box<dyn Visitor>) + Send + Sync + 'static) -> io::Result<Self> {
        let (_, _) = (at, serve);
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no sockets in the file system"))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // Whoever waits for a visitor sees one, and that it is time to go.
        #[cfg(unix)]
        let _ = std::os::unix::net::UnixStream::connect(&self.at);
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
        let _ = std::fs::remove_file(&self.at);
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn a_door_answers_until_it_is_closed_and_leaves_no_socket() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("door");
        let door = Door::open(&at, |mut visitor| {
            let mut byte = [0u8];
            visitor.read_exact(&mut byte).unwrap();
            visitor.write_all(&[byte[0] + 1]).unwrap();
        })
        .unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(&at).unwrap();
        stream.write_all(&[41]).unwrap();
        let mut answer = [0u8];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [42]);
        drop(door);
        assert!(!at.exists());
    }
}
