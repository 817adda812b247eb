"""One writer at a time for what is written over minutes or days: two processes would mix their outputs.

A lock is a file beside or in the output that names its holder: process, machine, since when, command. It is made by
linking a complete file to the name, which only one process can do, on shared disks as well. `flock` is not used: some
shared disks lack it or keep it to one machine, and processes that were forked would hold it on after a kill.

A holder that was killed leaves its lock. On its own machine it is known to be dead, by the number and the starting time
of its process, and the next one takes the lock over; on another that cannot be known, and the error names the file. Who
takes over the lock with token T must first hold the lock `LOCK.dead-T`, and then look again whether T is still there.
So no one but its holder removes or replaces a lock that is in use, however many find a dead one at the same time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timesformer.text import shown

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EACCES)
_LARGEST = 2**16  # bytes of a lock
_COMMAND = 300  # characters of the command that a lock keeps


class OutputInUse(OSError):
    """Another process writes this output."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        token: of this lock alone, 16 hexadecimal digits.
        pid, started: the process, and when it started in ticks since the machine did; "" where that is not known.
        host, machine, boot, namespace: where it runs: name, id, id of this start, space that `pid` is a number of.
        since, command: for people.
    """

    token: str
    pid: int
    started: str
    host: str
    machine: str
    boot: str
    namespace: str
    since: str
    command: str


@dataclass
class _Held:
    """A lock of this process: by which thread, how often, and which folders were made for it."""

    token: str
    pid: int
    thread: int
    count: int
    made: list[Path]


_held: dict[Path, _Held] = {}


@contextlib.contextmanager
def output_lock(output: str | Path, *, folder: bool) -> Iterator[None]:
    """Hold the lock of an output, so that no other process writes it; within it, the same thread may take it again.

    Folders that are missing are made; they are removed at the end if nothing was put into them.

    Args:
        output: what is written.
        folder: whether that is a folder, or a file.

    Raises:
        OutputInUse: another process, or another thread of this one, writes it.
        OSError: the lock can't be written.
    """
    take(output, folder=folder)
    try:
        yield
    finally:
        release(output, folder=folder)


def take(output: str | Path, *, folder: bool) -> None:
    """Take the lock of an output until `release`; see `output_lock`."""
    file = lock_file(output, folder=folder)
    held = _held.get(file)
    if held and held.pid == os.getpid():  # not that of a parent process
        if held.thread != threading.get_ident():
            raise OutputInUse(f"{output}: is being written by another thread of this process")
        held.count += 1
        return
    made: list[Path] = []
    try:
        token = _acquire(file, made)
    except OutputInUse as error:
        raise OutputInUse(f"{output}: {error}") from None
    except OSError as error:
        _remove_empty(made)
        raise OSError(f"{output}: can't be written ({error.strerror or error})") from error
    _held[file] = _Held(token, os.getpid(), threading.get_ident(), 1, made)


def release(output: str | Path, *, folder: bool) -> None:
    """Give the lock of an output back; in a process that was forked from its holder nothing happens."""
    file = lock_file(output, folder=folder)
    held = _held.get(file)
    if held is None or held.pid != os.getpid():
        return
    held.count -= 1
    if held.count == 0:
        del _held[file]
        _remove(file, held.token)
        _remove_empty(held.made)


def lock_file(output: str | Path, *, folder: bool) -> Path:
    """Where the lock of an output is: in the folder, or beside the file."""
    real = Path(os.path.realpath(output))
    if folder:
        return real / ".timesformer.lock"
    name = real.name if len(os.fsencode(real.name)) < 150 else hashlib.sha256(os.fsencode(real.name)).hexdigest()[:32]
    return real.with_name(f".{name}.timesformer.lock")


def is_running(pid: int, started: str = "") -> bool:
    """Whether a process of this machine runs; with the time that it started, whether it is that very one."""
    if os.name != "posix":
        return True  # it is not known
    try:
        if pid < 1:
            return False
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        pass
    state, began = _state(pid)
    return state not in ("Z", "X") and (not state or started in ("", began))


def _acquire(file: Path, made: list[Path]) -> str:
    """Make the lock; the token of it. OutputInUse where somebody holds it who may be alive."""
    me = _myself()
    own = file.with_name(f"{file.name}.new-{me.token}")
    try:
        while True:
            _write(own, me, made)
            if _link(own, file):
                return me.token
            try:
                holder = _read(file)
            except FileNotFoundError:  # given back at this moment
                continue
            if not _is_dead(holder):
                raise OutputInUse(_in_use(file, holder))
            if _take_over(file, own, holder):
                return me.token
    finally:
        own.unlink(missing_ok=True)


def _take_over(file: Path, own: Path, dead: Holder) -> bool:
    """Put `own` in place of a dead holder's lock, unless another one has done so."""
    claim = file.with_name(f"{file.name}.dead-{dead.token}")
    token = _acquire(claim, [])
    try:
        try:
            if _read(file).token != dead.token:
                return False
        except FileNotFoundError:
            return False
        os.replace(own, file)
        file.with_name(f"{file.name}.new-{dead.token}").unlink(missing_ok=True)
        return True
    finally:
        _remove(claim, token)


