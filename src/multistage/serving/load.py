"""Load tests of a served recommender: latencies, errors, throughput."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from time import perf_counter

import numpy as np

from multistage.serving.client import Client, Reply, ServerError


@dataclass
class Load:
    """The result of a load test."""

    latencies: list[float] = field(default_factory=list)  # seconds, one per answered request
    replies: list[Reply] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    users: int = 0
    seconds: float = 0.0

    def percentile(self, share: float) -> float:
        """Return the latency in milliseconds that ``share`` percent of the answers kept."""
        return float(np.percentile(self.latencies, share) * 1_000)

    @property
    def users_per_second(self) -> float:
        """Users answered per second of the test."""
        return self.users / self.seconds


def run_load(
    grpc_url: str,
    batches: Sequence[np.ndarray],
    requests: int,
    clients: int = 1,
    time: float | None = None,
    keep_replies: bool = False,
) -> Load:
    """Send ``requests`` requests over ``clients`` connections at once.

    Args:
        grpc_url: ``host:port``.
        batches: the users of one request each; taken in turn, again from the start if they end.
        requests: how many in all.
        clients: how many threads send requests at once, each one request after the other.
        time: of every request, in seconds since 1970; by default the server's now.
        keep_replies: keep every reply.

    The latencies include the client's own time: a slow client makes them longer.
    """
    result = Load()
    lock = threading.Lock()
    todo = islice(cycle(batches), requests)

    def work() -> None:
        with Client(grpc_url) as client:
            while True:
                with lock:
                    users = next(todo, None)
                if users is None:
                    return
                begin = perf_counter()
                try:
                    reply = client.recommend(users, time)
                except ServerError as error:
                    with lock:
                        result.errors.append(str(error))
                    continue
                taken = perf_counter() - begin
                with lock:
                    result.latencies.append(taken)
                    result.users += len(users)
                    if keep_replies:
                        result.replies.append(reply)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    begin = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.seconds = perf_counter() - begin
    return result
