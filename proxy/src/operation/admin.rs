//! What may be asked at the admin socket, and the answers: typed, one JSON value a line, without any transport.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::metrics;
use super::reload_told::ReloadTold;
use super::state::{State, Status};
use crate::succession;

/// Entries of one answer; more are asked for by page.
const MOST_ENTRIES: usize = 1_000;
/// The longest time for which a source is refused: ten years. What is to hold for ever stands in the configuration.
const LONGEST_DENIAL: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A request: `{"do":"deny","prefixes":["203.0.113.7"],"seconds":3600}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How is it?
    Status {},
    /// Who is here?
    Connections(Page),
    /// Refuse these sources for so long.
    Deny {
        /// Addresses or prefixes.
        prefixes: Vec<Prefix>,
        /// How long.
        seconds: u64,
    },
    /// Refuse these no more.
    Undeny {
        /// Addresses or prefixes, as they were added.
        prefixes: Vec<Prefix>,
    },
    /// Who is refused?
    Denied(Page),
    /// Read the configuration anew.
    Reload {},
    /// Take nothing new, and end when all has ended.
    Drain {},
    /// All counters.
    Metrics {},
    /// A new process of this program takes over: what follows on this connection is between the two.
    HandOver {
        /// By which version of the messages; one that this program does not know is refused.
        #[serde(default)]
        version: u32,
    },
}

/// A part of a long answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Entries to leave out.
    #[serde(default)]
    pub skip: usize,
    /// Entries to tell at most.
    #[serde(default = "most_entries")]
    pub most: usize,
}

const fn most_entries() -> usize {
    MOST_ENTRIES
}

/// An address or a prefix as a person writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(pub IpNet);

impl std::str::FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let found = address.or_else(|_| text.parse::<IpNet>());
        found.map(Self).map_err(|_| format!("{text:?} is neither an address nor a prefix such as 203.0.113.0/24"))
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An answer: an object with one key, which says what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Connections`].
    Connections(Vec<Active>),
    /// To [`Request::Denied`].
    Denied(Vec<Denied>),
    /// To [`Request::Deny`] and [`Request::Undeny`]: how many prefixes it concerned.
    Changed(usize),
    /// To [`Request::Metrics`].
    Metrics(String),
    /// To [`Request::Reload`].
    Reload(Box<ReloadTold>),
    /// What was asked for was done; in words.
    Done(String),
    /// It was not; why.
    Error(String),
}

/// A refused prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// Which.
    pub prefix: Prefix,
    /// How long it still is; for ever without.
    pub seconds: Option<u64>,
}

/// A connection or flow that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// As in the access log.
    pub unique_id: String,
    /// The listener's name.
    pub listener: String,
    /// `tcp` or `udp`.
    pub transport: String,
    /// Who sends the packets.
    pub peer: SocketAddr,
    /// Whom the peer speaks for.
    pub client: SocketAddr,
    /// Where the client wanted to.
    pub original_dst: SocketAddr,
    /// What was recognised.
    pub protocol: String,
    /// The name asked for.
    pub server_name: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The backend it led to.
    pub backend: Option<String>,
    /// The candidate that was connected to.
    pub target: Option<SocketAddr>,
    /// Payload from the client so far.
    pub bytes_in: u64,
    /// Payload to the client so far.
    pub bytes_out: u64,
    /// Since it began.
    pub age_us: u64,
}

/// What only the runtime can do: it has the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// [`Request::Connections`]; answered by [`Response::Connections`].
    Connections(Page),
    /// [`Request::Reload`]; answered when the new configuration is in use, or refused.
    Reload,
    /// [`Request::Drain`]; answered when it begins.
    Drain,
    /// [`Request::HandOver`]; not answered: the connection goes with it.
    HandOver,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Handled {
    /// It is answered.
    Answer(Response),
    /// It goes to the runtime.
    Order(Order),
}

/// Reads one line, without its line feed.
pub fn read(line: &[u8]) -> Result<Request, Response> {
    serde_json::from_slice(line).map_err(|fault| Response::Error(format!("not a request: {fault}")))
}

/// The line of an answer, with its line feed.
#[must_use]
pub fn write(response: &Response) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(response).unwrap_or_else(|_| b"{\"error\":\"the answer cannot be written\"}".to_vec());
    line.push(b'\n');
    line
}

