SELECT
  hypertable_name,
  hypertable_size,
  number_dimensions,
  num_chunks
FROM timescaledb_information.hypertables;
