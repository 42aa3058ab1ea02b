//! Which files the process may use, and which TCP ports where they are known for good (landlock(7)).

use std::path::{Path, PathBuf};

use landlock::{
    Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope, ABI,
};

use super::{Allowed, Landlocked, Ports, SandboxError};

/// The newest of whose rights this file knows; an older kernel enforces what it has.
const KNOWN: ABI = ABI::V6;

/// What is allowed, ready to be entered. The library keeps to what the kernel has ("best effort").
pub(super) fn ruleset(allowed: &Allowed) -> Result<RulesetCreated, SandboxError> {
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?;
    // Nobody else's processes are signalled, nobody's abstract sockets are spoken to; one that is connected stays so.
    ruleset = ruleset.scope(Scope::from_all(KNOWN))?;
    let (bind, connect) = match &allowed.ports {
        Ports::Any => (None, None),
        Ports::Only { bind, connect } => (bind.as_deref(), connect.as_deref()),
    };
    for (ports, access) in [(bind, AccessNet::BindTcp), (connect, AccessNet::ConnectTcp)] {
        if ports.is_some() {
            ruleset = ruleset.handle_access(access)?;
        }
    }
    let mut created = ruleset.create()?;
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = AccessFs::WriteFile | AccessFs::MakeReg;
    for (paths, access) in
        [(&allowed.read, reading), (&allowed.write, writing), (&allowed.remove, AccessFs::RemoveFile.into())]
    {
        for path in paths {
            created = add(created, path, access)?;
        }
    }
    for (ports, access) in [(bind, AccessNet::BindTcp), (connect, AccessNet::ConnectTcp)] {
        // Port 0 stands for "some free port": an ordinary connection is bound to one by the kernel, without being asked.
        for port in ports.into_iter().flatten() {
            created = created.add_rule(NetPort::new(*port, access))?;
        }
    }
    Ok(created)
}

fn add(created: RulesetCreated, path: &PathBuf, access: BitFlags<AccessFs>) -> Result<RulesetCreated, SandboxError> {
    let opened = match PathFd::new(path) {
        Ok(opened) => opened,
        Err(_) if !path.exists() => return Ok(created), // what is not there is not used
        Err(fault) => return Err(fault_of(path, fault)),
    };
    // Rights that concern what is in a directory mean nothing for a file, and are refused.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
    Ok(created.add_rule(PathBeneath::new(opened, access))?)
}

fn fault_of(path: &Path, fault: PathFdError) -> SandboxError {
    SandboxError::Path { path: path.to_owned(), fault }
}

/// Holds from here on, for this thread and those that it starts.
pub(super) fn enter(ruleset: RulesetCreated) -> Result<Landlocked, SandboxError> {
    Ok(match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Landlocked::Wholly,
        RulesetStatus::PartiallyEnforced => Landlocked::Partly,
        RulesetStatus::NotEnforced => Landlocked::NotAtAll,
    })
}
