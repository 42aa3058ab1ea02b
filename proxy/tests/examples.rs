//! The shipped unit and the shipped rules of fail2ban, with the tools that judge them where they are installed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use edgeproxy::config::model::Transport;
use edgeproxy::operation::access_line::Record;
use edgeproxy::operation::command::Wanted;
use edgeproxy::operation::outcomes::{HeaderIn, HeaderOut};
use edgeproxy::operation::unique_id::UniqueId;
use edgeproxy::operation::CloseReason;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/edgeproxy.service");
const DROP_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/edgeproxy-home.conf");

fn is_absent(tool: &str) -> bool {
    let absent = Command::new(tool).arg("--version").output().is_err();
    if absent {
        let _ = writeln!(io::stderr(), "{tool} is not here: not tested");
    }
    absent
}

/// A folder with the unit, and with the drop-in for home hosts where it is installed; gone at the end.
struct Installed(PathBuf);

impl Installed {
    fn new(name: &str, with_drop_in: bool) -> Self {
        let folder = env::temp_dir().join(format!("edgeproxy-unit-{}-{name}-{with_drop_in}", std::process::id()));
        fs::create_dir_all(folder.join("edgeproxy.service.d")).unwrap();
        fs::copy(UNIT, folder.join("edgeproxy.service")).unwrap();
        if with_drop_in {
            fs::copy(DROP_IN, folder.join("edgeproxy.service.d/home.conf")).unwrap();
        }
        Self(folder)
    }

    fn analyzed(&self, words: &[&str]) -> Output {
        Command::new("systemd-analyze").args(words).arg(self.0.join("edgeproxy.service")).output().unwrap()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn the_unit_has_an_exposure_of_at_most_2_5_at_home_too() {
    if is_absent("systemd-analyze") {
        return;
    }
    for with_drop_in in [false, true] {
        let output = Installed::new("score", with_drop_in).analyzed(&["security", "--offline=true", "--no-pager"]);
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find(|line| line.contains("Overall exposure")).unwrap_or_else(|| panic!("{said}"));
        let score: f64 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        assert!(score <= 2.5, "{line}");
        let administers = said.lines().any(|line| line.contains("✗ CapabilityBoundingSet=~CAP_NET_ADMIN"));
        assert_eq!(administers, with_drop_in, "{said}");
    }
}

#[test]
fn the_unit_is_understood_whole() {
    if is_absent("systemd-analyze") {
        return;
    }
    for with_drop_in in [false, true] {
        let output = Installed::new("whole", with_drop_in).analyzed(&["verify"]);
        let said = String::from_utf8(output.stderr).unwrap();
        let faults: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("edgeproxy.service") && !line.contains("is not executable")) // not installed here
            .collect();
        assert!(faults.is_empty(), "{faults:?}");
    }
}

#[test]
fn the_unit_is_started_anew_however_often_it_fails_but_not_with_a_wrong_configuration() {
    let unit = fs::read_to_string(UNIT).unwrap();
    let service = unit.find("\n[Service]\n").unwrap();
    assert!(unit.find("\nStartLimitIntervalSec=0\n").unwrap() < service, "it is a key of [Unit]");
    for line in ["Restart=on-failure", "RestartSec=3s", "RestartPreventExitStatus=2"] {
        assert!(unit[service..].contains(&format!("\n{line}\n")), "{line}");
    }
    // The status of what runs before counts for nothing: it would be started anew for ever.
    assert!(!unit.contains("\nExecStartPre="));
}

#[test]
fn the_manager_hears_what_a_reload_starts_so_that_newer_versions_take_over_more_than_once() {
    let unit = fs::read_to_string(UNIT).unwrap();
    assert!(unit.contains("\nNotifyAccess=exec\n"), "tried by tests/proxy/test_under_systemd.py");
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/edgeproxy.md")).unwrap();
    assert!(page.contains("`NotifyAccess=exec`, which a unit of your own needs too"));
}

#[test]
fn the_log_of_the_shipped_configurations_is_where_the_jail_looks_and_loses_no_line() {
    let filter = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fail2ban-filter.conf")).unwrap();
    for name in ["edge.toml", "home.toml"] {
        let text = fs::read_to_string(format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(text.contains("\naccess_log = \"-\"\n"), "{name}");
    }
    let unit = fs::read_to_string(UNIT).unwrap();
    assert!(unit.contains("\nLogRateLimitIntervalSec=0\n") && !unit.contains("\nStandardOutput="));
    assert!(filter.contains("\n#   backend  = systemd\n"));
    assert!(filter.contains("\njournalmatch = _SYSTEMD_UNIT=edgeproxy.service\n"));
}

#[test]
fn the_drop_in_of_a_home_host_adds_the_capability_of_the_rule_keeper_to_both_sets() {
    let text = fs::read_to_string(DROP_IN).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["[Service]", "AmbientCapabilities=CAP_NET_ADMIN", "CapabilityBoundingSet=CAP_NET_ADMIN"]);
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/edgeproxy_operation.md")).unwrap();
    assert!(page.contains("proxy/examples/edgeproxy-home.conf /etc/systemd/system/edgeproxy.service.d/"));
}

#[test]
fn the_unit_keeps_the_capabilities_of_the_sandbox_and_no_other() {
    let unit = fs::read_to_string(UNIT).unwrap();
    let kept: Vec<String> = edgeproxy::sandbox::CAPABILITIES.iter().map(ToString::to_string).collect();
    for set in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert!(unit.lines().any(|line| line == format!("{set}={}", kept.join(" "))), "{set}");
    }
    assert!(unit.contains("\nType=notify\n") && unit.contains("\nExecReload=/usr/local/bin/edgeproxy reload\n"));
}

