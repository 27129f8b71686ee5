//! A client's socket: its end is noticed while nothing is read from it, and a write that makes no progress ends it.

use std::{
    io::{self, IoSlice, Read as _},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, timeout_at},
};

/// Unsent bytes that the kernel holds for a client: beyond that a write waits, and the wait shows that the client takes nothing.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 * 1024;

/// What is still read of a client that sends on after its connection has been closed for it.
const DISCARDED_BYTES: usize = 64 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(10);
const DISCARD_PAUSE: Duration = Duration::from_secs(2);

/// The socket as hyper sees it.
pub(crate) struct ClientIo {
    socket: Arc<Socket>,
    write_timeout: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// The same socket for its watcher. Both are polled by the connection's task only, so the lock is always free.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Mutex<TcpStream>,
    /// The last read found nothing: the reader will be woken by whatever comes.
    reader_waits: AtomicBool,
    /// The watcher has taken the socket's readiness from a reader to come: bytes may be there without it.
    readiness_taken: AtomicBool,
}

// === impl Socket ===

impl Socket {
    fn stream(&self) -> MutexGuard<'_, TcpStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.stream();
        if self.readiness_taken.load(Ordering::Relaxed) {
            match (&*socket2::SockRef::from(&*stream)).read(buf.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readiness_taken.store(false, Ordering::Relaxed);
                }
                read => return Poll::Ready(read.map(|bytes| buf.advance(bytes))),
            }
        }
        Pin::new(&mut *stream).poll_read(cx, buf)
    }

    /// Sends bytes that hyper knows nothing of, as far as the kernel takes them at once.
    pub(crate) fn try_send(&self, bytes: &[u8]) {
        // The connection ends, whether the client has received this or not.
        let _ = self.stream().try_write(bytes);
    }

    /// Before a poll of the connection: whether it reads is known after it.
    pub(crate) fn reset(&self) {
        self.reader_waits.store(false, Ordering::Relaxed);
    }

    /// Done when the client has closed its side, however many bytes came before that. To be polled after the connection: hyper reads no
    /// further while a request is being answered and bytes of the next one are here, and then sees no end.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.reader_waits.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let stream = self.stream();
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
            self.readiness_taken.store(true, Ordering::Relaxed);
            let taken = stream.try_io(Interest::READABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
            debug_assert!(taken.is_err());
        }
    }

    /// Closes this side, then reads and forgets what the client still sends, within bounds: were the socket dropped with unread bytes,
    /// a reset could overtake the answer.
    pub(crate) async fn discard(&self) {
        let end = Instant::now() + DISCARD_TIME;
        let closed = std::future::poll_fn(|cx| Pin::new(&mut *self.stream()).poll_shutdown(cx));
        if closed.await.is_err() {
            return;
        }
        let mut piece = vec![0; 16 * 1024];
        let mut left = DISCARDED_BYTES;
        while left > 0 {
            let read = std::future::poll_fn(|cx| {
                let mut buf = ReadBuf::new(&mut piece);
                ready!(self.poll_read(cx, &mut buf))?;
                Poll::Ready(io::Result::Ok(buf.filled().len()))
            });
            let until = end.min(Instant::now() + DISCARD_PAUSE);
            match timeout_at(until, pin!(read)).await {
                Ok(Ok(bytes)) if bytes > 0 => left = left.saturating_sub(bytes),
                _ => return,
            }
        }
    }
}

// === impl ClientIo ===

