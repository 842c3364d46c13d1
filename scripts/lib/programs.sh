# shellcheck shell=bash
# The programs that the stack needs: where they are, and how they get here when they are not.
#
# After `find_programs`: POSTGRES_BIN, REDIS_SERVER and ANVIL_PROGRAM, each unset when its server is given.
# shellcheck disable=SC2034 # They are for the files of the servers.

# Debian packages that are missing.
DEBS=()

# find_programs: looks for everything this run needs, and installs what is missing.
find_programs() {
    [ "$(uname -s)" = Linux ] || fail "this needs Linux, not $(uname -s)" './scripts/up --docker'
    find_cargo
    command -v curl >/dev/null || DEBS+=(curl ca-certificates)
    # Rust links with the system's C compiler; one of the crates compiles C.
    command -v cc >/dev/null || DEBS+=(gcc libc6-dev)
    given DATABASE_URL || find_postgres || DEBS+=(postgresql)
    given REDIS_URL || find_redis || DEBS+=(redis-server)
    install_debs
    given DATABASE_URL || find_postgres || missing_program postgres postgresql DATABASE_URL
    given REDIS_URL || find_redis || missing_program redis-server redis-server REDIS_URL
    given RPC_URL || find_anvil || install_anvil
}

# missing_program PROGRAM PACKAGE VARIABLE: a package was installed and the program is still not found.
missing_program() {
    fail "$1 is not found, although Debian's package $2 is installed" \
        "put the folder of $1 into PATH, or name a running server with $3"
}

find_cargo() {
    command -v cargo >/dev/null && return 0
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null || fail 'cargo is not found' 'install Rust (https://rustup.rs) and try again'
}

# find_postgres: where PATH finds initdb, else Debian's newest version.
find_postgres() {
    local initdb
    if initdb=$(command -v initdb) && [ -x "$(dirname "$(readlink -f "$initdb")")/postgres" ]; then
        POSTGRES_BIN=$(dirname "$(readlink -f "$initdb")")
        return 0
    fi
    POSTGRES_BIN=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1) || true
    POSTGRES_BIN=${POSTGRES_BIN%/initdb}
    [ -n "$POSTGRES_BIN" ]
}

find_redis() { REDIS_SERVER=$(command -v redis-server); }

# find_anvil: $ANVIL, a native program in PATH (npm's `anvil` is a script that signals do not get through), npm's own.
find_anvil() {
    local candidate
    for candidate in "${ANVIL:-}" "$(command -v anvil)" "$(npm_anvil)"; do
        if [ -x "$candidate" ] && [ "$(head -c 4 -- "$candidate" | od -An -tx1 | tr -d ' \n')" = 7f454c46 ]; then
            ANVIL_PROGRAM=$candidate
            return 0
        fi
    done
    return 1
}

# npm_anvil: where npm puts the program for this processor.
npm_anvil() {
    local processor
    case $(uname -m) in
        x86_64) processor=amd64 ;;
        aarch64) processor=arm64 ;;
        *) return 0 ;;
    esac
    printf '%s' "$ROOT/deploy/anvil/node_modules/@foundry-rs/anvil-linux-$processor/bin/anvil"
}

install_anvil() {
    local by_hand elsewhere='or name a running node with RPC_URL'
    by_hand="cd $(shown_path "$ROOT/deploy/anvil") && npm ci --omit=dev"
    command -v npm >/dev/null ||
        fail 'neither anvil nor npm is found' 'install Node with npm, or put anvil into PATH,' "$elsewhere"
    step 'installing anvil with npm'
    local -a command=(ci --omit=dev)
    # The lock file holds the package for x86-64 alone.
    if [ "$(uname -m)" != x86_64 ]; then
        command=(install --no-save "@foundry-rs/anvil@$(anvil_version)")
    fi
    npm "${command[@]}" --no-audit --no-fund --loglevel=error --prefix "$ROOT/deploy/anvil" ||
        fail 'npm could not install anvil' "see what npm says above, then: $by_hand" "$elsewhere"
    find_anvil && return 0
    # npm leaves an optional package out without a word when it cannot be downloaded; asked about it, it says why.
    npm view "@foundry-rs/anvil-linux-amd64@$(anvil_version)" version || true
    fail "npm installed no anvil for $(uname -m)" 'see what npm says above, put anvil into PATH,' "$elsewhere"
}

anvil_version() {
    sed -nE 's/.*"@foundry-rs\/anvil-linux-amd64": "([^"]+)".*/\1/p' "$ROOT/deploy/anvil/package.json"
}

# install_debs: the missing packages, with one call of apt-get.
install_debs() {
    [ ${#DEBS[@]} -gt 0 ] || return 0
    local by_hand="apt-get install ${DEBS[*]}" elsewhere='or name running servers with DATABASE_URL and REDIS_URL'
    command -v apt-get >/dev/null ||
        fail "not found, and there is no apt-get to install them with: ${DEBS[*]}" "install them, $elsewhere"
    local -a as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "not installed: ${DEBS[*]}" "as root: $by_hand" "$elsewhere"
        as_root=(sudo)
        [ -t 0 ] || as_root+=(-n)
    fi
    step "installing ${DEBS[*]} with apt-get"
    # Offline, systemctl does not start the servers of the packages: they would take the guide's ports.
    as_root+=(env DEBIAN_FRONTEND=noninteractive SYSTEMD_OFFLINE=1)
    "${as_root[@]}" apt-get update -qq || warn 'apt-get update failed; trying with the lists that are there'
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${DEBS[@]}" ||
        fail "apt-get could not install ${DEBS[*]}" "see what apt-get says above, then as root: $by_hand" "$elsewhere"
}
