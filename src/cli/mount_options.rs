//! The `-o` options of `mount`.

use std::ffi::OsString;
use std::net::SocketAddr;

use crate::config::parse_listen;
use crate::error::{Error, Result};
use crate::sys::mount_flags::MountFlags;

/// Most threads one may ask for: each keeps a 16 MiB request buffer reserved.
const THREADS_MAX: usize = 64;

/// Options that mount(8) and fstab carry for others, or that say what is so anyway.
const IGNORED: [&str; 13] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "noiversion",
    "nomand",
];
/// Options with a value that are none of a filesystem's business.
/// With `uhelper`, umount(8) calls `umount.stratafs` instead of only umount(2).
const IGNORED_KEYS: [&str; 4] = ["comment", "user", "subtype", "uhelper"];
/// What the kernel shows for a FUSE mount, which mount(8) hands back when it remounts.
const SHOWN_KEYS: [&str; 5] = ["fd", "rootmode", "user_id", "group_id", "max_read"];

/// Where metrics are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum MetricsAt {
    /// Where the configuration says, if it does.
    #[default]
    Configured,
    /// Nowhere.
    Off,
    /// Here.
    Address(SocketAddr),
}

/// What `-o` decides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Choices {
    /// What is mounted already gets other options.
    pub(super) remount: bool,
    pub(super) generic: MountFlags,
    pub(super) allow_other: bool,
    pub(super) default_permissions: bool,
    pub(super) nonempty: bool,
    pub(super) snapdir_visible: bool,
    /// No `.history` beside the names of the live tree.
    pub(super) no_history: bool,
    /// 0: as many as `fuse` thinks right.
    pub(super) threads: usize,
    pub(super) metrics: MetricsAt,
    /// The source that the system shows; the volume directory unless given.
    pub(super) fs_name: Option<String>,
}

impl Choices {
    /// The defaults: of a backup target for root, of a private mount for others.
    pub(super) fn defaults(root: bool) -> Self {
        Self {
            remount: false,
            generic: if root { MountFlags::default() } else { MountFlags::FOR_USERS },
            allow_other: root,
            default_permissions: true,
            nonempty: false,
            snapdir_visible: false,
            no_history: false,
            threads: 0,
            metrics: MetricsAt::Configured,
            fs_name: None,
        }
    }

    /// Applies lists of options; the last one that speaks of a thing decides. `sloppy`: one that
    /// is not known is told in the log, and ignored.
    ///
    /// # Errors
    /// `Invalid` that names an unknown option or a bad value.
    pub(super) fn apply(&mut self, lists: &[OsString], sloppy: bool) -> Result<()> {
        let lists: Vec<_> = lists.iter().map(|list| list.to_string_lossy()).collect();
        let options = || lists.iter().flat_map(|list| each(list));
        self.remount |= options().any(|option| option == "remount");
        for option in options() {
            match self.apply_one(option) {
                Err(error) if sloppy => log::warn!("Mount option ignored cause={error}"),
                applied => applied?,
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
            Some(("history", "on")) => self.no_history = false,
            Some(("history", "off")) => self.no_history = true,
            Some(("history", value)) => return Err(bad_value("history", value, "on or off")),
            Some(("threads", value)) => {
                self.threads = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=THREADS_MAX).contains(n))
                    .ok_or_else(|| bad_value("threads", value, "a number from 1 to 64"))?;
            }
            Some(("metrics", "off")) => self.metrics = MetricsAt::Off,
            Some(("metrics", value)) => {
                let listen = parse_listen(value).filter(|address| address.ip().is_loopback());
                let valid = "off, a port, or a loopback address with one; for another address see \
                             [metrics] of the configuration";
                let listen = listen.ok_or_else(|| bad_value("metrics", value, valid))?;
                self.metrics = MetricsAt::Address(listen);
            }
            Some(("fsname", "")) => return Err(bad_value("fsname", "", "a name")),
            Some(("fsname", name)) => self.fs_name = Some(name.to_owned()),
            None => self.apply_flag(option)?,
            Some((key, _)) if IGNORED_KEYS.contains(&key) || is_for_others(key) => {}
            Some((key, _)) if self.remount && SHOWN_KEYS.contains(&key) => {}
            Some(_) => return Err(unknown(option)),
        }
        Ok(())
    }

    fn apply_flag(&mut self, flag: &str) -> Result<()> {
        match flag {
            "remount" => {}
            "allow_other" => self.allow_other = true,
            "default_permissions" => self.default_permissions = true,
            "nonempty" => self.nonempty = true,
            flag if self.generic.apply(flag) => {}
            flag if IGNORED.contains(&flag) || is_for_others(flag) => {}
            flag => return Err(unknown(flag)),
        }
        Ok(())
    }
}

