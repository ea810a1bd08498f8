"""What benches/peers.py compares: filesystems one writes into, and backup programs."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

STEP_SECONDS = 900


def run(*command, check=True, **more):
    """Runs a command and returns what it printed. A step that hangs ends the run."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=STEP_SECONDS, check=False, **more)
    if check and done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}: {tail}")
    return done.stdout


def disk_bytes(path):
    return sum(s.st_blocks * 512 for s in (os.lstat(p) for p in [path, *path.rglob("*")]))


def status_of(pid):
    """CPU seconds and peak memory (MiB) of a process; zeros when it is gone."""
    with contextlib.suppress(OSError):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        lines = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        # A process that is ending has no memory any more.
        peak = next((line for line in lines if line.startswith("VmHWM")), "VmHWM: 0")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024
    return 0.0, 0.0


class Target:
    """What all have: a place of their own below the work directory."""

    mounts = True
    snapshots = False

    def __init__(self, work, settings):
        self.dir = work / self.name
        self.settings = settings
        self.at = self.dir / "mnt"
        self.pid = None

    @property
    def name(self):
        return type(self).__name__.lower()

    @staticmethod
    def missing(settings):
        """What has to be installed first, or nothing."""
        return ""

    def start(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        self.at.mkdir(parents=True)

    def leave(self):
        """Ends what keeps caches of its own."""

    def mount(self):
        """Comes back from there."""

    def remount(self):
        self.leave()
        self.mount()

    def durable(self):
        run("sync", "-f", self.at)

    def stored(self):
        return disk_bytes(self.at)

    def stop(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def wait_mounted(self):
        for _ in range(600):
            if os.path.ismount(self.at):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not mount")

    def unmount(self):
        for _ in range(50):
            if not os.path.ismount(self.at):
                return
            run("umount", self.at, check=False)
            time.sleep(0.1)
        run("umount", "-l", self.at, check=False)


def needs(*tools):
    """A target that wants programs in the path."""

    def missing(_settings):
        return ", ".join(tool for tool in tools if not shutil.which(tool))

    return staticmethod(missing)


class Ext4(Target):
    """The disk itself: whatever file system the work directory is on."""


class Strata(Target):
    snapshots = True

    def program(self, *words, check=True):
        return run(self.settings.stratafs, *words, check=check)

    def start(self):
        super().start()
        self.program("init", self.dir / "vol")
        self.mount()

    def mount(self):
        self.program("mount", self.dir / "vol", self.at)
        self.pid = int((self.dir / "vol/lock").read_text(encoding="utf-8").split()[1])

    def leave(self):
        self.program("umount", self.at)

    def durable(self):
        fd = os.open(self.at, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def snapshot(self, name):
        (self.at / ".snapshots" / name).mkdir()

    def forget(self, name):
        (self.at / ".snapshots" / name).rmdir()

    def past(self, name):
        return self.at / ".snapshots" / name

    def stored(self):
        return disk_bytes(self.dir / "vol")

    def gc(self):
        self.program("gc", self.at)

    def take_in(self, sources, generation):
        """The generation of each source becomes what the volume has under the source's name."""
        for source in sources:
            self.program("import", "--delete", f"{source}/{generation}/", self.at / source.name)

    def take_out(self, to):
        self.program("export", "--volume", self.at, "g:", to)

    def stop(self):
        if os.path.ismount(self.at):
            self.program("umount", self.at, check=False)
            self.unmount()
        super().stop()


class Floor(Target):
    """A file system that forgets: what FUSE itself takes."""

    # As a daemon is: the scheduler treats sessions as groups.
    own_session = True

    def start(self):
        super().start()
        command = [self.settings.nullfs, self.at]
        self.process = subprocess.Popen(command, start_new_session=self.own_session)
        self.pid = self.process.pid
        self.wait_mounted()

    def durable(self):
        pass

    def stored(self):
        return 0

    def stop(self):
        self.unmount()
        self.process.terminate()
        self.process.wait()
        super().stop()


class Near(Floor):
    """The floor in the session of those who use it, as no daemon is."""

    own_session = False


class Bindfs(Target):
    missing = needs("bindfs")

    def start(self):
        super().start()
        (self.dir / "below").mkdir()
        run("bindfs", self.dir / "below", self.at)

    def durable(self):
        run("sync", "-f", self.dir / "below")

    def stored(self):
        return disk_bytes(self.dir / "below")

    def stop(self):
        self.unmount()
        super().stop()


class Btrfs(Target):
    missing = needs("mkfs.btrfs")
    snapshots = True

    def start(self):
        super().start()
        image = self.dir / "image"
        with open(image, "wb") as file:
            file.truncate(24 << 30)
        run("mkfs.btrfs", "-q", image)
        self.mount()

    def mount(self):
        run("mount", "-o", "loop,compress=zstd:1", self.dir / "image", self.at)

    def leave(self):
        self.unmount()

    def snapshot(self, name):
        run("btrfs", "-q", "subvolume", "snapshot", "-r", self.at, self.at / f".past-{name}")

    def forget(self, name):
        run("btrfs", "-q", "subvolume", "delete", "-c", self.at / f".past-{name}")

    def past(self, name):
        return self.at / f".past-{name}"

    def stored(self):
        usage = run("btrfs", "filesystem", "usage", "-b", self.at)
        return next(int(line.split()[-1]) for line in usage.splitlines() if line.strip().startswith("Used:"))

    def stop(self):
        self.unmount()
        super().stop()


class S3ql(Target):
    """S3QL on a local directory; from the path, or from a Debian of its own (`--s3ql-root`)."""

    snapshots = True

    @staticmethod
    def missing(settings):
        if settings.s3ql_root or shutil.which("mkfs.s3ql"):
            return ""
        return "mkfs.s3ql (not in Debian 12; see --s3ql-root)"

    def __init__(self, work, settings):
        super().__init__(work, settings)
        self.root = settings.s3ql_root
        if self.root:
            self.dir = self.root / "var/tmp/peers-s3ql"
            self.at = self.dir / "mnt"

    def inner(self, path):
        """A path as the program sees it."""
        return pathlib.Path("/") / path.relative_to(self.root) if self.root else path

    def program(self, *words, check=True):
        words = [self.inner(word) if isinstance(word, pathlib.Path) else word for word in words]
        return run(*(["chroot", self.root] if self.root else []), *words, check=check)

    def start(self):
        super().start()
        if self.root:
            for name in ("dev", "proc"):
                run("mount", "--bind", f"/{name}", self.root / name)
        (self.dir / "store").mkdir()
        self.common = ["--cachedir", self.dir / "cache", "--authfile", "/dev/null"]
        self.store = f"local://{self.inner(self.dir)}/store"
        self.program("mkfs.s3ql", "--plain", *self.common, self.store)
        self.mount()

    def mount(self):
        # Its own choice, lzma, is ten times slower still.
        self.program("mount.s3ql", "--allow-root", "--compress", "zlib-1", *self.common, self.store, self.at)
        self.pid = int(run("pgrep", "-f", "-n", "mount.s3ql"))

    def leave(self):
        self.program("umount.s3ql", self.at)

    def durable(self):
        self.program("s3qlctrl", "flushcache", self.at)

    def snapshot(self, name):
        self.program("s3qlcp", self.at / "source", self.at / f"past-{name}")

    def forget(self, name):
        self.program("s3qlrm", self.at / f"past-{name}")

    def past(self, name):
        return self.at / f"past-{name}"

    def stored(self):
        self.durable()
        return disk_bytes(self.dir / "store")

    def stop(self):
        self.program("umount.s3ql", self.at, check=False)
        self.unmount()
        if self.root:
            for name in ("dev", "proc"):
                run("umount", self.root / name, check=False)
        super().stop()


class Tool(Target):
    """A backup program: it takes a directory in, and mounts what it holds read-only."""

    mounts = False

    def start(self):
        super().start()
        self.fresh()

    def fresh(self):
        """A new, empty repository in place of the old one."""
        shutil.rmtree(self.dir / "repo", ignore_errors=True)
        self.environment = {**os.environ, **self.variables()}
        self.init()

    def call(self, *words):
        return run(*words, env=self.environment)

    def stored(self):
        return disk_bytes(self.dir / "repo")

    def stop(self):
        self.unmount()
        super().stop()

    def open(self):
        self.process = subprocess.Popen(self.mount_words(), env=self.environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_mounted()

    def close(self):
        self.unmount()
        self.process.wait()


class Borg(Tool):
    missing = needs("borg", "fusermount3")

    def variables(self):
        return {"BORG_REPO": str(self.dir / "repo"), "BORG_BASE_DIR": str(self.dir / "home"),
                "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def init(self):
        shutil.rmtree(self.dir / "home", ignore_errors=True)
        self.call("borg", "init", "-e", "none")

    def backup(self, name, *sources):
        self.call("borg", "create", "--compression", "zstd,1", f"::{name}", *sources)

    def restore(self, name, to):
        to.mkdir(parents=True)
        run("borg", "extract", f"::{name}", env=self.environment, cwd=to)

    def mount_words(self):
        return ["borg", "mount", "-f", self.dir / "repo", self.at]

    def past(self, name):
        return self.at / name


class Restic(Tool):
    missing = needs("restic", "fusermount3")

    def variables(self):
        return {"RESTIC_REPOSITORY": str(self.dir / "repo"), "RESTIC_PASSWORD": "bench",
                "RESTIC_CACHE_DIR": str(self.dir / "cache")}

    def init(self):
        shutil.rmtree(self.dir / "cache", ignore_errors=True)
        # zstd needs repository format 2, the default since 0.14.
        self.call("restic", "init", "-q")

    def backup(self, name, *sources):
        self.call("restic", "backup", "-q", "--tag", name, *sources)

    def restore(self, name, to):
        self.call("restic", "restore", "-q", "latest", "--tag", name, "--target", to)

    def mount_words(self):
        return ["restic", "mount", self.at]

    def past(self, name):
        return self.at / "tags" / name / "latest"


TARGETS = {target.__name__.lower(): target for target in (Strata, Ext4, Floor, Near, Bindfs, Btrfs, S3ql, Borg, Restic)}
