"""The Sanic frontend: HTTP surfaces, text processing and the client of Triton's streaming gRPC."""

__version__ = "0.1.0"
