#!/usr/bin/env bash
# Runs programs that people trust with their data on a mount, and compares what they made.
# Usage: tests/apps.sh [quick|big|all] [--program STRATAFS] [--only STEP]
# quick (the default): rsync, tar, cp, git, sqlite. big: PostgreSQL, cargo, borg, restic, Samba, NFS;
# installs what is missing. Every step ends with a line PASS or FAIL; the exit code is 1 if one failed.
set -euo pipefail
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=mount-scripts/lib.sh
. "$REPO/mount-scripts/lib.sh"
# shellcheck source=tests/apps/tree.sh
. "$REPO/tests/apps/tree.sh"
# shellcheck source=tests/apps/quick.sh
. "$REPO/tests/apps/quick.sh"
# shellcheck source=tests/apps/big.sh
. "$REPO/tests/apps/big.sh"
# shellcheck source=tests/apps/share.sh
. "$REPO/tests/apps/share.sh"

QUICK=(rsync_there_and_back tar_there_and_back cp_there_and_back git_repository
    sqlite_rollback sqlite_wal sqlite_killed)
BIG=(postgresql cargo_build borg_repository restic_repository samba_previous_versions nfs_export)
# No step takes longer, unless it hangs.
STEP_SECS_MAX=400

usage() { fail "Usage: tests/apps.sh [quick|big|all] [--program STRATAFS] [--only STEP]"; }

MODE=quick
PROGRAM=
ONLY=
while [ "$#" -gt 0 ]; do
    case "$1" in
    quick | big | all) MODE="$1" ;;
    --program) PROGRAM="${2:-}" && shift ;;
    --only) ONLY="${2:-}" && shift ;;
    *) usage ;;
    esac
    shift || usage
done
case "$MODE" in
quick) STEPS=("${QUICK[@]}") ;;
big) STEPS=("${BIG[@]}") ;;
all) STEPS=("${QUICK[@]}" "${BIG[@]}") ;;
esac
if [ -n "$ONLY" ]; then
    printf '%s\n' "${STEPS[@]}" | grep -qxF -- "$ONLY" ||
        fail "There is no step \"$ONLY\" in $MODE; there are: ${STEPS[*]}."
    STEPS=("$ONLY")
fi
if [ -n "$PROGRAM" ] && [ ! -x "$PROGRAM" ]; then fail "$PROGRAM is no program."; fi
[ "$(id -u)" = 0 ] || fail "Run this as root: it makes device nodes and attributes only root may set."

STEP_PID=
clean_up() {
    local code=$?
    set +e
    if [ -n "$STEP_PID" ]; then end_step; fi
    end_servers
    if mountpoint -q "$MNT"; then
        "$STRATAFS" umount "$MNT" >/dev/null 2>&1
    fi
    clean_below "$WORK"
    exit "$code"
}

# Ends a step that runs: asked to, it ends its servers.
end_step() {
    local tries
    kill -TERM -- "-$STEP_PID" 2>/dev/null
    for tries in $(seq 100); do
        kill -0 -- "-$STEP_PID" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL -- "-$STEP_PID" 2>/dev/null
    echo "A step did not end within $((tries / 10)) s of being asked to"
}

compare() { python3 "$REPO/tests/apps/compare.py" "$@"; }

# Unmounts and mounts: what a step reads afterwards comes from the disk.
remount() {
    cd /
    "$STRATAFS" umount "$MNT"
    "$STRATAFS" mount "$VOLUME" "$MNT"
}

# Runs step $1 in a directory of its own on the mount, within its time; says how it went.
run_step() {
    local name="$1" code=0 began="$SECONDS"
    HERE="$MNT/$name"
    OUT="$WORK/$name"
    mkdir "$HERE" "$OUT"
    set +e
    # A process group of its own, so that everything the step started can be ended.
    set -m
    (
        set -euo pipefail
        cd "$HERE"
        "$name"
    ) >"$WORK/$name.log" 2>&1 </dev/null &
    STEP_PID=$!
    set +m
    while kill -0 "$STEP_PID" 2>/dev/null; do
        if [ $((SECONDS - began)) -gt "$STEP_SECS_MAX" ]; then
            echo "Took longer than $STEP_SECS_MAX s" >>"$WORK/$name.log"
            end_step >>"$WORK/$name.log"
        fi
        sleep 0.1
    done
    wait "$STEP_PID"
    code=$?
    end_servers
    kill -KILL -- "-$STEP_PID" 2>/dev/null
    STEP_PID=
    set -e
    if [ "$code" = 0 ]; then
        printf 'PASS  %-24s %3d s\n' "$name" $((SECONDS - began))
        return 0
    fi
    printf 'FAIL  %-24s %3d s, exit code %d; the end of what it said:\n' \
        "$name" $((SECONDS - began)) "$code"
    tail -n 40 "$WORK/$name.log" | sed 's/^/    /'
    tail -n 10 "$VOLUME/stratafs.log" | sed 's/^/    log: /'
    FAILED+=("$name")
}

heading "Tools"
install_packages tests
if [ "$MODE" != quick ]; then install_packages apps; fi
find_fuse
if [ -n "$PROGRAM" ]; then
    STRATAFS="$(realpath "$PROGRAM")"
else
    find_rust
    (cd "$REPO" && cargo build --release --locked --bin stratafs)
fi
"$STRATAFS" version

WORK="$(mktemp -d "${TMPDIR:-/tmp}/stratafs-apps.XXXXXX")"
VOLUME="$WORK/volume"
MNT="$WORK/mnt"
FAILED=()
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Servers that run as somebody else have to get here.
chmod 755 "$WORK"
mkdir "$MNT"
export HOME="$WORK" LC_ALL=C.UTF-8
"$STRATAFS" init "$VOLUME" >/dev/null
"$STRATAFS" mount "$VOLUME" "$MNT" >/dev/null
make_tree "$WORK/source"

heading "Steps on a mount: $MODE"
for step in "${STEPS[@]}"; do run_step "$step"; done

heading "Every byte of the volume, and its log"
"$STRATAFS" umount "$MNT"
if grep ' ERROR ' "$VOLUME/stratafs.log"; then FAILED+=(log); fi
"$STRATAFS" check -q "$VOLUME" --read-data || FAILED+=(check)
[ "${#FAILED[@]}" = 0 ] || fail "${FAILED[*]}"
heading "Passed"
