//! The sandbox in processes of its own: each enters it and then tries one thing. Without the usual harness, for that runs
//! each test beside a second thread.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{exit, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use edgeproxy::operation::access_line::Record;
use edgeproxy::operation::access_log::AccessLog;
use edgeproxy::operation::deny::DenyList;
use edgeproxy::operation::metrics_http::{self, MetricsBounds};
use edgeproxy::operation::outcomes::{HeaderIn, HeaderOut};
use edgeproxy::operation::state::State;
use edgeproxy::operation::unique_id::{fresh_seed, UniqueIds};
use edgeproxy::operation::CloseReason;
use edgeproxy::sandbox::{enter, Allowed, Landlocked, Ports, Report, User, CAPABILITIES};
use nix::sys::signal::{kill, Signal};
use nix::unistd::{geteuid, getppid, setuid, Uid};
use socket2::{Domain, Protocol, Socket, Type};

/// In the environment of a child: what it tries, and its directory.
const TRY: &str = "EDGEPROXY_TRY";
const DIRECTORY: &str = "EDGEPROXY_DIRECTORY";

/// The exit status of a child that did it on a kernel without landlock.
const WITHOUT_LANDLOCK: i32 = 200;

type Attempt = fn(&Path) -> io::Result<()>;

/// What a child may be asked to try, after it has entered.
const ATTEMPTS: &[(&str, Attempt)] = &[
    // Forbidden.
    ("read_shadow", |_| fs::read("/etc/shadow").map(drop)),
    ("list_root", |_| fs::read_dir("/").map(drop)),
    ("write_elsewhere", |dir| fs::write(dir.join("elsewhere/new"), "x")),
    ("write_config", |dir| fs::write(dir.join("config/edge.toml"), "x")),
    ("remove_config", |dir| fs::remove_file(dir.join("config/edge.toml"))),
    ("make_directory", |dir| fs::create_dir(dir.join("log/deeper"))),
    ("exec", |_| Err(Command::new("/bin/true").exec())),
    ("spawn", |_| Command::new("/bin/true").status().map(drop)),
    ("ptrace", |_| Ok(nix::sys::ptrace::attach(getppid())?)),
    ("mount", |_| Ok(nix::mount::mount(Some("x"), "/tmp", Some("tmpfs"), nix::mount::MsFlags::empty(), Some(""))?)),
    ("unshare", |_| Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?)),
    ("become_root", |_| Ok(setuid(Uid::from_raw(0))?)),
    ("signal_parent", |_| Ok(kill(getppid(), Signal::SIGURG)?)),
    ("packet_socket", |_| Socket::new(Domain::PACKET, Type::DGRAM, None).map(drop)),
    ("raw_socket", |_| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).map(drop)),
    ("raw_socket_with_flags", |_| Socket::new(Domain::IPV6, Type::RAW.cloexec(), Some(Protocol::ICMPV6)).map(drop)),
    ("vsock", |_| Socket::new(Domain::VSOCK, Type::STREAM, None).map(drop)),
    ("multipath_unasked", |_| stream_of(Protocol::MPTCP)),
    ("sctp", |_| stream_of(Protocol::SCTP)),
    ("unix_stream", |dir| UnixStream::connect(dir.join("service")).map(drop)),
    // Allowed.
    ("nothing", |_| Ok(())),
    ("read_config", |dir| fs::read(dir.join("config/edge.toml")).map(drop)),
    ("read_replaced_config", |dir| fs::read(dir.join("config/new.toml")).map(drop)),
    ("read_hosts", |_| fs::read("/etc/hosts").map(drop)),
    ("remove_socket", |dir| fs::remove_file(dir.join("run/admin.sock"))),
    ("abort", |_| std::process::abort()),
    ("threads", threads),
    ("datagrams", datagrams),
    ("transparent", transparent),
    ("low_port", |_| {
        (900..1_000).map(|port| TcpListener::bind(("127.0.0.1", port))).find(Result::is_ok).unwrap().map(drop)
    }),
    ("netlink", |_| Socket::new(Domain::from(16), Type::RAW.cloexec(), None).map(drop)), // AF_NETLINK, NETLINK_ROUTE
    ("multipath", |_| stream_of(Protocol::MPTCP)),
    ("stream", |_| stream_of(Protocol::TCP)),
    ("log", log),
    ("metrics", metrics),
    ("bind_any", |_| TcpListener::bind("127.0.0.1:0").map(drop)),
    ("bind_29152", |_| {
        Socket::new(Domain::IPV4, Type::STREAM, None)?
            .bind(&"127.0.0.1:29152".parse::<std::net::SocketAddr>().unwrap().into())
    }),
    ("connect_29152", |_| TcpStream::connect("127.0.0.1:29152").map(drop)),
    ("connect_29153", |_| TcpStream::connect("127.0.0.1:29153").map(drop)),
];

