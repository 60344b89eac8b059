"""The items of a response's output: each tells the events of its beginning, growth and end.

Knows nothing of its place in the output, nor of sequence numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from frontend.protocol.response_items import Item, new_id, output_text

NamedEvent = tuple[str, dict[str, Any]]  # the event's type and its own fields


class MessageItem:
    """The model's answer."""

    def __init__(self) -> None:
        self._id = new_id("msg")
        self._texts: list[str] = []
        self._log_probs: list[Any] = []
        self._place = {"item_id": self._id, "content_index": 0}

    def opening(self) -> Iterator[NamedEvent]:
        yield "response.output_item.added", {"item": {**self.shown("in_progress"), "content": []}}
        yield "response.content_part.added", {**self._place, "part": self._part()}

    def delta(self, text: str, log_probs: list[Any]) -> NamedEvent:
        self._texts.append(text)
        self._log_probs += log_probs
        return (
            "response.output_text.delta",
            {**self._place, "delta": text, "logprobs": log_probs},
        )

    def closing(self, status: str) -> Iterator[NamedEvent]:
        part = self._part()
        text = {"text": part["text"], "logprobs": part["logprobs"]}
        yield "response.output_text.done", {**self._place, **text}
        yield "response.content_part.done", {**self._place, "part": part}
        yield "response.output_item.done", {"item": self.shown(status)}

    def shown(self, status: str) -> Item:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "content": [self._part()],
            "status": status,
        }

    def _part(self) -> dict[str, Any]:
        return output_text("".join(self._texts), list(self._log_probs))


class ReasoningItem:
    """What the model thinks: the item's content, or its summary where one was asked for."""

    def __init__(self, *, has_summary: bool) -> None:
        self._id = new_id("rs")
        self._texts: list[str] = []
        self._has_summary = has_summary
        kind = "reasoning_summary_text" if has_summary else "reasoning_text"
        self._text_event = f"response.{kind}"
        self._part_event = f"response.{'reasoning_summary_part' if has_summary else 'content_part'}"
        index = "summary_index" if has_summary else "content_index"
        self._place = {"item_id": self._id, index: 0}

    def opening(self) -> Iterator[NamedEvent]:
        item = {**self.shown("in_progress"), "summary": [], "content": []}
        yield "response.output_item.added", {"item": item}
        yield f"{self._part_event}.added", {**self._place, "part": self._part()}

    def delta(self, text: str, log_probs: list[Any]) -> NamedEvent:
        self._texts.append(text)
        return f"{self._text_event}.delta", {**self._place, "delta": text}

    def closing(self, status: str) -> Iterator[NamedEvent]:
        part = self._part()
        yield f"{self._text_event}.done", {**self._place, "text": part["text"]}
        yield f"{self._part_event}.done", {**self._place, "part": part}
        yield "response.output_item.done", {"item": self.shown(status)}

    def shown(self, status: str) -> Item:
        part = self._part()
        return {
            "id": self._id,
            "type": "reasoning",
            "summary": [part] if self._has_summary else [],
            "content": [] if self._has_summary else [part],
            "status": status,
        }

    def _part(self) -> dict[str, Any]:
        kind = "summary_text" if self._has_summary else "reasoning_text"
        return {"type": kind, "text": "".join(self._texts)}


class CallItem:
    """A function that the model calls."""

    def __init__(self, *, call_id: str, name: str) -> None:
        self._id = new_id("fc")
        self._call_id = call_id
        self._name = name
        self._texts: list[str] = []

    def opening(self) -> Iterator[NamedEvent]:
        yield "response.output_item.added", {"item": self.shown("in_progress")}

    def delta(self, text: str, log_probs: list[Any]) -> NamedEvent:
        self._texts.append(text)
        return "response.function_call_arguments.delta", {"item_id": self._id, "delta": text}

    def closing(self, status: str) -> Iterator[NamedEvent]:
        item = self.shown(status)
        yield (
            "response.function_call_arguments.done",
            {"item_id": self._id, "name": self._name, "arguments": item["arguments"]},
        )
        yield "response.output_item.done", {"item": item}

    def shown(self, status: str) -> Item:
        return {
            "id": self._id,
            "type": "function_call",
            "call_id": self._call_id,
            "name": self._name,
            "arguments": "".join(self._texts),
            "status": status,
        }


OutputItem = MessageItem | ReasoningItem | CallItem
