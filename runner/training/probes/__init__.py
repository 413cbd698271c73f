"""What a network looks like inside while it trains."""
