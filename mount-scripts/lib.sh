# shellcheck shell=bash
# What demo.sh, test.sh and tests/apps.sh share: installing what is missing, finding Rust, cleaning up mounts.
# Sourced, never run. Expects `set -euo pipefail` and REPO, the repository's root.

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/stratafs/target}"
# shellcheck disable=SC2034 # Those who source this use it.
STRATAFS="$CARGO_TARGET_DIR/release/stratafs"

# Prints a heading with the seconds since the script began.
heading() { printf '\n=== [%4d s] %s\n' "$SECONDS" "$*"; }

# Ends the script with one sentence.
fail() {
    printf '\nFAILED: %s\n' "$*" >&2
    exit 1
}

# Runs a command as root.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "Root is needed for \"$*\"; run this as root, or install sudo."
    fi
}

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" </dev/null; }

# Debian package that gives each thing we use. A name with a slash is a file, `|` are alternatives.
needs() {
    cat <<'NEEDS'
g++            g++
/usr/lib/llvm-*/lib/libclang.so*|/usr/lib/llvm-*/lib/libclang-[0-9]*.so*|/usr/lib/*/libclang.so*|/usr/lib/*/libclang-[0-9]*.so*  libclang-dev
pkg-config     pkg-config
git            git
rsync          rsync
tar            tar
find           findutils
ps             procps
mount          mount
fusermount3    fuse3
setfacl        acl
setfattr       attr
NEEDS
    if [ "${1:-}" = trial ]; then
        cat <<'NEEDS'
debootstrap    debootstrap
systemd-nspawn systemd-container
lintian        lintian
unshare        util-linux
NEEDS
    fi
    if [ "${1:-}" = deb ]; then
        cat <<'NEEDS'
dpkg-shlibdeps dpkg-dev
strip          binutils
NEEDS
    fi
    if [ "${1:-}" = tests ]; then
        cat <<'NEEDS'
sqlite3        sqlite3
mkfs.ext4      e2fsprogs
python3        python3
setpriv        util-linux
unshare        util-linux
setcap         libcap2-bin
kill           procps
chattr         e2fsprogs
losetup        mount
findmnt        util-linux
flock          util-linux
shellcheck     shellcheck
groff          groff-base
/usr/share/zoneinfo/Europe/Vienna  tzdata
NEEDS
    fi
    if [ "${1:-}" = apps ]; then
        cat <<'NEEDS'
/usr/lib/postgresql/*/bin/initdb  postgresql
/usr/lib/postgresql/*/bin/pg_amcheck  postgresql
/usr/share/postgresql/*/extension/amcheck.control  postgresql-contrib
cc             gcc
borg           borgbackup
restic         restic
smbd           samba
smbclient      smbclient
/usr/lib/*/samba/vfs/shadow_copy2.so  samba-vfs-modules
ganesha.nfsd   nfs-ganesha
/usr/lib/*/ganesha/libfsalvfs.so  nfs-ganesha-vfs
nfs-ls         libnfs-utils
NEEDS
    fi
}

# True if a command or file pattern is there.
is_there() {
    local alternative
    case "$1" in
    */*)
        local IFS='|'
        for alternative in $1; do
            if compgen -G "$alternative" >/dev/null; then return 0; fi
        done
        return 1
        ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
    esac
}

# Installs what is missing; asks the network only then. `tests` adds what only tests use.
install_packages() {
    local what package missing=()
    while read -r what package; do
        is_there "$what" || missing+=("$package")
    done < <(needs "${1:-}")
    [ "${#missing[@]}" -gt 0 ] || return 0
    echo "Installing ${missing[*]}"
    command -v apt-get >/dev/null ||
        fail "This is no Debian; install what Debian calls ${missing[*]}, then run this again."
    apt_get update || fail "apt-get update does not work; see its message above."
    apt_get install -y --no-install-recommends "${missing[@]}" ||
        fail "apt-get cannot install ${missing[*]}; see its message above."
}

# True if $1 is version $2 or newer.
is_version() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# True if the cargo that PATH finds is new enough for this crate.
has_cargo() {
    local have
    have="$(cargo --version 2>/dev/null | awk '{ print $2 }')" || return 1
    [ -n "$have" ] && is_version "$have" "$1"
}

