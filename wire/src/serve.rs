//! Many wires under one master: does what it asks, and answers each message once.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use nix::sys::resource::{getrlimit, setrlimit, Resource};
use serde::Serialize;

use crate::control::{Control, Heard};
use crate::exchange::{Exchange, Interruption, WireReading};
use crate::request::{self, Message, Request};
use crate::tap::{Tap, TapError};
use crate::wire::Impairments;

/// An answer as it is written.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wires: Option<BTreeMap<&'a str, WireReading>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Carries and answers until the master's socket ends.
pub(crate) fn until_end(control: &mut Control) -> Result<(), TapError> {
    // Each wire needs two descriptors, and 1024 is a usual limit; if it cannot be raised, attach says so when it is met.
    let _ = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    let mut exchange = Exchange::new()?;
    exchange.watch_master(control.as_fd())?;
    loop {
        let Interruption::Master { is_hung_up } = exchange.carry()? else {
            continue;
        };
        if control.has_answer() {
            if is_hung_up {
                return Ok(());
            }
            control.answer_again();
        } else {
            match control.hear(is_hung_up) {
                Heard::Nothing => {}
                Heard::End => return Ok(()),
                Heard::Unreadable(why) => send(control, None, Err(why.to_owned())),
                Heard::Message { bytes, descriptors } => {
                    let Message { number, request } = request::read(&bytes);
                    let done = request.and_then(|request| act(&mut exchange, request, descriptors));
                    send(control, number, done);
                }
            }
        }
        exchange.turn_master(control.as_fd(), control.has_answer())?;
    }
}

type Wires<'a> = BTreeMap<&'a str, WireReading>;

/// Does it; descriptors that are not used are closed.
fn act(exchange: &mut Exchange, request: Request, descriptors: Vec<OwnedFd>) -> Result<Option<Wires<'_>>, String> {
    if !matches!(request, Request::Attach { .. }) && !descriptors.is_empty() {
        return Err(format!("{} descriptors came; only attach takes some", descriptors.len()));
    }
    match request {
        Request::Attach { wire, seed, a_to_b, b_to_a } => {
            let ends = ends(descriptors).map_err(|fault| format!("wire {wire}: {fault}"))?;
            exchange.attach(&wire, seed, ends, Impairments { a_to_b, b_to_a })?;
            Ok(None)
        }
        Request::Change { wire, a_to_b, b_to_a } => {
            let changed = |before: Impairments| Impairments {
                a_to_b: a_to_b.unwrap_or(before.a_to_b),
                b_to_a: b_to_a.unwrap_or(before.b_to_a),
            };
            exchange.change(&wire, changed)?;
            Ok(None)
        }
        Request::Detach { wire } => exchange.detach(&wire).map(|()| None),
        Request::Read { wire } => exchange.read(wire.as_deref()).map(Some),
    }
}

fn ends(descriptors: Vec<OwnedFd>) -> Result<(Tap, Tap), String> {
    let count = descriptors.len();
    let Ok([a, b]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return Err(format!("{count} descriptors came; attach takes two"));
    };
    let adopted = Tap::adopt(a).and_then(|tap_a| Ok((tap_a, Tap::adopt(b)?)));
    adopted.map_err(|error| error.to_string())
}

fn send(control: &mut Control, number: Option<u64>, done: Result<Option<Wires<'_>>, String>) {
    let answer = match done {
        Ok(wires) => Answer { number, wires, error: None },
        Err(fault) => Answer { number, wires: None, error: Some(fault) },
    };
    let text = serde_json::to_string(&answer).unwrap_or_default();
    let length = text.len();
    if !control.answer(text) {
        let fault = format!("the answer of {length} bytes is longer than a message can be; read wire by wire");
        send(control, number, Err(fault));
    }
}
