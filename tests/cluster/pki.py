"""The certificates and kubeconfigs of a cluster, by openssl."""

import pathlib
import string
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
DAYS = "30"
CLUSTER_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
CLIENTS = {  # name: subject
    "admin": "/O=system:masters/CN=admin",
    "apiserver-kubelet": "/CN=apiserver-kubelet",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
}


def openssl(directory, *words, stdin=""):
    subprocess.run(("openssl", *words), cwd=directory, check=True, input=stdin, text=True, capture_output=True)


def authority(directory, name):
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", DAYS, "-subj", f"/CN={name}")
    openssl(directory, *new, "-keyout", f"{name}.key", "-out", f"{name}.crt")


def certificate(directory, name, subject, names=(), issuer="ca"):
    request = ("req", "-newkey", "rsa:2048", "-nodes", "-subj", subject)
    openssl(directory, *request, "-keyout", f"{name}.key", "-out", f"{name}.csr")
    extensions = ["extendedKeyUsage=clientAuth,serverAuth"]
    if names:
        extensions.append("subjectAltName=" + ",".join(names))
    sign = ("x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key")
    sign += ("-CAcreateserial", "-days", DAYS, "-out", f"{name}.crt", "-extfile", "/dev/stdin")
    openssl(directory, *sign, stdin="\n".join(extensions))


def create(directory, server_addresses):
    """Write all that the programs of the control plane and kube-proxy need into `directory`."""
    directory.mkdir()
    authority(directory, "ca")
    authority(directory, "front-proxy-ca")
    openssl(directory, "genrsa", "-out", "accounts.key", "2048")
    openssl(directory, "rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")
    certificate(directory, "front-proxy", "/CN=front-proxy-client", issuer="front-proxy-ca")
    names = [f"DNS:{name}" for name in CLUSTER_NAMES] + [f"IP:{address}" for address in server_addresses]
    certificate(directory, "apiserver", "/CN=kube-apiserver", names)
    for name, subject in CLIENTS.items():
        certificate(directory, name, subject)
        write_kubeconfig(directory, name)


def certify_node(directory, node, addresses):
    """Write what the kubelet of a node needs."""
    names = [f"DNS:{node}"] + [f"IP:{address}" for address in addresses]
    certificate(directory, node, f"/O=system:nodes/CN=system:node:{node}", names)
    write_kubeconfig(directory, node)


def write_kubeconfig(directory, name):
    template = string.Template((HERE / "files/kubeconfig.yaml").read_text())
    (directory.parent / f"{name}.kubeconfig").write_text(template.substitute(pki=directory, name=name))
