"""YAML → sweep → jobs. Imports no torch."""