def _write(own: Path, me: Holder, made: list[Path]) -> None:
    if own.exists():
        return
    for folder in reversed([each for each in (own.parent, *own.parent.parents) if not each.exists()]):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            made.append(folder)
    content = json.dumps(dataclasses.asdict(me)).encode()
    try:
        descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileNotFoundError:
        if not own.parent.exists():  # removed by another process as it was empty: `_acquire` tries again
            return
        raise
    with open(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(descriptor)


def _link(own: Path, file: Path) -> bool:
    """Give the file its name, unless there is one of that name."""
    try:
        os.link(own, file)
    except FileNotFoundError:
        return False
    except FileExistsError:
        return own.stat().st_nlink == 2  # on a network's disk, a reply that was lost makes it look as if it failed
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with open(descriptor, "wb") as out:
            out.write(own.read_bytes())
    return True


def _read(file: Path) -> Holder:
    """What a lock says. FileNotFoundError if there is none; OutputInUse if it says nothing that is understood."""
    for _ in range(20):  # where disks have no links, it may be empty for a moment
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(file, flags), "rb") as content, contextlib.suppress(ValueError, TypeError, RecursionError):
            values: dict[str, Any] = json.loads(content.read(_LARGEST))
            holder = Holder(**values)
            if re.fullmatch("[0-9a-f]{16}", holder.token) and isinstance(holder.pid, int):
                return holder
        time.sleep(0.05)
    raise OutputInUse(f"has a lock that is not understood: remove {file} if nothing writes it")


def _remove(file: Path, token: str) -> None:
    with contextlib.suppress(OSError):
        if _read(file).token == token:
            file.unlink()


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _myself() -> Holder:
    command = shlex.join(["timesformer" if sys.argv[:1] else "python", *sys.argv[1:]])
    return Holder(
        secrets.token_hex(8),
        os.getpid(),
        _state(os.getpid())[1],
        platform.node(),
        _content("/etc/machine-id"),
        _content("/proc/sys/kernel/random/boot_id"),
        _namespace(),
        time.strftime("%Y-%m-%d %H:%M:%S %z"),
        shown(command if len(command) <= _COMMAND else command[:_COMMAND] + " …"),
    )


def _is_dead(holder: Holder) -> bool:
    """Whether the process is known to be gone."""
    me = _myself()
    if holder.host != me.host:
        return False
    if holder.boot != me.boot:  # the machine was started again, unless another one has the same name
        return bool(me.machine) and holder.machine == me.machine
    return holder.namespace == me.namespace and not is_running(holder.pid, str(holder.started))


def _in_use(file: Path, holder: Holder) -> str:
    who = f"process {holder.pid} on {shown(holder.host)} since {shown(holder.since)} ({shown(holder.command)})"
    me = _myself()
    here = (holder.host, holder.boot, holder.namespace) == (me.host, me.boot, me.namespace)
    hint = "" if here else f"; if that is known to have ended, remove {file}"
    return f"is being written by {who}{hint}"


def _state(pid: int) -> tuple[str, str]:
    """State and starting time of a process, as Linux tells them; empty where they are not known."""
    fields = _content(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (fields[0], fields[19]) if len(fields) > 19 else ("", "")


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _content(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
