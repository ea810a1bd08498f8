#!/usr/bin/env bash
# StrataFS mounted, against ext4 on the same disk and against the FUSE floor, in one run.
#
#   benches/mounted.sh [WORKDIR]          as root; about 20 minutes; see benches/README.md
#
# WORKDIR (default ~/.cache/stratafs/bench) lies on the disk to measure and keeps the source
# between runs. The sources are read from tmpfs, so that only the target's disk counts.
#
#   ROUNDS=3  FILES=20000  DD_MIB=2048  MANY=100000   sizes; MANY=0 leaves that step out
#   TARGETS="ext4 strata floor"                       what is compared
#   STRATAFS, NULLFS                                  binaries (default: cargo's release directory)
#   OUT                                               results: OUT.tsv, OUT.json, OUT.txt
#   STEP_SECONDS=900                                  a step that takes longer ends the run
# Smoke run: ROUNDS=1 FILES=300 DD_MIB=32 MANY=500 benches/mounted.sh

set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
target_dir=${CARGO_TARGET_DIR:-$here/../target}
work=${1:-${WORKDIR:-$HOME/.cache/stratafs/bench}}
rounds=${ROUNDS:-3} files=${FILES:-20000} dd_mib=${DD_MIB:-2048} many=${MANY:-100000}
targets=${TARGETS:-ext4 strata floor}
step_seconds=${STEP_SECONDS:-900}
stratafs=${STRATAFS:-$target_dir/release/stratafs}
nullfs=${NULLFS:-$target_dir/release/examples/nullfs}
out=${OUT:-$work/results/$(date +%Y%m%d-%H%M%S)}
# What issue 2 allows a mounted process to hold after MANY files.
rss_max_kib=$((300 * 1000 * 1000 / 1024))
# As src/fuse.rs sets it for StrataFS; the floor gets the same.
read_ahead_kib=1024

run='' ram='' mounted='' daemon='' target='' place='' round=0 memory_ok=true

say() { printf '%s\n' "$*" >&2; }
die() { say "mounted.sh: $*"; exit 1; }

wants() { case " $targets " in *" $1 "*) true ;; *) false ;; esac; }

