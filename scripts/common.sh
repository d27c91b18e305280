# shellcheck shell=sh
# What the scripts for operations share; they read this file. $here is the root of the repository.

if ! command -v jq >/dev/null; then
    echo "error: jq is missing; install it with your package manager" >&2
    exit 2
fi

# hdi as it is installed: named by HDI, beside this repository, on the path, or in the container.
hdi() {
    if [ -n "${HDI:-}" ]; then
        "$HDI" "$@"
    elif [ -x "$here/.venv/bin/hdi" ]; then
        "$here/.venv/bin/hdi" "$@"
    elif program=$(which hdi 2>/dev/null); then
        "$program" "$@"
    elif containers; then
        compose exec -T app hdi "$@"
    else
        echo "error: hdi is not on the PATH; run make install, or name it with HDI" >&2
        return 127
    fi
}

compose() { docker compose --project-directory "$here" "$@"; }

# Whether Docker runs something of this project.
containers() {
    command -v docker >/dev/null && [ -n "$(compose ps --quiet 2>/dev/null)" ]
}

# Whether a document of hdi can be read, and has that key. (Of no input at all jq 1.6 says that all is well.)
readable() { printf '%s' "$1" | jq -es ".[0] | $2" >/dev/null 2>&1; }

section() { printf '\n%s:\n' "$1"; }

# Errors of a log (a file of JSON lines; the last may be half written) since a time.
recent() {
    jq -cR --arg since "$2" 'fromjson? | select((.level == "ERROR" or .level == "CRITICAL") and .timestamp >= $since)' "$1"
}

# Memory and processors: of the containers, or of the machine and the processes of hdi.
memory() {
    if containers; then
        docker stats --no-stream --format 'table {{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}'
        return
    fi
    if [ -r /proc/meminfo ]; then
        awk '/^MemTotal/ {t = $2} /^MemAvailable/ {a = $2} END {printf "machine: %.1f of %.1f GiB used\n", (t - a) / 1048576, t / 1048576}' /proc/meminfo
        printf 'load: %s\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
    fi
    ps -eo pid=,rss=,args= | awk '/[\/ ]hdi( |$)/ && !/awk/ {printf "  process %s: %.1f MiB\n", $1, $2 / 1024}' | head -n 10
}
