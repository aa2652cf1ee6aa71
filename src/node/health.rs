//! The answers for probes and Prometheus: as much HTTP (RFC 9112) as that takes, one request a connection.
//!
//! A few threads, so that a few connections at most are open; the kernel keeps the others waiting. Each has a short
//! time for all of its request.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::NodeError;
use super::metrics::Metrics;

const THREADS: usize = 4;
/// The longest request, in bytes.
const LONGEST: usize = 8192;
/// The time that a connection has.
const TIME: Duration = Duration::from_secs(2);

/// Answers at `address`, from now on. Returns the address, whose port is known now if any was asked for.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(address: SocketAddr, metrics: &Arc<Metrics>) -> Result<SocketAddr, NodeError> {
    let failed = |reason| NodeError::Listen { address, reason };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    for _ in 0..THREADS {
        let listener = listener.try_clone().map_err(failed)?;
        let metrics = Arc::clone(metrics);
        let accept = move || {
            loop {
                let served = listener.accept().and_then(|(stream, _)| serve_one(stream, &metrics));
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection for health or metrics");
                    // Where accepting itself fails, as without file descriptors, it fails again at once.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        };
        thread::Builder::new()
            .name("health".to_owned())
            .spawn(accept)
            .map_err(failed)?;
    }
    Ok(bound)
}

fn serve_one(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let request = read_request(&mut stream)?;
    let (status, body) = match request.lines().next().and_then(path) {
        Some(path) => answer(path, metrics),
        None => ("400 Bad Request", "only GET of HTTP/1\n".to_owned()),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.set_write_timeout(Some(TIME))?;
    stream.write_all(answer.as_bytes())
}

/// Reads a request up to the empty line, or as much of it as there may be: whoever gets an answer before having sent
/// everything might miss it.
fn read_request(stream: &mut TcpStream) -> io::Result<String> {
    let deadline = Instant::now() + TIME;
    let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < LONGEST {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => request.extend_from_slice(&chunk[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&request).into_owned())
}

/// The path that a request line asks for.
fn path(line: &str) -> Option<&str> {
    let (target, version) = line.strip_prefix("GET ")?.split_once(' ')?;
    version.starts_with("HTTP/1.").then(|| target.split('?').next())?
}

const OK: &str = "200 OK";
const UNAVAILABLE: &str = "503 Service Unavailable";

fn answer(path: &str, metrics: &Metrics) -> (&'static str, String) {
    match path {
        "/readyz" => match metrics.missing() {
            None => (OK, "ok\n".to_owned()),
            Some(missing) => (UNAVAILABLE, format!("{missing}\n")),
        },
        "/healthz" if metrics.is_alive() => (OK, "ok\n".to_owned()),
        "/healthz" => (UNAVAILABLE, "the installer hangs\n".to_owned()),
        "/metrics" => (OK, metrics.exposition()),
        _ => ("404 Not Found", "there are /readyz, /healthz and /metrics\n".to_owned()),
    }
}

/// What the installer that answers at `address` says at `/readyz`; `None` where none answers.
pub fn ask(address: SocketAddr) -> Option<String> {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, TIME)?;
        stream.set_read_timeout(Some(TIME))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(LONGEST as u64).read_to_string(&mut answer)?;
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
    fn what_is_asked_is_answered_and_all_else_is_refused() {
        for (request, expected) in [
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
            ("GET /readyz HTTP/1.1\r\n\r\n", "503 Service Unavailable"),
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
            ("GET /metrics\r\n\r\n", "400 Bad Request"),
            ("GET /metrics HTTP/2\r\n\r\n", "400 Bad Request"),
            ("\u{1}\r\n\r\n", "400 Bad Request"),
            (&format!("GET /{}", "x".repeat(LONGEST - 5)), "400 Bad Request"),
        ] {
            assert_eq!(status(request), format!("HTTP/1.1 {expected}"), "{request}");
        }
    }

    #[test]
    fn connections_that_say_nothing_do_not_keep_others_out_for_long() {
        let metrics = Arc::new(Metrics::default());
        let address = serve(SocketAddr::from(([127, 0, 0, 1], 0)), &metrics).unwrap();
        let idle: Vec<_> = (0..THREADS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let started = Instant::now();
        while ask(address).is_none() {
            assert!(started.elapsed() < 10 * TIME);
        }
        drop(idle);
    }
}
