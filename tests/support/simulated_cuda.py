"""CUDA devices that are not there: for torch on a machine without one, so that the product's own CUDA code runs.

    with simulated_cuda(memory=2 * 2**30) as (gpu,):
        job runs with `--device cuda`, in this process
        assert len(gpu.waits) <= frames

or the fixture `gpu` (`support.gpu`), one device of 4 GiB. Tensors of `cuda:N` live in host memory. What a test relies
on:

- **Kernels run late and in order.** An operation is checked at once (shapes, devices, memory) and queued on the current
  stream; the queue runs once the host waits: a value is read, a copy blocks, an event, stream or device is waited for.
  Pageable memory is copied at once, pinned memory when the copy runs, so that a buffer that is written again too early,
  or read before its event, shows wrong pixels. Pinned memory begins as `POISON`. A kernel that reads what another
  stream has yet to write fails.
- **Memory ends.** `memory`, `used`, `peak`, `reserved` in bytes; what is freed stays reserved until `empty_cache()`.
  `fail_allocation(n)` lets the n-th allocation from now on fail once. No fragmentation, no workspace of cuDNN.
- **Counts.** `waits` (why, in order), `launches` (names of kernels; views are none, a graph's replay is one), `sent`
  and `fetched` (bytes to and from the device), `allocations`; `reset_counts()` sets them back.
- **Faults.** `fail_launch(n, error)`; with `sticky=True` the context is dead from then on. `on_launch(name, dtypes)`
  may raise for any kernel, `on_result(name, tensor)` may spoil what it gave.
- `dry = True` counts all of it and computes nothing: numbers that the host reads are then 0, conditions true.
- **Arithmetic** is the CPU's, except that fp32 convolutions and products are TF32 from capability 8.0 on where torch's
  settings say so.

The simulation holds in the thread that enters it and in all threads that start within it.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["ARCHITECTURES", "SimulatedGpu", "device_without_driver", "simulated_cuda"]

POISON = 0xA5
"""Every byte of pinned memory that was not written yet."""

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
"""What torch 2.13+cu130 has kernels for."""

BLOCK = 512
"""Bytes to which CUDA's allocator in torch rounds."""

GUARDS = "_ZN3c104impl26device_guard_impl_registryE"
"""`c10::impl::device_guard_impl_registry`: for each kind of device what torch does when it changes to one."""

COMPOSITE: Any = torch._C.DispatchKey.CompositeImplicitAutograd

aten = torch.ops.aten
Thunk = Callable[[], None]


def _relu_of_convolution(x: Any, weight: Any, bias: Any, *rest: Any) -> Any:
    stride, padding, dilation, groups = rest
    return aten.relu(aten.convolution(x, weight, bias, stride, padding, dilation, False, [0, 0], groups))


def _relu_of_convolution_and_sum(x: Any, weight: Any, z: Any, alpha: Any, bias: Any, *rest: Any) -> Any:
    stride, padding, dilation, groups = rest
    y = aten.convolution(x, weight, bias, stride, padding, dilation, False, [0, 0], groups)
    return aten.relu(aten.add(y, z, alpha=1 if alpha is None else alpha))


FUSED: dict[Any, Callable[..., Any]] = {
    aten.cudnn_convolution_relu.default: _relu_of_convolution,
    aten.cudnn_convolution_add_relu.default: _relu_of_convolution_and_sum,
}
"""Kernels that only CUDA has, by others."""

NO_KERNELS = ("empty", "empty_strided", "empty_like", "new_empty")
"""What only takes memory."""

PRODUCTS = ("convolution", "cudnn_convolution_relu", "cudnn_convolution_add_relu", "mm", "addmm", "bmm", "baddbmm")


class _Cell:
    """What a tensor of the device holds, once its queue has come so far."""

    __slots__ = ("__weakref__", "device", "meta", "real")

    def __init__(self, meta: torch.Tensor, device: torch.device) -> None:
        self.meta, self.device = meta, device
        self.real: torch.Tensor | None = None

    def read(self) -> torch.Tensor:
        if self.real is None:
            raise RuntimeError("a kernel reads what another stream has yet to write: let its stream wait for an event")
        return self.real


