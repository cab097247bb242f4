"""A simulator of one's own, for a judge."""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(program, token, fixtures, *options):
    """The address of one that is started here and stopped at the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "fixtures.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(fixtures, file)
        port = free_port()
        process = subprocess.Popen([program, "--listen", f"127.0.0.1:{port}", "--fixtures", path, *options],
                                   env={**os.environ, "DO_SIMULATOR_TOKEN": token, "RUST_LOG": "warn"})
        try:
            deadline = time.monotonic() + 10
            while not listens(port):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise AssertionError("the simulator does not listen")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)
