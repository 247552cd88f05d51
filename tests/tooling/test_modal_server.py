"""The loopback Modal server, held to what the real client and the real container entry point do with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpclib import Status

modal = pytest.importorskip("modal", reason="the remote runner's extra is not installed")

from support.modal_server import ModalServer  # noqa: E402

pytestmark = pytest.mark.processes

TESTS = Path(__file__).resolve().parents[1]
SAMPLE = TESTS / "support" / "modal_server" / "sample_app.py"
LONG_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A server with the sample app deployed, and a client of it."""

    server: ModalServer
    client: Any
    folder: Path

    def function(self, name: str) -> Any:
        return modal.Function.from_name("sample", name, client=self.client)

    def call(self, call_id: str) -> Any:
        return modal.FunctionCall.from_id(call_id, client=self.client)

    def model(self, name: str) -> Any:
        return modal.Cls.from_name("sample", name, client=self.client)


def until(condition: Callable[[], Any], within_s: float = LONG_S) -> Any:
    """Wait for a true value and return it."""
    end = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)
    return value


def let_go(mark: Path) -> None:
    """Let the calls of `slow` end that were given this mark."""
    Path(f"{mark}.end").touch()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def write_app(folder: Path) -> None:
    folder.mkdir(parents=True)
    shutil.copy(SAMPLE, folder / "sample.py")
    (folder / "tiny").mkdir()
    (folder / "tiny" / "__init__.py").write_text('WORD = "from the mount"\n')


