"""GPUs: which there are, what fits them, and how Triton is started on them."""
