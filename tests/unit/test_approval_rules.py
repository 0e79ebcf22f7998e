"""The rules of approval as one pure function: properties that hold whatever anybody said, and each rule by itself."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.approvals import Decision, Facts, Outcome, Verdict, judge, objection, same_name
from app.domain.freeze import DAYS, Freeze
from app.domain.policy import Approvals, BreakGlass, EnvironmentPolicy, Triggers

THIS, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
BEGAN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PEOPLE = ["ada", "bob", "cyd", "dan", "eve"]
ALWAYS = (Freeze("for good", "UTC", DAYS),)
MINUTES = st.integers(0, 120).map(lambda minute: timedelta(minutes=minute))
ROLES = st.sampled_from(["reviewer", "admin", "auditor"])
WORDS = st.builds(
    Decision,
    person=st.sampled_from(PEOPLE),
    role=ROLES,
    decision=st.sampled_from(["approve", "approve", "approve", "reject", "break-glass", "continue"]),
    digest=st.sampled_from([THIS, THIS, THIS, OTHER]),
    at=MINUTES.map(BEGAN.__add__),
    machine=st.sampled_from([False, False, False, True]),
    authenticated_at=st.one_of(st.none(), MINUTES.map(BEGAN.__add__)),
    revoked=st.booleans(),
    role_now=st.one_of(st.none(), ROLES, st.just("")),
)
POLICIES = st.builds(
    lambda approvals, frozen, glass: policy(approvals, ALWAYS if frozen else (), glass),
    st.builds(
        Approvals,
        required=st.integers(0, 3),
        roles=st.sampled_from([("reviewer",), ("admin",), ("reviewer", "admin")]),
        by_role=st.sampled_from([{}, {"admin": 1}, {"reviewer": 1, "admin": 1}]),
        expires=st.integers(1, 240).map(lambda minute: timedelta(minutes=minute)),
        prevent_self_review=st.booleans(),
        exclude_trainer=st.booleans(),
        fresh=st.one_of(st.none(), st.just(timedelta(minutes=15))),
    ),
    st.booleans(),
    st.one_of(st.none(), st.builds(BreakGlass, st.just(timedelta(minutes=30)))),
)
FACTS = st.builds(
    Facts,
    digest=st.just(THIS),
    entered_at=st.just(BEGAN),
    requester=st.sets(st.sampled_from(PEOPLE), max_size=1),
    trainer=st.one_of(st.none(), st.sampled_from(["Ada", "bob@example.org", "zoe"])),
    inconclusive=st.booleans(),
)
SAID = st.lists(WORDS, max_size=8)
NOW = MINUTES.map(lambda later: BEGAN + timedelta(minutes=120) + later)


def policy(approvals: Approvals, freeze: Sequence[Freeze] = (), glass: BreakGlass | None = None) -> EnvironmentPolicy:
    return EnvironmentPolicy(Triggers("to-production"), approvals=approvals, freeze=tuple(freeze), break_glass=glass)


def sum_up(verdict: Verdict) -> tuple[object, ...]:
    """What people's words have led to; that somebody was told why not is left out."""
    return (verdict.outcome, verdict.approved_by, verdict.missing, verdict.rejected_by, verdict.glass)


@given(POLICIES, FACTS, SAID, NOW)
def test_nothing_goes_on_without_enough_people_who_may_decide(
    rules: EnvironmentPolicy, facts: Facts, said: list[Decision], now: datetime
) -> None:
    found, asked = judge(rules, facts, said, now), rules.approvals
    if found.outcome is not Outcome.APPROVED:
        return
    good = {
        (d.person, d.role)
        for d in said
        if d.decision == "approve"
        and d.digest == THIS
        and not d.revoked
        and not d.machine
        and d.role in asked.roles
        and d.role_now in (None, d.role)
        and not (asked.prevent_self_review and d.person in facts.requester)
        and not (asked.exclude_trainer and facts.trainer and facts.trainer.lower().split("@")[0] == d.person)
        and d.at < BEGAN + asked.expires
        and now < d.at + asked.expires
        and (asked.fresh is None or (d.authenticated_at and d.at - d.authenticated_at <= asked.fresh))
    }
    enough = len({person for person, _ in good}) >= max(asked.required, int(facts.inconclusive))
    enough = enough and all(sum(role == r for _, role in good) >= n for r, n in asked.by_role.items())
    assert enough or (found.glass is not None and found.glass.open)
    assert not rules.freeze or (found.glass is not None and found.glass.open)
    assert found.rejected_by is None