# Puts a cargo on PATH that is new enough. Debian 13 has rustup; Debian 12 has only an old Rust, so
# there it comes from its own site, as https://rustup.rs says.
find_rust() {
    local wanted
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")"
    if has_cargo "$wanted"; then return 0; fi
    export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    if has_cargo "$wanted"; then return 0; fi
    if ! command -v rustup >/dev/null && command -v apt-get >/dev/null; then
        apt_get update || true
        if apt-cache show rustup >/dev/null 2>&1; then
            apt_get install -y --no-install-recommends rustup || true
        fi
    fi
    if ! command -v rustup >/dev/null; then
        command -v curl >/dev/null || apt_get install -y --no-install-recommends curl ca-certificates || true
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y --no-modify-path --profile minimal || true
    fi
    if command -v rustup >/dev/null; then
        rustup toolchain install stable --profile minimal -c rustfmt -c clippy || true
        rustup default stable || true
    fi
    has_cargo "$wanted" || fail "Rust $wanted or newer is needed and could not be installed;" \
        "install it with rustup (https://rustup.rs), then run this again."
}

# Puts the foreign test suites beside the target directory, each version once.
install_suites() {
    local suite name version
    export STRATAFS_TOOLS="${STRATAFS_TOOLS:-$CARGO_TARGET_DIR-tools}"
    for suite in pjdfstest-0.2.2 fsx-0.3.2; do
        name="${suite%-*}" version="${suite##*-}"
        if [ -x "$STRATAFS_TOOLS/$suite/bin/$name" ]; then continue; fi
        CARGO_TARGET_DIR="$STRATAFS_TOOLS/build" cargo install --quiet --locked \
            --version "=$version" --root "$STRATAFS_TOOLS/$suite" "$name" ||
            fail "cargo cannot install $name $version; see its message above."
    done
    rm -rf -- "$STRATAFS_TOOLS/build"
}

# Makes sure that the kernel offers FUSE to us.
find_fuse() {
    if [ ! -c /dev/fuse ]; then
        as_root modprobe fuse 2>/dev/null || true
    fi
    [ -c /dev/fuse ] || fail "There is no /dev/fuse, so nothing can be mounted; load the module" \
        "(modprobe fuse), or give the container --device /dev/fuse --cap-add SYS_ADMIN."
    [ -w /dev/fuse ] || fail "/dev/fuse cannot be opened for writing by user $(id -un)."
}

# Mountpoints below $1, the deepest first.
mounts_below() {
    awk -v below="$1/" '{ gsub(/\\040/, " ", $5) } index($5 "/", below) == 1 { print $5 }' \
        /proc/self/mountinfo | sort -r
}

# Processes of our own binaries whose command line names something below $1.
processes_below() {
    local entry exe
    for entry in /proc/[0-9]*; do
        [ "${entry#/proc/}" != "$$" ] || continue
        exe="$(readlink "$entry/exe" 2>/dev/null)" || continue
        case "$exe" in "$CARGO_TARGET_DIR"/* | "$STRATAFS") ;; *) continue ;; esac
        if tr '\0' '\n' <"$entry/cmdline" 2>/dev/null | grep -qF "$1/"; then
            echo "${entry#/proc/}"
        fi
    done
}

# Ends what a failed run left below the directory $1, then removes it.
clean_below() {
    local dir="$1" mounted pid loop try
    case "$dir" in "" | /) return 0 ;; esac
    while read -r mounted; do
        echo "Left mounted: $mounted"
        if [ "$(id -u)" = 0 ]; then umount -l "$mounted"; else fusermount3 -uzq "$mounted"; fi || true
    done < <(mounts_below "$dir")
    for try in 1 2 3 4 5 6; do
        pid="$(processes_below "$dir")"
        [ -n "$pid" ] || break
        # A volume that lost its mount ends by itself; then it is asked to, then made to.
        case "$try" in
        4) echo "$pid" | xargs -r kill 2>/dev/null || true ;;
        6) echo "$pid" | xargs -r kill -9 2>/dev/null || true ;;
        esac
        sleep 0.5
    done
    if [ "$(id -u)" = 0 ]; then
        while read -r loop; do
            losetup -d "$loop" || true
        done < <(losetup -n -O NAME,BACK-FILE 2>/dev/null | awk -v d="$dir/" 'index($2, d) == 1 { print $1 }')
    fi
    rm -rf --one-file-system -- "$dir" || true
}
