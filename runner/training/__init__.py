"""A job → its rows: the loop, its learners, data and probes."""
