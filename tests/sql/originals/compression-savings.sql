SELECT
  hypertable_name,
  SUM(before_compression_total_bytes) as before_compression,
  SUM(after_compression_total_bytes) as after_compression,
  ROUND(100 * (1 - SUM(after_compression_total_bytes::numeric) /
                    SUM(before_compression_total_bytes::numeric)), 2) as compression_ratio
FROM timescaledb_information.compressed_chunk_stats
GROUP BY hypertable_name;
