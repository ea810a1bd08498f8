//! The `-o` options of `mount`.

use std::ffi::OsString;

use crate::error::{Error, Result};

/// Most threads one may ask for: each keeps a 16 MiB request buffer reserved.
const THREADS_MAX: usize = 64;

/// Options that mount(8) and fstab carry for others, or that say what is so anyway.
const IGNORED: [&str; 26] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "exec",
    "async",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "noiversion",
    "nomand",
    "silent",
    "loud",
];

/// What `-o` decides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Choices {
    pub(super) read_only: bool,
    pub(super) allow_other: bool,
    pub(super) default_permissions: bool,
    pub(super) dev: bool,
    pub(super) suid: bool,
    pub(super) nonempty: bool,
    pub(super) snapdir_visible: bool,
    /// 0: as many as `fuse` thinks right.
    pub(super) threads: usize,
    /// The source that the system shows; the volume directory unless given.
    pub(super) fs_name: Option<String>,
}

impl Choices {
    /// The defaults: of a backup target for root, of a private mount for others.
    pub(super) fn defaults(root: bool) -> Self {
        Self {
            read_only: false,
            allow_other: root,
            default_permissions: true,
            dev: root,
            suid: root,
            nonempty: false,
            snapdir_visible: false,
            threads: 0,
            fs_name: None,
        }
    }

    /// Applies lists of options; the last one that speaks of a thing decides. `sloppy`: one that
    /// is not known is told in the log, and ignored.
    ///
    /// # Errors
    /// `Invalid` that names an unknown option or a bad value.
    pub(super) fn apply(&mut self, lists: &[OsString], sloppy: bool) -> Result<()> {
        for list in lists {
            let list = list.to_string_lossy();
            for option in list.split(',').map(str::trim).filter(|o| !o.is_empty()) {
                match self.apply_one(option) {
                    Err(error) if sloppy => log::warn!("Mount option ignored cause={error}"),
                    applied => applied?,
                }
            }
        }
        Ok(())
    }

    fn apply_one(&mut self, option: &str) -> Result<()> {
        match option.split_once('=') {
            Some(("snapdir", "visible")) => self.snapdir_visible = true,
            Some(("snapdir", "hidden")) => self.snapdir_visible = false,
            Some(("snapdir", value)) => {
                return Err(bad_value("snapdir", value, "visible or hidden"));
            }
            Some(("threads", value)) => {
                self.threads = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=THREADS_MAX).contains(n))
                    .ok_or_else(|| bad_value("threads", value, "a number from 1 to 64"))?;
            }
            Some(("fsname", "")) => return Err(bad_value("fsname", "", "a name")),
            Some(("fsname", name)) => self.fs_name = Some(name.to_owned()),
            None => self.apply_flag(option)?,
            // With a uhelper, umount(8) calls `umount.stratafs` instead of only umount(2).
            Some(("comment" | "uhelper", _)) => {}
            Some((key, _)) if is_for_others(key) => {}
            Some(_) => return Err(unknown(option)),
        }
        Ok(())
    }

    fn apply_flag(&mut self, flag: &str) -> Result<()> {
        match flag {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.allow_other = true,
            "default_permissions" => self.default_permissions = true,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "nonempty" => self.nonempty = true,
            flag if IGNORED.contains(&flag) || is_for_others(flag) => {}
            flag => return Err(unknown(flag)),
        }
        Ok(())
    }
}

/// `x-systemd.…`, `X-mount.…` and the like are comments to a filesystem.
fn is_for_others(option: &str) -> bool {
    option.starts_with("x-") || option.starts_with("X-")
}

fn unknown(option: &str) -> Error {
    Error::invalid(format!(
        "Mount option {option:?} is not known; see stratafs mount --help for those that are"
    ))
}

fn bad_value(option: &str, value: &str, valid: &str) -> Error {
    Error::invalid(format!("Mount option {option} cannot be {value:?}; it must be {valid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lists: &[&str]) -> Result<Choices> {
        let mut choices = Choices::defaults(true);
        let lists: Vec<OsString> = lists.iter().map(Into::into).collect();
        choices.apply(&lists, false).map(|()| choices)
    }

    #[test]
    fn defaults_depend_on_root() {
        let root = Choices::defaults(true);
        assert!(root.allow_other && root.default_permissions && root.dev && root.suid);
        let other = Choices::defaults(false);
        assert!(!other.allow_other && other.default_permissions && !other.dev && !other.suid);
    }

    #[test]
    fn the_last_option_counts() {
        let choices = parse(&["ro,nodev,snapdir=visible", "rw,nosuid,threads=3,snapdir=hidden"]);
        let choices = choices.unwrap();
        let expected = Choices { dev: false, suid: false, threads: 3, ..Choices::defaults(true) };
        assert_eq!(choices, expected);
        assert!(parse(&["rw,ro"]).unwrap().read_only);
    }

    #[test]
    fn options_for_others_are_accepted() {
        let lists = [
            "defaults,noauto,user,_netdev,nofail,noatime,relatime",
            "x-systemd.automount,x-gvfs-name=a,comment=hello,uhelper=stratafs,,",
        ];
        assert_eq!(parse(&lists).unwrap(), Choices::defaults(true));
    }

    #[test]
    fn a_source_can_have_a_name() {
        assert_eq!(parse(&["fsname=a", "fsname=nightly=1"]).unwrap().fs_name.unwrap(), "nightly=1");
    }

    #[test]
    fn sloppy_forgives_what_is_not_known() {
        let mut choices = Choices::defaults(true);
        choices.apply(&["frobnicate,ro".into()], true).unwrap();
        assert!(choices.read_only);
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        for option in ["frobnicate", "snap=1", "snapdir", "threads", "sync", "noexec", "ROx"] {
            let error = parse(&["ro", option]).unwrap_err();
            assert!(error.to_string().contains(option), "{error}");
            assert_eq!(error.exit_code(), 1);
        }
        for option in ["fsname=", "threads=0", "threads=65", "threads=x", "snapdir=maybe"] {
            let error = parse(&[option]).unwrap_err().to_string();
            assert!(error.contains(option.split('=').next().unwrap()), "{error}");
        }
    }
}