cleanup() {
    local status=$?
    trap - EXIT INT TERM
    if [ -n "$mounted" ] && mountpoint -q "$mounted"; then
        if [ "$target" = strata ]; then timeout 60 "$stratafs" umount "$mounted" >&2 || true; fi
        if mountpoint -q "$mounted"; then
            umount "$mounted" 2>/dev/null || umount -l "$mounted" || true
        fi
    fi
    [ "$target" != floor ] || [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    [ -z "$run" ] || rm -rf --one-file-system "$run"
    [ -z "$ram" ] || rm -rf --one-file-system "$ram"
    exit "$status"
}

check_setup() {
    [ "$(id -u)" = 0 ] || die 'must be root: it mounts and drops caches'
    local tool
    for tool in rsync perl dd find du awk mountpoint setsid timeout; do
        command -v "$tool" >/dev/null || die "needs $tool"
    done
    if wants strata && [ ! -x "$stratafs" ]; then
        die "no $stratafs: cargo build --release, or set STRATAFS"
    fi
    if wants floor && [ ! -x "$nullfs" ]; then
        die "no $nullfs: cargo build --release --example nullfs, or set NULLFS"
    fi
    local ram_free disk_free
    mkdir -p "$work/source" "$(dirname "$out")"
    ram_free=$(df --output=avail -m /dev/shm | tail -1)
    disk_free=$(df --output=avail -m "$work" | tail -1)
    # Sources: two dd files, and 12 KB a file on average. Targets: three dd files, three trees.
    local need=$((2 * dd_mib + (files + many) / 64 + 256))
    [ "$ram_free" -gt "$need" ] ||
        die "needs $need MiB in /dev/shm, has $ram_free (use smaller DD_MIB or MANY)"
    need=$((2 * (3 * dd_mib + files / 16 + many / 64) + 1024))
    [ "$disk_free" -gt "$need" ] || die "needs $need MiB in $work, has $disk_free"
}

# ---- sources: the same bytes for every target and round

# Prints up to $1 paths of small files this machine has, in a fixed order: headers and sources
# first, they are about 12 KB on average.
source_list() {
    local root
    for root in /usr/include "$HOME/.cargo/registry/src" /usr/share /usr/lib/python3; do
        [ ! -d "$root" ] ||
            find "$root" -xdev -type f -readable -size +0 -size -1024k -print0 | sort -z
    done | perl -0ne 'BEGIN { $n = shift @ARGV } print if $. <= $n' "$1"
}

# Copies the files listed on stdin below $1 until it holds $2; further passes over the list get a
# first line of their own and so are new data.
make_tree() {
    perl -0e '
        use strict; use File::Path "make_path"; use File::Basename "dirname";
        my ($to, $count) = @ARGV; chomp(my @list = <STDIN>);
        die "found no files to copy\n" unless @list;
        my ($made, $bytes, %seen) = (0, 0);
        for (my $pass = 0; $made < $count; $pass++) {
            for my $from (@list) {
                last if $made == $count;
                open my $in, "<:raw", $from or next;
                my $data = do { local $/; <$in> };
                $data = "pass $pass\n$data" if $pass;
                my $path = "$to/$pass$from"; my $dir = dirname $path;
                make_path $dir unless $seen{$dir}++;
                open my $out, ">:raw", $path or die "$path: $!\n";
                print $out $data; close $out or die "$path: $!\n";
                utime 1600000000 + $made, 1600000000 + $made, $path;
                $made++; $bytes += length $data;
            }
        }
        printf STDERR "%d files, %d bytes on average\n", $made, $bytes / $made;
    ' "$1" "$2"
}

# $1 MiB of text without repeats of chunk size; a codec makes about a third of it.
make_text() {
    perl -e '
        srand 42; my $left = $ARGV[0] << 20;
        my @words;
        for my $word (@words[0 .. 1999]) { $word .= chr(97 + rand 26) for 0 .. 2 + rand 8 }
        my @lines = map { join " ", map { $words[rand() ** 3 * @words] } 1 .. 10 } 1 .. 20000;
        my $n = 0;
        while ($left > 0) {
            my $piece = "";
            $piece .= $n++ . ": $lines[rand @lines]\n" while length $piece < 1 << 20;
            $piece = substr $piece, 0, $left < 1 << 20 ? $left : 1 << 20;
            print $piece; $left -= length $piece;
        }' "$1"
}

prepare_sources() {
    ram=$(mktemp -d /dev/shm/stratafs-bench.XXXXXX)
    local tar="$work/source/tree-$files.tar" text="$work/source/text-$dd_mib"
    mkdir "$ram/tree"
    if [ ! -s "$tar" ]; then
        say "making a tree of $files files"
        source_list "$files" | make_tree "$ram/tree" "$files"
        tar -C "$ram" -cf "$tar.part" tree && mv "$tar.part" "$tar"
    else
        tar -C "$ram" -xf "$tar"
    fi
    if [ "$dd_mib" -gt 0 ]; then
        say "making two files of $dd_mib MiB"
        [ -s "$text" ] || { make_text "$dd_mib" >"$text.part" && mv "$text.part" "$text"; }
        cp "$text" "$ram/text"
        dd if=/dev/urandom of="$ram/noise" bs=1M count="$dd_mib" status=none
    fi
    tree_bytes=$(du -sb --apparent-size "$ram/tree" | cut -f1)
}

# ---- targets

open_target() {
    target=$1
    run=$(mktemp -d "$work/run.XXXXXX")
    daemon=''
    case $target in
    ext4) place=$run/ext4; mkdir "$place" ;;
    strata)
        mounted=$run/mnt place=$run/mnt
        mkdir "$mounted"
        "$stratafs" init "$run/volume" >/dev/null
        "$stratafs" mount "$run/volume" "$mounted" >/dev/null
        daemon=$("$stratafs" --json status "$run/volume" | json_value pid)
        [ -d "/proc/${daemon:-none}" ] || die 'status does not name the mounted process'
        ;;
    floor)
        mounted=$run/mnt place=$run/mnt
        mkdir "$mounted"
        # In a session of its own, as a daemon is: the scheduler treats sessions as groups.
        setsid "$nullfs" "$mounted" 2>"$run/nullfs.log" &
        daemon=$!
        local tries=0
        until mountpoint -q "$mounted"; do
            tries=$((tries + 1))
            [ "$tries" -lt 100 ] || die "nullfs did not mount: $(cat "$run/nullfs.log")"
            sleep 0.05
        done
        echo "$read_ahead_kib" >"/sys/class/bdi/$(mountpoint -d "$mounted")/read_ahead_kb"
        ;;
    *) die "unknown target $target" ;;
    esac
}

