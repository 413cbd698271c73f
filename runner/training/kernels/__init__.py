"""bnbench's own kernels for a CPU: written in C++, used where the installation could compile them."""
