"""Learners: one network, or a stack of networks, as the training loop drives it."""
