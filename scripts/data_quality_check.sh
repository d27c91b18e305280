#!/bin/sh
# How good are the data? Quarantine of the last day, rows by table, a sample judged by today's rules, open discrepancies.
#
#     scripts/data_quality_check.sh [DAYS]
#
# Exit code 1 where a stored row breaks a rule that would reject it today, or a contradiction stands. Works on the store
# of HDI_STORE or TIMESCALEDB_HOST, lake or server. SAMPLE is how many rows of each kind are judged (1000), 0 none.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/scripts/common.sh"

days=${1:-1}
case "$days" in
'' | *[!0-9]*)
    echo "usage: data_quality_check.sh [DAYS]" >&2
    exit 2
    ;;
esac
bad=0

echo "=== Data Quality Check ==="

section "Quarantine (last $days days)"
if found=$(hdi --json quarantine analyze --days "$days"); then
    printf '%s' "$found" | jq -r '
        "\(.rows) rows" + (if .share_percent then ", \(.share_percent) % of \(.fetched) fetched" else "" end),
        (.rules[] | "  \(.rule): \(.rows)")'
else
    echo "not measured"
    bad=1
fi

section "Record counts by table"
if state=$(hdi --json status --check-db) && readable "$state" .store.tables; then
    printf '%s' "$state" | jq -r '.store.tables | to_entries | if length == 0 then "  none: the store is empty" else
        .[] | "  \(.key): \(.value.rows // .value)" end'
else
    echo "not measured: hdi status says why"
    bad=1
fi

section "Stored rows by today's rules"
sample=${SAMPLE:-1000}
if [ "$sample" = 0 ]; then
    echo "not measured: SAMPLE=0"
elif held=$(hdi --json coverage) && readable "$held" .lines; then
    for schema in $(printf '%s' "$held" | jq -r '[.lines[].schema] | unique[]'); do
        judged=$(hdi validate --schema "$schema" --sample-size "$sample" 2>&1) || bad=1
        printf '%s\n' "$judged" | sed 's/^/  /'
    done
else
    echo "not measured: hdi coverage says why"
    bad=1
fi

section "Open discrepancies"
if open=$(hdi --json sql "SELECT severity, count(*) AS n FROM discrepancies WHERE state = 'open' GROUP BY severity" 2>/dev/null); then
    printf '%s' "$open" | jq -rs 'flatten | if length == 0 then "  none open; hdi report says whether anybody looked" else .[] | "  \(.severity): \(.n)" end'
    printf '%s' "$open" | jq -es 'flatten | any(.severity == "ERROR")' >/dev/null && bad=1
else
    echo "  not measured: hdi sql 'SELECT * FROM discrepancies' says why"
    bad=1
fi

echo
if [ "$bad" -eq 0 ]; then
    echo "=== Data Quality Check Complete ==="
else
    echo "=== Data Quality Check Complete: something is wrong, see above ==="
fi
exit "$bad"
