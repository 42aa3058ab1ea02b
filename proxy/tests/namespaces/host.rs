//! Further hosts of a test: threads with a network namespace of their own.

use std::io;
use std::sync::mpsc::{channel, Sender};
use std::thread;

use nix::sched::{unshare, CloneFlags};
use nix::unistd::gettid;

use crate::namespaces::ip;

/// Another host: a thread in a network namespace of its own.
pub(crate) struct Host {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
    /// By which `ip link ... netns` knows it.
    pub(crate) thread: i32,
}

impl Host {
    /// A host with `lo`.
    pub(crate) fn new() -> Self {
        let (jobs, to_do) = channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid().as_raw()).unwrap();
            to_do.iter().for_each(|job| job());
        });
        let host = Self { jobs, thread: told.recv().unwrap() };
        host.ip("link set lo up");
        host
    }

    /// Does something there.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        // The receiver is gone only if this thread failed.
        self.jobs.send(Box::new(move || drop(tell.send(job())))).unwrap();
        told.recv().unwrap()
    }

    /// `ip` there: a child is where the thread is that starts it.
    pub(crate) fn ip(&self, words: &str) -> String {
        let words = words.to_owned();
        self.run(move || ip(&words))
    }
}

/// Writes a kernel parameter of this network namespace.
pub(crate) fn sysctl(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
}
