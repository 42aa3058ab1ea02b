//! A lookup of one name: A and AAAA at once, joined into one list in the order of RFC 8305.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::cache::Known;
use super::client::Client;
use super::exchange::Fault;
use super::message::{Answer, Family};
use super::name::HostName;

/// How long the second answer may take after the first with addresses, until these are used alone (RFC 8305 section 3,
/// "Resolution Delay").
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

type Asked = Result<Answer, Fault>;

/// Asks for both kinds of addresses. `early` is told the addresses of one kind when the other kind is late; the result is
/// what both say, and for how long.
pub(crate) async fn look_up(
    client: &Client,
    servers: &[SocketAddr],
    host: &HostName,
    early: impl Fn(Known),
) -> (Known, Duration) {
    let mut asking_v6 = pin!(client.ask(servers, host, Family::V6));
    let mut asking_v4 = pin!(client.ask(servers, host, Family::V4));
    let (mut v6, mut v4): (Option<Asked>, Option<Asked>) = (None, None);
    let mut told = false;
    loop {
        if let (Some(v6), Some(v4)) = (&v6, &v4) {
            return join(v6, v4);
        }
        let first = [&v6, &v4].into_iter().flatten().find_map(addresses);
        let may_tell = first.is_some() && !told;
        tokio::select! {
            answer = &mut asking_v6, if v6.is_none() => v6 = Some(answer),
            answer = &mut asking_v4, if v4.is_none() => v4 = Some(answer),
            () = sleep(RESOLUTION_DELAY), if may_tell => {
                told = true;
                if let Some((found, _)) = first {
                    early(Known::Addresses(found.into()));
                }
            }
        }
    }
}

fn addresses(asked: &Asked) -> Option<(&[IpAddr], Duration)> {
    match asked {
        Ok(Answer::Addresses(found, ttl)) => Some((found, *ttl)),
        Ok(Answer::NoAddresses(_) | Answer::NoSuchName(_)) | Err(_) => None,
    }
}

/// What two answers say together. Addresses outweigh whatever the other answer says: servers exist that know no AAAA and
/// deny the name. Without addresses a failure outweighs a denial: the addresses may be where nobody answered.
fn join(v6: &Asked, v4: &Asked) -> (Known, Duration) {
    match (addresses(v6), addresses(v4)) {
        (Some((v6, ttl)), Some((v4, other))) => (Known::Addresses(interleave(v6, v4)), ttl.min(other)),
        (Some((found, ttl)), None) | (None, Some((found, ttl))) => (Known::Addresses(found.into()), ttl),
        (None, None) => match (v6, v4) {
            (_, Err(fault)) | (Err(fault), _) => (Known::Unanswered(*fault), Duration::ZERO),
            (Ok(v6), Ok(v4)) => join_denials(v6, v4),
        },
    }
}

fn join_denials(v6: &Answer, v4: &Answer) -> (Known, Duration) {
    let time = |answer: &Answer| match answer {
        Answer::Addresses(_, ttl) | Answer::NoAddresses(ttl) | Answer::NoSuchName(ttl) => *ttl,
    };
    let ttl = time(v6).min(time(v4));
    if matches!((v6, v4), (Answer::NoSuchName(_), _) | (_, Answer::NoSuchName(_))) {
        return (Known::NoSuchName, ttl);
    }
    (Known::NoAddresses, ttl)
}

/// IPv6 first, then in turn (RFC 8305 section 4, with a first family count of 1).
pub(crate) fn interleave(v6: &[IpAddr], v4: &[IpAddr]) -> Rc<[IpAddr]> {
    let turns = v6.len().max(v4.len());
    (0..turns).flat_map(|turn| [v6.get(turn), v4.get(turn)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn families_alternate_from_ipv6_on() {
        let v6 = ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(ip);
        let v4 = ["192.0.2.1"].map(ip);
        assert_eq!(*interleave(&v6, &v4), [v6[0], v4[0], v6[1], v6[2]]);
        assert_eq!(*interleave(&[], &v4), v4);
        assert_eq!(*interleave(&v6, &[]), v6);
    }

    #[test]
    fn two_answers_are_joined_so_that_addresses_win_and_doubt_is_not_denial() {
        let (six, four) = (ip("2001:db8::1"), ip("192.0.2.1"));
        let found = |address, ttl| Ok(Answer::Addresses(vec![address], seconds(ttl)));
        let known = |addresses: &[IpAddr]| Known::Addresses(addresses.into());
        let (none, gone, failed) =
            (Ok(Answer::NoAddresses(seconds(3))), Ok(Answer::NoSuchName(seconds(2))), Err(Fault::Silent));
        let cases = [
            (found(six, 9), found(four, 5), (known(&[six, four]), seconds(5))),
            (none.clone(), found(four, 5), (known(&[four]), seconds(5))),
            (gone.clone(), found(four, 5), (known(&[four]), seconds(5))),
            (failed.clone(), found(four, 5), (known(&[four]), seconds(5))),
            (found(six, 5), failed.clone(), (known(&[six]), seconds(5))),
            (none.clone(), none.clone(), (Known::NoAddresses, seconds(3))),
            (none.clone(), gone.clone(), (Known::NoSuchName, seconds(2))),
            (gone, failed.clone(), (Known::Unanswered(Fault::Silent), seconds(0))),
            (failed, none, (Known::Unanswered(Fault::Silent), seconds(0))),
        ];
        for (v6, v4, meant) in cases {
            assert_eq!(join(&v6, &v4), meant, "{v6:?} {v4:?}");
        }
    }
}
