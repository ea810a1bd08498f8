#!/usr/bin/env python3
"""StrataFS side by side with what one would use instead: real mounts, real tools, in turn, several rounds.

    benches/peers.py [--rounds 5] [--targets strata ext4 …] [--sets source image …] [--work DIR] [--data DIR]

As root. Prints a table: medians, and each target's time by that of StrataFS; above 1 StrataFS is faster.
Every single value goes to WORK/peers.tsv: step, target, seconds, CPU seconds of the client, of the mounted
process. The data comes from benches/sets.py and is copied to tmpfs first, so that only the target's disk
counts. Targets whose program is not installed are left out, and named.

A step's time ends when its effect is durable, where it writes: fsync of a directory on StrataFS, syncfs
on ext4 and btrfs; borg and restic sync by themselves; the floor keeps nothing. "cold" drops the
kernel's caches before, and the mounted process is new. Everything is removed at the end, also after Ctrl-C.

S3QL is not in Debian 12. With debootstrap it runs from a Debian 13 of its own:
    debootstrap --include=s3ql,python3-cffi-backend trixie ROOT; benches/peers.py --s3ql-root ROOT
"""

import argparse
import collections
import contextlib
import os
import pathlib
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time

from targets import TARGETS, run, status_of

HERE = pathlib.Path(__file__).resolve().parent
READS = 2_000
OVERWRITES = 2_000
BLOCK = 4096


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")


