"""A sweep's folder: rows, tables, resume, checkpoints, results."""
