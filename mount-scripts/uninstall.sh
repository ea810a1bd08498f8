#!/usr/bin/env bash
# Removes exactly what install.sh installed. Volumes, /etc/stratafs and logs are never touched.
# Usage: uninstall.sh [--prefix DIR] [--destdir DIR]
#
# --prefix is the one it was installed below: where this script lies, else /usr/local. While a volume
# is mounted it does nothing.
set -euo pipefail

fail() {
    printf 'uninstall: %s\n' "$*" >&2
    exit 1
}

here="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"
prefix="${PREFIX:-}" destdir="${DESTDIR:-}"
while [ "$#" -gt 0 ]; do
    case "$1" in
    --prefix=* | --destdir=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
    --prefix | --destdir)
        [ -n "${2:-}" ] || fail "Option $1 needs a directory."
        case "$1" in --prefix) prefix="$2" ;; *) destdir="$2" ;; esac
        shift 2
        ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
    *) fail "Word $1 is not known; usage: uninstall.sh [--prefix DIR] [--destdir DIR]" ;;
    esac
done
destdir="${destdir%/}"
if [ -z "$prefix" ]; then
    prefix=/usr/local
    if [ -f "$here/installed" ]; then
        prefix="${here%/share/stratafs}"
        prefix="${prefix#"$destdir"}"
    fi
fi
prefix="${prefix%/}"
manifest="$destdir$prefix/share/stratafs/installed"
[ -f "$manifest" ] || fail "$manifest is missing; nothing was installed there, or with another --prefix"

if [ -z "$destdir" ]; then
    mounted="$(awk '$3 == "fuse.stratafs" { print $2 }' /proc/self/mounts | tr '\n' ' ')"
    [ -z "$mounted" ] || fail "Volumes are mounted on ${mounted% }; unmount them first, with \`stratafs umount\`"
fi

list="$(mktemp)"
trap 'rm -f -- "$list"' EXIT
cp -- "$manifest" "$list"
while read -r kind path; do
    [ "$kind" = file ] || continue
    rm -f -- "$destdir$path" || fail "Cannot remove $destdir$path; run this as root"
done <"$list"
# Directories that it made and nobody else uses, the lower ones first.
tac "$list" | while read -r kind path; do
    [ "$kind" = dir ] || continue
    rmdir -- "$destdir$path" 2>/dev/null || true
done
if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
echo "Removed StrataFS from $destdir$prefix; volumes and /etc/stratafs are as they were"
