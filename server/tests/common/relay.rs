//! A piece of network between the nodes of a test, whose connections can be cut while the nodes live.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Hands on what comes to one address to another, until it is dropped.
pub struct Relay {
    address: SocketAddr,
    open: Arc<Mutex<Connections>>,
}

#[derive(Default)]
struct Connections {
    ended: bool,
    /// Both ends of each.
    streams: Vec<TcpStream>,
}

impl Relay {
    /// Listens at `from`; what comes goes to `to`.
    pub fn start(from: SocketAddr, to: SocketAddr) -> Relay {
        let listener = TcpListener::bind(from).expect("the relay's address is free");
        let open = Arc::new(Mutex::new(Connections::default()));
        let shared = Arc::clone(&open);
        std::thread::spawn(move || {
            for accepted in listener.incoming() {
                let Ok(accepted) = accepted else { return };
                if shared.lock().expect("no thread panics").ended {
                    return;
                }
                // Nobody listens there: whoever asked finds the connection closed.
                let Ok(onward) = TcpStream::connect(to) else { continue };
                let _ = join(&shared, accepted, onward);
            }
        });
        Relay { address: from, open }
    }

    /// Ends all connections; new ones are taken.
    pub fn cut(&self) {
        for stream in self.open.lock().expect("no thread panics").streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.open.lock().expect("no thread panics").ended = true;
        self.cut();
        // The listener's thread waits for one more.
        let _ = TcpStream::connect(self.address);
    }
}

/// Hands bytes on in both directions.
fn join(open: &Mutex<Connections>, one: TcpStream, other: TcpStream) -> io::Result<()> {
    for stream in [&one, &other] {
        stream.set_nodelay(true)?;
        open.lock().expect("no thread panics").streams.push(stream.try_clone()?);
    }
    let (one_too, other_too) = (one.try_clone()?, other.try_clone()?);
    std::thread::spawn(move || hand_on(one, other));
    std::thread::spawn(move || hand_on(other_too, one_too));
    Ok(())
}

fn hand_on(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
