#!/bin/sh
# Containers on the session bus, in plain shell: watch-containers.sh [list | watch | start NAME | stop NAME]
# An example for org.usercontainer1(5); it needs nothing but busctl(1), which comes with systemd.
set -eu
service=org.usercontainer1 root=/org/usercontainer1

list() { # NAME STATE IMAGE
    busctl --user --list tree $service | { grep "^$root/container/" || true; } | while read -r path; do
        busctl --user get-property $service "$path" $service.Container Name State Image |
            cut -d '"' -f 2 | paste -s -d ' '
    done
}

act() { # METHOD NAME: an empty a{sv} of options is a 0 to busctl
    path=$(busctl --user call $service $root $service.Manager GetContainer 'sa{sv}' "$2" 0 | cut -d '"' -f 2)
    busctl --user --timeout=1h call $service "$path" $service.Container "$1" 'a{sv}' 0
}

watch() { # the list, and again after each signal: that the service left, too, for then nobody would send any more
    list
    busctl --user --json=short monitor \
        --match="type='signal',sender='$service',path_namespace='$root'" \
        --match="type='signal',member='NameOwnerChanged',arg0='$service'" |
        while read -r _; do echo && list; done
}

case ${1:-list} in
    list | watch) "${1:-list}" ;;
    start) act Start "$2" ;;
    stop) act Stop "$2" ;;
    *) sed -n 2p "$0" >&2 && exit 2 ;;
esac
