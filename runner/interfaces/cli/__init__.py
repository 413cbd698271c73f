"""The command line: one file for each group of commands.

Modules that import torch, scipy or pandas are imported inside the commands that need them, so that `--help`, `plan` and
`watch` start fast.
"""
