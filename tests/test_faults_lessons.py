"""Fault 20: the cells of a lesson are run from the last to the first and once more in order: the same results, or a clear error.

That each cell may be run twice in a row is seen in tests/test_notebooks.py."""
import json
import shutil

import pytest
from faults import Job
from notebooks import NOTEBOOKS, ROOT, cells, ids, source
from test_notebooks import left_out

BACKWARDS = [path for path in NOTEBOOKS if path.stem in ('03_boxes', '04_alignment', '07_loading')]


@pytest.fixture
def folder(tmp_path):
    "A copy of the notebooks, where lessons find their pictures."
    shutil.copytree(ROOT/'results', tmp_path/'results')
    return shutil.copytree(ROOT/'nbs', tmp_path/'nbs', symlinks=False, ignore=shutil.ignore_patterns('.ipynb_checkpoints'))


def backwards(path, told):
    "Run the cells of a lesson in one shell, from the last to the first and then in order; write down the error of each."
    from execnb.shell import CaptureShell
    import matplotlib
    matplotlib.use('Agg')
    codes = [source(cell) for cell in cells(path, 'code') if not left_out(cell)]
    shell, found = CaptureShell(mpl_format=None), []
    for number in [*reversed(range(len(codes))), *range(len(codes))]:
        shell.exc = None
        shell.run(codes[number])
        found.append((number, type(shell.exc).__name__ if shell.exc else '', str(shell.exc)[:300]))
    told.write_text(json.dumps([len(codes), found]))


@pytest.mark.fault(20)
@pytest.mark.parametrize('path', BACKWARDS, ids=ids(BACKWARDS))
def test_a_cell_that_needs_an_earlier_one_says_so(path, folder, tmp_path, monkeypatch):
    "Backwards a cell works, or fails for a name that it does not find, and gives no wrong result; what it left behind does not change the run in order."
    monkeypatch.chdir(folder)
    job = Job(backwards, path, tmp_path/'found', told=tmp_path/'told')
    try: assert job.wait() == 0, job.said[-3000:]
    finally: job.kill()
    count, found = json.loads((tmp_path/'found').read_text())
    first, second = found[:count], found[count:]
    kinds = [kind for _, kind, _ in first if kind]
    assert kinds.count('NameError') >= 5 and set(kinds) <= {'NameError', 'ImportError', 'ModuleNotFoundError'}, first
    assert not [each for each in second if each[1]], [each for each in second if each[1]]