/// Answers, or says who can.
pub fn handle(request: Request, state: &mut State, now: Instant) -> Handled {
    Handled::Answer(match request {
        Request::Status {} => Response::Status(Box::new(state.status(now))),
        Request::Connections(page) => return Handled::Order(Order::Connections(bounded(page))),
        Request::Deny { prefixes, seconds } => deny(&prefixes, seconds, state, now),
        Request::Undeny { prefixes } => Response::Changed(state.deny.undeny(&nets(&prefixes))),
        Request::Denied(page) => denied(bounded(page), state, now),
        Request::Reload {} => return Handled::Order(Order::Reload),
        Request::Drain {} => return Handled::Order(Order::Drain),
        Request::Metrics {} => Response::Metrics(metrics::render(state, now)),
        Request::HandOver { version: succession::VERSION } => return Handled::Order(Order::HandOver),
        Request::HandOver { version } => Response::Error(format!(
            "the running edgeproxy {} hands over by version {} of the messages, not {version}: restart it instead",
            env!("CARGO_PKG_VERSION"),
            succession::VERSION,
        )),
    })
}

fn bounded(page: Page) -> Page {
    Page { most: page.most.min(MOST_ENTRIES), ..page }
}

fn nets(prefixes: &[Prefix]) -> Vec<IpNet> {
    prefixes.iter().map(|prefix| prefix.0).collect()
}

fn deny(prefixes: &[Prefix], seconds: u64, state: &mut State, now: Instant) -> Response {
    let lasting = Duration::from_secs(seconds);
    let until = now.checked_add(lasting).filter(|_| !lasting.is_zero() && lasting <= LONGEST_DENIAL);
    let Some(until) = until else {
        return Response::Error(format!("{seconds} seconds: 1 to {} are allowed", LONGEST_DENIAL.as_secs()));
    };
    match state.deny.deny(&nets(prefixes), until, now) {
        Ok(()) => Response::Changed(prefixes.len()),
        Err(full) => Response::Error(full.to_string()),
    }
}

