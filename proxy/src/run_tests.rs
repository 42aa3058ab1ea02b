//! The running proxy without its sandbox: what the configuration promises, through real sockets and the admin socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener as Listener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use socket2::Socket;

use super::*;
use crate::operation::admin::{Page, Request, Response};
use crate::operation::ask::Asker;
use crate::operation::scratch::Scratch;
use crate::operation::state::Status;

const PATIENCE: Duration = Duration::from_secs(60);

/// What is to rest is waited for.
const REST_SOON: Duration = Duration::from_millis(200);

/// A proxy on a loopback address of its own: `HERE` in its configuration, as `THERE` is its backend and `FOLDER` its files.
struct Running {
    scratch: Scratch,
    here: String,
    thread: Option<JoinHandle<()>>,
}

/// A loopback address that no other test has.
pub(super) fn own_address() -> String {
    static GIVEN: AtomicU32 = AtomicU32::new(1);
    let (process, number) = (std::process::id(), GIVEN.fetch_add(1, Ordering::Relaxed));
    format!("127.{}.{}.{}", 32 + process / 256 % 32, process % 256, number)
}

impl Running {
    fn start(text: &str) -> Self {
        Self::start_with(text, |_| ())
    }

    /// `look` sees what was opened before it is used.
    fn start_with(text: &str, look: impl FnOnce(&Opened)) -> Self {
        let mut running = Self { scratch: Scratch::new(), here: own_address(), thread: None };
        let path = running.write(text);
        let config = crate::config::load(&path).unwrap_or_else(|faults| panic!("{faults}"));
        let opened = Opened::all(config, Loaded::default(), None).expect("all can be had");
        look(&opened);
        running.thread = Some(thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            let _inside = runtime.enter();
            let proxy = opened.start(&path, REST_SOON).expect("threads");
            tokio::task::LocalSet::new().block_on(&runtime, serve(proxy, None)).expect("a good end");
        }));
        running.status();
        running
    }

    fn write(&self, text: &str) -> PathBuf {
        let path = self.scratch.path("c.toml");
        let operation = "[operation]\nadmin_socket = \"FOLDER/admin\"\naccess_log = \"FOLDER/log\"\n";
        let text = if text.contains("[operation]") { text.to_owned() } else { format!("{text}\n{operation}") };
        let folder = self.scratch.path("").display().to_string();
        let text = text.replace("HERE", &self.here).replace("FOLDER", folder.trim_end_matches('/'));
        std::fs::write(&path, text).expect("written");
        path
    }

    fn ask(&self, request: &Request) -> Response {
        Asker::connect(&self.scratch.path("admin")).expect("it listens").ask(request).expect("an answer")
    }

    fn status(&self) -> Box<Status> {
        let Response::Status(status) = self.ask(&Request::Status {}) else { panic!("an answer to another question") };
        status
    }

    fn reload(&self, text: &str) -> String {
        self.write(text);
        let Response::Reload(told) = self.ask(&Request::Reload {}) else { panic!("an answer to another question") };
        told.to_string()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((self.here.as_str(), 1000)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Its lines so far; of one that is being written not the beginning.
    fn log(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.scratch.path("log")).expect("a log");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Ends the proxy, its connections with it.
    fn drain(&mut self) {
        assert!(matches!(self.ask(&Request::Drain {}), Response::Done(_)));
        self.thread.take().expect("it runs").join().expect("no panic");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            self.drain();
        }
    }
}

