"Run a piece of Python in a process of its own, kill it at a chosen moment, and compare what folders hold."
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def begin(code: str, *words: str) -> subprocess.Popen:
    "Start a script in a session of its own, so that its workers die with it."
    env = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}', 'MPLBACKEND': 'Agg'}
    return subprocess.Popen([sys.executable, *([code] if Path(code).is_file() else ['-c', code]), *map(str, words)], env=env, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    "Wait for a process to end well; give what it printed."
    said, _ = process.communicate()
    assert process.returncode == 0, f'ended with {process.returncode}:\n{said}'
    return said


def wait_until(process: subprocess.Popen, seen: Callable[[], bool], seconds: float = 240) -> None:
    "Wait for something that a running process does; fail with what it printed if it ends before."
    end = time.monotonic() + seconds
    while not seen():
        if process.poll() is not None: raise AssertionError(f'ended with {process.returncode} too early:\n{process.stdout.read()}')
        if time.monotonic() > end:
            kill(process)
            raise AssertionError(f'nothing seen for {seconds} s')
        time.sleep(.01)


def kill(process: subprocess.Popen) -> None:
    "SIGKILL to the process and to all that it started."
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def contents(folder: Path, but: tuple[str, ...] = ('.lock',)) -> dict[str, bytes]:
    "Every file below a folder by its path."
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file() and path.name not in but}
