//! A published file on its way to a client: whole, or a range of it. What the system has in memory is read where the
//! client is served; only what a disk must be waited for goes to the threads that may wait. And a page that is not the
//! same for all clients, whose parts are.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::platform;

/// Bytes that several answers share, one after another: none has a copy of them.
pub struct Pieces(VecDeque<Bytes>);

impl Pieces {
    /// These, in this order.
    pub fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self(pieces.into_iter().collect())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// Bytes of a file as a body.
pub struct FileBody {
    file: Arc<File>,
    left: Range<u64>,
    piece: usize,
    waiting: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    /// The bytes of `file` in `range`, at most `piece` at a time.
    pub fn new(file: File, range: Range<u64>, piece: usize) -> Self {
        Self { file: Arc::new(file), left: range, piece, waiting: None }
    }

    fn took(&mut self, bytes: Bytes) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if bytes.is_empty() {
            // Shorter than its page says: the client must see that this is not all.
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        self.left.start += bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(waiting) = &mut self.waiting {
            let read = ready!(Pin::new(waiting).poll(cx));
            self.waiting = None;
            return match read.map_err(io::Error::other).flatten() {
                Ok(bytes) => self.took(bytes),
                Err(e) => Poll::Ready(Some(Err(e))),
            };
        }
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let at = self.left.start;
        let wanted = usize::try_from(self.left.end - at).unwrap_or(usize::MAX).min(self.piece);
        let mut buffer = vec![0; wanted];
        match platform::read_at_once(&self.file, &mut buffer, at) {
            Ok(n) => {
                buffer.truncate(n);
                self.took(buffer.into())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let file = Arc::clone(&self.file);
                self.waiting = Some(tokio::task::spawn_blocking(move || {
                    let n = platform::read_at(&file, &mut buffer, at)?;
                    buffer.truncate(n);
                    Ok(buffer.into())
                }));
                self.poll_frame(cx)
            }
            Err(e) => Poll::Ready(Some(Err(e))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.end - self.left.start)
    }
}