const TESTS: &[(&str, fn())] = &[
    ("what_is_needed_goes_on", what_is_needed_goes_on),
    ("files_that_were_not_named_are_out_of_reach", files_that_were_not_named_are_out_of_reach),
    ("calls_that_were_not_named_fail", calls_that_were_not_named_fail),
    ("calls_of_an_intruder_end_the_process", calls_of_an_intruder_end_the_process),
    ("ports_can_be_held_to_those_that_are_known", ports_can_be_held_to_those_that_are_known),
    ("it_is_not_entered_beside_other_threads", it_is_not_entered_beside_other_threads),
];

fn main() {
    if let (Ok(what), Ok(directory)) = (std::env::var(TRY), std::env::var(DIRECTORY)) {
        inside(&what, Path::new(&directory));
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, test) in TESTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| format!("sandbox::{name}").contains(wanted)) {
            test();
            say(&format!("test sandbox::{name} ... ok"));
        }
    }
}

fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Whether this kernel has landlock; a test that needs it says so where it does not.
fn is_without_landlock() -> bool {
    let without = tried("nothing").code() == Some(WITHOUT_LANDLOCK);
    if without {
        say("landlock is not in this kernel: files and ports are not tested");
    }
    without
}

/// What each child does.
fn inside(what: &str, directory: &Path) -> ! {
    let (_, attempt) = ATTEMPTS.iter().find(|(name, _)| *name == what).unwrap();
    let was_root = geteuid().is_root();
    let report = enter(&allowed(directory, what)).unwrap_or_else(|fault| panic!("{fault}"));
    check(&report, was_root);
    match attempt(directory) {
        Ok(()) if report.landlock == Landlocked::NotAtAll => exit(WITHOUT_LANDLOCK),
        Ok(()) => exit(0),
        Err(fault) => exit(fault.raw_os_error().unwrap_or(255)),
    }
}

fn allowed(directory: &Path, what: &str) -> Allowed {
    let within = |name| directory.join(name);
    let free = Ports::Any;
    let narrow = Ports::Only { bind: Some(vec![9]), connect: Some(vec![29_152]) };
    Allowed {
        read: vec![within("config"), "/etc/hosts".into(), within("is not there")],
        write: vec![within("log")],
        remove: vec![within("run")],
        ports: if what.contains("2915") { narrow } else { free },
        multipath: what == "multipath",
        capabilities: CAPABILITIES.to_vec(),
        user: (what == "become_root" && geteuid().is_root()).then_some(User { user: 65_534, group: 65_534 }),
    }
}

/// What holds in each child.
fn check(report: &Report, was_root: bool) {
    let status = fs::read_to_string("/proc/self/status");
    assert!(status.is_err() || report.landlock == Landlocked::NotAtAll);
    assert_eq!(report.capabilities.len(), if was_root { 2 } else { 0 }, "{report}");
    assert!(nix::sys::prctl::get_no_new_privs().is_err(), "prctl is limited to naming threads");
}

fn threads(_: &Path) -> io::Result<()> {
    let hashed: HashMap<u32, u32> = (0..9).map(|n| (n, n)).collect(); // asks for random bytes
    let started: Vec<_> = (0..4).map(|n| thread::Builder::new().name(format!("worker-{n}")).spawn(move || n)).collect();
    started.into_iter().for_each(|thread| assert!(thread.unwrap().join().is_ok()));
    // What the parent enters, its threads have entered.
    let inherited =
        thread::spawn(|| fs::read("/etc/shadow").is_err() && Socket::new(Domain::PACKET, Type::DGRAM, None).is_err());
    assert!(inherited.join().unwrap() && hashed.len() == 9);
    thread::sleep(Duration::from_millis(1));
    Ok(())
}

fn stream_of(protocol: Protocol) -> io::Result<()> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).map(drop)
}

fn datagrams(_: &Path) -> io::Result<()> {
    let (one, two) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("[::1]:0"));
    one.send_to(b"x", one.local_addr()?)?;
    one.recv(&mut [0; 9])?;
    let _ = two; // this host may be without IPv6
    UnixDatagram::unbound().map(drop)
}

fn transparent(_: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_ip_transparent_v4(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&"192.0.2.77:4711".parse::<std::net::SocketAddr>().unwrap().into())
}

fn log(directory: &Path) -> io::Result<()> {
    let path = directory.join("log/access.log");
    let log = AccessLog::open(&path)?.start()?;
    let worker = log.worker();
    // The random source is a file: seeds are drawn before.
    assert!(fresh_seed().is_err());
    let unique_id = UniqueIds::new([1; 16]).next();
    let address = "192.0.2.1:1".parse().unwrap();
    let record = || {
        worker.record(&Record {
            time: SystemTime::now(),
            unique_id: &unique_id,
            listener: "web",
            transport: edgeproxy::config::model::Transport::Tcp,
            peer: address,
            client: address,
            original_dst: address,
            protocol: None,
            server_name: None,
            alpn: &[],
            ech: false,
            rule: None,
            backend: None,
            target: None,
            source: None,
            subflows: None,
            header_in: HeaderIn::NotExpected,
            header_out: HeaderOut::None,
            bytes_in: 0,
            bytes_out: 0,
            preface: None,
            connect: None,
            total: Duration::ZERO,
            close: CloseReason::Denied,
            left_out: 0,
        });
        worker.flush();
    };
    record();
    log.reopen();
    record();
    drop(worker);
    let figures = log.figures();
    assert!(log.finish(Duration::from_secs(30)));
    assert_eq!(figures.written(), 2);
    Ok(())
}

