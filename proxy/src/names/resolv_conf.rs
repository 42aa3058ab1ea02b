//! resolv.conf(5): the servers that this machine asks, and what it makes of short names. Other options are not ours: the time
//! for a server and the number of tries are the proxy's settings.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};

use super::name::HostName;

/// Servers that are asked (`MAXNS` of resolv.conf(5)).
pub(super) const MOST_SERVERS: usize = 3;
/// Domains that are searched, as many as the C library had for long.
pub(super) const MOST_DOMAINS: usize = 6;
/// The most that `ndots` may be; without it, it is 1.
const MOST_DOTS: usize = 15;
pub(super) const DNS_PORT: u16 = 53;

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// The `nameserver` lines; without any, this machine.
    pub(super) servers: Vec<SocketAddr>,
    /// The domains of the last `search` or `domain` line.
    pub(super) search: Vec<HostName>,
    /// A name with fewer dots is short.
    ndots: usize,
}

impl ResolvConf {
    /// What is asked for before a name itself, in this order: nothing, if it is not short.
    pub(super) fn before(&self, host: &HostName) -> Vec<HostName> {
        let dots = host.as_str().bytes().filter(|byte| *byte == b'.').count();
        let domains = if dots < self.ndots { self.search.as_slice() } else { &[] };
        domains.iter().filter_map(|domain| HostName::parse(&format!("{host}.{domain}"))).collect()
    }
}

/// Lines that cannot be read are passed over, as the C library does.
pub(super) fn parse(text: &str, index_of: impl Fn(&str) -> Option<u32>) -> ResolvConf {
    let mut read = ResolvConf { servers: Vec::new(), search: Vec::new(), ndots: 1 };
    for line in text.lines() {
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with(['#', ';']));
        match words.next() {
            Some("nameserver") => read.servers.extend(words.next().and_then(|word| endpoint(word, &index_of))),
            // systemd-resolved writes `search .` where there is none, which is no name here either.
            Some("search") => read.search = words.filter_map(HostName::parse).take(MOST_DOMAINS).collect(),
            Some("domain") => read.search = words.filter_map(HostName::parse).take(1).collect(),
            Some("options") => {
                let dots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                read.ndots = dots.last().map_or(read.ndots, |dots: usize| dots.min(MOST_DOTS));
            }
            Some(_) | None => {}
        }
    }
    read.servers.truncate(MOST_SERVERS);
    if read.servers.is_empty() {
        read.servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
    }
    read
}

/// `192.0.2.1`, `2001:db8::1`, `fe80::1%eth0` or `fe80::1%2`.
fn endpoint(word: &str, index_of: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some((address, scope)) = word.split_once('%') else {
        return Some(SocketAddr::new(word.parse().ok()?, DNS_PORT));
    };
    let scope = scope.parse().ok().or_else(|| index_of(scope))?;
    Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(text: &str, name: &str) -> Vec<String> {
        let host = HostName::parse(name).unwrap();
        parse(text, |_| None).before(&host).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn it_names_servers_of_both_families() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\nnameserver fe80::1%eth7\noptions timeout:1\n\
                    nameserver nonsense\nnameserverx 192.0.2.8\n  nameserver\t2001:db8::1 # stub\nnameserver 192.0.2.4\n";
        let servers = parse(text, |name| (name == "eth7").then_some(7)).servers;
        let meant = ["192.0.2.1:53", "[fe80::1%7]:53", "[2001:db8::1]:53"];
        assert_eq!(servers, meant.map(|text| text.parse().unwrap()));
        assert_eq!(endpoint("fe80::1%3", |_| None), Some("[fe80::1%3]:53".parse().unwrap()));
        assert_eq!(endpoint("fe80::1%gone", |_| None), None);
    }

    #[test]
    fn without_a_nameserver_it_is_this_machine() {
        assert_eq!(parse("search example\n", |_| None).servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn short_names_are_first_asked_for_in_each_domain() {
        let lan = "search home.example Lan. # more\n";
        assert_eq!(before(lan, "nas"), ["nas.home.example", "nas.lan"]);
        assert_eq!(before(lan, "nas.home"), [""; 0]);
        assert_eq!(before("nameserver 192.0.2.1\n", "nas"), [""; 0]);
        assert_eq!(before("search .\n", "nas"), [""; 0]);
        assert_eq!(before("search 10.1 a..b ok\n", "nas"), ["nas.ok"]);
        let longest = format!("search {}\n", ["a".repeat(63).as_str(); 4].join(".").get(..250).unwrap());
        assert_eq!(before(&longest, "nas"), [""; 0], "what would be too long");
    }

    #[test]
    fn the_last_list_holds_and_domains_are_not_many() {
        assert_eq!(before("domain a\nsearch b c\n", "nas"), ["nas.b", "nas.c"]);
        assert_eq!(before("search b c\ndomain a d\n", "nas"), ["nas.a"]);
        assert_eq!(before("search a b c d e f g\n", "nas").len(), MOST_DOMAINS);
    }

    #[test]
    fn ndots_tells_which_names_are_short() {
        let with = |options: &str| format!("search lan\noptions {options}\n");
        for (options, name, is_short) in [
            ("ndots:0", "nas", false),
            ("timeout:1 ndots:2 rotate", "a.b", true),
            ("ndots:2", "a.b.c", false),
            ("ndots:2 ndots:1", "a.b", false),
            ("ndots:99", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o", true),
            ("ndots:99", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p", false),
            ("ndots:x", "nas", true),
            ("ndots", "a.b", false),
        ] {
            assert_eq!(!before(&with(options), name).is_empty(), is_short, "{options} {name}");
        }
    }
}