class SimulatedGpu:
    """One device; see the module."""

    def __init__(self, index: int, memory: int, capability: tuple[int, int], name: str) -> None:
        self.index, self.memory, self.capability, self.name = index, memory, capability, name
        self.used = self.peak = self.reserved = 0
        self.on_launch: Callable[[str, tuple[torch.dtype, ...]], None] | None = None
        self.on_result: Callable[[str, torch.Tensor], None] | None = None
        self.dead: Exception | None = None
        self.dry = False
        self.graph: _Graph | None = None
        self.lock = threading.RLock()
        self.streams: list[_Stream] = []
        self._live: dict[int, list[int]] = {}
        self._failing: dict[int, tuple[Exception, bool]] = {}
        self._full_at: int | None = None
        self._issued = 0
        self.reset_counts()
        self.default_stream = _Stream(self)

    def reset_counts(self) -> None:
        self.waits: list[str] = []
        self.launches: list[str] = []
        self.sent = self.fetched = self.allocations = 0
        self.peak = self.used
        self._full_at, self._issued, self._failing = None, 0, {}

    def fail_allocation(self, n: int) -> None:
        """Let the n-th allocation from now on (1 is the next) fail once."""
        self._full_at = self.allocations + n

    def fail_launch(self, n: int, error: Exception, *, sticky: bool = False) -> None:
        """Let the n-th kernel from now on (1 is the next) fail.

        A sticky error shows late, as CUDA's do: at whatever the host asks of the device next, and ever after.
        """
        self._failing[self._issued + n] = (error, sticky)

    def check(self) -> None:
        if self.dead is not None:
            raise type(self.dead)(*self.dead.args)

    def launch(self, name: str, dtypes: tuple[torch.dtype, ...]) -> None:
        self._issued += 1
        if self.graph is None:
            self.launches.append(name)
        error, sticky = self._failing.pop(self._issued, (None, False))
        if error is not None and sticky:
            self.dead = error
        elif error is not None:
            raise error
        if self.on_launch is not None:
            self.on_launch(name, dtypes)

    def allocate(self, storage: Any) -> int:
        with self.lock:
            key, size = storage._cdata, -(-storage.nbytes() // BLOCK) * BLOCK
            if key in self._live:
                self._live[key][1] += 1
                return int(key)
            self.allocations += 1
            if self.allocations == self._full_at or self.used + size > self.memory:
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. GPU {self.index} has a total "
                    f"capacity of {self.memory / 2**30:.2f} GiB of which {(self.memory - self.used) / 2**20:.2f} MiB "
                    "is free. (simulated)"
                )
            self._live[key] = [size, 1]
            self.used += size
            self.peak, self.reserved = max(self.peak, self.used), max(self.reserved, self.used)
            return int(key)

    def free(self, key: int) -> None:
        with self.lock:
            entry = self._live[key]
            entry[1] -= 1
            if entry[1] == 0:
                self.used -= entry[0]
                del self._live[key]

    def run(self, thunk: Thunk) -> None:
        """Queue work on the current stream, or add it to the graph that is being captured."""
        if self.graph is not None:
            self.graph.thunks.append(thunk)
        elif not self.dry:
            _current_stream(self).queue.append(thunk)

    def wait(self, why: str, stream: _Stream | None = None) -> None:
        """The host waits, for a stream or for all; `why` is what is counted."""
        self.check()
        if self.graph is not None:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing (simulated)")
        with self.lock:
            self.waits.append(why)
            for each in self.streams if stream is None else [stream]:
                each.drain()


class _Stream:
    def __init__(self, device: Any = None, *_: Any, **__: Any) -> None:
        self.gpu = device if isinstance(device, SimulatedGpu) else _gpu(device)
        self.device = torch.device("cuda", self.gpu.index)
        self.queue: deque[Thunk] = deque()
        self.gpu.streams.append(self)

    def drain(self, mark: _Mark | None = None) -> None:
        """Run what is queued, all of it or up to a mark."""
        with self.gpu.lock:
            while self.queue and not (mark is not None and mark.passed):
                self.queue.popleft()()

    def synchronize(self) -> None:
        self.gpu.wait("stream", self)

    def query(self) -> bool:
        with self.gpu.lock:
            if self.queue:
                self.queue.popleft()()
        return not self.queue

    def record_event(self, event: _Event | None = None) -> _Event:
        event = event or _Event()
        event.record(self)
        return event

    def wait_event(self, event: _Event) -> None:
        source, mark = event.stream, event.mark
        if source is not None and mark is not None and source is not self:
            self.queue.append(lambda: source.drain(mark))

    def wait_stream(self, stream: _Stream) -> None:
        self.wait_event(stream.record_event())

    def __enter__(self) -> None:
        _local.streams = {**_streams(), self.gpu.index: self}

    def __exit__(self, *_: object) -> None:
        _local.streams = {k: v for k, v in _streams().items() if k != self.gpu.index}


