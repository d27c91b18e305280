SELECT
  pg_size_pretty(pg_database_size('hist_data_ingestor')) as database_size,
  pg_size_pretty(pg_total_relation_size('ohlcv_data')) as ohlcv_size,
  pg_size_pretty(pg_total_relation_size('trades_data')) as trades_size,
  pg_size_pretty(pg_total_relation_size('tbbo_data')) as tbbo_size;
