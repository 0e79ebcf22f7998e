"""The bodies that the API takes and gives, with the descriptions that OpenAPI shows."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from app.domain.permissions import Permission, Role
from app.policy_models import Duration

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", examples=["sha256:" + "0" * 64])]
Text = Annotated[str, Field(max_length=2000)]
# What the database's integers hold; no row can have a number outside of it.
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("this moment lies beyond the calendar") from error


def _written_out(moment: object) -> object:
    # Without this a number would be taken for seconds since 1970.
    if isinstance(moment, str) and not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]", moment):
        raise ValueError("write it as 2026-01-31T12:00:00Z")
    return moment


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_to_utc)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PromotionRequest(_Body):
    """Ask for one version of one model in one environment."""

    model: Annotated[str, Field(min_length=1, max_length=255, description="the registered model's name")]
    version: Annotated[str, Field(pattern=r"^[0-9]{1,18}$", description="the version's number", examples=["3"])]
    environment: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$", examples=["production"])]
    reason: Text = ""


class DecisionRequest(_Body):
    """A reviewer's decision, bound to the digest that the reviewer saw."""

    decision: Literal["approve", "reject"]
    digest: Annotated[Digest, Field(description="the promotion's `digest`, echoed")]
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


class Revocation(_Body):
    """Taking an approval back."""

    reason: Annotated[str, Field(min_length=1, max_length=2000)]
    person: Annotated[
        str | None, Field(min_length=1, max_length=255, description="whose; without it one's own, for all but admins")
    ] = None


class BreakGlassRequest(_Body):
    """Asking for the emergency way, bound to the digest that was seen."""

    digest: Annotated[Digest, Field(description="the promotion's `digest`, echoed")]
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


class CanaryDecision(_Body):
    """The answer to an inconclusive canary."""

    decision: Literal["continue", "rollback"]
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


class Reason(_Body):
    """Why."""

    reason: Text = ""


