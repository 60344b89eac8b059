"""Verify before publish: `run.verify`. It imports the frontend's Triton client, so it is imported
late.
"""
