//! The rule keeper on a real kernel: rules are there when it says so, come back when others remove them, and go with the
//! proxy, however it ends.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, clippy::print_stderr)]

mod namespaces;

use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use edgeproxy::transparent::keeper::{keep_rules, Report, Want};
use edgeproxy::transparent::keeper_channel::RuleKeeper;
use edgeproxy::transparent::needs::{Family, Needs, Place};
use namespaces::{in_namespaces, ip, run};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

const AS_KEEPER: &str = "EDGEPROXY_TEST_KEEPER";
const AS_PROXY: &str = "EDGEPROXY_TEST_PROXY";
/// Until the keeper has seen a change and looked, in milliseconds.
const PATIENCE: u16 = 30_000;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("what_others_remove_comes_back_and_is_reported", what_others_remove_comes_back_and_is_reported),
    (
        "all_goes_when_the_proxy_is_killed_and_nothing_of_others_does",
        all_goes_when_the_proxy_is_killed_and_nothing_of_others_does,
    ),
    ("what_a_dead_keeper_left_is_taken_over", what_a_dead_keeper_left_is_taken_over),
    ("of_two_proxies_the_last_one_takes_the_rules_along", of_two_proxies_the_last_one_takes_the_rules_along),
    (
        "another_configuration_changes_the_rules_to_what_it_needs",
        another_configuration_changes_the_rules_to_what_it_needs,
    ),
    (
        "what_cannot_be_had_leaves_what_was_there_and_it_is_kept_on",
        what_cannot_be_had_leaves_what_was_there_and_it_is_kept_on,
    ),
    (
        "a_slow_keeper_stays_and_its_late_answers_are_nobody_elses",
        a_slow_keeper_stays_and_its_late_answers_are_nobody_elses,
    ),
    ("a_keeper_outlives_the_signals_of_its_service", a_keeper_outlives_the_signals_of_its_service),
    ("without_the_capability_the_keeper_says_so", without_the_capability_the_keeper_says_so),
];

/// Each test, and what the processes that it starts run instead of tests. They need the main thread, whose signals are the
/// process's, and which the usual harness does not give away.
fn main() {
    if std::env::var_os(AS_KEEPER).is_some() {
        return keep_rules().unwrap();
    }
    if let Ok(places) = std::env::var(AS_PROXY) {
        return proxy(&places);
    }
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let chosen = TESTS.iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|part| name.contains(part)));
    let mut passed = 0;
    for (name, test) in chosen {
        println!("test {name}");
        in_namespaces(name, test);
        passed += 1;
    }
    println!("test result: ok. {passed} passed");
}

/// A proxy that says when its rules are there, and lives until it is told to end.
fn proxy(places: &str) {
    let mut keeper = start();
    assert_eq!(keeper.want(want(needs(places))).unwrap(), Report::Installed);
    eprintln!("ready");
    let _ = std::io::stdin().read(&mut [0]);
}

fn itself() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env_remove(AS_PROXY).env_remove(AS_KEEPER);
    command
}

fn start() -> RuleKeeper {
    let mut command = itself();
    command.env(AS_KEEPER, "1");
    RuleKeeper::start(command).unwrap()
}

/// A proxy in a process of its own. Its standard error is its keeper's too, and so ends with the later of the two.
fn start_proxy(places: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut command = itself();
    command.env(AS_PROXY, places).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, said)
}

/// Kills the proxy and waits until its keeper has ended too.
fn kill_and_wait((mut child, mut said): (Child, BufReader<std::process::ChildStderr>)) {
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

/// "l": loopback, "a": another local address, "e": elsewhere; both families.
fn needs(places: &str) -> Needs {
    let place = |letter| match letter {
        'l' => Place::Loopback,
        'a' => Place::LocalAddress,
        _ => Place::Elsewhere,
    };
    let each = places.chars().flat_map(|letter| Family::ALL.map(|family| (place(letter), family)));
    each.fold(Needs::default(), |needs, (place, family)| needs.with(place, family))
}

fn want(needs: Needs) -> Want {
    Want { needs, mark: number(0x2f7), table: number(763) }
}

fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap()
}

/// All that a keeper may have to do with, as the kernel has it.
fn in_the_kernel() -> String {
    let routing = ["-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all"].map(ip).concat();
    // The order of rules of one priority says nothing: none of ours overlap.
    let mut lines: Vec<_> = routing.lines().collect();
    lines.sort_unstable();
    lines.join("\n") + &run(Command::new("nft").args(["list", "ruleset"]))
}

