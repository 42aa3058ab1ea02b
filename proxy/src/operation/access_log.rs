//! The way of log lines from workers to the disk: a worker never waits; when the disk is slow, lines are dropped and counted.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::access_line::Record;
use crate::commands::say;
use crate::mend;

/// A worker's lines go out when so many bytes are together, or at its next tick.
const BATCH: usize = 32 * 1024;
/// Batches that may wait for the disk; with those of the workers this bounds the memory.
const WAITING: usize = 64;

/// What became of lines, for the metrics.
#[derive(Debug, Default)]
pub struct LogFigures {
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    left_out: AtomicU64,
    reopen_failures: AtomicU64,
}

impl LogFigures {
    /// Lines written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lines dropped because the disk was slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ends that got no line, because a flood brought about too many of them.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Lines that the disk refused (full, or gone).
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How often the file could not be opened anew, so that the lines went on to the one before.
    #[must_use]
    pub fn reopen_failures(&self) -> u64 {
        self.reopen_failures.load(Ordering::Relaxed)
    }
}

/// Lines of one worker, and how many.
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

/// The log as the control thread has it. When it and all [`WorkerLog`]s are gone, the writer ends.
#[derive(Debug)]
pub struct AccessLog {
    batches: SyncSender<Batch>,
    shared: Arc<Shared>,
    ended: Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    reopen: AtomicBool,
    figures: Arc<LogFigures>,
}

/// A log that is open and has no writer yet: the sandbox is entered between the two, which takes a process of one thread.
pub struct OpenedLog {
    sink: Box<dyn Write + Send>,
    path: Option<PathBuf>,
}

impl std::fmt::Debug for OpenedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedLog").field("path", &self.path).finish_non_exhaustive()
    }
}

impl OpenedLog {
    /// Starts its writer.
    pub fn start(self) -> io::Result<AccessLog> {
        AccessLog::start(self.sink, self.path)
    }
}

impl AccessLog {
    /// Opens the log (`-` is stdout), before the sandbox is entered.
    pub fn open(path: &Path) -> io::Result<OpenedLog> {
        if path == Path::new("-") {
            let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            return Ok(OpenedLog { sink: Box::new(stdout), path: None });
        }
        Ok(OpenedLog { sink: Box::new(append(path)?), path: Some(path.to_owned()) })
    }

    fn start(sink: Box<dyn Write + Send>, path: Option<PathBuf>) -> io::Result<Self> {
        let (batches, waiting) = sync_channel(WAITING);
        let (end, ended) = sync_channel(1);
        let shared = Arc::new(Shared::default());
        let mut writer = Writer { sink, path, shared: Arc::clone(&shared), torn: false };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer.run(&waiting);
            let _ = end.try_send(()); // whoever waited may be gone
        })?;
        Ok(Self { batches, shared, ended })
    }

    /// A worker's end of it.
    #[must_use]
    pub fn worker(&self) -> WorkerLog {
        WorkerLog { batches: self.batches.clone(), shared: Arc::clone(&self.shared), lines: Cell::default() }
    }

    /// Opens the file anew before the next line: it was moved away (logrotate). When that fails, the old one is kept, which is
    /// told on stderr and counted.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        let _ = self.batches.try_send(Batch { bytes: Vec::new(), lines: 0 }); // full: the writer is awake anyway
    }

    /// What became of lines.
    #[must_use]
    pub fn figures(&self) -> Arc<LogFigures> {
        Arc::clone(&self.shared.figures)
    }

    /// Waits until all is written that was handed over, at most so long; the workers' ends must be gone. Whether it is.
    #[must_use]
    pub fn finish(self, within: Duration) -> bool {
        let Self { batches, ended, .. } = self;
        drop(batches);
        // A writer that is gone without its word has nothing left to write either.
        !matches!(ended.recv_timeout(within), Err(RecvTimeoutError::Timeout))
    }
}

/// A worker's end of the log: for one thread, shared by its connections.
pub struct WorkerLog {
    batches: SyncSender<Batch>,
    shared: Arc<Shared>,
    lines: Cell<(Vec<u8>, u64)>,
}

impl std::fmt::Debug for WorkerLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerLog").finish_non_exhaustive()
    }
}

impl WorkerLog {
    /// Adds a line.
    pub fn record(&self, record: &Record<'_>) {
        let (mut bytes, lines) = self.lines.take();
        if bytes.capacity() == 0 {
            bytes.reserve(BATCH + BATCH / 4);
        }
        record.write(&mut bytes);
        let full = bytes.len() >= BATCH;
        self.lines.set((bytes, lines + 1));
        if full {
            self.flush();
        }
    }