/// What a command of the action asks of the proxy, as a shell runs it for fail2ban.
fn asked_by_fail2ban(line: &str, bantime: &str) -> Wanted {
    let line = line.replace("<ip>", "2001:db8::7").replace("<bantime>", bantime).replace("<socket>", "/run/x");
    // fail2ban reads "%%" as "%", and what the program writes is not wanted here.
    let line = line.replace("%%", "%").replace("<edgeproxy>", "echo").replace(" >/dev/null", "");
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let words: Vec<String> = String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect();
    let command = edgeproxy::operation::command::read(&words[0], &words[1..]);
    let command = command.unwrap_or_else(|fault| panic!("{line}: {fault}"));
    assert_eq!(command.socket.to_str(), Some("/run/x"));
    command.wanted
}

#[test]
fn the_commands_of_the_fail2ban_action_are_commands_for_ever_too() {
    let action = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fail2ban-action.conf")).unwrap();
    let command = |name: &str| {
        let line = action.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.unwrap_or_else(|| panic!("{name}"))
    };
    let prefixes = vec!["2001:db8::7".parse().unwrap()];
    for (bantime, seconds) in [("600", 600), ("1200.5", 1_200), ("-1", 3_650 * 24 * 3_600)] {
        let deny = Wanted::Deny { prefixes: prefixes.clone(), seconds };
        assert_eq!(asked_by_fail2ban(command("actionban"), bantime), deny, "{bantime}");
    }
    assert_eq!(asked_by_fail2ban(command("actionunban"), "600"), Wanted::Undeny(prefixes));
    assert_eq!(asked_by_fail2ban(command("actioncheck"), "600"), Wanted::Denied { nft: None });
}

#[test]
fn the_rotated_log_is_the_shipped_folder_s_and_is_opened_anew_by_the_proxy_alone() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/logrotate.conf");
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert!(fs::read_to_string(UNIT).unwrap().contains("\nLogsDirectory=edgeproxy\n"));
    assert!(lines.contains(&"/var/log/edgeproxy/access.log {") && lines.contains(&"nocreate"), "{text}");
    assert!(lines.contains(&"systemctl kill --signal=HUP --kill-who=main edgeproxy.service"), "{text}");
    if is_absent("logrotate") {
        return;
    }
    let output = Command::new("logrotate").args(["--debug", "--state", "/dev/null", path]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("unknown option") && !said.contains(&format!("error: {path}")), "{said}");
}

/// The line of a client that ended so, as the filter sees it: fail2ban takes the date out.
fn dateless(transport: Transport, client: &str, server_name: &str, close: CloseReason) -> String {
    let mut line = Vec::new();
    let record = Record {
        time: SystemTime::UNIX_EPOCH,
        unique_id: &UniqueId::Own([7; 16]),
        listener: "web",
        transport,
        peer: "100.64.0.1:40000".parse().unwrap(),
        client: client.parse().unwrap(),
        original_dst: "198.51.100.1:443".parse().unwrap(),
        protocol: None,
        server_name: Some(server_name),
        alpn: &[],
        ech: false,
        rule: None,
        backend: None,
        target: None,
        source: None,
        subflows: None,
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
    let found_in = |line: &str| pattern.captures(line).map(|captures| captures["addr"].to_owned());
    let found = |line: &str| {
        let of_journal = format!("edge edgeproxy[7]: {{\"time\":\"1970-01-01T00:00:00.000000Z\"{line}");
        assert_eq!(found_in(&of_journal), found_in(line), "{line}");
        found_in(line)
    };
    let forged = "x\",\"client\":\"192.0.2.1:1\",\"close\":\"no_rule\",";
    for (client, address) in [("203.0.113.7:1", "203.0.113.7"), ("[2001:db8::7]:1", "2001:db8::7")] {
        assert_eq!(found(&dateless(Transport::Tcp, client, "x", CloseReason::NoRule)).as_deref(), Some(address));
        assert_eq!(
            found(&dateless(Transport::Tcp, client, forged, CloseReason::HeaderBroken("x"))).as_deref(),
            Some(address)
        );
        assert_eq!(found(&dateless(Transport::Tcp, client, forged, CloseReason::ClientClosed)), None);
        // Whoever sends a datagram chooses its source.
        assert_eq!(found(&dateless(Transport::Udp, client, "x", CloseReason::NoRule)), None);
        let tcp = "x\",\"transport\":\"tcp\",";
        assert_eq!(found(&dateless(Transport::Udp, client, tcp, CloseReason::NoRule)), None);
        // What the proxy says on stderr is in the journal too.
        let said =
            format!("edge edgeproxy[7]: x {{\"time\":\"{}", dateless(Transport::Tcp, client, "x", CloseReason::NoRule));
        assert_eq!(found_in(&said), None);
    }
}
