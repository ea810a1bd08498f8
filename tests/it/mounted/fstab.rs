//! mount(8), umount(8) and fstab, through the helper that gets installed.
//!
//! mount(8) looks for helpers in /sbin only. Each test has mounts of its own, where /sbin is a
//! directory with nothing but the helper's names.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::helper::is_running;
use crate::testkit::{Ran, stratafs, try_run, wait_until};

/// What the scripts below use: the process that has the volume open, and waiting for its end.
const PRELUDE: &str = r#"
mount --bind "$PWD/sbin" /sbin
holder() { sed 's/process \([0-9]*\) .*/\1/' volume/lock; }
end() { umount -i -l mnt 2>/dev/null || true; }
trap end EXIT
is_closed() { flock -n volume/lock true; }
die() { kill -9 "$(holder)"; while ls mnt >/dev/null 2>&1; do sleep 0.02; done; }
line() { grep " $PWD/mnt fuse.stratafs " /proc/self/mounts; }
"#;

/// The helper where no program is installed.
const NO_PROGRAM: &str = r"
rm sbin/stratafs
for at in /usr/bin/stratafs /usr/local/bin/stratafs; do
    if [ -e $at ]; then mount --bind /dev/null $at; fi
done
env -u STRATAFS /sbin/mount.stratafs volume mnt";

/// A volume, a mountpoint, and an /sbin.
struct Machine {
    temp: TempDir,
}

