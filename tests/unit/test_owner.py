"""The names of lease holders: unique for each life of a process, and readable by those who might bury it."""

import os
import signal
import subprocess
import sys

from workers import owner


def test_a_process_has_one_name_and_another_one_has_another() -> None:
    other = subprocess.run(
        [sys.executable, "-c", "from workers import owner; print(owner.here())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert owner.here() == owner.here() != other
    assert owner.has_died(other)
    assert not owner.has_died(owner.here())


def test_who_was_stopped_is_not_dead_and_who_waits_to_be_reaped_is() -> None:
    command = [sys.executable, "-c", "from workers import owner; print(owner.here(), flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        os.kill(process.pid, signal.SIGSTOP)
        assert not owner.has_died(name)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert owner.has_died(name)


def test_a_number_that_another_process_has_now_is_not_taken_for_the_first() -> None:
    name = owner.here()
    assert owner.has_died(f"{name.rpartition('-')[0]}-1")


def test_nothing_is_known_of_other_machines_and_other_namespaces() -> None:
    host, boot, namespace, _, started = owner.here().rsplit("-", 4)
    for name in (
        f"elsewhere-{boot}-{namespace}-999999999-{started}",
        f"{host}-00000000-{namespace}-999999999-{started}",
        f"{host}-{boot}-1-999999999-{started}",
        "",
        "worker-1",
        f"{host}-{boot}-{namespace}-x-{started}",
    ):
        assert not owner.has_died(name)
