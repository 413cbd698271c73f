"""What the training loop drives: one network, or a stack of them."""
