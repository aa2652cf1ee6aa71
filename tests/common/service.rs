//! Threads that serve sockets.

use std::io::{self, PipeReader, PipeWriter, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Netns, Owner, socket};

/// What a service does. It happens on a thread in the service's namespace, as its owner.
pub trait Serve: Send + 'static {
    /// Its sockets.
    fn bind(&self) -> io::Result<Sockets>;

    /// A client has connected.
    fn serve_connection(&self, stream: TcpStream, client: SocketAddr) -> io::Result<()>;

    /// A datagram waits.
    fn serve_datagram(&self, receiver: &UdpSocket) -> io::Result<()>;
}

/// What is listened on.
#[derive(Default)]
pub struct Sockets {
    pub tcp: Vec<TcpListener>,
    pub udp: Vec<UdpSocket>,
}

/// A service on a thread of its own, which serves one client at a time. It ends when dropped.
pub struct Service {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts one; it listens when this returns.
    pub fn start(netns: &Netns, owner: Owner, service: impl Serve) -> Self {
        let (stopped, stop) = pipe().expect("a pipe");
        let (tell, told) = sync_channel(1);
        let netns = netns.clone();
        let run = move || {
            let bound = netns
                .enter()
                .and_then(|()| owner.assume())
                .and_then(|()| service.bind());
            match bound {
                Ok(sockets) => {
                    // The one who started this waits for it.
                    let _ = tell.send(Ok(()));
                    serve(&service, &sockets, &stopped);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        };
        let thread = thread::spawn(run);
        let bound = told.recv().expect("a service that begins");
        bound.expect("sockets to serve");
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }
}

fn serve(service: &impl Serve, Sockets { tcp, udp }: &Sockets, stopped: &PipeReader) {
    let fds = tcp
        .iter()
        .map(AsFd::as_fd)
        .chain(udp.iter().map(AsFd::as_fd))
        .chain([stopped.as_fd()]);
    let mut waiting: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    loop {
        poll(&mut waiting, PollTimeout::NONE).expect("poll");
        let mut ready = waiting.iter().map(|fd| fd.any() == Some(true));
        for (listener, _) in tcp.iter().zip(&mut ready).filter(|(_, ready)| *ready) {
            // Clients that gave up are ignored.
            let _ = accept(service, listener);
        }
        for (receiver, _) in udp.iter().zip(&mut ready).filter(|(_, ready)| *ready) {
            let _ = service.serve_datagram(receiver);
        }
        if ready.next() == Some(true) {
            return;
        }
    }
}

fn accept(service: &impl Serve, listener: &TcpListener) -> io::Result<()> {
    let (stream, client) = listener.accept()?;
    socket::patient(&stream)?;
    service.serve_connection(stream, client)
}
