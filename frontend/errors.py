"""Every error that a client can get, as one tree.

ServingError                      500
├── InvalidRequest                400  malformed body; its message says what
│   ├── InvalidParameter          400  one field is wrong; `param` names it
│   ├── PreviousResponseNotFound  400
│   ├── ContextLengthExceeded     400
│   ├── RequestOverLimit          400
│   ├── MethodNotAllowed          405
│   ├── BodyTooLarge              413
│   ├── UnsupportedMediaType      415
│   └── UnsupportedContentEncoding 415
├── NotFound                      404
│   ├── ModelNotFound             404
│   ├── AdapterNotFound           404
│   ├── ResponseNotFound          404
│   ├── KeyNotFound               404
│   └── VariantNotFound           404
├── AuthenticationFailed          401  with WWW-Authenticate
├── PermissionDenied              403
│   ├── CrossOriginRefused        403
│   └── HostRefused               403
├── RateLimited                   429
│   └── QuotaExceeded             429
├── Unavailable                   503  with Retry-After
│   ├── EngineUnavailable         503
│   ├── ServerOverloaded          503
│   ├── AdapterEvicted            503
│   ├── LimitsUnavailable         503
│   └── ModelNotLoaded            503
│       └── ModelChanged          503
├── ModelLoadFailed               500
└── GenerationFailed              500

An error holds the key and values of its message; `frontend/messages.py` has the words in English
and Chinese, and the surface that answers picks the language.
"""

from __future__ import annotations

from frontend.messages import Language, render


class ServingError(Exception):
    """The request failed; subclasses say how."""

    status = 500
    code = "internal_error"  # OpenAI surface
    native_code = "INTERNAL_ERROR"  # native surface
    type = "server_error"  # OpenAI surface
    key = "internal_error"  # of the message
    retry_after_s: float | None = None

    def __init__(self, key: str | None = None, *, param: str | None = None, **values: object):
        self.key = key or type(self).key
        self.param = param
        self.values: dict[str, object] = {**values, **({} if param is None else {"param": param})}
        super().__init__(self.message())

    def rename(self, param: str) -> None:
        """Name another field: the one that the client knows."""
        self.param = param
        self.values["param"] = param

    def message(self, language: Language = Language.EN) -> str:
        return render(self.key, language, self.values)

    def details(self, language: Language = Language.EN) -> str:
        """What the client can do about it; the native surface shows it beside the message."""
        return render(f"{self.key}.details", language, self.values)


class InvalidRequest(ServingError):
    status, code, native_code = 400, "invalid_request", "INVALID_REQUEST"
    type, key = "invalid_request_error", "invalid_request"


class InvalidParameter(InvalidRequest):
    code, native_code, key = "invalid_value", "INVALID_PARAMETER", "invalid_value"

    def __init__(self, param: str, key: str | None = None, **values: object):
        super().__init__(key, param=param, **values)


class PreviousResponseNotFound(InvalidRequest):
    """Values: response_id."""

    code, native_code = "previous_response_not_found", "PREVIOUS_RESPONSE_NOT_FOUND"
    key = "previous_response_not_found"


class ContextLengthExceeded(InvalidRequest):
    """Values: num_tokens, max_tokens."""

    code, native_code = "context_length_exceeded", "CONTEXT_LENGTH_EXCEEDED"
    key = "context_length_exceeded"


class RequestOverLimit(InvalidRequest):
    """However long it waits, it asks for more than a limit ever has. Values: limit, requested."""

    code, native_code = "request_over_limit", "REQUEST_OVER_LIMIT"
    key = "request_over_limit"


class MethodNotAllowed(InvalidRequest):
    status, code, native_code = 405, "method_not_allowed", "METHOD_NOT_ALLOWED"
    key = "method_not_allowed"


class BodyTooLarge(InvalidRequest):
    """Values: max_body_bytes."""

    status, code, native_code = 413, "request_too_large", "REQUEST_TOO_LARGE"
    key = "request_too_large"


class UnsupportedMediaType(InvalidRequest):
    status, code, native_code = 415, "unsupported_media_type", "UNSUPPORTED_MEDIA_TYPE"
    key = "unsupported_media_type"


class UnsupportedContentEncoding(InvalidRequest):
    """Values: encoding, known."""

    status, code = 415, "unsupported_content_encoding"
    native_code, key = "UNSUPPORTED_CONTENT_ENCODING", "unsupported_content_encoding"