fn denied(page: Page, state: &State, now: Instant) -> Response {
    let entries = state.deny.denied(now).skip(page.skip).take(page.most);
    // Rounded up: an entry that is told still holds.
    let seconds = |left: Duration| left.as_secs() + u64::from(left.subsec_nanos() > 0);
    Response::Denied(
        entries.map(|(prefix, left)| Denied { prefix: Prefix(prefix), seconds: left.map(seconds) }).collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;
    use serde_json::{json, Value};

    use super::super::deny::DenyList;
    use super::super::ledger::Names;
    use super::*;
    use crate::config::model::{ListenerId, Transport};

    fn state(now: Instant) -> State {
        State::new(DenyList::new(&["10.0.0.0/8".parse().unwrap()]), None, 2, (now, SystemTime::now()))
    }

    fn answer(line: &str, state: &mut State, now: Instant) -> Value {
        let response = match read(line.as_bytes()) {
            Err(response) => response,
            Ok(request) => match handle(request, state, now) {
                Handled::Answer(response) => response,
                Handled::Order(order) => panic!("{order:?}"),
            },
        };
        serde_json::from_slice(&write(&response)).unwrap()
    }

    #[test]
    fn sources_are_denied_listed_and_let_in_again() {
        let now = Instant::now();
        let mut state = state(now);
        let mut reader = state.deny.reader();
        let line = r#"{"do":"deny","prefixes":["203.0.113.7","2001:db8::/48"],"seconds":60}"#;
        assert_eq!(answer(line, &mut state, now), json!({"changed": 2}));
        assert!(reader.is_denied("2001:db8::9".parse().unwrap(), now));
        let later = now + Duration::from_millis(500);
        let expected = json!({"denied": [
            {"prefix": "10.0.0.0/8", "seconds": null},
            {"prefix": "203.0.113.7/32", "seconds": 60},
            {"prefix": "2001:db8::/48", "seconds": 60},
        ]});
        assert_eq!(answer(r#"{"do":"denied"}"#, &mut state, later), expected);
        let page = answer(r#"{"do":"denied","skip":1,"most":1}"#, &mut state, later);
        assert_eq!(page, json!({"denied": [{"prefix": "203.0.113.7/32", "seconds": 60}]}));
        let line = r#"{"do":"undeny","prefixes":["203.0.113.7","192.0.2.1"]}"#;
        assert_eq!(answer(line, &mut state, now), json!({"changed": 1}));
        assert!(!reader.is_denied("203.0.113.7".parse().unwrap(), now));
    }

    #[test]
    fn a_denial_lasts_for_something_between_a_second_and_ten_years() {
        let now = Instant::now();
        for seconds in ["0", "315360001", "18446744073709551615"] {
            let line = format!(r#"{{"do":"deny","prefixes":["192.0.2.1"],"seconds":{seconds}}}"#);
            let answer = answer(&line, &mut state(now), now);
            assert!(answer["error"].as_str().unwrap().contains("1 to 315360000"), "{answer}");
        }
    }

    #[test]
    fn status_and_metrics_tell_what_was_counted() {
        let now = Instant::now();
        let mut state = state(now);
        let names = Names { listeners: vec!["web".to_owned()], ..Names::default() };
        let workers = state.ledger.begin(names, 1);
        workers[0].opened(ListenerId(0), Transport::Udp);
        state.reload_failures = 3;
        let status = answer(r#"{"do":"status"}"#, &mut state, now + Duration::from_secs(2));
        let status = &status["status"];
        assert_eq!((&status["uptime_us"], &status["workers"]), (&json!(2_000_000), &json!(2)));
        assert_eq!((&status["denied"], &status["reload_failures"]), (&json!(1), &json!(3)));
        assert_eq!(status["listeners"][0]["udp"]["active"], 1);
        let text = answer(r#"{"do":"metrics"}"#, &mut state, now);
        assert!(text["metrics"].as_str().unwrap().contains("edgeproxy_active{listener=\"web\",transport=\"udp\"} 1\n"));
    }

    #[test]
    fn what_needs_the_workers_goes_to_the_runtime() {
        let now = Instant::now();
        let page = |skip, most| Order::Connections(Page { skip, most });
        for (line, order) in [
            (r#"{"do":"connections"}"#, page(0, 1_000)),
            (r#"{"do":"connections","skip":5,"most":99999}"#, page(5, 1_000)),
            (r#"{"do":"connections","most":7}"#, page(0, 7)),
            (r#"{"do":"reload"}"#, Order::Reload),
            (r#"{"do":"drain"}"#, Order::Drain),
            (r#"{"do":"hand_over","version":2}"#, Order::HandOver),
        ] {
            assert_eq!(handle(read(line.as_bytes()).unwrap(), &mut state(now), now), Handled::Order(order), "{line}");
        }
    }

    #[test]
    fn a_version_that_is_not_known_is_handed_nothing() {
        let now = Instant::now();
        for line in [r#"{"do":"hand_over"}"#, r#"{"do":"hand_over","version":1}"#] {
            let answer = answer(line, &mut state(now), now);
            assert!(answer["error"].as_str().unwrap().contains("by version 2 of the messages"), "{answer}");
        }
    }

    #[test]
    fn what_is_no_request_is_answered_with_the_fault() {
        let now = Instant::now();
        for line in [
            "",
            "{}",
            "[]",
            "null",
            "{\"do\":\"dance\"}",
            "{\"do\":\"deny\",\"seconds\":1}",
            "{\"do\":\"deny\",\"prefixes\":[\"300.0.0.1\"],\"seconds\":1}",
            "{\"do\":\"deny\",\"prefixes\":[\"10.0.0.0/33\"],\"seconds\":1}",
            "{\"do\":\"deny\",\"prefixes\":[],\"seconds\":-1}",
            "{\"do\":\"status\",\"loud\":true}",
            "{\"do\":\"denied\",\"mots\":3}",
            "{\"do\":\"status\"}{\"do\":\"drain\"}",
            "\u{0}",
        ] {
            assert!(answer(line, &mut state(now), now)["error"].is_string(), "{line}");
        }
        assert!(read(b"{\"do\":\"\xff\"}").is_err());
        let nested = "[".repeat(100_000);
        assert!(read(nested.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_gets_one_line(line in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Err(response) = read(&line) {
                let answer = write(&response);
                prop_assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 1);
            }
        }
    }
}
