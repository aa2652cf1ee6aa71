//! iptables programs that are missing, fail, or hang.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process;

use crate::common::write_program;

use super::{VARIANTS, dump, in_namespace, iptables, plain_name, ruleset, tool};
use sidetrack::backend::Change;
use sidetrack::backend::iptables::{Iptables, IptablesError, Variant};
use sidetrack::types::{Family, IpFamily, parse_cidrs, parse_ports};

/// A directory of links to the real programs of a variant. It goes with the value.
struct Programs(PathBuf);

impl Programs {
    fn new(variant: Variant, test: &str) -> Self {
        let directory = env::temp_dir().join(format!("sidetrack-{}-{test}-{variant}", process::id()));
        fs::create_dir(&directory).unwrap();
        let programs = Self(directory);
        for family in Family::BOTH {
            for suffix in ["", "-save", "-restore"] {
                let name = tool(variant, family, suffix);
                symlink(programs.real(&name), programs.0.join(name)).unwrap();
            }
        }
        programs
    }

    fn real(&self, name: &str) -> PathBuf {
        let path = env::var_os("PATH").unwrap();
        env::split_paths(&path)
            .map(|directory| directory.join(name))
            .find(|path| path.exists())
            .unwrap()
    }

    /// Replaces a program by a shell script, in which `$real` is the program.
    fn replace(&self, name: &str, script: &str) {
        let text = format!("#!/bin/sh\nreal={}\n{script}\n", self.real(name).display());
        write_program(&self.0.join(name), &text);
    }

    fn delete(&self, name: &str) {
        fs::remove_file(self.0.join(name)).unwrap();
    }

    fn search(&self) -> OsString {
        self.0.clone().into_os_string()
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn failure_in_one_family_rolls_back_the_other() {
    in_namespace(|variant| {
        let programs = Programs::new(variant, "undo");
        let good = Iptables::find(variant).unwrap();
        programs.replace(&tool(variant, Family::V6, "-restore"), "echo no such thing >&2; exit 3");
        let failing = Iptables::find_in(variant, &programs.search()).unwrap();
        iptables(variant, "-t nat -A OUTPUT -p tcp -j RETURN");
        let nothing = dump(variant);
        let error = failing.apply(&ruleset(|_| {})).unwrap_err().to_string();
        assert!(
            error.contains("ip6tables") && error.contains("exit status: 3): no such thing"),
            "{error}"
        );
        assert_eq!(dump(variant), nothing);

        good.apply(&ruleset(|_| {})).unwrap();
        // The rollback restores the exact state, including duplicates.
        iptables(variant, "-t nat -A OUTPUT -p tcp -j SIDETRACK_OUTPUT");
        let before = dump(variant);
        let other = ruleset(|config| config.inbound.include_ports = parse_ports("").unwrap());
        failing.apply(&other).unwrap_err();
        assert_eq!(dump(variant), before);
    });
}

#[test]
fn failed_rollback_is_reported() {
    in_namespace(|variant| {
        let programs = Programs::new(variant, "no-undo");
        let counter = programs.0.join("runs");
        programs.replace(&tool(variant, Family::V6, "-restore"), "echo first >&2; exit 3");
        let once = format!(
            "[ -e {0} ] && {{ echo second >&2; exit 3; }}; touch {0}; exec $real \"$@\"",
            counter.display()
        );
        programs.replace(&tool(variant, Family::V4, "-restore"), &once);
        let failing = Iptables::find_in(variant, &programs.search()).unwrap();
        let error = failing.apply(&ruleset(|_| {})).unwrap_err().to_string();
        assert!(
            error.contains("first") && error.contains("Rolling back") && error.contains("second"),
            "{error}"
        );
    });
}

#[test]
fn refused_comments_are_left_out() {
    in_namespace(|variant| {
        let programs = Programs::new(variant, "comments");
        for family in Family::BOTH {
            let refuse = "input=$(cat)
case $input in *--comment*) echo \"Couldn't load match \\`comment':No such file or directory\" >&2; exit 2;; esac
echo \"$input\" | $real \"$@\"";
            programs.replace(&tool(variant, family, "-restore"), refuse);
        }
        let backend = Iptables::find_in(variant, &programs.search()).unwrap();
        assert_eq!(backend.apply(&ruleset(|_| {})).unwrap(), Change::Created);
        assert!(!dump(variant).contains("comment"));
        assert_eq!(backend.apply(&ruleset(|_| {})).unwrap(), Change::Unchanged);
        assert_eq!(
            Iptables::find(variant).unwrap().apply(&ruleset(|_| {})).unwrap(),
            Change::Unchanged
        );
    });
}

/// The first table was changed before the second was refused.
#[test]
fn rules_without_comments_are_not_duplicated() {
    in_namespace(|variant| {
        let programs = Programs::new(variant, "half-comments");
        for family in Family::BOTH {
            let refuse = "input=$(cat)
case $input in *--comment*) echo \"$input\" | sed /COMMIT/q | $real \"$@\"
echo \"Couldn't load match \\`comment':No such file or directory\" >&2; exit 2;; esac
echo \"$input\" | $real \"$@\"";
            programs.replace(&tool(variant, family, "-restore"), refuse);
        }
        let backend = Iptables::find_in(variant, &programs.search()).unwrap();
        let two_tables = ruleset(|config| config.general.drop_invalid = true);
        assert_eq!(backend.apply(&two_tables).unwrap(), Change::Created);
        let dump = dump(variant);
        assert_eq!(
            dump.matches("-A PREROUTING -j SIDETRACK_MANGLE_PREROUTING").count(),
            2,
            "{dump}"
        );
        assert!(!dump.contains("comment"), "{dump}");
        assert_eq!(backend.apply(&two_tables).unwrap(), Change::Unchanged);
    });
}

