"""A sweep while it runs: progress, watch, sinks, trackers."""