class _Mark:
    passed = False
    at = 0.0

    def reach(self) -> None:
        self.passed, self.at = True, time.perf_counter()


class _Event:
    def __init__(self, *_: Any, **__: Any) -> None:
        self.stream: _Stream | None = None
        self.mark: _Mark | None = None

    def record(self, stream: _Stream | None = None) -> None:
        self.stream = stream or _current_stream(_gpu(None))
        self.mark = mark = _Mark()
        self.stream.queue.append(mark.reach)

    def synchronize(self) -> None:
        if self.stream is not None and self.mark is not None:
            gpu = self.stream.gpu
            gpu.check()
            with gpu.lock:
                gpu.waits.append("event")
                self.stream.drain(self.mark)

    def query(self) -> bool:
        """Whether it has passed; each question lets the stream do one thing more."""
        if self.mark is None or self.mark.passed or self.stream is None:
            return True
        self.stream.query()
        return self.mark.passed

    def wait(self, stream: _Stream | None = None) -> None:
        (stream or _current_stream(_gpu(None))).wait_event(self)

    def elapsed_time(self, end: _Event) -> float:
        """Milliseconds of the host between two that have passed."""
        assert self.mark is not None, "not recorded"
        assert end.mark is not None, "not recorded"
        assert self.mark.passed, "not passed yet"
        assert end.mark.passed, "not passed yet"
        return (end.mark.at - self.mark.at) * 1000


