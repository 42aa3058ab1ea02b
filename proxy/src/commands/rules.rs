//! `edgeproxy rules`: the lines that install the kernel's rules for a configuration, for whoever manages them by hand; and
//! the internal command that manages them.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{fail, print, say, RAN_AND_FAILED, WRONG_INPUT};
use crate::config;
use crate::transparent::keeper;
use crate::transparent::local_addresses::LocalAddresses;
use crate::transparent::needs::Needs;
use crate::transparent::rules::RuleSet;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) config: PathBuf,
    /// The lines that remove them instead.
    pub(crate) remove: bool,
}

pub(crate) fn run(rules: &Rules) -> ExitCode {
    let config = match config::load(&rules.config) {
        Ok(config) => config,
        Err(faults) => {
            say(&faults.to_string());
            return ExitCode::from(WRONG_INPUT);
        }
    };
    let addresses = match LocalAddresses::open() {
        Ok((addresses, _)) => addresses,
        Err(error) => return fail(RAN_AND_FAILED, &format!("the kernel cannot be asked: {error}")),
    };
    let needs = Needs::of(&config, |ip| addresses.is_local(ip));
    let set = RuleSet::new(needs, config.transparent.mark, config.transparent.table);
    print(&if rules.remove { set.remove_lines() } else { set.install_lines() })
}

/// The word by which `edgeproxy run` starts the rule keeper.
pub(crate) const KEEP: &str = "keep-rules";

/// `edgeproxy keep-rules`, which only `edgeproxy run` starts.
pub(crate) fn keep() -> ExitCode {
    match keeper::keep_rules() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(RAN_AND_FAILED, &format!("the rule keeper: {error}")),
    }
}
