//! Servers that lie, stutter, or say nothing.

use std::time::Duration;

use edgeproxy::config::model::Resolver;
use edgeproxy::names::{Fault, NameError};
use simple_dns::{Name, PacketFlag};
use tokio::net::UdpSocket;

use crate::fixture::{ask, local, names, settings, BRIEF, ENOUGH};
use crate::liar::{Asked, Liar};

const TRUE: &str = "192.0.2.1";
/// Nothing on this machine listens there.
const CLOSED: &str = "127.253.7.9:53";

fn truth(asked: &Asked) -> Vec<u8> {
    asked.addresses(60, &[TRUE])
}

fn forged(asked: &Asked) -> Vec<u8> {
    asked.addresses(60, &["203.0.113.66", "2001:db8::66"])
}

/// What comes of a server that says `lie` before the truth.
fn told(lie: fn(&Asked) -> Vec<u8>) {
    local(async {
        let liar = Liar::start(move |asked| vec![lie(asked), truth(asked)]).await;
        assert_eq!(ask(&names(&settings(&[liar.address])), "nas.test").await.unwrap(), [TRUE]);
        assert!(liar.heard().iter().all(|asked| !asked.over_tcp));
    });
}

#[test]
fn an_answer_with_another_id_is_passed_over() {
    told(|asked| {
        let mut lie = forged(asked);
        lie[0] ^= 1;
        lie
    });
}

#[test]
fn an_answer_to_another_question_is_passed_over() {
    told(|asked| {
        let other = Asked { name: "evil.test".into(), ..asked.clone() };
        other.reply(|packet| packet.questions[0].qname = Name::new("evil.test").unwrap())
    });
}

#[test]
fn the_query_itself_is_no_answer() {
    told(|asked| asked.bytes.clone());
}

#[test]
fn garbage_and_emptiness_are_passed_over() {
    told(|asked| asked.bytes[..2].to_vec());
    told(|_| vec![]);
    told(|asked| [&asked.bytes[..4], &[0xff; 200]].concat());
}

#[test]
fn pointers_in_a_circle_are_passed_over() {
    told(|asked| {
        let mut lie = asked.reply(|_| {});
        lie[7] = 2; // answers
        let here = u8::try_from(lie.len()).unwrap();
        lie.extend_from_slice(&[0xc0, here + 16, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 66]);
        lie.extend_from_slice(&[0xc0, here, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 66]);
        lie
    });
}

#[test]
fn a_query_has_its_own_port_and_answers_from_other_hosts_never_arrive() {
    local(async {
        let liar = Liar::start(|_| vec![]).await;
        let patient = Resolver { timeout: BRIEF, ..settings(&[liar.address]) };
        let asking = tokio::task::spawn_local(async move { ask(&names(&patient), "nas.test").await });
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        while !asking.is_finished() {
            for asked in liar.heard() {
                let _ = stranger.send_to(&forged(&asked), asked.from).await;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(asking.await.unwrap(), Err(NameError::Unanswered(Fault::Silent)));
        let mut ports: Vec<u16> = liar.heard().iter().map(|asked| asked.from.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), liar.heard().len(), "a fresh socket each time");
        assert_eq!(ports.len(), 4, "two kinds of addresses, asked for twice");
    });
}

#[test]
fn ids_differ_and_letters_are_capitals_at_random() {
    local(async {
        let liar = Liar::start(|asked| vec![truth(asked)]).await;
        let names = names(&settings(&[liar.address]));
        for number in 0..8 {
            ask(&names, &format!("a-rather-long-name-{number}.test")).await.unwrap();
        }
        let heard = liar.heard();
        let mut ids: Vec<&[u8]> = heard.iter().map(|asked| &asked.bytes[..2]).collect();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() > 12, "of 16 queries {} ids", ids.len());
        let capitals = |asked: &Asked| asked.name.bytes().any(|byte| byte.is_ascii_uppercase());
        assert!(heard.iter().all(capitals));
    });
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    local(async {
        let liar = Liar::start(|asked| {
            let truncated = |packet: &mut simple_dns::Packet<'_>| packet.set_flags(PacketFlag::TRUNCATION);
            vec![if asked.over_tcp { truth(asked) } else { asked.reply(truncated) }]
        });
        let liar = liar.await;
        assert_eq!(ask(&names(&settings(&[liar.address])), "nas.test").await.unwrap(), [TRUE]);
        assert_eq!(liar.heard().iter().filter(|asked| asked.over_tcp).count(), 2);
    });
}

