"""When a worker takes itself for deaf, and when it does not."""

import pytest

from workers.hearing import PATIENCE, QUIET, Silence, after

LOOK = 5.0


def listen(took: list[bool | None], heard: list[float] | None = None) -> list[bool]:
    """Look every five seconds from 100 on, with what became of each message to itself; says when it is deaf."""
    silence, verdicts = Silence(heard=0.0), []
    for look, outcome in enumerate(took):
        now = 100.0 + look * LOOK
        last = max([at for at in heard or [] if at <= now], default=0.0)
        silence = after(silence, now, last, outcome)
        verdicts.append(silence.deaf(now))
    return verdicts


LOOKS = int(PATIENCE / LOOK) + 1


def test_what_the_broker_took_and_never_brought_back_means_deaf_after_a_while() -> None:
    assert listen([True] * LOOKS) == [False] * (LOOKS - 1) + [True]


@pytest.mark.parametrize("why", [False, None], ids=["the broker is away", "no thread is free"])
def test_a_silence_that_has_a_reason_is_none(why: bool | None) -> None:
    assert not any(listen([why] * (3 * LOOKS)))


@pytest.mark.parametrize("why", [False, None], ids=["the broker is away", "no thread is free"])
def test_patience_begins_anew_after_a_silence_that_had_a_reason(why: bool | None) -> None:
    assert listen([True] * (LOOKS - 1) + [why] + [True] * LOOKS) == [False] * (2 * LOOKS - 1) + [True]


def test_one_message_ends_the_silence() -> None:
    assert not any(listen([True] * (LOOKS + 3), heard=[100.0 + PATIENCE - 1]))


def test_a_worker_that_gets_messages_says_nothing_to_itself() -> None:
    assert not Silence(heard=100.0).should_ask(100.0 + QUIET - 1)
    assert Silence(heard=100.0).should_ask(100.0 + QUIET)
