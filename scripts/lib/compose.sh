# shellcheck shell=bash
# The same stack in containers: `docker compose` does all of it, here it is only asked.

# require_engine: says what is missing, and what to do about it.
require_engine() {
    local why elsewhere='or leave --docker out: everything then runs as plain processes'
    command -v docker >/dev/null ||
        fail 'docker is not found' 'install Docker Engine with its compose plugin (https://docs.docker.com/engine/install/),' "$elsewhere"
    if ! why=$(timeout 20 docker info 2>&1 >/dev/null); then
        fail "no Docker engine answers: $(tail -n 1 <<<"${why:-no answer within 20 s}")" \
            'start it (sudo systemctl start docker), or set DOCKER_HOST to where it is,' "$elsewhere"
    fi
    docker compose version >/dev/null 2>&1 ||
        fail 'docker has no compose plugin' "install it (Debian's docker-compose or Docker's docker-compose-plugin)," "$elsewhere"
}

compose() { docker compose --file "$ROOT/docker-compose.yml" "$@"; }

# compose_up DETACH: empty for the foreground.
compose_up() {
    require_engine
    ! any_process_runs || fail 'the stack runs already, as plain processes' 'stop it first: ./scripts/down'
    if ! given ADMIN_TOKEN; then
        [ -n "$(remembered ADMIN_TOKEN)" ] || remember ADMIN_TOKEN "$(random_hex 32)"
        ADMIN_TOKEN=$(remembered ADMIN_TOKEN)
        export ADMIN_TOKEN
    fi
    : >"$RUN_DIR/compose"
    step 'docker compose up'
    if [ -n "$1" ]; then
        compose up --build --detach --wait || {
            compose_down '' || true
            fail 'docker compose up failed' 'see what it says above'
        }
        compose ps
        print_urls http://localhost:3001 http://localhost:3002
        return 0
    fi
    unlock_stack
    # Ctrl-C reaches compose too, which stops the containers; afterwards they are removed.
    trap : INT TERM
    compose up --build || true
    trap - INT TERM
    compose_down ''
}

# compose_down WIPE: also removes the volumes when it is not empty.
compose_down() {
    local -a volumes=()
    [ -z "$1" ] || volumes=(--volumes)
    compose down "${volumes[@]}" || return 1
    rm -f "$RUN_DIR/compose"
}

runs_in_compose() { [ -e "$RUN_DIR/compose" ]; }
