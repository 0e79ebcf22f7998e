"""The one error tree of Headgate, split by whose fault an error is.

HeadgateError
├── Rejected          the model's fault: the promotion ends REJECTED, trying again changes nothing
├── Transient         nobody's fault: an outside part was away; the step runs again later
├── Fault             our fault: the promotion ends FAILED once the retries are used up
├── LostLease         another worker owns the promotion now; this one must write nothing
└── RequestError      the caller's fault, before any promotion exists
    ├── NotFound
    ├── Conflict      the request contradicts what is already there (a stale digest, a second promotion)
    ├── Forbidden     the principal may not do this
    ├── Stale         what the caller has seen is not what is there any more
    ├── Unauthorized  no principal, or a bad signature
    ├── TooMany       more than this caller's share; `seconds` says when to come back
    └── Invalid       a value is malformed; `field` names it
"""


class HeadgateError(Exception):
    """Base of all errors that Headgate raises on purpose.

    `reason` says what is wrong, `remedy` what the reader can do about it. Neither ever holds a secret.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason} {remedy}".strip())
        self.reason = reason
        self.remedy = remedy


class Rejected(HeadgateError):
    """The model cannot be promoted as it is."""


class Transient(HeadgateError):
    """An outside part did not answer; the same call may succeed later."""


class Fault(HeadgateError):
    """Something on our side is broken or misconfigured."""


class LostLease(HeadgateError):
    """The lease of this worker has passed to another one. `seen` is the highest fencing token of whoever refused."""

    def __init__(self, reason: str, remedy: str = "", seen: int = 0) -> None:
        super().__init__(reason, remedy)
        self.seen = seen


class RequestError(HeadgateError):
    """The caller asked for something that cannot be done."""


class NotFound(RequestError):
    """What the request names does not exist."""


class Conflict(RequestError):
    """The request contradicts the present state."""


class Forbidden(RequestError):
    """The principal is known but may not do this."""


class Unauthorized(RequestError):
    """The request carries no valid credentials."""


class Stale(RequestError):
    """The caller decides on something that has changed since it looked."""


class TooMany(RequestError):
    """The caller has used up its share for the moment."""

    def __init__(self, reason: str, remedy: str, seconds: int) -> None:
        super().__init__(reason, remedy)
        self.seconds = seconds


class Invalid(RequestError):
    """A value of the request is malformed."""

    def __init__(self, field: str, reason: str, remedy: str = "") -> None:
        super().__init__(f"{field}: {reason}", remedy)
        self.field = field
