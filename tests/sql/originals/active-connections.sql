SELECT
  'Active connections: ' || count(*)
FROM pg_stat_activity
WHERE state = 'active';
