//! What must hold for any bytes that come from beside: at the admin socket, at the port of the metrics, and from another
//! process of this program; the bodies of fuzz targets.

use std::time::{Instant, SystemTime};

use serde::de::DeserializeOwned;
use serde::Serialize;

use super::admin::{self, Handled, Request};
use super::deny::DenyList;
use super::metrics_http;
use super::state::State;
use crate::succession::message::{self, Answer, Bequeathed};

/// A line at the admin socket: it is answered by one line, and what was understood can be said again.
///
/// # Panics
/// When that does not hold.
pub fn admin_request(bytes: &[u8]) {
    let now = Instant::now();
    let mut state = State::new(DenyList::new(&[]), None, 1, (now, SystemTime::UNIX_EPOCH));
    let response = match admin::read(bytes) {
        Err(response) => response,
        Ok(request) => {
            let said = serde_json::to_vec(&request).unwrap_or_default();
            assert_eq!(admin::read(&said).ok(), Some(request.clone()), "what was understood is said again");
            let changes = matches!(request, Request::Deny { .. });
            let Handled::Answer(response) = admin::handle(request, &mut state, now) else { return };
            assert!(changes || state.deny.denied(now).next().is_none(), "nothing else denies anybody");
            response
        }
    };
    let line = admin::write(&response);
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
}

/// A request for the metrics: what was answered stays the answer, whatever follows, as long as the head is not too long.
///
/// # Panics
/// When that does not hold.
pub fn metrics_request(bytes: &[u8]) {
    let bytes = bytes.get(..metrics_http::MOST_HEAD).unwrap_or(bytes);
    let mut decided = None;
    for end in 0..=bytes.len() {
        let answer = metrics_http::parse(bytes.get(..end).unwrap_or_default(), metrics_http::MOST_HEAD);
        assert!(decided.is_none() || answer == decided, "{end}: {decided:?} became {answer:?}");
        decided = answer;
    }
}

/// A line between two processes, one of which takes over: what was understood can be said again, in one line.
///
/// # Panics
/// When that does not hold.
pub fn handed_over(bytes: &[u8]) {
    said_again::<Bequeathed>(bytes);
    said_again::<Answer>(bytes);
    if let Ok(message) = message::read::<Bequeathed>(bytes) {
        let named = match &message {
            Bequeathed::Sockets { count, .. } => *count,
            Bequeathed::Flows(flows) => flows.len(),
            Bequeathed::AdminSocket { .. } | Bequeathed::Metrics { .. } | Bequeathed::Keeper { .. } => 1,
            Bequeathed::OfferEnds
            | Bequeathed::Denied { .. }
            | Bequeathed::Signatures(_)
            | Bequeathed::Over
            | Bequeathed::Error(_) => 0,
        };
        assert!(message.descriptors() <= named, "no more descriptors than things");
    }
}

fn said_again<M: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let Ok(message) = message::read::<M>(bytes) else { return };
    let line = message::write(&message);
    let line = line.as_deref().ok().and_then(|line| line.strip_suffix(b"\n"));
    assert!(line.is_some_and(|line| !line.contains(&b'\n')), "one line");
    let again = line.and_then(|line| message::read::<M>(line).ok()).and_then(|again| message::write(&again).ok());
    assert_eq!(again, message::write(&message).ok(), "what was understood is said again");
}
