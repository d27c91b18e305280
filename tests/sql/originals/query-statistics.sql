SELECT
  query,
  calls,
  total_time,
  mean_time,
  min_time,
  max_time
FROM pg_stat_statements
WHERE query LIKE '%FROM ohlcv_data%'
OR query LIKE '%FROM trades_data%'
ORDER BY total_time DESC
LIMIT 10;
