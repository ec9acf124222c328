# bash completion for usercontainer                                                       -*- shell-script -*-
#
# What may come next is what `usercontainer __complete WORDS... WORD` says. Nothing here evaluates what was typed or
# what was answered, and nothing of bash-completion's own functions is needed.
# This file serves docker and podman, too, where these are usercontainer by another name.

_usercontainer()
{
    COMPREPLY=()
    local IFS=$' \t\n' breaks='' character line=${COMP_LINE:0:COMP_POINT} word typed='' index
    local -a words=()
    # The characters that part words for readline, but not for usercontainer.
    for character in : = @ ,; do
        [[ $COMP_WORDBREAKS == *"$character"* ]] && breaks+=$character
    done
    # Join what readline has parted: pieces with no blank between them. COMP_WORDS has the pieces, the line the blanks.
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ $line == [[:space:]]* || ${#words[@]} -eq 0 ]]; then
            line=${line#"${line%%[![:space:]]*}"}
            words+=('')
        fi
        # The cursor may be in the middle of a word.
        [[ $index -eq $COMP_CWORD ]] && word=${line:0:${#word}}
        line=${line#"$word"}
        words[${#words[@]} - 1]+=$word
    done
    if [[ ${#words[@]} -ge 2 && ${words[${#words[@]} - 2]} == *[\<\>] ]]; then
        compopt -o default
        return
    fi
    typed=${words[${#words[@]} - 1]}
    # Quotes stay in the line; readline replaces what is behind an opening one as a whole.
    local quoted=
    [[ $typed == [\"\']* ]] && quoted=yes
    for index in "${!words[@]}"; do
        words[index]=${words[index]//[\\\"\']/}
    done
    typed=${words[${#words[@]} - 1]}

    local answer directive candidate
    answer=$(command usercontainer __completeNoDesc "${words[@]:1}" 2>/dev/null) || return
    directive=${answer##*:}
    answer=${answer%:*}
    [[ $directive =~ ^[0-9]+$ ]] && ((!(directive & 1))) || return
    # A candidate for --option=VALUE is the value. Readline puts it behind the last character that parts words.
    local option='' start=0
    [[ $typed == --*=* ]] && option=${typed%%=*}=
    if [[ -z $quoted && -n $breaks ]]; then
        word=${typed##*[$breaks]}
        start=$((${#typed} - ${#word}))
    fi
    while IFS= read -r candidate; do
        [[ -n $candidate && $option$candidate == "$typed"* ]] || continue
        candidate=$option$candidate
        COMPREPLY+=("${candidate:start}")
    done <<<"$answer"
    ((directive & 2)) && compopt -o nospace
    if ((directive & 16)); then
        compopt -o plusdirs
    elif ((!(directive & 4))); then
        compopt -o default
    fi
}

# Where `docker` is an alias for usercontainer, or its script.
_usercontainer_is()
{
    local path shebang='' comment=''
    case $(type -t "$1") in
        alias) [[ ${BASH_ALIASES[$1]} == usercontainer ]] ;;
        file)
            path=$(type -P "$1")
            { read -r shebang && [[ $shebang == '#!/bin/sh' ]] && read -r comment; } <"$path" 2>/dev/null
            [[ $comment == *'usercontainer(1)'* ]]
            ;;
        *) false ;;
    esac
}

complete -F _usercontainer usercontainer
for _usercontainer_name in docker podman; do
    _usercontainer_is "$_usercontainer_name" && complete -F _usercontainer "$_usercontainer_name"
done
unset -v _usercontainer_name
