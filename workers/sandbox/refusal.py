"""How a program says that the model is at fault."""


class Refused(Exception):
    """The model cannot go on: `code` for programs, `reason` and `remedy` for people."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.remedy = remedy

    def as_json(self) -> dict[str, str]:
        return {"code": self.code, "reason": self.reason, "remedy": self.remedy}
