//! What matters of a pod that runs already.

use std::net::IpAddr;

use sidetrack::backend::Namespace;
use sidetrack::backend::running::Holder;

use crate::common::Netns;

#[test]
fn an_empty_namespace_is_nobodys_and_has_no_addresses() {
    let seen = Netns::new().run(|| {
        let mut namespace = Namespace::default();
        let observed = namespace.observe().expect("an observation");
        (namespace.holder(&observed), namespace.addresses())
    });
    assert_eq!(seen.0.expect("an answer"), Holder::Nobody);
    assert_eq!(seen.1.expect("an answer"), Vec::<IpAddr>::new());
}
