"""Texts and lists of token ids, one or several, as `prompt` and `input` take them."""

from __future__ import annotations

from typing import Annotated

from frontend.errors import InvalidParameter
from frontend.protocol.limits import between
from frontend.protocol.sampling import MAX_INT32

TokenId = Annotated[int, between(0, MAX_INT32)]
Inputs = str | list[str | TokenId | list[TokenId]]
Input = str | list[int]  # a text, or token ids that are taken as they are


def read_inputs(param: str, inputs: Inputs, *, maximum: int) -> list[Input]:
    """The single texts and token lists.

    Raises:
        InvalidParameter: one is empty, they are mixed, or too many.
    """
    singles = _singles(param, inputs)
    if not singles or singles == [""]:
        raise InvalidParameter(param, "empty")
    if len(singles) > maximum:
        raise InvalidParameter(param, "too_many", count=len(singles), maximum=maximum)
    for index, single in enumerate(singles):
        if not single:
            raise InvalidParameter(f"{param}[{index}]", "empty")
    return singles


def input_param(param: str, inputs: Inputs | None, index: int) -> str:
    """The name of the single input that is at `index`."""
    is_list = isinstance(inputs, list) and inputs and not isinstance(inputs[0], int)
    return f"{param}[{index}]" if is_list else param


def _singles(param: str, inputs: Inputs) -> list[Input]:
    if isinstance(inputs, str):
        return [inputs]
    if len({type(one) for one in inputs}) > 1:
        raise InvalidParameter(param, "wrong_type", reason="texts and token ids are mixed")
    token_ids = [one for one in inputs if isinstance(one, int)]
    return [token_ids] if token_ids else [one for one in inputs if not isinstance(one, int)]
