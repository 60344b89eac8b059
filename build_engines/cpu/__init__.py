"""The kinds that need no GPU: `cpu`, `llama_cpp` and `embedding`."""