class TokenRequest(_Body):
    """A new principal and its token; without a `role` another token of a principal that is there."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,100}$", examples=["ada"])]
    role: Role | None = None
    kind: Annotated[Literal["person", "machine"] | None, Field(description="ci: always a machine")] = None
    expires: Annotated[
        Duration | None, Field(description="how long it counts, a year at most; null: 90 days", examples=["90d"])
    ] = None
    scopes: Annotated[list[Permission] | None, Field(description="what it may do; null: all that the role may")] = None
    person: Annotated[
        str | None, Field(max_length=255, description="a principal who is the same person, or whose machine it is")
    ] = None


class LinkRequest(_Body):
    """Which principal the named one is the same person as, or the machine of."""

    person: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,255}$")]


class Erased(BaseModel):
    """A person who was forgotten."""

    person: Annotated[str, Field(description="what stands for that person from now on")]
    names: Annotated[int, Field(description="under how many names it was known")]


class TokenShown(BaseModel):
    """A token as lists show it: never itself."""

    id: int
    state: Literal["live", "expired", "revoked"]
    scopes: Annotated[list[str] | None, Field(description="null: all that the role may")]
    created_at: str
    expires_at: str


class Principal(BaseModel):
    """A person or a machine."""

    name: str
    role: str
    kind: Literal["person", "machine"]
    person: Annotated[str, Field(description="the name that all identities of this person have in common")]
    issuer: Annotated[str | None, Field(description="who vouches for it; null: its tokens are Headgate's own")]
    subject: Annotated[str | None, Field(description="what the issuer calls it")]


class PrincipalWithTokens(Principal):
    """A principal and its tokens."""

    tokens: list[TokenShown]


class PrincipalPage(BaseModel):
    """A page of principals; pass `cursor` on as `after` to get the next one."""

    items: list[PrincipalWithTokens]
    cursor: str | None


class TokenOf(Principal, TokenShown):
    """A token and whose it is."""


class NewToken(TokenOf):
    """A token that was just made. `token` is shown this once and kept only as a hash."""

    token: str


class PromotionSummary(BaseModel):
    """A promotion as lists show it."""

    id: int
    model: str
    version: str
    environment: str
    state: Annotated[str, Field(description="REQUESTED ... LIVE, or how it ended", examples=["APPROVAL"])]
    reason: Annotated[str, Field(description="why it ended, for people")]
    digest: Annotated[str | None, Field(description="what reviewers approve; from APPROVAL on")]
    created_at: str
    updated_at: str


class Promotion(PromotionSummary):
    """A promotion with all that is known about it."""

    digest_parts: Annotated[dict[str, str] | None, Field(description="what `digest` is made of; from APPROVAL on")]
    policy: dict[str, Any]
    policy_digest: str
    trigger: dict[str, Any]
    requested_by: str | None
    request_reason: str
    attempt: Annotated[int, Field(description="failed tries of the present step")]
    failures: Annotated[dict[str, Any], Field(description="those tries by kind: how often, when, in which workers")]
    last_error: Annotated[str, Field(description="the present step's last error, while it is tried again")]
    progress: Annotated[dict[str, Any], Field(description="where the present step stands")]
    stopping: Annotated[dict[str, Any] | None, Field(description="a request to end it that is being carried out")]
    steps: Annotated[list[dict[str, Any]], Field(description="each state entered, with its seconds")]
    evidence: Annotated[dict[str, Any], Field(description="what each finished step measured, by step")]
    parity: Annotated[
        list[dict[str, Any]],
        Field(description="native model, ONNX Runtime and served release side by side, by kind of rows"),
    ]
    approval: Annotated[
        dict[str, Any] | None,
        Field(description="in APPROVAL and ROLLOUT: who approved, what is missing, who is excluded, what is frozen"),
    ]
    break_glass: Annotated[dict[str, Any] | None, Field(description="the emergency way: who asked, and until when")]
    approvals: Annotated[list[dict[str, Any]], Field(description="each word that was said, also those taken back")]


class Checkpoint(BaseModel):
    """The trail at one moment, signed: keep `note` where the database's administrators cannot reach it."""

    origin: Annotated[str, Field(description="the trail's name")]
    leaves: int
    root: Annotated[str, Field(description="of the Merkle tree over all leaves (RFC 6962), in hex")]
    note: Annotated[str, Field(description="a signed note in C2SP's format")]
    keys: Annotated[list[str], Field(description="the public keys, as verifiers take them")]


class Opening(BaseModel):
    """What a salted hash in a leaf stands for: HMAC-SHA256 with the salt as key over the value (UTF-8) is its hash."""

    token: Annotated[str, Field(description="as the leaf has it: person:<hash> or said:<hash>")]
    salt: Annotated[str, Field(description="32 bytes in hex")]
    value: str


class Proof(BaseModel):
    """That a leaf is in the trail: hash `leaf`, walk up `path`, and compare with the checkpoint's root."""

    seq: int
    leaf: Annotated[str, Field(description="the very bytes that are hashed: canonical JSON (RFC 8785)")]
    path: Annotated[list[str], Field(description="sister hashes from the leaf up (RFC 6962), in base64")]
    openings: Annotated[list[Opening], Field(description="the names and words in it, unless they were erased")]
    checkpoint: Checkpoint


class Consistency(BaseModel):
    """That the tree of `old` leaves is a beginning of the checkpoint's."""

    old: int
    path: Annotated[list[str], Field(description="as RFC 6962 orders it, in base64")]
    checkpoint: Checkpoint


class Decided(Promotion):
    """A promotion, and the proof that the decision on it is in the audit trail."""

    proof: Proof


