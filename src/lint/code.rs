//! The table of codes, the source of output and documentation. The meaning of a code never changes.

/// The explanation of a code.
pub struct Explanation {
    /// The code, as it is printed.
    pub id: &'static str,
    /// The severity.
    pub level: Level,
    /// The problem.
    pub title: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The pod does not start, or its traffic bypasses the proxy or comes back to it.
    Error,
    /// The pod may behave differently than intended.
    Warning,
    /// A setting has no effect, or one that a reviewer should know.
    Note,
}

impl Level {
    /// The name in SARIF and in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

macro_rules! codes {
    ($($code:ident $id:literal $level:ident $title:literal, $why:literal, $fix:literal;)*) => {
        /// The kind of a finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each code is explained in the table")]
        pub enum Code {
            $($code,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// The explanation of this code.
            pub const fn explanation(self) -> &'static Explanation {
                match self {
                    $(Self::$code => &Explanation { id: $id, level: Level::$level, title: $title, why: $why, fix: $fix },)*
                }
            }
        }
    };
}

impl Code {
    /// The code, as it is printed.
    pub const fn id(self) -> &'static str {
        self.explanation().id
    }
}

codes! {
    HostNetwork "ST101" Warning "The pod uses the node's network",
        "A pod with hostNetwork has no network namespace of its own: nothing is redirected, and injectors and CNI plugins \
         skip it. An init container would redirect the traffic of the whole node.",
        "Remove hostNetwork, or exclude the pod from the mesh explicitly (traffic.sidetrack.dev/redirect: \"false\").";
    ExcludedNamespace "ST102" Warning "The namespace is excluded",
        "The CNI plugin skips pods of kube-system and kube-public before any other check (excludeNamespaces of its NetConf), \
         and so do the injectors of meshes.",
        "Move the pod to another namespace, or remove this one from excludeNamespaces.";
    DnsPolicy "ST103" Warning "The DNS policy bypasses the cluster's name servers while DNS is captured",
        "The proxy forwards the lookups that it cannot answer to servers that do not know the cluster's names. Lookups at a \
         server that dns-servers does not list are not captured.",
        "Use dnsPolicy ClusterFirst, or list the pod's servers in dns-servers.";
    ProxyUser "ST201" Error "An application runs as the proxy's user",
        "The rules exempt traffic of the proxy's user, since it would loop back to the proxy otherwise. All outbound traffic \
         of this container bypasses the proxy.",
        "Give the container a runAsUser of its own.";
    ProxyGroup "ST202" Error "An application runs as the proxy's group",
        "The rules exempt traffic of the proxy's group, since it would loop back to the proxy otherwise. All outbound traffic \
         of this container bypasses the proxy.",
        "Give the container a runAsGroup of its own.";
    ProxyUnknown "ST203" Error "The rules do not exempt the user that the proxy runs as",
        "The proxy's outbound connections are redirected to the proxy again: no connection leaves the pod.",
        "Run the proxy as the user or group of proxy-uid and proxy-gid, or set these options to the user or group that it runs as.";
    MayChangeRules "ST204" Warning "An application may change the rules",
        "A process with NET_ADMIN in the pod's network namespace can remove the redirection, or bypass it with \
         a mark or a route of its own.",
        "Remove privileged and NET_ADMIN from the container; add only the capability that it needs.";
    MayTakeMark "ST205" Warning "An application may mark its sockets like the proxy's",
        "The rules exempt sockets with the proxy's mark (proxy-mark). A process marks its own with NET_ADMIN, or since Linux \
         5.17 with NET_RAW, which container runtimes grant to every container that runs as root.",
        "Drop NET_RAW (capabilities.drop: [ALL]), and run the container as another user than root.";
    MaySendFrames "ST206" Warning "An application may send past the outbound policy",
        "Packets of packet sockets (AF_PACKET) do not pass the rules. They take NET_RAW, which most container runtimes grant \
         unless it is dropped.",
        "Drop NET_RAW, or ALL, in securityContext.capabilities.drop of the container.";
    Hole "ST207" Note "An annotation opens a hole in a policy",
        "The traffic that it excludes bypasses the proxy, although the pod has a policy of proxy-only. `bypasses` of a dry run \
         lists all such traffic, the proxy's own included.",
        "Remove the annotation, unless the application needs this traffic, and whoever audits it knows.";
    ProxyPort "ST301" Error "An application's port is the proxy's",
        "Two processes cannot listen on one port: the second one fails to start. Redirected connections would reach the \
         application instead of the proxy.",
        "Let the application listen on another port, or move the proxy's.";
    MeshPort "ST302" Error "An application's port is one that the mesh uses",
        "The proxy and its agent listen on these ports in the pod, so that the application or the proxy cannot start. \
         Ports that the mesh serves are not redirected either.",
        "Let the application listen on a port outside of 15000 to 15090.";
    ServerFirst "ST303" Warning "A server-first protocol on a port whose name does not declare it",
        "A proxy that detects the protocol waits for the client's first bytes, and the client waits for the server's: each \
         connection hangs until a timeout, or fails.",
        "Start the port's name with the protocol (mysql, mongo, tcp-smtp), in the Service too; or mark the port opaque, or \
         exclude it.";
    TcpProbe "ST401" Warning "A tcpSocket probe of a captured port",
        "The proxy accepts the connection whether or not the application listens: the probe always succeeds.",
        "Use httpGet with rewriting, or exec; or exclude the port from capture.";
    HttpProbe "ST402" Warning "A probe or hook of a captured port that the mesh does not rewrite",
        "The kubelet is not in the mesh: it has no certificate, so that a proxy in strict mTLS mode refuses it, and its \
         requests count as traffic. The container is restarted, or never becomes ready.",
        "Let the mesh rewrite probes, use exec, or exclude the port from capture.";
    ProbeOfMesh "ST403" Warning "A probe of a port that is not the application's",
        "The proxy or its agent answers on this port: the probe does not check the application.",
        "Probe the port that the application listens on.";
    InvalidAnnotation "ST501" Error "The value of an annotation is not valid",
        "The CNI plugin refuses to start the pod; injectors refuse it, or ignore the annotation.",
        "Correct the value.";
    NotText "ST502" Error "The value of an annotation is not a string",
        "Annotation values are strings: Kubernetes rejects the whole object.",
        "Quote the value.";
    UnknownAnnotation "ST503" Warning "An unknown annotation",
        "Its name resembles that of an annotation about redirection, but no tool reads it: it has no effect.",
        "Correct the name.";
    AnnotationOfWorkload "ST504" Warning "An annotation of the workload instead of its pods",
        "Injectors and CNI plugins read the annotations of pods, which come from the pod template, not from the workload.",
        "Move it to metadata.annotations of the pod template.";
    Contradiction "ST505" Warning "Annotations contradict each other",
        "Only one of them takes effect; which one depends on the tool.",
        "Keep only the intended one.";
    NoEffect "ST506" Note "An inclusion without effect",
        "Exclusions take precedence over inclusions, and a second inclusion of the same traffic changes nothing.",
        "Remove it from one of the lists.";
    Unseen "ST507" Warning "A setting of the manifest that a CNI plugin cannot see",
        "Container runtimes pass the annotations of a pod to CNI plugins, but neither its containers nor their environment: \
         sidetrack's plugin redirects the pod without this setting.",
        "Set the annotation, or redirect the pod with an init container, whose arguments can include the setting.";
    Misplaced "ST508" Warning "An annotation on the wrong object",
        "Annotations of Services and Namespaces are not those of pods, and labels are not annotations: it has no effect.",
        "Move it to metadata.annotations of the pod, or of the pod template.";
    Capability "ST601" Error "The init container lacks a capability",
        "Without it the rules cannot be written, and the pod does not start.",
        "Add it to securityContext.capabilities.add.";
    NotRoot "ST602" Error "The init container does not run as root",
        "For a user other than root, container runtimes add a capability to the bounding set only, which does not grant it.",
        "Set runAsUser: 0 and runAsNonRoot: false for it, or use an image whose binary has the file capability.";
    InvalidArguments "ST603" Error "The arguments of the init container are not valid",
        "It exits with an error before it writes a rule, and the pod does not start.",
        "Correct the arguments.";
    InitAfter "ST604" Error "An init container runs between redirection and proxy",
        "Its connections are redirected to a proxy that is not running yet, and fail.",
        "Move it before the redirection, make the proxy a native sidecar (restartPolicy: Always) before it, or run it as \
         the proxy's user.";
    TwoRedirectors "ST605" Warning "Two init containers redirect",
        "Both write rules; which of them captures a connection depends on their order, and one may capture what the other \
         excludes.",
        "Keep one.";
    InitBefore "ST606" Warning "An init container runs before the outbound policy",
        "What it sends is not rejected: there are no rules yet.",
        "Move the container that redirects before it, or redirect with the CNI plugin, whose rules are there before the first \
         process.";
}
