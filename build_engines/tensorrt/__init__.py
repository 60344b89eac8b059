"""Kind `tensorrt_llm`: engines by TensorRT-LLM's tools."""
