SELECT
  'ohlcv_data' as schema, COUNT(*) as records
FROM ohlcv_data WHERE ts_event >= CURRENT_DATE
UNION ALL
SELECT
  'trades_data' as schema, COUNT(*) as records
FROM trades_data WHERE ts_event >= CURRENT_DATE;
