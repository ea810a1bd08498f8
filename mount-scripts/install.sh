#!/usr/bin/env bash
# Installs StrataFS from this repository: the program, helpers of mount(8), systemd units,
# completions, manual pages and documents. Run again, it installs the new version over the old one;
# what is mounted goes on with the program it was started with.
# Usage: mount-scripts/install.sh [--prefix DIR] [--destdir DIR]
#
# --prefix is /usr/local unless given. --destdir puts everything below another root, for packages.
# STRATAFS names a built program; without it, one is built. What was installed is listed in
# PREFIX/share/stratafs/installed, for uninstall.sh.
set -euo pipefail
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
GIVEN="${STRATAFS:-}"
# shellcheck source=mount-scripts/lib.sh
. "$REPO/mount-scripts/lib.sh"

prefix="${PREFIX:-/usr/local}" destdir="${DESTDIR:-}"
while [ "$#" -gt 0 ]; do
    case "$1" in
    --prefix=* | --destdir=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
    --prefix | --destdir)
        [ -n "${2:-}" ] || fail "Option $1 needs a directory."
        case "$1" in --prefix) prefix="$2" ;; *) destdir="$2" ;; esac
        shift 2
        ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
    *) fail "Word $1 is not known; usage: mount-scripts/install.sh [--prefix DIR] [--destdir DIR]" ;;
    esac
done
# Units and links have it, where other characters would have to be quoted.
[[ "$prefix" =~ ^(/[A-Za-z0-9._+-]+)+/?$ ]] ||
    fail "--prefix is to be an absolute path of letters, digits and ._+-, not \"$prefix\"."
prefix="${prefix%/}" destdir="${destdir%/}"

program="${GIVEN:-$STRATAFS}"
if [ -n "$GIVEN" ]; then
    [ -x "$program" ] || fail "STRATAFS=$program is no program."
elif [ ! -x "$program" ]; then
    heading "Build (the first one compiles RocksDB: ten minutes on two cores)"
    install_packages build
    find_rust
    (cd "$REPO" && cargo build --release --locked --bin stratafs </dev/null)
fi
"$program" version >/dev/null || fail "$program does not run here."

[ -z "$destdir" ] || mkdir -p -- "$destdir" || fail "Cannot make $destdir."
manifest="$prefix/share/stratafs/installed"
scratch="$(mktemp -d)"
trap 'rm -rf -- "$scratch"' EXIT
: >"$scratch/files"

# Makes the directory $1 and notes those that were not there, the upper ones first.
make_dir() {
    if [ "$1" = / ] || [ -d "$destdir$1" ]; then return 0; fi
    make_dir "$(dirname "$1")"
    mkdir -m 755 -- "$destdir$1" || fail "Cannot make $destdir$1; run this as root, or with --prefix."
    echo "dir $1" >>"$scratch/files"
}

# Installs the file $2 as $3 with mode $1. The new one replaces the old one as a whole.
put() {
    make_dir "$(dirname "$3")"
    if ! install -m "$1" -- "$2" "$destdir$3.new" || ! mv -f -- "$destdir$3.new" "$destdir$3"; then
        fail "Cannot write $destdir$3; run this as root, or with --prefix."
    fi
    echo "file $3" >>"$scratch/files"
}

link() {
    make_dir "$(dirname "$2")"
    ln -sfn -- "$1" "$destdir$2" || fail "Cannot write $destdir$2; run this as root, or with --prefix."
    echo "file $2" >>"$scratch/files"
}

put 755 "$program" "$prefix/bin/stratafs"
put 755 "$REPO/mount-scripts/stratafs-backup" "$prefix/bin/stratafs-backup"

# mount(8) looks for helpers in /sbin and nowhere else.
put 755 "$REPO/mount-scripts/mount.stratafs" "$prefix/sbin/mount.stratafs"
sbin=/sbin
[ "$prefix" != /usr ] || sbin=/usr/sbin
for name in mount.stratafs mount.fuse.stratafs umount.stratafs umount.fuse.stratafs; do
    [ "$sbin/$name" = "$prefix/sbin/mount.stratafs" ] || link "$prefix/sbin/mount.stratafs" "$sbin/$name"
done

case "$prefix" in
/usr | /usr/local) units="$prefix/lib/systemd/system" ;;
*) units=/etc/systemd/system ;;
esac
for unit in "$REPO"/mount-scripts/systemd/*; do
    sed "s#/usr/bin/#$prefix/bin/#" "$unit" >"$scratch/unit"
    put 644 "$scratch/unit" "$units/$(basename "$unit")"
done

for shell in bash zsh fish; do
    "$program" completions "$shell" >"$scratch/$shell"
done
put 644 "$scratch/bash" "$prefix/share/bash-completion/completions/stratafs"
put 644 "$scratch/zsh" "$prefix/share/zsh/site-functions/_stratafs"
put 644 "$scratch/fish" "$prefix/share/fish/vendor_completions.d/stratafs.fish"

"$program" man --dir "$scratch/man" >/dev/null
mkdir -p "$scratch/man/man8"
for name in umount.stratafs umount.fuse.stratafs; do
    echo ".so man1/stratafs-umount.1" >"$scratch/man/man8/$name.8"
done
{
    printf '.TH STRATAFS-BACKUP 8 "" "%s" "StrataFS"\n' "$("$program" version)"
    printf '.SH NAME\nstratafs-backup \\- rsync into a StrataFS mount, a snapshot, and prune\n'
    printf '.SH SYNOPSIS\n.B stratafs-backup\n[\\-n] [\\-v] [\\-q] \\fINAME\\fR|\\fIFILE\\fR\n.SH DESCRIPTION\n.nf\n'
    "$REPO/mount-scripts/stratafs-backup" --help | sed "s/\\\\/\\\\e/g; s/-/\\\\-/g; s/^[.']/\\\\\&&/"
    printf '.fi\n.SH SEE ALSO\n.BR stratafs (1),\n.BR stratafs\\-prune (1),\n.BR rsync (1)\n'
} >"$scratch/man/man8/stratafs-backup.8"
while IFS= read -r page; do
    put 644 "$scratch/man/$page" "$prefix/share/man/$page"
done < <(cd "$scratch/man" && find . -type f -printf '%P\n' | sort)

for document in README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE; do
    put 644 "$REPO/$document" "$prefix/share/doc/stratafs/$document"
done
for document in "$REPO"/docs/*.*; do
    put 644 "$document" "$prefix/share/doc/stratafs/docs/$(basename "$document")"
done
for example in "$REPO"/mount-scripts/examples/*; do
    put 644 "$example" "$prefix/share/doc/stratafs/examples/$(basename "$example")"
done
put 755 "$REPO/mount-scripts/uninstall.sh" "$prefix/share/stratafs/uninstall.sh"

# What an older version had and this one has not.
if [ -f "$destdir$manifest" ]; then
    while read -r kind path; do
        if [ "$kind" = dir ]; then
            grep -qxF "dir $path" "$scratch/files" || echo "dir $path" >>"$scratch/older"
        elif ! grep -qxF "file $path" "$scratch/files"; then
            rm -f -- "$destdir$path"
        fi
    done <"$destdir$manifest"
    [ ! -f "$scratch/older" ] || cat "$scratch/older" "$scratch/files" >"$scratch/all"
    [ ! -f "$scratch/all" ] || mv "$scratch/all" "$scratch/files"
fi
put 644 "$scratch/files" "$manifest"
# The list has itself, too.
install -m 644 "$scratch/files" "$destdir$manifest"

if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
echo "Installed $("$program" version) below $destdir$prefix; remove it with $destdir$prefix/share/stratafs/uninstall.sh"
