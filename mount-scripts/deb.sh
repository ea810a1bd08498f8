#!/usr/bin/env bash
# Builds a Debian package of what install.sh installs, so that there is one list of files.
# Usage: mount-scripts/deb.sh [--version VERSION] [--output DIR]
#
# STRATAFS names a built program; without it, one is built. The version is that of Cargo.toml and
# revision 1 unless given. The package's name goes to stdout. lintian is run if it is there.
set -euo pipefail
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
GIVEN="${STRATAFS:-}"
# shellcheck source=mount-scripts/lib.sh
. "$REPO/mount-scripts/lib.sh"

usage() { fail "Usage: mount-scripts/deb.sh [--version VERSION] [--output DIR]"; }
version="$(sed -n 's/^version = "\(.*\)"/\1/p' "$REPO/Cargo.toml" | head -n 1)-1"
output="$PWD"
while [ "$#" -gt 0 ]; do
    [ -n "${2:-}" ] || usage
    case "$1" in
    --version) version="$2" ;;
    --output) output="$2" ;;
    *) usage ;;
    esac
    shift 2
done
[[ "$version" =~ ^[0-9][A-Za-z0-9.+~]*-[A-Za-z0-9.+~]+$ ]] ||
    fail "Version \"$version\" is none of a Debian package; it looks like 1.2.3-1."
[ -d "$output" ] || fail "$output is no directory."

program="${GIVEN:-$STRATAFS}"
{
    install_packages deb
    if [ -n "$GIVEN" ]; then
        [ -x "$program" ] || fail "STRATAFS=$program is no program."
    else
        heading "Build (the first one compiles RocksDB: ten minutes on two cores)"
        find_rust
        (cd "$REPO" && cargo build --release --locked --bin stratafs </dev/null)
    fi
} >&2

work="$(mktemp -d)"
trap 'rm -rf -- "$work"' EXIT
umask 022
tree="$work/tree" doc="$work/tree/usr/share/doc/stratafs" debian="$REPO/mount-scripts/debian"
cp -- "$program" "$work/stratafs"
strip --strip-unneeded "$work/stratafs"
STRATAFS="$work/stratafs" "$REPO/mount-scripts/install.sh" --prefix /usr --destdir "$tree" >/dev/null

# dpkg has its own list of files and its own way to remove them.
rm -r -- "$tree/usr/share/stratafs"
# Debian's places for what others put elsewhere.
mkdir -p "$tree/usr/share/zsh/vendor-completions" "$tree/etc/stratafs/backup" \
    "$tree/usr/share/lintian/overrides"
install -m 644 "$debian/lintian-overrides" "$tree/usr/share/lintian/overrides/stratafs"
mv "$tree/usr/share/zsh/site-functions/_stratafs" "$tree/usr/share/zsh/vendor-completions/"
rmdir "$tree/usr/share/zsh/site-functions"
for name in mount.fuse.stratafs umount.stratafs umount.fuse.stratafs; do
    ln -sfn mount.stratafs "$tree/usr/sbin/$name"
done
# The date of the sources, so that the same sources give the same package.
stamp="${SOURCE_DATE_EPOCH:-$(git -C "$REPO" log -1 --format=%ct 2>/dev/null || date +%s)}"
rm "$doc/LICENSE-MIT" "$doc/LICENSE-APACHE"
mv "$doc/CHANGELOG.md" "$doc/changelog"
printf 'stratafs (%s) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n' "$version" \
    "$(sed -n 's/^Maintainer: //p' "$debian/control")" "$(date -R -u -d "@$stamp")" >"$doc/changelog.Debian"
mit="$(sed '1,/^$/d' "$REPO/LICENSE-MIT")"
awk -v mit="$mit" '/^@MIT@$/ { print mit; next } { print }' "$debian/copyright" >"$doc/copyright"
gzip -9n "$doc/changelog" "$doc/changelog.Debian" "$tree"/usr/share/man/man*/*

mkdir -p "$work/shlibs/debian" "$tree/DEBIAN"
echo 'Source: stratafs' >"$work/shlibs/debian/control"
depends="$(cd "$work/shlibs" && dpkg-shlibdeps -O --ignore-missing-info "$tree/usr/bin/stratafs" 2>/dev/null)"
sed -e "s/@VERSION@/$version/; s/@ARCH@/$(dpkg --print-architecture)/" \
    -e "s/@SIZE@/$(du -k -s --apparent-size "$tree" | cut -f 1)/" \
    -e "s/@DEPENDS@/${depends#shlibs:Depends=}/" "$debian/control" >"$tree/DEBIAN/control"
install -m 755 "$debian/postinst" "$debian/prerm" "$debian/postrm" "$tree/DEBIAN/"
(cd "$tree" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) \
    >"$work/md5sums"
install -m 644 "$work/md5sums" "$tree/DEBIAN/md5sums"
find "$tree" -exec touch --no-dereference -d "@$stamp" {} +

package="$output/stratafs_${version}_$(dpkg --print-architecture).deb"
dpkg-deb --root-owner-group --build "$tree" "$package" >&2
if command -v lintian >/dev/null; then
    lintian --allow-root --profile debian --tag-display-limit 0 "$package" >&2 || true
fi
echo "$package"
