SELECT
  hypertable_name,
  chunk_name,
  range_start,
  range_end,
  pg_size_pretty(total_bytes) as chunk_size,
  row_count
FROM timescaledb_information.chunks
ORDER BY hypertable_name, range_start DESC;
