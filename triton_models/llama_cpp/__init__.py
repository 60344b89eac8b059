"""The CPU engine on llama.cpp: GGUF files as they are, for the batcher."""