/// Answers all with what they say; its port.
fn echo() -> u16 {
    let listener = Listener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            thread::spawn(move || {
                let mut other = stream.try_clone().expect("a clone");
                let _ = io::copy(&mut stream, &mut other);
                let _ = other.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

/// One listener, one backend, and what is added.
pub(super) fn text(more: &str) -> String {
    let port = echo();
    format!(
        "workers = 1\n[listener.in]\ntcp = [\"HERE:1000\"]\n[[rule]]\nto = \"b\"\n[backend.b]\n\
         targets = [\"127.0.0.1:{port}\"]\n[timeouts]\ndrain = \"0s\"\n{more}"
    )
}

/// Says something; whether it comes back.
fn is_served(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"ping"
}

#[test]
fn a_preface_may_be_larger_than_one_read() {
    let more = "[limits]\npreface_bytes = \"1MiB\"\n";
    let config = text(more).replace("[[rule]]", "[[rule]]\nprotocols = [\"http1\"]\nserver_name = '^a\\.example$'");
    let running = Running::start(&config);
    let mut stream = running.connect();
    let hello = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 500], b"\r\n"].concat();
    stream.write_all(&hello).expect("sent");
    let rest = b"Host: a.example\r\n\r\n";
    stream.write_all(rest).expect("sent");
    let mut answer = vec![0; hello.len() + rest.len()];
    stream.read_exact(&mut answer).expect("it is led to the backend");
    assert!(answer == [hello.as_slice(), rest].concat());
}

#[test]
fn a_connection_that_has_ended_is_no_longer_the_backends() {
    let running = Running::start(&text(""));
    let mut stream = running.connect();
    assert!(is_served(&mut stream));
    let active = || running.status().backends.iter().map(|backend| backend.active).collect::<Vec<_>>();
    assert_eq!(active(), [1]);
    stream.shutdown(Shutdown::Write).expect("ended");
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
    wait_for(|| active() == [0]);
}

/// Until it holds, or far too long.
fn wait_for(holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it never held");
        thread::yield_now();
    }
}

/// Until the connection has come to rest so often.
fn wait_for_rest(stream: &TcpStream, times: usize) {
    let own = stream.local_addr().expect("bound");
    let seen = || crate::tcp::resting::SEEN.lock().expect("no panic").iter().filter(|peer| **peer == own).count();
    wait_for(|| seen() >= times);
}

#[test]
fn a_connection_that_rests_is_listed_and_wakes_for_bytes_of_either_side_and_for_the_end() {
    let mut running = Running::start(&text(""));
    let mut streams = [running.connect(), running.connect()];
    for times in 1..4 {
        assert!(streams.iter_mut().all(is_served));
        streams.iter().for_each(|stream| wait_for_rest(stream, times));
        let Response::Connections(listed) = running.ask(&Request::Connections(Page { skip: 0, most: 10 })) else {
            panic!("no list")
        };
        let bytes: Vec<_> = listed.iter().map(|one| (one.bytes_in, one.bytes_out)).collect();
        assert_eq!(bytes, [(4 * times as u64, 4 * times as u64); 2]);
    }
    streams[0].shutdown(Shutdown::Write).expect("ended");
    assert_eq!(streams[0].read(&mut [0]).expect("an end"), 0);
    wait_for(|| running.log().iter().any(|line| line["close"] == "client_closed" && line["bytes_out"] == 12));
    socket2::SockRef::from(&streams[1]).set_linger(Some(Duration::ZERO)).expect("linger");
    let [_, second] = streams;
    drop(second);
    wait_for(|| running.log().iter().any(|line| line["close"] == "client_reset"));
    let mut third = running.connect();
    assert!(is_served(&mut third));
    wait_for_rest(&third, 1);
    running.drain();
    assert_eq!(third.read(&mut [0]).expect_err("a reset, not an end").kind(), ErrorKind::ConnectionReset);
    assert_eq!(running.log()[2]["close"], "drained");
}

#[test]
fn a_connection_that_rests_ends_when_its_time_is_over() {
    let text = text("idle = \"6s\"\n");
    let running = Running::start(&text);
    let mut stream = running.connect();
    let begun = std::time::Instant::now();
    assert!(is_served(&mut stream));
    wait_for_rest(&stream, 1);
    assert_eq!(stream.read(&mut [0]).expect_err("a reset, not an end").kind(), ErrorKind::ConnectionReset);
    assert!(begun.elapsed() >= Duration::from_millis(5900), "{:?}", begun.elapsed());
    wait_for(|| running.log().iter().any(|line| line["close"] == "idle_timeout"));
}

