//! `edgeproxy doctor`: what this host lacks for a configuration, and the line that mends it.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{fail, print_and_end_by, say, RAN_AND_FAILED, WRONG_INPUT};
use crate::config;
use crate::hop::look;
use crate::transparent::doctor::{exit_status, judge};
use crate::transparent::host_facts::HostFacts;
use crate::transparent::probe::probe;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Doctor {
    pub(crate) config: PathBuf,
    pub(crate) json: bool,
    /// Dial backends as clients come.
    pub(crate) probe: bool,
}

pub(crate) fn run(doctor: &Doctor) -> ExitCode {
    let config = match config::load(&doctor.config) {
        Ok(config) => config,
        Err(faults) => {
            say(&faults.to_string());
            return ExitCode::from(WRONG_INPUT);
        }
    };
    let found = HostFacts::ask(&config).and_then(|facts| {
        let mut findings = judge(&config, &facts);
        findings.extend(look(&config));
        if doctor.probe {
            findings.extend(probe(&config, &facts)?);
        }
        Ok(findings)
    });
    let findings = match found {
        Ok(findings) => findings,
        Err(error) => return fail(RAN_AND_FAILED, &format!("the kernel cannot be asked: {error}")),
    };
    let status = exit_status(&findings);
    let text = if doctor.json {
        format!("{}\n", json!({"able": status == 0, "findings": findings}))
    } else {
        findings.iter().map(|finding| format!("{finding}\n")).collect()
    };
    print_and_end_by(&text, status)
}