def deploy(server: ModalServer, folder: Path, *arguments: str) -> None:
    done = server.deploy(*(arguments or ("sample.py",)), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("modal")
    write_app(folder / "app")
    with ModalServer(
        folder / "server",
        python=Path(sys.executable),
        max_containers=4,
        scaledown_s=5.0,
        cancel_grace_s=1.5,
        retry_delay_factor=0.1,
    ) as server:
        server.set_secret("r2-credentials", {"R2_KEY": "sesame"})
        deploy(server, folder / "app")
        with signed_in(server) as client:
            yield Bench(server=server, client=client, folder=folder)


class signed_in:  # noqa: N801
    """A client of the server with its variables set, so that nothing of this machine's configuration is used."""

    def __init__(self, server: ModalServer) -> None:
        self._server = server
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Any:
        for name, value in self._server.environment().items():
            self._patch.setenv(name, value)
        token = self._server.environment()
        self._client = modal.Client.from_credentials(token["MODAL_TOKEN_ID"], token["MODAL_TOKEN_SECRET"])
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._patch.undo()


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


# Deploying


def test_a_function_that_was_deployed_can_be_spawned_and_called(bench: Bench) -> None:
    assert bench.function("add").spawn(1, 2).get(timeout=LONG_S) == 3
    assert bench.function("add").remote(3, 4) == 7


def test_a_container_imports_local_sources_from_its_mount_and_starts_in_slash_root(bench: Bench) -> None:
    seen = bench.function("where").remote()
    assert seen["word"] == "from the mount"
    assert not Path(seen["tiny"]).is_relative_to(bench.folder / "app")
    assert Path(seen["tiny"]).parts[-3:] == ("root", "tiny", "__init__.py")
    assert Path(seen["cwd"]).name == "root"


def test_a_container_has_the_image_s_variables_and_nothing_of_the_tests_environment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "not for containers")
    environment = bench.function("where").with_options(timeout=200).remote()["environment"]
    assert environment["GREETING"] == "good day"
    assert environment["MODAL_IS_REMOTE"] == "1"
    assert environment.keys() & {"R2_SECRET_ACCESS_KEY", "R2_KEY", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"} == set()
    assert environment["HOME"] != os.environ["HOME"]


def test_a_secret_reaches_the_functions_that_name_it(bench: Bench) -> None:
    assert bench.function("secret").remote() == "sesame"


def test_what_an_image_installs_is_recorded_and_not_run(bench: Bench) -> None:
    layers = bench.server.image_of("sample", "add")
    assert layers[0].commands[0].startswith("FROM python:3.11")
    assert [package for layer in layers[1:] for package in layer.pip_packages] == ["numpy==2.4.6", "pillow", "av>=18"]
    assert layers[-1].variables == {"GREETING": "good day"}
    assert all(layer in bench.server.images() for layer in layers)


def test_deploying_needs_the_secrets_that_are_named(tmp_path: Path) -> None:
    write_app(tmp_path / "app")
    with ModalServer(tmp_path / "server", python=Path(sys.executable)) as server:
        done = server.deploy("sample.py", cwd=tmp_path / "app")
        assert done.returncode != 0
        assert "Secret 'r2-credentials' not found" in done.stdout + done.stderr
        server.set_secret("r2-credentials", {"OTHER": "1"})
        done = server.deploy("sample.py", cwd=tmp_path / "app")
        assert done.returncode != 0
        assert "R2_KEY" in done.stdout + done.stderr


def test_a_wrong_token_is_refused(bench: Bench) -> None:
    client = modal.Client.from_credentials("ak-wrong", "as-wrong")
    try:
        with pytest.raises(modal.exception.AuthError, match="Token validation failed"):
            client.hello()
        with pytest.raises(modal.exception.AuthError):
            modal.Function.from_name("sample", "add", client=client).remote(1, 2)
    finally:
        client.close()
    bench.client.hello()


def test_what_is_not_deployed_is_not_found(bench: Bench) -> None:
    for app, name in (("sample", "absent"), ("absent", "add")):
        with pytest.raises(modal.exception.NotFoundError, match=f"'{name}' from the '{app}' app"):
            modal.Function.from_name(app, name, client=bench.client).hydrate()
    with pytest.raises(modal.exception.NotFoundError, match="no class 'Absent'"):
        modal.Cls.from_name("sample", "Absent", client=bench.client).hydrate()
    with pytest.raises(modal.exception.NotFoundError):
        bench.call("fc-000000999999").get(timeout=0)


@pytest.mark.slow
def test_deploying_again_replaces_the_code_and_drops_functions_that_are_gone(tmp_path: Path) -> None:
    app = tmp_path / "app"
    write_app(app)
    with ModalServer(tmp_path / "server", python=Path(sys.executable)) as server, signed_in(server) as client:
        server.set_secret("r2-credentials", {"R2_KEY": "1"})
        deploy(server, app)
        add = modal.Function.from_name("sample", "add", client=client)
        assert add.remote(2, 3) == 5
        first = {task.id for task in server.running_tasks("add")}
        text = SAMPLE.read_text().replace("return a + b", "return a * b").replace("def where(", "def elsewhere(")
        (app / "sample.py").write_text(text)
        deploy(server, app)
        assert add.remote(2, 3) == 6, "the handle from before finds the new code"
        assert until(lambda: not first & {task.id for task in server.running_tasks()})
        with pytest.raises(modal.exception.NotFoundError):
            modal.Function.from_name("sample", "where", client=client).hydrate()

        server.undeploy("sample")
        with pytest.raises(modal.exception.NotFoundError):
            modal.Function.from_name("sample", "add", client=client).hydrate()
        with pytest.raises(modal.exception.NotFoundError):
            add.spawn(1, 2)
        assert until(lambda: not server.running_tasks())


@pytest.mark.slow
def test_a_package_is_deployed_by_its_module_s_name(tmp_path: Path) -> None:
    package = tmp_path / "app" / "pack"
    write_app(tmp_path / "app")
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner").mkdir()
    (package / "inner" / "__init__.py").write_text("NUMBER = 42\n")
    (package / "stub.py").write_text(
        "import modal\n"
        "from pack.inner import NUMBER\n"
        "app = modal.App('packed')\n"
        "image = modal.Image.debian_slim().add_local_python_source('pack', 'pack.inner')\n"
        "@app.function(image=image)\n"
        "def number() -> tuple[int, str]:\n"
        "    return NUMBER, __file__\n"
    )
    with ModalServer(tmp_path / "server", python=Path(sys.executable)) as server, signed_in(server) as client:
        deploy(server, tmp_path / "app", "-m", "pack.stub")
        number, path = modal.Function.from_name("packed", "number", client=client).remote()
        assert number == 42
        assert Path(path).is_relative_to(tmp_path / "server" / "mounted")


# Calling


def test_a_class_is_loaded_once_for_each_container(bench: Bench) -> None:
    model = bench.model("Model")()
    first, second = model.use.remote(1), model.use.remote(2)
    assert first[0] == second[0]
    assert (first[1:], second[1:]) == ((1, 1), (2, 2))
    assert list(model.stream.remote_gen(3)) == [0, 1, 2]


def test_a_class_with_a_parameter_runs_in_a_container_of_its_own(bench: Bench) -> None:
    greeter = bench.model("Greeter")
    assert greeter(name="Ada").greet.remote() == "hello Ada"
    assert greeter(name="Bob").greet.remote() == "hello Bob"


def test_a_generator_streams_while_it_runs(bench: Bench) -> None:
    arrivals = [(number, time.monotonic()) for number in bench.function("count").remote_gen(4, 0.2)]
    assert [number for number, _ in arrivals] == [0, 1, 2, 3]
    assert arrivals[-1][1] - arrivals[0][1] > 0.4


def test_an_error_of_user_code_arrives_as_it_was_raised(bench: Bench) -> None:
    got = []
    with pytest.raises(ValueError, match="no more"):
        got.extend(bench.function("broken_generator").remote_gen())
    with pytest.raises(TypeError):
        bench.function("add").remote("text", 1)


@pytest.mark.parametrize("size", [100, 20_000, 3 << 20])
def test_arguments_and_results_of_any_size_arrive(bench: Bench, size: int) -> None:
    data = os.urandom(size)
    before = len(bench.server.calls("BlobCreate"))
    assert bench.function("echo").spawn(data).get(timeout=LONG_S) == data[::-1]
    blobs = bench.server.calls("BlobCreate")[before:]
    assert [call.task_id is None for call in blobs] == ([True, False] if size > 8 << 10 else [])


def test_a_result_is_found_by_its_id_from_another_process(bench: Bench) -> None:
    call = bench.function("add").spawn(20, 22)
    code = "import modal, sys; print(modal.FunctionCall.from_id(sys.argv[1]).get(timeout=30))"
    done = subprocess.run(
        [sys.executable, "-c", code, call.object_id],
        env=os.environ | bench.server.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "42\n"
    assert bench.call(call.object_id).get(timeout=0) == 42, "a result may be fetched more than once"


def test_results_that_expired_say_so(bench: Bench) -> None:
    call = bench.function("add").spawn(1, 1)
    assert call.get(timeout=LONG_S) == 2
    bench.server.expire(call.object_id)
    with pytest.raises(modal.exception.OutputExpiredError):
        call.get(timeout=0)


def test_a_call_that_still_runs_has_no_result_yet(bench: Bench, mark: Path) -> None:
    call = bench.function("slow").spawn(str(mark), 60)
    with pytest.raises(TimeoutError):
        call.get(timeout=0)
    with pytest.raises(TimeoutError):
        call.get(timeout=0.3)
    let_go(mark)
    assert call.get(timeout=LONG_S) == "done"


def test_map_gives_results_in_order(bench: Bench) -> None:
    assert list(bench.function("add").map(range(6), range(6))) == [0, 2, 4, 6, 8, 10]


def test_progress_comes_through_the_partitions_of_an_ephemeral_queue(bench: Bench) -> None:
    with modal.Queue.ephemeral(client=bench.client) as queue:
        calls = [bench.function("report").spawn(queue, job, 3) for job in ("a", "b")]
        assert [call.get(timeout=LONG_S) for call in calls] == ["a", "b"]
        assert queue.len(partition="a") == 4
        assert queue.len(total=True) == 8
        assert list(queue.iterate(partition="a")) == [{"step": 0}, {"step": 1}, {"step": 2}, "end"]
        assert queue.get(partition="a") == {"step": 0}
        assert queue.get_many(10, partition="b") == [{"step": 0}, {"step": 1}, {"step": 2}, "end"]
        assert queue.get(block=False, partition="b") is None
        queue.clear(partition="a")
        assert queue.len(total=True) == 0
        assert bench.server.calls("QueueHeartbeat")
        bench.server.drop_ephemeral_queues()
        with pytest.raises(modal.exception.NotFoundError):
            queue.put("nobody is there", partition="a")


def test_a_waiting_get_of_a_queue_returns_when_something_is_put(bench: Bench) -> None:
    with modal.Queue.ephemeral(client=bench.client) as queue, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.get, timeout=LONG_S, partition="p")
        time.sleep(0.3)
        assert not waiting.done()
        queue.put("news", partition="p")
        assert waiting.result(5) == "news"


def test_an_ephemeral_queue_vanishes_when_its_owner_is_not_heard_of(tmp_path: Path) -> None:
    server = ModalServer(tmp_path / "server", python=Path(sys.executable), queue_lease_s=0.3)
    with server, signed_in(server) as client, modal.Queue.ephemeral(client=client) as queue:
        queue.put(1)
        time.sleep(0.4)
        with pytest.raises(modal.exception.NotFoundError):
            queue.put(2)


# Containers: how many, how long


def test_a_function_has_no_more_containers_than_it_allows(bench: Bench, mark: Path) -> None:
    slow = bench.function("slow")
    calls = [slow.spawn(str(mark), 60) for _ in range(4)]
    until(lambda: len(lines(mark)) == 2)
    time.sleep(0.5)
    assert len(bench.server.running_tasks("slow")) == len(lines(mark)) == 2
    let_go(mark)
    assert [call.get(timeout=LONG_S) for call in calls] == ["done"] * 4
    assert len({line.split()[1] for line in lines(mark)}) == 2


def test_the_server_never_runs_more_containers_than_it_has_room_for(bench: Bench, mark: Path) -> None:
    calls = [bench.function("slow").spawn(str(mark), 0.5) for _ in range(3)]
    calls += [bench.function("add").spawn(1, number) for number in range(3)]
    calls += [bench.function("echo").spawn(b"ab"), bench.function("secret").spawn()]
    while any(state is None for state in map(_result_or_none, calls)):
        assert len(bench.server.running_tasks()) <= 4
        time.sleep(0.02)


def test_how_busy_a_function_is_can_be_asked(bench: Bench, mark: Path) -> None:
    slow = bench.function("slow")
    calls = [slow.spawn(str(mark), 60) for _ in range(3)]
    until(lambda: len(lines(mark)) == 2)
    stats = slow.get_current_stats()
    assert (stats.backlog, stats.num_running_inputs, stats.num_total_runners) == (1, 2, 2)
    let_go(mark)
    for call in calls:
        call.get(timeout=LONG_S)


@pytest.mark.slow
def test_an_idle_container_is_stopped_and_its_log_kept(bench: Bench) -> None:
    bench.function("add").remote(1, 2)
    task = bench.server.running_tasks("add")[0]
    assert task.ready
    until(lambda: task.id not in {other.id for other in bench.server.running_tasks()})
    assert task.pid is not None
    assert not psutil.pid_exists(task.pid)
    assert task.id in bench.server.task_ids()


def test_what_a_container_prints_is_in_its_log(bench: Bench) -> None:
    with pytest.raises(TypeError):
        bench.function("add").remote(None, 1)
    assert any("TypeError: unsupported operand" in bench.server.logs(task) for task in bench.server.task_ids())


# What goes wrong in a container


def test_a_function_that_takes_too_long_is_killed_and_says_so(bench: Bench, mark: Path) -> None:
    before = time.monotonic()
    with pytest.raises(modal.exception.FunctionTimeoutError, match="timeout of 1s"):
        bench.function("impatient").spawn(str(mark)).get(timeout=LONG_S)
    assert time.monotonic() - before < 20
    until(lambda: not bench.server.running_tasks("impatient"))


def test_a_timeout_is_retried_as_other_failures_are(bench: Bench, mark: Path) -> None:
    retried = bench.function("impatient").with_options(retries=modal.Retries(max_retries=1, initial_delay=0.0))
    with pytest.raises(modal.exception.FunctionTimeoutError):
        retried.spawn(str(mark)).get(timeout=LONG_S)
    assert lines(mark) == ["start", "start"]


def test_a_timeout_of_its_own_makes_a_variant_of_a_function(bench: Bench, mark: Path) -> None:
    variant = bench.function("slow").with_options(timeout=1)
    with pytest.raises(modal.exception.FunctionTimeoutError):
        variant.remote(str(mark), 60)
    assert bench.function("slow").remote(str(mark), 1.5) == "done"


def test_a_spawned_function_is_retried_by_the_server(bench: Bench, mark: Path) -> None:
    assert bench.function("flaky").spawn(str(mark), 3).get(timeout=LONG_S) == 3
    assert len(lines(mark)) == 3


def test_a_function_that_is_waited_for_is_retried_by_its_client(bench: Bench, mark: Path) -> None:
    before = len(bench.server.calls("FunctionRetryInputs"))
    assert bench.function("flaky").remote(str(mark), 2) == 2
    assert len(bench.server.calls("FunctionRetryInputs")) == before + 1


def test_after_the_last_retry_the_error_arrives(bench: Bench, mark: Path) -> None:
    with pytest.raises(OSError, match="attempt 3 failed"):
        bench.function("flaky").spawn(str(mark), 9).get(timeout=LONG_S)
    assert len(lines(mark)) == 3


def test_a_container_that_code_brings_down_fails_the_call(bench: Bench) -> None:
    with pytest.raises(modal.exception.RemoteError, match="exited with code 3"):
        bench.function("leave").spawn(3).get(timeout=LONG_S)


@pytest.mark.parametrize("way", ["crash", "kill -9 from outside"])
def test_a_crashed_container_fails_its_call_and_the_next_call_gets_another(bench: Bench, mark: Path, way: str) -> None:
    call = bench.function("slow").spawn(str(mark), 60)
    task = until(lambda: _working_on(bench, call))
    until(lambda: lines(mark))
    if way == "crash":
        bench.server.crash(task.id)
    else:
        os.kill(task.pid, signal.SIGKILL)
    with pytest.raises(modal.exception.RemoteError, match="killed by signal 9"):
        call.get(timeout=LONG_S)
    assert bench.function("slow").remote(str(mark), 0) == "done"


@pytest.mark.parametrize("way", ["preempt", "kill", "internal failure"])
def test_an_input_of_a_preempted_or_lost_container_starts_anew_in_another(bench: Bench, mark: Path, way: str) -> None:
    call = bench.function("slow").spawn(str(mark), 60)
    task = until(lambda: _working_on(bench, call))
    until(lambda: lines(mark))
    if way == "preempt":
        bench.server.preempt(task.id)
    else:
        bench.server.kill_container(task.id, "preempted" if way == "kill" else "internal failure")
    until(lambda: len(lines(mark)) == 2)
    let_go(mark)
    assert call.get(timeout=LONG_S) == "done"
    starts = [line.split() for line in lines(mark)]
    assert len({input_id for input_id, _ in starts}) == 1
    assert len({pid for _, pid in starts}) == 2


def test_an_error_of_enter_reaches_the_caller(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="no weights"):
        bench.model("Broken")().use.spawn().get(timeout=LONG_S)


# Cancelling


def test_cancelling_ends_a_running_call_and_leaves_its_container(bench: Bench, mark: Path) -> None:
    call = bench.function("slow").spawn(str(mark), 60)
    task = until(lambda: _working_on(bench, call))
    until(lambda: lines(mark))
    bench.call(call.object_id).cancel()
    with pytest.raises(modal.exception.RemoteError, match="cancelled"):
        call.get(timeout=LONG_S)
    assert task.id in {other.id for other in bench.server.running_tasks("slow")}
    assert bench.function("slow").remote(str(mark), 0) == "done"


def test_cancelling_ends_a_call_that_waits_for_a_container_at_once(bench: Bench, mark: Path) -> None:
    running = [bench.function("slow").spawn(str(mark), 60) for _ in range(2)]
    until(lambda: len(lines(mark)) == 2)
    queued = bench.function("slow").spawn(str(mark), 0)
    queued.cancel()
    with pytest.raises(modal.exception.RemoteError, match="cancelled"):
        queued.get(timeout=0)
    let_go(mark)
    assert [call.get(timeout=LONG_S) for call in running] == ["done", "done"]
    assert len(lines(mark)) == 2


def test_cancelling_with_the_containers_kills_them(bench: Bench, mark: Path) -> None:
    call = bench.function("slow").spawn(str(mark), 60)
    task = until(lambda: _working_on(bench, call))
    call.cancel(terminate_containers=True)
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=LONG_S)
    until(lambda: not psutil.pid_exists(task.pid))


