//! Who the process is, and which of root's powers it keeps.

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{setgroups, setresgid, setresuid, Gid, Uid};

use super::{SandboxError, User};

/// Keeps these, where they are held, in the permitted and the effective set, and nothing in the others. Whether the
/// bounding set could be emptied too.
pub(super) fn drop_all_but(kept: &[Capability], user: Option<User>) -> Result<bool, SandboxError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = kept.iter().copied().filter(|capability| permitted.contains(capability)).collect();
    // First, for it takes CAP_SETPCAP.
    let may_bound = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)?;
    if may_bound {
        for capability in caps::runtime::thread_all_supported().difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    if let Some(user) = user {
        become_user(user).map_err(|fault| SandboxError::User { user, fault })?;
    }
    // The effective set within the permitted one at each step.
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    Ok(may_bound)
}

/// Leaves the permitted set as it is, and the effective one empty (capabilities(7), "Effect of user ID changes").
fn become_user(user: User) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.user), Gid::from_raw(user.group));
    nix::sys::prctl::set_keepcaps(true)?;
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    nix::sys::prctl::set_keepcaps(false)
}

/// Those that the process has, in the kernel's order.
pub(super) fn held() -> Result<Vec<Capability>, SandboxError> {
    let mut held: Vec<Capability> = caps::read(None, CapSet::Effective)?.into_iter().collect();
    held.sort_unstable_by_key(Capability::index);
    Ok(held)
}
