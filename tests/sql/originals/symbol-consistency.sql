SELECT
  o.symbol,
  COUNT(DISTINCT o.instrument_id) as ohlcv_instruments,
  COUNT(DISTINCT t.instrument_id) as trades_instruments,
  COUNT(DISTINCT b.instrument_id) as tbbo_instruments
FROM ohlcv_data o
LEFT JOIN trades_data t ON o.symbol = t.symbol
LEFT JOIN tbbo_data b ON o.symbol = b.symbol
WHERE o.ts_event >= '2024-01-01'
GROUP BY o.symbol
HAVING COUNT(DISTINCT o.instrument_id) > 1
   OR COUNT(DISTINCT t.instrument_id) > 1
   OR COUNT(DISTINCT b.instrument_id) > 1;
