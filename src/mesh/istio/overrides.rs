//! `proxy.istio.io/overrides`: the container `istio-proxy` as the pod's author wrote it. The injector merges it over that
//! of its template, and keeps it in this annotation, which so contains an overridden user.

use serde_json::Value;

use crate::mesh::annotations::Annotations;
use crate::mesh::annotations::table::{Meaning, Options, Reader};
use crate::mesh::is_true;
use crate::types::Invalid;

pub(super) const MEANING: Meaning = Meaning::Read(Reader {
    help: "of the container `istio-proxy`: securityContext.runAsUser = `proxy-uid` and runAsGroup = `proxy-gid`, 1337 \
           where they are 0, as the user is in TPROXY mode; of its environment ISTIO_META_DNS_CAPTURE, ISTIO_DUAL_STACK \
           and INVALID_DROP as in `proxy.istio.io/config`",
    read,
});

/// The user and group that are exempt where the proxy runs as root: Istio's rules never exempt root.
const IN_PLACE_OF_ROOT: &str = "1337";

fn read(text: &str, annotations: &Annotations) -> Result<Options, Invalid> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let document: Value =
        serde_json::from_str(text).map_err(|_| Invalid::new(text, "JSON with containers and initContainers"))?;
    let lists = ["initContainers", "containers"];
    let containers = lists.iter().filter_map(|list| document.get(list)?.as_array()).flatten();
    let mut proxies = containers.filter(|container| container.get("name").is_some_and(|name| name == "istio-proxy"));
    // Of several, the last one applies, like in Istio's plugin.
    let Some(proxy) = proxies.next_back() else {
        return Ok(Vec::new());
    };
    let tproxy = annotations.get("sidecar.istio.io/interceptionMode") == Some("TPROXY");
    let mut said = Vec::new();
    let mut owner = |option, field, always_root: bool| {
        let number = proxy
            .pointer(&format!("/securityContext/{field}"))
            .and_then(Value::as_u64);
        said.extend(number.map(|number| match number {
            0 => (option, IN_PLACE_OF_ROOT.to_owned()),
            _ if always_root => (option, IN_PLACE_OF_ROOT.to_owned()),
            number => (option, number.to_string()),
        }));
    };
    owner("proxy-uid", "runAsUser", tproxy);
    owner("proxy-gid", "runAsGroup", false);
    for (name, option) in [
        ("ISTIO_META_DNS_CAPTURE", "redirect-dns"),
        ("ISTIO_DUAL_STACK", "ip-family"),
        ("INVALID_DROP", "drop-invalid"),
    ] {
        let is_set = match variable(proxy, name) {
            Some(value) => is_true(value),
            None => continue,
        };
        match option {
            "ip-family" if is_set => said.push((option, "auto".to_owned())),
            "ip-family" => {}
            option => said.push((option, is_set.to_string())),
        }
    }
    Ok(said)
}

/// The value of a variable of a container; empty if it has no literal value.
fn variable<'c>(container: &'c Value, name: &str) -> Option<&'c str> {
    let mut variables = container.get("env")?.as_array()?.iter();
    let variable = variables.find(|variable| variable.get("name").is_some_and(|of| of == name))?;
    Some(variable.get("value").and_then(Value::as_str).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(overrides: &str, mode: &str) -> Options {
        let annotations = [("sidecar.istio.io/interceptionMode", mode)].into_iter().collect();
        read(overrides, &annotations).unwrap()
    }

    #[test]
    fn users_and_groups_of_the_proxy_are_read_from_either_list() {
        for list in ["containers", "initContainers"] {
            let overrides = format!(
                r#"{{"{list}": [{{"name": "app", "securityContext": {{"runAsUser": 1}}}},
                    {{"name": "istio-proxy", "securityContext": {{"runAsUser": 2000, "runAsGroup": 3000}}}}]}}"#
            );
            let expected = [("proxy-uid", "2000".to_owned()), ("proxy-gid", "3000".to_owned())];
            assert_eq!(said(&overrides, "REDIRECT"), expected);
        }
        assert_eq!(
            said(
                r#"{"containers": [{"name": "istio-proxy", "image": "auto"}]}"#,
                "REDIRECT"
            ),
            []
        );
        assert_eq!(said("", "REDIRECT"), []);
        assert!(read("{", &Annotations::default()).is_err());
    }

    #[test]
    fn root_is_never_exempt_and_tproxy_means_root() {
        let of = |user: u32, mode| {
            let overrides = format!(
                r#"{{"containers": [{{"name": "istio-proxy",
                    "securityContext": {{"runAsUser": {user}, "runAsGroup": {user}}}}}]}}"#
            );
            said(&overrides, mode)
        };
        let pair = |uid: &str, gid: &str| [("proxy-uid", uid.to_owned()), ("proxy-gid", gid.to_owned())];
        assert_eq!(of(0, "REDIRECT"), pair("1337", "1337"));
        assert_eq!(of(2000, "TPROXY"), pair("1337", "2000"));
    }

    #[test]
    fn variables_are_booleans_of_go() {
        let of = |value: &str| {
            let overrides = format!(
                r#"{{"containers": [{{"name": "istio-proxy", "env": [{{"name": "ISTIO_META_DNS_CAPTURE", {value}}},
                    {{"name": "ISTIO_DUAL_STACK", {value}}}]}}]}}"#
            );
            said(&overrides, "REDIRECT")
        };
        let on = [("redirect-dns", "true".to_owned()), ("ip-family", "auto".to_owned())];
        let off = [("redirect-dns", "false".to_owned())];
        assert_eq!(of(r#""value": "T""#), on);
        assert_eq!(of(r#""value": "yes""#), off);
        assert_eq!(of(r#""valueFrom": {}"#), off);
    }
}
