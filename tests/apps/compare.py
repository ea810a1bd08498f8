#!/usr/bin/env python3
"""Says exactly how two trees differ; prints nothing and ends with 0 when they do not.

Usage: compare.py [--no-sockets] LEFT RIGHT

Compared for each name: kind, permissions, owner, group, modification time to the nanosecond, size,
content, target of a link, device number, which names share an inode and how many there are, and
every extended attribute with its bytes, so ACLs and capabilities too. Directories' sizes and link
counts are not compared: every filesystem has its own.
"""

import hashlib
import os
import stat
import sys

DIFFERENCES_SHOWN = 40


def content(path):
    digest = hashlib.blake2b()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def attributes(path):
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in sorted(names)}


def facts(path, status):
    mode = status.st_mode
    found = {
        "kind": stat.S_IFMT(mode),
        "permissions": oct(stat.S_IMODE(mode)),
        "owner": status.st_uid,
        "group": status.st_gid,
        "mtime": status.st_mtime_ns,
        "xattrs": attributes(path),
    }
    if not stat.S_ISDIR(mode):
        found["links"] = status.st_nlink
    if stat.S_ISREG(mode):
        found["size"] = status.st_size
        found["content"] = content(path)
    if stat.S_ISLNK(mode):
        found["target"] = os.readlink(path)
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        found["device"] = status.st_rdev
    return found


def tree(root, with_sockets):
    """Facts by name; names are bytes, relative to the root."""
    found, first_name = {}, {}
    waiting = [b""]
    while waiting:
        name = waiting.pop()
        path = os.path.join(os.fsencode(root), name) if name else os.fsencode(root)
        status = os.lstat(path)
        if stat.S_ISSOCK(status.st_mode) and not with_sockets:
            continue
        found[name] = facts(path, status)
        if stat.S_ISDIR(status.st_mode):
            waiting += [os.path.join(name, entry) for entry in os.listdir(path)]
        else:
            first_name.setdefault(status.st_ino, []).append(name)
    for names in first_name.values():
        for name in names:
            found[name]["same inode"] = sorted(names)
    return found


def main():
    args = sys.argv[1:]
    with_sockets = "--no-sockets" not in args
    left, right = [arg for arg in args if arg != "--no-sockets"]
    a, b = tree(left, with_sockets), tree(right, with_sockets)
    if len(a) < 2:
        sys.exit(f"{left} is empty: there is nothing to compare")
    lines = []
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            lines.append(f"{name!r}: only in {left if name in a else right}")
            continue
        for fact in sorted(a[name].keys() | b[name].keys()):
            one, other = a[name].get(fact), b[name].get(fact)
            if one != other:
                lines.append(f"{name!r}: {fact}: {one!r} against {other!r}"[:400])
    print("\n".join(lines[:DIFFERENCES_SHOWN]), end="\n" if lines else "")
    if lines:
        sys.exit(f"{len(lines)} differences between {left} and {right}")


main()
