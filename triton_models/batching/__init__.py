"""The in-flight batcher that the CPU engines share: steps, order, sampling, events, settings.

What computes and remembers is a `backend.Backend`: `cpu/` has one on OpenVINO, `llama_cpp/` one on
llama.cpp.
"""
