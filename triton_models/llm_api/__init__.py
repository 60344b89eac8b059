"""Serves what TensorRT-LLM's LLM API runs (PyTorch backend) behind the tensor contract."""
