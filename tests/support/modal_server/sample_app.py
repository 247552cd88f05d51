"""An app for the server's own tests; they deploy a copy of this file from a folder of its own.

Its annotations are not deferred: `modal.parameter` needs them as types.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import modal

app = modal.App("sample")
image = (
    modal.Image.debian_slim(python_version="3.11")
    .pip_install("numpy==2.4.6", "pillow", index_url="https://example.org/simple", pre=True)
    .uv_pip_install("av>=18")
    .env({"GREETING": "good day"})
    .add_local_python_source("tiny")
)


@app.function(image=image, max_containers=3)
def add(a: int, b: int) -> int:
    return a + b


@app.function(image=image)
def where() -> dict[str, object]:
    import tiny  # type: ignore[import-not-found]

    return {"tiny": tiny.__file__, "word": tiny.WORD, "environment": dict(os.environ), "cwd": str(Path.cwd())}


@app.function(image=image, secrets=[modal.Secret.from_name("r2-credentials", required_keys=["R2_KEY"])])
def secret() -> str:
    return os.environ["R2_KEY"]


@app.function(image=image, max_containers=2)
def slow(mark: str, seconds: float) -> str:
    """Leave a mark for each start; end after some seconds, or when there is a file with `.end` behind its name."""
    with Path(mark).open("a") as file:
        file.write(f"{modal.current_input_id()} {os.getpid()}\n")
    end = time.monotonic() + seconds
    while time.monotonic() < end and not Path(f"{mark}.end").exists():
        time.sleep(0.02)
    return "done"


# Without `startup_timeout` the time of one call would have to do for the start of a container, too.
@app.function(image=image, timeout=1, startup_timeout=60)
def impatient(mark: str) -> str:
    with Path(mark).open("a") as file:
        file.write("start\n")
    time.sleep(60)
    return "late"


@app.function(image=image)
def stubborn(mark: str) -> None:
    """Take no notice of being cancelled."""
    while True:
        try:
            Path(mark).write_text("started")
            time.sleep(60)
        except BaseException:  # noqa: S112
            continue


@app.function(image=image)
def count(upto: int, pause: float = 0.0) -> Iterator[int]:
    for number in range(upto):
        yield number
        time.sleep(pause)


@app.function(image=image)
def broken_generator() -> Iterator[int]:
    yield 1
    raise ValueError("no more")


@app.function(image=image)
def leave(code: int) -> None:
    """Bring the container down."""
    os._exit(code)


@app.function(image=image, retries=modal.Retries(max_retries=2, initial_delay=0.0))
def flaky(mark: str, good_from: int) -> int:
    """Succeed from the given attempt on."""
    with Path(mark).open("a") as file:
        file.write("attempt\n")
    attempt = len(Path(mark).read_text().splitlines())
    if attempt < good_from:
        raise OSError(f"attempt {attempt} failed")
    return attempt


@app.function(image=image)
def echo(data: bytes) -> bytes:
    return data[::-1]


@app.function(image=image)
def report(progress: modal.Queue, job: str, steps: int) -> str:
    for step in range(steps):
        progress.put({"step": step}, partition=job)
    progress.put_many(["end"], partition=job)
    return job


@app.cls(image=image, max_containers=1)
class Model:
    """Loads once a container."""

    @modal.enter()
    def load(self) -> None:
        self.loaded_at = time.time()
        self.calls = 0

    @modal.method()
    def use(self, add: int) -> tuple[float, int, int]:
        self.calls += 1
        return self.loaded_at, self.calls, add

    @modal.method()
    def stream(self, upto: int) -> Iterator[int]:
        yield from range(upto)


@app.cls(image=image)
class Broken:
    """Cannot be loaded."""

    @modal.enter()
    def load(self) -> None:
        raise RuntimeError("no weights")

    @modal.method()
    def use(self) -> None:
        raise AssertionError


@app.cls(image=image)
class Greeter:
    """Has a parameter."""

    name: str = modal.parameter()

    @modal.method()
    def greet(self) -> str:
        return f"hello {self.name}"