def test_a_container_that_does_not_end_a_cancelled_call_is_killed(bench: Bench, mark: Path) -> None:
    call = bench.function("stubborn").spawn(str(mark))
    task = until(lambda: _working_on(bench, call))
    until(mark.exists)
    call.cancel()
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=LONG_S)
    until(lambda: not psutil.pid_exists(task.pid))


def test_a_cancelled_call_is_not_retried(bench: Bench, mark: Path) -> None:
    flaky = bench.function("flaky").with_options(retries=modal.Retries(max_retries=9, initial_delay=30))
    call = flaky.spawn(str(mark), 99)
    until(lambda: lines(mark))
    until(lambda: flaky.get_current_stats().backlog == 1)
    call.cancel()
    with pytest.raises(modal.exception.RemoteError, match="cancelled"):
        call.get(timeout=0)
    assert flaky.get_current_stats().backlog == 0
    assert len(lines(mark)) == 1


# What goes wrong on the way to the server


def test_a_server_that_refuses_connections_is_survived_once_it_is_back(bench: Bench, mark: Path) -> None:
    call = bench.function("slow").spawn(str(mark), 60)
    until(lambda: lines(mark))
    bench.server.pause()
    try:
        with pytest.raises((modal.exception.ConnectionError, ConnectionRefusedError)):
            call.get(timeout=0)
        let_go(mark)
    finally:
        bench.server.resume()
    assert call.get(timeout=LONG_S) == "done", "what was known before is known still"
    assert len(lines(mark)) == 1


