#!/bin/bash
# From installed packages alone: start, look, exec, stop. As root; a user without privileges does the work.
#
#   IMAGE      what to run: any image with a shell
#   TEST_USER  a user with a running systemd of its own; default: a new one, which is removed afterwards

set -euo pipefail

image=${IMAGE:-quay.io/libpod/busybox:latest}
user=${TEST_USER:-}
name=packaged

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

if [ -z "$user" ]; then
    user=usercontainer-test
    useradd --create-home "$user"
    loginctl enable-linger "$user"
    trap 'loginctl disable-linger "$user"; sleep 2; userdel --remove "$user"' EXIT
fi
uid=$(id -u "$user")
home=$(getent passwd "$user" | cut -d: -f6)
for _ in {1..100}; do
    [ -S "/run/user/$uid/bus" ] && break
    sleep 0.1
done

# As a login of that user has it.
as_user() {
    runuser -u "$user" -- env --chdir="$home" HOME="$home" XDG_RUNTIME_DIR="/run/user/$uid" \
        DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$uid/bus" "$@"
}

as_user mkdir -p "$home/.config/usercontainerd/containers"
as_user tee "$home/.config/usercontainerd/containers/$name.toml" >/dev/null <<EOF
image = "$image"
command = ["sh", "-c", "trap 'exit 0' TERM; echo it runs; while :; do sleep 0.2; done"]
EOF
as_user usercontainer verify
as_user systemctl --user daemon-reload
as_user systemctl --user start "container@$name"
as_user systemctl --user --no-pager status "container@$name"

as_user busctl --user call org.usercontainer1 /org/usercontainer1 org.usercontainer1.Manager ListContainers 'a{sv}' 0 |
    grep -q "\"$name\" \"running\"" || fail "the session bus does not know the container"
[ "$(as_user usercontainer exec "$name" echo inside)" = inside ] || fail "exec"
as_user docker ps | grep -q "$name" || fail "docker ps does not list the container"
for _ in {1..50}; do
    as_user usercontainer logs "$name" | grep -q "it runs" && break
    sleep 0.1
done
as_user usercontainer logs "$name" | grep -q "it runs" || fail "its output is not in the journal"

as_user systemctl --user stop "container@$name"
[ "$(as_user systemctl --user show --value -p Result "container@$name")" = success ] || fail "the stop"
as_user rm "$home/.config/usercontainerd/containers/$name.toml"
as_user systemctl --user daemon-reload
echo "PASSED"
