"""The CUDA engine: forms of one layer on a GPU, and who chooses among them; imported by the first call for a GPU."""
