//! Rules and routes in the kernel: what is there, what is missing, put and taken. Takes nothing that does not bear our
//! number ([`PROTOCOL`]) and our table.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::process::{Command, Stdio};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::config::model::{Config, TransparentRules};

use super::needs::{Family, Needs};
use super::netlink::Requests;
use super::rules::{LocalRoute, PolicyRule, RuleSet, Selector, PRIORITY, PROTOCOL};

/// The index of `lo`, the first interface of every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// Something of a [`RuleSet`] that is not in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Rule(PolicyRule),
    Route(LocalRoute),
}

/// Rules and routes of the set that the kernel does not have, whoever put those that it has.
pub(crate) fn missing(requests: &mut Requests, set: &RuleSet) -> io::Result<Vec<Missing>> {
    let mut missing = Vec::new();
    for family in Family::ALL {
        let mut routes = set.routes.iter().filter(|route| route.family == family).peekable();
        if routes.peek().is_some() {
            let there = dump_routes(requests, family)?;
            let absent = routes.filter(|route| !there.iter().any(|found| is_route(found, route)));
            missing.extend(absent.map(|route| Missing::Route(*route)));
        }
        let mut rules = set.rules.iter().filter(|rule| rule.family == family).peekable();
        if rules.peek().is_some() {
            let there = dump_rules(requests, family)?;
            let absent = rules.filter(|rule| !there.iter().any(|found| is_rule(found, rule)));
            missing.extend(absent.map(|rule| Missing::Rule(*rule)));
        }
    }
    Ok(missing)
}

/// What to say at a start where nobody is to keep the rules that a configuration needs and one of them is not there: such
/// backends would be dialled in vain. Asking takes no right; where the kernel does not answer there is nothing to say.
pub(crate) fn lack(config: &Config, is_local: impl Fn(IpAddr) -> bool) -> Option<&'static str> {
    let TransparentRules { manage_rules, mark, table } = config.transparent;
    let set = RuleSet::new(Needs::of(config, is_local), mark, table);
    if manage_rules || set.routes.is_empty() {
        return None;
    }
    let missing = missing(&mut Requests::open().ok()?, &set).ok()?;
    (!missing.is_empty()).then_some(
        "transparent.manage_rules is off, and rules that transparency needs are not there: unless others of yours do the same, \
         answers to clients are lost; turn it on, or see `edgeproxy rules` and `edgeproxy doctor`",
    )
}