/// The generic options of a mount that has `shown`, as `/proc` lists them, after `asked`: what is
/// not asked for stays.
pub(super) fn remounted(shown: &str, asked: &[OsString]) -> MountFlags {
    let mut flags = MountFlags::default();
    let asked: Vec<_> = asked.iter().map(|list| list.to_string_lossy()).collect();
    // The kernel shows a read-only filesystem below a writable mountpoint as `rw,…,ro`.
    let shown = each(shown).filter(|option| *option != "rw");
    for option in shown.chain(asked.iter().flat_map(|list| each(list))) {
        flags.apply(option);
    }
    flags
}

/// The options of a list.
fn each(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|option| !option.is_empty())
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

    fn flags(options: &[&str]) -> MountFlags {
        let mut flags = MountFlags::default();
        assert!(options.iter().all(|option| flags.apply(option)));
        flags
    }

    #[test]
    fn defaults_depend_on_root() {
        let root = Choices::defaults(true);
        assert!(root.allow_other && root.default_permissions);
        assert_eq!(root.generic, MountFlags::default());
        let other = Choices::defaults(false);
        assert!(!other.allow_other && other.default_permissions);
        assert_eq!(other.generic, flags(&["nosuid", "nodev"]));
    }

    #[test]
    fn the_last_option_counts() {
        let choices = parse(&["ro,nodev,snapdir=visible", "rw,nosuid,threads=3,snapdir=hidden"]);
        let generic = flags(&["nodev", "nosuid"]);
        let expected = Choices { generic, threads: 3, ..Choices::defaults(true) };
        assert_eq!(choices.unwrap(), expected);
        assert!(parse(&["rw,ro"]).unwrap().generic.has("ro"));
        assert_eq!(parse(&["noexec,sync"]).unwrap().generic, flags(&["noexec", "sync"]));
        assert_eq!(parse(&["fsname=pool"]).unwrap().fs_name.unwrap(), "pool");
    }

    #[test]
    fn options_for_others_are_accepted() {
        let lists = [
            "defaults,noauto,user,user=joe,users,_netdev,nofail,subtype=stratafs",
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
        assert!(choices.generic.has("ro"));
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        for option in ["frobnicate", "snap=1", "snapdir", "threads", "mand", "user_id=0", "ROx"] {
            let error = parse(&["ro", option]).unwrap_err();
            assert!(error.to_string().contains(option), "{error}");
            assert_eq!(error.exit_code(), 1);
        }
        for option in [
            "fsname=",
            "threads=0",
            "threads=65",
            "threads=x",
            "snapdir=maybe",
            "metrics=x",
            "metrics=0.0.0.0:1",
            "history=x",
        ] {
            let error = parse(&[option]).unwrap_err().to_string();
            assert!(error.contains(option.split('=').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_remount_takes_what_the_kernel_shows_and_keeps_what_is_not_asked_for() {
        let shown = "rw,nosuid,relatime,rw,user_id=0,group_id=0,default_permissions,allow_other";
        let choices = parse(&["remount,ro", shown, "max_read=4096"]).unwrap();
        assert!(choices.remount);

        let after = |shown: &str, asked: &str| remounted(shown, &[asked.into()]);
        assert_eq!(after(shown, "remount,ro"), flags(&["nosuid", "relatime", "ro"]));
        assert_eq!(after("ro,nosuid,ro", "remount,rw,noexec"), flags(&["nosuid", "noexec"]));
        assert_eq!(after("rw,noexec,relatime,ro", "remount"), flags(&["noexec", "relatime", "ro"]));
    }
}
