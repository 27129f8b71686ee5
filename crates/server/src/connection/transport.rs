//! What carries a connection's bytes: a TCP socket, or TLS on one. A write that makes no progress ends it.

use std::{
    io::{self, IoSlice, Read as _},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tokio_rustls::server::TlsStream;

/// Unsent bytes that the kernel holds for a client: beyond that a write waits, and the wait shows that the client takes nothing.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 * 1024;

/// The socket itself: what is below TLS, where TLS is spoken.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: TcpStream,
    write_timeout: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    /// A watcher has taken the socket's readiness from a reader to come: bytes may be there without it.
    readiness_taken: bool,
}

/// An enum and not a box: plain connections pay nothing for TLS.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(Raw),
    Tls(Box<TlsStream<Raw>>),
}

// === impl Raw ===

impl Raw {
    /// `write_timeout`: how long a client may take nothing of what is written to it.
    pub(crate) fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        #[cfg(target_os = "linux")]
        drop(socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES));
        Self {
            stream,
            write_timeout,
            stalled: None,
            readiness_taken: false,
        }
    }

    /// Done when the client has closed its side, however many bytes came before that. Bytes that are there stay there.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stream = &self.stream;
        loop {
            if ready!(stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match stream.ready(Interest::READABLE).now_or_never() {
                Some(Ok(ready)) if !ready.is_read_closed() => {}
                Some(_) => return Poll::Ready(()),
                None => {}
            }
            // Bytes that are not the watcher's to read: it waits for the next event.
            self.readiness_taken = true;
            let taken = stream.try_io(Interest::READABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
            debug_assert!(taken.is_err());
        }
    }

    #[cfg(test)]
    pub(super) fn readiness_taken(&self) -> bool {
        self.readiness_taken
    }

    /// What TLS holds back is bounded as well: it is written here.
    pub(super) fn bounded<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing of its answer",
        )))
    }
}

impl AsyncRead for Raw {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.readiness_taken {
            match (&*socket2::SockRef::from(&self.stream)).read(buf.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readiness_taken = false;
                }
                read => return Poll::Ready(read.map(|bytes| buf.advance(bytes))),
            }
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Raw {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bounded(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bounded(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// === impl Transport ===

impl Transport {
    pub(super) fn raw(&mut self) -> &mut Raw {
        match self {
            Self::Plain(raw) => raw,
            Self::Tls(tls) => tls.get_mut().0,
        }
    }

    /// Writes these last bytes, and TLS's own end, as far as the kernel takes them at once.
    pub(super) fn end_with(&mut self, bytes: &[u8]) {
        // Nothing waits for the socket any more.
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        if !bytes.is_empty() {
            // The connection ends, whether the client has received this or not.
            let _ = Pin::new(&mut *self).poll_write(cx, bytes);
        }
        if let Self::Tls(tls) = self {
            tls.get_mut().1.send_close_notify();
            let _ = Pin::new(tls).poll_flush(cx);
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(raw) => Pin::new(raw).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(raw) => Pin::new(raw).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(raw) => Pin::new(raw).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(raw) => Pin::new(raw).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(raw) => Pin::new(raw).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