@given(POLICIES, FACTS, SAID, NOW, st.randoms(use_true_random=False))
def test_the_order_in_which_words_are_read_does_not_matter(
    rules: EnvironmentPolicy, facts: Facts, said: list[Decision], now: datetime, random: object
) -> None:
    apart = [replace(word, at=word.at + timedelta(seconds=second)) for second, word in enumerate(said)]
    assert judge(rules, facts, apart, now) == judge(rules, facts, apart[::-1], now)


@given(POLICIES, FACTS, SAID, NOW)
def test_what_does_not_count_changes_nothing(
    rules: EnvironmentPolicy, facts: Facts, said: list[Decision], now: datetime
) -> None:
    counts = [d for d in said if d.digest == THIS and not d.revoked and objection(rules, facts, d) is None]
    assert sum_up(judge(rules, facts, said, now)) == sum_up(judge(rules, facts, counts, now))


@given(POLICIES, FACTS, SAID, NOW)
def test_one_person_counts_once(rules: EnvironmentPolicy, facts: Facts, said: list[Decision], now: datetime) -> None:
    assert sum_up(judge(rules, facts, [*said, *said], now)) == sum_up(judge(rules, facts, said, now))
    assert len(judge(rules, facts, said, now).approved_by) <= len({word.person for word in said})


@given(POLICIES, FACTS, SAID, NOW, st.integers(0, 7))
def test_taking_an_approval_back_never_helps(
    rules: EnvironmentPolicy, facts: Facts, said: list[Decision], now: datetime, which: int
) -> None:
    said = [word for word in said if word.decision != "reject"]
    without = [replace(word, revoked=word.revoked or at == which) for at, word in enumerate(said)]
    before, after = judge(rules, facts, said, now), judge(rules, facts, without, now)
    assert before.enough or not after.enough


@given(POLICIES, FACTS, SAID, NOW, ROLES)
def test_a_rejection_vetoes(
    rules: EnvironmentPolicy, facts: Facts, said: list[Decision], now: datetime, role: str
) -> None:
    veto = Decision("vic", role, "reject", THIS, BEGAN)
    denied = judge(rules, facts, [*said, veto], now).outcome is Outcome.DENIED
    assert denied == (role in rules.approvals.roles) or any(word.decision == "reject" for word in said)


@given(POLICIES, FACTS, SAID, NOW)
def test_time_runs_out_only_until_traffic_moves(
    rules: EnvironmentPolicy, facts: Facts, said: list[Decision], now: datetime
) -> None:
    late = facts.entered_at + rules.approvals.expires
    at_last = judge(rules, facts, said, late)
    assert (at_last.outcome is Outcome.EXPIRED) == (not at_last.enough and at_last.rejected_by is None)
    asks = max(rules.approvals.required, sum(rules.approvals.by_role.values()), int(facts.inconclusive))
    in_the_end = judge(rules, facts, said, late + timedelta(days=1)).outcome  # when no word counts any more
    assert in_the_end in ({Outcome.EXPIRED, Outcome.DENIED} if asks else set(Outcome) - {Outcome.EXPIRED})
    begun = replace(facts, begun=late - timedelta(seconds=1))
    assert judge(rules, begun, said, late + timedelta(days=1)).outcome is not Outcome.EXPIRED


def word(person: str, decision: str = "approve", role: str = "reviewer", minute: int = 0, **more: object) -> Decision:
    at = BEGAN + timedelta(minutes=minute)
    return replace(Decision(person, role, decision, THIS, at), **more)  # type: ignore[arg-type]


FACT = Facts(THIS, BEGAN)
SOON = BEGAN + timedelta(minutes=10)


def test_each_role_has_its_minimum() -> None:
    rules = policy(Approvals(2, ("reviewer", "admin"), {"reviewer": 1, "admin": 1}))
    found = judge(rules, FACT, [word("ada"), word("bob")], SOON)
    assert (found.outcome, found.missing, found.missing_roles) == (Outcome.WAITING, 1, {"admin": 1})
    assert judge(rules, FACT, [word("ada"), word("bob", role="admin")], SOON).outcome is Outcome.APPROVED


def test_a_minimum_by_role_is_a_minimum_in_all() -> None:
    rules = policy(Approvals(1, ("reviewer", "admin"), {"reviewer": 1, "admin": 1}))
    assert judge(rules, FACT, [], SOON).required == 2


