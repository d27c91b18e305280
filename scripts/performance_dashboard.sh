#!/bin/sh
# What goes on: memory and load, how fast queries are, runs, and the last lines of the log; anew every 30 seconds.
#
#     scripts/performance_dashboard.sh [--once] [--every SECONDS]
#
# Works on the store of HDI_STORE or TIMESCALEDB_HOST, lake or server, with Docker and without.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/scripts/common.sh"

once=
every=30
while [ $# -gt 0 ]; do
    case "$1" in
    --once) once=yes ;;
    --every)
        every=${2:-}
        shift
        ;;
    *) every= ;;
    esac
    case "$every" in
    '' | 0 | *[!0-9]*)
        echo "usage: performance_dashboard.sh [--once] [--every SECONDS]" >&2
        exit 2
        ;;
    esac
    shift
done

show() {
    echo "=== Hist Data Ingestor Performance Dashboard ==="
    echo "Last updated: $(date -u +%Y-%m-%dT%H:%M:%SZ)"

    section "SYSTEM RESOURCES"
    memory

    section "DATABASE PERFORMANCE"
    state=$(hdi --json status 2>/dev/null)
    if ! readable "$state" .store; then
        echo "not measured: hdi status says why"
        return 1
    fi
    ask() { printf '%s' "$state" | jq -r "$1"; }
    ask '"Store: \(.store.type // "not measured"), \(.store.state)",
        "Average query time: \(if .average_query_seconds == null then "not measured"
            else "\(.average_query_seconds * 1000 | round / 1000) s over \(.queries) queries" end)"'
    if [ "$(ask .store.type)" = timescaledb ]; then
        hdi --json sql "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active'" 2>/dev/null |
            jq -rs 'flatten[] | "Active connections: \(.n)"'
    fi

    section "RUNS"
    if runs=$(hdi --json runs 2>/dev/null); then
        printf '%s' "$runs" | jq -r 'if length == 0 then "none" else .[-5:][] |
            "\(.started[:19]) \(.status): \(.what), \(.rows) rows, \(.rows_per_second // "not measured") rows/s" end'
    else
        echo "not measured: hdi runs says why"
    fi

    section "RECENT ACTIVITY"
    log=$(ask .logs.path)/pipeline_orchestrator.log
    if [ -r "$log" ]; then
        tail -n 5 "$log" | jq -rR 'fromjson? | select(.level == "INFO") | "\(.timestamp): \(.message)"'
    else
        echo "not measured: no $log"
    fi
}

while :; do
    page=$(show)
    shown=$?
    [ -t 1 ] && clear
    printf '%s\n' "$page"
    [ -n "$once" ] && exit "$shown"
    sleep "$every"
done
