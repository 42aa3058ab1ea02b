//! The shipped unit and the shipped rules of fail2ban, with the tools that judge them where they are installed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{self, Write};
use std::process::Command;

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
        let command = edgeproxy::operation::command::parse(&words).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(command.unwrap_or_else(|fault| panic!("{name}: {fault}")).socket.to_str(), Some("/run/x"));
    }
}
