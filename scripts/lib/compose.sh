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
    compose_ports
    if ! given ADMIN_TOKEN; then
        [ -n "$(remembered ADMIN_TOKEN)" ] || remember ADMIN_TOKEN "$(random_hex 32)"
        ADMIN_TOKEN=$(remembered ADMIN_TOKEN)
        export ADMIN_TOKEN
    fi
    pass_environment_on
    printf '%s %s\n' "$PORT" "$ML_PORT" >"$RUN_DIR/compose"
    step 'docker compose up'
    if [ -n "$1" ]; then
        compose --file "$RUN_DIR/compose.yml" up --build --detach --wait || {
            compose_down '' || true
            fail 'docker compose up failed' 'see what it says above'
        }
        compose ps
        finished 'everything is up'
        print_urls "http://localhost:$PORT" "http://localhost:$ML_PORT"
        return 0
    fi
    print_urls "http://localhost:$PORT" "http://localhost:$ML_PORT"
    unlock_stack
    # Ctrl-C reaches compose too, which stops the containers; afterwards they are removed.
    trap : INT TERM
    compose --file "$RUN_DIR/compose.yml" up --build || true
    trap - INT TERM
    compose_down ''
}

# compose_ports: sets and exports PORT and ML_PORT, where the services are published.
compose_ports() {
    if runs_in_compose; then
        # Taken, by ourselves.
        local port ml_port
        read -r port ml_port <"$RUN_DIR/compose"
        PORT=${PORT:-$port} ML_PORT=${ML_PORT:-$ml_port}
    else
        choose_service_port ml-api ML_PORT && ML_PORT=$CHOSEN_PORT
        choose_service_port backend PORT && PORT=$CHOSEN_PORT
        rm -f "$RUN_DIR"/*.port
    fi
    export PORT ML_PORT
}

# pass_environment_on: names every setting that is in our environment, and no value: compose looks those up itself.
pass_environment_on() {
    local names name
    names=$(grep -ohE "^\\| \`[A-Z0-9_]+\`" "$ROOT/docs/CONFIG.md" | tr -d '|` ' | sort -u) || true
    {
        printf 'services:\n  backend:\n    environment: &given\n      ADMIN_TOKEN:\n'
        for name in $names; do
            case $name in PORT | ML_PORT | ADMIN_TOKEN) continue ;; esac
            [ -z "${!name:-}" ] || printf '      %s:\n' "$name"
        done
        printf '  ml-api:\n    environment: *given\n'
    } >"$RUN_DIR/compose.yml"
}

# compose_down WIPE: also removes the volumes when it is not empty.
compose_down() {
    local -a volumes=()
    [ -z "$1" ] || volumes=(--volumes)
    compose down "${volumes[@]}" || return 1
    rm -f "$RUN_DIR"/compose{,.yml}
}

runs_in_compose() { [ -s "$RUN_DIR/compose" ]; }
