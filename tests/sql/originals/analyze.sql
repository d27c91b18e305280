ANALYZE ohlcv_data;
ANALYZE trades_data;
ANALYZE tbbo_data;
