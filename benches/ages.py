#!/usr/bin/env python3
"""How a volume ages: 30 generations of a changing tree, each written by rsync and snapshotted; then the oldest
and the newest snapshot are read back cold, and the work that took is counted.

    benches/ages.py [--generations 30] [--rounds 5] [--stratafs BIN …] [--work DIR] [--data DIR] [--build-only | --keep]

As root. Several programs (--stratafs A B) get a volume each and are read in turn. The data comes from
benches/sets.py; what changes is drawn from a generator with a fixed seed, so every run makes the same trees:

    source                small files: of 100, two are edited every day; some are new, some go
    disk.img              written in place: cells of 4 to 64 KiB, three of four in its first tenth
    shop.sqlite, web.log  pages of the first change, and the ends of both grow

--build-only makes the volumes and leaves them for later runs with --keep, which only read them.

Columns: seconds and MB/s of `tar c` of a snapshot and of its parts, times the speed of the first; frames read per MB;
bytes decoded per byte; how often a frame lay in another container than the one before, per 100 MB; CPU seconds of the
mounted process. "stored" is the volume directory with all snapshots, without gc.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time

from targets import Strata, run, status_of

MIB = 1 << 20
COUNTERS = ("frames_read", "container_changes", "decoded_bytes")
PARTS = (".", "source", "disk.img", "shop.sqlite", "web.log")


class Tree:
    """The tree as it is on one day."""

    def __init__(self, root, data, files, image_mib):
        self.root = root
        self.rng = random.Random(30)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        self.spare = []
        self._take_source(data / "source/0", files)
        self._take(data / "image/0/disk.img", "disk.img", image_mib * MIB)
        self._take(data / "database/0/shop.sqlite", "shop.sqlite", image_mib * MIB // 2)
        self._take(data / "logs/0/web.log", "web.log", 8 * MIB)

    def _take(self, source, name, size):
        with open(source, "rb") as from_, open(self.root / name, "wb") as to:
            to.write(from_.read(size))

    def _take_source(self, source, files):
        """Every so many-th file, so that all of it is seen; one of eleven is kept for later days."""
        paths = sorted(p for p in source.rglob("*") if p.is_file() and not p.is_symlink())
        paths = paths[:: max(1, len(paths) * 10 // (files * 11))][: files * 11 // 10]
        for number, path in enumerate(paths):
            to = self.root / "source" / path.relative_to(source)
            if number % 11 == 10:
                self.spare.append((path, to))
            else:
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)

    def next_day(self, day):
        # A clock of its own: rsync compares times.
        stamp = 1_700_000_000 + 86_400 * day
        paths = sorted(p for p in (self.root / "source").rglob("*") if p.is_file())
        for path in self.rng.sample(paths, len(paths) // 50):
            self._edit(path, stamp)
        for path in self.rng.sample(paths, len(paths) // 500):
            path.unlink()
        for _ in range(min(len(self.spare), len(paths) // 400)):
            path, to = self.spare.pop(self.rng.randrange(len(self.spare)))
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
        self._overwrite(self.root / "disk.img", 250)
        self._overwrite(self.root / "shop.sqlite", 120)
        for name, size in (("shop.sqlite", 512 << 10), ("web.log", 384 << 10)):
            with open(self.root / name, "ab") as out:
                out.write(self._lines(size))
        for name in ("disk.img", "shop.sqlite", "web.log"):
            os.utime(self.root / name, (stamp, stamp))

    def _lines(self, size):
        lines = []
        while size > 0:
            lines.append(b"%016x %d item %x\n" % (self.rng.getrandbits(64), size, self.rng.getrandbits(20)))
            size -= len(lines[-1])
        return b"".join(lines)

    def _edit(self, path, stamp):
        text = bytearray(path.read_bytes())
        at = self.rng.randrange(len(text) + 1)
        text[at : at + self.rng.randrange(40)] = self._lines(60)
        path.write_bytes(text)
        os.utime(path, (stamp, stamp))

    def _overwrite(self, path, count):
        size = path.stat().st_size
        with open(path, "r+b") as out:
            for _ in range(count):
                part = size // 10 if self.rng.random() < 0.75 else size
                out.seek(self.rng.randrange(part // 4096) * 4096)
                out.write(self._lines(4096 << self.rng.randrange(5)))


class Aging(Strata):
    """A volume of one program, named after the program's place in the list."""

    def __init__(self, work, program, number):
        self.number = number
        super().__init__(work, argparse.Namespace(stratafs=program))

    @property
    def name(self):
        return f"ages-{self.number}"

    def counters(self):
        found = json.loads(self.program("--json", "stats", self.at))["activity"]
        return {name: found.get(name, 0) for name in COUNTERS}


