//! Packets that come late, and in another order: what the kernel's own netem would do, where the kernel has none.
//!
//! A rule hands packets to a queue instead of letting them in; a thread of ours keeps each for as long as it is given, and
//! lets it go. Each packet's time is drawn for itself, so they overtake each other. Duplicates can't be made this way; TCP
//! would drop them unseen.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_sim::random::Random;
use nfq::{Queue, Verdict};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The number that the rules name.
pub const QUEUE: u16 = 7;
/// How often it is looked what is due: times are so exact.
const LOOK: Duration = Duration::from_micros(500);
/// Packets that wait; further ones are lost.
const QUEUE_PACKETS_MAX: u32 = 20_000;

/// Keeps the packets of one namespace until it is dropped; then it lets all of them go.
#[derive(Debug)]
pub struct Delay {
    stops: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// Begins to serve the queue of a namespace. Each packet waits for up to `delay_max`.
    ///
    /// # Errors
    /// If the kernel has no such queue for us.
    pub fn new(namespace: &Path, delay_max: Duration, random: Random) -> Result<Delay, String> {
        let space = File::open(namespace).map_err(|error| format!("{}: {error}", namespace.display()))?;
        let stops = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let flag = Arc::clone(&stops);
        // A thread's namespace is its own; it never goes back, and ends here.
        let thread = std::thread::spawn(move || match open(&space) {
            Ok(queue) => {
                let _ = ready.send(Ok(()));
                serve(queue, delay_max, random, &flag);
            }
            Err(error) => drop(ready.send(Err(format!("no queue for packets: {error}")))),
        });
        is_ready.recv().unwrap_or_else(|_| Err("the thread that delays packets failed".to_owned()))?;
        Ok(Delay { stops, thread: Some(thread) })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(space: &File) -> std::io::Result<Queue> {
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
    let mut queue = Queue::open()?;
    queue.bind(QUEUE)?;
    queue.set_copy_range(QUEUE, 0)?;
    queue.set_queue_max_len(QUEUE, QUEUE_PACKETS_MAX)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

fn serve(mut queue: Queue, delay_max: Duration, mut random: Random, stops: &AtomicBool) {
    let mut waiting = BTreeMap::new();
    let mut number = 0u64;
    loop {
        let now = Instant::now();
        let ends = stops.load(Ordering::Relaxed);
        loop {
            match queue.recv() {
                Ok(message) => {
                    let wait = Duration::from_micros(random.below(delay_max.as_micros() as u64 + 1));
                    waiting.insert((now + wait, number), message);
                    number += 1;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // WouldBlock, or more than the socket could hold: what is lost is lost.
                Err(_) => break,
            }
        }
        while let Some(entry) = waiting.first_entry()
            && (ends || entry.key().0 <= now)
        {
            let mut message = entry.remove();
            message.set_verdict(Verdict::Accept);
            if queue.verdict(message).is_err() {
                break;
            }
        }
        if ends {
            // NB: closing is not enough. A process that was started meanwhile may have inherited the socket, and would keep the
            // queue for itself.
            let _ = queue.unbind(QUEUE);
            return;
        }
        std::thread::sleep(LOOK);
    }
}
