//! Connections that can be reset on purpose.
//!
//! Responsibility: a listener for axum whose connections carry a switch: once thrown, the next byte that would be
//! written resets the connection instead, so the client sees it die without an answer.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Who is connected, and the switch of that connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    doomed: Arc<AtomicBool>,
}

impl Peer {
    /// Lets the connection die instead of carrying another byte.
    pub(crate) fn reset(&self) {
        self.doomed.store(true, Ordering::SeqCst);
    }
}

/// Accepts [`Connection`]s.
pub(crate) struct Acceptor(pub(crate) TcpListener);

impl Listener for Acceptor {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    // Without it every small answer may wait for a delayed ACK; losing the option only costs time.
                    let _ = stream.set_nodelay(true);
                    return (Connection { stream, doomed: Arc::default() }, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Acceptor>> for Peer {
    fn connect_info(incoming: IncomingStream<'_, Acceptor>) -> Self {
        Self { address: *incoming.remote_addr(), doomed: Arc::clone(&incoming.io().doomed) }
    }
}

/// A TCP connection with a switch.
pub(crate) struct Connection {
    stream: TcpStream,
    doomed: Arc<AtomicBool>,
}

impl Connection {
    fn alive(&self) -> io::Result<()> {
        if self.doomed.load(Ordering::SeqCst) {
            // Closing with linger 0 sends RST instead of FIN.
            self.stream.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.alive()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.alive()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
