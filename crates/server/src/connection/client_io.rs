//! A client's connection: its end is noticed while nothing is read from it.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};

use super::transport::Transport;

/// What is still read of a client that sends on after its connection has been closed for it.
const DISCARDED_BYTES: usize = 64 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(10);
const DISCARD_PAUSE: Duration = Duration::from_secs(2);

/// The connection's bytes as hyper sees them.
pub(crate) struct ClientIo(Arc<Socket>);

/// The same for its watcher. Both are polled by the connection's task only, so the lock is always free.
#[derive(Debug)]
pub(crate) struct Socket {
    transport: Mutex<Transport>,
    /// The last read found nothing: the reader will be woken by whatever comes.
    reader_waits: AtomicBool,
}

// === impl Socket ===

impl Socket {
    fn transport(&self) -> MutexGuard<'_, Transport> {
        self.transport
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends bytes that hyper knows nothing of, and that the connection ends, as far as the kernel takes them at once.
    pub(crate) fn end_with(&self, bytes: &[u8]) {
        self.transport().end_with(bytes);
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
        self.transport().raw().poll_closed(cx)
    }

    /// Closes this side, then reads and forgets what the client still sends, within bounds: were the socket dropped with unread bytes,
    /// a reset could overtake the answer.
    pub(crate) async fn discard(&self) {
        let end = Instant::now() + DISCARD_TIME;
        let closed = std::future::poll_fn(|cx| Pin::new(&mut *self.transport()).poll_shutdown(cx));
        // TLS has a last word, for which there may be no room.
        if !matches!(timeout_at(end, closed).await, Ok(Ok(()))) {
            return;
        }
        let mut piece = vec![0; 16 * 1024];
        let mut left = DISCARDED_BYTES;
        while left > 0 {
            let read = std::future::poll_fn(|cx| {
                let mut buf = ReadBuf::new(&mut piece);
                // As it comes: nobody is interested in what it says.
                let mut transport = self.transport();
                ready!(Pin::new(transport.raw()).poll_read(cx, &mut buf))?;
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
    pub(crate) fn new(transport: Transport) -> Self {
        Self(Arc::new(Socket {
            transport: Mutex::new(transport),
            reader_waits: AtomicBool::new(false),
        }))
    }

    pub(crate) fn socket(&self) -> Arc<Socket> {
        self.0.clone()
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut *self.0.transport()).poll_read(cx, buf);
        self.0
            .reader_waits
            .store(read.is_pending(), Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.transport()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.transport()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.transport()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.transport()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        time::{sleep, timeout},
    };

    use super::*;
    use crate::connection::transport::Raw;

    const LIMIT: Duration = Duration::from_secs(60);
    const LONG: Duration = Duration::from_secs(10);

    async fn pair() -> (TcpStream, ClientIo) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let raw = Raw::new(accepted.unwrap().0, LIMIT);
        (client.unwrap(), ClientIo::new(Transport::Plain(raw)))
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
            if socket.transport().raw().readiness_taken() {
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
            io.0.reset();
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
        let (_client, io) = pair().await;
        let write = async |written: Poll<io::Result<usize>>| {
            let mut written = Some(written);
            let mut poll = |cx: &mut Context<'_>| {
                let mut transport = io.0.transport();
                transport.raw().bounded(written.take().unwrap(), cx)
            };
            poll_fn(|cx| Poll::Ready(poll(cx))).await
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
        let (answer, ()) = tokio::join!(sending, io.0.discard());
        assert_eq!(answer, "answer");
    }
}
