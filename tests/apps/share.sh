# shellcheck shell=bash
# Steps that share the mount over the network, on loopback. Sourced by tests/apps.sh; places as in
# quick.sh. docs/OPERATIONS.md §18 has the same configurations.

# Starts a server in a session of its own; it ends with the step.
serve() {
    trap end_servers EXIT
    setsid "$@" >>"$OUT/server.log" 2>&1 &
    echo "$!" >>"$WORK/servers"
}

# Ends what `serve` started, by its session.
end_servers() {
    local pid
    [ -e "$WORK/servers" ] || return 0
    while read -r pid; do
        kill -TERM -- "-$pid" 2>/dev/null || true
        for _ in $(seq 50); do
            kill -0 -- "-$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$pid" 2>/dev/null || true
    done <"$WORK/servers"
    rm -f "$WORK/servers"
}

# A port that is free now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Waits until port $1 takes connections.
wait_for_port() {
    for _ in $(seq 150); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return 0; fi
        sleep 0.2
    done
    fail "Nobody listens on port $1."
}

smb_conf() {
    cat <<CONF
[global]
server role = standalone server
interfaces = lo
bind interfaces only = yes
smb ports = $1
disable spoolss = yes
load printers = no
log file = $OUT/log.smbd
private dir = $OUT
lock directory = $OUT/state
state directory = $OUT/state
cache directory = $OUT/state
pid directory = $OUT/state
ncalrpc dir = $OUT/state/ncalrpc
[backup]
path = $HERE
read only = no
vfs objects = shadow_copy2 streams_xattr acl_xattr
shadow:snapdir = .snapshots/.gmt
shadow:sort = desc
[named]
path = $HERE
read only = no
vfs objects = shadow_copy2
shadow:snapdir = .snapshots
shadow:format = auto-%Y%m%d-%H%M%S
shadow:sort = desc
CONF
}

# Asks the share $1.
smb() {
    local share="$1"
    shift
    timeout 60 smbclient -s "$OUT/smb.conf" -p "$SMB_PORT" -U root%secret "//127.0.0.1/$share" -c "$*"
}

# Windows' Previous Versions, as smbclient sees them.
samba_previous_versions() {
    local name first second listed
    SMB_PORT="$(free_port)"
    mkdir -p "$OUT/state/ncalrpc" letters
    smb_conf "$SMB_PORT" >"$OUT/smb.conf"
    printf 'secret\nsecret\n' | smbpasswd -c "$OUT/smb.conf" -a -s root
    serve smbd -F --no-process-group -s "$OUT/smb.conf"
    wait_for_port "$SMB_PORT"

    head -c 3000000 /dev/urandom >"$OUT/random.bin"
    seq 1000 >"$OUT/one.txt"
    seq 2000 >"$OUT/two.txt"
    smb backup "cd letters; put $OUT/one.txt letter.txt; put $OUT/random.bin random.bin"
    cmp letters/random.bin "$OUT/random.bin"
    mkdir "$MNT/.snapshots/auto-20260101-101112"
    # A snapshot has the name of the second it was taken in.
    sleep 1.1
    smb backup "cd letters; put $OUT/two.txt letter.txt; rm random.bin"
    mkdir "$MNT/.snapshots/auto-20260102-101112"
    smb backup "cd letters; rm letter.txt; mkdir new; ls"
    second="$(printf '%s\n' "$MNT"/.snapshots/.gmt/* | sed 's#.*/##' | sort | tail -n 1)"
    first="$(printf '%s\n' "$MNT"/.snapshots/.gmt/* | sed 's#.*/##' | sort | tail -n 2 | head -n 1)"

    listed="$(smb backup 'allinfo letters' | grep -c '^@GMT-')"
    [ "$listed" = 2 ] || fail "Previous versions of letters: $listed"
    for name in "$first/letters" "letters/$first"; do
        smb backup "get $name/letter.txt $OUT/got.txt; get $name/random.bin $OUT/got.bin"
        cmp "$OUT/got.txt" "$OUT/one.txt"
        cmp "$OUT/got.bin" "$OUT/random.bin"
    done
    smb backup "get $second/letters/letter.txt $OUT/got.txt"
    cmp "$OUT/got.txt" "$OUT/two.txt"
    smb backup "ls letters/$second/*" | grep -q letter.txt
    if smb backup "ls letters/$second/*" | grep -q 'random.bin\|new'; then fail "A snapshot changed."; fi
    smb named 'allinfo letters' | grep -q '^@GMT-2026.01.02-10.11.12'
    smb named "get @GMT-2026.01.01-10.11.12/letters/letter.txt $OUT/got.txt"
    cmp "$OUT/got.txt" "$OUT/one.txt"
    # Nothing changes the past.
    smb backup "del $first/letters/letter.txt; put $OUT/two.txt $first/letters/letter.txt" || true
    cmp "$MNT/.snapshots/.gmt/$first/$(basename "$HERE")/letters/letter.txt" "$OUT/one.txt"
}

nfs_conf() {
    cat <<CONF
NFS_CORE_PARAM {
    Protocols = 4; NFS_Port = $1; Bind_addr = 127.0.0.1;
    Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}
NFSv4 { Graceless = true; RecoveryBackend = fs; RecoveryRoot = $OUT/recovery; }
EXPORT {
    Export_Id = 7; Path = $MNT; Pseudo = /backup; Filesystem_Id = 7.7;
    Access_Type = RW; Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP;
    FSAL { Name = VFS; }
}
CONF
}

# NFS 4.0 by nfs-ganesha, which opens files by handles; the client is libnfs, without the kernel.
nfs_export() {
    local round port names where=nfs_export server=127.0.0.1
    mkdir "$OUT/recovery" many
    head -c 3000000 /dev/urandom >random.bin
    (cd many && seq -f 'entry-%g' 3000 | xargs touch)
    mkdir "$MNT/.snapshots/exported"
    for round in 1 2; do
        port="$(free_port)"
        nfs_conf "$port" >"$OUT/ganesha.conf"
        serve ganesha.nfsd -F -f "$OUT/ganesha.conf" -L "$OUT/ganesha.log" -p "$OUT/ganesha.pid"
        wait_for_port "$port"
        at() { echo "nfs://$server/backup/$1?version=4&nfsport=$port"; }
        timeout 60 nfs-cp "$(at $where/random.bin)" "$OUT/back-$round.bin"
        cmp random.bin "$OUT/back-$round.bin"
        names="$(timeout 60 nfs-ls "$(at $where/many)" | grep -o 'entry-[0-9]*' | sort -u | wc -l)"
        [ "$names" = 3000 ] || fail "A listing of 3000 names has $names."
        echo "round $round" >"$OUT/small"
        timeout 60 nfs-cp "$OUT/small" "$(at $where/small-$round)"
        cmp "small-$round" "$OUT/small"
        [ "$(timeout 60 nfs-cat "$(at .snapshots/exported/$where/random.bin)" | cksum)" = \
            "$(cksum <random.bin)" ] || fail "A file in a snapshot differs."
        end_servers
        remount
        cd "$HERE"
    done
}
