//! The Debian package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::boot::Host;
use super::{CONFIG, LINK, OPTIONS, UNIT, in_force, reference};
use crate::common::output_of;
use crate::program::Run;

/// A directory that is removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sidetrack-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // The remaining files do not affect later steps.
        let _removed = fs::remove_dir_all(&self.0);
    }
}

/// Builds the package there.
fn build(directory: &Path) -> PathBuf {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/deb"));
    output_of(command.arg(directory)).trim().into()
}

#[test]
fn debian_package_redirects_nothing_until_enabled_and_purges_all() {
    let directory = Directory::new("package");
    let package = build(&directory.0);
    let again = build(&directory.0.join("again"));
    assert!(
        fs::read(&package).expect("a package") == fs::read(again).expect("a package"),
        "not reproducible"
    );
    Run::of(Command::new("lintian").args(["--fail-on", "error"]).arg(&package)).succeeded();

    let mut host = Host::boot();
    let (etc, nothing) = (host.etc(), in_force(&host, "nftables"));
    let install = |host: &Host| {
        // What the host was booted with would be found first.
        host.shell("rm -f /usr/local/bin/sidetrack").succeeded();
        fs::copy(&package, host.path("/run/sidetrack.deb")).expect("a file of the host");
        host.shell("dpkg --install /run/sidetrack.deb").succeeded();
    };
    install(&host);
    assert_eq!(
        (host.etc(), in_force(&host, "nftables")),
        (etc.clone(), nothing.clone())
    );
    let enabled = host.shell("systemctl is-enabled sidetrack");
    assert_eq!(enabled.stdout, "disabled\n", "{enabled:?}");
    let completed = "bash -c '. /usr/share/bash-completion/completions/sidetrack; complete -p sidetrack'";
    host.shell(&format!(
        "{completed}; zcat /usr/share/man/man1/sidetrack-apply.1.gz | grep -q persist"
    ))
    .succeeded();
    host.shell("systemd-analyze verify sidetrack.service sidetrack-reapply.service")
        .succeeded();

    // The unit is that of the package: there is no second one.
    host.shell(&["sidetrack apply --persist", &OPTIONS.join(" ")].join(" "))
        .succeeded();
    assert!(!host.path(UNIT).exists());
    host.shell("systemctl start sidetrack").succeeded();
    let wanted = reference("nftables", OPTIONS);
    assert_eq!(in_force(&host, "nftables"), wanted);

    // An upgrade leaves what is in force in force.
    install(&host);
    host.shell("systemctl is-active sidetrack").succeeded();
    assert_eq!(in_force(&host, "nftables"), wanted);

    host.shell("dpkg --remove sidetrack").succeeded();
    assert_eq!(in_force(&host, "nftables"), nothing);
    assert!(
        host.path(CONFIG).exists(),
        "what was configured is there for the next installation"
    );
    install(&host);
    host.shell("systemctl start sidetrack; systemctl is-enabled sidetrack")
        .succeeded();
    assert_eq!(in_force(&host, "nftables"), wanted);

    host.shell("dpkg --purge sidetrack").succeeded();
    let link = fs::symlink_metadata(host.path(LINK));
    assert!(link.is_err() && !host.path(CONFIG).exists(), "{}", host.etc());
    assert_eq!(host.etc(), etc);
    assert_eq!(in_force(&host, "nftables"), nothing);
    host.shell("! command -v sidetrack").succeeded();
    host.reboot();
    assert_eq!(in_force(&host, "nftables"), nothing);
}
