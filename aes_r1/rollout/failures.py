"""Define how a request to vLLM servers can fail."""


class ServersGone(Exception):
    """Report that no server gave a usable answer within the patience."""


class Unusable(Exception):
    """Report that a server gave no usable answer; the request can be repeated, there or at another server."""


class CutOff(Unusable):
    """Report that a connection was refused, cut or silent for too long: the server said nothing about the request."""


class Refused(Exception):
    """Report that a server rejected a request: a repetition would be rejected as well."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
