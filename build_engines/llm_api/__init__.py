"""Kind `llm_api`: checkpoints for TensorRT-LLM's PyTorch backend."""