def build(volumes, arguments):
    tree = Tree(arguments.tree, arguments.data, arguments.files, arguments.image_mib)
    for volume in volumes:
        volume.start()
    for day in range(1, arguments.generations + 1):
        if day > 1:
            tree.next_day(day)
        for volume in volumes:
            run("rsync", "-a", "--delete", f"{arguments.tree}/", f"{volume.at}/")
            volume.snapshot(f"g{day:02}")
        print(f"ages: generation {day}", file=sys.stderr, flush=True)
    for volume in volumes:
        volume.durable()


def read_cold(volume, name, part):
    """Seconds, MB, CPU seconds and counters of `tar c` of a part of a snapshot with nothing in memory."""
    volume.remount()
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
    before, cpu = volume.counters(), status_of(volume.pid)[0]
    began = time.monotonic()
    # GNU tar reads nothing when it writes to /dev/null.
    tar = subprocess.Popen(["tar", "-C", volume.past(name), "-c", part], stdout=subprocess.PIPE)
    size = 0
    while piece := tar.stdout.read(MIB):
        size += len(piece)
    if tar.wait() != 0:
        raise RuntimeError(f"tar of {name} failed")
    seconds = time.monotonic() - began
    after = volume.counters()
    counted = {key: after[key] - before[key] for key in COUNTERS}
    return seconds, size / 1e6, status_of(volume.pid)[0] - cpu, counted


def report(volumes, arguments):
    names = [f"g{day:02}" for day in sorted({1, arguments.generations})]
    found = {}
    for _ in range(arguments.rounds):
        for part in PARTS if arguments.parts else PARTS[:1]:
            for name in names:
                for volume in volumes:
                    found.setdefault((volume, part, name), []).append(read_cold(volume, name, part))
    print(f"{'':8}{'part':>12}{'':>5}{'MB':>8}{'s':>7}{'MB/s':>8}{'x first':>9}{'frames/MB':>11}{'decoded':>9}"
          f"{'changes':>9}{'CPU s':>7}")
    first = {}
    for (volume, part, name), rounds in found.items():
        seconds = statistics.median(r[0] for r in rounds)
        cpu = statistics.median(r[2] for r in rounds)
        size, counted = rounds[0][1], rounds[0][3]
        speed = size / seconds
        ratio = speed / first.setdefault((volume, part), speed)
        print(f"{volume.name:8}{part:>12}{name:>5}{size:8.1f}{seconds:7.2f}{speed:8.1f}{ratio:9.2f}"
              f"{counted['frames_read'] / size:11.2f}{counted['decoded_bytes'] / size / 1e6:9.2f}"
              f"{counted['container_changes'] / size * 100:9.0f}{cpu:7.2f}")
    for volume in volumes:
        print(f"{volume.name:8} stored {volume.stored() / 1e6:.1f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--stratafs", nargs="+", type=pathlib.Path, default=[here / "target/release/stratafs"])
    parser.add_argument("--generations", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", action="store_true", help="read each kind of file by itself, too")
    parser.add_argument("--files", type=int, default=6000)
    parser.add_argument("--image-mib", type=int, default=96)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/var/tmp/stratafs-ages"))
    parser.add_argument("--tree", type=pathlib.Path, default=pathlib.Path("/dev/shm/stratafs-ages"))
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("/var/tmp/stratafs-sets"))
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    volumes = [Aging(arguments.work, p.resolve(), n) for n, p in enumerate(arguments.stratafs)]
    try:
        if arguments.keep:
            for volume in volumes:
                volume.mount()
        else:
            build(volumes, arguments)
        if not arguments.build_only:
            report(volumes, arguments)
    finally:
        for volume in volumes:
            if arguments.build_only or arguments.keep:
                volume.program("umount", volume.at, check=False)
            else:
                volume.stop()
        shutil.rmtree(arguments.tree, ignore_errors=True)


if __name__ == "__main__":
    main()
