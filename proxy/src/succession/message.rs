//! What the two processes say to each other: typed, one JSON value a line, each with as many descriptors as it says.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hop::Inherited;
use crate::listening::Endpoint;
use crate::operation::admin::Prefix;
use crate::udp::flow::handover::FlowState;

/// Of these messages. A program that says or understands anything else has another one; but a field that may be missing, and
/// without which a flow goes on, needs none: whoever does not know it passes over it.
pub(crate) const VERSION: u32 = 2;

/// Bytes of a line: a flow that holds its first datagrams, up to `limits.preface_bytes`, is the longest.
pub(crate) const LONGEST_LINE: usize = 8 << 20;

/// What the running process says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bequeathed {
    /// Sockets of an endpoint, in order; several of these where they do not go into one message.
    Sockets {
        endpoint: Endpoint,
        count: usize,
    },
    AdminSocket {
        path: PathBuf,
    },
    Metrics {
        address: SocketAddr,
    },
    /// The channel of the rule keeper, and what was heard of a report that is not whole.
    Keeper {
        heard: Vec<u8>,
    },
    /// That was all that is open.
    OfferEnds,
    /// UDP flows, and what is remembered of others.
    Flows(Vec<FlowState>),
    /// A source that was denied at the admin socket, for so long still.
    Denied {
        prefix: Prefix,
        milliseconds: u64,
    },
    /// Of one key, by its name: since when these are all that were taken, and each. No process that knows nothing of keys is
    /// sent it by one that has none, so it needs no other version.
    Signatures(Inherited),
    /// That was all there is.
    Over,
    /// Nothing is handed over; why.
    Error(String),
}

impl Bequeathed {
    /// How many descriptors come with it.
    pub(crate) fn descriptors(&self) -> usize {
        match self {
            Self::Sockets { count, .. } => *count,
            Self::AdminSocket { .. } | Self::Metrics { .. } | Self::Keeper { .. } => 1,
            Self::Flows(flows) => flows.iter().filter(|flow| flow.is_open()).count(),
            Self::OfferEnds | Self::Denied { .. } | Self::Signatures(_) | Self::Over | Self::Error(_) => 0,
        }
    }
}

/// What the new process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It has started, and goes on with these.
    Taken(Taken),
    /// It listens.
    Serving,
}

/// What of the offer the new process uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Taken {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) admin_socket: bool,
}

/// Reads one line, without its line feed.
pub(crate) fn read<M: DeserializeOwned>(line: &[u8]) -> Result<M, String> {
    serde_json::from_slice(line).map_err(|fault| format!("not understood: {fault}"))
}

