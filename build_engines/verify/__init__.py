"""Verify before publish. Recipes call `build_engines.verify.run.verify`; it imports the frontend's
Triton client, so it is imported late.
"""

from build_engines.verify.ir_answer import (  # until the recipes call `verify`
    Answer,
    Question,
    ask,
    judge,
    render_question,
    run_apart,
)

__all__ = ["Answer", "Question", "ask", "judge", "render_question", "run_apart"]