@pytest.mark.parametrize(
    ("rules", "facts", "said", "words"),
    [
        (Approvals(), FACT, word("robot", machine=True), "machines never decide"),
        (Approvals(), FACT, word("ada", role="auditor"), "asks for a reviewer; ada is auditor"),
        (Approvals(), FACT, word("ada", role_now=""), "no longer reviewer"),
        (Approvals(), FACT, word("ada", role_now="auditor"), "no longer reviewer"),
        (Approvals(), replace(FACT, requester={"ada"}), word("ada"), "ada requested"),
        (Approvals(), replace(FACT, requester={"ada-laptop"}), word("ada", name="ada-laptop"), "ada requested"),
        (Approvals(), replace(FACT, trainer="ADA@example.org"), word("ada"), "ada trained"),
        (Approvals(fresh=timedelta(minutes=15)), FACT, word("ada"), "not known"),
        (
            Approvals(fresh=timedelta(minutes=15)),
            FACT,
            word("ada", authenticated_at=BEGAN - timedelta(minutes=16)),
            "at most 0:15:00 old; ada's is older",
        ),
        (Approvals(), FACT, word("ada", "break-glass", role="auditor"), "may not break the glass"),
    ],
)
def test_who_is_excluded_is_told_why(rules: Approvals, facts: Facts, said: Decision, words: str) -> None:
    found = objection(policy(rules, glass=BreakGlass()), facts, said)
    assert found is not None and words in found.reason and found.remedy
    assert said.person in judge(policy(rules), facts, [said], SOON).excluded or facts.trainer is not None


def test_who_may_decide_after_all() -> None:
    lenient = policy(Approvals(prevent_self_review=False, exclude_trainer=False))
    own = replace(FACT, requester={"ada"}, trainer="ada")
    assert judge(lenient, own, [word("ada")], SOON).outcome is Outcome.APPROVED
    fresh = policy(Approvals(fresh=timedelta(minutes=15)))
    just = word("ada", authenticated_at=BEGAN - timedelta(minutes=15))
    assert judge(fresh, FACT, [just], SOON).outcome is Outcome.APPROVED
    # Saying no needs no fresh login: a stale session can only keep things as they are.
    assert judge(fresh, FACT, [word("ada", "reject")], SOON).outcome is Outcome.DENIED


def test_an_approval_in_the_last_moment_counts_and_grows_old() -> None:
    last = timedelta(hours=72) - timedelta(seconds=1)
    said = [replace(word("ada"), at=BEGAN + last)]
    rules = policy(Approvals())
    assert judge(rules, FACT, said, BEGAN + timedelta(hours=73)).outcome is Outcome.APPROVED
    assert judge(rules, FACT, said, BEGAN + timedelta(hours=72) + last).outcome is Outcome.EXPIRED
    too_late = [replace(word("ada"), at=BEGAN + timedelta(hours=72))]
    assert judge(rules, FACT, too_late, BEGAN + timedelta(hours=73)).outcome is Outcome.EXPIRED


def test_a_freeze_holds_what_is_approved() -> None:
    found = judge(policy(Approvals(), ALWAYS), FACT, [word("ada")], SOON)
    assert (found.outcome, found.enough, found.missing) == (Outcome.WAITING, True, 0)
    assert found.frozen is not None and found.frozen.reason == "for good"


def test_two_people_break_the_glass_within_its_time_box() -> None:
    rules = policy(Approvals(3), ALWAYS, BreakGlass(timedelta(minutes=30)))
    one, two = word("ada", "break-glass"), word("bob", "break-glass", minute=29)
    alone = judge(rules, FACT, [one, word("ada", "break-glass", minute=5)], SOON)
    assert alone.glass is not None and not alone.glass.open and alone.outcome is Outcome.WAITING
    in_time, too_late = BEGAN + timedelta(minutes=29, seconds=59), BEGAN + timedelta(minutes=30)
    both = judge(rules, FACT, [one, two], in_time)
    assert both.outcome is Outcome.APPROVED and both.glass is not None
    assert (both.glass.by, both.glass.until) == (("ada", "bob"), too_late)
    assert judge(rules, FACT, [one, two], too_late).outcome is Outcome.WAITING
    # What began in time goes on.
    assert judge(rules, replace(FACT, begun=in_time), [one, two], too_late).outcome is Outcome.APPROVED


def test_broken_glass_never_passes_a_rejection_and_can_be_switched_off() -> None:
    said = [word("ada", "break-glass"), word("bob", "break-glass")]
    rules = policy(Approvals(), ALWAYS, BreakGlass())
    assert judge(rules, FACT, [*said, word("cyd", "reject")], SOON).outcome is Outcome.DENIED
    assert judge(replace(rules, break_glass=None), FACT, said, SOON).outcome is Outcome.WAITING
    own = replace(FACT, requester={"ada"})
    assert judge(rules, own, said, SOON).outcome is Outcome.WAITING


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ada", "Ada", True),
        ("ada@a.org", "ada", True),
        ("ada@a.org", "ADA@b.org", True),
        ("ada", "adam", False),
        ("ada", "", False),
    ],
)
def test_names_are_compared_up_to_an_at_sign(one: str, other: str, same: bool) -> None:
    assert same_name(one, other) is same
