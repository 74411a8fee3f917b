"The faults that the tests inject, by number; commands that run in a process of their own, which can be asked to stop, killed, and started as one of several."
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from vlground.core import load_json
from vlground.logs import read_log

FAULTS = {
    1: 'SIGKILL at any file event of a save: the checkpoint before loads, nothing to clean by hand',
    2: 'checkpoint cut short or one bit flipped: named, an older one is used',
    3: 'disk full while saving: the old checkpoint is intact, the error names path and bytes',
    4: 'resume in mid-epoch and at its edge, 0, 2, 4 workers: bit-identical',
    5: 'resume with other settings, data or world size: refused with the keys, a flag overrides',
    6: 'SIGTERM, Ctrl-C, kernel interrupt: step finished, saved; a second signal stops at once',
    7: 'pickle bomb: never executed, clear error',
    8: 'odd and broken pictures: the record says why, the shard completes, too many stop the run',
    9: 'odd captions: offsets true, cut phrases dropped and counted, no phrase is no loss',
    10: 'no positive, negative, phrase, masked word or region: that loss is 0, gradients defined, all ranks take part',
    11: 'NaN or infinity in loss or gradient: skipped, counted; k in a row stop the run and name the samples',
    12: 'rows that are all padding: finite',
    13: 'boxes of no area, reversed, outside, NaN: refused with the id; IoU 0; encodings finite',
    14: 'a loader worker dies: the error names shard and index',
    15: 'out of memory: the error says which setting to lower',
    16: 'a rank dies under torchrun: the others end, a restart resumes',
    17: 'labelling killed at random moments, two workers on a shard: a rerun gives the same bytes',
    18: 'no network, NLTK data missing: one clear error with the command to run',
    19: 'output path read-only, relative, with spaces and Unicode: works, or says so before any work is lost',
    20: 'lesson cells run twice or out of order: the same result, or a clear error',
    21: 'manifest or checkpoint of a newer format: refused, both versions named',
}

# forked, so that PyTorch is not imported once more; what kills it is a real signal
FORK = multiprocessing.get_context('fork')


def _work(do: Callable, args: tuple, told: Path, env: dict[str, str]) -> None:
    os.setsid() # a group of its own, as a terminal makes one for each command
    with open(told, 'ab', buffering=0) as file:
        for stream in (1, 2): os.dup2(file.fileno(), stream)
    sys.stdout, sys.stderr = (open(stream, 'w', buffering=1, closefd=False) for stream in (1, 2))
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)): signal.signal(number, handler)
    # pytest gathers warnings; a command prints them
    warnings.showwarning = lambda message, kind, file, line, *_: print(warnings.formatwarning(message, kind, file, line), file=sys.stderr, end='')
    os.environ.update(env)
    do(*args)


class Job:
    "A function in a process of its own, in a group of its own."

    def __init__(self, do: Callable, *args, told: Path, env: dict[str, str] | None = None):
        self.told = told
        self.process = FORK.Process(target=_work, args=(do, args, told, env or {}))
        self.process.start()
        while self.process.is_alive() and os.getpgid(self.process.pid) != self.process.pid: time.sleep(.001)

    @property
    def said(self) -> str: return self.told.read_text(errors='replace').replace('\r', '\n') if self.told.exists() else ''

    @property
    def lines(self) -> list[str]:
        "What it said but for progress bars and warnings."
        return [line for line in self.said.split('\n') if line.strip() and not any(word in line for word in ('step/s', 'Warning', 'warnings.warn', 'warn('))]

    def ask(self, number: int, group: bool = False) -> None:
        "Send a signal: to the process, or to all of its group as a terminal does."
        (os.killpg if group else os.kill)(self.process.pid, number)

    def kill(self) -> None:
        "SIGKILL to the process and to all that it started."
        try: os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError: pass
        self.process.join()

    def wait(self, seconds: float = 240) -> int:
        "The exit code."
        self.process.join(seconds)
        if self.process.is_alive():
            self.kill()
            raise AssertionError(f'not ended after {seconds} s:\n{self.said[-3000:]}')
        return self.process.exitcode

    def until(self, seen: Callable[[], bool], seconds: float = 240) -> 'Job':
        "Wait for something that it does while it runs."
        end = time.monotonic() + seconds
        while not seen():
            assert self.process.is_alive(), f'ended with {self.process.exitcode} too early:\n{self.said[-3000:]}'
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f'nothing seen for {seconds} s:\n{self.said[-3000:]}')
            time.sleep(.005)
        return self


def command(name: str, *words: object) -> None:
    "What a terminal runs, in this process."
    sys.argv = [name, *map(str, words)]
    script = Path(os.environ['VLGROUND_HOME'])/f'{name}.py'
    script.write_text(f'from vlground.cli import {name}\nif __name__ == "__main__": {name}()\n')
    runpy.run_path(str(script), run_name='__main__')


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(('127.0.0.1', 0))
        return asked.getsockname()[1]


def _or_end(do: Callable, args: tuple) -> None: # a rank that fails ends at once, without waiting for the others
    try: do(*args)
    except SystemExit: raise
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


class Ranks:
    "The same function in several processes that train together, as torchrun starts them."

    def __init__(self, count: int, do: Callable, *args, told: Path):
        common = dict(WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
        self.jobs = [Job(_or_end, do, args, told=told.with_name(f'{told.name}-{rank}'), env=common | dict(RANK=str(rank), LOCAL_RANK=str(rank))) for rank in range(count)]

    def wait(self, seconds: float = 240) -> list[int]: return [job.wait(seconds) for job in self.jobs]

    @property
    def said(self) -> str: return '\n'.join(job.said for job in self.jobs)

    def kill(self) -> None:
        for job in self.jobs: job.kill()


def children(pid: int) -> list[int]:
    "The processes that a process has started."
    found = []
    for status in Path('/proc').glob('[0-9]*/stat'):
        try: name, _, rest = status.read_text().rpartition(')')
        except OSError: continue
        if int(rest.split()[1]) == pid and rest.split()[0] != 'Z': found.append(int(name.split()[0]))
    return sorted(found)


def alive(pid: int) -> bool:
    try: return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError: return False


def figures(folder: Path) -> list[dict]:
    "The log of a run without its clock."
    return [{key: value for key, value in line.items() if key not in ('seconds', 'samples_per_s', 'data_wait')} for line in read_log(folder)]


def end_of(folder: Path) -> str:
    "The sha256 of a finished run's weights."
    return load_json(folder/'summary.json')['sha256']


def saved(folder: Path) -> int:
    "The step of the newest checkpoint that counts; -1 without any."
    return max((int(path.stem.removeprefix('step-')) for path in (folder/'checkpoints').glob('step-*.json')), default=-1)
