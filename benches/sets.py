#!/usr/bin/env python3
"""Makes the data that benches/peers.py works on: six sets, several generations each.

    benches/sets.py DIR [--generations N] [--scale PERCENT] [--only SET ...]

DIR/SET/N is generation N of a set, DIR/SET/N.done says that it is complete. The bytes are the same on every
machine: they come from packages with fixed versions, which cargo and pip fetch, and
from a seeded generator. What is there already is left alone, so a second run costs nothing.

    source     20,000 source files: crates of one family, and their next versions
    packages   unpacked wheels: compiled code and data, and their next versions
    image      an ext4 image of 384 MiB, changed in place by 4 KiB blocks
    database   an SQLite file and its dump, some rows changed and some added a day
    media      incompressible files, 1 MB inserted at the front of each
    logs       text that only grows, rotated every second generation

Needs cargo, pip, mkfs.ext4. Exit 1 with one sentence if a set cannot be made.
"""

import argparse
import hashlib
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import zipfile

GENERATIONS = 6
SOURCE_FILES = 20_000
# Six releases of each; aws-sdk crates are generated and have thousands of small files.
CRATES = {
    "aws-sdk-ec2": ["1.10.0", "1.11.0", "1.12.0", "1.13.0", "1.14.0", "1.15.0"],
    "aws-sdk-iam": ["1.10.0", "1.11.0", "1.12.0", "1.13.0", "1.14.0", "1.15.0"],
    "aws-sdk-rds": ["1.10.0", "1.11.0", "1.12.0", "1.13.0", "1.14.0", "1.15.0"],
    "aws-sdk-sagemaker": ["1.10.0", "1.11.0", "1.12.0", "1.13.0", "1.14.0", "1.15.0"],
    "aws-sdk-glue": ["1.10.0", "1.11.0", "1.12.0", "1.13.0", "1.14.0", "1.15.0"],
    "aws-sdk-quicksight": ["1.10.0", "1.11.0", "1.12.0", "1.13.0", "1.14.0", "1.15.0"],
    "aws-sdk-ssm": ["1.10.0", "1.11.0", "1.12.0", "1.13.0", "1.14.0", "1.15.0"],
}
WHEELS = {
    "numpy": ["1.25.2", "1.26.0", "1.26.1", "1.26.2", "1.26.3", "1.26.4"],
    "scipy": ["1.11.0", "1.11.1", "1.11.2", "1.11.3", "1.11.4", "1.12.0"],
}
BLOCK = 4096


class Failed(Exception):
    """A set cannot be made; the text says why."""


def run(*command, **more):
    """Runs a command that has to succeed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failed(f"{' '.join(map(str, command[:4]))}: {last}")
    return done.stdout


def noise(seed, size):
    """`size` incompressible bytes."""
    return hashlib.shake_128(seed.encode()).digest(size)


def fix_times(root):
    """Times that follow from the content: the same in each run, others where a generation differs."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "blake2b").digest()[:4]
            when = 1_600_000_000 + int.from_bytes(digest, "big") % 10_000_000
            os.utime(path, (when, when))


def crate(name, version, to):
    """Unpacks a crate through cargo, which knows where crates come from."""
    with tempfile.TemporaryDirectory() as scratch:
        manifest = pathlib.Path(scratch, "Cargo.toml")
        manifest.write_text(
            f'[package]\nname="x"\nversion="0.0.0"\nedition="2021"\n[dependencies]\n{name}="={version}"\n'
        )
        pathlib.Path(scratch, "src").mkdir()
        pathlib.Path(scratch, "src/lib.rs").touch()
        run("cargo", "generate-lockfile", cwd=scratch)
        run("cargo", "fetch", cwd=scratch)
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    found = list(home.glob(f"registry/src/*/{name}-{version}"))
    if not found:
        raise Failed(f"cargo did not unpack {name} {version}")
    shutil.copytree(found[0], to, symlinks=True)


