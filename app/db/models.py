"""The tables. Times are UTC; JSON columns hold plain JSON values; only app.db reads or writes rows."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db.columns import Base as Base
from app.db.columns import Prose, Words
from app.domain.promotion import ACTIVE, OPEN, State


def _states(states: frozenset[State]) -> str:
    return ", ".join(f"'{state.value}'" for state in sorted(states))


class ObservedModel(Base):
    """What the registry said of a model when we last looked; `generation` counts the changes."""

    __tablename__ = "observed_models"
    name: Mapped[str] = mapped_column(primary_key=True)
    view: Mapped[dict[str, Any]]
    generation: Mapped[int]
    observed_at: Mapped[datetime]


class ChangeRow(Base):
    """The ledger of net changes seen in the registry; `via` says how: webhook, poll, or headgate for our own.

    `webhook` is `due` where MLflow has an event for the change and no delivery of it has come, `came` once one has, and
    NULL where MLflow has none.
    """

    __tablename__ = "changes"
    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(index=True)
    field: Mapped[str] = mapped_column(Prose)
    version: Mapped[str | None]
    before: Mapped[str | None] = mapped_column(Prose)
    after: Mapped[str | None] = mapped_column(Prose)
    via: Mapped[str]
    seen_at: Mapped[datetime]
    promotion_id: Mapped[int | None] = mapped_column(ForeignKey("promotions.id"))
    note: Mapped[str] = mapped_column(Prose, default="")
    webhook: Mapped[str | None] = mapped_column(Words(8))

    __table_args__ = (
        Index(
            "ix_changes_due", "seen_at", sqlite_where=text("webhook = 'due'"), postgresql_where=text("webhook = 'due'")
        ),
    )


class Delivery(Base):
    """A webhook call by its delivery id: insert-or-ignore decides who acts on it.

    `field`, `version` and `value` are what it says of the registry (domain.registry.Event), `sent_at` is MLflow's own
    time, and `change_id` the change in the ledger that it announced.
    """

    __tablename__ = "deliveries"
    source: Mapped[str] = mapped_column(primary_key=True)
    delivery_id: Mapped[str] = mapped_column(primary_key=True)
    received_at: Mapped[datetime]
    event: Mapped[str]
    model: Mapped[str | None]
    observed_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    field: Mapped[str | None] = mapped_column(Prose)
    version: Mapped[str | None]
    value: Mapped[str | None] = mapped_column(Prose)
    change_id: Mapped[int | None] = mapped_column(ForeignKey("changes.id"))

    __table_args__ = (
        Index("ix_deliveries_received_at", "received_at"),
        Index(
            "ix_deliveries_unobserved",
            "model",
            sqlite_where=text("observed_at IS NULL"),
            postgresql_where=text("observed_at IS NULL"),
        ),
    )


class Promotion(Base):
    """One request to bring one version to one environment. The row is the queue: `next_run_at` says when it is due.

    `requested_by` is the identity that asked, `requester` the person behind it; both are NULL where MLflow asked."""

    __tablename__ = "promotions"
    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str]
    version: Mapped[str]
    environment: Mapped[str]
    state: Mapped[str] = mapped_column(Words(16))
    reason: Mapped[str] = mapped_column(Prose, default="")
    trigger: Mapped[dict[str, Any]]
    requested_by: Mapped[str | None]
    requester: Mapped[str | None]
    request_reason: Mapped[str] = mapped_column(Prose, default="")
    policy: Mapped[dict[str, Any]]
    policy_digest: Mapped[str]
    digest: Mapped[str | None]
    progress: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    next_run_at: Mapped[datetime | None] = mapped_column(index=True)
    attempt: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)
    failures: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    last_error: Mapped[str] = mapped_column(Prose, default="")
    stop: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    lease_owner: Mapped[str | None]
    lease_epoch: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "uq_promotions_active",
            "model",
            "environment",
            unique=True,
            sqlite_where=text(f"state IN ({_states(ACTIVE)})"),
            postgresql_where=text(f"state IN ({_states(ACTIVE)})"),
        ),
        Index(
            "uq_promotions_requested",
            "model",
            "environment",
            unique=True,
            sqlite_where=text("state = 'REQUESTED'"),
            postgresql_where=text("state = 'REQUESTED'"),
        ),
        Index("ix_promotions_model_environment_id", "model", "environment", "id"),
        Index(
            "ix_promotions_open",
            "model",
            "environment",
            "id",
            sqlite_where=text(f"state IN ({_states(OPEN)})"),
            postgresql_where=text(f"state IN ({_states(OPEN)})"),
        ),
    )


class Fence(Base):
    """The highest fencing token that was given out for one model in one environment."""

    __tablename__ = "fences"
    model: Mapped[str] = mapped_column(primary_key=True)
    environment: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[int]


class StepRun(Base):
    """One finished step of one promotion: when, for how long, and the evidence it left."""

    __tablename__ = "step_runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    promotion_id: Mapped[int] = mapped_column(ForeignKey("promotions.id"))
    state: Mapped[str] = mapped_column(Words(16))
    entered_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    evidence: Mapped[dict[str, Any]]
    digest: Mapped[str | None]

    __table_args__ = (Index("ix_step_runs_promotion_id_state", "promotion_id", "state"),)


class Approval(Base):
    """One person's decision on one digest of one promotion, by the identity `principal`; `continue` lets an
    inconclusive canary go on from the `weight` that it stands at, `break-glass` asks for the emergency way. What was
    taken back stays here and counts no more."""

    __tablename__ = "approvals"
    id: Mapped[int] = mapped_column(primary_key=True)
    promotion_id: Mapped[int] = mapped_column(ForeignKey("promotions.id"), index=True)
    principal: Mapped[str]
    person: Mapped[str]
    role: Mapped[str]
    decision: Mapped[str] = mapped_column(Words(16))
    digest: Mapped[str]
    weight: Mapped[int | None]
    reason: Mapped[str] = mapped_column(Prose)
    at: Mapped[datetime]
    authenticated_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]


class DigestRow(Base):
    """A digest that stood for approval, and the parts that it was made of: they tell which one has changed since."""

    __tablename__ = "digests"
    promotion_id: Mapped[int] = mapped_column(ForeignKey("promotions.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True, index=True)
    parts: Mapped[dict[str, Any]]


class Release(Base):
    """What a promotion put, or puts, into service. `role`: canary, stable, or retired."""

    __tablename__ = "releases"
    id: Mapped[int] = mapped_column(primary_key=True)
    promotion_id: Mapped[int] = mapped_column(ForeignKey("promotions.id"), unique=True)
    model: Mapped[str]
    version: Mapped[str]
    environment: Mapped[str]
    digest: Mapped[str]
    name: Mapped[str]
    spec: Mapped[dict[str, Any]]
    role: Mapped[str] = mapped_column(Words(16))
    weight: Mapped[int]
    endpoint: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    stable_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "uq_releases_role",
            "model",
            "environment",
            "role",
            unique=True,
            sqlite_where=text("role IN ('canary', 'stable')"),
            postgresql_where=text("role IN ('canary', 'stable')"),
        ),
        Index("ix_releases_model_environment_id", "model", "environment", "id"),
    )


class AuditLeaf(Base):
    """One leaf of the trail; never updated, never deleted."""

    __tablename__ = "audit_leaves"
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[str]
    kind: Mapped[str]
    body: Mapped[dict[str, Any]]
    hash: Mapped[str]


class AuditNode(Base):
    """A full subtree above the leaves, for proofs: it covers the 2**level leaves from position * 2**level on, counted
    from 0. Never updated, never deleted."""

    __tablename__ = "audit_nodes"
    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))


class AuditHead(Base):
    """The single row whose lock puts those in line who append: the trail's name, its size and the full subtrees (hex,
    largest first) that the tree falls into."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    origin: Mapped[str]
    size: Mapped[int]
    peaks: Mapped[list[str]] = mapped_column(JSON)


