# shellcheck shell=bash
# A tree that has everything a copy has to keep. Sourced by tests/apps.sh, never run. Needs root.

# Makes the tree $1, which does not exist yet.
make_tree() {
    mkdir -p "$1"
    (
        cd "$1"
        make_names
        make_kinds
        make_attributes
        make_times
    )
}

make_names() {
    mkdir -p plain empty deep/a/b/c/d/e 'with space' $'new\nline' 'größe' -- -dash
    head -c 3000000 /dev/urandom >plain/random.bin
    seq 40000 >plain/text.c
    cp /bin/true plain/program
    printf dash >./-dash/-rf
    printf bytes >$'not-utf8-\xe9\xff.c'
    printf star >'plain/*?[x]'
    printf back >'plain/a\b"c'"'d"
    printf long >"plain/$(printf 'x%.0s' {1..255})"
    : >plain/nothing
    # Every byte a name can have, in one name: 1 to 255 without the slash is 254 of them.
    python3 -c 'import sys; sys.stdout.buffer.write(bytes(b for b in range(1, 256) if b != 47))' |
        (IFS= read -r -d '' name || true && printf odd >"plain/$name")
}

make_kinds() {
    ln plain/random.bin plain/hardlink
    ln plain/random.bin deep/a/b/c/hardlink
    ln -s plain/random.bin link
    ln -s /nowhere/at/all dangling
    ln -s "$(printf 'y%.0s' {1..4000})" deep/longlink
    ln -P link deep/same-link
    mkfifo plain/fifo
    ln plain/fifo deep/same-fifo
    mknod plain/char c 10 200
    mknod plain/block b 259 1048575
    python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("plain/socket")'
    truncate -s 60M plain/sparse
    printf middle | dd of=plain/sparse bs=1 seek=30000000 conv=notrunc status=none
    truncate -s 20M plain/only-a-hole
}

make_attributes() {
    chown 12345:54321 plain/random.bin deep/a
    chown -h 4000000000:1 link
    chmod 4755 plain/text.c
    chmod 2775 empty
    chmod 2755 plain/program
    chmod 1777 deep
    chmod 000 plain/nothing
    setfattr -n user.comment -v hello plain/random.bin
    setfattr -n user.empty deep
    setfattr -n user.large -v "0x$(printf 'ab%.0s' {1..3000})" plain/text.c
    setfattr -n trusted.mine -v t plain/text.c
    setfattr -n security.mine -v s plain/text.c
    setfattr -h -n trusted.on.link -v t link
    setfattr -n trusted.on.fifo -v t plain/fifo
    setfacl -m u:1234:rw,g:4321:r plain/random.bin
    setfacl -m d:u:77:rwx,d:g:88:r-x,u:77:rwx deep/a/b
    setcap cap_net_raw,cap_net_bind_service+ep plain/program
}

make_times() {
    # rsync sets no time that is in the right second already.
    find . -print0 | xargs -0 touch -h -d '2020-02-03 04:05:06.789012345'
    touch -d '1965-03-04 05:06:07.123456789' plain/text.c
    touch -d '2200-01-01 00:00:00.000000001' plain/random.bin
    touch -d '2150-06-07 08:09:10.999999999' plain/fifo
    touch -h -d '1999-12-31 23:59:59.999999999' link
    touch -d '1901-12-14 00:00:00.5' empty
    touch -d '1969-12-31 23:59:59.999999999 UTC' plain/nothing
    touch -a -d '2001-02-03 04:05:06.7' plain/program
    touch -d '1970-01-01 UTC' deep/a
}