close_target() {
    if [ "$target" = strata ]; then
        fact vm_hwm_kib "$(vm VmHWM)"
        fact vm_rss_kib "$(vm VmRSS)"
        fact daemon_cpu_seconds "$(daemon_cpu)"
        local stats
        stats=$("$stratafs" --json stats "$run/volume")
        local key
        for key in live_bytes unique_bytes stored_bytes metadata_bytes; do
            fact "$key" "$(json_value "$key" <<<"$stats")"
        done
        local start=$EPOCHREALTIME seconds
        timeout "$step_seconds" "$stratafs" umount "$mounted" >/dev/null
        seconds=$(minus "$EPOCHREALTIME" "$start")
        emit umount "$seconds" "$seconds" 0
        # Now: while open, RocksDB reserves 50 MB for its log.
        fact volume_disk_bytes "$(du -s --block-size=1 "$run/volume" | cut -f1)"
    elif [ "$target" = floor ]; then
        umount "$mounted" || { sleep 1; umount "$mounted"; }
        wait "$daemon" || true
    fi
    mounted='' daemon=''
    rm -rf --one-file-system "$run"
    run=''
}

# A number of the outermost object of the JSON on stdin.
json_value() {
    perl -0777 -ne 's/^\s*\{//; s/\}\s*$//; 1 while s/\{[^{}]*\}|\[[^\[\]]*\]//g;
        print $1 if /"'"$1"'":\s*([0-9.]+)/'
}

vm() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$daemon/status"; }

# User and system seconds of the mounted process so far.
daemon_cpu() {
    [ -n "$daemon" ] || { echo 0; return; }
    # The name, in parentheses, may hold anything: fields are counted after it.
    sed 's/.*) //' "/proc/$daemon/stat" |
        awk -v hz="$(getconf CLK_TCK)" '{ printf "%.2f", ($12 + $13) / hz }'
}

# ---- measuring

minus() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.4f", a - b }'; }
# NAME, seconds, seconds until durable, CPU seconds.
emit() { (IFS=$'\t'; echo "step	$round	$target	$*" >>"$out.tsv"); }
# NAME, value.
fact() { (IFS=$'\t'; echo "fact	$round	$target	$*" >>"$out.tsv"); }

# Makes everything in the target durable. The kernel sends no syncfs to FUSE; there, fsync of the
# directory commits the whole volume. On ext4 it takes syncfs.
durable() { if [ "$target" = ext4 ]; then sync -f "$place"; else sync "$place"; fi; }