class _Graph:
    """`torch.cuda.CUDAGraph`: what was captured is done again, into the same tensors."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.thunks: list[Thunk] = []
        self.gpu: SimulatedGpu | None = None

    def replay(self) -> None:
        assert self.gpu is not None, "captured nothing"
        self.gpu.check()
        self.gpu.launches.append("graph")
        for thunk in self.thunks:
            self.gpu.run(thunk)

    def reset(self) -> None:
        self.thunks = []

    def pool(self) -> tuple[int, int]:
        return (0, 0)


@contextlib.contextmanager
def _capture(graph: _Graph, *_: Any, **__: Any) -> Iterator[None]:
    """`torch.cuda.graph`."""
    gpu = _gpu(None)
    gpu.wait("capture")
    graph.gpu, gpu.graph = gpu, graph
    try:
        yield
    finally:
        gpu.graph = None


_gpus: list[SimulatedGpu] = []
_local = threading.local()


def _streams() -> dict[int, _Stream]:
    found: dict[int, _Stream] = getattr(_local, "streams", {})
    return found


def _current_index() -> int:
    return int(getattr(_local, "device", 0))


def _current_stream(gpu: SimulatedGpu) -> _Stream:
    return _streams().get(gpu.index, gpu.default_stream)


def _gpu(device: Any) -> SimulatedGpu:
    if device is None or isinstance(device, int):
        index = _current_index() if device is None else device
    else:
        index = torch.device(device).index
        index = _current_index() if index is None else index
    if not 0 <= index < len(_gpus):
        raise RuntimeError("CUDA error: invalid device ordinal (simulated)")
    return _gpus[index]


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


class _Tensor(torch.Tensor):
    """A tensor of a simulated device."""

    cell: _Cell

    @staticmethod
    def __new__(cls, cell: _Cell) -> _Tensor:
        gpu = _gpu(cell.device)
        key = gpu.allocate(cell.meta.untyped_storage())
        meta = cell.meta
        made: _Tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            meta.size(),
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=cell.device,
            requires_grad=False,
        )
        made.cell = cell
        weakref.finalize(made, gpu.free, key)
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"simulated({tuple(self.shape)}, {self.dtype}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _dispatch(func, args, kwargs or {})


def _pin(tensor: torch.Tensor) -> torch.Tensor:
    # A storage's Python object lives as long as the storage.
    tensor.untyped_storage().pinned = True  # type: ignore[attr-defined]
    return tensor


def _poison(tensor: torch.Tensor) -> None:
    torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage()).fill_(POISON)


def _is_pinned(tensor: torch.Tensor) -> bool:
    return getattr(tensor.untyped_storage(), "pinned", False)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _read(tree: Any) -> Any:
    return tree_map(lambda each: each.read() if isinstance(each, _Cell) else each, tree)


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:  # noqa: PLR0911
    """One operation, on the CPU or on a simulated device."""
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    mine = [each for each in tensors if isinstance(each, _Tensor)]
    if func is aten._pin_memory.default:
        return _pin(args[0].clone())
    if func is aten.is_pinned.default:
        return not isinstance(args[0], _Tensor) and _is_pinned(args[0])
    if kwargs.get("pin_memory"):
        made = func(*args, **{**kwargs, "pin_memory": False})
        if func is aten.empty.memory_format:
            _poison(made)
        return _pin(made)
    wanted = kwargs.get("device")
    if not mine and not _is_cuda(wanted):
        return func(*args, **kwargs)
    devices = {each.cell.device for each in mine}
    gpu = _gpu(mine[0].cell.device if mine else wanted)
    gpu.check()
    if func is aten._local_scalar_dense.default:
        gpu.wait("value", _current_stream(gpu))
        return func(torch.tensor(args[0].dtype == torch.bool).to(args[0].dtype) if gpu.dry else args[0].cell.read())
    if func is aten.equal.default:
        gpu.wait("value", _current_stream(gpu))
        return func(*(each.cell.read() for each in args))
    if func is aten._to_copy.default and (not mine or (wanted is not None and torch.device(wanted) not in devices)):
        return _moved(gpu, func, args, kwargs)
    if func is aten.copy_.default and (len(mine) == 1 or len(devices) > 1):
        return _copied(gpu, args, kwargs)
    foreign = any(not isinstance(each, _Tensor) and each.dim() > 0 for each in tensors)
    if foreign or len(devices) > 1:
        names = sorted({str(each.device) for each in tensors})
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {' and '.join(names)}! "
            f"({func}, simulated)"
        )
    return _computed(gpu, func, args, kwargs, mine)


def _moved(gpu: SimulatedGpu, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """`tensor.to(device)` between host and device, or between two devices."""
    source, target = args[0], torch.device(kwargs["device"])
    later = bool(kwargs.get("non_blocking"))
    here = {key: value for key, value in kwargs.items() if key not in {"non_blocking", "device"}}
    if target.type != "cuda":
        gpu.fetched += _bytes(source)
        cell = source.cell
        if not later:
            gpu.wait("copy to host", _current_stream(gpu))
            held = torch.zeros(source.shape, dtype=source.dtype) if gpu.dry else cell.read()
            return func(held, *args[1:], device="cpu", **here)
        # torch gives the host pinned memory here, and does not wait for it to be written.
        like = func(cell.meta, *args[1:], device="meta", **here)
        made = _pin(torch.empty_strided(like.size(), like.stride(), dtype=like.dtype))
        _poison(made)

        def fetch() -> None:
            made.copy_(cell.read())

        gpu.run(fetch)
        return made
    _gpu(target).sent += _bytes(source)
    meta = source.cell.meta if isinstance(source, _Tensor) else source.to("meta")
    target = torch.device("cuda", _gpu(target).index)
    made_cell = _Cell(func(meta, *args[1:], device="meta", **here), target)
    result = _Tensor(made_cell)
    held = source.cell if isinstance(source, _Tensor) else source if later and _is_pinned(source) else source.clone()

    def send() -> None:
        made_cell.real = func(_read(held), *args[1:], device="cpu", **here)

    if isinstance(source, _Tensor):  # between devices the streams of both wait
        gpu.wait("copy between devices")
    _gpu(target).run(send)
    if not later and _gpu(target).graph is None:
        _gpu(target).wait("copy to device", _current_stream(_gpu(target)))
    return result


def _copied(gpu: SimulatedGpu, args: Any, kwargs: dict[str, Any]) -> Any:
    """`target.copy_(source)` between host and device."""
    target, source = args[0], args[1]
    later = bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))
    if isinstance(target, _Tensor) and isinstance(source, _Tensor):
        raise NotImplementedError("copy_ between two simulated devices")
    if isinstance(target, _Tensor):
        gpu.sent += _bytes(source)
        target.cell.meta.copy_(source.to("meta"))
        held, into = source if later and _is_pinned(source) else source.clone(), target.cell

        def send() -> None:
            into.read().copy_(held)

        gpu.run(send)
        if not later:
            gpu.wait("copy to device", _current_stream(gpu))
        return target
    gpu.fetched += _bytes(source)
    cell = source.cell

    def fetch() -> None:
        with torch.inference_mode(target.is_inference()):  # whoever waits may be in another mode than who issued
            target.copy_(cell.read())

    gpu.run(fetch)
    if not (later and _is_pinned(target)):
        gpu.wait("copy to host", _current_stream(gpu))
    return target


def _computed(gpu: SimulatedGpu, func: Any, args: Any, kwargs: dict[str, Any], mine: Sequence[_Tensor]) -> Any:
    """A kernel, or a view."""
    run: Callable[..., Any] = FUSED.get(func, func)
    name = func._schema.name.removeprefix("aten::")
    kwargs = {**kwargs, "device": "cpu"} if kwargs.get("device") is not None else kwargs
    on_meta = tree_map(lambda each: each.cell.meta if isinstance(each, _Tensor) else each, (args, kwargs))
    metas = run(*on_meta[0], **(on_meta[1] if "device" not in kwargs else {**on_meta[1], "device": "meta"}))
    # Numbers that lie on the host are taken as they are now.
    cells = tree_map(
        lambda each: (
            each.cell if isinstance(each, _Tensor) else each.clone() if isinstance(each, torch.Tensor) else each
        ),
        (args, kwargs),
    )
    made = [each for each in tree_flatten(metas)[0] if isinstance(each, torch.Tensor)]
    storages = {each.cell.meta.untyped_storage()._cdata for each in mine}
    if func._schema.is_mutable:
        gpu.launch(name, tuple(each.dtype for each in mine))

        def change() -> None:
            given = _read(cells)
            with torch.inference_mode():
                run(*given[0], **given[1])

        gpu.run(change)
        return kwargs.get("out", args[0])
    view = bool(made) and all(each.untyped_storage()._cdata in storages for each in made)
    if not view and name not in NO_KERNELS:
        gpu.launch(name, tuple(each.dtype for each in mine))
    outs = tree_map(
        lambda each: _Cell(each, torch.device("cuda", gpu.index)) if isinstance(each, torch.Tensor) else each, metas
    )
    results = tree_map(lambda each: _Tensor(each) if isinstance(each, _Cell) else each, outs)
    coarse = name in PRODUCTS and gpu.capability >= (8, 0) and _allows_tf32(name)

    def compute() -> None:
        given = _read(cells)
        if coarse:
            given = tree_map(_as_tf32, given)
        real = run(*given[0], **given[1])
        for cell, value in zip(tree_flatten(outs)[0], tree_flatten(real)[0], strict=True):
            if isinstance(cell, _Cell):
                _set(cell, value, view=view)
                if gpu.on_result is not None and not view:
                    gpu.on_result(name, cell.read())

    gpu.run(compute)
    return results


def _set(cell: _Cell, value: torch.Tensor, *, view: bool) -> None:
    """The result of a kernel, in the layout that was promised for it."""
    if view:
        cell.real = value
    elif cell.real is not None:  # a graph's replay
        cell.real.copy_(value)
    elif value.stride() != cell.meta.stride():
        cell.real = torch.empty_strided(cell.meta.size(), cell.meta.stride(), dtype=value.dtype).copy_(value)
    else:
        cell.real = value


def _allows_tf32(name: str) -> bool:
    kind = "conv" if "convolution" in name else "matmul"
    return bool(torch._C._get_fp32_precision_getter("cuda", kind) == "tf32")


def _as_tf32(value: Any) -> Any:
    """fp32 with 10 bits of mantissa, rounded half up."""
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        return value
    return ((value.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32).reshape(value.shape)


class _DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.pin_memory.default:
            func = aten._pin_memory.default
        elif func is not aten.is_pinned.default and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), COMPOSITE
        ):
            # In inference mode these come whole. Torch decomposes them in C++, as for CUDA; those in Python differ.
            with self:
                return func._op_dk(COMPOSITE, *args, **kwargs)
        return _dispatch(func, args, kwargs)


class _FunctionMode(TorchFunctionMode):
    """What does not reach the dispatcher as it was written."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.record_stream:
            return None
        if func is torch.Tensor.tolist and isinstance(args[0], _Tensor):
            return args[0].cpu().tolist()
        if func is torch.Tensor.cuda:
            return args[0].to(torch.device("cuda", _gpu(args[1] if len(args) > 1 else kwargs.get("device")).index))
        if func is torch.Tensor.to:
            # torch would ask a driver for the current device.
            args = tuple(_with_index(each) for each in args)
            kwargs = {key: _with_index(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _with_index(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("cuda"):
        value = torch.device(value)
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cuda", _gpu(value).index)
    return value


@contextlib.contextmanager
def device_without_driver(kind: str) -> Iterator[None]:
    """Let torch change to devices of a kind, `CUDA` or `MPS`, by doing nothing, as it does for meta tensors."""
    suffix = "dylib" if torch.sys.platform == "darwin" else "so"  # type: ignore[attr-defined]
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / f"libc10.{suffix}"))
    kinds: Any = torch._C._autograd.DeviceType
    guards = (ctypes.c_void_p * (int(kinds.Meta) + 1)).in_dll(library, GUARDS)
    slot = int(getattr(kinds, kind))
    before = guards[slot]
    guards[slot] = guards[int(kinds.Meta)]
    try:
        yield
    finally:
        guards[slot] = before


class _Properties:
    def __init__(self, gpu: SimulatedGpu) -> None:
        self.name, self.total_memory = gpu.name, gpu.memory
        self.major, self.minor = gpu.capability
        self.multi_processor_count = 64


def _set_device(device: Any) -> int:
    before = _current_index()
    if device is not None and not (isinstance(device, int) and device < 0):
        _local.device = _gpu(device).index
    return before


def _set_fraction(fraction: float, device: Any = None) -> None:
    gpu = _gpu(device)
    gpu.memory = int(fraction * _full_memory[gpu.index])


def _empty_cache() -> None:
    for gpu in _gpus:
        gpu.check()
        gpu.reserved = gpu.used


_full_memory: list[int] = []


@contextlib.contextmanager
def simulated_cuda(
    *,
    count: int = 1,
    memory: int = 4 * 2**30,
    capability: tuple[int, int] = (8, 9),
    name: str = "NVIDIA Simulated",
    architectures: Sequence[str] = ARCHITECTURES,
) -> Iterator[list[SimulatedGpu]]:
    """Let torch see `count` CUDA devices.

    Args:
        count: of devices.
        memory: bytes of each.
        capability: compute capability of each; may be set for one alone afterwards.
        name: of each.
        architectures: what `torch.cuda.get_arch_list()` gives: for which capabilities this torch has kernels.
    """
    assert not _gpus, "one simulation at a time"
    _full_memory[:] = [memory] * count
    _gpus[:] = [SimulatedGpu(index, memory, capability, name) for index in range(count)]
    run = threading.Thread.run

    def run_in_mode(thread: threading.Thread) -> None:
        with _FunctionMode(), _DispatchMode():  # type: ignore[no-untyped-call]
            run(thread)

    replaced: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: count,
        "current_device": _current_index,
        "set_device": lambda device: _set_device(device) and None,
        "_exchange_device": _set_device,
        "_maybe_exchange_device": _set_device,
        "get_device_name": lambda device=None: _gpu(device).name,
        "get_device_capability": lambda device=None: _gpu(device).capability,
        "get_device_properties": lambda device=None: _Properties(_gpu(device)),
        "get_arch_list": lambda: list(architectures),
        "is_bf16_supported": lambda *_, **__: True,
        "mem_get_info": lambda device=None: (_gpu(device).memory - _gpu(device).reserved, _gpu(device).memory),
        "memory_reserved": lambda device=None: _gpu(device).reserved,
        "memory_allocated": lambda device=None: _gpu(device).used,
        "max_memory_allocated": lambda device=None: _gpu(device).peak,
        "empty_cache": _empty_cache,
        "set_per_process_memory_fraction": _set_fraction,
        "synchronize": lambda device=None: _gpu(device).wait("device"),
        "Stream": _Stream,
        "Event": _Event,
        "stream": lambda stream: stream if stream is not None else contextlib.nullcontext(),
        "current_stream": lambda device=None: _current_stream(_gpu(device)),
        "default_stream": lambda device=None: _gpu(device).default_stream,
        "CUDAGraph": _Graph,
        "graph": _capture,
    }
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        stack.enter_context(device_without_driver("CUDA"))
        for key, value in replaced.items():
            stack.enter_context(mock.patch.object(torch.cuda, key, value))
        stack.enter_context(mock.patch.object(torch.version, "cuda", "13.0"))
        stack.enter_context(mock.patch("keyscale.engine.machine._may_have_cuda", return_value=True))
        stack.enter_context(mock.patch.object(threading.Thread, "run", run_in_mode))
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(_gpus.clear)
        # Pictures of tests are small: threads would mostly wait for each other.
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        stack.enter_context(_FunctionMode())
        stack.enter_context(_DispatchMode())  # type: ignore[no-untyped-call]
        yield list(_gpus)
