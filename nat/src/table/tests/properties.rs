//! What holds of any packets in any order, under any configuration: against a model that only remembers what was sent.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const BEHAVIOURS: [&str; 3] = ["endpoint_independent", "address_dependent", "address_and_port_dependent"];

#[derive(Debug, Clone)]
struct Configuration {
    mapping: usize,
    filtering: usize,
    allocation: usize,
    parity: bool,
    block_size: Option<u16>,
    addresses: u8,
    arbitrary: bool,
    refresh_outbound: bool,
}

#[derive(Debug, Clone)]
enum Event {
    /// Host, port, far address, far port.
    Out(u8, u16, u8, u16),
    /// Far address, far port, index of an outside endpoint seen so far.
    In(u8, u16, usize),
    /// Milliseconds.
    Wait(u32),
    Flush,
}

fn configurations() -> impl Strategy<Value = Configuration> {
    (
        0..3usize,
        0..3usize,
        0..3usize,
        any::<bool>(),
        proptest::option::of(2u16..20),
        1u8..3,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(mapping, filtering, allocation, parity, block_size, addresses, arbitrary, refresh_outbound)| {
                let arbitrary = arbitrary && block_size.is_none();
                Configuration {
                    mapping,
                    filtering,
                    allocation,
                    parity,
                    block_size,
                    addresses,
                    arbitrary,
                    refresh_outbound,
                }
            },
        )
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (1u8..5, 2000u16..2008, 1u8..4, 7000u16..7003).prop_map(|(a, b, c, d)| Event::Out(a, b, c, d)),
        8 => (1u8..4, 7000u16..7003, any::<usize>()).prop_map(|(a, b, c)| Event::In(a, b, c)),
        2 => (1u32..8000).prop_map(Event::Wait),
        1 => Just(Event::Flush),
    ];
    proptest::collection::vec(event, 1..120)
}

const TIMER: Duration = Duration::from_secs(10);
const FIRST: u16 = 2000;
const LAST: u16 = 2040;

fn text_of(configuration: &Configuration) -> String {
    let Configuration { mapping, filtering, allocation, parity, block_size, addresses, arbitrary, refresh_outbound } =
        configuration;
    let addresses: Vec<_> = (1..=*addresses).map(|last| format!("\"198.51.100.{last}\"")).collect();
    let allocation = ["preserve", "sequential", "random"][*allocation];
    let block_size = block_size.map_or("null".to_owned(), |size| size.to_string());
    let pooling = if *arbitrary { "arbitrary" } else { "paired" };
    let refresh = if *refresh_outbound { "outbound" } else { "both" };
    format!(
        r#"{{"outside": {{"interface": "wan", "addresses": [{}]}}, "mapping": "{}", "filtering": "{}",
            "ports": {{"first": {FIRST}, "last": {LAST}, "allocation": "{allocation}", "parity": {parity}}},
            "block_size": {block_size}, "pooling": "{pooling}", "refresh": "{refresh}", "timers": {{"udp": 10}}}}"#,
        addresses.join(", "),
        BEHAVIOURS[*mapping],
        BEHAVIOURS[*filtering],
    )
}

/// What was sent, by outside endpoint: whose it is, and to whom it has sent when.
#[derive(Default)]
struct Model {
    owners: HashMap<SocketAddrV4, SocketAddrV4>,
    sent: HashMap<SocketAddrV4, Vec<(SocketAddrV4, Duration)>>,
}

impl Model {
    /// Whether the definition of a filter (RFC 4787 section 5) can admit a sender. `None`: by what came in since, a
    /// session may live on, so either is right.
    fn allows(&self, filtering: usize, outside: SocketAddrV4, from: SocketAddrV4, since: Duration) -> bool {
        let sent = self.sent.get(&outside).map(Vec::as_slice).unwrap_or_default();
        sent.iter().any(|(to, at)| {
            *at > since
                && match filtering {
                    0 => true,
                    1 => to.ip() == from.ip(),
                    _ => *to == from,
                }
        })
    }
}

fn far(address: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new([203, 0, 113, address].into(), port)
}

