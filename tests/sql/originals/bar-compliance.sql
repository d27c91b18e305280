SELECT
  symbol,
  ts_event,
  open_price,
  high_price,
  low_price,
  close_price,
  CASE
    WHEN high_price < low_price THEN 'HIGH_LESS_THAN_LOW'
    WHEN high_price < open_price THEN 'HIGH_LESS_THAN_OPEN'
    WHEN high_price < close_price THEN 'HIGH_LESS_THAN_CLOSE'
    WHEN low_price > open_price THEN 'LOW_GREATER_THAN_OPEN'
    WHEN low_price > close_price THEN 'LOW_GREATER_THAN_CLOSE'
    ELSE 'VALID'
  END as validation_status
FROM ohlcv_data
WHERE ts_event >= CURRENT_DATE - INTERVAL '7 days'
  AND (high_price < low_price
       OR high_price < open_price
       OR high_price < close_price
       OR low_price > open_price
       OR low_price > close_price)
ORDER BY ts_event DESC;
