"""Data sets, their preparation, the batches of an epoch, and where random numbers come from."""
