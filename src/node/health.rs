//! The answers for probes and Prometheus: as much HTTP as that takes, one request a connection.
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
const MAX_REQUEST: usize = 8192;
const MAX_HEADERS: usize = 64;
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
    let deadline = Instant::now() + TIME;
    let mut request = Vec::new();
    let answer = loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&request) {
            Ok(httparse::Status::Complete(_)) => {
                break answer(
                    parsed.method.unwrap_or_default(),
                    parsed.path.unwrap_or_default(),
                    metrics,
                );
            }
            Ok(httparse::Status::Partial) if request.len() < MAX_REQUEST => {}
            Ok(httparse::Status::Partial) | Err(_) => break Answer::text("400 Bad Request", "bad request"),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&chunk[..length]),
        }
    };
    stream.set_write_timeout(Some(TIME))?;
    stream.write_all(answer.to_http().as_bytes())
}

struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
    with_body: bool,
}

impl Answer {
    fn new(status: &'static str, content_type: &'static str, body: String) -> Self {
        let with_body = true;
        Self {
            status,
            content_type,
            body,
            with_body,
        }
    }

    fn text(status: &'static str, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{body}\n"))
    }

    fn to_http(&self) -> String {
        format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
            self.status,
            self.content_type,
            self.body.len(),
            if self.with_body { self.body.as_str() } else { "" }
        )
    }
}

const OK: &str = "200 OK";
const UNAVAILABLE: &str = "503 Service Unavailable";

fn answer(method: &str, target: &str, metrics: &Metrics) -> Answer {
    if !matches!(method, "GET" | "HEAD") {
        return Answer::text("405 Method Not Allowed", "only GET and HEAD");
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let answer = match path {
        "/readyz" => match metrics.missing() {
            None => Answer::text(OK, "ok"),
            Some(missing) => Answer::text(UNAVAILABLE, &missing),
        },
        "/healthz" if metrics.is_alive() => Answer::text(OK, "ok"),
        "/healthz" => Answer::text(UNAVAILABLE, "the installer hangs"),
        "/metrics" => Answer::new(OK, "text/plain; version=0.0.4; charset=utf-8", metrics.exposition()),
        "/status" => Answer::new(OK, "application/json", format!("{:#}\n", metrics.status())),
        _ => Answer::text("404 Not Found", "there are /readyz, /healthz, /metrics and /status"),
    };
    Answer {
        with_body: method == "GET",
        ..answer
    }
}

/// Asks the service at `address` for its state; `None` where none answers.
pub fn ask(address: SocketAddr) -> Option<serde_json::Value> {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, TIME)?;
        stream.set_read_timeout(Some(TIME))?;
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(MAX_REQUEST as u64).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
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
        assert_eq!(status("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200 OK");
        assert_eq!(status("HEAD /metrics?x=1 HTTP/1.0\r\n\r\n"), "HTTP/1.1 200 OK");
        assert_eq!(
            status("GET /readyz HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 503 Service Unavailable"
        );
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
        assert_eq!(
            status("POST /metrics HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 405 Method Not Allowed"
        );
        assert_eq!(status("\u{1}\r\n\r\n"), "HTTP/1.1 400 Bad Request");
        let long = format!("GET /{}", "x".repeat(MAX_REQUEST - "GET /".len()));
        assert_eq!(status(&long), "HTTP/1.1 400 Bad Request");
    }

    #[test]
    fn connections_that_say_nothing_do_not_keep_others_out_for_long() {
        let metrics = Arc::new(Metrics::default());
        let address = serve(SocketAddr::from(([127, 0, 0, 1], 0)), &metrics).unwrap();
        let idle: Vec<_> = (0..2 * THREADS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let started = Instant::now();
        while ask(address).is_none() {
            assert!(started.elapsed() < 4 * TIME);
        }
        drop(idle);
    }
}
