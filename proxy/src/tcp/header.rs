//! The PROXY header of a trusted peer: read to its end in whatever pieces it comes, under one deadline.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;
use tokio::time::{timeout_at, Instant};

use crate::config::model::HeaderPolicy;
use crate::generation::HeaderRule;
use crate::hop::Coming;
use crate::operation::outcomes::HeaderIn;
use crate::operation::{CloseReason, Limit};
use crate::wire::header::{Command, ProxyHeader};
use crate::wire::proxy_header::{detect_and_parse, StreamRefusal};
use crate::wire::tlv::Tlvs;
use crate::wire::{proxy_v1, proxy_v2, Parse};

use super::preface::Hold;
use super::scratch::Scratch;

/// What the beginning of a connection told.
#[derive(Debug)]
pub(crate) struct Introduced {
    /// What became of the header.
    pub(crate) outcome: HeaderIn,
    /// Client and original destination, if the header names them.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// The identifier that the peer gave the connection.
    pub(crate) unique_id: Option<Box<[u8]>>,
    /// What else the header says.
    pub(crate) tlvs: Tlvs,
    /// The peer speaks for nobody.
    pub(crate) is_peers_own: bool,
    /// What was read beyond the header.
    pub(crate) leftover: Vec<u8>,
    /// The client has ended its side.
    pub(crate) has_ended: bool,
}

/// Who must speak for others and says nothing at all wanted to know whether somebody is here; who may come for itself is a
/// client that left.
fn left(policy: HeaderPolicy, bytes: &[u8]) -> (CloseReason, HeaderIn) {
    let is_check = policy == HeaderPolicy::Require && bytes.is_empty();
    let reason = if is_check { CloseReason::HealthCheck } else { CloseReason::ClientLeftEarly };
    (reason, HeaderIn::Absent)
}

/// Waiting for the header has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) header: Instant,
    /// Without a byte until then, an optional header is none: the client waits for the server.
    pub(crate) silence: Instant,
}

