#!/usr/bin/env bash
# The life of the Debian package on a clean machine: a root made by debootstrap, where it is
# installed, mounts for real, is upgraded, removed and purged; then booted, for the systemd units.
# Usage: tests/deb.sh [--program STRATAFS] [--base DIR] [--suite NAME]
#
# As root. --base keeps the clean root for the next time. Each step ends with PASS or FAIL; the exit
# code is 1 if one failed. Installs debootstrap, systemd-container and lintian; needs Debian's mirror.
set -euo pipefail
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=mount-scripts/lib.sh
. "$REPO/mount-scripts/lib.sh"

usage() { fail "Usage: tests/deb.sh [--program STRATAFS] [--base DIR] [--suite NAME]"; }
program='' base='' suite=bookworm
while [ "$#" -gt 0 ]; do
    [ -n "${2:-}" ] || usage
    case "$1" in
    --program) program="$2" ;;
    --base) base="$2" ;;
    --suite) suite="$2" ;;
    *) usage ;;
    esac
    shift 2
done
[ "$(id -u)" = 0 ] || fail "Root is needed."
PATH="$PATH:/usr/sbin:/sbin"
find_fuse
install_packages trial

work="$(mktemp -d "${TMPDIR:-/var/tmp}/stratafs-deb.XXXXXX")"
root="$work/root"
clean_up() {
    local process
    # Processes of the trial stand in its root, or have their program there.
    for process in /proc/[0-9]*; do
        case "$(readlink "$process/root" 2>/dev/null) $(readlink "$process/exe" 2>/dev/null)" in
        *"$root"*) kill -9 "${process#/proc/}" 2>/dev/null || true ;;
        esac
    done
    clean_below "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed=0
report() {
    printf '%s %s\n' "$1" "$2"
    [ "$1" = PASS ] || failed=1
}
step() {
    local name="$1"
    shift
    if "$@" >"$work/log" 2>&1; then
        report PASS "$name"
    else
        report FAIL "$name"
        tail -n 25 "$work/log" | sed 's/^/     /'
    fi
}

heading "Packages"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' "$REPO/Cargo.toml" | head -n 1)"
for revision in 1 2; do
    STRATAFS="$program" "$REPO/mount-scripts/deb.sh" --version "$version-$revision" --output "$work" \
        2>"$work/build$revision" >"$work/name$revision" || {
        cat "$work/build$revision" >&2
        fail "The package is not built."
    }
done
no_complaints() {
    cat "$work/build1"
    ! grep -E '^[EW]: ' "$work/build1"
}
step "lintian has no errors or warnings" no_complaints

heading "A clean root ($suite)"
if [ -z "$base" ] || [ ! -x "$base/usr/bin/apt-get" ]; then
    debootstrap --variant=minbase "$suite" "${base:-$root}" >"$work/log" 2>&1 || {
        tail -n 5 "$work/log" >&2
        fail "debootstrap does not work."
    }
fi
[ -z "$base" ] || cp -a -- "$base" "$root"
cp --dereference /etc/resolv.conf "$root/etc/"
mkdir "$root/trial"
cp -- "$(cat "$work/name1")" "$root/trial/old.deb"
cp -- "$(cat "$work/name2")" "$root/trial/new.deb"
install -m 755 "$REPO/tests/deb/inside.sh" "$REPO/tests/deb/boot.sh" "$root/trial/"

heading "Life"
# All steps share one namespace of mounts, which goes with the script.
{
    cat <<'STEPS'
set -eu
mount --rbind "$1" "$1"
cd "$1"
mount -t proc proc proc
# As udev makes it; debootstrap made the others.
[ -e dev/fuse ] || mknod -m 666 dev/fuse c 10 229
# As systemd makes it; fusermount3 wants it.
ln -sfn ../proc/self/mounts etc/mtab
shift
for step in "$@"; do
    if chroot . /trial/inside.sh "$step" >"trial/$step.log" 2>&1; then
        echo "PASS $step"
    else
        echo "FAIL $step"
        tail -n 25 "trial/$step.log" | sed 's/^/     /'
    fi
done
STEPS
} >"$work/steps"
unshare -m bash "$work/steps" "$root" install_package mount_and_use mount_as_a_user back_up \
    units_are_right upgrade_while_mounted removal_is_refused_while_mounted remove_and_purge \
    the_volume_survived | tee "$work/life"
[ "$(grep -c '^PASS' "$work/life")" = 9 ] || failed=1

heading "Booted"
cat >"$root/etc/systemd/system/trial.service" <<'UNIT'
[Service]
Type=oneshot
ExecStart=/trial/boot.sh
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../trial.service "$root/etc/systemd/system/multi-user.target.wants/trial.service"
timeout -k 10 300 systemd-nspawn -q -D "$root" -b --register=no --keep-unit --bind=/dev/fuse \
    --capability=all --console=pipe </dev/null >"$work/nspawn" 2>&1 || tail -n 5 "$work/nspawn"
if [ -s "$root/trial/boot.log" ]; then
    grep -E '^(PASS|FAIL) ' "$root/trial/boot.log" || true
    if [ "$(grep -c '^PASS' "$root/trial/boot.log")" != 10 ]; then
        failed=1
        tail -n 60 "$root/trial/boot.log" | sed 's/^/     /'
    fi
else
    report FAIL "systemd does not boot in a container here"
fi

heading "End"
[ "$failed" = 0 ] || fail "Not every step passed."
echo "Every step passed"