class NotFound(ServingError):
    status, code, native_code = 404, "not_found", "NOT_FOUND"
    type, key = "invalid_request_error", "not_found"


class ModelNotFound(NotFound):
    """Values: model."""

    code, native_code, key = "model_not_found", "MODEL_NOT_FOUND", "model_not_found"


class AdapterNotFound(NotFound):
    """Values: model, adapter, adapters."""

    code, native_code, key = "adapter_not_found", "ADAPTER_NOT_FOUND", "adapter_not_found"


class ResponseNotFound(NotFound):
    """Values: response_id."""

    code, native_code, key = "response_not_found", "RESPONSE_NOT_FOUND", "response_not_found"


class KeyNotFound(NotFound):
    """Values: key_id."""

    code, native_code, key = "key_not_found", "KEY_NOT_FOUND", "key_not_found"


class VariantNotFound(NotFound):
    """Values: model, wanted, variants."""

    code, native_code, key = "variant_not_found", "VARIANT_NOT_FOUND", "variant_not_found"


class AuthenticationFailed(ServingError):
    status, code, native_code = 401, "invalid_api_key", "AUTHENTICATION_FAILED"
    type, key = "invalid_request_error", "authentication_failed"


class PermissionDenied(ServingError):
    """Values: scope."""

    status, code, native_code = 403, "permission_denied", "PERMISSION_DENIED"
    type, key = "permission_error", "permission_denied"


class CrossOriginRefused(PermissionDenied):
    """A browser sends it for a page of another origin. Values: origin."""

    code, native_code, key = "cross_origin_refused", "CROSS_ORIGIN_REFUSED", "cross_origin_refused"


class HostRefused(PermissionDenied):
    """It is sent to a name that is not known to be this server's. Values: host."""

    code, native_code, key = "host_refused", "HOST_REFUSED", "host_refused"


class RateLimited(ServingError):
    """Values of the keys `rate_limited.*`: limit, remaining, requested, wait."""

    status, code, native_code = 429, "rate_limit_exceeded", "RATE_LIMITED"
    type, key = "requests", "rate_limited"


class QuotaExceeded(RateLimited):
    """Not worth waiting for. Values: limit, remaining, requested, wait.

    Of the keys `budget_used_up.*`: tenant, month, limit, used, next_month.
    """

    code, native_code, key = "insufficient_quota", "INSUFFICIENT_QUOTA", "insufficient_quota"
    type = "insufficient_quota"


class Unavailable(ServingError):
    status, code, native_code, key = 503, "unavailable", "UNAVAILABLE", "unavailable"
    retry_after_s = 1.0


class EngineUnavailable(Unavailable):
    code, native_code, key = "engine_unavailable", "ENGINE_UNAVAILABLE", "engine_unavailable"
    retry_after_s = 2.0


class ServerOverloaded(Unavailable):
    code, native_code, key = "overloaded", "OVERLOADED", "overloaded"


class AdapterEvicted(Unavailable):
    """The engine does not have a LoRA adapter in its cache, or not any more."""

    code, native_code, key = "adapter_evicted", "ADAPTER_EVICTED", "adapter_evicted"


class LimitsUnavailable(Unavailable):
    """What is used cannot be counted now, so nothing is let in. Values: reason, for the log."""

    code, native_code, key = "limits_unavailable", "LIMITS_UNAVAILABLE", "limits_unavailable"


class ModelNotLoaded(Unavailable):
    """Values: model."""

    code, native_code, key = "model_not_loaded", "MODEL_NOT_LOADED", "model_not_loaded"
    retry_after_s = 5.0


class ModelChanged(ModelNotLoaded):
    """The engine serves another version by now; prepared for that one, the request can be answered.

    Nothing was generated, but for an answer of several parts: those before. Values: model.
    """

    code, native_code, key = "model_changed", "MODEL_CHANGED", "model_changed"
    retry_after_s = 1.0


class ModelLoadFailed(ServingError):
    """Values: model, reason."""

    code, native_code, key = "model_load_failed", "MODEL_LOAD_FAILED", "model_load_failed"


class GenerationFailed(ServingError):
    """The engine ended the request with an error. Values: reason."""

    code, native_code, key = "generation_failed", "GENERATION_FAILED", "generation_failed"
