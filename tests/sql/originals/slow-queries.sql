SELECT
  query,
  calls,
  total_time,
  mean_time,
  rows
FROM pg_stat_statements
WHERE mean_time > 5000  -- Queries taking >5 seconds
ORDER BY mean_time DESC;
