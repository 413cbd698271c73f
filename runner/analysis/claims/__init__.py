"""Claims: declared, measured seed by seed, judged."""
