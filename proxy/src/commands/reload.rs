//! `edgeproxy reload`: has a running proxy take its file, and waits until it is in force.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{fail, print, print_and_end_by, say, RAN_AND_FAILED};
use crate::operation::admin::{Request, Response};
use crate::operation::ask::{AskError, Asker};
use crate::operation::reload_told::ReloadTold;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reload {
    pub(crate) socket: PathBuf,
    pub(crate) json: bool,
}

pub(crate) fn run(asked: &Reload) -> ExitCode {
    let told = match ask(asked) {
        Ok(told) => told,
        Err(error) => return fail(RAN_AND_FAILED, &error.to_string()),
    };
    let status = if told.reloaded { 0 } else { RAN_AND_FAILED };
    if asked.json {
        return match serde_json::to_string(&told) {
            Ok(text) => print_and_end_by(&format!("{text}\n"), status),
            Err(error) => fail(RAN_AND_FAILED, &error.to_string()),
        };
    }
    told.notes.iter().for_each(|note| say(&format!("note: {note}")));
    told.faults.iter().for_each(|fault| say(&fault.to_string()));
    if told.reloaded {
        print(&format!("{}\n", told.outcome()))
    } else {
        fail(RAN_AND_FAILED, &told.outcome())
    }
}

fn ask(asked: &Reload) -> Result<ReloadTold, AskError> {
    match Asker::connect(&asked.socket)?.ask(&Request::Reload {})? {
        Response::Reload(told) => Ok(*told),
        // An older process, which says the same in words.
        Response::Done(words) => Ok(ReloadTold::done(&words)),
        Response::Status(_)
        | Response::Connections(_)
        | Response::Denied(_)
        | Response::Changed(_)
        | Response::Metrics(_)
        | Response::Error(_) => Err(AskError::Unexpected),
    }
}
