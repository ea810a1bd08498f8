#!/usr/bin/env bash
# The randomised tests, for hours instead of seconds, one after the other; then a summary.
# Usage: mount-scripts/soak.sh [NAME ...]        as root; without names, all of them
#
# A test that finds something prints the seed that replays it; its whole output, and the volume if
# it keeps one, stay below SOAK_DIR (default: a new directory in TMPDIR). Exit 1 if any failed.
# SOAK_SECONDS bounds each test (default four hours). The sizes below are defaults: what is set in
# the environment counts.
set -euo pipefail
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=mount-scripts/lib.sh
. "$REPO/mount-scripts/lib.sh"
cd "$REPO"
exec </dev/null

# name, tests of the integration binary, what makes them long.
runs() {
    cat <<'RUNS'
kill   mounted::kill::   STRATAFS_KILLS=2000
model  model::           STRATAFS_MODEL_CASES=5000
crash  crash::           STRATAFS_CRASH_CASES=20000
media  media::           STRATAFS_TORN_STATES=20000 STRATAFS_INJECT_ALL=1
big    big               STRATAFS_BIG=1
fsx    conformance::fsx  STRATAFS_FSX_OPS=1000000
RUNS
}

seconds="${SOAK_SECONDS:-14400}"
dir="${SOAK_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/stratafs-soak.XXXXXX")}"
mkdir -p "$dir/scratch"
wanted="${*:-$(runs | awk '{ print $1 }')}"
for name in $wanted; do
    runs | awk '{ print $1 }' | grep -qxF -- "$name" ||
        fail "There is no soak $name; there are: $(runs | awk '{ printf "%s ", $1 }')"
done

# Whatever a hanging test leaves mounted; a volume kept for a look stays.
end_mounts() {
    local mounted
    while read -r mounted; do
        umount -l "$mounted" || true
    done < <(mounts_below "$dir/scratch")
}
trap end_mounts EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

heading "Build"
find_rust
find_fuse
install_suites
cargo test --release --locked --test it --no-run

summary=''
failed=0
while read -r name filter sizes; do
    case " ${wanted//$'\n'/ } " in *" $name "*) ;; *) continue ;; esac
    environment=()
    for size in $sizes; do
        variable="${size%%=*}"
        environment+=("$variable=${!variable:-${size#*=}}")
    done
    heading "$name: $filter ${environment[*]:-} (output in $dir/$name.log)"
    began=$SECONDS
    outcome=passed
    env TMPDIR="$dir/scratch" "${environment[@]}" timeout -k 60 "$seconds" \
        cargo test --release --locked --test it "$filter" -- --nocapture >"$dir/$name.log" 2>&1 ||
        outcome="FAILED ($?)"
    result="$(grep -E '^test result' "$dir/$name.log" | tail -n 1 | cut -d';' -f1,2 || true)"
    case "$result" in *" 0 passed"*) outcome="nothing to run" ;; esac
    case "$outcome" in
    FAILED*)
        failed=1
        grep -E 'panicked at|seed|kept in' "$dir/$name.log" | head -n 20 || true
        ;;
    esac
    # What the tests themselves sum up.
    details="$(grep -E 'survived|cases|states' "$dir/$name.log" | sed 's/^/        /' | tail -n 12 || true)"
    summary+="$(printf '%-7s %-16s %6d s  %s' "$name" "$outcome" $((SECONDS - began)) "$result")"
    summary+=$'\n'"${details:+$details$'\n'}"
    end_mounts
done < <(runs)

heading "Summary"
printf '%s' "$summary"
[ "$failed" = 0 ] || fail "See $dir; set the seed that is printed there to run it again."