    /// Counts an end that gets no line.
    pub fn leave_out(&self) {
        self.shared.figures.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands over what is together: once a second, and before the worker ends.
    pub fn flush(&self) {
        let (bytes, lines) = self.lines.take();
        if lines == 0 {
            self.lines.set((bytes, 0));
            return;
        }
        match self.batches.try_send(Batch { bytes, lines }) {
            Ok(()) => {}
            Err(TrySendError::Full(mut batch) | TrySendError::Disconnected(mut batch)) => {
                self.shared.figures.dropped.fetch_add(lines, Ordering::Relaxed);
                batch.bytes.clear();
                self.lines.set((batch.bytes, 0));
            }
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// The thread that waits for the disk.
struct Writer {
    sink: Box<dyn Write + Send>,
    path: Option<PathBuf>,
    shared: Arc<Shared>,
    /// A failed write may have left half a line.
    torn: bool,
}

impl Writer {
    fn run(&mut self, waiting: &Receiver<Batch>) {
        while let Ok(batch) = waiting.recv() {
            self.reopen_if_asked();
            let written = self.write(&batch.bytes).is_ok();
            let figures = &self.shared.figures;
            let count = if written { &figures.written } else { &figures.failed };
            count.fetch_add(batch.lines, Ordering::Relaxed);
        }
    }

    fn reopen_if_asked(&mut self) {
        if !self.shared.reopen.swap(false, Ordering::Acquire) {
            return;
        }
        let Some(path) = self.path.as_deref() else { return };
        match append(path) {
            Ok(file) => {
                self.sink = Box::new(file);
                self.torn = false;
            }
            Err(cause) => {
                self.shared.figures.reopen_failures.fetch_add(1, Ordering::Relaxed);
                let (mend, path) = (mend::of_log(path, &cause), path.display());
                say(&format!(
                    "edgeproxy: operation.access_log: {path}: {cause}; lines go on to the file that is open{mend}"
                ));
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.torn {
            self.sink.write_all(b"\n")?;
            self.torn = false;
        }
        let result = self.sink.write_all(bytes);
        self.torn = result.is_err();
        result
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::super::access_line::tests::plain;
    use super::super::scratch::Scratch;
    use super::super::unique_id::UniqueId;
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn record(log: &WorkerLog, times: usize) {
        let id = UniqueId::Own([1; 16]);
        (0..times).for_each(|_| log.record(&plain(&id)));
    }

    fn lines_of(path: &Path) -> usize {
        let text = fs::read_to_string(path).unwrap();
        text.lines().for_each(|line| assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}"));
        text.lines().count()
    }

    #[test]
    fn lines_of_all_workers_arrive_whole() {
        let scratch = Scratch::new();
        let path = scratch.path("access.log");
        let log = AccessLog::open(&path).unwrap().start().unwrap();
        thread::scope(|scope| {
            (0..3).map(|_| log.worker()).for_each(|worker| drop(scope.spawn(move || record(&worker, 1_000))));
        });
        let shared = Arc::clone(&log.shared);
        assert!(log.finish(LONG));
        assert_eq!((lines_of(&path), shared.figures.written(), shared.figures.dropped()), (3_000, 3_000, 0));
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o007, 0);
    }

    #[test]
    fn a_disk_that_does_not_write_costs_lines_and_no_time() {
        let (sink, mut far) = UnixStream::pair().unwrap();
        let log = AccessLog::start(Box::new(sink), None).unwrap();
        let worker = log.worker();
        // More than the socket's buffer, the waiting batches and the worker's own can hold together.
        let began = Instant::now();
        record(&worker, 20_000);
        assert!(began.elapsed() < LONG, "nothing reads: had it waited, it would wait for ever");
        let dropped = log.figures().dropped();
        assert!(dropped > 0);
        let held = 20_000 - dropped;
        assert!(held < 20_000 / 2, "{held}");

        // When the disk is quick again, what waited is written, each line whole.
        let reader = thread::spawn(move || {
            let lines: Vec<String> = BufReader::new(&mut far).lines().map(Result::unwrap).collect();
            lines.iter().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count()
        });
        drop(worker);
        let shared = Arc::clone(&log.shared);
        assert!(log.finish(LONG));
        let written = shared.figures.written();
        assert_eq!(written + shared.figures.dropped(), 20_000);
        assert_eq!(reader.join().unwrap() as u64, written);
    }

    #[test]
    fn a_log_that_cannot_be_finished_is_left() {
        let (sink, _far) = UnixStream::pair().unwrap();
        let log = AccessLog::start(Box::new(sink), None).unwrap();
        record(&log.worker(), 20_000);
        assert!(!log.finish(Duration::from_millis(20)));
    }

    #[test]
    fn a_log_that_was_moved_away_is_begun_anew() {
        let scratch = Scratch::new();
        let (path, moved) = (scratch.path("access.log"), scratch.path("access.log.1"));
        let log = AccessLog::open(&path).unwrap().start().unwrap();
        let worker = log.worker();
        record(&worker, 5);
        worker.flush();
        while log.figures().written() < 5 {
            thread::yield_now();
        }
        fs::rename(&path, &moved).unwrap();
        log.reopen();
        record(&worker, 7);
        drop(worker);
        assert!(log.finish(LONG));
        assert_eq!((lines_of(&moved), lines_of(&path)), (5, 7));
    }

    /// Takes some bytes and then, once, is full.
    struct Full(UnixStream, Option<usize>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.1.take() {
                Some(0) => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                Some(room) => {
                    self.1 = Some(0);
                    self.0.write(&bytes[..room])
                }
                None => self.0.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn after_a_full_disk_the_next_line_stands_alone() {
        let (sink, far) = UnixStream::pair().unwrap();
        let log = AccessLog::start(Box::new(Full(sink, Some(10))), None).unwrap();
        let worker = log.worker();
        record(&worker, 1);
        worker.flush();
        record(&worker, 1);
        drop(worker);
        let shared = Arc::clone(&log.shared);
        assert!(log.finish(LONG));
        assert_eq!((shared.figures.failed(), shared.figures.written()), (1, 1));
        let lines: Vec<String> = BufReader::new(far).lines().map(Result::unwrap).collect();
        assert_eq!(lines.len(), 2);
        assert!(serde_json::from_str::<serde_json::Value>(&lines[1]).is_ok(), "{}", lines[1]);
    }
}
