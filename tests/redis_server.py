"""A real redis-server for tests."""

import contextlib
import shutil
import subprocess
import time

from multistage.serving.triton import free_port

BINARY = shutil.which("redis-server")


class RedisServer:
    """A redis-server on loopback that keeps every write on disk."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.process = None

    def start(self):
        command = [BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
        import redis

        with contextlib.closing(redis.Redis(port=self.port)) as client:
            for _ in range(200):
                with contextlib.suppress(redis.exceptions.RedisError):
                    if client.ping():
                        return
                time.sleep(0.05)
        raise AssertionError("redis-server did not start")

    def keys(self):
        """How many keys it holds."""
        import redis

        with contextlib.closing(redis.Redis(port=self.port)) as client:
            return client.dbsize()

    def kill(self):
        self.process.kill()
        self.process.wait()
