"""How a program says that the model is at fault, or the rows that the policy judges it on."""

DATA_REMEDY = "Look at the policy's data and at the model's signature: they must speak of the same columns."


class Refused(Exception):
    """The model cannot go on: `code` for programs, `reason` and `remedy` for people. The codes missing-columns,
    bad-rows and no-judging-rows speak of the policy's data; every other one of the model."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.remedy = remedy

    def as_json(self) -> dict[str, str]:
        return {"code": self.code, "reason": self.reason, "remedy": self.remedy}
