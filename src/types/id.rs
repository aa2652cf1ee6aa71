//! UIDs and GIDs of socket owners.

use std::path::PathBuf;
use std::{fmt, io};

use thiserror::Error;

use super::ranges::{Number, Range, Ranges};
use super::{Invalid, list};

/// The reason why `/etc/passwd` or `/etc/group` cannot be read.
#[derive(Debug, Error)]
pub enum AccountsError {
    /// The file does not exist.
    #[error("{} does not exist; give the number", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// The file exists and cannot be read.
    #[error("{} cannot be read ({source}); give the number", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
}

/// The names of users and groups of `/etc/passwd` and `/etc/group`.
///
/// A trait, so that reading options needs no I/O; `linux::accounts` reads the files.
pub trait Accounts {
    /// The UID of the user called `name`.
    ///
    /// # Errors
    /// The list of users cannot be read.
    fn uid(&self, name: &str) -> Result<Option<u32>, AccountsError>;
    /// The GID of the group called `name`.
    ///
    /// # Errors
    /// The list of groups cannot be read.
    fn gid(&self, name: &str) -> Result<Option<u32>, AccountsError>;
    /// Whether there is a user with this UID.
    ///
    /// # Errors
    /// The list of users cannot be read.
    fn has_uid(&self, uid: u32) -> Result<bool, AccountsError>;
}

/// An [`Accounts`] without any users and groups: names are rejected.
pub struct NoAccounts;

impl Accounts for NoAccounts {
    fn uid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        Ok(None)
    }

    fn gid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        Ok(None)
    }

    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Ok(false)
    }
}

/// The common interface of [`Uid`] and [`Gid`].
pub trait Id: Number {
    /// The kind in messages: `UID` or `GID`.
    const WHAT: &'static str;
    /// The kind of account in messages: `user` or `group`.
    const NAMED: &'static str;

    /// The ID, or `None` for 4294967295: `(uid_t) -1`, which is invalid to the kernel.
    fn new(number: u32) -> Option<Self>;

    /// The ID's number.
    fn get(self) -> u32;

    /// Looks up the ID of `name`.
    ///
    /// # Errors
    /// The list cannot be read.
    fn look_up(accounts: &dyn Accounts, name: &str) -> Result<Option<u32>, AccountsError>;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $named:literal, $look_up:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl Number for $name {
            const MIN: Self = Self(0);
            const MAX: Self = Self(u32::MAX - 1);

            fn next(self) -> Option<Self> {
                <Self as Id>::new(self.0.wrapping_add(1))
            }
        }

        impl Id for $name {
            const WHAT: &'static str = $what;
            const NAMED: &'static str = $named;

            fn new(number: u32) -> Option<Self> {
                (number != u32::MAX).then_some(Self(number))
            }

            fn get(self) -> u32 {
                self.0
            }

            fn look_up(accounts: &dyn Accounts, name: &str) -> Result<Option<u32>, AccountsError> {
                accounts.$look_up(name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A user ID. 32 bits wide: OpenShift's are above 1,000,000,000.
    Uid, "UID", "user", uid
}
id! {
    /// A group ID.
    Gid, "GID", "group", gid
}

/// A set of user IDs.
pub type Uids = Ranges<Uid>;
/// A set of group IDs.
pub type Gids = Ranges<Gid>;

/// Reads a comma-separated list of IDs, ranges `a-b`, and names that `accounts` know.
pub fn parse_ids<I: Id>(text: &str, accounts: &dyn Accounts) -> Result<Ranges<I>, Vec<Invalid>> {
    list(text, Ranges::everything, |item| {
        number_or_range(item)
            .map(Ok)
            .or_else(|| named(item, accounts).transpose())
            .unwrap_or_else(|| Err(Invalid::new(item, expected::<I>())))
    })
}

fn expected<I: Id>() -> String {
    format!(
        "a {} from 0 to {}, a range a-b, or the name of a {} that exists",
        I::WHAT,
        I::MAX,
        I::NAMED
    )
}

fn number_or_range<I: Id>(item: &str) -> Option<Range<I>> {
    let number = |text: &str| text.trim().parse().ok().and_then(I::new);
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    Range::new(number(first)?, number(last)?)
}

/// Names may contain anything but `:` and `/`, so the lookup decides; numbers are read before.
fn named<I: Id>(item: &str, accounts: &dyn Accounts) -> Result<Option<Range<I>>, Invalid> {
    if !item.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return Ok(None);
    }
    let number =
        I::look_up(accounts, item).map_err(|error| Invalid::new(item, format!("{} ({error})", expected::<I>())))?;
    Ok(number.and_then(I::new).map(Range::single))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Known;

    impl Accounts for Known {
        fn uid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
            Ok((name == "envoy-proxy").then_some(1500))
        }

        fn gid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
            Err(AccountsError::Unreadable {
                file: "/etc/group".into(),
                source: io::ErrorKind::PermissionDenied.into(),
            })
        }

        fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
            Ok(false)
        }
    }

    #[test]
    fn numbers_ranges_and_names_are_read() {
        let uids: Uids = parse_ids("1337,2000-2005,envoy-proxy,0", &Known).unwrap();
        assert_eq!(uids.to_string(), "0,1337,1500,2000-2005");
    }

    #[test]
    fn uids_above_65535_are_read() {
        let uids: Uids = parse_ids("1000680000-1000689999,4294967294", &NoAccounts).unwrap();
        assert_eq!(uids.to_string(), "1000680000-1000689999,4294967294");
    }

    #[test]
    fn unknown_names_and_invalid_numbers_are_rejected() {
        let errors = parse_ids::<Uid>("nosuch,4294967295,-1,5-4", &Known).unwrap_err();
        let values: Vec<&str> = errors.iter().map(|e| e.value.as_str()).collect();
        assert_eq!(values, ["nosuch", "4294967295", "-1", "5-4"]);
    }

    #[test]
    fn unreadable_group_files_are_reported() {
        let errors = parse_ids::<Gid>("envoy", &Known).unwrap_err();
        assert!(
            errors[0]
                .expected
                .contains("/etc/group cannot be read (permission denied)"),
            "{:?}",
            errors[0]
        );
    }
}
