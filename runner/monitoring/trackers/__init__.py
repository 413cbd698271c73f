"""Trackers: a sweep in another tool, while it trains or afterwards."""
