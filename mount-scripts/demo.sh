#!/usr/bin/env bash
# Shows what StrataFS does, on real files, and checks every step.
# Usage: mount-scripts/demo.sh [--keep] [VOLUME_DIR MOUNTPOINT]
# Both directories must be missing or empty; given ones are left with what is in them. --keep leaves
# the volume mounted.
set -euo pipefail
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=mount-scripts/lib.sh
. "$REPO/mount-scripts/lib.sh"

# Real files copied from this machine, at most this much of each kind.
HEADERS_KIB=40000
DOCUMENTS_KIB=20000
PROGRAMS_KIB=20000

KEEP=no
if [ "${1:-}" = --keep ]; then
    KEEP=yes
    shift
fi
case "$#" in
0 | 2) ;;
*) fail "Usage: mount-scripts/demo.sh [--keep] [VOLUME_DIR MOUNTPOINT]" ;;
esac

# Says what comes, and shows the command that does it.
step() { printf '\n--- %s\n' "$*"; }
run() {
    printf '$ %s\n' "$(printf '%s ' "$@" | sed "s#$STRATAFS#stratafs#; s# \$##")"
    "$@"
}

clean_up() {
    local code=$?
    set +e
    if [ "$KEEP" = yes ] && [ "$code" = 0 ]; then
        rm -rf -- "$SOURCE" "$BEFORE"
        printf '\nKept: volume %s on %s; end it with\n  %s umount %s\n' \
            "$VOLUME" "$MNT" "$STRATAFS" "$MNT"
        exit 0
    fi
    if [ "$code" != 0 ]; then
        printf '\nThe demo did not end well (exit code %s).\n' "$code" >&2
        tail -n 20 "$VOLUME/stratafs.log" 2>/dev/null >&2
    fi
    if [ "$MOUNTED" = yes ] && mountpoint -q "$MNT"; then
        "$STRATAFS" umount "$MNT" 2>/dev/null || "$STRATAFS" umount --lazy "$MNT"
    fi
    clean_below "$WORK"
    exit "$code"
}

# Copies files below $1 into $2 until $3 KiB are reached; files we may not read are left out.
take() {
    local from="$1" to="$2" kib="$3"
    mkdir -p "$to"
    # Sorted, so that a second run takes the same files.
    (cd "$from" && find . -xdev \( -type f -o -type l \) -readable -printf '%k %p\n') |
        sort -k 2 | awk -v most="$kib" '{ sum += $1; sub(/^[0-9]+ /, "") } sum <= most' |
        rsync -a --files-from=- "$from/" "$to/"
}

heading "Tools"
install_packages build
find_rust
find_fuse

heading "Build (the first one compiles RocksDB: ten minutes on two cores)"
(cd "$REPO" && cargo build --release --locked --bin stratafs </dev/null)

WORK="$(mktemp -d "${TMPDIR:-/tmp}/stratafs-demo.XXXXXX")"
VOLUME="${1:-$WORK/volume}"
MNT="${2:-$WORK/mnt}"
SOURCE="$WORK/source"
BEFORE="$WORK/before"
MOUNTED=no
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

heading "A source tree: this project, and headers, documents and programs of this machine"
mkdir -p "$SOURCE/project"
rsync -a --exclude /target --exclude /.git "$REPO/" "$SOURCE/project/"
take /usr/include "$SOURCE/include" "$HEADERS_KIB"
take /usr/share/doc "$SOURCE/doc" "$DOCUMENTS_KIB"
take /usr/bin "$SOURCE/bin" "$PROGRAMS_KIB"
FILES="$(find "$SOURCE" -type f | wc -l)"
echo "$FILES files, $(du -sh --apparent-size "$SOURCE" | cut -f 1)"
[ "$FILES" -gt 100 ] || fail "There are only $FILES files on this machine to show anything with."

heading "A volume"
step "Make it, and mount it."
run "$STRATAFS" init "$VOLUME"
mkdir -p "$MNT"
run "$STRATAFS" mount "$VOLUME" "$MNT"
MOUNTED=yes
mountpoint -q "$MNT" || fail "$MNT is not mounted although mount succeeded."

