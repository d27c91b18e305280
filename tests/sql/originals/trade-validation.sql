SELECT
  symbol,
  COUNT(*) as total_trades,
  SUM(CASE WHEN price <= 0 THEN 1 ELSE 0 END) as invalid_prices,
  SUM(CASE WHEN size <= 0 THEN 1 ELSE 0 END) as invalid_sizes,
  SUM(CASE WHEN side NOT IN ('B', 'S') THEN 1 ELSE 0 END) as invalid_sides
FROM trades_data
WHERE ts_event >= CURRENT_DATE - INTERVAL '7 days'
GROUP BY symbol
HAVING SUM(CASE WHEN price <= 0 THEN 1 ELSE 0 END) > 0
    OR SUM(CASE WHEN size <= 0 THEN 1 ELSE 0 END) > 0
    OR SUM(CASE WHEN side NOT IN ('B', 'S') THEN 1 ELSE 0 END) > 0;