# step NAME [--file PATH] COMMAND...: seconds until the command returns, seconds until its effect is
# durable as well (with --file: fsync of that file, as conv=fsync does), CPU of the mounted process.
step() {
    local name=$1 file=''
    shift
    if [ "$1" = --file ]; then file=$2; shift 2; fi
    durable
    sync
    case $name in *_cold) echo 3 >/proc/sys/vm/drop_caches ;; esac
    local cpu start returned whole
    cpu=$(daemon_cpu)
    start=$EPOCHREALTIME
    timeout "$step_seconds" "$@" >/dev/null 2>"$run/stderr" ||
        die "$target: $name failed ($?): $(tail -3 "$run/stderr")"
    returned=$EPOCHREALTIME
    if [ -n "$file" ]; then sync "$file"; else durable; fi
    whole=$(minus "$EPOCHREALTIME" "$start")
    returned=$(minus "$returned" "$start")
    cpu=$(minus "$(daemon_cpu)" "$cpu")
    emit "$name" "$returned" "$whole" "$cpu"
    say "$(printf '  round %s %-7s %-20s %9.3f s  %9.3f s durable  %7.2f s CPU' \
        "$round" "$target" "$name" "$returned" "$whole" "$cpu")"
}

one_round() {
    open_target "$1"
    step rsync_first rsync -a "$ram/tree/" "$place/tree/"
    step rsync_again rsync -a "$ram/tree/" "$place/tree/"
    step rsync_again_cold rsync -a "$ram/tree/" "$place/tree/"
    step cp_known cp -a "$ram/tree" "$place/known"
    step cp_inside cp -a "$place/tree" "$place/inside"
    step find find "$place" -newermt 2099-01-01
    step find_cold find "$place" -newermt 2099-01-01
    step du du -s "$place"
    step read_cold find "$place/tree" -type f -exec cat {} +
    step rm_rf rm -rf "$place/inside"
    if [ "$dd_mib" -gt 0 ]; then
        step dd_new_noise --file "$place/noise" dd if="$ram/noise" of="$place/noise" bs=1M
        step dd_known --file "$place/noise-2" dd if="$ram/noise" of="$place/noise-2" bs=1M
        step dd_new_text --file "$place/text" dd if="$ram/text" of="$place/text" bs=1M
        step dd_read_cold dd if="$place/text" of=/dev/null bs=1M
        step rm_big rm "$place/noise" "$place/noise-2" "$place/text"
    fi
    close_target
}

# Memory after many files; the source is made for this step only.
many_files() {
    round=0
    say "making $many files"
    rm -rf "$ram/noise" "$ram/text"
    mkdir "$ram/many"
    (cd "$ram/tree" && find . -type f -printf '/%P\0' | sort -z | sed -z "s|^|$ram/tree|") |
        make_tree "$ram/many" "$many"
    open_target strata
    step many_rsync rsync -a "$ram/many/" "$place/many/"
    local rss hwm
    rss=$(vm VmRSS) hwm=$(vm VmHWM)
    close_target
    say "after $many files: VmRSS $rss KiB, VmHWM $hwm KiB (must be below $rss_max_kib KiB)"
    [ "$hwm" -lt "$rss_max_kib" ] || memory_ok=false
}

# ---- results

# Reads OUT.tsv; prints the table, or JSON.
report() {
    awk -F'\t' -v format="$1" -v files="$files" -v dd_mib="$dd_mib" -v many="$many" \
        -v rounds="$rounds" -v tree_bytes="$tree_bytes" -v machine="$(uname -srm), $(nproc) CPUs" \
        -f "$here/mounted.awk" "$out.tsv"
}

main() {
    check_setup
    trap cleanup EXIT
    trap "exit 130" INT
    trap "exit 143" TERM
    : >"$out.tsv"
    prepare_sources
    # shellcheck disable=SC2206 # Words without spaces.
    local order=($targets)
    for round in $(seq "$rounds"); do
        local name
        for name in "${order[@]}"; do one_round "$name"; done
        order=("${order[@]:1}" "${order[0]}") # everybody comes first once
    done
    if wants strata && [ "$many" -gt 0 ]; then many_files; fi
    report json >"$out.json"
    report table | tee "$out.txt"
    say "results: $out.tsv, $out.json, $out.txt"
    [ "$memory_ok" = true ] || die 'the mounted process took more memory than it may'
}

main
