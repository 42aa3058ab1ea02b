//! The Unix socket at which [`super::admin`] is asked: by root and by the proxy's own user only, one request at a time.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net as std_net;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, Semaphore};
use tokio::time::{sleep, timeout};

use super::admin::{handle, read, write, Handled, Order, Response};
use super::bounded_io::{read_some, write_all};
use super::state::State;

/// What those who ask may take.
#[derive(Debug, Clone, Copy)]
pub struct AdminBounds {
    /// Bytes of a request; a deny list of a thousand prefixes has 50,000.
    pub line: usize,
    /// Connections at once.
    pub clients: usize,
    /// How long a connection may be silent.
    pub idle: Duration,
    /// How long the reader of an answer may take.
    pub write: Duration,
    /// How long the runtime may take for an order; a reload resolves names.
    pub order: Duration,
}

impl Default for AdminBounds {
    fn default() -> Self {
        Self {
            line: 256 * 1024,
            clients: 16,
            idle: Duration::from_secs(60),
            write: Duration::from_secs(5),
            order: Duration::from_secs(60),
        }
    }
}

/// An order on its way to the runtime.
#[derive(Debug)]
pub enum Ordered {
    /// To be answered. A dropped sender is told to who asked as an error.
    Answer(Order, oneshot::Sender<Response>),
    /// [`Order::HandOver`]: the new process is at the far end. The seam at which descriptors are passed (`SCM_RIGHTS`).
    HandOver(std_net::UnixStream),
}

/// What to do with a socket of the same path at which somebody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// Another proxy is in use there: an error.
    Respect,
    /// This process takes over from it.
    Replace,
}

/// Listens at a path for its owner only, before the sandbox is entered. A socket that an ended process left is replaced.
/// The socket gets its name when its mode is set: at no moment may others connect.
pub fn listen(path: &Path, predecessor: Predecessor) -> io::Result<std_net::UnixListener> {
    if predecessor == Predecessor::Respect && std_net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
    }
    if fs::symlink_metadata(path).is_ok_and(|found| !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
    }
    let mut unready = path.as_os_str().to_owned();
    unready.push(format!(".{}", std::process::id()));
    let unready = PathBuf::from(unready);
    let listener = std_net::UnixListener::bind(&unready)?;
    let named =
        fs::set_permissions(&unready, fs::Permissions::from_mode(0o600)).and_then(|()| fs::rename(&unready, path));
    if named.is_err() {
        let _ = fs::remove_file(&unready); // the first fault is the one to tell
    }
    named?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers until it is dropped. On the control thread's runtime.
pub async fn serve(
    listener: UnixListener,
    state: Arc<Mutex<State>>,
    orders: mpsc::Sender<Ordered>,
    bounds: AdminBounds,
) {
    let mut clients = tokio::task::JoinSet::new();
    let room = Arc::new(Semaphore::new(bounds.clients));
    loop {
        let accepted = listener.accept().await;
        while clients.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            sleep(Duration::from_millis(100)).await; // no descriptors: others give some back
            continue;
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let client = Client { stream, state: Arc::clone(&state), orders: orders.clone(), bounds };
        clients.spawn(async move {
            let _ = client.serve().await; // a client that went away is no fault of anybody
            drop(permit);
        });
    }
}

struct Client {
    stream: UnixStream,
    state: Arc<Mutex<State>>,
    orders: mpsc::Sender<Ordered>,
    bounds: AdminBounds,
}

impl Client {
    async fn serve(mut self) -> io::Result<()> {
        let asking = self.stream.peer_cred()?.uid();
        if asking != 0 && asking != nix::unistd::geteuid().as_raw() {
            return self.answer(&Response::Error(format!("user {asking} may not ask"))).await;
        }
        let mut received = Vec::new();
        loop {
            let Some(end) = received.iter().position(|byte| *byte == b'\n') else {
                if received.len() > self.bounds.line {
                    let fault = format!("a request has at most {} bytes", self.bounds.line);
                    return self.answer(&Response::Error(fault)).await;
                }
                match timeout(self.bounds.idle, read_some(&mut self.stream, &mut received)).await?? {
                    0 => return Ok(()),
                    _ => continue,
                }
            };
            let line: Vec<u8> = received.drain(..=end).collect();
            let response = match read(line.strip_suffix(b"\n").unwrap_or(&line)) {
                Err(response) => response,
                Ok(request) => {
                    let handled = {
                        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                        handle(request, &mut state, Instant::now())
                    };
                    match handled {
                        Handled::Answer(response) => response,
                        Handled::Order(Order::HandOver) => return self.hand_over().await,
                        Handled::Order(order) => self.order(order).await,
                    }
                }
            };
            self.answer(&response).await?;
        }
    }

    async fn order(&self, order: Order) -> Response {
        let (answer, answered) = oneshot::channel();
        let ordered = async {
            self.orders.send(Ordered::Answer(order, answer)).await.ok()?;
            answered.await.ok()
        };
        match timeout(self.bounds.order, ordered).await {
            Ok(Some(response)) => response,
            Ok(None) => Response::Error("the proxy is ending".to_owned()),
            Err(_) => Response::Error("the proxy did not do it in time".to_owned()),
        }
    }

    async fn hand_over(self) -> io::Result<()> {
        let stream = self.stream.into_std()?;
        let _ = self.orders.send(Ordered::HandOver(stream)).await; // an ending proxy hands nothing over
        Ok(())
    }

    async fn answer(&mut self, response: &Response) -> io::Result<()> {
        timeout(self.bounds.write, write_all(&mut self.stream, &write(response))).await?
    }
}
