//! Resolves names of users and groups from `/etc/passwd` and `/etc/group` alone (passwd(5), group(5)).
//!
//! The C library would query the services in nsswitch.conf. A static binary cannot load them, and in an incomplete
//! network namespace they may hang.

use std::fs;
use std::io::ErrorKind;

use crate::types::{Accounts, AccountsError};

const PASSWD: &str = "/etc/passwd";

/// The accounts in the file system of this process.
pub struct AccountFiles;

impl Accounts for AccountFiles {
    fn uid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        look_up(PASSWD, name)
    }

    fn gid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        look_up("/etc/group", name)
    }

    fn has_uid(&self, uid: u32) -> Result<bool, AccountsError> {
        read(PASSWD, |bytes| has_number(bytes, uid))
    }
}

fn look_up(file: &str, name: &str) -> Result<Option<u32>, AccountsError> {
    read(file, |bytes| number(bytes, name))
}

fn read<T>(file: &str, search: impl Fn(&[u8]) -> T) -> Result<T, AccountsError> {
    let bytes = fs::read(file).map_err(|source| {
        let file = file.into();
        match source.kind() {
            ErrorKind::NotFound => AccountsError::Missing { file },
            _ => AccountsError::Unreadable { file, source },
        }
    })?;
    Ok(search(&bytes))
}

/// The fields of each line. They may be in any encoding, as the names of persons are.
fn lines(bytes: &[u8]) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.map(|line| line.split(|byte| *byte == b':'))
}

fn parsed(field: &[u8]) -> Option<u32> {
    str::from_utf8(field).ok()?.trim().parse().ok()
}

/// Finds an ID by name: both files have the name in the first field and the ID in the third.
fn number(bytes: &[u8], name: &str) -> Option<u32> {
    lines(bytes).find_map(|mut fields| {
        let is_meant = fields.next() == Some(name.as_bytes());
        fields.nth(1).filter(|_| is_meant).and_then(parsed)
    })
}

fn has_number(bytes: &[u8], number: u32) -> bool {
    lines(bytes).any(|mut fields| fields.nth(2).and_then(parsed) == Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_match() {
        let text = b"root:x:0:0:root:/root:/bin/bash\n# envoys\nenvoy:x:1500:1500::/:\nenvoy2:x:1501::\nbad:x::\n";
        assert_eq!(number(text, "envoy"), Some(1500));
        assert_eq!(number(text, "envoy2"), Some(1501));
        assert_eq!(number(text, "env"), None);
        assert_eq!(number(text, "bad"), None);
        assert!(has_number(text, 1501) && !has_number(text, 150) && !has_number(b"# kuma\n", 0));
    }

    #[test]
    fn invalid_utf8_in_one_line_does_not_hide_others() {
        let bytes = b"jose:x:1000:1000:Jos\xe9:/home/jose:/bin/sh\nistio-proxy:x:998:998::/:\n";
        assert_eq!(number(bytes, "istio-proxy"), Some(998));
        assert_eq!(number(bytes, "jose"), Some(1000));
    }
}
