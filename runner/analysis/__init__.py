"""From tables to a comparison, and to verdicts. This package imports no torch."""
