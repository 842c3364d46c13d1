# shellcheck shell=bash
# What the person at the terminal reads. Colours and emoji on a terminal only; what went wrong on standard error.

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' YELLOW=$'\e[33m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
    DONE_MARK='✅ ' WARN_MARK='⚠️  ' FAIL_MARK='❌ '
else
    BOLD='' DIM='' RED='' YELLOW='' GREEN='' PLAIN=''
    DONE_MARK='' WARN_MARK='' FAIL_MARK=''
fi

# keep_output: remembers where output goes. A signal's trap may run inside a command whose output goes elsewhere.
keep_output() { exec {KEPT_STDOUT}>&1 {KEPT_STDERR}>&2; }

# restore_output: back to there.
restore_output() { exec 1>&"$KEPT_STDOUT" 2>&"$KEPT_STDERR"; }

# step TEXT: something starts that may take a while.
step() { printf '%s==> %s%s\n' "$BOLD" "$*" "$PLAIN"; }

# say TEXT: a fact on the way.
say() { printf '    %s\n' "$*"; }

# finished TEXT: something is done.
finished() { printf '%s%s%s%s\n' "$GREEN" "$DONE_MARK" "$*" "$PLAIN"; }

# warn TEXT: something is not as wished, and it goes on.
warn() { printf '%s%s%s%s\n' "$YELLOW" "$WARN_MARK" "$*" "$PLAIN" >&2; }

# fail WHAT NEXT…: says what happened and, line by line, what to do next; ends the script.
fail() {
    printf '%s%s%s%s\n' "$RED" "$FAIL_MARK" "$1" "$PLAIN" >&2
    shift
    [ $# -eq 0 ] || printf '    next: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '          %s\n' "${@:2}" >&2
    exit 1
}

# tail_of FILE: the end of a log, set off from our own lines.
tail_of() {
    [ -s "$1" ] || return 0
    printf '%s    the end of %s:%s\n' "$DIM" "$(shown_path "$1")" "$PLAIN" >&2
    tail -n 20 -- "$1" | sed 's/^/    | /' >&2
}

# shown_path PATH: as short as it can be typed in the caller's directory.
shown_path() {
    case $1 in
        "$PWD"/*) printf '%s' "${1#"$PWD"/}" ;;
        *) printf '%s' "$1" ;;
    esac
}

# printed_url URL[,URL…]: each as scheme://host[:port], followed by /... if it had anything more: the rest may be a secret.
printed_url() {
    local url shown='' scheme authority rest
    local -a urls
    IFS=, read -ra urls <<<"$1"
    for url in "${urls[@]}"; do
        if [[ $url =~ ^[[:space:]]*([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)$ ]]; then
            scheme=${BASH_REMATCH[1]} authority=${BASH_REMATCH[2]} rest=${BASH_REMATCH[3]}
            if [[ $rest == *@* ]]; then
                # A password with an unescaped slash: where the host begins is anybody's guess.
                shown+=",$scheme://..."
                continue
            fi
            [[ $authority == *@* && -z $rest ]] && rest=/login
            shown+=",$scheme://${authority##*@}"
            [[ -z $rest || $rest == / ]] || shown+=/...
        else
            shown+=',(not a URL)'
        fi
    done
    printf '%s' "${shown#,}"
}
