"""Exceptions that end one call of a model, or all calls."""


class NoAnswer(Exception):
    """The server did not answer one call, not even after all retries; a later start asks again."""


class ServerGone(Exception):
    """The server has stopped answering; earlier answers are on disk."""


class Refused(ServerGone):
    """The server refuses every call: no money, no such model, a wrong key, or a web page instead of an answer."""

    status_code = 402  # litellm's router does not retry an error with this code
