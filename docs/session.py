#!/usr/bin/env python3
"""Runs the session of the README for real, and draws what it printed: docs/session.svg.

Usage: docs/session.py STRATAFS [OUTPUT]        as root; needs /dev/fuse and rsync
"""

import html
import os
import shutil
import subprocess
import sys
import tempfile

# What is shown; the places are replaced by those of a temporary directory when it runs. Lines with
# a `+` run unseen: what happens to a source tree between two backups.
SESSION = """\
# A volume is a directory; mounted, it is a filesystem.
stratafs init /backup/vol
stratafs mount /backup/vol /mnt
rsync -a /srv/ /mnt/srv/ && mkdir /mnt/.snapshots/monday
stratafs stats /mnt --summary
+ cp -a /srv/include /srv/include.orig; rm -r /srv/include/linux; echo '#define NEW' >/srv/include/stdio.h
# The next day somebody has copied a tree, edited a file, and deleted too much.
rsync -a --delete /srv/ /mnt/srv/ && mkdir /mnt/.snapshots/tuesday
stratafs stats /mnt --summary
stratafs snapshot diff /mnt monday tuesday --stat
stratafs snapshot list /mnt
# Monday is a folder, and what is missed comes back without copying a byte.
ls /mnt/.snapshots/monday/srv/include/linux | head -n 2
stratafs restore /mnt monday:srv/include/linux
diff -r /mnt/srv/include.orig/linux /mnt/srv/include/linux && echo the same
ls /mnt/srv/include/.history/stdio.h/
stratafs umount /mnt
"""

LINE, CHAR, PAD, TOP = 19, 8.43, 18, 44
COLOURS = {"comment": "#8b949e", "prompt": "#3fb950", "command": "#f0f6fc", "output": "#c9d1d9"}


def run(program):
    """The lines of the session: (kind, text)."""
    lines = []
    with tempfile.TemporaryDirectory() as top:
        places = {"/backup/": f"{top}/", "/mnt": f"{top}/mnt", "/srv": f"{top}/srv"}
        os.mkdir(f"{top}/mnt")
        os.mkdir(f"{top}/srv")
        shutil.copytree("/usr/include", f"{top}/srv/include", symlinks=True)
        env = dict(os.environ, PATH=f"{top}/bin:{os.environ['PATH']}", LC_ALL="C.UTF-8")
        os.mkdir(f"{top}/bin")
        os.symlink(os.path.abspath(program), f"{top}/bin/stratafs")
        try:
            for line in SESSION.splitlines():
                if line.startswith("#"):
                    lines.append(("comment", line))
                    continue
                command = line.removeprefix("+ ")
                for shown, real in places.items():
                    command = command.replace(f" {shown}", f" {real}").replace(f">{shown}", f">{real}")
                ran = subprocess.run(["bash", "-euo", "pipefail", "-c", command], env=env, text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
                if ran.returncode not in (0, 141):
                    sys.exit(f"{line}\n{ran.stdout}")
                if line.startswith("+"):
                    continue
                lines.append(("command", line))
                output = ran.stdout.replace(f"{top}/mnt", "/mnt").replace(top, "/backup")
                lines += [("output", text) for text in output.splitlines()]
        finally:
            subprocess.run(["umount", "-i", "-l", f"{top}/mnt"], check=False, stderr=subprocess.DEVNULL)
    return lines


def draw(lines):
    """An SVG that looks like a terminal."""
    columns = max(len(text) + 2 for _, text in lines)
    width, height = round(columns * CHAR + 2 * PAD), len(lines) * LINE + TOP + PAD
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'viewBox="0 0 {width} {height}" font-size="14" '
           'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace">',
           f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>']
    out += [f'<circle cx="{PAD + 4 + 20 * n}" cy="20" r="6" fill="{colour}"/>'
            for n, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))]
    for row, (kind, text) in enumerate(lines):
        spans = [(kind, text)] if kind != "command" else [("prompt", "$ "), (kind, text)]
        tspans = "".join(f'<tspan fill="{COLOURS[k]}">{html.escape(t)}</tspan>' for k, t in spans)
        out.append(f'<text x="{PAD}" y="{TOP + row * LINE + 12}" xml:space="preserve">{tspans}</text>')
    return "\n".join(out + ["</svg>", ""])


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    target = sys.argv[2] if len(sys.argv) == 3 else os.path.join(os.path.dirname(__file__), "session.svg")
    picture = draw(run(sys.argv[1]))
    with open(target, "w", encoding="utf-8") as file:
        file.write(picture)