class Served(BaseModel):
    """One release that answered at the time, as the audit trail tells it."""

    model: str
    environment: str
    role: Literal["stable", "canary"]
    weight: Annotated[int, Field(description="percent of the traffic")]
    version: str
    digest: str | None
    promotion: int
    since: str
    leaf: Annotated[int, Field(description="the leaf that says so")]
    requested_by: str | None
    policy: Annotated[str, Field(description="the policy's digest")]
    intended: Annotated[
        dict[str, Any] | None,
        Field(description="a weight that was announced, of which the trail did not say by then whether it was set"),
    ]
    decisions: Annotated[list[dict[str, Any]], Field(description="who approved or rejected what, each with its leaf")]
    evidence: Annotated[dict[str, dict[str, Any]], Field(description="by step the evidence's digest and its leaf")]


class Plan(BaseModel):
    """What a promotion would do if it were asked for now; nothing was changed to find out."""

    model: str
    version: str
    environment: str
    refused: Annotated[str | None, Field(description="why nothing would be opened")]
    ready: Annotated[bool, Field(description="False while MLflow still waits for the version's artifacts")]
    states: Annotated[list[str], Field(description="the way to LIVE")]
    policy_digest: str
    data: Annotated[dict[str, Any] | None, Field(description="the judging rows; null: the model's input example")]
    parity: dict[str, Any]
    gates: Annotated[list[dict[str, Any]], Field(description="each with its limits; parity comes before them")]
    approvals: dict[str, Any]
    freeze: Annotated[list[dict[str, Any]], Field(description="when no traffic may be moved")]
    frozen: Annotated[dict[str, Any] | None, Field(description="the freeze that holds now, and until when")]
    break_glass: Annotated[
        dict[str, Any] | None, Field(description="the emergency way's time box; null: there is none")
    ]
    rollout: Annotated[dict[str, Any], Field(description="steps in percent; a first release takes all at once")]
    target: Annotated[dict[str, Any], Field(description="kind null is the workers' own setting")]
    serves_now: dict[str, Any] | None
    supersedes: Annotated[list[dict[str, Any]], Field(description="unfinished promotions that it would end")]


class BacktestRequest(_Body):
    """A policy to try on past promotions."""

    policy: Annotated[str, Field(max_length=100_000, description="the text of a policy file")]
    last: Annotated[int, Field(ge=1, le=200, description="how many promotions, newest first")] = 20


class Backtest(BaseModel):
    """What the policy would have decided: `counts` by verdict, and each promotion."""

    model: str
    counts: dict[str, int]
    promotions: Annotated[
        list[dict[str, Any]],
        Field(description="`verdict` of this policy beside `then`; `unknown` with the `reasons` why it cannot be said"),
    ]


class Page(BaseModel):
    """A page of a list; pass `cursor` on to get the next one."""

    items: list[dict[str, Any]]
    cursor: str | None


class ChangeCounts(BaseModel):
    """How the changes of the whole ledger (or of one model) were seen, and what became of their webhooks."""

    webhook: Annotated[int, Field(description="seen because MLflow's webhook came")]
    poll: Annotated[int, Field(description="seen by the poll, before any webhook or without one")]
    headgate: Annotated[int, Field(description="our own writes")]
    announced: Annotated[int, Field(description="changes of any kind that MLflow has a webhook for; stages have none")]
    missing: Annotated[int, Field(description="announced changes for which no webhook has come within 30 s, or since")]


class ChangePage(Page):
    """A page of the ledger, newest first; an item's `webhook` is `due`, `came`, or null where MLflow has none."""

    counts: ChangeCounts


class PromotionPage(BaseModel):
    """A page of promotions, newest first."""

    items: list[PromotionSummary]
    cursor: str | None


class Accepted(BaseModel):
    """A webhook call was taken; `duplicate` says that it came before and changed nothing."""

    delivery: str
    duplicate: bool
    see: str


class Verification(BaseModel):
    """Whether the audit trail holds; `first_bad` is the first leaf that does not."""

    leaves: int
    verified: bool
    first_bad: int | None
    reason: str
    root: str


class Problem(BaseModel):
    """RFC 9457: what went wrong, and in `detail` what helps."""

    type: str
    title: str
    status: int
    detail: str = ""
    field: str = ""
