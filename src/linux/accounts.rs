//! Names of users and groups, from `/etc/passwd` and `/etc/group` alone (passwd(5), group(5)).
//!
//! The C library would ask whatever services nsswitch.conf names. A static binary cannot load them, and in a half-built
//! network namespace they hang.

use std::fs;
use std::io::ErrorKind;

use crate::types::Accounts;

const PASSWD: &str = "/etc/passwd";

/// The accounts of the file system that this process sees.
pub struct AccountFiles;

impl Accounts for AccountFiles {
    fn uid(&self, name: &str) -> Result<Option<u32>, String> {
        look_up(PASSWD, name)
    }

    fn gid(&self, name: &str) -> Result<Option<u32>, String> {
        look_up("/etc/group", name)
    }

    fn has_uid(&self, uid: u32) -> Result<bool, String> {
        read(PASSWD, |text| has_number(text, uid))
    }
}

fn look_up(file: &str, name: &str) -> Result<Option<u32>, String> {
    read(file, |text| number(text, name))
}

fn read<T>(file: &str, look: impl Fn(&str) -> T) -> Result<T, String> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(look(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!("there is no {file} here; give the number")),
        Err(error) => Err(format!("{file}: {error}")),
    }
}

/// Both files have the name first and the number third.
fn number(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        fields.nth(1)?.trim().parse().ok()
    })
}

fn has_number(text: &str, number: u32) -> bool {
    let of_line = |line: &str| line.split(':').nth(2)?.trim().parse().ok();
    text.lines().any(|line| of_line(line) == Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_whole_or_not_at_all() {
        let text = "root:x:0:0:root:/root:/bin/bash\n# envoys\nenvoy:x:1500:1500::/:\nenvoy2:x:1501::\nbad:x::\n";
        assert_eq!(number(text, "envoy"), Some(1500));
        assert_eq!(number(text, "envoy2"), Some(1501));
        assert_eq!(number(text, "env"), None);
        assert_eq!(number(text, "bad"), None);
        assert!(has_number(text, 1501) && !has_number(text, 150) && !has_number("# kuma\n", 0));
    }
}
