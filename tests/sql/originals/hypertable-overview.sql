SELECT
  h.hypertable_name,
  h.hypertable_size,
  h.number_dimensions,
  h.num_chunks,
  c.total_chunks,
  c.data_nodes
FROM timescaledb_information.hypertables h
LEFT JOIN timescaledb_information.chunks c ON h.hypertable_name = c.hypertable_name;