impl ClientIo {
    /// `write_timeout`: how long a client may take nothing of what is written to it.
    pub(crate) fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        #[cfg(target_os = "linux")]
        drop(socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES));
        Self {
            socket: Arc::new(Socket {
                stream: Mutex::new(stream),
                reader_waits: AtomicBool::new(false),
                readiness_taken: AtomicBool::new(false),
            }),
            write_timeout,
            stalled: None,
        }
    }

    pub(crate) fn socket(&self) -> Arc<Socket> {
        self.socket.clone()
    }

    fn bounded<T>(
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

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.socket.poll_read(cx, buf);
        self.socket
            .reader_waits
            .store(read.is_pending(), Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.socket.stream()).poll_write(cx, buf);
        self.bounded(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.socket.stream()).poll_write_vectored(cx, bufs);
        self.bounded(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.stream()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);
    const LONG: Duration = Duration::from_secs(10);

    async fn pair() -> (TcpStream, ClientIo) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), ClientIo::new(accepted.unwrap().0, LIMIT))
    }

    async fn closed(io: &ClientIo) {
        let socket = io.socket();
        let closed = poll_fn(|cx| socket.poll_closed(cx));
        timeout(LONG, closed)
            .await
            .expect("the close is noticed in time");
    }

    /// Polls the watcher until it has seen that bytes are there, and is waiting for more.
    async fn watcher_sees_bytes(io: &ClientIo) {
        let socket = io.socket();
        let seen = poll_fn(|cx| {
            assert!(socket.poll_closed(cx).is_pending());
            if socket.readiness_taken.load(Ordering::Relaxed) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        timeout(LONG, seen).await.unwrap();
    }

    #[tokio::test]
    async fn disconnect_behind_unread_bytes_is_detected() {
        for reset in [false, true] {
            let (mut client, io) = pair().await;
            client.write_all(b"\r\n").await.unwrap();
            watcher_sees_bytes(&io).await;
            if reset {
                client.set_zero_linger().unwrap();
            }
            drop(client);
            closed(&io).await;
        }
    }

    #[tokio::test]
    async fn half_closed_connection_counts_as_closed() {
        let (mut client, io) = pair().await;
        client.write_all(b"GET").await.unwrap();
        client.shutdown().await.unwrap();
        closed(&io).await;
    }

    #[tokio::test]
    async fn disconnect_watch_consumes_no_bytes() {
        let (mut client, mut io) = pair().await;
        for round in 0..3 {
            client.write_all(b"first").await.unwrap();
            watcher_sees_bytes(&io).await;
            let mut seen = [0; 5];
            timeout(LONG, io.read_exact(&mut seen))
                .await
                .unwrap_or_else(|_| panic!("bytes are lost in round {round}"))
                .unwrap();
            assert_eq!(&seen, b"first");
            // More bytes come while the reader waits for them.
            let (read, ()) = tokio::join!(timeout(LONG, io.read_exact(&mut seen)), async {
                client.write_all(b"later").await.unwrap();
            });
            read.unwrap().unwrap();
            assert_eq!(&seen, b"later");
            io.socket.reset();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn write_to_a_client_that_reads_nothing_times_out() {
        let (client, mut io) = pair().await;
        let start = Instant::now();
        let written = io.write_all(&vec![0; 64 << 20]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= LIMIT && start.elapsed() < LIMIT * 2);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn each_byte_read_by_the_client_restarts_the_write_timeout() {
        let (_client, mut io) = pair().await;
        let mut write = async |written: Poll<io::Result<usize>>| {
            let mut written = Some(written);
            poll_fn(|cx| Poll::Ready(io.bounded(written.take().unwrap(), cx))).await
        };
        for _ in 0..5 {
            assert!(write(Poll::Pending).await.is_pending());
            sleep(LIMIT * 2 / 3).await;
            assert!(write(Poll::Pending).await.is_pending());
            assert!(write(Poll::Ready(Ok(1))).await.is_ready());
        }
        assert!(write(Poll::Pending).await.is_pending());
        sleep(LIMIT).await;
        let Poll::Ready(Err(error)) = write(Poll::Pending).await else {
            panic!("the client is not cut off");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn discard_drains_the_request_and_the_answer_arrives() {
        let (mut client, mut io) = pair().await;
        io.write_all(b"answer").await.unwrap();
        let sending = async {
            client.write_all(&vec![0; 8 << 20]).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            drop(client);
            answer
        };
        let (answer, ()) = tokio::join!(sending, io.socket.discard());
        assert_eq!(answer, "answer");
    }
}
