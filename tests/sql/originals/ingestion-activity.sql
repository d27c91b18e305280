SELECT
  schemaname,
  tablename,
  n_tup_ins as inserts_today,
  n_tup_upd as updates_today,
  n_tup_del as deletes_today,
  last_autovacuum,
  last_autoanalyze
FROM pg_stat_user_tables
WHERE schemaname = 'public'
ORDER BY n_tup_ins DESC;