/// A tokio runtime, made and used inside.
fn metrics(_: &Path) -> io::Result<()> {
    let listener = metrics_http::listen("127.0.0.1:0".parse().unwrap())?;
    let address = listener.local_addr()?;
    let state = State::new(DenyList::new(&[]), None, 1, (Instant::now(), SystemTime::now()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        let asking = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            assert!(answer.starts_with("HTTP/1.1 200 OK"));
            Ok(())
        });
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let state = std::sync::Arc::new(std::sync::Mutex::new(state));
        tokio::select! {
            answer = asking => answer.unwrap(),
            () = metrics_http::serve(listener, state, MetricsBounds::default()) => unreachable!(),
        }
    })
}

/// How a child that tries this ends.
fn tried(what: &str) -> ExitStatus {
    let directory = std::env::temp_dir().join(format!("edgeproxy-sandbox-{}-{what}", std::process::id()));
    for name in ["config", "log", "run", "elsewhere"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    fs::write(directory.join("config/edge.toml"), "").unwrap();
    fs::write(directory.join("config/new.toml"), "").unwrap();
    fs::write(directory.join("run/admin.sock"), "").unwrap();
    let service = std::os::unix::net::UnixListener::bind(directory.join("service")).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env(TRY, what).env(DIRECTORY, &directory);
    let output = child.output().unwrap();
    drop(service);
    fs::remove_dir_all(&directory).unwrap();
    if output.status.code() == Some(101) {
        panic!("{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status
}

fn what_is_needed_goes_on() {
    let mut needed = vec![
        "nothing",
        "read_config",
        "read_replaced_config",
        "read_hosts",
        "remove_socket",
        "threads",
        "datagrams",
        "stream",
    ];
    needed.extend(["netlink", "log", "metrics", "bind_any"]);
    if geteuid().is_root() {
        needed.extend(["transparent", "low_port"]);
    }
    for what in needed {
        assert!(matches!(tried(what).code(), Some(0 | WITHOUT_LANDLOCK)), "{what}");
    }
    // What a kernel says that lacks it is another word than that of the filter.
    let lacks = [0, WITHOUT_LANDLOCK, libc::ENOPROTOOPT, libc::EPROTONOSUPPORT, libc::EINVAL];
    assert!(tried("multipath").code().is_some_and(|code| lacks.contains(&code)));
    assert_eq!(tried("abort").signal(), Some(Signal::SIGABRT as i32));
}

fn files_that_were_not_named_are_out_of_reach() {
    if is_without_landlock() {
        return;
    }
    for what in ["read_shadow", "list_root", "write_elsewhere", "write_config", "remove_config"] {
        assert_eq!(tried(what).code(), Some(libc::EACCES), "{what}");
    }
    assert_eq!(tried("make_directory").code(), Some(libc::EPERM), "seccomp answers before landlock");
}

fn calls_that_were_not_named_fail() {
    let sockets = ["packet_socket", "raw_socket", "raw_socket_with_flags", "vsock", "unix_stream"];
    // Of streams landlock holds those of plain TCP to ports, and no others.
    let streams = ["multipath_unasked", "sctp"];
    for what in ["spawn", "signal_parent"].into_iter().chain(sockets).chain(streams) {
        assert_eq!(tried(what).code(), Some(libc::EPERM), "{what}");
    }
}

fn calls_of_an_intruder_end_the_process() {
    for what in ["exec", "ptrace", "mount", "unshare", "become_root"] {
        assert_eq!(tried(what).signal(), Some(Signal::SIGSYS as i32), "{what}");
    }
}

fn ports_can_be_held_to_those_that_are_known() {
    if is_without_landlock() {
        return;
    }
    assert_eq!(tried("bind_29152").code(), Some(libc::EACCES));
    assert_eq!(tried("connect_29153").code(), Some(libc::EACCES));
    // Allowed, and nobody listens.
    assert_eq!(tried("connect_29152").code(), Some(libc::ECONNREFUSED));
}

fn it_is_not_entered_beside_other_threads() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let other = thread::spawn(move || receiver.recv());
    let fault = enter(&allowed(Path::new("/"), "nothing")).unwrap_err();
    assert!(fault.to_string().contains("threads run"), "{fault}");
    drop(sender);
    let _ = other.join();
}
