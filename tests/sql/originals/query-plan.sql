EXPLAIN (ANALYZE, BUFFERS)
SELECT * FROM ohlcv_data
WHERE instrument_id = 4916
  AND ts_event >= '2024-01-01'::date
  AND ts_event < '2024-02-01'::date;
