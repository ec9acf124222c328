# fish completion for usercontainer.
#
# What may come next is what `usercontainer __complete WORDS... WORD` says. Nothing here evaluates what was typed or
# what was answered.
# This file serves docker and podman, too, where these are usercontainer by another name.

function __usercontainer_complete
    set -l before (commandline -opc)
    set -l typed (commandline -ct | string unescape)
    set -l lines (command usercontainer __complete $before[2..] "$typed" 2>/dev/null)
    set -l directive (string replace -r '^:' '' -- $lines[-1])
    string match -qr '^[0-9]+$' -- "$directive"
    or return
    test (math "bitand($directive, 1)") -eq 0
    or return
    set -e lines[-1]
    # A candidate for --option=VALUE is the value; fish wants the whole word.
    set -l head ''
    if string match -qr '^--[^=]+=' -- "$typed"
        set head (string replace -r '=.*' '=' -- "$typed")
        set typed (string replace -r '^[^=]*=' '' -- "$typed")
    end
    for line in $lines
        echo -- "$head$line"
    end
    if test (math "bitand($directive, 16)") -ne 0
        for directory in (__fish_complete_directories "$typed" '')
            echo -- "$head$directory"
        end
    else if test (math "bitand($directive, 4)") -eq 0; and not set -q lines[1]
        for file in (__fish_complete_path "$typed" '')
            echo -- "$head$file"
        end
    end
end

# Where `docker` is usercontainer's script.
function __usercontainer_is
    set -l path (command -s -- $argv[1])
    or return
    set -l comment
    begin
        read -l shebang
        and string match -q '#!/bin/sh' -- $shebang
        and read comment
    end <$path 2>/dev/null
    string match -q '*usercontainer(1)*' -- "$comment"
end

complete -c usercontainer -f -a '(__usercontainer_complete)'
for __usercontainer_name in docker podman
    if __usercontainer_is $__usercontainer_name
        complete -c $__usercontainer_name -f -a '(__usercontainer_complete)'
    end
end
set -e __usercontainer_name
