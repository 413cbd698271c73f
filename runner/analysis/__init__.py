"""Tables → comparison → verdicts. Imports no torch."""
