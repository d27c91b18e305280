SELECT
  schemaname,
  tablename,
  indexname,
  idx_tup_read,
  idx_tup_fetch,
  idx_tup_read::float / GREATEST(pg_stat_get_tuples_inserted(c.oid) +
                                 pg_stat_get_tuples_updated(c.oid), 1) as selectivity
FROM pg_stat_user_indexes psi
JOIN pg_class c ON c.oid = psi.indexrelid
WHERE schemaname = 'public'
ORDER BY idx_tup_read DESC;
