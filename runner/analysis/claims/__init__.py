"""Claims: what a claim is, how a seed's runs are measured, and how the measurements are judged."""
