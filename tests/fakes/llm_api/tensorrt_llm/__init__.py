"""A stand-in with TensorRT-LLM 1.2's documented LLM API, on a CPU, with a model made of noise.

It refuses arguments that the real one does not have, ignores what the real samplers ignore, and
leaves the end token among the tokens, as read in tensorrt_llm/llmapi/llm.py, executor/result.py and
_torch/pyexecutor/sampler.py.
"""

from __future__ import annotations

from tensorrt_llm import llmapi
from tensorrt_llm.llmapi import LLM, SamplingParams

__all__ = ["LLM", "SamplingParams", "__version__", "llmapi"]
__version__ = "1.2.1"
