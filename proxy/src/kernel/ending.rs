//! The end of a process that has not begun to serve, at a signal, whatever it waits for in the kernel meanwhile.

use std::ffi::{c_char, c_int, CString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};

const LAST_WORDS: &[u8] = b"edgeproxy: told to end before it was ready\n";

/// The name of the file that goes with the process; null if there is none.
static NAME: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// From here on a signal removes the file that was named last, and ends the process with status 0.
pub(crate) fn end_at(signals: &[Signal]) -> io::Result<()> {
    handle(signals, SigHandler::Handler(end))
}

/// From here on the kernel does with a signal what it does by default.
pub(crate) fn end_no_more_at(signals: &[Signal]) -> io::Result<()> {
    handle(signals, SigHandler::SigDfl)
}

/// Names the file that the process must not leave behind.
pub(crate) fn name_file(path: &Path) -> io::Result<()> {
    // It is not given back: a signal may come at any time.
    NAME.store(CString::new(path.as_os_str().as_bytes())?.into_raw(), Ordering::Release);
    Ok(())
}

fn handle(signals: &[Signal], handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    for signal in signals {
        // SAFETY: the handler makes only calls that may be made at any moment (signal-safety(7)), and does not return.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(())
}

extern "C" fn end(_: c_int) {
    let name = NAME.load(Ordering::Acquire);
    // SAFETY: `name` is null or the bytes of a CString that is never freed; the words are as long as is said.
    unsafe {
        if !name.is_null() {
            libc::unlink(name);
        }
        libc::write(libc::STDERR_FILENO, LAST_WORDS.as_ptr().cast(), LAST_WORDS.len());
        libc::_exit(0);
    }
}