def test_a_server_that_hangs_for_a_while_answers_afterwards(bench: Bench) -> None:
    add = bench.function("add")
    assert add.remote(1, 1) == 2
    before = time.monotonic()
    bench.server.pause(hang=True, for_s=1.5)
    assert add.remote(2, 2) == 4
    assert time.monotonic() - before > 1.3


def test_a_request_whose_answer_was_lost_is_repeated_and_acts_once(bench: Bench, mark: Path) -> None:
    slow = bench.function("slow")
    slow.hydrate()
    bench.server.set_latency("FunctionMap", 60.0, of="answer")
    before = len(bench.server.calls("FunctionMap"))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(slow.spawn, str(mark), 0.0)
        until(lambda: lines(mark))
        bench.server.set_latency("FunctionMap", 0.0, of="answer")
        bench.server.pause()
        bench.server.resume()
        assert call.result(LONG_S).get(timeout=LONG_S) == "done"
    assert len(bench.server.calls("FunctionMap")) == before + 2
    assert slow.get_current_stats().backlog == 0
    assert len(lines(mark)) == 1


def test_faults_of_one_rpc_are_met_by_the_client_s_own_retries_or_raised(bench: Bench) -> None:
    add = bench.function("add")
    add.hydrate()
    before = len(bench.server.calls("FunctionMap"))
    bench.server.fail_next("FunctionMap", Status.UNAVAILABLE, times=2)
    assert add.spawn(1, 2).get(timeout=LONG_S) == 3
    assert len(bench.server.calls("FunctionMap")) == before + 3
    bench.server.fail_next("FunctionMap", Status.RESOURCE_EXHAUSTED, message="too many calls")
    with pytest.raises(modal.exception.ResourceExhaustedError, match="too many calls"):
        add.spawn(1, 2)
    bench.server.fail_next("FunctionGetOutputs", Status.INTERNAL, times=4)
    with pytest.raises(modal.exception.InternalError):
        add.spawn(1, 2).get(timeout=LONG_S)


