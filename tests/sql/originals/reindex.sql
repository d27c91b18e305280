REINDEX TABLE ohlcv_data;
REINDEX TABLE trades_data;
