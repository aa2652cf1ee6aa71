//! The HTTP server for probes and Prometheus: the part of RFC 9112 that they need, one request per connection.
//!
//! One thread polls all connections, so that no connection blocks another. Each has a short time for its request and
//! response; where too many are open, the oldest is closed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::NodeError;
use super::metrics::{Format, Metrics};

/// How many connections may be open. Another one closes the oldest.
const MAX_CONNECTIONS: usize = 256;
/// How many connections are accepted before the open ones are served again.
const MAX_ACCEPTED: usize = 16;
/// The longest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 8192;
/// The time that a connection may be open: no shorter than the timeout of our liveness probe, since the kubelet of a busy
/// node may take seconds from connecting to its request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the server at `address`. Returns the bound address, which has the assigned port where port 0 was given.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(address: SocketAddr, metrics: &Arc<Metrics>) -> Result<SocketAddr, NodeError> {
    let failed = |reason| NodeError::Listen { address, reason };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let server = Server {
        listener,
        connections: VecDeque::new(),
        metrics: Arc::clone(metrics),
    };
    thread::Builder::new()
        .name("health".to_owned())
        .spawn(move || server.run())
        .map_err(failed)?;
    Ok(bound)
}

/// The listener and its connections, the oldest first.
struct Server {
    listener: TcpListener,
    connections: VecDeque<Connection>,
    metrics: Arc<Metrics>,
}

impl Server {
    fn run(mut self) -> ! {
        loop {
            // Ready connections before new ones: a burst of connections closes none whose request can be read.
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::debug!(%error, "polling health connections failed");
                    thread::sleep(Duration::from_millis(10));
                    continue;
                }
            };
            let (mut number, now, metrics) = (0, Instant::now(), &self.metrics);
            self.connections.retain_mut(|connection| {
                let is_ready = ready.connections[number];
                number += 1;
                let is_open = !is_ready || connection.advance(metrics);
                is_open && now < connection.deadline
            });
            if ready.listener {
                self.accept();
            }
        }
    }

    /// Waits until a descriptor is ready, or the oldest connection times out.
    fn wait(&self) -> io::Result<Ready> {
        let now = Instant::now();
        let deadline = self.connections.front().map(|oldest| oldest.deadline);
        let timeout = match deadline.map(|deadline| deadline.saturating_duration_since(now)) {
            // Rounded up: a wait that ends early would only start again.
            Some(left) => PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let poll_fd = self.connections.iter().map(Connection::poll_fd);
        let mut polled: Vec<PollFd> = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        polled.extend(poll_fd);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = polled.iter().map(|fd| fd.any().unwrap_or(true));
        Ok(Ready {
            listener: ready.next().unwrap_or(false),
            connections: ready.collect(),
        })
    }

    fn accept(&mut self) {
        for _ in 0..MAX_ACCEPTED {
            match self.listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    if self.connections.len() == MAX_CONNECTIONS {
                        self.connections.pop_front();
                    }
                    self.connections.push_back(Connection::new(stream));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "health connection failed");
                    // Without free file descriptors, accepting would fail again at once.
                    self.connections.pop_front();
                    thread::sleep(Duration::from_millis(10));
                    return;
                }
            }
        }
    }
}

/// The descriptors that are ready.
struct Ready {
    listener: bool,
    /// In the order of the connections.
    connections: Vec<bool>,
}

