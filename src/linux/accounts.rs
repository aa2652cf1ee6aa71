//! Names of users and groups, from `/etc/passwd` and `/etc/group` alone (passwd(5), group(5)).
//!
//! The C library would ask whatever services nsswitch.conf names. A static binary cannot load them, and in a half-built
//! network namespace they hang.

use std::fs;
use std::io::ErrorKind;

use crate::types::Accounts;

/// The accounts of the file system that this process sees.
pub struct AccountFiles;

impl Accounts for AccountFiles {
    fn uid(&self, name: &str) -> Result<Option<u32>, String> {
        look_up("/etc/passwd", name)
    }

    fn gid(&self, name: &str) -> Result<Option<u32>, String> {
        look_up("/etc/group", name)
    }
}

fn look_up(file: &str, name: &str) -> Result<Option<u32>, String> {
    match fs::read(file) {
        Ok(bytes) => Ok(number(&bytes, name)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!("there is no {file} here; give the number")),
        Err(error) => Err(format!("{file}: {error}")),
    }
}

/// Both files have the name first and the number third. What else is in a line, such as the name of a person, may be in
/// any encoding.
fn number(bytes: &[u8], name: &str) -> Option<u32> {
    bytes.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        if fields.next() != Some(name.as_bytes()) {
            return None;
        }
        str::from_utf8(fields.nth(1)?).ok()?.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_whole_or_not_at_all() {
        let text = b"root:x:0:0:root:/root:/bin/bash\n# envoys\nenvoy:x:1500:1500::/:\nenvoy2:x:1501::\nbad:x::\n";
        assert_eq!(number(text, "envoy"), Some(1500));
        assert_eq!(number(text, "envoy2"), Some(1501));
        assert_eq!(number(text, "env"), None);
        assert_eq!(number(text, "bad"), None);
    }

    #[test]
    fn a_line_that_is_no_utf_8_does_not_hide_the_others() {
        let bytes = b"jose:x:1000:1000:Jos\xe9:/home/jose:/bin/sh\nistio-proxy:x:998:998::/:\n";
        assert_eq!(number(bytes, "istio-proxy"), Some(998));
        assert_eq!(number(bytes, "jose"), Some(1000));
    }
}
