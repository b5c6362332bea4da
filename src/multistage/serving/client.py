"""Query a served recommender over gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

from multistage.errors import CourseError
from multistage.loopback import is_local
from multistage.serving.request import MODEL, FallbackStatus, RequestError


class ServerError(CourseError):
    """The server refused the request, or could not be reached; the message says which."""


@dataclass(frozen=True)
class Reply:
    """The answer to one request; the first dimension is the users, in the order of the request."""

    user_id: np.ndarray
    ordered_ids: np.ndarray  # int64, (users, largest k); -1 where there is no product
    ordered_scores: np.ndarray  # float32, likewise; NaN there
    fallback_status: np.ndarray  # int8, (users,): see FallbackStatus

    @property
    def statuses(self) -> list[str]:
        """The fallback status of each user in words, such as ``"popular"``."""
        return [FallbackStatus(status).name.lower() for status in self.fallback_status]


def connect(grpc_url: str, local: bool = False) -> Any:
    """Return a ``tritonclient.grpc.InferenceServerClient`` for ``host:port``.

    It uses the environment's proxy, if any, but never for a server on this machine.

    Args:
        grpc_url: where the server is.
        local: whether it is on this machine, whatever its address; by default, if that is the
            loopback.
    """
    import tritonclient.grpc as grpc

    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    if local or is_local(grpc_url.rpartition(":")[0]):
        options.append(("grpc.enable_http_proxy", 0))
    return grpc.InferenceServerClient(grpc_url, channel_args=options)


class Client:
    """One connection to a server; a context manager."""

    def __init__(self, grpc_url: str, timeout: float = 30.0) -> None:
        """Connect to ``host:port``; a request fails after ``timeout`` seconds."""
        import tritonclient.grpc as grpc

        self._grpc = grpc
        self._url = grpc_url
        self._connection = connect(grpc_url)
        self._timeout = timeout

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def recommend(
        self,
        users: Sequence[int] | np.ndarray,
        time: float | np.ndarray | None = None,
        k: int | np.ndarray | None = None,
    ) -> Reply:
        """Ask for products for a batch of users.

        Args:
            users: raw user ids, known or not.
            time: seconds since 1970 in UTC, one for all or one per user; by default the
                server's current time.
            k: how many products, one for all or one per user; by default the server's.

        Raises:
            RequestError: if ``users`` or ``k`` are no integers that fit; nothing is sent then.
            ServerError: if the request was refused or no server answered.
        """
        inputs = [self._input("user_id", _whole("users", users, "int64"), "INT64")]
        if time is not None:
            inputs.append(self._input("time", np.atleast_1d(np.asarray(time, "float64")), "FP64"))
        if k is not None:
            inputs.append(self._input("k", np.atleast_1d(_whole("k", k, "int32")), "INT32"))
        try:
            answer = self._connection.infer(MODEL, inputs, client_timeout=self._timeout)
        except InferenceServerException as error:
            raise ServerError(self._reason(error)) from None
        return Reply(*(answer.as_numpy(name)[0] for name in Reply.__dataclass_fields__))

    def _reason(self, error: InferenceServerException) -> str:
        message = error.message()
        if error.status() == "StatusCode.UNAVAILABLE" or "is not healthy" in message:
            return f"No server answers at {self._url}: start it (again). gRPC says: {message}"
        if error.status() == "StatusCode.DEADLINE_EXCEEDED":
            return f"No answer from {self._url} within {self._timeout:g} s."
        return message

    def _input(self, name: str, values: np.ndarray, kind: str) -> object:
        row = values[None]  # the server batches requests: each is one row
        tensor = self._grpc.InferInput(name, row.shape, kind)
        tensor.set_data_from_numpy(row)
        return tensor


def _whole(name: str, values: Sequence[int] | np.ndarray | int, dtype: str) -> np.ndarray:
    """Return ``values`` as ``dtype``, or refuse: a cast could change a user's id."""
    array, limits = np.asarray(values), np.iinfo(dtype)
    if array.size and (
        array.dtype.kind not in "iu"
        # As Python's integers: numpy would compare 64 bits with and without a sign as floats.
        or int(array.min()) < limits.min
        or int(array.max()) > limits.max
    ):
        raise RequestError(
            f"{name} must be whole numbers from {limits.min} to {limits.max}, not {values!r:.60}."
        )
    return array.astype(dtype)
