//! Sysctls under `/proc/sys`. Those below `net` belong to the network namespace of this thread.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A sysctl that could not be written.
#[derive(Debug, Error)]
#[error("{name} could not be set to {value:?}: {reason}.{}", hint(.reason.kind()))]
pub struct SysctlError {
    name: String,
    value: String,
    reason: io::Error,
}

fn hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ReadOnlyFilesystem => " /proc/sys is read-only in a container that is not privileged",
        io::ErrorKind::PermissionDenied => " It needs root, or NET_ADMIN for a network setting",
        io::ErrorKind::NotFound => " Is its kernel module loaded?",
        _ => "",
    }
}

/// Sets `name`, whose parts are separated by dots, to `value`.
///
/// # Errors
/// The sysctl is missing, or cannot be written, or not with this value.
fn write(name: &str, value: &str) -> Result<(), SysctlError> {
    fs::write(path(name), value).map_err(|reason| SysctlError {
        name: name.to_owned(),
        value: value.to_owned(),
        reason,
    })
}

/// Sets `name` to `value`, unless its value is at least as large. Returns whether it was set.
///
/// # Errors
/// The sysctl is missing, cannot be written, or is not a number.
pub fn raise(name: &str, value: u32) -> Result<bool, SysctlError> {
    let failed = |reason| SysctlError {
        name: name.to_owned(),
        value: value.to_string(),
        reason,
    };
    let text = fs::read_to_string(path(name)).map_err(failed)?;
    let not_a_number = || failed(io::ErrorKind::InvalidData.into());
    let now: u32 = text.trim().parse().map_err(|_| not_a_number())?;
    if now >= value {
        return Ok(false);
    }
    write(name, &value.to_string()).map(|()| true)
}

/// Sets `name` to `value` and returns the previous value. It tries /proc, then these mount points of other proc file
/// systems.
///
/// # Errors
/// The sysctl is missing or cannot be written in all of them.
pub fn replace(other_proc: &[PathBuf], name: &str, value: &str) -> Result<String, SysctlError> {
    let in_proc = |proc: &Path| -> io::Result<String> {
        let path = proc.join("sys").join(name.replace('.', "/"));
        let before = fs::read_to_string(&path)?;
        fs::write(&path, value)?;
        Ok(before.trim_end().to_owned())
    };
    let attempts = std::iter::once(Path::new("/proc")).chain(other_proc.iter().map(PathBuf::as_path));
    let mut first = None;
    for proc in attempts {
        match in_proc(proc) {
            Ok(before) => return Ok(before),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(SysctlError {
        name: name.to_owned(),
        value: value.to_owned(),
        reason: first.unwrap_or_else(|| io::ErrorKind::NotFound.into()),
    })
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_below_proc() {
        let path = path("net.netfilter.nf_conntrack_tcp_timeout_close_wait");
        assert_eq!(
            path,
            Path::new("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait")
        );
    }

    #[test]
    fn missing_sysctl_is_named_in_the_error() {
        let error = write("net.netfilter.no_such_setting", "1").unwrap_err().to_string();
        assert!(
            error.contains("net.netfilter.no_such_setting could not be set to \"1\""),
            "{error}"
        );
    }
}
