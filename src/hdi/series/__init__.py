"""Series made of stored rows when somebody asks: continuous contracts, bars, trades with their quotes."""
