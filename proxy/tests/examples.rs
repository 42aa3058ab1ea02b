//! The shipped unit and the shipped rules of fail2ban, with the tools that judge them where they are installed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{self, Write};
use std::process::Command;
use std::time::{Duration, SystemTime};

use edgeproxy::config::model::Transport;
use edgeproxy::operation::access_line::Record;
use edgeproxy::operation::outcomes::{HeaderIn, HeaderOut};
use edgeproxy::operation::unique_id::UniqueId;
use edgeproxy::operation::CloseReason;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/edgeproxy.service");

fn is_absent(tool: &str) -> bool {
    let absent = Command::new(tool).arg("--version").output().is_err();
    if absent {
        let _ = writeln!(io::stderr(), "{tool} is not here: not tested");
    }
    absent
}

#[test]
fn the_unit_has_an_exposure_of_at_most_2_5() {
    if is_absent("systemd-analyze") {
        return;
    }
    let output =
        Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager", UNIT]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.contains("Overall exposure")).unwrap_or_else(|| panic!("{said}"));
    let score: f64 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(score <= 2.5, "{line}");
}

#[test]
fn the_unit_is_understood_whole() {
    if is_absent("systemd-analyze") {
        return;
    }
    let output = Command::new("systemd-analyze").args(["verify", UNIT]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let faults: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("edgeproxy.service") && !line.contains("is not executable")) // not installed here
        .collect();
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn the_unit_keeps_the_capabilities_of_the_sandbox_and_no_other() {
    let unit = fs::read_to_string(UNIT).unwrap();
    let kept: Vec<String> = edgeproxy::sandbox::CAPABILITIES.iter().map(ToString::to_string).collect();
    for set in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert!(unit.lines().any(|line| line == format!("{set}={}", kept.join(" "))), "{set}");
    }
    assert!(unit.contains("\nType=notify\n") && unit.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"));
}

#[test]
fn the_commands_of_the_fail2ban_action_are_commands() {
    let action = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fail2ban-action.conf")).unwrap();
    let commands: Vec<_> = action.lines().filter_map(|line| line.split_once(" = <edgeproxy> ")).collect();
    assert_eq!(commands.len(), 3);
    for (name, line) in commands {
        let line = line.replace("<ip>", "2001:db8::7").replace("<bantime>", "600").replace("<socket>", "/run/x");
        let words: Vec<String> =
            line.split_whitespace().filter(|word| !word.starts_with('>')).map(str::to_owned).collect();
        let command = edgeproxy::operation::command::read(&words[0], &words[1..]);
        assert_eq!(command.unwrap_or_else(|fault| panic!("{name}: {fault}")).socket.to_str(), Some("/run/x"));
    }
}

/// The line of a client that ended so, as the filter sees it: fail2ban takes the date out.
fn dateless(client: &str, server_name: &str, close: CloseReason) -> String {
    let mut line = Vec::new();
    let record = Record {
        time: SystemTime::UNIX_EPOCH,
        unique_id: &UniqueId::Own([7; 16]),
        listener: "web",
        transport: Transport::Tcp,
        peer: "100.64.0.1:40000".parse().unwrap(),
        client: client.parse().unwrap(),
        original_dst: "198.51.100.1:443".parse().unwrap(),
        protocol: None,
        server_name: Some(server_name),
        alpn: &[],
        rule: None,
        backend: None,
        target: None,
        source: None,
        header_in: HeaderIn::V2,
        header_out: HeaderOut::None,
        bytes_in: 0,
        bytes_out: 0,
        preface: None,
        connect: None,
        total: Duration::ZERO,
        close,
        left_out: 0,
    };
    record.write(&mut line);
    let line = String::from_utf8(line).unwrap();
    line.strip_prefix("{\"time\":\"1970-01-01T00:00:00.000000Z\"").unwrap().to_owned()
}

#[test]
fn the_fail2ban_filter_finds_the_client_and_no_name_deceives_it() {
    let filter = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fail2ban-filter.conf")).unwrap();
    let pattern = filter.lines().find_map(|line| line.strip_prefix("failregex = ")).unwrap();
    let pattern = regex::Regex::new(&pattern.replace("<ADDR>", "(?P<addr>[0-9a-f.:]+)")).unwrap();
    let found = |line: &str| pattern.captures(line).map(|captures| captures["addr"].to_owned());
    let forged = "x\",\"client\":\"192.0.2.1:1\",\"close\":\"no_rule\",";
    for (client, address) in [("203.0.113.7:1", "203.0.113.7"), ("[2001:db8::7]:1", "2001:db8::7")] {
        assert_eq!(found(&dateless(client, "x", CloseReason::NoRule)).as_deref(), Some(address));
        assert_eq!(found(&dateless(client, forged, CloseReason::HeaderBroken("x"))).as_deref(), Some(address));
        assert_eq!(found(&dateless(client, forged, CloseReason::ClientClosed)), None);
    }
}