fn datagram(source: SocketAddrV4, destination: SocketAddrV4) -> Packet {
    Packet::Flow { flow: Flow { protocol: Protocol::Udp, source, destination }, signal: Signal::Datagram }
}

fn run(configuration: &Configuration, events: &[Event]) -> Result<(), TestCaseError> {
    let settings = config::parse(&text_of(configuration)).unwrap();
    let mut table = Table::new(settings, 3);
    let (mut now, mut model, mut seen) = (TIMER, Model::default(), Vec::new());
    for event in events {
        match event {
            Event::Wait(milliseconds) => now += Duration::from_millis(u64::from(*milliseconds)),
            Event::Flush => {
                table.flush();
                model = Model::default();
            }
            Event::Out(host, port, address, far_port) => {
                let inside = SocketAddrV4::new([192, 168, 1, *host].into(), *port);
                let to = far(*address, *far_port);
                let fate = table.decide(now, Passage::Outbound, &datagram(inside, to));
                let Fate::Translate { rewrite, .. } = fate else { continue };
                let outside = rewrite.source.unwrap();
                examine_outside(configuration, inside, outside)?;
                if model.owners.insert(outside, inside) != Some(inside) {
                    model.sent.remove(&outside);
                }
                model.sent.entry(outside).or_default().push((to, now));
                seen.push(outside);
                // There and back: the answer reaches who asked.
                let back = table.decide(now, Passage::Inbound, &datagram(to, outside));
                let Fate::Translate { rewrite, .. } = back else { panic!("{back:?}") };
                prop_assert_eq!(rewrite.destination, Some(inside));
            }
            Event::In(address, port, index) => {
                let (from, Some(outside)) = (far(*address, *port), seen.get(index % seen.len().max(1))) else {
                    continue;
                };
                let fate = table.decide(now, Passage::Inbound, &datagram(from, *outside));
                examine_inbound(configuration, &model, now, *outside, from, &fate)?;
            }
        }
        examine_entries(&table, now)?;
    }
    Ok(())
}

/// Range, parity and block.
fn examine_outside(
    configuration: &Configuration,
    inside: SocketAddrV4,
    outside: SocketAddrV4,
) -> Result<(), TestCaseError> {
    prop_assert!((FIRST..=LAST).contains(&outside.port()));
    prop_assert!((1..=configuration.addresses).contains(&outside.ip().octets()[3]));
    prop_assert!(!configuration.parity || inside.port() % 2 == outside.port() % 2);
    Ok(())
}

fn examine_inbound(
    configuration: &Configuration,
    model: &Model,
    now: Duration,
    outside: SocketAddrV4,
    from: SocketAddrV4,
    fate: &Fate,
) -> Result<(), TestCaseError> {
    let Fate::Translate { rewrite, .. } = fate else {
        // What the inside sent to within the last timer must be let in.
        let must = model.allows(configuration.filtering, outside, from, now - TIMER);
        prop_assert!(!must, "{:?} from {} to {}", fate, from, outside);
        return Ok(());
    };
    prop_assert_eq!(rewrite.destination, model.owners.get(&outside).copied());
    // Never by a filter that forbids it, and where only the inside refreshes, never after its timer.
    let since = if configuration.refresh_outbound { now - TIMER } else { Duration::ZERO };
    prop_assert!(model.allows(configuration.filtering, outside, from, since), "{} to {}", from, outside);
    Ok(())
}

/// No outside endpoint of two inside ones, and no block of two hosts.
fn examine_entries(table: &Table, now: Duration) -> Result<(), TestCaseError> {
    let mut owners = BTreeMap::new();
    let mut holders = HashMap::new();
    for entry in table.entries(now) {
        let other = owners.insert((entry.protocol, entry.outside), entry.inside);
        prop_assert_eq!(other, None);
        if let Some(size) = table.settings.block_size {
            let block = (*entry.outside.ip(), (entry.outside.port() - FIRST) / size);
            let holder = *holders.entry(block).or_insert(*entry.inside.ip());
            prop_assert_eq!(holder, *entry.inside.ip());
        }
        prop_assert!(!entry.sessions.is_empty());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_packets_keeps_the_definitions(configuration in configurations(), events in events()) {
        run(&configuration, &events)?;
    }
}
