#!/usr/bin/env python3
"""StrataFS side by side with what one would use instead: real mounts, real tools, in turn, several rounds.

    benches/peers.py [--rounds 5] [--targets strata ext4 …] [--sets source image …] [--work DIR] [--data DIR]

As root. Prints a table: medians, and each target's time by that of StrataFS; above 1 StrataFS is faster.
Every single value goes to WORK/peers.tsv. The data comes from benches/sets.py and is copied to tmpfs first,
so that only the target's disk counts. Targets whose program is not installed are left out, and named.

A step's time ends when its effect is durable, where it writes: fsync of a directory on StrataFS, syncfs
on ext4 and btrfs; borg and restic sync by themselves; the floor keeps nothing. "cold" drops the
kernel's caches before, and the mounted process is new. Everything is removed at the end, also after Ctrl-C.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
STEP_SECONDS = 900
READS = 2_000
OVERWRITES = 2_000
BLOCK = 4096


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def run(*command, check=True, **more):
    """Runs a command and returns what it printed. A step that hangs ends the run."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=STEP_SECONDS, check=False, **more)
    if check and done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}: {tail}")
    return done.stdout


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")


def disk_bytes(path):
    return sum(s.st_blocks * 512 for s in (os.lstat(p) for p in [path, *path.rglob("*")]))


def status_of(pid):
    """CPU seconds and peak memory (MiB) of a process."""
    with contextlib.suppress(OSError):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        peak = [l for l in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines() if "VmHWM" in l]
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak[0].split()[1]) / 1024
    return 0.0, 0.0