/// Who listens where the configuration expects the other end; what it accepted.
fn accepting() -> (u16, std::sync::mpsc::Receiver<TcpStream>) {
    let listener = Listener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("bound").port();
    let (give, take) = std::sync::mpsc::channel();
    thread::spawn(move || listener.incoming().map_while(Result::ok).try_for_each(|stream| give.send(stream)));
    (port, take)
}

#[test]
fn a_reset_wakes_a_connection_that_rests_and_is_passed_on_before_and_after_an_end() {
    for (is_client, has_ended) in [(true, false), (false, false), (true, true), (false, true)] {
        let (port, accepted) = accepting();
        let more = "half_closed = \"1h\"\n";
        let running =
            Running::start(&text(more).replace("targets = [\"", &format!("targets = [\"127.0.0.1:{port}\"]\n# [\"")));
        let client = running.connect();
        let backend = accepted.recv_timeout(PATIENCE).expect("it is led to the backend");
        backend.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let client_at = client.try_clone().expect("a clone");
        let (breaking, mut other) = if is_client { (client, backend) } else { (backend, client) };
        if has_ended {
            breaking.shutdown(Shutdown::Write).expect("ended");
            assert_eq!(other.read(&mut [0]).expect("an end, in order"), 0);
        }
        wait_for_rest(&client_at, 1);
        drop(client_at);
        socket2::SockRef::from(&breaking).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(breaking);
        let expected = if is_client { "client_reset" } else { "backend_reset" };
        wait_for(|| !running.log().is_empty());
        assert_eq!(running.log().iter().map(|line| line["close"].clone()).collect::<Vec<_>>(), [expected]);
        assert_eq!(running.status().backends[0].active, 0);
        let error = other.write_all(&[0]).and_then(|()| other.read(&mut [0])).expect_err("it is gone");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    }
}

#[test]
fn what_the_end_of_the_proxy_cuts_short_looks_so() {
    let mut running = Running::start(&text(""));
    let mut stream = running.connect();
    assert!(is_served(&mut stream));
    running.drain();
    assert_eq!(stream.read(&mut [0]).expect_err("a reset, not an end").kind(), ErrorKind::ConnectionReset);
    assert_eq!(running.log()[0]["close"], "drained");
}

#[test]
fn behind_a_proxy_header_the_source_is_the_client() {
    let header = "proxy_header = [{from = \"127.0.0.0/8\", policy = \"require\"}]\n[[rule]]";
    let running = Running::start(&text("[limits]\nconnections_per_source = 1\n").replace("[[rule]]", header));
    let from = |client: &str| {
        let mut stream = running.connect();
        write!(stream, "PROXY TCP4 {client} 192.0.2.1 1 2\r\n").expect("sent");
        stream
    };
    let (mut first, mut second) = (from("203.0.113.1"), from("203.0.113.2"));
    assert!(is_served(&mut first) && is_served(&mut second));
    assert!(!is_served(&mut from("203.0.113.1")), "one too many of a client");
    wait_for(|| running.log().iter().any(|line| line["close"] == "over_limit_source"));
    assert!(is_served(&mut second));
    drop(first);
    wait_for(|| is_served(&mut from("203.0.113.1")));
}

#[test]
fn a_reload_says_what_only_a_start_takes_and_the_end_removes_what_was_begun_with() {
    let mut running = Running::start(&text(""));
    assert_eq!(running.reload(&text("")), "reloaded");
    let other = "[operation]\nadmin_socket = \"FOLDER/other\"\nmetrics = \"HERE:1001\"\n";
    for _ in 0..2 {
        let said = running.reload(&text(other).replace("workers = 1", "workers = 2"));
        for key in ["workers", "operation.admin_socket", "operation.metrics", "operation.access_log"] {
            assert!(said.contains(key), "{key}: {said}");
        }
    }
    std::fs::write(running.scratch.path("other"), "somebody's").expect("written");
    running.drain();
    assert!(running.scratch.path("other").exists() && !running.scratch.path("admin").exists());
}

