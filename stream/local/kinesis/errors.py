"""The one exception of the emulator: a reply that is an error, named as the service names it."""

from __future__ import annotations


class ApiError(Exception):
    """Answer the request with error ``code`` and HTTP ``status`` (400: the caller's fault, 500: ours)."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def invalid(message: str) -> ApiError:
    """``InvalidArgumentException``: well-formed, but this value cannot be."""
    return ApiError("InvalidArgumentException", message)


def not_found(message: str) -> ApiError:
    """``ResourceNotFoundException``: no such stream, shard or consumer."""
    return ApiError("ResourceNotFoundException", message)


def in_use(message: str) -> ApiError:
    """``ResourceInUseException``: exists already, or is busy changing."""
    return ApiError("ResourceInUseException", message)


def malformed(message: str) -> ApiError:
    """``ValidationException``: breaks a constraint of the API model (length, range, pattern, missing member)."""
    return ApiError("ValidationException", message)


def over_limit(message: str) -> ApiError:
    """``LimitExceededException``: the account or stream may not have more."""
    return ApiError("LimitExceededException", message)


def unreadable(message: str) -> ApiError:
    """``SerializationException``: the request is not in its encoding, or a member has the wrong type."""
    return ApiError("SerializationException", message)