fn next(keeper: &mut RuleKeeper) -> Report {
    loop {
        if let Some(report) = keeper.report().unwrap() {
            return report;
        }
        let ready = poll(&mut [PollFd::new(keeper.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE)).unwrap();
        assert_eq!(ready, 1, "the keeper says nothing; there is\n{}", in_the_kernel());
    }
}

fn what_others_remove_comes_back_and_is_reported() {
    let before = in_the_kernel();
    let mut keeper = start();
    assert_eq!(keeper.want(want(Needs::ALL)).unwrap(), Report::Installed);
    let whole = in_the_kernel();
    assert_ne!(whole, before);
    let removals = [
        ("ip rule del pref 1000 fwmark 0x2f7", "rule pref 1000 fwmark 0x2f7 lookup 763 protocol 237"),
        ("ip -6 rule del pref 1000 from ::1", "rule pref 1000 from ::1 iif lo lookup 763 protocol 237"),
        ("ip route del local default table 763", "route local 0.0.0.0/0 dev lo table 763 protocol 237"),
        ("ip -6 route del local default table 763", "route local ::/0 dev lo table 763 protocol 237"),
        ("nft flush ruleset", "table inet edgeproxy_0x2f7"),
        ("nft flush chain inet edgeproxy_0x2f7 arriving", "table inet edgeproxy_0x2f7"),
    ];
    for (removal, restored) in removals {
        run(Command::new("sh").args(["-ec", removal]));
        assert_eq!(next(&mut keeper), Report::Restored(vec![restored.to_owned()]), "{removal}");
        assert_eq!(in_the_kernel(), whole, "{removal}");
    }
}

fn all_goes_when_the_proxy_is_killed_and_nothing_of_others_does() {
    // Of another administrator, in the very same table and with the very same mark.
    ip("rule add pref 999 fwmark 0x2f7 lookup 763");
    ip("rule add pref 1000 fwmark 0x2f8 lookup 763");
    ip("route add 198.51.100.0/24 dev lo table 763");
    // Even what is just like ours, but for whose it is.
    ip("rule add pref 1000 from 127.0.0.0/8 iif lo lookup 763");
    ip("-6 route add local ::/0 dev lo table 763");
    run(Command::new("nft").args(["add", "table", "inet", "edgeproxy"]));
    let before = in_the_kernel();
    let proxy = start_proxy("lae");
    assert_ne!(in_the_kernel(), before);
    kill_and_wait(proxy);
    assert_eq!(in_the_kernel(), before);
}

fn what_a_dead_keeper_left_is_taken_over() {
    let before = in_the_kernel();
    let all = edgeproxy::transparent::rules::RuleSet::new(Needs::ALL, number(0x2f7), number(763));
    run(Command::new("sh").args(["-ec", &all.install_lines()]));
    let proxy = start_proxy("l");
    kill_and_wait(proxy);
    assert_eq!(in_the_kernel(), before);
}

fn of_two_proxies_the_last_one_takes_the_rules_along() {
    let before = in_the_kernel();
    let first = start_proxy("e");
    let mut second = start();
    assert_eq!(second.want(want(needs("la"))).unwrap(), Report::Installed);
    let both = in_the_kernel();
    for part in ["arriving", "opening", "from 127.0.0.0/8"] {
        assert!(both.contains(part), "{both}");
    }
    kill_and_wait(first);
    assert_eq!(second.want(want(needs("la"))).unwrap(), Report::Installed);
    assert_eq!(second.report().unwrap(), None, "the first one took what the second needs");
    let third = start_proxy("e");
    assert_eq!(in_the_kernel(), both);
    second.finish().unwrap();
    let only_third = in_the_kernel();
    assert!(only_third.contains("arriving") && !only_third.contains("from 127.0.0.0/8"), "{only_third}");
    kill_and_wait(third);
    assert_eq!(in_the_kernel(), before);
}

fn another_configuration_changes_the_rules_to_what_it_needs() {
    let mut keeper = start();
    let mut installed = |want| {
        assert_eq!(keeper.want(want).unwrap(), Report::Installed);
        in_the_kernel()
    };
    let (loopback, elsewhere) = (installed(want(needs("l"))), installed(want(needs("e"))));
    assert!(elsewhere.contains("arriving") && !elsewhere.contains("from 127.0.0.0/8"), "{elsewhere}");
    assert_eq!(installed(want(needs("l"))), loopback);
    let elsewhere = Want { mark: number(5), table: number(6), ..want(needs("e")) };
    let other = installed(elsewhere);
    assert!(other.contains("edgeproxy_0x5") && other.contains("lookup 6 ") && !other.contains("763"), "{other}");
    assert!(!installed(want(Needs::default())).contains("lookup 6 "));
    // What both have in common is there all the time.
    installed(want(needs("le")));
    for (mark, table) in [(5, 763), (5, 6), (0x2f7, 6), (0x2f7, 763)] {
        let both = installed(Want { mark: number(mark), table: number(table), ..want(needs("le")) });
        for part in [format!("edgeproxy_{mark:#x} "), format!("from 127.0.0.0/8 iif lo lookup {table} ")] {
            assert!(both.contains(&part), "{part}\n{both}");
        }
        let lines = |part: String| both.lines().filter(|line| line.contains(&part)).count();
        let found =
            (lines(format!("fwmark {mark:#x} lookup {table} ")), lines(" lookup ".to_owned() + &table.to_string()));
        assert_eq!((found, lines("proto 237".to_owned())), ((2, 4), 6), "{both}");
    }
}

fn what_cannot_be_had_leaves_what_was_there_and_it_is_kept_on() {
    let mut keeper = start();
    let before = want(needs("l"));
    assert_eq!(keeper.want(before).unwrap(), Report::Installed);
    let whole = in_the_kernel();
    // Another program's tables: nobody else may change them while it lives.
    let mut owner = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut orders = owner.stdin.take().unwrap();
    for name in ["edgeproxy_0x2f7", "edgeproxy_0x5"] {
        writeln!(orders, "add table inet {name} {{ flags owner; }}").unwrap();
    }
    let deadline = Instant::now() + Duration::from_millis(PATIENCE.into());
    while !in_the_kernel().contains("edgeproxy_0x5") {
        assert!(Instant::now() < deadline, "nobody has made the table");
    }
    let routing = |all: &str| {
        let (routing, _) = all.split_once("table inet").unwrap_or((all, ""));
        routing.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
    };
    for (mark, table) in [(0x2f7, 763), (5, 6), (5, 763), (0x2f7, 6)] {
        let refused = Want { mark: number(mark), table: number(table), ..want(needs("ale")) };
        let report = keeper.want(refused).unwrap();
        assert!(matches!(&report, Report::Failed(_)), "{report:?}");
        assert_eq!(routing(&in_the_kernel()), routing(&whole), "{mark:#x} {table}");
    }
    drop(orders);
    owner.kill().unwrap();
    owner.wait().unwrap();
    while keeper.report().unwrap().is_some() {}
    ip("rule del pref 1000 from 127.0.0.0/8 iif lo");
    assert!(matches!(next(&mut keeper), Report::Restored(_)));
    assert_eq!(in_the_kernel(), whole);
}

fn only_child() -> Pid {
    let children = std::fs::read_to_string(format!("/proc/self/task/{}/children", nix::unistd::gettid())).unwrap();
    Pid::from_raw(children.trim().parse().unwrap())
}

fn a_slow_keeper_stays_and_its_late_answers_are_nobody_elses() {
    let mut keeper = start();
    let mut installed = |want| {
        assert_eq!(keeper.want(want).unwrap(), Report::Installed);
        in_the_kernel()
    };
    let (elsewhere, loopback) = (installed(want(needs("e"))), installed(want(needs("l"))));
    let child = only_child();
    kill(child, Signal::SIGSTOP).unwrap();
    for places in ["a", "e", ""] {
        let error = keeper.want_within(want(needs(places)), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
    assert_eq!(in_the_kernel(), loopback);
    kill(child, Signal::SIGCONT).unwrap();
    // Had it the answer of one of those before, the rules would be others.
    assert_eq!(keeper.want(want(needs("e"))).unwrap(), Report::Installed);
    assert_eq!(in_the_kernel(), elsewhere);
    assert_eq!(keeper.report().unwrap(), None);
    kill(child, Signal::SIGSTOP).unwrap();
    keeper.want_within(want(needs("a")), Duration::from_millis(50)).unwrap_err();
    keeper.tell(want(needs("l"))).unwrap();
    kill(child, Signal::SIGCONT).unwrap();
    assert_eq!(next(&mut keeper), Report::Installed, "the answer of what was told last");
    assert_eq!(in_the_kernel(), loopback);
    assert_eq!(keeper.report().unwrap(), None);
}

fn a_keeper_outlives_the_signals_of_its_service() {
    let mut keeper = start();
    assert_eq!(keeper.want(want(needs("l"))).unwrap(), Report::Installed);
    let child = only_child();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(child, signal).unwrap();
    }
    let installed = in_the_kernel();
    assert_eq!(keeper.want(want(needs("l"))).unwrap(), Report::Installed);
    assert_eq!(in_the_kernel(), installed);
    // It keeps one capability and cannot get others.
    let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    for line in
        ["CapPrm:\t0000000000001000", "CapEff:\t0000000000001000", "CapBnd:\t0000000000001000", "NoNewPrivs:\t1"]
    {
        assert!(status.contains(line), "{line}\n{status}");
    }
    // Its end is known, and its rules stay for the next one.
    kill(child, Signal::SIGKILL).unwrap();
    let gone = poll(&mut [PollFd::new(keeper.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE)).unwrap();
    assert_eq!((gone, keeper.report().is_err()), (1, true));
    assert_eq!(in_the_kernel(), installed);
}

fn without_the_capability_the_keeper_says_so() {
    for set in [caps::CapSet::Bounding, caps::CapSet::Effective] {
        caps::drop(None, set, caps::Capability::CAP_NET_ADMIN).unwrap();
    }
    let report = start().want(want(needs("l"))).unwrap();
    assert!(matches!(&report, Report::Failed(why) if why.contains("not permitted")), "{report:?}");
}
