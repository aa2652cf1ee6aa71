//! Durations.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::Invalid;

/// Reads a duration like Go's `time.ParseDuration`, except negative ones: `5s`, `1m30s`, `1.5h`, `0`.
pub fn parse_duration(text: &str) -> Result<Duration, Invalid> {
    let bare = text.strip_prefix('+').unwrap_or(text);
    let seconds = if bare == "0" { Some(0.0) } else { seconds(bare) };
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| Invalid::new(text, "a duration, such as 5s, 500ms or 1m30s"))
}

/// A timeout of the kernel, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeout(NonZeroU32);

impl Timeout {
    /// Twenty days. The kernel counts in ticks, and 32 bits do not hold many more.
    pub const MAX: Self = match Self::new(20 * 86_400) {
        Some(timeout) => timeout,
        None => unreachable!(),
    };

    /// A timeout of this many seconds; `None` if it is 0 or above [`Self::MAX`].
    pub const fn new(seconds: u32) -> Option<Self> {
        match NonZeroU32::new(seconds) {
            Some(seconds) if seconds.get() <= 20 * 86_400 => Some(Self(seconds)),
            _ => None,
        }
    }

    /// The number of seconds.
    pub const fn seconds(self) -> u32 {
        self.0.get()
    }

    /// Reads a duration as [`parse_duration`] does, or a number of seconds; `None` for 0.
    ///
    /// # Errors
    /// The duration is not in whole seconds, or too long.
    pub fn parse(text: &str) -> Result<Option<Self>, Invalid> {
        let expected = || format!("0, or whole seconds up to {}, such as 90s, 5m or 1h", Self::MAX);
        let invalid = |_| Invalid::new(text, expected());
        let text = text.trim();
        let duration = match text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => parse_duration(text).map_err(invalid)?,
        };
        if duration.is_zero() {
            return Ok(None);
        }
        let whole = u32::try_from(duration.as_secs())
            .ok()
            .filter(|_| duration.subsec_nanos() == 0);
        whole
            .and_then(Self::new)
            .map(Some)
            .ok_or_else(|| Invalid::new(text, expected()))
    }
}

/// In the largest unit that gives a whole number.
impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds() {
            hours if hours.is_multiple_of(3600) => write!(f, "{}h", hours / 3600),
            minutes if minutes.is_multiple_of(60) => write!(f, "{}m", minutes / 60),
            seconds => write!(f, "{seconds}s"),
        }
    }
}

fn seconds(mut rest: &str) -> Option<f64> {
    let mut sum = None;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum = Some(sum.unwrap_or(0.0) + number.parse::<f64>().ok()? * unit);
        rest = after;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_whole_seconds_and_read_back() {
        for (text, written, seconds) in [
            ("1s", "1s", 1),
            ("3600", "1h", 3600),
            ("90s", "90s", 90),
            ("2m30s", "150s", 150),
            (" 60s ", "1m", 60),
            ("120h", "120h", 432_000),
            ("480h", "480h", 20 * 86_400),
        ] {
            let timeout = Timeout::parse(text).unwrap().unwrap();
            assert_eq!((timeout.seconds(), timeout.to_string().as_str()), (seconds, written));
            assert_eq!(Timeout::parse(written), Ok(Some(timeout)));
        }
        assert_eq!((Timeout::parse("0"), Timeout::parse("0s")), (Ok(None), Ok(None)));
        for text in ["", "-5", "500ms", "1.5s", "-1s", "480h1s", "99999999999999999999h"] {
            assert!(Timeout::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_like_go() {
        for (text, milliseconds) in [
            ("5s", 5_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("+2s", 2_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "5x",
            "1..s",
            "5s3",
            "1e3s",
            "99999999999999999999h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
