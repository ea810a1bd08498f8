#!/usr/bin/env bash
# What tests/deb.sh does inside of the clean root: one step of the package's life, named by $1.
set -euo pipefail
V=/backup/vol M=/mnt/backup
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

holder() { sed 's/process \([0-9]*\) .*/\1/' "$V/lock"; }
is_mounted() { grep -q " $M fuse.stratafs " /proc/self/mounts; }
ends() { if "$@"; then return 1; fi; }
names() { (cd "$V" && find . -type f ! -name '*.log*' ! -name lock ! -name last-commit | sort); }

install_package() {
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends /trial/old.deb fuse3 rsync
    stratafs version
    dpkg --verify stratafs
    [ -z "$(ldd /usr/bin/stratafs | grep 'not found' || true)" ]
    for page in stratafs.1 stratafs-mount.1 mount.stratafs.8 stratafs-backup.8; do
        dpkg -L stratafs | grep -q "/$page.gz$" || { echo "no $page" && return 1; }
    done
}

mount_and_use() {
    mkdir -p /backup "$M"
    stratafs init "$V"
    env -i /bin/mount -t stratafs "$V" "$M" -o noatime
    rsync -aHAXS /usr/bin/ "$M/bin/"
    diff -rq --no-dereference /usr/bin "$M/bin"
    mkdir "$M/.snapshots/first"
    umount -c "$M"
    flock -n "$V/lock" true
    echo "$V $M fuse.stratafs noauto,uhelper=stratafs 0 0" >>/etc/fstab
    mount "$M"
    [ -e "$M/.snapshots/first/bin/bash" ]
    umount "$M"
    flock -n "$V/lock" true
}

mount_as_a_user() {
    useradd -m someone 2>/dev/null || true
    # shellcheck disable=SC2016
    su - someone -c 'mkdir -p mnt && stratafs init vol && stratafs mount vol mnt &&
        echo hello >mnt/file && stratafs umount mnt && stratafs mount vol mnt -o ro &&
        [ "$(cat mnt/file)" = hello ] && stratafs umount mnt'
}

back_up() {
    printf 'MOUNT=%s\nVOLUME=%s\nSOURCE=/etc\nKEEP_LAST=1\n' "$M" "$V" >/etc/stratafs/backup/etc.conf
    stratafs-backup etc
    stratafs-backup -q etc
    [ "$(stratafs snapshot list "$V" --no-space | grep -c '^etc-')" = 1 ]
    ends is_mounted
}

units_are_right() {
    printf '[profiles.main]\nvolume = "%s"\nmountpoint = "%s"\n' "$V" "$M" >/etc/stratafs/config.toml
    stratafs status -P main >/dev/null
    apt-get -qq install -y --no-install-recommends systemd systemd-sysv dbus
    # Pages are not there for a check that runs man.
    systemd-analyze --man=no verify stratafs@main.service stratafs-backup@etc.service stratafs-backup@etc.timer
    systemctl enable stratafs@main.service stratafs-backup@etc.timer
    systemctl disable stratafs@main.service
}

upgrade_while_mounted() {
    mount "$M"
    local pid said
    pid="$(holder)"
    exec 7>"$M/open"
    echo before >&7
    said="$(dpkg -i /trial/new.deb 2>&1)"
    echo "$said"
    grep -q "goes on with the program it was started with: $M" <<<"$said"
    [ "$(holder)" = "$pid" ] && is_mounted
    readlink "/proc/$pid/exe" | grep -q deleted
    echo after >&7
    exec 7>&-
    [ "$(cat "$M/open")" = "before"$'\n'"after" ]
    # The new program and the process of the old one understand each other.
    stratafs status "$M" >/dev/null
    stratafs umount "$M"
    mount "$M"
    [ "$(tail -n 1 "$M/open")" = after ]
    [ "$(dpkg-query -W -f '${Version}' stratafs)" != "$(dpkg-deb -f /trial/old.deb Version)" ]
}

removal_is_refused_while_mounted() {
    is_mounted
    ends apt-get -qq remove -y stratafs
    is_mounted && [ -x /usr/bin/stratafs ] && dpkg --verify stratafs
    stratafs umount "$M"
}

remove_and_purge() {
    names >/trial/before
    apt-get -qq remove -y stratafs
    [ ! -e /usr/bin/stratafs ] && [ ! -e /sbin/mount.stratafs ] && [ -e /etc/stratafs/config.toml ]
    dpkg --purge stratafs
    [ ! -e /etc/stratafs ]
    ends compgen -G '/etc/systemd/system/*.wants/stratafs*'
    names | cmp - /trial/before
}

the_volume_survived() {
    apt-get -qq install -y --no-install-recommends /trial/new.deb
    stratafs check "$V" --read-data
    stratafs mount "$V" "$M"
    [ -e "$M/.snapshots/first/bin/bash" ] && [ "$(tail -n 1 "$M/open")" = after ]
    stratafs umount "$M"
}

"$1"
