"""Statistics of paired runs: arrays in, numbers or small frozen records out; by scipy and statsmodels."""