/// The line of a message, with its line feed.
pub(crate) fn write(message: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut line = serde_json::to_vec(message).map_err(|fault| fault.to_string())?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{Arrival, Transport};
    use crate::operation::outcomes::HeaderIn;
    use crate::udp::flow::handover::{Gate, Stage};
    use crate::udp::table::FlowKey;
    use crate::wire::udp_preface::PeerFraming;

    fn endpoint() -> Endpoint {
        Endpoint::new(Transport::Tcp, "[2001:db8::1]:443".parse().unwrap(), Arrival::Tproxy)
    }

    fn remembered() -> FlowState {
        let FlowState { gate, key, framing, last_header, .. } = FlowState::sample(false);
        FlowState::remembered(gate, (key.peer, key.hit), (framing, last_header), Duration::from_secs(3))
    }

    fn all() -> Vec<Bequeathed> {
        vec![
            Bequeathed::Sockets { endpoint: endpoint(), count: 3 },
            Bequeathed::AdminSocket { path: "/run/edgeproxy/admin.sock".into() },
            Bequeathed::Metrics { address: "127.0.0.1:9100".parse().unwrap() },
            Bequeathed::Keeper { heard: b"\"inst".to_vec() },
            Bequeathed::OfferEnds,
            Bequeathed::Flows([true, false, true].map(FlowState::sample).to_vec()),
            Bequeathed::Flows(vec![FlowState::sample(false)]),
            Bequeathed::Flows(vec![remembered(), FlowState::sample(true), remembered()]),
            Bequeathed::Denied { prefix: "203.0.113.0/24".parse().unwrap(), milliseconds: 1 },
            Bequeathed::Signatures(([7; 16], 1_790_000_000_000, vec![(1_790_000_000_001, [255; 16])])),
            Bequeathed::Over,
            Bequeathed::Error("no\nmore".to_owned()),
        ]
    }

    #[test]
    fn what_is_written_is_read_and_is_one_line() {
        for message in all() {
            let line = write(&message).unwrap();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(read::<Bequeathed>(&line[..line.len() - 1]).unwrap(), message);
        }
        let taken = Answer::Taken(Taken { endpoints: vec![endpoint()], admin_socket: true });
        for answer in [taken, Answer::Serving] {
            let line = write(&answer).unwrap();
            assert_eq!(read::<Answer>(&line).unwrap(), answer);
        }
    }

    #[test]
    fn each_says_how_many_descriptors_it_has() {
        let counts: Vec<_> = all().iter().map(Bequeathed::descriptors).collect();
        assert_eq!(counts, [3, 1, 1, 1, 0, 2, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_refusal_of_the_admin_socket_is_one_of_these() {
        let refusal = crate::operation::admin::write(&crate::operation::admin::Response::Error("busy".to_owned()));
        assert_eq!(read::<Bequeathed>(&refusal).unwrap(), Bequeathed::Error("busy".to_owned()));
    }

    #[test]
    fn no_beginning_of_a_message_is_one() {
        for message in all() {
            let line = write(&message).unwrap();
            for end in 0..line.len() - 1 {
                assert!(read::<Bequeathed>(&line[..end]).is_err(), "{end} bytes of {message:?}");
            }
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for line in [
            "{}",
            "\"sockets\"",
            "{\"sockets\":{\"endpoint\":{},\"count\":1}}",
            "{\"sockets\":{\"count\":-1}}",
            "{\"flow\":[]}",
            "{\"flows\":[{}]}",
            "{\"metrics\":{\"address\":\"home:1\"}}",
            "{\"over\":1}",
            "null",
        ] {
            assert!(read::<Bequeathed>(line.as_bytes()).is_err(), "{line}");
        }
        assert!(read::<Answer>(b"{\"taken\":{\"endpoints\":[],\"admin_socket\":true,\"more\":1}}").is_err());
    }

    /// As in [`FlowState`] of the first program with this [`VERSION`].
    #[derive(Debug, Deserialize)]
    struct OldFlowState {
        gate: Gate,
        key: FlowKey,
        framing: PeerFraming,
        last_header: Option<(SocketAddr, SocketAddr)>,
        reply_prefix: Option<Box<[u8]>>,
        header_in: HeaderIn,
        stage: Stage,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum OldBequeathed {
        Flows(Vec<OldFlowState>),
    }

    #[test]
    fn an_older_heir_reads_flows_and_passes_over_what_it_does_not_know() {
        let states = [FlowState::sample(true), FlowState::sample(false), remembered()];
        let line = write(&Bequeathed::Flows(states.to_vec())).unwrap();
        let OldBequeathed::Flows(read) = read(&line).unwrap();
        assert_eq!(read.len(), states.len());
        for (old, state) in read.into_iter().zip(states) {
            let OldFlowState { gate, key, framing, last_header, reply_prefix, header_in, stage } = old;
            let known = FlowState { gate, key, framing, last_header, reply_prefix, header_in, unique_id: None, stage };
            assert_eq!(known, FlowState { unique_id: None, ..state });
        }
    }

    #[test]
    fn flows_of_an_older_program_are_read() {
        let state = FlowState { unique_id: None, ..FlowState::sample(false) };
        let line = write(&Bequeathed::Flows(vec![state.clone()])).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains("unique_id"), "it has none either");
        assert_eq!(read::<Bequeathed>(&line).unwrap(), Bequeathed::Flows(vec![state]));
    }

    proptest! {
        #[test]
        fn bytes_are_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read::<Bequeathed>(&line);
            let _ = read::<Answer>(&line);
        }
    }
}