heading "First backup"
step "Copy the tree into the volume with rsync."
run rsync -aHAXS "$SOURCE/" "$MNT/backup/"
run "$STRATAFS" stats "$MNT" --summary
step "What is read is what was written."
run diff -r --no-dereference "$SOURCE" "$MNT/backup"
step "A snapshot is a mkdir."
run mkdir "$MNT/.snapshots/first"

heading "The tree changes, second backup"
cp -a "$SOURCE" "$BEFORE"
EDITED=project/README.md
echo "A line that was added later." >>"$SOURCE/$EDITED"
GONE="$(cd "$SOURCE" && find doc -mindepth 1 -maxdepth 1 -type d | sort | head -n 1)"
rm -rf -- "${SOURCE:?}/${GONE:?}"
date >"$SOURCE/new-file.txt"
cp -a "$SOURCE/include" "$SOURCE/include-copy"
echo "edited $EDITED, deleted $GONE/, added new-file.txt, copied include/ to include-copy/"
step "rsync again: the copy of include/ is known data."
run rsync -aHAXS --delete "$SOURCE/" "$MNT/backup/"
run "$STRATAFS" stats "$MNT" --summary
run mkdir "$MNT/.snapshots/second"

heading "Both states are folders"
run ls "$MNT/.snapshots/"
run ls "$MNT/.snapshots/first/backup"
run ls "$MNT/.snapshots/second/backup"
[ ! -e "$MNT/.snapshots/first/backup/new-file.txt" ] || fail "The first snapshot has a later file."
[ -e "$MNT/.snapshots/second/backup/new-file.txt" ] || fail "The second snapshot lacks a file."
[ -d "$MNT/.snapshots/first/backup/$GONE" ] || fail "The first snapshot lost a directory."
[ ! -e "$MNT/.snapshots/second/backup/$GONE" ] || fail "The second snapshot has a deleted directory."
step "The first one is exactly what the tree was, the second what it is now."
run diff -r --no-dereference "$BEFORE" "$MNT/.snapshots/first/backup"
run diff -r --no-dereference "$SOURCE" "$MNT/.snapshots/second/backup"
step "Nobody changes the past."
if touch "$MNT/.snapshots/first/backup/x" 2>/dev/null; then
    fail "A file was made in a snapshot."
fi
echo "touch in a snapshot is refused"

heading "What changed, and going back"
step "The difference of the two, from what was noted when it changed; nothing is walked."
run "$STRATAFS" snapshot diff "$MNT" first second --stat
step "A directory that is gone comes back without copying a byte: only references are made."
run "$STRATAFS" restore "$MNT" "first:backup/$GONE" "$MNT/again" --dry-run
run "$STRATAFS" restore "$MNT" "first:backup/$GONE" "$MNT/again"
run diff -r --no-dereference "$BEFORE/$GONE" "$MNT/again"
step "Every content that a file ever had, by time."
run ls "$MNT/backup/project/.history/README.md/"
[ "$(find "$MNT/backup/project/.history/README.md/" -mindepth 1 | wc -l)" = 2 ] ||
    fail "README.md had two contents, and .history does not show two."

heading "Restore an old file"
run cp -a "$MNT/.snapshots/first/backup/$EDITED" "$WORK/restored"
run cmp "$WORK/restored" "$BEFORE/$EDITED"

heading "Unmount, check every byte, mount again"
run "$STRATAFS" umount "$MNT"
if mountpoint -q "$MNT"; then fail "$MNT is still mounted."; fi
run "$STRATAFS" check "$VOLUME" --read-data
run "$STRATAFS" mount "$VOLUME" "$MNT"
run diff -r --no-dereference "$BEFORE" "$MNT/.snapshots/first/backup"
run diff -r --no-dereference "$SOURCE" "$MNT/backup"

heading "What it took, and why"
run "$STRATAFS" stats "$MNT" --summary
if [ "$KEEP" = no ]; then
    run "$STRATAFS" umount "$MNT"
fi
heading "Every step did what it should"
