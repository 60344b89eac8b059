"""How far a model's log-probs may be from its reference's, by its quantization.

The figures are mean absolute differences in nats over ordinary text. They are set to catch what is
broken (a wrong scale, a swapped matrix, a wrong rotary base: whole nats), not to rank methods; a
spec's variant has a `tolerance` of its own where its model is known to lose more or less.
"""

from __future__ import annotations

from collections.abc import Mapping

# No rounding of weights to speak of, but half-precision sums: two right implementations part by
# a few hundredths.
_HALF = 0.05
# Eight bits with a scale for a few dozen weights, or a channel: about 1 % of perplexity.
_EIGHT_BIT_WEIGHTS = 0.15
# Activations in eight bits, too: their outliers cost more than all the weights.
_EIGHT_BIT_ACTIVATIONS = 0.3
# Calibrated four bits (AWQ, GPTQ, k-quants) lose a few percent of perplexity on 7B, more on less.
_FOUR_BITS_CALIBRATED = 0.4
# Plain rounding to four bits; small models lose the most (0.7 on 135M parameters).
_FOUR_BITS = 0.8
_LESS_BITS = 1.2
# The reference reads the very weights that are served: only sums in another order.
SAME_WEIGHTS_TOLERANCE = 0.05

TOLERANCES: Mapping[str, float] = {
    **dict.fromkeys(("f32", "f16", "bf16", "fp16"), _HALF),
    **dict.fromkeys(("q8_0", "int8", "int8_wo", "q6_k"), _EIGHT_BIT_WEIGHTS),
    **dict.fromkeys(("fp8", "int8_sq"), _EIGHT_BIT_ACTIVATIONS),
    **dict.fromkeys(
        ("int4_awq", "int4_gptq", "q5_0", "q5_1", "q5_k_m", "q5_k_s"), _FOUR_BITS_CALIBRATED
    ),
    **dict.fromkeys(("w4a8_awq", "nvfp4", "mxfp4", "int4_wo", "int4"), _FOUR_BITS),
    **dict.fromkeys(("q4_0", "q4_1", "q4_k_m", "q4_k_s", "iq4_nl", "iq4_xs"), _FOUR_BITS),
}
EMBEDDING_TOLERANCES: Mapping[str, float] = {"f32": 0.0001, "f16": 0.001}


def tolerance_of(quantization: str, *, is_embedding: bool = False) -> float:
    """The table's; a quantization that is not in it may differ by what the coarsest may."""
    table = EMBEDDING_TOLERANCES if is_embedding else TOLERANCES
    return table.get(quantization.lower(), max(table.values()) if is_embedding else _LESS_BITS)
