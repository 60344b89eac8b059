"""A stand-in for TensorRT-LLM 1.2.1's tools: strict about arguments, true in the shape of files."""
