"""What a job has spent on Modal so far, what its running calls will come to, and the bound on both.

A client sees no bill. It sees when calls begin and end and in which container, and counts each container as Modal does
(`engine.remote.prices`): from its start to its last call's end, and the idle time after that.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from keyscale.engine.errors import UsageError
from keyscale.engine.plan.describe import RemoteEstimate
from keyscale.engine.remote.estimate import affordable, dollars_text, storage_cost
from keyscale.engine.remote.prices import CPU, IDLE_S, asking_cost, cost, gpu_of
from keyscale.engine.wording import say
from keyscale.engine.worker.contract import Made

__all__ = ["Account", "Budget"]

WAITED_S = 60.0
"""How long a call waits for its container before that is told; to start one takes less."""

RAISE = say("Raise {max_cost} and run the command again: what is finished is not done again.")


class Budget:
    """What several jobs may cost together. May be used from any thread."""

    def __init__(self, most: float | None) -> None:
        """`most` is dollars; None is no bound."""
        self.most = most
        self.lock = threading.RLock()
        self._accounts: list[Account] = []

    def open(self, expected: RemoteEstimate) -> Account:
        """The account of a job that is about to begin.

        Raises:
            UsageError: all that began and this one are expected to cost more; it is not counted then.
        """
        affordable(expected, self.most)
        with self.lock:
            total = expected.dollars + sum(account.commitment() for account in self._accounts)
            if self.most is not None and total > self.most:
                raise UsageError(
                    say(
                        "with this clip, estimated at {}, those that were begun come to {}, more than {max_cost} {}",
                        dollars_text(expected.dollars),
                        dollars_text(total, above=self.most),
                        f"{self.most:g}",
                    ),
                    remedy=RAISE,
                )
            account = Account(self, expected)
            self._accounts.append(account)
            return account

    def allows(self, account: Account, dollars: float) -> bool:
        """Whether one job may come to `dollars`, beside what the others come to."""
        with self.lock:
            others = sum(other.commitment() for other in self._accounts if other is not account)
            return self.most is None or others + dollars <= self.most


@dataclass
class _Container:
    """One that worked for a job; times on the clock of whoever tells them."""

    gpu: str
    first: float
    """When its first call began."""
    last: float
    """When its last one ended."""
    start: float
    """Seconds until the first one."""

    @property
    def seconds(self) -> float:
        return self.start + self.last - self.first + IDLE_S


class Account:
    """One job's spending. May be used from any thread."""

    def __init__(self, budget: Budget, expected: RemoteEstimate) -> None:
        """Nothing was begun; `expected` is what the job was estimated at."""
        self._budget, self._expected = budget, expected
        self._cores = expected.chosen.cores
        self._containers: dict[str, _Container] = {}
        self._running: dict[str, tuple[float, int]] = {}
        """When each call was started, and for how many frames."""
        self._calls = self._made = self._frames = 0
        """Calls that were started; those that made their frames, and how many these were."""
        self._seconds = self._making = 0.0
        """Of those."""
        self._loose = self._loose_seconds = 0.0
        """Dollars and seconds of calls whose container is not known."""
        self._lost = 0.0
        """Dollars of calls that came to nothing."""
        self._is_open = True
        self._longest_wait, self._most_at_once = 0.0, 0

    def begun(self, call_id: str, frames: int, at: float) -> None:
        """A call was started to make `frames` frames."""
        with self._budget.lock:
            self._running[call_id] = at, frames
            self._calls += 1
            self._most_at_once = max(self._most_at_once, len(self._running))

    def works(self, call_id: str | None, at: float) -> None:
        """A call, if one is meant, is in a container since `at`; until then it waited for one, which costs nothing."""
        with self._budget.lock:
            if call_id is not None and call_id in self._running:
                begun, frames = self._running[call_id]
                self._longest_wait = max(self._longest_wait, at - begun)
                self._running[call_id] = at, frames

    def ended(self, call_id: str, at: float, made: Made | None, answer: Mapping[str, object], longest_s: float) -> None:
        """A call ended with what it made, or came to nothing; as `made` and `given_up`."""
        if made is not None:
            self.made(call_id, at, made)
        else:
            self.given_up(call_id, at, answer, longest_s=longest_s)

    def made(self, call_id: str, at: float, made: Made) -> None:
        """A call was answered `at` with what it made, or with what another call, of which nobody told, had made."""
        with self._budget.lock:
            begun, frames = self._running.pop(call_id)
            if made.again:
                self._loose += cost(made.gpu, made.seconds, self._cores)
                self._loose_seconds += made.seconds
                return
            self._longest_wait = max(self._longest_wait, at - begun - made.seconds)
            self._made += 1
            self._frames += frames
            self._seconds += made.seconds
            self._making += made.stages.making
            self._worked(made.gpu, made.container, at, made.seconds, made.stages.start)

    def given_up(self, call_id: str, at: float, answer: Mapping[str, object], *, longest_s: float) -> None:
        """A call came to nothing.

        Args:
            call_id: of the call.
            at: when that was known.
            answer: a `refusal`; empty where it ended in another way.
            longest_s: how long it worked at most; it may have waited before it cost anything.
        """
        with self._budget.lock:
            begun, _ = self._running.pop(call_id)
            told, where, container = answer.get("seconds"), answer.get("gpu"), answer.get("container")
            gpu = where if isinstance(where, str) else self._expected.chosen.gpu
            seconds = float(told) if isinstance(told, int | float) and 0 <= told < math.inf else at - begun
            seconds = min(seconds, longest_s)
            self._lost += cost(gpu, seconds, self._cores)
            if isinstance(container, str):
                self._worked(gpu, container, at, seconds, None)
            else:
                self._loose += cost(gpu, seconds, self._cores)
                self._loose_seconds += seconds

    def _worked(self, gpu: str, container: str, at: float, seconds: float, start: float | None) -> None:
        new = _Container(gpu, at - seconds, at, self._expected.start_seconds)
        found = self._containers.setdefault(container, new)
        found.first, found.last = min(found.first, new.first), max(found.last, at)
        found.start = found.start if start is None else start

    @property
    def spent(self) -> float:
        """Dollars: of containers from their start to the end of their idle time, of storage, and of asking."""
        with self._budget.lock:
            own = sum(cost(one.gpu, one.seconds, self._cores) for one in self._containers.values())
            return own + self._loose + storage_cost(self._calls) + asking_cost()

    @property
    def seconds(self) -> float:
        """Seconds of containers that are paid, start and idle time included."""
        with self._budget.lock:
            return sum(one.seconds for one in self._containers.values()) + self._loose_seconds

    @property
    def call_seconds(self) -> float | None:
        """What a call took beside its frames, the time until its container's next call included."""
        with self._budget.lock:
            if not self._made:
                return None
            worked = sum(one.last - one.first for one in self._containers.values())
            return max(0.0, worked - self._making) / self._made

    def commitment(self, frames: int | None = None, at: float | None = None) -> float:
        """What the job comes to: as was expected while it goes on, or more where that is already in sight.

        Args:
            frames: of a call that is about to be started as well.
            at: now, so that calls which run for longer than was expected count as they do; not looked at by default.
        """
        with self._budget.lock:
            running: list[tuple[float | None, int]] = [*self._running.values()]
            running += [] if frames is None else [(None, frames)]
            # Modal gives a later kind of those that were asked for where it has none of the first.
            came = (gpu_of(one.gpu).name for one in self._containers.values())
            gpu = max((self._expected.chosen.gpu, *came), key=lambda name: cost(name, 1.0, self._cores))
            sight = self.spent
            for begun, count in running:
                waited = 0.0 if at is None or begun is None else at - begun
                sight += cost(gpu, max(waited, self._call_of(count)), self._cores)
            fresh = max(0, len(running) - len(self._containers))
            sight += fresh * cost(gpu, self._expected.start_seconds + IDLE_S, self._cores)
            return max(self._expected.dollars, sight) if self._is_open else sight

    def _call_of(self, frames: int) -> float:
        """Seconds that a call of `frames` frames is expected to take, by those that were made, if any."""
        if self._frames:
            return frames * self._seconds / self._frames
        return self._expected.call_seconds + frames * self._expected.frame_seconds

    def may_begin(self, frames: int, at: float) -> bool:
        """Whether another call, of `frames` frames, stays within the bound."""
        with self._budget.lock:
            return self._budget.allows(self, self.commitment(frames, at))

    def refusal(self, left: int) -> UsageError:
        """That nothing more is begun: `left` frames are not made."""
        most = self._budget.most or 0.0
        total = self.commitment(max(1, self._frames // max(1, self._made)))
        lost = say(", of that {} for calls that were given up", dollars_text(self._lost)) if self._lost else ""
        return UsageError(
            say(
                "{} were spent{}, and {} frames are left: the next call would bring the job to {}, more than "
                "{max_cost} {}",
                dollars_text(self.spent),
                lost,
                left,
                dollars_text(total, above=most),
                f"{most:g}",
            ),
            remedy=RAISE
            if not self._lost
            else say(
                "Look at `modal app logs keyscale`, or raise {max_cost} and run "
                "the command again: what is finished is not done again."
            ),
        )

    def fewer_came(self) -> str | None:
        """That fewer containers worked than calls ran at once, where a call waited for one for long; None otherwise."""
        with self._budget.lock:
            came, wanted, waited = len(self._containers), self._most_at_once, self._longest_wait
        if came >= wanted or waited <= WAITED_S:
            return None
        if gpu_of(self._expected.chosen.gpu) is CPU:
            why = "the account may have no more (Modal's Starter plan has 100, Team 1000), or Modal had none"
        else:
            why = "the account may have no more GPUs (Modal's Starter plan has 10, Team 50), or Modal had none"
        containers = "1 container" if came == 1 else f"{came} containers"
        return f"{containers} came for {wanted} calls at once, and a call waited {waited:.0f} s for one: {why}"

    def close(self) -> None:
        """The job is over: it counts for what it spent."""
        with self._budget.lock:
            self._is_open = False