def make_source(to, generation, before, scale):
    for name, versions in CRATES.items():
        crate(name, versions[generation % len(versions)], to / name)
    files = sorted(path for path in to.rglob("*") if path.is_file())
    for path in files[SOURCE_FILES * scale // 100 :]:
        path.unlink()
    if len(files) < SOURCE_FILES:
        print(f"sets: only {len(files)} source files", file=sys.stderr)


def make_packages(to, generation, before, scale):
    with tempfile.TemporaryDirectory() as scratch:
        for name, versions in WHEELS.items():
            version = versions[generation % len(versions)]
            run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                "--python-version", "3.11", "--platform", "manylinux2014_x86_64",
                "--dest", scratch, f"{name}=={version}")
        for wheel in sorted(pathlib.Path(scratch).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(to / wheel.name.split("-")[0])


def make_image(to, generation, before, scale):
    image = to / "disk.img"
    if before is None:
        tree = to.parent.parent / "packages" / "0"
        if not tree.is_dir():
            raise Failed("set image is made of set packages; make that first")
        size = 384 * scale // 100
        with tempfile.TemporaryDirectory() as scratch:
            some = pathlib.Path(scratch)
            left = size * 1024 * 1024 * 6 // 10
            for path in sorted(p for p in tree.rglob("*") if p.is_file()):
                left -= path.stat().st_size
                if left < 0:
                    break
                target = some / path.relative_to(tree)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
            run("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-d", scratch,
                "-U", "00000000-0000-4000-8000-000000000001",
                "-E", "hash_seed=00000000-0000-4000-8000-000000000002,lazy_itable_init=0",
                str(image), f"{size}M", env={**os.environ, "E2FSPROGS_FAKE_TIME": "1600000000"})
        return
    run("cp", "--sparse=always", before / "disk.img", image)
    rand = random.Random(f"image {generation}")
    blocks = image.stat().st_size // BLOCK
    with open(image, "r+b") as file:
        # Files are written in runs: of 2 % of the blocks, most lie next to each other.
        for _ in range(blocks // 400):
            first = rand.randrange(blocks - 8)
            file.seek(first * BLOCK)
            text = f"{generation} {first} ".encode()
            file.write((text * (8 * BLOCK // len(text) + 1))[: 8 * BLOCK])


def make_database(to, generation, before, scale):
    path = to / "shop.sqlite"
    if before is not None:
        shutil.copyfile(before / "shop.sqlite", path)
    rand = random.Random(f"database {generation}")
    words = [f"word{n:04}" for n in range(2000)]

    def text():
        return " ".join(rand.choice(words) for _ in range(20))

    base = sqlite3.connect(path)
    base.execute("create table if not exists item (id integer primary key, price integer, what text)")
    rows = base.execute("select count(*) from item").fetchone()[0]
    added = 400_000 * scale // 100 if before is None else rows // 100
    base.executemany("insert into item values (?, ?, ?)",
                     ((rows + n, rand.randrange(10_000), text()) for n in range(added)))
    for _ in range(rows // 200):
        base.execute("update item set price = ?, what = ? where id = ?",
                     (rand.randrange(10_000), text(), rand.randrange(rows)))
    base.commit()
    with open(to / "shop.sql", "w", encoding="ascii") as dump:
        dump.writelines(line + "\n" for line in base.iterdump())
    base.close()


def make_media(to, generation, before, scale):
    for number in range(4):
        path = to / f"film{number}.mp4"
        head = noise(f"head {number} {generation}", 1_000_000) if before else b"\0\0\0\x18ftypmp42"
        with open(path, "wb") as file:
            file.write(head)
            if before:
                with open(before / path.name, "rb") as old:
                    shutil.copyfileobj(old, file, 1 << 20)
            else:
                for part in range(40 * scale // 100):
                    file.write(noise(f"film {number} {part}", 1 << 20))


def make_logs(to, generation, before, scale):
    if before is not None:
        shutil.copytree(before, to, dirs_exist_ok=True)
    rand = random.Random(f"logs {generation}")
    for service in ("web", "mail", "auth"):
        log = to / f"{service}.log"
        if before is not None and generation % 2 == 0:
            log.rename(to / f"{service}.log.{generation // 2}")
        lines = 200_000 * scale // 100 if before is None else 20_000 * scale // 100
        with open(log, "a", encoding="ascii") as file:
            for n in range(lines):
                file.write(f"2026-11-{generation + 1:02}T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02} {service}"
                           f"[{rand.randrange(30000)}]: client 10.0.{rand.randrange(256)}.{rand.randrange(256)} "
                           f"took {rand.randrange(1_000_000)} us for /{rand.choice('abcdefgh') * 8}\n")


# In the order in which they are made: the image is made of the packages.
SETS = {
    "source": make_source,
    "packages": make_packages,
    "image": make_image,
    "database": make_database,
    "media": make_media,
    "logs": make_logs,
}


def make(root, name, generation, scale):
    to, done = root / name / str(generation), root / name / f"{generation}.done"
    if done.exists():
        return
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    before = root / name / str(generation - 1) if generation else None
    print(f"sets: making {name} {generation}", file=sys.stderr)
    SETS[name](to, generation, before, scale)
    fix_times(to)
    done.touch()


def main():
    parser = argparse.ArgumentParser(description="Makes the data for benches/peers.py.")
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--generations", type=int, default=GENERATIONS)
    parser.add_argument("--scale", type=int, default=100, help="percent of the full size")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    args = parser.parse_args()
    for name in SETS:
        for generation in range(args.generations) if name in args.only else ():
            make(args.dir, name, generation, args.scale)


if __name__ == "__main__":
    try:
        main()
    except (Failed, OSError) as failure:
        sys.exit(f"sets: {failure}")
