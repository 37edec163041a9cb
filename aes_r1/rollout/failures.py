"""Define how a request to vLLM servers can fail."""


class ServersGone(Exception):
    """Report that no server gave a usable answer within rollout.patience."""


class Unusable(Exception):
    """Report that a server gave no usable answer; the request can be repeated, there or at another server."""


class CutOff(Unusable):
    """Report that a connection was refused, cut or silent for too long, so that the request itself may be right."""


class RequestRejected(Exception):
    """Report that a server rejected a request, and would reject it again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