#[test]
fn a_server_that_changes_the_letters_is_believed_over_tcp_only() {
    local(async {
        let liar = Liar::start(|asked| {
            if asked.over_tcp {
                return vec![truth(asked)];
            }
            let mut lie = forged(asked);
            let letters = lie.iter_mut().skip(12).take(asked.name.len());
            letters.for_each(|byte| byte.make_ascii_lowercase());
            vec![lie]
        });
        let liar = liar.await;
        let name = "a-name-with-many-letters-that-can-be-capitals.test";
        assert_eq!(ask(&names(&settings(&[liar.address])), name).await.unwrap(), [TRUE]);
    });
}

#[test]
fn a_flood_of_wrong_answers_ends_in_tcp() {
    local(async {
        let liar = Liar::start(|asked| {
            if asked.over_tcp {
                return vec![truth(asked)];
            }
            let mut lie = forged(asked);
            lie[0] ^= 1;
            vec![lie; 16]
        });
        let liar = liar.await;
        assert_eq!(ask(&names(&settings(&[liar.address])), "nas.test").await.unwrap(), [TRUE]);
    });
}

#[test]
fn what_is_no_answer_over_tcp_is_none() {
    let says: [fn(&Asked) -> Vec<u8>; 4] = [
        |asked| [0, 1].iter().chain(&truth(asked)[2..]).copied().collect(),
        |_| vec![0xff; 0x5000],
        |_| vec![],
        |asked| asked.reply(|packet| packet.set_flags(PacketFlag::TRUNCATION)),
    ];
    for say in says {
        local(async {
            let liar = Liar::start(move |asked| {
                let truncated = |packet: &mut simple_dns::Packet<'_>| packet.set_flags(PacketFlag::TRUNCATION);
                vec![if asked.over_tcp { say(asked) } else { asked.reply(truncated) }]
            });
            let liar = liar.await;
            let found = ask(&names(&settings(&[liar.address])), "nas.test").await;
            assert_eq!(found, Err(NameError::Unanswered(Fault::Unreadable)));
        });
    }
}

#[test]
fn the_next_server_is_asked_after_failure_refusal_silence_and_a_closed_port() {
    type Says = fn(&Asked) -> Vec<Vec<u8>>;
    let says: [Says; 4] =
        [|asked| vec![asked.code(2, 60)], |asked| vec![asked.code(5, 60)], |asked| vec![asked.code(1, 60)], |_| vec![]];
    for say in says {
        local(async {
            let (bad, good) = (Liar::start(say).await, Liar::start(|asked| vec![truth(asked)]).await);
            let settings = Resolver { timeout: ENOUGH, ..settings(&[bad.address, good.address]) };
            assert_eq!(ask(&names(&settings), "nas.test").await.unwrap(), [TRUE]);
            assert_eq!(bad.counts(), (1, 1));
        });
    }
    local(async {
        let good = Liar::start(|asked| vec![truth(asked)]).await;
        assert_eq!(ask(&names(&settings(&[CLOSED.parse().unwrap(), good.address])), "nas.test").await.unwrap(), [TRUE]);
    });
}

#[test]
fn an_answer_that_denies_the_name_is_an_answer() {
    local(async {
        let denying = Liar::start(|asked| vec![asked.code(3, 60)]).await;
        let good = Liar::start(|asked| vec![truth(asked)]).await;
        let names = names(&settings(&[denying.address, good.address]));
        assert_eq!(ask(&names, "nas.test").await, Err(NameError::NoSuchName));
        assert_eq!(good.counts(), (0, 0));
    });
}

#[test]
fn a_lost_datagram_is_sent_again() {
    local(async {
        let seen = std::cell::Cell::new(0);
        let liar = Liar::start(move |asked| {
            seen.set(seen.get() + 1);
            if seen.get() > 2 {
                vec![truth(asked)]
            } else {
                vec![]
            }
        });
        let liar = liar.await;
        let settings = Resolver { timeout: ENOUGH, ..settings(&[liar.address]) };
        assert_eq!(ask(&names(&settings), "nas.test").await.unwrap(), [TRUE]);
        assert_eq!(liar.counts(), (2, 2));
    });
}

#[test]
fn a_server_that_was_silent_is_not_asked_first_again() {
    local(async {
        let (silent, good) = (Liar::start(|_| vec![]).await, Liar::start(|asked| vec![truth(asked)]).await);
        let names = names(&Resolver { timeout: ENOUGH, ..settings(&[silent.address, good.address]) });
        for name in ["a.test", "b.test", "c.test"] {
            assert_eq!(ask(&names, name).await.unwrap(), [TRUE]);
        }
        assert_eq!(silent.counts(), (1, 1));
        crate::fixture::pass(Duration::from_secs(31)).await;
        assert_eq!(ask(&names, "d.test").await.unwrap(), [TRUE]);
        assert_eq!(silent.counts(), (2, 2));
    });
}
