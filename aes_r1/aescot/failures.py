"""Define the exceptions that end one call of a model, or all calls."""


class NoAnswer(Exception):
    """Report that the server did not answer one call even after all retries; a later start asks again."""


class ServerGone(Exception):
    """Report that the server has stopped answering; earlier answers are on disk."""


class AccessRefused(ServerGone):
    """Report that the server refuses every call, for lack of money, model or key, or by answering with a web page."""

    status_code = 402  # litellm's router does not retry an error with this code
