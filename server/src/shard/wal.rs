//! The log's writer: on the shard thread of a node that is alone, on a thread of its own in a cluster.
//!
//! Alone, there is nothing else that the shard could rightly do during a sync, and a hop to another thread costs more than it
//! gives. With peers it is the reverse: a disk that stalls must stop neither heartbeats nor the decision to step down, and
//! while one batch is being synced the next is collected.
//!
//! ```text
//!   Host::seal ─▶ Wal::write ─┬─ inline: written and synced, done
//!                             └─ thread: ─▶ write, sync ─▶ report ─▶ (wakes the shard) ─▶ Host::written
//! ```
//!
//! At most one batch is on its way: whatever is staged meanwhile makes the next.

use holdfast_engine::wal::{Durability, SealedBatch, WalMetrics, WalWriter, Written};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long the log rests before it states how far it is synced, so that a crash leaves at most the last batch in doubt.
pub(super) const IDLE_STATEMENT: Duration = Duration::from_millis(10);

/// What the writer thread is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    Write(SealedBatch, u64),
    Close,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) written: Result<Written, String>,
    pub(super) took: Duration,
    pub(super) metrics: WalMetrics,
}

/// The writer, wherever it is.
#[derive(Debug)]
pub(super) enum Wal {
    /// On this thread.
    Inline(Box<WalWriter>),
    /// On its way to a thread.
    Moving,
    /// On a thread of its own.
    Thread { jobs: SyncSender<Job>, busy: bool, metrics: WalMetrics, durability: Durability },
}

/// How a write stands.
#[derive(Debug)]
pub(super) enum Progress {
    /// It is over.
    Done(Report),
    /// A [`Report`] will come.
    Pending,
}

impl Wal {
    /// Keeps the writer on this thread.
    pub(super) fn inline(writer: WalWriter) -> Self {
        Wal::Inline(Box::new(writer))
    }

    /// Moves the writer to a thread; reports come through the receiver.
    ///
    /// # Panics
    /// When it is on one already.
    pub(super) fn move_to_thread(&mut self) -> std::io::Result<(Self, UnboundedReceiver<Report>)> {
        let Wal::Inline(writer) = std::mem::replace(self, Wal::Moving) else {
            panic!("the log's writer moves to a thread once")
        };
        let writer = *writer;
        // One batch and a close: neither ever waits for room.
        let (jobs, queue) = sync_channel(2);
        // NB: bounded by the number of jobs under way, which is one.
        let (reports, received) = unbounded_channel();
        let (metrics, durability) = (writer.metrics(), writer.durability());
        std::thread::Builder::new().name("holdfast-log".into()).spawn(move || run(writer, &queue, &reports))?;
        Ok((Wal::Thread { jobs, busy: false, metrics, durability }, received))
    }

    /// Whether a batch is on its way.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Wal::Thread { busy: true, .. })
    }

    /// Writes a batch, and syncs it as durability demands.
    pub(super) fn write(&mut self, batch: SealedBatch, now_ms: u64) -> Progress {
        match self {
            Wal::Moving => unreachable!("nothing is written while the writer moves"),
            Wal::Inline(writer) => {
                let started = Instant::now();
                let written = writer.write(batch, now_ms).map_err(|error| error.to_string());
                Progress::Done(Report { written, took: started.elapsed(), metrics: writer.metrics() })
            }
            Wal::Thread { jobs, busy, metrics, .. } => {
                assert!(!*busy, "one batch at a time");
                match jobs.try_send(Job::Write(batch, now_ms)) {
                    Ok(()) => {
                        *busy = true;
                        Progress::Pending
                    }
                    Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Progress::Done(Report {
                        written: Err("the log's writer is gone".to_owned()),
                        took: Duration::ZERO,
                        metrics: *metrics,
                    }),
                }
            }
        }
    }

    /// Takes note of a report of the thread.
    pub(super) fn reported(&mut self, report: &Report) {
        if let Wal::Thread { busy, metrics, .. } = self {
            *busy = false;
            *metrics = report.metrics;
        }
    }

    /// Syncs what a weak durability left unsynced. `None` when there is nothing to sync, or the thread does it.
    pub(super) fn sync(&mut self, now_ms: u64) -> Option<Result<Written, String>> {
        match self {
            Wal::Inline(writer) if !writer.is_synced() => Some(writer.sync(now_ms).map_err(|error| error.to_string())),
            _ => None,
        }
    }

    /// The log rests: states how far it is synced, if that is this thread's to do. `true`: everything written is synced now.
    pub(super) fn idle_statement(&mut self) -> Result<bool, String> {
        match self {
            Wal::Inline(writer) => {
                writer.idle_statement().map_err(|error| error.to_string())?;
                Ok(writer.is_synced())
            }
            Wal::Thread { .. } | Wal::Moving => Ok(false),
        }
    }

    pub(super) fn durability(&self) -> Durability {
        match self {
            Wal::Inline(writer) => writer.durability(),
            Wal::Thread { durability, .. } => *durability,
            Wal::Moving => Durability::Always,
        }
    }

    pub(super) fn metrics(&self) -> WalMetrics {
        match self {
            Wal::Inline(writer) => writer.metrics(),
            Wal::Thread { metrics, .. } => *metrics,
            Wal::Moving => WalMetrics::default(),
        }
    }

    /// Records that the stop was orderly. On a thread, a report says when it is done; nothing may be on its way.
    pub(super) fn close(&mut self) -> Progress {
        match self {
            Wal::Moving => Progress::Pending,
            Wal::Inline(writer) => {
                let written = writer.close().map_err(|error| error.to_string());
                Progress::Done(Report { written, took: Duration::ZERO, metrics: writer.metrics() })
            }
            Wal::Thread { jobs, busy, .. } => {
                // A thread that is gone has left the log as after a crash, which loses nothing.
                *busy = jobs.try_send(Job::Close).is_ok();
                Progress::Pending
            }
        }
    }
}

/// The writer thread.
fn run(mut writer: WalWriter, jobs: &Receiver<Job>, reports: &UnboundedSender<Report>) {
    let mut rested = true;
    loop {
        let job = if rested {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_timeout(IDLE_STATEMENT)
        };
        let started = Instant::now();
        let written = match job {
            Ok(Job::Write(batch, now_ms)) => {
                rested = false;
                writer.write(batch, now_ms)
            }
            Ok(Job::Close) => writer.close(),
            Err(RecvTimeoutError::Timeout) => {
                rested = true;
                // A failure here poisons the writer: the next batch reports it.
                if let Err(error) = writer.idle_statement() {
                    tracing::error!(%error, "cannot state how far the log is synced");
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let written = written.map_err(|error| error.to_string());
        let report = Report { written, took: started.elapsed(), metrics: writer.metrics() };
        if reports.send(report).is_err() {
            return;
        }
    }
}

/// Makes the next segment ready on a thread of its own, whenever it is asked to.
pub(super) fn spawn_preparer(mut preparer: holdfast_engine::wal::Preparer) -> std::io::Result<SyncSender<()>> {
    let (prepare, wanted) = sync_channel::<()>(1);
    std::thread::Builder::new().name("holdfast-segments".into()).spawn(move || {
        while wanted.recv().is_ok() {
            loop {
                match preparer.step() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::error!(%error, "cannot make the next log segment ready");
                        break;
                    }
                }
            }
        }
    })?;
    // The active segment may be the last one made ready.
    let _ = prepare.try_send(());
    Ok(prepare)
}
