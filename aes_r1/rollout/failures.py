"""What can come of a request to vLLM servers in place of an answer."""


class ServersGone(Exception):
    """No server gave a usable answer for as long as it was to be waited for."""


class Unusable(Exception):
    """What came from a server, or did not, is no answer; the request can be made again, here or at another server."""


class Refused(Exception):
    """A server found fault with a request: asked again, it would say the same."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
