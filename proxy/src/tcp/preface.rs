//! The first bytes of a client: read until the rules can decide, under one deadline and one budget.

use tokio::net::TcpStream;
use tokio::time::{timeout_at, Instant};

use crate::config::model::Config;
use crate::operation::{CloseReason, Limit};
use crate::route::{awaits_silence, decide, final_decision, Arrived, Decision, TcpPreface};

use super::scratch::Scratch;

/// What the wait for a decision took.
#[derive(Debug)]
pub(crate) struct Effort<'a> {
    /// Reads that brought bytes.
    pub(crate) segments: usize,
    /// The client has ended its side.
    pub(crate) has_ended: bool,
    /// The bytes themselves.
    pub(crate) held: Hold<'a>,
}

/// Why waiting ended without the rules' own word.
#[derive(Debug, Clone, Copy)]
enum Over {
    Deadline,
    Budget,
    ClientEnded,
}

/// Reads until the rules decide. A decision that more bytes could have changed is made without them at the deadline, at the
/// end of the budget, and when the client has ended its side.
///
/// # Errors
///
/// Why the connection is to be closed instead.
pub(crate) async fn decide_by_first_bytes(
    stream: &mut TcpStream,
    config: &Config,
    arrived: &Arrived,
    preface: &mut TcpPreface,
    effort: &mut Effort<'_>,
    begun: Instant,
) -> Result<Decision, CloseReason> {
    let deadline = begun + config.timeouts.preface;
    let mut silence =
        (preface.bytes().is_empty() && awaits_silence(config, arrived)).then(|| begun + config.timeouts.silence);
    let over = loop {
        if !effort.held.grow_to(preface.bytes().len()) {
            return Err(CloseReason::OverLimit(Limit::PrefaceMemory));
        }
        match decide(config, arrived, preface) {
            Decision::NeedMore => {}
            decision @ (Decision::Forward { .. } | Decision::Refuse { .. } | Decision::NoRule) => return Ok(decision),
        }
        if effort.has_ended {
            break Over::ClientEnded;
        }
        let room = config.limits.preface_bytes.get().saturating_sub(preface.bytes().len());
        if room == 0 {
            break Over::Budget;
        }
        let until = silence.map_or(deadline, |silence| silence.min(deadline));
        match timeout_at(until, effort.held.scratch.read(stream, room, |bytes| preface.extend(bytes))).await {
            Ok(Ok(0)) => effort.has_ended = true,
            Ok(Ok(_)) => {
                effort.segments += 1;
                silence = None;
            }
            Ok(Err(_)) => return Err(CloseReason::ClientLeftEarly),
            Err(_) if until < deadline => {
                preface.silence_passed();
                silence = None;
            }
            Err(_) => break Over::Deadline,
        }
    };
    match (final_decision(config, arrived, preface), over) {
        (Decision::NoRule | Decision::NeedMore, Over::Deadline) => Err(CloseReason::PrefaceTimeout),
        (Decision::NoRule | Decision::NeedMore, Over::Budget) => Err(CloseReason::PrefaceTooLong),
        (Decision::NoRule | Decision::NeedMore, Over::ClientEnded) => Err(CloseReason::ClientLeftEarly),
        (decision @ (Decision::Forward { .. } | Decision::Refuse { .. }), _) => Ok(decision),
    }
}

/// First bytes that are held, those of a PROXY header too, count as kept until a direction keeps them or they are with the
/// backend, so that many clients are bounded together, be it that they say half a thing or that nobody can be reached.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    scratch: &'a Scratch,
    bytes: usize,
}

impl<'a> Hold<'a> {
    /// Nothing yet.
    pub(crate) fn nothing(scratch: &'a Scratch) -> Self {
        Self { scratch, bytes: 0 }
    }

    /// Counts so many bytes of this client; whether there is room for them.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        self.scratch.keep(bytes.saturating_sub(self.bytes));
        self.bytes = self.bytes.max(bytes);
        self.scratch.kept() <= super::scratch::PREFACE_BUDGET
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.scratch.let_go(self.bytes);
    }
}