def own_cpu():
    """CPU seconds of this program and of those it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Clock:
    """Times steps and writes each value down."""

    def __init__(self, out):
        self.out = open(out, "w", encoding="utf-8")
        self.values = collections.defaultdict(list)
        self.cpu = collections.defaultdict(list)

    def note(self, step, target, value, client=0.0, daemon=0.0):
        self.values[step, target].append(value)
        self.cpu[step, target].append(client + daemon)
        self.out.write(f"{step}\t{target}\t{value:.6f}\t{client:.2f}\t{daemon:.2f}\n")
        self.out.flush()

    @contextlib.contextmanager
    def step(self, step, target):
        pid, before = target.pid, (status_of(target.pid)[0], own_cpu())
        begin = time.monotonic()
        yield
        seconds = time.monotonic() - begin
        daemon = max(0.0, status_of(pid)[0] - before[0]) if pid == target.pid else 0.0
        self.note(step, target.name, seconds, own_cpu() - before[1], daemon)


def random_places(path, count, seed):
    rand = random.Random(seed)
    blocks = path.stat().st_size // BLOCK
    return [rand.randrange(blocks) * BLOCK for _ in range(count)]


def read_randomly(path, count=READS):
    fd = os.open(path, os.O_RDONLY)
    for place in random_places(path, count, "reads"):
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


def cold(target):
    target.remount()
    drop_caches()


def writing(target, data, sets, clock):
    """Two generations of all sets, through the mount."""
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


def reading(target, sets, clock):
    """The newest tree, and the snapshot before it."""
    at = target.at
    newest = at / "source" if "source" in sets else at
    cold(target)
    with clock.step("find cold", target):
        run("find", at)
    for name in ("find", "du"):
        with clock.step(name, target):
            run(*([name, at] if name == "find" else [name, "-s", at]))
    cold(target)
    with clock.step("tar newest cold", target):
        tar_out(newest)
    with clock.step("tar newest warm", target):
        tar_out(newest)
    if "image" in sets:
        cold(target)
        with clock.step("read image cold", target):
            run("dd", f"if={at}/image/disk.img", "of=/dev/null", "bs=1M")
        cold(target)
        with clock.step("random reads cold", target):
            read_randomly(at / "image/disk.img")
    if target.snapshots:
        # What S3QL has as a snapshot is a copy of one directory.
        past = target.past("g0") if target.name == "s3ql" else target.past("g0") / newest.name
        # borg and restic have nothing to leave.
        target.leave()
        drop_caches()
        with clock.step("open snapshot, find", target):
            target.mount()
            run("find", past)
        with clock.step("tar snapshot", target):
            tar_out(past)
        if "image" in sets and target.name != "s3ql":
            with clock.step("random reads snapshot", target):
                read_randomly(target.past("g0") / "image/disk.img")


def changing(target, data, sets, clock):
    """Copies, changes in place, removals."""
    at = target.at
    if "image" in sets:
        with clock.step("random overwrites", target):
            overwrite_randomly(at / "image/disk.img")
    if "source" in sets:
        with clock.step("duplicate cp -a", target):
            run("cp", "-a", f"{data}/source/1", at / "copy")
            target.durable()
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
    if target.snapshots:
        with clock.step("delete snapshot", target):
            target.forget("g0")
    if hasattr(target, "gc"):
        with clock.step("gc", target):
            target.gc()


def native(target, data, sets, clock):
    """Past the mount: into a volume of its own, and out again."""
    target.stop()
    target.start()
    for generation, step in ((0, "whole first"), (1, "whole next")):
        with clock.step(step, target):
            target.take_in([data / name for name in sets], generation)
    target.snapshot("g")
    cold(target)
    with clock.step("whole restored", target):
        target.take_out(target.settings.ram / "back")
    shutil.rmtree(target.settings.ram / "back")


def filesystem_round(target, data, sets, clock):
    writing(target, data, sets, clock)
    reading(target, sets, clock)
    changing(target, data, sets, clock)
    if target.pid:
        cpu, peak = status_of(target.pid)
        clock.note("daemon peak MiB", target.name, peak)
    if hasattr(target, "take_in"):
        native(target, data, sets, clock)


def tool_round(target, data, sets, clock):
    for generation, step in ((0, "first"), (1, "next")):
        if generation:
            with clock.step("unchanged", target):
                for name in sets:
                    target.backup(f"{name}0again", data / name / "0")
        for name in sets:
            with clock.step(f"{step} {name}", target):
                target.backup(f"{name}{generation}", data / name / str(generation))
    clock.note("stored MB after 2", target.name, target.stored() / 1e6)
    inside = pathlib.Path(*data.parts[1:])
    drop_caches()
    try:
        with clock.step("open snapshot, find", target):
            target.open()
            past = target.past(f"{sets[0]}0") / inside / sets[0] / "0"
            assert run("find", past)
        with clock.step("tar snapshot", target):
            tar_out(past)
        if "image" in sets:
            with clock.step("random reads snapshot", target):
                read_randomly(target.past("image0") / inside / "image/0/disk.img")
    finally:
        target.close()
    target.fresh()
    for generation, step in ((0, "whole first"), (1, "whole next")):
        with clock.step(step, target):
            target.backup(f"all{generation}", *(data / name / str(generation) for name in sets))
    drop_caches()
    with clock.step("whole restored", target):
        target.restore("all1", target.settings.ram / "back")
    shutil.rmtree(target.settings.ram / "back")


def table(values, targets, what):
    steps = list(dict.fromkeys(step for step, _ in values))
    print(f"{what:28}" + "".join(f"{name:>18}" for name in targets))
    for step in steps:
        own = values.get((step, "strata"))
        row = f"{step:28}"
        for name in targets:
            found = values.get((step, name))
            if not found:
                row += f"{'–':>18}"
                continue
            median = statistics.median(found)
            base = statistics.median(own) if own else 0
            ratio = f" ({median / base:.2f})" if base and name != "strata" else ""
            row += f"{f'{median:.2f}{ratio}':>18}"
        print(row)


def arguments():
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
    parser.add_argument("--s3ql-root", type=pathlib.Path, help="a Debian with S3QL in it")
    return parser.parse_args()


def one(name, args, clock):
    target = TARGETS[name](args.work, args)
    try:
        target.start()
        (filesystem_round if target.mounts else tool_round)(target, args.ram, args.sets, clock)
    finally:
        target.stop()


def main():
    args = arguments()
    if os.geteuid() != 0:
        sys.exit("peers: must be root: it mounts and drops caches")
    run(HERE / "sets.py", args.data, "--generations", "2", "--scale", str(args.scale))
    missing = {name: TARGETS[name].missing(args) for name in args.targets}
    for name in filter(missing.get, missing):
        say(f"{name} is left out: not installed: {missing[name]}")
    names = [name for name in args.targets if not missing[name]]
    args.work.mkdir(parents=True, exist_ok=True)
    clock = Clock(args.work / "peers.tsv")
    args.ram = pathlib.Path(run("mktemp", "-d", "/dev/shm/stratafs-peers.XXXXXX").strip())
    try:
        for name in args.sets:
            (args.ram / name).mkdir()
            for generation in ("0", "1"):
                run("cp", "-a", "--sparse=always", args.data / name / generation, args.ram / name)
        for turn in range(args.rounds):
            # Another order each round, so that nobody always comes first.
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                say(f"round {turn + 1}: {name}")
                one(name, args, clock)
    finally:
        shutil.rmtree(args.ram, ignore_errors=True)
    table(clock.values, names, "seconds")
    print()
    table(clock.cpu, names, "CPU seconds, both sides")


if __name__ == "__main__":
    # What was started and mounted goes away then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("peers: ended by a signal"))
    try:
        main()
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as failure:
        sys.exit(f"peers: {failure}")
