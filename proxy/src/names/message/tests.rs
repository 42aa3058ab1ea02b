//! Answers as servers write them, and as nobody should.

use proptest::prelude::*;
use simple_dns::rdata::{AAAA, CNAME, SOA};

use super::*;
use crate::names::fuzz;

const ID: u16 = 0x1234;

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn query(family: Family) -> Query {
    Query::new(&host("nas.tailnet"), family, ID, || 0)
}

fn question(name: &str, record_type: TYPE) -> Question<'_> {
    Question::new(Name::new(name).unwrap(), QTYPE::TYPE(record_type), CLASS::IN.into(), false)
}

fn a(name: &str, ttl: u32, last: u8) -> ResourceRecord<'_> {
    let address = Ipv4Addr::new(192, 0, 2, last).into();
    ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, ttl, RData::A(simple_dns::rdata::A { address }))
}

fn aaaa(name: &str, ttl: u32, address: Ipv6Addr) -> ResourceRecord<'_> {
    let address = address.into();
    ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, ttl, RData::AAAA(AAAA { address }))
}

fn cname<'a>(name: &'a str, ttl: u32, target: &'a str) -> ResourceRecord<'a> {
    let target = RData::CNAME(CNAME(Name::new(target).unwrap()));
    ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, ttl, target)
}

fn soa(ttl: u32, minimum: u32) -> ResourceRecord<'static> {
    let (mname, rname) = (Name::new("ns.tailnet").unwrap(), Name::new("root.tailnet").unwrap());
    let fields = SOA { mname, rname, serial: 1, refresh: 2, retry: 3, expire: 4, minimum };
    ResourceRecord::new(Name::new("tailnet").unwrap(), CLASS::IN, ttl, RData::SOA(fields))
}