def test_requests_are_recorded_for_tests_to_look_at(bench: Bench) -> None:
    bench.function("report").hydrate()
    last = bench.server.calls("FunctionGet")[-1]
    assert (last.request.app_name, last.request.object_tag, last.task_id) == ("sample", "report", None)


def test_latency_holds_a_request_back(bench: Bench) -> None:
    bench.server.set_latency("ClientHello", 0.5)
    try:
        before = time.monotonic()
        bench.client.hello()
        assert time.monotonic() - before > 0.45
    finally:
        bench.server.set_latency("ClientHello", 0.0)


# The end


def test_nothing_is_left_when_the_server_closes(tmp_path: Path, mark: Path) -> None:
    write_app(tmp_path / "app")
    with ModalServer(tmp_path / "server", python=Path(sys.executable)) as server, signed_in(server) as client:
        server.set_secret("r2-credentials", {"R2_KEY": "1"})
        deploy(server, tmp_path / "app")
        modal.Function.from_name("sample", "slow", client=client).spawn(str(mark), 60)
        until(lambda: lines(mark))
        pid = server.running_tasks()[0].pid
        url = server.url
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not _listens(url)


@pytest.mark.slow
def test_containers_die_with_a_server_that_is_killed(tmp_path: Path, mark: Path) -> None:
    write_app(tmp_path / "app")
    text = (tmp_path / "app" / "sample.py").read_text()
    (tmp_path / "app" / "sample.py").write_text(text.replace("@app.function(image=image, secrets=[", "_ = (["))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.modal_server", "--folder", str(tmp_path / "server")],
        cwd=TESTS.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        exported = [process.stdout.readline() for _ in range(8)]
        environment = dict(line.strip().removeprefix("export ").split("=", 1) for line in exported)
        environment = {name: value.strip("'") for name, value in environment.items()}
        script = "import modal, sys\nimport sample\nsample.app.deploy()\nsample.slow.spawn(sys.argv[1], 600)\n"
        subprocess.run(
            [sys.executable, "-c", script, str(mark)],
            cwd=tmp_path / "app",
            env=os.environ | environment,
            check=True,
            timeout=60,
        )
        pid = int(until(lambda: lines(mark))[0].split()[1])
        assert psutil.pid_exists(pid)
        sockets = Path(_variable(pid, "MODAL_SERVER_URL").removeprefix("unix://")).parent
        assert sockets.is_dir()
        process.kill()
        until(lambda: not psutil.pid_exists(pid) and not sockets.exists())
    finally:
        process.kill()
        process.communicate()


def _result_or_none(call: Any) -> Any:
    try:
        return call.get(timeout=0)
    except TimeoutError:
        return None


def _working_on(bench: Bench, call: Any) -> Any:
    return next((task for task in bench.server.running_tasks() if call.object_id in task.calls), None)


def _variable(pid: int, name: str) -> str:
    return psutil.Process(pid).environ()[name]


def _listens(url: str) -> bool:
    port = int(url.rpartition(":")[2])
    return any(one.laddr.port == port for one in psutil.Process().net_connections() if one.status == "LISTEN")
