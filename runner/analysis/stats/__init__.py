"""Statistics of paired runs, by scipy and statsmodels. Arrays go in; numbers or small frozen records come out."""
