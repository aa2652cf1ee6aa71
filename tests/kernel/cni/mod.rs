//! The CNI plugin as a runtime runs it: variables, a NetConf on standard input, the program itself, real namespaces.

mod nomad;
mod pods;
#[path = "../../common/cni.rs"]
mod request;
mod verbs;

pub use self::request::{ANNOTATIONS, request};
use self::request::{Request, error, has_rules, plugin};
