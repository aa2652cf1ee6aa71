//! Other processes: an own user namespace, a set-user-ID program.

use std::io;
use std::process::{Command, Stdio};

use crate::lab::{MARKER, PORT, Stage};

/// Sends by a shell, which needs no more than this to.
fn by_shell(mut shell: Command, stage: &Stage) -> io::Result<()> {
    let marker = String::from_utf8_lossy(MARKER);
    let script = format!("echo {marker} >/dev/udp/{}/{PORT}", stage.far(PORT).ip());
    let output = shell.args(["-c", &script]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// As root of a user namespace of its own, in the network namespace of the pod.
pub fn own_user_namespace(stage: &Stage) -> io::Result<()> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "bash"]);
    by_shell(unshare, stage)
}

/// With raw sockets there, which are the network namespace's to allow.
pub fn raw_in_own_user_namespace(stage: &Stage) -> io::Result<()> {
    let mut unshare = Command::new("unshare");
    let script = "import socket, sys\n\
                  v6 = ':' in sys.argv[1]\n\
                  s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, 253)\n\
                  s.sendto(sys.argv[2].encode(), (sys.argv[1], 0))";
    let to = stage.far(PORT).ip().to_string();
    let marker = String::from_utf8_lossy(MARKER);
    unshare.args(["--user", "--map-root-user", "python3", "-c", script, &to, &marker]);
    let output = unshare.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// In a network namespace of its own, which no link leads out of.
pub fn own_network_namespace(stage: &Stage) -> io::Result<()> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--net", "bash"]);
    by_shell(unshare, stage)
}

/// By a program that runs as the proxy's user, whoever starts it.
pub fn set_user_id(stage: &Stage) -> io::Result<()> {
    // -p: bash keeps the user that the mode of its file gives it.
    let mut shell = Command::new(crate::set_user_id_shell());
    shell.arg("-p");
    by_shell(shell, stage)
}
