//! The CNI plugin as a runtime runs it: variables, a NetConf on standard input, the program itself, real namespaces.

mod nomad;
mod pods;
mod policy;
#[path = "../../common/cni.rs"]
mod request;
mod verbs;

pub use self::request::{ANNOTATIONS, has_rules, request};
use self::request::{Request, error, plugin};
