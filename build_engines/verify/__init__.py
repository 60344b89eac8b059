"""Verify before publish: see `build_engines.verify.run.verify`, which recipes call."""

from build_engines.verify.ir_answer import ask, judge, render_question, run_apart

__all__ = ["ask", "judge", "render_question", "run_apart"]
