"""How people reach bnbench."""
