//! An echo that answers every request at once, to show what mega-bench itself can do.

use crate::protocol::{Opaque, Protocol};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Listens on a free port and answers requests of `size` bytes, on a thread of its own.
pub fn echo<P: Protocol>(size: usize) -> Result<SocketAddr, String> {
    let failed = |error: std::io::Error| format!("cannot listen for the echo: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let name = std::thread::Builder::new().name("echo".into());
    name.spawn(move || {
        // The measurement ends with an error of its own when this one does.
        let _ = serve::<P>(&listener, size);
    })
    .map_err(failed)?;
    Ok(address)
}

fn serve<P: Protocol>(listener: &TcpListener, size: usize) -> std::io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(u64::MAX), EventFlags::IN)?;
    let mut clients: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    let mut events: Vec<Event> = Vec::with_capacity(256);
    let mut chunk = vec![0; 256 * 1024];
    let mut out = Vec::new();
    loop {
        // No server is faster than one that never sleeps.
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&at_once))?;
        for event in events.drain(..) {
            if event.data.u64() == u64::MAX {
                let (client, _) = listener.accept()?;
                client.set_nodelay(true)?;
                let index = EventData::new_u64(clients.len() as u64);
                epoll::add(&epoll, &client, index, EventFlags::IN)?;
                clients.push((client, Vec::new()));
                continue;
            }
            let (client, received) = &mut clients[event.data.u64() as usize];
            let count = client.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            received.extend_from_slice(&chunk[..count]);
            let whole = received.len() / size * size;
            for request in received[..whole].chunks(size) {
                let at = out.len();
                out.extend_from_slice(P::ECHO);
                if let Some((place, Opaque::BehindHeader)) = P::OPAQUE {
                    let header = [request[4], request[5], request[6], request[7]];
                    let opaque = 8 + u32::from_be_bytes(header) as usize;
                    out[at + place..at + place + 4].copy_from_slice(&request[opaque..opaque + 4]);
                }
            }
            received.drain(..whole);
            client.write_all(&out)?;
            out.clear();
        }
    }
}
