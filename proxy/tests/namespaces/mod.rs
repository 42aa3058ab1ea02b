//! Network namespaces for tests: each test runs again as a process in fresh namespaces of its own, which any user may have.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

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
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1").env("RUST_BACKTRACE", "0");
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