#[test]
fn programs_are_found_by_name_or_reported_variant() {
    for variant in VARIANTS {
        let programs = Programs::new(variant, "find");
        let search = programs.search();
        Iptables::find_in(variant, &search).unwrap();
        let other = VARIANTS.into_iter().find(|other| *other != variant).unwrap();
        let error = Iptables::find_in(other, &search).unwrap_err().to_string();
        assert!(error.contains(&format!("no iptables ({other}) for IPv4")), "{error}");
        assert!(error.contains("Install the package iptables"), "{error}");

        for family in Family::BOTH {
            let (own, plain) = (tool(variant, family, ""), plain_name(family));
            for suffix in ["", "-save", "-restore"] {
                fs::rename(
                    programs.0.join(format!("{own}{suffix}")),
                    programs.0.join(format!("{plain}{suffix}")),
                )
                .unwrap();
            }
        }
        Iptables::find_in(variant, &search).unwrap();
        Iptables::find_in(other, &search).unwrap_err();
    }
}

#[test]
fn missing_ipv6_programs_are_an_error_only_when_needed() {
    in_namespace(|variant| {
        let programs = Programs::new(variant, "v4-only");
        programs.delete(&tool(variant, Family::V6, "-restore"));
        let backend = Iptables::find_in(variant, &programs.search()).unwrap();
        let error = backend.apply(&ruleset(|_| {})).unwrap_err().to_string();
        assert!(error.contains("ip6tables-restore"), "{error}");
        assert!(backend.read(Family::V4).unwrap().is_empty(), "nothing was written");
        let v4 = ruleset(|config| config.general.ip_family = IpFamily::Ipv4);
        assert_eq!(backend.apply(&v4).unwrap(), Change::Created);
        assert!(backend.remove().unwrap());
    });
}

/// More than a pipe holds, so that the writer sees how far it was read.
#[test]
fn partially_read_input_is_not_taken_for_applied() {
    in_namespace(|variant| {
        let programs = Programs::new(variant, "half-read");
        programs.replace(
            &tool(variant, Family::V4, "-restore"),
            "head -n 5 >/dev/null; exec <&-; exit 0",
        );
        let cidrs: Vec<String> = (0..4000)
            .map(|number| format!("10.{}.{}.0/30", number / 250, number % 250))
            .collect();
        let long = ruleset(|config| config.outbound.exclude_cidrs = parse_cidrs(&cidrs.join(",")).unwrap());
        let error = Iptables::find_in(variant, &programs.search())
            .unwrap()
            .apply(&long)
            .unwrap_err();
        assert!(matches!(error, IptablesError::BrokenOff { .. }), "{error}");
        assert!(error.to_string().contains("Broken pipe"), "{error}");
        assert!(!dump(variant).contains("SIDETRACK"));
    });
}

#[test]
fn changes_between_reading_and_writing_cause_a_retry() {
    in_namespace(|variant| {
        for (disturbances, succeeds) in [(1, true), (9, false)] {
            let programs = Programs::new(variant, &format!("disturbed-{disturbances}"));
            let (good, planned) = (Iptables::find(variant).unwrap(), ruleset(|_| {}));
            let drifted = ruleset(|config| config.inbound.include_ports = parse_ports("80").unwrap());
            good.apply(&drifted).unwrap();
            // Another process has replaced what the patch changes by something the patch cannot change.
            let disturbing = format!(
                "n=$(cat {0} 2>/dev/null || echo 0); n=$((n + 1)); echo $n >{0}
[ $n -gt {disturbances} ] || {1} -t nat -I SIDETRACK_OUTBOUND -p tcp --dport $n -j RETURN
[ $n -gt {disturbances} ] || {{ echo no such chain >&2; exit 1; }}
exec $real \"$@\"",
                programs.0.join("runs").display(),
                tool(variant, Family::V4, ""),
            );
            programs.replace(&tool(variant, Family::V4, "-restore"), &disturbing);
            let backend = Iptables::find_in(variant, &programs.search()).unwrap();
            match backend.apply(&planned) {
                Ok(change) => assert_eq!((change, succeeds), (Change::Replaced, true)),
                Err(error) => assert!(!succeeds && error.to_string().contains("no such chain"), "{error}"),
            }
            assert_eq!(good.differences(&planned).unwrap().is_empty(), succeeds);
            good.remove().unwrap();
        }
    });
}
