"""One process of the load generator: prebuilt requests over keep-alive connections. Standard library only, run alone.

It reads a plan as one line of JSON, connects, says `ready`, and begins at the next line. What it prints at the end is
one line of JSON: `latencies` (microseconds), `rate` (answers a second), `cpu` (seconds that this process used itself).
"""

import base64
import json
import re
import select
import socket
import sys
import threading
import time
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BUFFER = 1 << 16
# An answer that takes longer than this is none.
_PATIENCE = 30.0


class Connection:
    """One keep-alive connection that carries one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=_PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0
        self.answered_at = 0
        self.answers = 0
        self._received = b""

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter_ns()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take what has come; True once the answer is whole. Raises ConnectionError for any but a 2xx."""
        chunk = self.socket.recv(_BUFFER)
        received = self._received = self._received + chunk
        head = received.find(b"\r\n\r\n")
        if not chunk or (head >= 0 and not received.startswith(b"HTTP/1.1 2")):
            raise ConnectionError(f"the server said {received[:300]!r}")
        if head < 0:
            return False
        length = _LENGTH.search(received, 0, head)
        if len(received) < head + 4 + (int(length[1]) if length else 0):
            return False
        self._received = b""
        self.answered_at = time.perf_counter_ns()
        self.answers += 1
        return True


def closed_loop(connections: list[Connection], requests: list[bytes], seconds: float) -> tuple[list[int], float]:
    """Each connection asks again as soon as it is answered; returns latencies (ns) and answers a second.

    After the time is up what is under way is still waited for and counted, each connection over its own time: else a
    slow server would lose a request a connection.
    """
    latencies: list[int] = []
    poll, by_descriptor = select.epoll(), {one.socket.fileno(): one for one in connections}
    start = time.perf_counter_ns()
    end = start + int(seconds * 1e9)
    for number, one in enumerate(connections):
        poll.register(one.socket, select.EPOLLIN)
        one.send(requests[number % len(requests)])
    waiting, number = len(connections), len(connections)
    while waiting:
        events = poll.poll(_PATIENCE)
        if not events:
            raise ConnectionError(f"no answer within {_PATIENCE:g} s")
        for descriptor, _ in events:
            one = by_descriptor[descriptor]
            if not one.receive():
                continue
            latencies.append(one.answered_at - one.sent_at)
            if one.answered_at < end:
                one.send(requests[number % len(requests)])
                number += 1
            else:
                waiting -= 1
    return latencies, sum(one.answers * 1e9 / (one.answered_at - start) for one in connections)


def open_loop(connections: list[Connection], requests: list[bytes], rate: float) -> tuple[list[int], float]:
    """Send each request once, `rate` a second whatever the answers do; latencies count from when a request was due."""
    latencies: list[int] = []
    troubles: list[Exception] = []
    start = time.perf_counter_ns() + 50_000_000

    def work(own: int) -> None:
        try:
            for number in range(own, len(requests), len(connections)):
                due = start + int(number * 1e9 / rate)
                time.sleep(max(0, due - time.perf_counter_ns()) / 1e9)
                connections[own].send(requests[number])
                while not connections[own].receive():
                    pass
                latencies.append(connections[own].answered_at - due)
        except OSError as error:
            troubles.append(error)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(len(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if troubles:
        raise troubles[0]
    return latencies, len(latencies) * 1e9 / (max(one.answered_at for one in connections) - start)


def main() -> None:
    """Follow the plan on standard input."""
    plan: dict[str, Any] = json.loads(sys.stdin.readline())
    requests = [base64.b64decode(text) for text in plan["requests"]]
    connections = [Connection(plan["host"], plan["port"]) for _ in range(plan["connections"])]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    cpu = time.process_time()
    loop = open_loop if plan["open"] else closed_loop
    latencies, rate = loop(connections, requests, plan["pace"])
    cpu = time.process_time() - cpu
    sys.stdout.write(json.dumps({"latencies": [ns // 1000 for ns in latencies], "rate": rate, "cpu": cpu}) + "\n")


if __name__ == "__main__":
    main()
