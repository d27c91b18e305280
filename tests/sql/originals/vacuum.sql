VACUUM ANALYZE ohlcv_data;
VACUUM ANALYZE trades_data;
VACUUM ANALYZE tbbo_data;
VACUUM ANALYZE statistics_data;
VACUUM ANALYZE definitions_data;