impl Machine {
    fn new() -> Self {
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse");
        let temp = tempfile::tempdir().unwrap();
        let this = Self { temp };
        let sbin = this.path("sbin");
        fs::create_dir(&sbin).unwrap();
        fs::create_dir(this.path("mnt")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-scripts/mount.stratafs");
        fs::copy(script, sbin.join("mount.stratafs")).unwrap();
        for name in ["mount.fuse.stratafs", "umount.stratafs", "umount.fuse.stratafs"] {
            symlink("mount.stratafs", sbin.join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_stratafs"), sbin.join("stratafs")).unwrap();
        stratafs(&["init", this.path("volume").to_str().unwrap()]).ok();
        this
    }

    fn path(&self, below: &str) -> PathBuf {
        self.temp.path().canonicalize().unwrap().join(below)
    }

    /// Writes an fstab with one line that has these options.
    fn fstab(&self, options: &str) {
        let (volume, mnt) = (self.path("volume"), self.path("mnt"));
        let line = format!("{} {} fuse.stratafs {options} 0 0\n", volume.display(), mnt.display());
        fs::write(self.path("fstab"), line).unwrap();
    }

    /// Runs a script where the helper is installed, in the directory of this machine.
    fn try_script(&self, script: &str) -> Ran {
        let text = format!("set -euo pipefail; cd \"$1\"\n{PRELUDE}\n{script}");
        let dir = self.path("");
        let words = ["-m", "bash", "-c", &text, "test", dir.to_str().unwrap()];
        let ran = try_run("unshare", &words);
        eprintln!("{}", ran.stderr);
        ran
    }

    #[track_caller]
    fn script(&self, script: &str) -> String {
        self.try_script(script).ok().stdout
    }

    fn holder(&self) -> u32 {
        let lock = fs::read_to_string(self.path("volume/lock")).unwrap_or_default();
        lock.split(' ').nth(1).and_then(|pid| pid.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The mounts of a script go with its last process, which is ours. Ask only that one.
        let pid = self.holder();
        let ours = env!("CARGO_BIN_EXE_stratafs");
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if pid != 0 && is_running(pid) && exe == Path::new(ours) {
            try_run("kill", &["-KILL".to_owned(), pid.to_string()]);
            wait_until("the process is gone", || !is_running(pid));
        }
    }
}

#[test]
fn mount_by_type_with_an_empty_environment() {
    let machine = Machine::new();
    for kind in ["stratafs", "fuse.stratafs"] {
        machine.script(&format!(
            r#"
            env -i /bin/mount -n -t {kind} "$PWD/volume" "$PWD/mnt" -o noatime,nofail,_netdev
            line | grep "^$PWD/volume "
            echo {kind} >mnt/file
            env -i /bin/umount -c "$PWD/mnt"
            is_closed
            "#
        ));
    }
    let mnt = fs::read_dir(machine.path("mnt")).unwrap();
    assert_eq!(mnt.count(), 0, "nothing was written beside the mount");
}

#[test]
fn an_fstab_line_is_mounted_remounted_and_unmounted() {
    let machine = Machine::new();
    machine.fstab(
        "noauto,_netdev,nofail,noatime,x-systemd.requires=network-online.target,comment=x,ro",
    );
    machine.script(
        r#"
        mount -T fstab mnt
        line | grep -q " ro,"
        if touch mnt/x 2>/dev/null; then exit 3; fi
        # The kernel only unmounts; with a word for the helper in fstab, umount(8) waits.
        umount mnt
        is_closed
        "#,
    );
    machine.fstab("noauto,noexec");
    machine.script(
        r#"
        mount -T fstab mnt
        line | grep -q noexec
        mount -T fstab -o remount,ro mnt
        line | grep " ro," | grep -q noexec
        if touch mnt/x 2>/dev/null; then exit 3; fi
        mount -o remount,rw "$PWD/mnt"
        touch mnt/x; rm mnt/x
        umount -c "$PWD/mnt"
        "#,
    );
    machine.fstab("defaults,uhelper=stratafs");
    machine.script(
        r#"
        mount -T fstab -a
        mount -T fstab -a            # a second time it is mounted already, and that is fine
        [ "$(line | wc -l)" = 1 ]
        date >mnt/kept
        umount mnt
        is_closed
        mount -T fstab -a
        [ -s mnt/kept ]
        umount -l mnt
        "#,
    );
}

#[test]
fn a_source_of_its_own_name_does_not_hide_a_dead_mount() {
    let machine = Machine::new();
    machine.fstab("noauto,fsname=nightly");
    machine.script(
        r#"
        mount -T fstab mnt
        line | grep "^nightly "
        [ "$(df --output=source mnt | tail -n 1)" = nightly ]
        [ "$(sbin/stratafs status mnt --json | grep -c "\"mounted_on\": *\"$PWD/mnt\"")" = 1 ]
        date >mnt/file; sync mnt/file
        die
        mount -T fstab mnt           # takes the dead one away
        [ -s mnt/file ]; [ "$(line | wc -l)" = 1 ]
        die
        sbin/stratafs umount volume  # finds it, too
        if line; then exit 3; fi
        mount -T fstab mnt
        die
        sbin/stratafs check volume   # the lock speaks of this now
        mount -T fstab mnt
        [ -s mnt/file ]; [ "$(line | wc -l)" = 1 ]
        die
        umount mnt
        if line; then exit 3; fi
        "#,
    );
}

#[test]
fn a_dead_mount_of_another_volume_stays() {
    let machine = Machine::new();
    machine.fstab("noauto,fsname=nightly");
    let other = machine.path("other");
    stratafs(&["init", other.to_str().unwrap()]).ok();
    let said = machine.script(
        r#"
        mount -T fstab mnt
        die
        code=0; sbin/stratafs mount other mnt 2>&1 || code=$?
        echo "code $code"; line | wc -l
        "#,
    );
    assert!(said.contains("its process is gone") && said.ends_with("code 7\n1\n"), "{said}");
}

#[test]
fn what_mount_cannot_do_is_one_sentence_and_its_exit_code() {
    let machine = Machine::new();
    machine.fstab("noauto,frobnicate");
    for (line, code, sentence) in [
        ("mount -T fstab mnt", 32, "Mount option \"frobnicate\" is not known"),
        ("mount -f -T fstab mnt", 32, "Mount option \"frobnicate\" is not known"),
        ("mount -t stratafs $PWD/none $PWD/mnt", 32, "none does not exist"),
        ("mount -t stratafs $PWD/volume $PWD/mnt -o fsname=", 32, "fsname cannot be"),
        ("/sbin/mount.stratafs -q volume mnt", 1, "Option -q of mount(8)"),
        ("/sbin/umount.stratafs mnt -N 1", 1, "Option -N of umount(8) is not supported"),
        ("/sbin/umount.stratafs mnt", 32, "Nothing to unmount"),
        (NO_PROGRAM, 1, "not installed"),
    ] {
        let ran = machine.try_script(line);
        assert_eq!(ran.code, Some(code), "{line}: {ran:#?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{line}: {ran:#?}");
        assert!(ran.stderr.contains(sentence), "{line}: {ran:#?}");
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn fake_mounts_nothing_and_sloppy_forgives() {
    let machine = Machine::new();
    machine.script(
        r#"
        mount -f -t stratafs "$PWD/volume" "$PWD/mnt"
        if line; then exit 3; fi
        mount -s -t stratafs "$PWD/volume" "$PWD/mnt" -o frobnicate,ro
        line | grep -q " ro,"
        grep -q frobnicate volume/stratafs.log
        umount -c "$PWD/mnt"
        "#,
    );
}