class Target:
    """What all have: a place of their own below the work directory."""

    needs = ()
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

    def start(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        self.at.mkdir(parents=True)

    def remount(self):
        """Ends what keeps caches of its own."""

    def durable(self):
        run("sync", "-f", self.at)

    def stored(self):
        return disk_bytes(self.at)

    def stop(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def _unmount(self):
        for _ in range(50):
            if not os.path.ismount(self.at):
                return
            run("umount", self.at, check=False)
            time.sleep(0.1)
        run("umount", "-l", self.at, check=False)


class Ext4(Target):
    pass


class Strata(Target):
    snapshots = True

    def _program(self, *words):
        return run(self.settings.stratafs, *words)

    def start(self):
        super().start()
        self._program("init", self.dir / "vol")
        self._mount()

    def _mount(self):
        self._program("mount", self.dir / "vol", self.at)
        self.pid = int((self.dir / "vol/lock").read_text(encoding="utf-8").split()[1])

    def remount(self):
        self._program("umount", self.at)
        self._mount()

    def durable(self):
        fd = os.open(self.at, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def snapshot(self, name):
        (self.at / ".snapshots" / name).mkdir()

    def past(self, name):
        return self.at / ".snapshots" / name

    def stored(self):
        return disk_bytes(self.dir / "vol")

    def gc(self):
        self._program("gc", self.at)

    def stop(self):
        if os.path.ismount(self.at):
            run(self.settings.stratafs, "umount", self.at, check=False)
            self._unmount()
        super().stop()


class Floor(Target):
    def start(self):
        super().start()
        self.process = subprocess.Popen([self.settings.nullfs, self.at])
        self.pid = self.process.pid
        for _ in range(200):
            if os.path.ismount(self.at):
                return
            time.sleep(0.05)
        raise RuntimeError("the floor did not mount")

    def durable(self):
        pass

    def stored(self):
        return 0

    def stop(self):
        self._unmount()
        self.process.terminate()
        self.process.wait()
        super().stop()


class Bindfs(Target):
    needs = ("bindfs",)

    def start(self):
        super().start()
        (self.dir / "below").mkdir()
        run("bindfs", self.dir / "below", self.at)

    def durable(self):
        run("sync", "-f", self.dir / "below")

    def stored(self):
        return disk_bytes(self.dir / "below")

    def stop(self):
        self._unmount()
        super().stop()


class Btrfs(Target):
    needs = ("mkfs.btrfs",)
    snapshots = True

    def start(self):
        super().start()
        image = self.dir / "image"
        with open(image, "wb") as file:
            file.truncate(24 << 30)
        run("mkfs.btrfs", "-q", image)
        run("mount", "-o", "loop,compress=zstd:1", image, self.at)

    def remount(self):
        run("mount", "-o", "remount", self.at)

    def snapshot(self, name):
        run("btrfs", "-q", "subvolume", "snapshot", "-r", self.at, self.at / f".past-{name}")

    def past(self, name):
        return self.at / f".past-{name}"

    def stored(self):
        usage = run("btrfs", "filesystem", "usage", "-b", self.at)
        return next(int(line.split()[-1]) for line in usage.splitlines() if line.strip().startswith("Used:"))

    def stop(self):
        self._unmount()
        super().stop()


class S3ql(Target):
    needs = ("mkfs.s3ql",)

    def start(self):
        super().start()
        (self.dir / "store").mkdir()
        self.common = ["--cachedir", self.dir / "cache", "--authfile", "/dev/null"]
        run("mkfs.s3ql", "--plain", *self.common, f"local://{self.dir}/store")
        run("mount.s3ql", "--allow-root", *self.common, f"local://{self.dir}/store", self.at)

    def durable(self):
        run("s3qlctrl", "flushcache", self.at)

    def stored(self):
        self.durable()
        return disk_bytes(self.dir / "store")

    def stop(self):
        run("umount.s3ql", self.at, check=False)
        self._unmount()
        super().stop()


class Tool(Target):
    """A backup program: it takes a directory in, and mounts what it holds read-only."""

    mounts = False

    def start(self):
        super().start()
        self.environment = {**os.environ, **self.variables()}
        self.init()

    def call(self, *words):
        return run(*words, env=self.environment)

    def stored(self):
        return disk_bytes(self.dir / "repo")

    def stop(self):
        self._unmount()
        super().stop()

    def open(self):
        self.process = subprocess.Popen(self.mount_words(), env=self.environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if os.path.ismount(self.at):
                return self.inside()
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not mount")

    def close(self):
        self._unmount()
        self.process.wait()


class Borg(Tool):
    needs = ("borg", "fusermount3")

    def variables(self):
        return {"BORG_REPO": str(self.dir / "repo"), "BORG_BASE_DIR": str(self.dir / "home"),
                "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def init(self):
        self.call("borg", "init", "-e", "none")

    def backup(self, source, name):
        self.call("borg", "create", "--compression", "zstd,1", f"::{name}", source)

    def restore(self, name, to):
        to.mkdir(parents=True)
        run("borg", "extract", f"::{name}", env=self.environment, cwd=to)

    def mount_words(self):
        return ["borg", "mount", "-f", "::", str(self.at)]

    def inside(self):
        return self.at / "g1"


class Restic(Tool):
    needs = ("restic",)

    def variables(self):
        return {"RESTIC_REPOSITORY": str(self.dir / "repo"), "RESTIC_PASSWORD": "bench",
                "RESTIC_CACHE_DIR": str(self.dir / "cache")}

    def init(self):
        # zstd needs repository format 2, the default since 0.14.
        self.call("restic", "init", "-q")

    def backup(self, source, name):
        self.call("restic", "backup", "-q", "--tag", name, source)

    def restore(self, name, to):
        self.call("restic", "restore", "-q", "latest", "--tag", name, "--target", to)

    def mount_words(self):
        return ["restic", "mount", str(self.at)]

    def inside(self):
        return self.at / "snapshots" / "latest"


TARGETS = {target.__name__.lower(): target for target in (Strata, Ext4, Floor, Bindfs, Btrfs, S3ql, Borg, Restic)}


class Clock:
    """Times steps and writes each value down."""

    def __init__(self, out):
        self.out = open(out, "w", encoding="utf-8")
        self.values = collections.defaultdict(list)

    def note(self, step, target, value):
        self.values[step, target].append(value)
        self.out.write(f"{step}\t{target}\t{value:.6f}\n")
        self.out.flush()

    @contextlib.contextmanager
    def step(self, step, target):
        begin = time.monotonic()
        yield
        self.note(step, target.name, time.monotonic() - begin)


def random_places(path, count, seed):
    rand = random.Random(seed)
    blocks = path.stat().st_size // BLOCK
    return [rand.randrange(blocks) * BLOCK for _ in range(count)]


def read_randomly(path):
    fd = os.open(path, os.O_RDONLY)
    for place in random_places(path, READS, "reads"):
        os.pread(fd, BLOCK, place)
    os.close(fd)


def overwrite_randomly(path):
    fd = os.open(path, os.O_WRONLY)
    for place in random_places(path, OVERWRITES, "writes"):
        os.pwrite(fd, place.to_bytes(8, "big") * (BLOCK // 8), place)
    os.fsync(fd)
    os.close(fd)


def tar_out(path):
    run("sh", "-c", f"tar c -C '{path}' . | cat >/dev/null")


def filesystem_round(target, data, sets, clock):
    at = target.at
    for name in sets:
        with clock.step(f"first {name}", target):
            run("rsync", "-a", f"{data}/{name}/0/", f"{at}/{name}/")
            target.durable()
    with clock.step("unchanged", target):
        for name in sets:
            run("rsync", "-a", f"{data}/{name}/0/", f"{at}/{name}/")
    if target.snapshots:
        with clock.step("snapshot", target):
            target.snapshot("g0")
    for name in sets:
        with clock.step(f"next {name}", target):
            run("rsync", "-a", "--delete", f"{data}/{name}/1/", f"{at}/{name}/")
            target.durable()
    clock.note("stored MB after 2", target.name, target.stored() / 1e6)
    if "source" in sets:
        with clock.step("duplicate cp -a", target):
            run("cp", "-a", f"{data}/source/1", at / "copy")
            target.durable()
    for name in ("find", "du"):
        with clock.step(name, target):
            run(*([name, at] if name == "find" else [name, "-s", at]))
    newest = at / "source" if "source" in sets else at
    for heat in ("cold", "warm"):
        if heat == "cold":
            target.remount()
            drop_caches()
        with clock.step(f"tar newest {heat}", target):
            tar_out(newest)
    if target.snapshots:
        target.remount()
        drop_caches()
        with clock.step("tar oldest snapshot cold", target):
            tar_out(target.past("g0"))
    if "image" in sets:
        target.remount()
        drop_caches()
        with clock.step("random reads cold", target):
            read_randomly(at / "image/disk.img")
        with clock.step("random overwrites", target):
            overwrite_randomly(at / "image/disk.img")
    if "source" in sets:
        archive = data / "source.tar"
        if not archive.exists():
            run("tar", "cf", archive, "-C", data / "source/0", ".")
        (at / "untar").mkdir()
        with clock.step("untar", target):
            run("tar", "xf", archive, "-C", at / "untar")
            target.durable()
        with clock.step("rm -rf", target):
            run("rm", "-rf", at / "untar", at / "copy")
            target.durable()
    if hasattr(target, "gc"):
        with clock.step("gc", target):
            target.gc()


def tool_round(target, data, sets, clock):
    for generation, step in ((0, "first"), (1, "next")):
        for name in sets:
            with clock.step(f"{step} {name}", target):
                target.backup(data / name / str(generation), f"{name}{generation}")
    with clock.step("unchanged", target):
        for name in sets:
            target.backup(data / name / "1", f"{name}1again")
    clock.note("stored MB after 2", target.name, target.stored() / 1e6)
    drop_caches()
    with clock.step("restore", target):
        target.restore(f"{sets[0]}1", target.dir / "back")
    drop_caches()
    with clock.step("mount and find", target):
        inside = target.open()
        found = run("find", target.at if not inside.exists() else inside)
        assert found
    target.close()


def table(values, targets):
    steps = list(dict.fromkeys(step for step, _ in values))
    print(f"{'step':28}" + "".join(f"{name:>18}" for name in targets))
    for step in steps:
        own = values.get((step, "strata"))
        row = f"{step:28}"
        for name in targets:
            found = values.get((step, name))
            if not found:
                row += f"{'–':>18}"
                continue
            median = statistics.median(found)
            ratio = f" ({median / statistics.median(own):.2f})" if own and name != "strata" else ""
            row += f"{f'{median:.2f}{ratio}':>18}"
        print(row)


def main():
    parser = argparse.ArgumentParser(description="StrataFS side by side with others.")
    cargo = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "release"
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--sets", nargs="+", default=["source", "packages", "image", "database", "media", "logs"])
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/var/tmp/stratafs-peers"))
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("/var/tmp/stratafs-sets"))
    parser.add_argument("--scale", type=int, default=100, help="percent of the sets' full size")
    parser.add_argument("--stratafs", default=cargo / "stratafs")
    parser.add_argument("--nullfs", default=cargo / "examples/nullfs")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("peers: must be root: it mounts and drops caches")
    run(HERE / "sets.py", args.data, "--generations", "2", "--scale", str(args.scale))
    missing = [name for name in args.targets if not all(shutil.which(tool) for tool in TARGETS[name].needs)]
    for name in missing:
        say(f"{name} is left out: {', '.join(TARGETS[name].needs)} is not installed")
    names = [name for name in args.targets if name not in missing]
    args.work.mkdir(parents=True, exist_ok=True)
    clock = Clock(args.work / "peers.tsv")
    ram = pathlib.Path(run("mktemp", "-d", "/dev/shm/stratafs-peers.XXXXXX").strip())
    try:
        for name in args.sets:
            run("cp", "-a", "--sparse=always", args.data / name, ram / name)
        for turn in range(args.rounds):
            # Another order each round, so that nobody always comes first.
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                say(f"round {turn + 1}: {name}")
                target = TARGETS[name](args.work, args)
                try:
                    target.start()
                    (filesystem_round if target.mounts else tool_round)(target, ram, args.sets, clock)
                    if target.pid:
                        cpu, peak = status_of(target.pid)
                        clock.note("daemon CPU s", name, cpu)
                        clock.note("daemon peak MiB", name, peak)
                finally:
                    target.stop()
    finally:
        shutil.rmtree(ram, ignore_errors=True)
    table(clock.values, names)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as failure:
        sys.exit(f"peers: {failure}")
