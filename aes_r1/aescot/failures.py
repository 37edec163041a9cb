"""Exceptions that end one call of a model, or all calls."""


class NoAnswer(Exception):
    """Raised where the server did not answer one call, not even after all retries; a later start asks again."""


class ServerGone(Exception):
    """Raised when the server has stopped answering; earlier answers are on disk."""


class Refused(ServerGone):
    """Raised when the server refuses every call: for want of money, model or key, or with a web page as its answer."""

    status_code = 402  # litellm's router does not retry an error with this code
