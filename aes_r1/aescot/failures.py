"""What ends one call of a model, or every call."""


class NoAnswer(Exception):
    """The server gave no answer to one call, all retries included; a later start asks again."""


class ServerGone(Exception):
    """The server answers nothing any more; what was answered is safe."""


class Refused(ServerGone):
    """The server said what it would say to every call: no money, no such model, a wrong key, a web page."""

    status_code = 402  # litellm's router tries an error with this code no second time
