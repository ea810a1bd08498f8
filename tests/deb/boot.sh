#!/usr/bin/env bash
# Runs as a unit in a booted container: what systemd makes of ours. Writes PASS and FAIL lines.
set -uo pipefail
V=/backup/unit M=/mnt/unit
exec >/trial/boot.log 2>&1

check() {
    local what="$1"
    shift
    if "$@"; then echo "PASS $what"; else echo "FAIL $what"; fi
}
pid() { systemctl show -P MainPID stratafs@unit; }
is_mounted() { grep -q " $M fuse.stratafs " /proc/self/mounts; }
is_closed() { flock -n "$V/lock" true && ! is_mounted; }
starts_ready() { systemctl start stratafs@unit && is_mounted && echo data >"$M/file"; }
has_status() { systemctl show -P StatusText stratafs@unit | grep -qx "Mounted on $M"; }
is_alone() { [ "$(systemctl show -P NRestarts stratafs@unit)" = 0 ]; }
backs_up() { systemctl start stratafs-backup@unit && [ -e "$M/unit/etc/fstab" ]; }
comes_back() {
    sync "$M/file"
    kill -9 "$(pid)"
    for _ in $(seq 100); do
        sleep 0.2
        if [ "$(cat "$M/file" 2>/dev/null)" = data ]; then return 0; fi
    done
    return 1
}
stops_durably() { systemctl stop stratafs@unit && is_closed; }
stops_although_busy() {
    systemctl start stratafs@unit || return 1
    (cd "$M" && echo late >late && systemctl stop stratafs@unit)
    ! is_mounted && ! systemctl is-active -q stratafs@unit &&
        systemctl reset-failed stratafs@unit && systemctl start stratafs@unit && [ -s "$M/late" ]
}
is_refused_once() {
    mkdir -p /mnt/wrong
    if systemctl start stratafs@wrong; then return 1; fi
    sleep 7
    [ "$(systemctl show -P NRestarts stratafs@wrong)" = 0 ] && systemctl is-failed -q stratafs@wrong
}
timer_waits() { systemctl enable --now stratafs-backup@unit.timer && systemctl is-active -q stratafs-backup@unit.timer; }
mount_unit_waits() {
    systemctl stop stratafs@unit
    echo "$V $M fuse.stratafs nofail,noauto 0 0" >>/etc/fstab
    systemctl daemon-reload
    systemctl start mnt-unit.mount && is_mounted && systemctl stop mnt-unit.mount && is_closed
}

cat >/etc/stratafs/config.toml <<PROFILES
[profiles.unit]
volume = "$V"
mountpoint = "$M"
source = ["/etc"]
[profiles.unit.mount]
options = "noatime"
[profiles.unit.prune]
keep-last = 2
[profiles.wrong]
volume = "/nowhere"
mountpoint = "/mnt/wrong"
PROFILES
mkdir -p "$M" && rm -rf "$V" && stratafs init "$V"
check "systemd: started is when the mount answers" starts_ready
check "systemd: the unit says where it is mounted" has_status
check "systemd: the backup unit copies and takes a snapshot" backs_up
check "systemd: nothing was restarted" is_alone
check "systemd: after kill -9 it is mounted again" comes_back
check "systemd: stopped is when the volume is closed" stops_durably
check "systemd: a shell in the mount does not hold up stopping" stops_although_busy
check "systemd: a volume that is not there is not tried again" is_refused_once
check "systemd: the timer waits" timer_waits
check "systemd: a mount unit from fstab is unmounted durably" mount_unit_waits
journalctl -b --no-pager -u 'stratafs*' | tail -n 60
systemctl poweroff
