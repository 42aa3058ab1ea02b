//! The Unix socket at which [`super::admin`] is asked: by root and by the proxy's own user only, one request at a time.

use std::io;
use std::os::unix::net as std_net;
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
            Err(_) => Response::Error("the proxy did not do it in time; it may still come to it".to_owned()),
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::time::SystemTime;

    use super::super::admin::{Active, Page, Request};
    use super::super::ask::{AskError, Asker};
    use super::super::command::{self, Command, Wanted};
    use super::super::deny::DenyList;
    use super::super::scratch::Scratch;
    use super::super::socket_file::{listen, Predecessor};
    use super::*;

    /// Serves while `ask` runs in a thread of its own; `orders` is what the runtime does.
    fn beside<T: Send + 'static>(
        bounds: AdminBounds,
        orders: impl Fn(Ordered) + 'static,
        ask: impl FnOnce(PathBuf) -> T + Send + 'static,
    ) -> T {
        let scratch = Scratch::new();
        let path = scratch.path("admin.sock");
        let listener = listen(&path, Predecessor::Respect).unwrap();
        let deny = DenyList::new(&["10.0.0.0/8".parse().unwrap()]);
        let state = Arc::new(Mutex::new(State::new(deny, None, 2, (Instant::now(), SystemTime::now()))));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (sender, mut ordered) = mpsc::channel(4);
            let asking = tokio::task::spawn_blocking(move || ask(path));
            let listener = UnixListener::from_std(listener).unwrap();
            let answering = async {
                while let Some(order) = ordered.recv().await {
                    orders(order);
                }
            };
            tokio::select! {
                answer = asking => answer.unwrap(),
                () = serve(listener, state, sender, bounds) => unreachable!(),
                () = answering => unreachable!(),
            }
        })
    }

    fn nothing(ordered: Ordered) {
        panic!("{ordered:?}");
    }

    fn exchange(path: &Path, bytes: &[u8]) -> String {
        let mut stream = std_net::UnixStream::connect(path).unwrap();
        let _ = stream.write_all(bytes); // an oversized request is refused before all was said
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer); // a reset may follow the answer
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn the_small_commands_find_their_answers() {
        let output = beside(AdminBounds::default(), nothing, |path| {
            let mut out = Vec::new();
            let mut run = |wanted| command::run(&Command { socket: path.clone(), wanted }, &mut out, None).unwrap();
            let source = "203.0.113.7".parse().unwrap();
            run(Wanted::Deny { prefixes: vec![source], seconds: 60 });
            run(Wanted::Denied { nft: None });
            run(Wanted::Undeny(vec![source]));
            run(Wanted::Top { once: false, json: false });
            run(Wanted::Top { once: false, json: true });
            String::from_utf8(out).unwrap()
        });
        assert!(
            output.starts_with("1\n10.0.0.0/8 by the configuration\n203.0.113.7/32 60s\n1\nedgeproxy "),
            "{output}"
        );
        let json: serde_json::Value = serde_json::from_str(output.lines().last().unwrap()).unwrap();
        assert_eq!(json["workers"], 2);
    }

    #[test]
    fn orders_go_to_the_runtime_and_its_answer_comes_back() {
        let orders = |ordered| match ordered {
            Ordered::Answer(Order::Reload, answer) => answer.send(Response::Done("3 listeners".to_owned())).unwrap(),
            Ordered::Answer(Order::Connections(page), answer) => {
                let address = "192.0.2.1:9".parse().unwrap();
                let active = Active {
                    unique_id: "ab".to_owned(),
                    listener: "web".to_owned(),
                    transport: "tcp".to_owned(),
                    peer: address,
                    client: address,
                    original_dst: address,
                    protocol: "tls".to_owned(),
                    server_name: None,
                    rule: None,
                    backend: None,
                    target: None,
                    bytes_in: 1,
                    bytes_out: 2,
                    age_us: 3,
                };
                let entries = vec![active; 1_500].split_off(page.skip).into_iter().take(page.most).collect();
                answer.send(Response::Connections(entries)).unwrap();
            }
            Ordered::Answer(Order::Drain, answer) => drop(answer),
            Ordered::Answer(Order::HandOver, _) => panic!("a hand-over has its own form"),
            Ordered::HandOver(stream) => {
                stream.set_nonblocking(false).unwrap();
                (&stream).write_all(b"take it").unwrap();
            }
        };
        beside(AdminBounds::default(), orders, |path| {
            let mut asker = Asker::connect(&path).unwrap();
            assert_eq!(asker.ask(&Request::Reload {}).unwrap(), Response::Done("3 listeners".to_owned()));
            assert!(matches!(asker.ask(&Request::Drain {}), Err(AskError::Refused(why)) if why.contains("ending")));
            let page = Page { skip: 1_499, most: 9 };
            let Response::Connections(entries) = asker.ask(&Request::Connections(page)).unwrap() else { panic!() };
            assert_eq!(entries.len(), 1);
            let mut out = Vec::new();
            command::run(&Command { socket: path.clone(), wanted: Wanted::Connections }, &mut out, None).unwrap();
            assert_eq!(out.lines().count(), 1_500);
            assert_eq!(exchange(&path, b"{\"do\":\"hand_over\",\"version\":2}\n"), "take it");
        });
    }

    #[test]
    fn several_requests_in_one_piece_and_one_in_many_are_answered_in_turn() {
        beside(AdminBounds::default(), nothing, |path| {
            let answers = exchange(&path, b"{\"do\":\"denied\"}\n?\n{\"do\":\"undeny\",\"prefixes\":[]}\nrest");
            let lines: Vec<&str> = answers.lines().collect();
            assert!(lines[0].starts_with("{\"denied\"") && lines[1].starts_with("{\"error\""), "{answers}");
            assert_eq!(lines[2..], ["{\"changed\":0}"]);
            let stream = std_net::UnixStream::connect(&path).unwrap();
            b"{\"do\":\"undeny\",\"prefixes\":[]}\n".chunks(1).for_each(|byte| (&stream).write_all(byte).unwrap());
            assert_eq!(BufReader::new(stream).lines().next().unwrap().unwrap(), "{\"changed\":0}");
        });
    }

    #[test]
    fn oversized_requests_are_refused() {
        let bounds = AdminBounds { line: 10_000, ..AdminBounds::default() };
        beside(bounds, nothing, |path| {
            assert!(exchange(&path, &[b' '; 100_000]).contains("at most 10000 bytes"));
            let mut just = b"{\"do\":\"denied\"}".to_vec();
            just.resize(9_999, b' ');
            just.push(b'\n');
            assert!(exchange(&path, &just).starts_with("{\"denied\""));
        });
    }

    #[test]
    fn who_is_silent_is_left() {
        let bounds = AdminBounds { idle: Duration::from_millis(20), ..AdminBounds::default() };
        beside(bounds, nothing, |path| {
            assert_eq!(std_net::UnixStream::connect(&path).unwrap().read(&mut [0; 9]).unwrap(), 0);
        });
    }

    #[test]
    fn who_is_too_many_is_not_served() {
        let bounds = AdminBounds { clients: 1, ..AdminBounds::default() };
        beside(bounds, nothing, |path| {
            let _silent = std_net::UnixStream::connect(&path).unwrap();
            assert_eq!(exchange(&path, b"{\"do\":\"denied\"}\n"), "");
        });
    }

    #[test]
    fn the_order_that_takes_too_long_and_the_answer_that_nobody_reads_end() {
        let kept = std::cell::RefCell::new(Vec::new());
        let bounds = AdminBounds {
            order: Duration::from_millis(20),
            write: Duration::from_millis(20),
            ..AdminBounds::default()
        };
        beside(
            bounds,
            move |ordered| kept.borrow_mut().push(ordered),
            |path| {
                assert!(exchange(&path, b"{\"do\":\"reload\"}\n").contains("in time"));
                let mut deaf = std_net::UnixStream::connect(&path).unwrap();
                deaf.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
                let gone = (0..100_000).any(|_| deaf.write_all(b"{\"do\":\"metrics\"}\n").is_err());
                assert!(gone);
            },
        );
    }

    #[test]
    fn other_users_may_not_ask() {
        // Only root can become somebody else; others have the mode of the socket tested below.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        beside(AdminBounds::default(), nothing, |path| {
            fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
            let (user, group) = (nix::unistd::Uid::from_raw(65_534), nix::unistd::Gid::from_raw(65_534));
            let socket = path.to_str().unwrap().to_owned();
            let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(999).decode())";
            let mut child = std::process::Command::new("python3");
            child.args(["-c", script, &socket]);
            std::os::unix::process::CommandExt::gid(&mut child, group.as_raw());
            std::os::unix::process::CommandExt::uid(&mut child, user.as_raw());
            let Ok(output) = child.output() else { return };
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("user 65534 may not ask"), "{said} {}", String::from_utf8_lossy(&output.stderr));
        });
    }
}