class AuditCheckpoint(Base):
    """A signed checkpoint that was given away: the note, and where it went."""

    __tablename__ = "audit_checkpoints"
    size: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    note: Mapped[str] = mapped_column(Prose)


class OpeningRow(Base):
    """What a salted hash in audit leaves stands for: a person's name (`kind` person, one a person) or words that she
    typed (`kind` said). Erasing a person deletes her rows; leaves keep their hashes."""

    __tablename__ = "openings"
    token: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Words(8))
    person: Mapped[str] = mapped_column(index=True)
    salt: Mapped[str]
    value: Mapped[str] = mapped_column(Prose)

    __table_args__ = (
        Index(
            "uq_openings_person",
            "person",
            unique=True,
            sqlite_where=text("kind = 'person'"),
            postgresql_where=text("kind = 'person'"),
        ),
    )


class OutboxRow(Base):
    """One write to an outside system, committed with the decision that caused it and sent afterwards, in order."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str]
    operation: Mapped[str] = mapped_column(Words(32))
    arguments: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    next_try_at: Mapped[datetime | None] = mapped_column(index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    done_at: Mapped[datetime | None] = mapped_column(index=True)
    last_error: Mapped[str] = mapped_column(Prose, default="")

    __table_args__ = (
        Index(
            "ix_outbox_unsent",
            "model",
            "id",
            sqlite_where=text("next_try_at IS NOT NULL"),
            postgresql_where=text("next_try_at IS NOT NULL"),
        ),
    )


class NamedLease(Base):
    """Who does a job that only one process may do at a time, and until when."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    until: Mapped[datetime]


class Principal(Base):
    """Who calls: an identity of a person or a machine. Those of one person have the same `person`, the name of one of
    them. Whom an issuer vouches for is known by `issuer` and `subject`, and has no tokens of ours."""

    __tablename__ = "principals"
    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(Words(16))
    kind: Mapped[str] = mapped_column(Words(16))
    person: Mapped[str] = mapped_column(index=True)
    issuer: Mapped[str | None]
    subject: Mapped[str | None]
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("issuer", "subject"),)


class Token(Base):
    """A bearer token of a principal: its hash, for it was shown once. `scopes` are permissions, separated by spaces;
    null: all of the role."""

    __tablename__ = "tokens"
    id: Mapped[int] = mapped_column(primary_key=True)
    principal: Mapped[str] = mapped_column(ForeignKey("principals.name"), index=True)
    token_hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[str | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class IdempotentAnswer(Base):
    """The answer first given to an Idempotency-Key, so that a second call gets the same one."""

    __tablename__ = "idempotency"
    principal: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_digest: Mapped[str]
    status: Mapped[int]
    answer: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(index=True)


class Setting(Base):
    """Facts about this installation that must survive a restart, such as "the first snapshot was taken"."""

    __tablename__ = "facts"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Prose)
