//! `edgeproxy schema`: the JSON Schema of the configuration.

use std::process::ExitCode;

use super::print;
use crate::config;

pub(crate) fn run() -> ExitCode {
    print(&format!("{:#}\n", config::schema()))
}