/// A connection: its request is read, then the response is written.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// The unsent rest of the response, once there is one.
    answer: Option<Vec<u8>>,
    deadline: Instant,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            request: Vec::new(),
            answer: None,
            deadline: Instant::now() + CONNECTION_TIMEOUT,
        }
    }

    fn poll_fd(&self) -> PollFd<'_> {
        let what = match self.answer {
            None => PollFlags::POLLIN,
            Some(_) => PollFlags::POLLOUT,
        };
        PollFd::new(self.stream.as_fd(), what)
    }

    /// Reads and writes without blocking. Returns whether the connection stays open.
    fn advance(&mut self, metrics: &Metrics) -> bool {
        let advanced = match self.answer {
            None => self.read(metrics),
            Some(_) => self.write(),
        };
        match advanced {
            Ok(is_open) => is_open,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => true,
            Err(error) => {
                tracing::debug!(%error, "health connection failed");
                false
            }
        }
    }

    /// Reads a request up to the empty line or its maximum: a client might miss a response that comes before it has
    /// sent its request.
    fn read(&mut self, metrics: &Metrics) -> io::Result<bool> {
        let mut chunk = [0; 1024];
        while !self.request.windows(4).any(|end| end == b"\r\n\r\n") && self.request.len() < MAX_REQUEST_BYTES {
            match self.stream.read(&mut chunk)? {
                0 => return Ok(false),
                length => self.request.extend_from_slice(&chunk[..length]),
            }
        }
        let request = String::from_utf8_lossy(&self.request);
        // Only /metrics differs by format; the other answers are plain text in either version of it.
        let (status, format, body) = match request.lines().next().and_then(path) {
            Some("/metrics") => {
                let format = Format::accepted(accept(&request));
                (OK, format, metrics.exposition(format))
            }
            Some(path) => {
                let (status, body) = answer(path, metrics);
                (status, Format::Prometheus, body)
            }
            None => {
                let body = "only GET of HTTP/1 is supported\n".to_owned();
                ("400 Bad Request", Format::Prometheus, body)
            }
        };
        let (length, content_type) = (body.len(), format.content_type());
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        self.answer = Some(answer.into_bytes());
        self.write()
    }

    fn write(&mut self) -> io::Result<bool> {
        let Some(answer) = &mut self.answer else {
            return Ok(true);
        };
        while !answer.is_empty() {
            let written = self.stream.write(answer)?;
            answer.drain(..written);
        }
        Ok(false)
    }
}

/// The path in a request line.
fn path(line: &str) -> Option<&str> {
    let (target, version) = line.strip_prefix("GET ")?.split_once(' ')?;
    version.starts_with("HTTP/1.").then(|| target.split('?').next())?
}

/// The value of the `Accept` header; empty without one.
fn accept(request: &str) -> &str {
    let mut headers = request.lines().skip(1).map_while(|line| line.split_once(':'));
    let accept = headers.find(|(name, _)| name.eq_ignore_ascii_case("accept"));
    accept.map_or("", |(_, value)| value.trim())
}

const OK: &str = "200 OK";
const UNAVAILABLE: &str = "503 Service Unavailable";

fn answer(path: &str, metrics: &Metrics) -> (&'static str, String) {
    match path {
        "/readyz" => {
            let note = metrics.note().map_or_else(String::new, |note| format!("; {note}"));
            match metrics.missing() {
                None => (OK, format!("ok{note}\n")),
                Some(missing) => (UNAVAILABLE, format!("{missing}{note}\n")),
            }
        }
        "/healthz" if metrics.is_alive() => (OK, "ok\n".to_owned()),
        "/healthz" => (UNAVAILABLE, "the installer hangs\n".to_owned()),
        _ => (
            "404 Not Found",
            "available paths: /readyz, /healthz and /metrics\n".to_owned(),
        ),
    }
}

/// The response of the installer at `address` to `/readyz`; `None` where no installer responds.
pub fn ask(address: SocketAddr) -> Option<String> {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, CONNECTION_TIMEOUT)?;
        stream.set_read_timeout(Some(CONNECTION_TIMEOUT))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(MAX_REQUEST_BYTES as u64).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.").then(|| body.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> String {
        let metrics = Arc::new(Metrics::default());
        let address = serve(SocketAddr::from(([127, 0, 0, 1], 0)), &metrics).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn known_paths_are_served_and_other_requests_refused() {
        for (request, expected) in [
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
            ("GET /readyz HTTP/1.1\r\n\r\n", "503 Service Unavailable"),
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
            ("GET /metrics\r\n\r\n", "400 Bad Request"),
            ("GET /metrics HTTP/2\r\n\r\n", "400 Bad Request"),
            ("\u{1}\r\n\r\n", "400 Bad Request"),
            (
                &format!("GET /{}", "x".repeat(MAX_REQUEST_BYTES - 5)),
                "400 Bad Request",
            ),
        ] {
            assert_eq!(status(request), format!("HTTP/1.1 {expected}"), "{request}");
        }
    }

    #[test]
    fn idle_connections_do_not_block_requests() {
        let metrics = Arc::new(Metrics::default());
        let address = serve(SocketAddr::from(([127, 0, 0, 1], 0)), &metrics).unwrap();
        let idle: Vec<_> = (0..4 * MAX_CONNECTIONS)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        for _ in 0..10 {
            assert!(ask(address).is_some());
        }
        drop(idle);
    }
}
