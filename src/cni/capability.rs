//! Capabilities that the plugin asks runtimes for (CNI specification 1.1.0, section 3, "Deriving `runtimeConfig`").

/// The capability by which a runtime hands over the annotations of the pod: containerd since 1.5, CRI-O since 1.28.
pub const POD_ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
