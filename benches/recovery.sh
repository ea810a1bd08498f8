#!/usr/bin/env bash
# How long a mount takes until it is ready, after a kill -9 in the middle of writing.
#
#   benches/recovery.sh [WORKDIR]          as root
#
#   COUNTS="100000 1000000"   files in the volume; a million takes two minutes to make
#   CACHES="warm cold busy"   what was going on, see below
#   TIMES=5                   kills for each of them
#   BAR_MS=2000               exit 1 if the median with 100,000 files or fewer is not below
#   STRATAFS, MANYFILES       binaries (default: cargo's release directory)
#
# Each time new files are written into the volume and the process that has it open is killed during
# that; then `stratafs mount` is timed, from its start until it returns.
#   warm  a shell writes through the mount; the kernel still has the volume's files in its page cache
#   cold  the same, but they were dropped from it, as after a power cut
#   busy  without a mount, as fast as the engine goes: the metadata log is as long as it gets
# Everything is removed at the end.

set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
target_dir=${CARGO_TARGET_DIR:-$here/../target}
work=${1:-${WORKDIR:-$HOME/.cache/stratafs/bench}}
counts=${COUNTS:-100000 1000000} caches=${CACHES:-warm cold busy} times=${TIMES:-5} bar_ms=${BAR_MS:-2000}
stratafs=${STRATAFS:-$target_dir/release/stratafs}
manyfiles=${MANYFILES:-$target_dir/release/examples/manyfiles}
run=''

die() { printf 'recovery.sh: %s\n' "$*" >&2; exit 1; }

cleanup() {
    local status=$?
    trap - EXIT INT TERM
    if [ -n "$run" ]; then
        kill_mounted
        if mountpoint -q "$run/mnt" || ! stat "$run/mnt" >/dev/null 2>&1; then
            umount -l "$run/mnt" || true
        fi
        rm -rf --one-file-system "$run"
    fi
    exit "$status"
}

pid=''
kill_mounted() {
    [ -n "$pid" ] || return 0
    kill -9 "$pid" 2>/dev/null || true
    # A process that nobody waits for stays as a zombie; it is gone when its last thread is.
    # shellcheck disable=SC2012 # Their names are numbers.
    while [ -d "/proc/$pid" ] &&
        ! { grep -qs '^State:.Z' "/proc/$pid/status" && [ "$(ls "/proc/$pid/task" | wc -l)" -le 1 ]; }; do
        sleep 0.01
    done
    pid=''
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

mount_volume() {
    pid=$("$stratafs" --json mount "$run/volume" "$run/mnt" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
    [ -n "$pid" ] || die 'the volume does not mount'
}

# Copies new files until the process is killed, a moment from now.
kill_mid_write() {
    local number=$1 writer
    (
        mkdir "$run/mnt/new$number"
        i=0
        while head -c 6000 /dev/urandom >"$run/mnt/new$number/f$i"; do i=$((i + 1)); done
    ) 2>/dev/null &
    writer=$!
    sleep 7.$((RANDOM % 10))
    kill_mounted
    wait "$writer" || true
}

kill_busy() {
    kill_mounted
    umount -l "$run/mnt"
    "$manyfiles" "$run/volume" 100000000 "$1-" &
    pid=$!
    sleep 7.$((RANDOM % 10))
    kill_mounted
    wait 2>/dev/null || true
}

drop_from_cache() {
    find "$run/volume" -type f -exec dd of={} oflag=nocache conv=notrunc,fdatasync count=0 \
        status=none \;
}

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

measure() {
    local count=$1 cache=$2 number began all='' logs=''
    for number in $(seq "$times"); do
        case "$cache" in
        warm) kill_mid_write "$cache$number" ;;
        cold) kill_mid_write "$cache$number" && drop_from_cache ;;
        busy) kill_busy "$cache$number" ;;
        esac
        logs="$logs $(log_mb)"
        began=$(now_ms)
        mount_volume
        all="$all $(($(now_ms) - began))"
    done
    # shellcheck disable=SC2086 # a list of numbers
    median_ms=$(printf '%s\n' $all | median)
    printf '%9d files  %s  ready again after %5d ms (median of%s)  log MB%s, tables %s MB, %s containers\n' \
        "$count" "$cache" "$median_ms" "$all" "$logs" "$(tables_mb)" \
        "$(find "$run/volume/shards" -name '*.sfc' | wc -l)"
}

# What the next opening has to read back.
log_mb() { cat "$run"/volume/meta/*.log | wc -c | awk '{ printf "%.0f", $1 / 1048576 }'; }

tables_mb() { du -cm "$run"/volume/meta/*.sst 2>/dev/null | tail -1 | cut -f1; }

[ "$(id -u)" = 0 ] || die 'must be root: it mounts'
[ -x "$stratafs" ] || die "no $stratafs: cargo build --release, or set STRATAFS"
[ -x "$manyfiles" ] ||
    die "no $manyfiles: cargo build --release --example manyfiles, or set MANYFILES"
mkdir -p "$work"
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
failed=''
printf 'load %s, %s processors\n' "$(cut -d' ' -f1-3 /proc/loadavg)" "$(nproc)"
for count in $counts; do
    run=$(mktemp -d "$work/recovery.XXXXXX")
    mkdir "$run/mnt"
    "$stratafs" init "$run/volume" >/dev/null
    began=$(now_ms)
    "$manyfiles" "$run/volume" "$count"
    printf '%9d files  made in %d s\n' "$count" $((($(now_ms) - began) / 1000))
    mount_volume
    for cache in $caches; do
        measure "$count" "$cache"
        if [ "$count" -le 100000 ] && [ "$median_ms" -ge "$bar_ms" ]; then failed=yes; fi
    done
    kill_mounted
    "$stratafs" umount -q "$run/mnt"
    rm -rf --one-file-system "$run"
    run=''
done
printf 'load %s\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
[ -z "$failed" ] || die "not below $bar_ms ms"
