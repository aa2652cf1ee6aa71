//! Capabilities that the plugin requests (CNI specification 1.1.0, section 3, "Deriving `runtimeConfig`").

/// The capability for the annotations of the pod: containerd since 1.5, CRI-O since 1.28.
pub const POD_ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