/// Reads the header as the rule asks; `bytes` is what was read before. A peer that may send one but says nothing until `silence` is
/// taken for a client that waits for the server. Of whoever must sign its header one that is not signed is refused, also where
/// it is optional: as payload it might be believed by the backend.
///
/// # Errors
///
/// Why the connection is refused, with what became of its header.
pub(crate) async fn read(
    stream: &mut TcpStream,
    mut bytes: Vec<u8>,
    (rule, peer): (HeaderRule<'_>, IpAddr),
    deadlines: Deadlines,
    scratch: &Scratch,
) -> Result<Introduced, (CloseReason, HeaderIn)> {
    let mut held = Hold::nothing(scratch);
    let policy = rule.policy;
    loop {
        match detect_and_parse(&bytes) {
            Parse::Done { value, consumed } => {
                let is_v1 = bytes.starts_with(proxy_v1::BEGINNING);
                if let (Some(ring), Some(header)) = (rule.ring, bytes.get(..consumed)) {
                    let judged = ring.judge(header, Coming::Once, peer);
                    judged.map_err(|fault| (CloseReason::HeaderSignature(fault), fault.into()))?;
                }
                bytes.drain(..consumed);
                return Ok(introduced(value, is_v1, bytes));
            }
            Parse::Refuse(StreamRefusal::NotAHeader) => return without(policy, bytes, false),
            Parse::Refuse(broken @ StreamRefusal::Broken(_)) => {
                return Err((CloseReason::HeaderBroken(broken.label()), HeaderIn::Broken));
            }
            Parse::NeedMore => {}
        }
        if !held.grow_to(bytes.len()) {
            return Err((CloseReason::OverLimit(Limit::PrefaceMemory), HeaderIn::Absent));
        }
        match more(stream, &mut bytes, policy, &deadlines, scratch).await {
            Ok(0) if bytes.is_empty() && policy == HeaderPolicy::Require => return Err(left(policy, &bytes)),
            Ok(0) => return without(policy, bytes, true),
            Ok(_) => {}
            Err(Waited::Silent) => return without(policy, bytes, false),
            Err(Waited::TooLong) => return Err((CloseReason::HeaderTimeout, HeaderIn::TimedOut)),
            Err(Waited::Failed) => return Err(left(policy, &bytes)),
        }
    }
}

enum Waited {
    Silent,
    TooLong,
    Failed,
}

async fn more(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    policy: HeaderPolicy,
    deadlines: &Deadlines,
    scratch: &Scratch,
) -> Result<usize, Waited> {
    let may_be_silent = policy == HeaderPolicy::Optional && bytes.is_empty();
    let (deadline, end) = if may_be_silent {
        (deadlines.silence.min(deadlines.header), Waited::Silent)
    } else {
        (deadlines.header, Waited::TooLong)
    };
    // A header and what a first segment holds beside it; what is longer waits in the kernel.
    let reading = scratch.read(stream, proxy_v2::MAX_LENGTH, |more| bytes.extend_from_slice(more));
    match timeout_at(deadline, reading).await {
        Ok(Ok(count)) => Ok(count),
        Ok(Err(_)) => Err(Waited::Failed),
        Err(_) => Err(end),
    }
}

fn without(policy: HeaderPolicy, leftover: Vec<u8>, has_ended: bool) -> Result<Introduced, (CloseReason, HeaderIn)> {
    match policy {
        HeaderPolicy::Require => Err((CloseReason::HeaderMissing, HeaderIn::Missing)),
        HeaderPolicy::Optional | HeaderPolicy::Never => {
            let (outcome, tlvs) = (HeaderIn::Absent, Tlvs::default());
            Ok(Introduced { outcome, addresses: None, unique_id: None, tlvs, is_peers_own: false, leftover, has_ended })
        }
    }
}

fn introduced(header: ProxyHeader, is_v1: bool, leftover: Vec<u8>) -> Introduced {
    let addresses = header.addresses;
    let outcome = match (addresses, is_v1) {
        (None, _) => HeaderIn::Local,
        (Some(_), true) => HeaderIn::V1,
        (Some(_), false) => HeaderIn::V2,
    };
    let unique_id = header.tlvs.unique_id().map(Into::into);
    // Of version 1 UNKNOWN: it was once meant for checks.
    let is_peers_own = header.command == Command::Local || is_v1 && addresses.is_none();
    Introduced { outcome, addresses, unique_id, tlvs: header.tlvs, is_peers_own, leftover, has_ended: false }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as Blocking};
    use std::time::Duration;

    use super::*;
    use crate::config::model::HeaderFraming;
    use crate::tcp::scratch::PREFACE_BUDGET;

    /// What is read of a peer that says `said`, and then nothing.
    async fn heard(said: &[u8], policy: HeaderPolicy) -> Result<Introduced, (CloseReason, HeaderIn)> {
        heard_beside(&Scratch::new(), said, policy).await
    }

    async fn heard_beside(
        scratch: &Scratch,
        said: &[u8],
        policy: HeaderPolicy,
    ) -> Result<Introduced, (CloseReason, HeaderIn)> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let mut peer = Blocking::connect(listener.local_addr().expect("bound")).expect("a connection");
        peer.write_all(said).expect("sent");
        let (stream, _) = listener.accept().expect("accepted");
        stream.set_nonblocking(true).expect("non-blocking");
        let mut stream = TcpStream::from_std(stream).expect("registered");
        let deadline = Instant::now() + Duration::from_secs(60);
        let deadlines = Deadlines { header: deadline, silence: deadline };
        let rule = HeaderRule { policy, framing: HeaderFraming::default(), ring: None };
        read(&mut stream, Vec::new(), (rule, IpAddr::from([127, 0, 0, 1])), deadlines, scratch).await
    }

    #[tokio::test]
    async fn the_form_of_a_header_is_told_apart() {
        let (client, destination) = ("203.0.113.7:1".parse().unwrap(), "192.0.2.1:2".parse().unwrap());
        let bare = proxy_v2::Fields::bare(proxy_v2::Announced::Stream, client, destination).build();
        let text = proxy_v1::build(client, destination);
        for (header, form) in [(bare, HeaderIn::V2), (text, HeaderIn::V1)] {
            let introduced = heard(&header, HeaderPolicy::Require).await.expect("a header");
            assert_eq!((introduced.outcome, introduced.addresses), (form, Some((client, destination))));
        }
    }

    /// Half of a header that says it is this long.
    fn half_a_header(length: u16) -> Vec<u8> {
        let endpoint = "192.0.2.1:2".parse().expect("an endpoint");
        let mut header = proxy_v2::Fields::bare(proxy_v2::Announced::Stream, endpoint, endpoint).build();
        header[14..16].copy_from_slice(&length.to_be_bytes());
        header.resize(usize::from(length) / 2, 0);
        header
    }

    #[tokio::test]
    async fn the_bytes_of_an_unfinished_header_are_kept_ones_until_its_connection_has_ended() {
        let (scratch, half) = (Scratch::new(), half_a_header(4_000));
        let counted = async {
            while scratch.kept() < half.len() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = heard_beside(&scratch, &half, HeaderPolicy::Require) => panic!("it did not count"),
            () = counted => {}
        }
        assert_eq!(scratch.kept(), 0, "it has gone");
    }

    #[tokio::test]
    async fn whoever_is_not_done_with_its_header_is_refused_when_too_many_bytes_are_kept() {
        let scratch = Scratch::new();
        scratch.keep(PREFACE_BUDGET - 100);
        let refused = heard_beside(&scratch, &half_a_header(4_000), HeaderPolicy::Require).await.expect_err("too many");
        assert_eq!(refused, (CloseReason::OverLimit(Limit::PrefaceMemory), HeaderIn::Absent));
        assert_eq!(scratch.kept(), PREFACE_BUDGET - 100);
        let (client, destination) = ("203.0.113.7:1".parse().unwrap(), "192.0.2.1:2".parse().unwrap());
        let whole = proxy_v2::Fields::bare(proxy_v2::Announced::Stream, client, destination).build();
        assert!(heard_beside(&scratch, &whole, HeaderPolicy::Require).await.is_ok(), "it is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_send_a_header_and_says_nothing_at_all_is_a_client_that_waits() {
        let introduced = heard(b"", HeaderPolicy::Optional).await.expect("no header is needed");
        assert_eq!(introduced.outcome, HeaderIn::Absent);
        let begun = heard(b"PRO", HeaderPolicy::Optional).await.expect_err("half a header");
        assert_eq!(begun, (CloseReason::HeaderTimeout, HeaderIn::TimedOut));
        let silent = heard(b"", HeaderPolicy::Require).await.expect_err("a header is needed");
        assert_eq!(silent, (CloseReason::HeaderTimeout, HeaderIn::TimedOut));
    }
}