/// Puts what is missing.
pub(crate) fn put(requests: &mut Requests, missing: &[Missing]) -> io::Result<()> {
    for one in missing {
        let request = match one {
            Missing::Rule(rule) => RouteNetlinkMessage::NewRule(rule_message(rule)),
            Missing::Route(route) => RouteNetlinkMessage::NewRoute(route_message(route)),
        };
        match requests.change(request, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => {}
            // Another was faster, or has it in another form.
            Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes all rules and routes of this mark and table that bear our number and are not in `keep`, and the nftables table
/// unless one is. Goes on past faults; the first of them is the result.
pub(crate) fn take_all_but(
    requests: &mut Requests,
    keep: &RuleSet,
    mark: NonZeroU32,
    table: NonZeroU32,
) -> io::Result<()> {
    let all = RuleSet::new(Needs::ALL, mark, table);
    let mut result = if keep.nftables.is_none() { delete_nftables(&all.nftables_name) } else { Ok(()) };
    for family in Family::ALL {
        let taken = take_family(requests, &all, keep, family);
        result = result.and(taken);
    }
    result
}

fn take_family(requests: &mut Requests, all: &RuleSet, keep: &RuleSet, family: Family) -> io::Result<()> {
    let mut result = Ok(());
    for found in dump_rules(requests, family)? {
        let among = |set: &RuleSet| set.rules.iter().any(|rule| rule.family == family && is_rule(&found, rule));
        let is_ours = found.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
        if is_ours && among(all) && !among(keep) {
            result = result.and(gone(requests.change(RouteNetlinkMessage::DelRule(found), 0)));
        }
    }
    for found in dump_routes(requests, family)? {
        let among = |set: &RuleSet| set.routes.iter().any(|route| route.family == family && is_route(&found, route));
        let is_ours = found.header.protocol == RouteProtocol::Other(PROTOCOL);
        if is_ours && among(all) && !among(keep) {
            result = result.and(gone(requests.change(RouteNetlinkMessage::DelRoute(found), 0)));
        }
    }
    result
}

/// What is not there need not be taken.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if [Errno::ENOENT as i32, Errno::ESRCH as i32].map(Some).contains(&error.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// Routes of a table that are not ours: the line that removes each.
pub(crate) fn foreign_routes(requests: &mut Requests, table: NonZeroU32) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in Family::ALL {
        let ours = LocalRoute { family, table };
        let of_table = |found: &&RouteMessage| table_of(found) == table.get() && !is_route(found, &ours);
        lines.extend(dump_routes(requests, family)?.iter().filter(of_table).map(|found| removal(found, family, table)));
    }
    Ok(lines)
}

fn removal(found: &RouteMessage, family: Family, table: NonZeroU32) -> String {
    let (option, mut to) = match family {
        Family::V4 => ("-4", "0.0.0.0".to_owned()),
        Family::V6 => ("-6", "::".to_owned()),
    };
    let mut metric = String::new();
    for attribute in &found.attributes {
        if let RouteAttribute::Destination(address) = attribute {
            if let RouteAddress::Inet(ip) = address {
                to = ip.to_string();
            } else if let RouteAddress::Inet6(ip) = address {
                to = ip.to_string();
            }
        } else if let RouteAttribute::Priority(number) = attribute {
            metric = format!(" metric {number}");
        }
    }
    format!("ip {option} route del {to}/{}{metric} table {table}", found.header.destination_prefix_length)
}

/// Whether packets of the family to anywhere have a route in some table.
pub(crate) fn has_default_route(requests: &mut Requests, family: Family, but: NonZeroU32) -> io::Result<bool> {
    let leads_out = |found: &RouteMessage| {
        let header = &found.header;
        header.destination_prefix_length == 0 && header.kind == RouteType::Unicast && table_of(found) != but.get()
    };
    Ok(dump_routes(requests, family)?.iter().any(leads_out))
}

fn dump_rules(requests: &mut Requests, family: Family) -> io::Result<Vec<RuleMessage>> {
    let mut message = RuleMessage::default();
    message.header.family = number(family);
    let answers = requests.dump(RouteNetlinkMessage::GetRule(message))?;
    let rule = |answer| if let RouteNetlinkMessage::NewRule(rule) = answer { Some(rule) } else { None };
    Ok(answers.into_iter().filter_map(rule).collect())
}

fn dump_routes(requests: &mut Requests, family: Family) -> io::Result<Vec<RouteMessage>> {
    let mut message = RouteMessage::default();
    message.header.address_family = number(family);
    let answers = requests.dump(RouteNetlinkMessage::GetRoute(message))?;
    let route = |answer| if let RouteNetlinkMessage::NewRoute(route) = answer { Some(route) } else { None };
    Ok(answers.into_iter().filter_map(route).collect())
}

fn rule_message(rule: &PolicyRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = number(rule.family);
    message.header.action = RuleAction::ToTable;
    message.header.src_len = source_length(rule);
    message.attributes = attributes(rule);
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    message
}

/// What distinguishes a rule.
fn attributes(rule: &PolicyRule) -> Vec<RuleAttribute> {
    let mut attributes = vec![RuleAttribute::Priority(PRIORITY), RuleAttribute::Table(rule.table.get())];
    match (rule.selector, rule.family) {
        (Selector::FromLoopback, family) => {
            let source = match family {
                Family::V4 => IpAddr::from([127, 0, 0, 0]),
                Family::V6 => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            };
            attributes.extend([RuleAttribute::Source(source), RuleAttribute::Iifname("lo".to_owned())]);
        }
        (Selector::Mark(mark), _) => {
            attributes.extend([RuleAttribute::FwMark(mark.get()), RuleAttribute::FwMask(u32::MAX)]);
        }
    }
    attributes
}

fn source_length(rule: &PolicyRule) -> u8 {
    match (rule.selector, rule.family) {
        (Selector::FromLoopback, Family::V4) => 8,
        (Selector::FromLoopback, Family::V6) => 128,
        (Selector::Mark(_), _) => 0,
    }
}

fn is_rule(found: &RuleMessage, rule: &PolicyRule) -> bool {
    let header = &found.header;
    let has = |wanted: &RuleAttribute| found.attributes.contains(wanted);
    header.action == RuleAction::ToTable
        && header.src_len == source_length(rule)
        && header.dst_len == 0
        && attributes(rule).iter().all(has)
}

fn route_message(route: &LocalRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = number(route.family);
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.scope = RouteScope::Host;
    message.header.kind = RouteType::Local;
    message.attributes = vec![RouteAttribute::Table(route.table.get()), RouteAttribute::Oif(LOOPBACK)];
    message
}

fn is_route(found: &RouteMessage, route: &LocalRoute) -> bool {
    found.header.kind == RouteType::Local
        && found.header.destination_prefix_length == 0
        && table_of(found) == route.table.get()
        && found.attributes.contains(&RouteAttribute::Oif(LOOPBACK))
}

fn table_of(route: &RouteMessage) -> u32 {
    let wide =
        |attribute: &RouteAttribute| if let RouteAttribute::Table(table) = attribute { Some(*table) } else { None };
    route.attributes.iter().find_map(wide).unwrap_or(u32::from(route.header.table))
}

fn number(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Has nft do what the text says, all of it or nothing.
pub(crate) fn load_nftables(text: &str) -> io::Result<()> {
    nft(&["-f", "-"], text).map(drop)
}

/// Whether this kernel and this nft understand the text; nothing is changed.
pub(crate) fn check_nftables(text: &str) -> io::Result<()> {
    nft(&["--check", "-f", "-"], text).map(drop)
}

/// The table as nft shows it; `None` if there is none.
pub(crate) fn list_nftables(name: &str) -> io::Result<Option<String>> {
    match nft(&["--numeric", "list", "table", "inet", name], "") {
        Ok(listing) => Ok(Some(listing)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && error.get_ref().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

fn delete_nftables(name: &str) -> io::Result<()> {
    // An empty one first, so that there is one to delete.
    match load_nftables(&format!("table inet {name} {{\n}}\ndelete table inet {name}\n")) {
        // Without nft there was nobody to make it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn nft(arguments: &[&str], input: &str) -> io::Result<String> {
    // The PATH of services and of ordinary users often lacks the folders of administration.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("nft");
    command.args(arguments).env("PATH", path).env("LC_ALL", "C");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Far less than a pipe holds, so this waits for nobody; an nft that ended says why below.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("nft failed").trim().to_owned();
    let kind = if first.contains("No such file or directory") {
        io::ErrorKind::NotFound
    } else if first.contains("Operation not permitted") {
        io::ErrorKind::PermissionDenied
    } else {
        io::ErrorKind::Other
    };
    Err(io::Error::new(kind, first))
}
