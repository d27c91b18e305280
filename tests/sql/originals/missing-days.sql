WITH date_series AS (
  SELECT generate_series(
    '2024-01-01'::date,
    CURRENT_DATE,
    '1 day'::interval
  )::date as expected_date
)
SELECT
  ds.expected_date,
  COUNT(o.ts_event) as records_found
FROM date_series ds
LEFT JOIN ohlcv_data o ON ds.expected_date = o.ts_event::date
GROUP BY ds.expected_date
HAVING COUNT(o.ts_event) = 0
ORDER BY ds.expected_date;
