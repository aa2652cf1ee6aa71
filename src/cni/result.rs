//! The answers on standard output (CNI specification 1.1.0, section 5).

use serde_json::{Value, json};

use super::error::Error;
use super::version::Version;

/// The output and the exit code of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The bytes for standard output.
    pub stdout: Vec<u8>,
    /// The exit code.
    pub code: u8,
}

impl Answer {
    /// Success without output.
    pub fn nothing() -> Self {
        Self::success(Vec::new())
    }

    /// Success with a result.
    pub fn success(stdout: Vec<u8>) -> Self {
        Self { stdout, code: 0 }
    }

    /// An error in the format of `version`.
    pub fn error(version: Version, error: &Error) -> Self {
        let mut object = json!({
            "cniVersion": version.as_str(),
            "code": error.code().number(),
            "msg": error.message(),
        });
        if let (Some(details), Some(object)) = (error.details(), object.as_object_mut()) {
            object.insert("details".to_owned(), details.into());
        }
        Self {
            stdout: object.to_string().into_bytes(),
            code: 1,
        }
    }

    /// The supported versions. `requested` is the version of the request, which the answer repeats.
    pub fn versions(requested: &str) -> Self {
        let supported = Version::ALL.map(Version::as_str);
        let object = json!({ "cniVersion": requested, "supportedVersions": supported });
        Self::success(object.to_string().into_bytes())
    }

    /// The result of ADD: that of the previous plugin, unchanged, or an empty one.
    pub fn result(version: Version, previous: Option<&str>) -> Self {
        let result = previous.map_or_else(|| empty(version).to_string(), str::to_owned);
        Self::success(result.into_bytes())
    }
}

/// A result without interfaces and addresses. It is the same in all supported versions.
fn empty(version: Version) -> Value {
    json!({ "cniVersion": version.as_str(), "interfaces": [], "ips": [], "routes": [], "dns": {} })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_result_has_requested_version() {
        let answer = Answer::result(Version::V0_4_0, None);
        let expected = r#"{"cniVersion":"0.4.0","interfaces":[],"ips":[],"routes":[],"dns":{}}"#;
        assert_eq!(String::from_utf8(answer.stdout).unwrap(), expected);
    }
}
