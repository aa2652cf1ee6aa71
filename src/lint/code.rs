//! The table of codes: one definition gives what is printed and what is documented. Codes never change their meaning.

/// What all findings of a code have in common.
pub struct Explanation {
    /// The code, as it is printed.
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is found.
    pub title: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The pod does not start, or its traffic bypasses the proxy or comes back to it.
    Error,
    /// It may do something else than what is meant.
    Warning,
    /// It says something that has no effect.
    Note,
}

impl Level {
    /// What it is called, in SARIF and in the documentation.
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
        /// What is found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each code is explained in the table")]
        pub enum Code {
            $($code,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// What it means.
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
         pass it over. An init container would redirect the traffic of the whole node.",
        "Take hostNetwork away, or keep the pod out of the mesh on purpose (traffic.sidetrack.dev/redirect: \"false\").";
    ExcludedNamespace "ST102" Warning "The namespace is excluded",
        "The CNI plugin lets pods of kube-system and kube-public through before it looks at anything else \
         (excludeNamespaces of its NetConf), and injectors of meshes do the same.",
        "Move the pod to another namespace, or take this one from excludeNamespaces.";
    DnsPolicy "ST103" Warning "The DNS policy goes past the cluster's name servers while DNS is captured",
        "What the proxy does not know itself goes on to servers that do not know the cluster's names. Lookups of a server \
         that dns-servers does not list are not captured at all.",
        "Use dnsPolicy ClusterFirst, or list the pod's servers in dns-servers.";
    ProxyUser "ST201" Error "An application runs as the proxy's user",
        "Traffic of the proxy's user is left alone, or it would come back to the proxy for ever. All that this container \
         sends bypasses the proxy.",
        "Give the container a runAsUser of its own.";
    ProxyGroup "ST202" Error "An application runs as the proxy's group",
        "Traffic of the proxy's group is left alone, or it would come back to the proxy for ever. All that this container \
         sends bypasses the proxy.",
        "Give the container a runAsGroup of its own.";
    ProxyUnknown "ST203" Error "The proxy runs as another user than the rules exempt",
        "What the proxy sends is redirected to the proxy again: no connection ever gets out of the pod.",
        "Run the proxy as the user or group of proxy-uid and proxy-gid, or tell these options whom it runs as.";
    MayChangeRules "ST204" Warning "An application may change the rules",
        "A process with NET_ADMIN in the pod's network namespace can take the redirection away, or go around it with \
         a mark or a route of its own.",
        "Take privileged and NET_ADMIN from the container; give it the one capability that it needs.";
    ProxyPort "ST301" Error "An application's port is the proxy's",
        "Two processes cannot listen on one port: whichever starts second fails. What is redirected to this port would \
         reach the application as if it were the proxy.",
        "Let the application listen on another port, or move the proxy's.";
    MeshPort "ST302" Error "An application's port is one that the mesh uses",
        "The proxy and its agent listen on these ports in the pod, so that one of the two cannot start. Those that the \
         mesh serves to others are not redirected either.",
        "Let the application listen on a port outside of 15000 to 15090.";
    ServerFirst "ST303" Warning "A protocol in which the server speaks first, on a port whose name does not tell",
        "A proxy that has to find out the protocol waits for the client's first bytes, which do not come before the \
         server's: each connection hangs until a timeout, or fails.",
        "Begin the port's name with the protocol (mysql, mongo, tcp-smtp), in the Service too; or mark it opaque, or \
         exclude it.";
    TcpProbe "ST401" Warning "A tcpSocket probe of a captured port",
        "The proxy accepts the connection whether or not the application listens: the probe always succeeds.",
        "Use httpGet with rewriting, or exec; or exclude the port from capture.";
    HttpProbe "ST402" Warning "A probe or hook that nobody rewrites, of a captured port",
        "The kubelet is not in the mesh: it has no certificate, so that a proxy which insists on mutual TLS refuses it, \
         and its requests count as traffic. The container is restarted, or never ready.",
        "Let the mesh rewrite probes, use exec, or exclude the port from capture.";
    ProbeOfMesh "ST403" Warning "A probe of a port that is not the application's",
        "A port of the proxy or its agent answers: the probe says nothing of the application.",
        "Probe the port that the application listens on.";
    InvalidAnnotation "ST501" Error "The value of an annotation is not valid",
        "The CNI plugin refuses to start the pod; injectors refuse it, or ignore the annotation.",
        "Correct the value.";
    NotText "ST502" Error "The value of an annotation is not a text",
        "Annotations are texts: Kubernetes refuses the whole object.",
        "Put the value into quotes.";
    UnknownAnnotation "ST503" Warning "An annotation that nobody reads",
        "It looks like one about redirection, but has another name: it does nothing.",
        "Correct the name.";
    AnnotationOfWorkload "ST504" Warning "An annotation of the workload instead of its pods",
        "What redirects looks at pods. They get the annotations of the template, not those of the object around it.",
        "Move it to metadata.annotations of the pod template.";
    Contradiction "ST505" Warning "Annotations contradict each other",
        "One of them counts, and the other one does nothing. It depends on the tool which.",
        "Keep the one that is meant.";
    NoEffect "ST506" Note "An inclusion without effect",
        "Exclusion wins over inclusion, and what is included twice is included once.",
        "Take it from one of the lists.";
    Unseen "ST507" Warning "The manifest says something that a CNI plugin is not told",
        "Runtimes hand the annotations of a pod to CNI plugins, but neither its containers nor their environment: \
         sidetrack's plugin redirects the pod as if this were not there.",
        "Set the annotation, or let an init container redirect the pod, which is told by its arguments.";
    Misplaced "ST508" Warning "An annotation where nobody reads it",
        "Annotations of Services and Namespaces are not those of pods, and labels are no annotations: it does nothing.",
        "Move it to metadata.annotations of the pod, or of the pod template.";
    Capability "ST601" Error "The init container lacks a capability",
        "Without it the rules cannot be written, and the pod does not start.",
        "Add it to securityContext.capabilities.add.";
    NotRoot "ST602" Error "The init container does not run as root",
        "Container runtimes put an added capability of another user into the bounding set alone, where it is of no use.",
        "Set runAsUser: 0 and runAsNonRoot: false for it, or use an image whose binary has the file capability.";
    InvalidArguments "ST603" Error "The arguments of the init container are not valid",
        "It ends with an error before it writes a rule, and the pod does not start.",
        "Correct the arguments.";
    InitAfter "ST604" Error "An init container runs between redirection and proxy",
        "Its connections are redirected to a proxy that does not run yet, and fail.",
        "Move it before the redirection, make the proxy a native sidecar (restartPolicy: Always) before it, or run it as \
         the proxy's user.";
    TwoRedirectors "ST605" Warning "Two init containers redirect",
        "Both write rules; which one catches a connection depends on their order, and what one of them excludes the \
         other may capture.",
        "Keep one.";
}
