//! What the kernel knows of its clock.

use std::mem::zeroed;

/// Whether somebody keeps the clock right (NTP and the like), as the kernel was told; none, where it does not say.
pub(crate) fn is_kept_right() -> Option<bool> {
    // SAFETY: numbers, of which 0 is one; `modes` of 0 asks, and sets nothing (adjtimex(2)).
    let mut asked: libc::timex = unsafe { zeroed() };
    // SAFETY: the kernel reads and writes one `timex`, and there is room for it as long as the call lasts.
    let state = unsafe { libc::adjtimex(&mut asked) };
    (state >= 0).then_some(asked.status & libc::STA_UNSYNC == 0)
}