#[test]
fn a_reload_gives_its_keepalive_to_those_who_arrive_from_then_on() {
    let mut listening = Vec::new();
    let running = Running::start_with(&text("user_timeout = \"10s\"\nkeepalive = \"20s\"\n"), |opened| {
        let sockets = opened.bound.iter().flat_map(|bound| &bound.sockets);
        listening = sockets.map(|socket| Socket::from(socket.try_clone().expect("a clone"))).collect();
    });
    let seconds = |socket: &Socket| {
        let user = socket.tcp_user_timeout().expect("TCP").map_or(0, |time| time.as_secs());
        let apart = socket.tcp_keepalive_interval().expect("TCP").as_secs();
        (user, socket.tcp_keepalive_time().expect("TCP").as_secs(), apart)
    };
    assert_eq!(listening.iter().map(seconds).collect::<Vec<_>>(), [(10, 20, 5)]);
    running.reload(&text("user_timeout = \"30s\"\nkeepalive = \"40s\"\n"));
    wait_for(|| listening.iter().map(seconds).collect::<Vec<_>>() == [(30, 40, 10)]);
    running.reload(&text(""));
    wait_for(|| listening.iter().map(seconds).collect::<Vec<_>>() == [(0, 60, 15)]);
}

#[test]
fn an_endpoint_may_grow_and_shrink_by_a_reload() {
    let running = Running::start(&text(""));
    let wide = text("").replace("HERE:1000", "0.0.0.0:1000");
    // Below the ports that the kernel gives away, which others of this machine may have.
    let port = |text: &str| text.replace(":1000", &format!(":{}", 20_000 + std::process::id() % 10_000));
    for config in [port(&text("")), port(&wide), port(&text("")), text("")] {
        running.reload(&config);
    }
    assert!(is_served(&mut running.connect()));
}

#[test]
fn a_backend_that_cannot_be_reached_is_named_in_the_log() {
    let config = text("").replace("targets = [\"127.0.0.1:", "targets = [\"127.255.255.254:");
    let running = Running::start(&config);
    assert!(!is_served(&mut running.connect()));
    wait_for(|| !running.log().is_empty());
    let line = &running.log()[0];
    assert_eq!((&line["close"], &line["backend"]), (&"backend_refused".into(), &"b".into()));
    assert_eq!(running.status().backends[0].active, 0);
}

#[test]
fn too_few_descriptors_are_told_of_at_the_start() {
    let limits = "[limits]\nconnections = 100\nudp_flows = 50\n";
    let scratch = Scratch::new();
    let path = scratch.path("c.toml");
    std::fs::write(&path, text(limits).replace("HERE", "127.0.0.1")).expect("written");
    let config = crate::config::load(&path).unwrap_or_else(|faults| panic!("{faults}"));
    let needed = 2 * 100 + 50 + 1 + OTHER_DESCRIPTORS as u64;
    assert_eq!(descriptors_needed(&config), needed);
    assert_eq!(lack_of_descriptors(&config, needed), None);
    let said = lack_of_descriptors(&config, needed - 1).expect("one is lacking");
    assert!(said.contains(&format!("may take {needed} ")), "{said}");
}

#[test]
fn the_table_of_descriptors_grows_when_it_is_asked_to() {
    let room = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("proc(5)");
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("it is told");
        size.trim().parse::<u64>().expect("a number")
    };
    assert!(raise_descriptor_limit() >= 2_000, "this host allows too few descriptors for the tests");
    reserve_descriptors(0);
    reserve_descriptors(2_000);
    assert!(room() >= 2_000, "{}", room());
}
