#!/bin/sh
# Is all well? Containers, disk, store, vendor, errors of the last hour, memory. Exit code 1 where hdi is unhealthy.
#
#     scripts/health_check.sh [--check-api]
#
# Works on the store of HDI_STORE or TIMESCALEDB_HOST, lake or server, with Docker and without. HDI names the program.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/scripts/common.sh"

api=
case "$*" in
--check-api) api=--check-api ;;
"") ;;
*)
    echo "usage: health_check.sh [--check-api]" >&2
    exit 2
    ;;
esac

echo "=== Hist Data Ingestor Health Check ==="
echo "Timestamp: $(date -u +%Y-%m-%dT%H:%M:%SZ)"

section "Container Status"
if containers; then
    compose ps
else
    echo "no containers: Docker is not here, or runs none of this project"
fi

# The exit code of status says whether all is well; what it found is in the document even then.
found=$(hdi --json status --check-db $api)
verdict=$?
if ! readable "$found" .status; then
    echo "=== Health Check Failed: hdi status said nothing that can be read ===" >&2
    exit 1
fi
ask() { printf '%s' "$found" | jq -r "$1"; }

section "Disk Space"
df -h "$(ask .storage.path)" 2>/dev/null || df -h .

section "Database Connectivity"
ask '.store | if .type then "\(.state): \(.type) \(.version // "of unknown version"), \(.units // "not measured") units"
    else "\(.state); see the verdict" end'
if [ -n "$api" ]; then
    section "API"
    ask '.api | if .valid? then "valid, \(.datasets) datasets, answered in \(.seconds) s" else "no valid answer; see the verdict" end'
fi

section "Recent Errors (last 1 hour)"
logs=$(ask .logs.path)
since=$(date -u -d '1 hour ago' +%Y-%m-%dT%H:%M:%S 2>/dev/null || date -u -v-1H +%Y-%m-%dT%H:%M:%S)
if [ -r "$logs/app.log" ]; then
    recent "$logs/app.log" "$since" | jq -s 'length'
    recent "$logs/app.log" "$since" | jq -r '"  \(.timestamp) \(.component): \(.message)"' | tail -n 3
else
    echo "not measured: no $logs/app.log"
fi

section "Quarantine"
ask '"\(.quarantine.rows // "not measured") rows, \(.quarantine.path)"'

section "Memory Usage"
memory

section "Verdict"
ask '.status, (.problems[]? | "  \(.)")'
echo "=== Health Check Complete ==="
[ "$verdict" -eq 0 ]
