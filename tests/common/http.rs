//! The HTTP of the tests: one request, one answer, the end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

/// Asks for `path`; returns the body of the answer, empty where the connection ended without one.
pub fn get(mut stream: TcpStream, path: &str) -> io::Result<String> {
    let mut answer = String::new();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        stream.peer_addr()?
    );
    let ended = stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_string(&mut answer));
    match ended {
        Err(error) if !matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => return Err(error),
        _ => {}
    }
    Ok(answer
        .split_once("\r\n\r\n")
        .map_or_else(String::new, |(_, body)| body.to_owned()))
}

/// Answers any request.
pub fn answer(mut stream: TcpStream, body: &str) -> io::Result<()> {
    let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&chunk[..length]),
        }
    }
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
