//! Network namespaces for tests: each test runs again as a process in fresh namespaces of its own, which any user may have;
//! further hosts are threads with a network namespace of theirs.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{channel, Sender};
use std::thread;

use nix::sched::{unshare, CloneFlags};
use nix::unistd::gettid;

/// Set in the process that is inside.
const INSIDE: &str = "EDGEPROXY_TEST_INSIDE";

/// Runs the body in fresh user and network namespaces; `test` is the test's own name, by which it is started again.
pub(crate) fn in_namespaces(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        body();
        return;
    }
    let namespaces = ["--user", "--map-root-user", "--net"];
    let possible = Command::new("unshare").args(namespaces).arg("true").output();
    if !possible.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no user namespaces here: {possible:?}");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(namespaces).arg("--").arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "signal {:?}\n{said}\n{}",
        output.status.signal(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs `ip` with these words; it must succeed.
pub(crate) fn ip(words: &str) -> String {
    run(Command::new("ip").args(words.split(' ')))
}

/// Runs a program; it must succeed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Another host: a thread in a network namespace of its own.
pub(crate) struct Host {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
    /// By which `ip link ... netns` knows it.
    pub(crate) thread: i32,
}

impl Host {
    /// A host with `lo`.
    pub(crate) fn new() -> Self {
        let (jobs, to_do) = channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid().as_raw()).unwrap();
            to_do.iter().for_each(|job| job());
        });
        let host = Self { jobs, thread: told.recv().unwrap() };
        host.ip("link set lo up");
        host
    }

    /// Does something there.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        // The receiver is gone only if this thread failed.
        self.jobs.send(Box::new(move || drop(tell.send(job())))).unwrap();
        told.recv().unwrap()
    }

    /// `ip` there: a child is where the thread is that starts it.
    pub(crate) fn ip(&self, words: &str) -> String {
        let words = words.to_owned();
        self.run(move || ip(&words))
    }
}

/// Writes a kernel parameter of this network namespace.
pub(crate) fn sysctl(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
}
