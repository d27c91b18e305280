SELECT
  'ohlcv_data' as table_name,
  MIN(ts_event) as earliest_date,
  MAX(ts_event) as latest_date,
  COUNT(*) as record_count
FROM ohlcv_data
UNION ALL
SELECT
  'trades_data' as table_name,
  MIN(ts_event) as earliest_date,
  MAX(ts_event) as latest_date,
  COUNT(*) as record_count
FROM trades_data;
