//! How the scheduler treats the threads of this process.

/// Whoever sends to this process may go on with what it does: a packet for a thread that waits makes it ready to run, and
/// does not interrupt the program on whose processor it came (`SCHED_BATCH`, sched(7)). So more of its packets are there
/// when the thread runs, and neither is switched to and fro for each. Asks no right, and holds for threads that are begun
/// afterwards. A process that was given another policy than the usual one keeps it.
pub(crate) fn let_senders_go_on() {
    // By number, for musl's functions of these names refuse whatever the kernel would say.
    // SAFETY: no memory is passed; 0 is the calling thread.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    if policy == libc::c_long::from(libc::SCHED_OTHER) {
        let priority: libc::c_int = 0;
        // SAFETY: the kernel reads one `sched_param`, which is that number. Where it refuses, all stays as it was.
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_BATCH, &priority) };
    }
}