/// An answer with the question of [`query`] for IPv4.
fn reply(answers: Vec<ResourceRecord<'_>>) -> Packet<'_> {
    let mut packet = Packet::new_reply(ID);
    packet.questions.push(question("nas.tailnet", TYPE::A));
    packet.answers = answers;
    packet
}

fn read(packet: &Packet<'_>) -> Result<Reading, NotTheAnswer> {
    query(Family::V4).read(&packet.build_bytes_vec_compressed().unwrap())
}

fn v4(last: &[u8], ttl: u64) -> Answer {
    let addresses = last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
    Answer::Addresses(addresses, Duration::from_secs(ttl))
}

#[test]
fn a_query_is_one_question_that_wants_recursion() {
    let bytes = query(Family::V6).bytes().unwrap();
    let mut meant = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    meant.extend_from_slice(b"\x03nas\x07tailnet\x00\x00\x1c\x00\x01");
    assert_eq!(bytes, meant);
}

#[test]
fn letters_become_capitals_as_the_draw_says() {
    let spelt = |bits| Query::new(&host("ab.cd"), Family::V4, ID, || bits).spelling;
    assert_eq!(spelt(0), "ab.cd");
    assert_eq!(spelt(0b01001), "Ab.Cd");
    let long = host(&format!("{}.{}", "a".repeat(63), "b".repeat(63)));
    let mut draws = [u64::MAX, 0].into_iter();
    let spelling = Query::new(&long, Family::V4, ID, || draws.next().unwrap()).spelling;
    assert_eq!(spelling, format!("{}.{}", "A".repeat(63), "b".repeat(63)));
}

#[test]
fn addresses_come_in_the_servers_order_with_the_least_ttl() {
    let packet = reply(vec![a("nas.tailnet", 60, 9), a("NAS.tailnet", 30, 1), a("other.tailnet", 1, 7)]);
    assert_eq!(read(&packet), Ok(Reading::Answer(v4(&[9, 1], 30))));
}

#[test]
fn ipv6_addresses_are_read_and_mapped_ones_become_ipv4() {
    let mut packet = Packet::new_reply(ID);
    packet.questions.push(question("nas.tailnet", TYPE::AAAA));
    let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    packet.answers = vec![aaaa("nas.tailnet", 5, address), a("nas.tailnet", 5, 1), aaaa("nas.tailnet", 5, mapped)];
    let addresses = vec![address.into(), Ipv4Addr::LOCALHOST.into()];
    let meant = Reading::Answer(Answer::Addresses(addresses, Duration::from_secs(5)));
    assert_eq!(query(Family::V6).read(&packet.build_bytes_vec().unwrap()), Ok(meant));
}

#[test]
fn aliases_are_followed_in_any_order_and_shorten_the_ttl() {
    let chain =
        vec![a("c.example", 300, 1), cname("b.example", 20, "C.example"), cname("nas.tailnet", 100, "b.example")];
    assert_eq!(read(&reply(chain)), Ok(Reading::Answer(v4(&[1], 20))));
}

#[test]
fn a_circle_or_a_loose_end_of_aliases_is_no_address() {
    let circle = vec![cname("nas.tailnet", 9, "b.example"), cname("b.example", 9, "nas.tailnet")];
    let loose = vec![cname("nas.tailnet", 9, "b.example")];
    for answers in [circle, loose] {
        assert_eq!(read(&reply(answers)), Ok(Reading::Answer(Answer::NoAddresses(NEGATIVE_WITHOUT_SOA))));
    }
}

#[test]
fn chains_are_followed_so_far_and_no_farther() {
    let names: Vec<String> = (0..=LONGEST_CHAIN).map(|link| format!("x{link}.example")).collect();
    let chain = |links: usize| {
        let mut answers = vec![cname("nas.tailnet", 9, &names[0])];
        answers.extend((1..links).map(|link| cname(&names[link - 1], 9, &names[link])));
        answers.push(a(&names[links - 1], 9, 1));
        read(&reply(answers))
    };
    assert_eq!(chain(LONGEST_CHAIN), Ok(Reading::Answer(v4(&[1], 9))));
    assert_eq!(chain(LONGEST_CHAIN + 1), Ok(Reading::Answer(Answer::NoAddresses(NEGATIVE_WITHOUT_SOA))));
}

#[test]
fn more_addresses_than_anybody_dials_are_left_out() {
    let packet = reply((0..40).map(|last| a("nas.tailnet", 9, last)).collect());
    let kept: Vec<u8> = (0..16).collect();
    assert_eq!(read(&packet), Ok(Reading::Answer(v4(&kept, 9))));
}

#[test]
fn negative_answers_hold_for_the_lesser_time_of_the_soa() {
    for (ttl, minimum, meant) in [(300, 20, 20), (10, 20, 10), (u32::MAX, 20, 0)] {
        let mut packet = reply(vec![]);
        packet.name_servers.push(soa(ttl, minimum));
        let time = Duration::from_secs(meant);
        assert_eq!(read(&packet), Ok(Reading::Answer(Answer::NoAddresses(time))));
        *packet.rcode_mut() = simple_dns::RCODE::NameError;
        assert_eq!(read(&packet), Ok(Reading::Answer(Answer::NoSuchName(time))));
    }
}

#[test]
fn a_ttl_with_the_highest_bit_is_none() {
    assert_eq!(read(&reply(vec![a("nas.tailnet", 0x8000_0000, 1)])), Ok(Reading::Answer(v4(&[1], 0))));
    assert_eq!(read(&reply(vec![a("nas.tailnet", 0x7fff_ffff, 1)])), Ok(Reading::Answer(v4(&[1], 0x7fff_ffff))));
}

#[test]
fn records_of_another_class_are_no_answer() {
    let mut record = a("nas.tailnet", 9, 1);
    record.class = CLASS::CH;
    assert_eq!(read(&reply(vec![record])), Ok(Reading::Answer(Answer::NoAddresses(NEGATIVE_WITHOUT_SOA))));
}

#[test]
fn faults_of_the_server_are_told_apart_with_and_without_the_question() {
    for (code, meant) in [(2, Reading::ServerFailure), (1, Reading::Refused(1)), (5, Reading::Refused(5))] {
        let mut bytes = reply(vec![]).build_bytes_vec().unwrap();
        bytes[3] |= code;
        assert_eq!(query(Family::V4).read(&bytes), Ok(meant.clone()));
        bytes.truncate(HEADER);
        bytes[5] = 0;
        assert_eq!(query(Family::V4).read(&bytes), Ok(meant));
    }
}

#[test]
fn a_truncated_answer_is_not_used() {
    let mut packet = reply(vec![a("nas.tailnet", 9, 1)]);
    packet.set_flags(PacketFlag::TRUNCATION);
    assert_eq!(read(&packet), Ok(Reading::Truncated));
}

#[test]
fn another_case_of_the_question_is_noticed() {
    let mut packet = reply(vec![a("nas.tailnet", 9, 1)]);
    packet.questions = vec![question("nas.Tailnet", TYPE::A)];
    assert_eq!(read(&packet), Ok(Reading::AnswerInOtherCase(v4(&[1], 9))));
}

#[test]
fn what_answers_somebody_or_something_else_is_not_taken() {
    let good = reply(vec![a("nas.tailnet", 9, 1)]);
    let mut other_id = good.clone();
    other_id.set_id(ID + 1);
    assert_eq!(read(&other_id), Err(NotTheAnswer::OtherId));
    let mut no_answer = good.clone();
    no_answer.remove_flags(PacketFlag::RESPONSE);
    assert_eq!(read(&no_answer), Err(NotTheAnswer::NoAnswer));
    let chaos = Question::new(Name::new("nas.tailnet").unwrap(), QTYPE::TYPE(TYPE::A), CLASS::CH.into(), false);
    let both = vec![question("nas.tailnet", TYPE::A), question("nas.tailnet", TYPE::A)];
    let others =
        [vec![question("nas.example", TYPE::A)], vec![question("nas.tailnet", TYPE::AAAA)], vec![chaos], both, vec![]];
    for questions in others {
        let mut other = good.clone();
        other.questions = questions;
        assert_eq!(read(&other), Err(NotTheAnswer::OtherQuestion), "{:?}", other.questions);
    }
}

#[test]
fn every_prefix_of_an_answer_is_malformed_and_the_whole_is_not() {
    let mut packet = reply(vec![cname("nas.tailnet", 9, "b.example"), a("b.example", 9, 1)]);
    packet.name_servers.push(soa(9, 9));
    let bytes = packet.build_bytes_vec_compressed().unwrap();
    for cut in 0..bytes.len() {
        assert_eq!(query(Family::V4).read(&bytes[..cut]), Err(NotTheAnswer::Malformed), "{cut} octets");
    }
    assert_eq!(query(Family::V4).read(&bytes), Ok(Reading::Answer(v4(&[1], 9))));
}

#[test]
fn counts_that_cannot_be_true_are_refused_unread() {
    let mut bytes = reply(vec![a("nas.tailnet", 9, 1)]).build_bytes_vec().unwrap();
    for count in [4, 6, 8, 10] {
        let kept = bytes[count];
        bytes[count] = 0xff;
        assert_eq!(check_header(&bytes), Err(NotTheAnswer::Malformed));
        bytes[count] = kept;
    }
    assert_eq!(check_header(&bytes), Ok(0));
}

#[test]
fn pointers_in_a_circle_or_forwards_are_malformed() {
    for pointer in [[0xc0, 12], [0xc0, 40], [0xff, 0xff], [0x40, 0]] {
        let mut bytes = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&pointer);
        bytes.extend_from_slice(&[0, 1, 0, 1]);
        bytes.resize(64, 0);
        assert_eq!(query(Family::V4).read(&bytes), Err(NotTheAnswer::Malformed), "{pointer:?}");
    }
}

/// Answers from which the fuzzer and the mutations below start.
fn samples() -> Vec<Vec<u8>> {
    let mut negative = reply(vec![]);
    negative.name_servers.push(soa(9, 9));
    let mut with_options = reply(vec![a("nas.tailnet", 9, 1)]);
    *with_options.opt_mut() = Some(simple_dns::rdata::OPT { opt_codes: vec![], udp_packet_size: 1232, version: 0 });
    let chain = reply(vec![cname("nas.tailnet", 9, "b.example"), a("b.example", 9, 1), a("b.example", 9, 2)]);
    [negative, with_options, chain].iter().map(|packet| packet.build_bytes_vec_compressed().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_break_the_laws(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::answer(&bytes);
    }

    #[test]
    fn no_damage_to_an_answer_breaks_the_laws(
        sample in 0_usize..3,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        grown in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = samples().swap_remove(sample);
        for (place, octet) in damage {
            let place = place.index(bytes.len());
            bytes[place] = octet;
        }
        bytes.extend(grown);
        fuzz::answer(&bytes);
    }
}
