"""Decoders: processes that open, decode and resize episodes ahead of the model.

In go episodes in order; out comes their footage in the same order. Pixels come through memory without a name, which the
system frees with the last process that holds it, however that process ends. A decoder that dies or hangs takes the
episode with it that it was at, as an error; another one goes on. Decoders import no torch unless they resize.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from topreward.errors import TopRewardError
from topreward.jobs.frames import Footage, Recipe
from topreward.jobs.measure import read
from topreward.jobs.plan import Plan
from topreward.limits import limit
from topreward.types import Episode

AHEAD_BYTES = 2**30
"""Pixels that all decoders of a model hold for it together, before they start on the next episode."""
MOST_TOLD = 2**20
"""Bytes that an episode may take to be told; a clip that is in memory already is read in the model's process."""
ALIGNMENT = 64

Item = tuple[int, Episode]
"""A position, and the episode there."""


@dataclass(eq=False)
class _Decoder:
    process: BaseProcess
    pipe: Connection
    outstanding: int = 0
    """Episodes that it was told and that have not come back."""
    started: bool = False


class Decoders:
    """Decoder processes of one model. Use it in a `with` block: afterwards there are none."""

    def __init__(self, count: int, plan: Plan, *, ahead: int = 0) -> None:
        """`ahead`: episodes that may be decoded before they are asked for; at least two for each decoder.

        Starts them, so that they come up while a model is loaded; they wait for `look_for`.
        """
        # spawn: a forked child inherits threads and GPU contexts that do not survive it
        self._context = multiprocessing.get_context("spawn")
        self._recipes: Mapping[str, Recipe] = {}
        self._plan = plan
        self._ahead = max(ahead, 2 * count) if count else 1
        self.waited = 0.0
        """s that the caller waited for frames."""
        self._decoders: list[_Decoder] = []
        try:
            for _ in range(count):
                self._decoders.append(self._start())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def look_for(self, recipes: Mapping[str, Recipe]) -> None:
        """What is looked at in every episode: before the first one is read."""
        self._recipes = recipes
        for decoder in self._decoders:
            self._instruct(decoder)

    def close(self) -> None:
        """End all of them, whatever they are at."""
        for decoder in self._decoders:
            decoder.pipe.close()
            decoder.process.terminate()  # it writes no file and holds nothing that outlives it
        for decoder in self._decoders:
            _bury(decoder.process)
        self._decoders.clear()
        self._ahead = 1

    def footage(self, items: Iterable[Item]) -> Iterator[tuple[int, Episode, Footage | str]]:
        """Each episode with its footage, or why there is none, in order.

        Takes as many of `items` ahead as it may have waiting. Raises TopRewardError where no decoder can be started.
        """
        source = iter(items)
        waiting: deque[tuple[int, Episode, bytes | None, _Decoder | None]] = deque()
        more = True
        while True:
            while more and len(waiting) < self._ahead:
                item = next(source, None)
                if item is None:
                    more = False
                    break
                position, episode = item
                told = _told(episode) if self._decoders else None
                chosen = min(self._decoders, key=lambda d: d.outstanding) if told is not None else None
                if chosen is not None:
                    self._tell(chosen, position, told)
                waiting.append((position, episode, told, chosen))
            if not waiting:
                return
            position, episode, told, chosen = waiting.popleft()
            start = time.perf_counter()
            if chosen is None:
                found: Footage | str = read(episode, self._recipes, self._plan)
            else:
                found, replaced = self._hear(chosen, position, told, waiting)
                if replaced is not None:
                    waiting = deque((p, e, t, replaced if d is chosen else d) for p, e, t, d in waiting)
            self.waited += time.perf_counter() - start
            yield position, episode, found
            del found, episode  # the pixels must not wait for the next episode

    def _start(self) -> _Decoder:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_decode, args=(theirs,), daemon=True)
        process.start()
        theirs.close()  # so that its death is the end of the pipe
        return _Decoder(process, ours)

    def _instruct(self, decoder: _Decoder) -> None:
        with suppress(OSError):
            decoder.pipe.send((dict(self._recipes), self._plan, AHEAD_BYTES // len(self._decoders)))

    def _tell(self, decoder: _Decoder, position: int, told: bytes | None) -> None:
        decoder.outstanding += 1
        with suppress(OSError):  # it has just died: the end of its pipe is heard when its turn comes
            decoder.pipe.send((position, told))

    def _hear(
        self, decoder: _Decoder, position: int, told: bytes | None, waiting: Iterable[Any]
    ) -> tuple[Footage | str, _Decoder | None]:
        """The footage of the position that the decoder is at, and who took its place where it had to be replaced."""
        rest = [(p, t) for p, _, t, d in waiting if d is decoder]
        replaced: _Decoder | None = None
        for tries in (1, 2):
            current = replaced or decoder
            found = self._listen(current, position)
            if found is not None:
                return found, replaced
            if not current.started:
                raise TopRewardError(f"a decoder did not start (exit status {current.process.exitcode})")
            hung = current.process.exitcode is None
            if hung:
                current.process.kill()
                current.process.join()
            replaced = self._replace(current)
            # One that was killed from outside is no fault of the episode: it is tried once more.
            for p, t in rest if hung or tries == 2 else [(position, told), *rest]:
                self._tell(replaced, p, t)
            if hung:
                error = f"decoding took longer than {limit('max_decode_seconds'):g} s (TOPREWARD_MAX_DECODE_SECONDS)"
                return error, replaced
            error = f"the process that decoded it died with exit status {current.process.exitcode}"
        return error, replaced

    def _replace(self, decoder: _Decoder) -> _Decoder:
        decoder.pipe.close()
        fresh = self._start()
        self._decoders[self._decoders.index(decoder)] = fresh
        self._instruct(fresh)
        return fresh

    def _listen(self, decoder: _Decoder, position: int) -> Footage | str | None:
        """What the decoder says of a position; None where it is dead, or where it hangs."""
        try:
            if not decoder.started:
                decoder.pipe.recv()
                decoder.started = True
            if not decoder.pipe.poll(limit("max_decode_seconds")):
                return None
            number, sizes = decoder.pipe.recv()
            assert number == position, f"a decoder has position {number}, want {position}"
            decoder.outstanding -= 1
            found = _receive(decoder.pipe, sizes)
        except (EOFError, OSError):
            decoder.process.join(5)
            return None
        with suppress(OSError):
            decoder.pipe.send((None, sum(sizes)))
        return found


def _told(episode: Episode) -> bytes | None:
    """The episode as bytes; None where it has to be read in this process."""
    try:
        told = pickle.dumps(episode)
    except Exception:  # whatever a stranger's loader raises
        return None
    return told if len(told) <= MOST_TOLD else None


def _bury(process: BaseProcess) -> None:
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join(5)
    process.close() if not process.is_alive() else None


def _decode(pipe: Connection) -> None:
    """A decoder's life: read what it is told, one after the other, until nobody listens."""
    for heard_by_parent in ("SIGINT", "SIGHUP"):  # which then ends us
        if hasattr(signal, heard_by_parent):
            signal.signal(getattr(signal, heard_by_parent), signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, if it is: the model needs the cores
    waiting: deque[tuple[int, bytes]] = deque()
    held: int = 0

    def hear() -> None:
        nonlocal held
        position, said = pipe.recv()
        if position is None:
            held -= said
        else:
            waiting.append((position, said))

    try:
        recipes, plan, most = pipe.recv()
        pipe.send("ready")
        while True:
            while not waiting or held > most or pipe.poll():
                hear()
            position, episode = waiting.popleft()
            held += _send(pipe, position, _read(episode, recipes, plan))
    except (EOFError, OSError):
        return  # the parent is gone


def _read(told: bytes, recipes: Mapping[str, Recipe], plan: Plan) -> Footage | str:
    return read(pickle.loads(told), recipes, plan)


def _send(pipe: Connection, position: int, found: Footage | str) -> int:
    """Say what was found; its arrays go into memory that is shared. Returns their bytes."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(found, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    sizes = [part.nbytes for part in parts]
    handle = _memory()
    try:
        offset = 0
        for part in parts:
            _write(handle, part, offset)
            offset += -(-part.nbytes // ALIGNMENT) * ALIGNMENT
        os.ftruncate(handle, max(offset, 1))
        pipe.send((position, sizes))
        with socket.socket(fileno=os.dup(pipe.fileno())) as wire:
            socket.send_fds(wire, [b"M"], [handle])
    finally:
        os.close(handle)
    return sum(sizes)


def _receive(pipe: Connection, sizes: list[int]) -> Footage | str:
    """What `_send` sent: arrays lie in the shared memory, which goes when they do."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as wire:
        mark, handles, _, _ = socket.recv_fds(wire, 1, 1)
    if not mark or not handles:
        raise EOFError
    try:
        memory = memoryview(mmap.mmap(handles[0], 0))
    finally:
        for handle in handles:
            os.close(handle)
    parts, offset = [], 0
    for size in sizes:
        parts.append(memory[offset : offset + size])
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    found: Footage | str = pickle.loads(parts[0], buffers=parts[1:])
    return found


def _memory() -> int:
    """A file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("topreward-frames", os.MFD_CLOEXEC)  # not bound by the size of /dev/shm
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(handle: int, part: memoryview, offset: int) -> None:
    done = 0
    flat = part.cast("B") if part.nbytes else part
    while done < part.nbytes:
        done += os.pwrite(handle, flat[done : done + 2**30], offset + done)
