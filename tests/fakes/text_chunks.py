"""Answers as `generate` yields them, that every surface's encoder is shown."""

from __future__ import annotations

from frontend.types import FinishReason, TextChunk, ToolCallDelta

PLAIN = [
    TextChunk(text="", num_tokens=0, num_cached_tokens=3),
    TextChunk(text="人", num_tokens=2),
    TextChunk(text='"quoted"\n', num_tokens=3),
    TextChunk(text="", num_tokens=0, finish_reason=FinishReason.STOP),
]
THOUGHTS = [
    TextChunk(text="", reasoning="Hm, ", num_tokens=2, num_reasoning_tokens=2),
    TextChunk(text="Yes", reasoning="so.", num_tokens=4, num_reasoning_tokens=3),
    TextChunk(text=".", num_tokens=1, finish_reason=FinishReason.STOP),
]
TOOL_CALLS = [
    TextChunk(text="I look.", num_tokens=3),
    TextChunk(text="", num_tokens=4, tool_calls=(ToolCallDelta(0, "call_1", "look", ""),)),
    TextChunk(text="", num_tokens=1, tool_calls=(ToolCallDelta(0, None, None, '{"at":'),)),
    TextChunk(
        text="",
        num_tokens=9,
        tool_calls=(
            ToolCallDelta(0, None, None, ' "天"}'),
            ToolCallDelta(1, "call_2", "wait", "{}"),
        ),
    ),
    TextChunk(text="", num_tokens=0, finish_reason=FinishReason.TOOL_CALLS),
]
