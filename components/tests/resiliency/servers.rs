//! Servers that do not behave, before a real one or in the place of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Accepts connections and closes them.
pub(crate) struct Closing {
    port: u16,
    connections: Arc<AtomicUsize>,
    accepted: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Closing {
    pub(crate) async fn start() -> Self {
        Self::start_on(0).await
    }

    /// On a port that nobody else has.
    pub(crate) async fn start_on(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, accepted) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let server = tokio::spawn({
            let (connections, accepted) = (Arc::clone(&connections), Arc::clone(&accepted));
            async move {
                while listener.accept().await.is_ok() {
                    connections.fetch_add(1, Ordering::SeqCst);
                    accepted.notify_one();
                }
            }
        });
        Self { port, connections, accepted, server }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Until somebody connected, if nobody did since the last time.
    pub(crate) async fn accepted(&self) {
        self.accepted.notified().await;
    }

    /// Frees the port.
    pub(crate) async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

/// Hands everything on to a Redis and back, except the answers to the first commands with a certain word: instead of
/// each of them, it closes the connection.
pub(crate) struct Lossy {
    port: u16,
    seen: Arc<AtomicUsize>,
}

impl Lossy {
    /// Loses so many answers to commands with this word.
    pub(crate) async fn start(server: u16, word: &'static str, losses: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(AtomicUsize::new(0));
        tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let upstream = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    let seen = Arc::clone(&seen);
                    tokio::spawn(relay(client, upstream, word, move || seen.fetch_add(1, Ordering::SeqCst) < losses));
                }
            }
        });
        Self { port, seen }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many such commands came by.
    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, word: &str, is_lost: impl Fn() -> bool) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lose_next = false;
    loop {
        tokio::select! {
            count = client.read(&mut asked) => {
                let Some(count @ 1..) = count.ok() else { return };
                if asked[..count].windows(word.len()).any(|window| window == word.as_bytes()) {
                    lose_next = is_lost();
                }
                server.write_all(&asked[..count]).await.unwrap();
            }
            count = server.read(&mut answered) => {
                let Some(count @ 1..) = count.ok() else { return };
                if lose_next {
                    return;
                }
                client.write_all(&answered[..count]).await.unwrap();
            }
        }
    }
}
