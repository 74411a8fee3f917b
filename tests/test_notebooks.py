"""Each notebook runs from top to bottom in a fresh kernel; cells with a flag of settings.ini (gpu, slow, net) are left out, as nbdev_test does.

The lessons that train, save and go on (07, 18, 23), where something hidden would hurt most, are run with each cell twice in a row (fault 20); the others are not, for their time alone.
VLGROUND_TWICE=all runs them so, too; with none each cell is run once."""
import configparser
import os
import re
import shutil
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from notebooks import NOTEBOOKS, ROOT, cells, directives, ids, source

SETTINGS = configparser.ConfigParser(delimiters=['='])
SETTINGS.read(ROOT/'settings.ini')
# VLGROUND_FLAGS='slow net' pytest ... runs those cells too
FLAGS = set(SETTINGS['DEFAULT']['tst_flags'].split()) - set(os.environ.get('VLGROUND_FLAGS', '').split())
CELL_TIMEOUT = 600 # seconds
TWICE = re.compile({'all': '.*', 'none': '(?!)'}.get(os.environ.get('VLGROUND_TWICE', ''), '(07|18|23)_'))


def left_out(cell: dict) -> bool:
    "Is this a code cell that nbdev_test would not run?"
    return bool(FLAGS & directives(cell).keys()) or directives(cell).get('eval', '').lower() == 'false' or 'nbdev_export' + '(' in source(cell)


def tables(notebook: nbformat.NotebookNode) -> dict[str, list[str]]: # by the id of the cell
    "What is shown as Markdown: tables of results, for the most part."
    return {cell.id: [output.data['text/markdown'] for output in cell.get('outputs', []) if 'text/markdown' in output.get('data', {})] for cell in notebook.cells}


def execute(path: Path, folder: Path) -> float:
    "Run a copy of a notebook in `folder`, a copy of nbs; give the seconds it took, or fail with the cell and its traceback."
    notebook = nbformat.read(path, as_version=4)
    numbers = [number for number, cell in enumerate(notebook.cells) if cell.cell_type != 'code' or not left_out(cell)]
    notebook.cells = [notebook.cells[number] for number in numbers]
    saved = tables(notebook)
    env = {name: value for name, value in os.environ.items() if name != 'MPLBACKEND'} # the kernel chooses the one that shows figures
    env |= {'OMP_NUM_THREADS': '1', 'IPYTHONDIR': str(folder.parent/'ipython'), 'JUPYTER_PREFER_ENV_PATH': '1', 'PYTHONPATH': str(ROOT)}
    start = time.monotonic()
    client = NotebookClient(notebook, timeout=CELL_TIMEOUT, kernel_name='python3', resources={'metadata': {'path': str(folder)}})
    try: client.execute(env=env)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        ran = [place for place, cell in enumerate(notebook.cells) if cell.cell_type == 'code' and (cell.execution_count or cell.outputs or 'execution' in cell.metadata)]
        place = max(ran, default=0)
        text = re.sub(r'\x1b\[[0-9;]*m', '', str(error))
        pytest.fail(f'{path.name}, cell {numbers[place]} (id {notebook.cells[place].id}) failed:\n{text}', pytrace=False)
    stale = [id for id, shown in tables(notebook).items() if saved[id] not in ([], shown)]
    assert not stale, f'{path.name}: what cells {stale} show is not what they give now; run the notebook and save it'
    return time.monotonic() - start


def doubled(path: Path, folder: Path) -> Path:
    "A notebook in `folder` with each code cell twice in a row."
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [again for cell in notebook.cells for again in ([cell, nbformat.from_dict(cell | {'id': f'{cell.id}-2'})] if cell.cell_type == 'code' else [cell])]
    nbformat.write(notebook, folder/f'{path.stem} twice.ipynb')
    return folder/f'{path.stem} twice.ipynb'


@pytest.mark.parametrize('path', [pytest.param(path, marks=[pytest.mark.fault(20)]*bool(TWICE.match(path.stem))) for path in NOTEBOOKS], ids=ids(NOTEBOOKS))
def test_notebook_runs(path, tmp_path, record_property):
    folder = tmp_path/'nbs'
    shutil.copytree(ROOT/'nbs', folder, symlinks=False, ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    shutil.copytree(ROOT/'results', tmp_path/'results')
    before = {file.relative_to(folder) for file in folder.rglob('*')}
    ran = doubled(path, tmp_path) if TWICE.match(path.stem) else path
    record_property(ran.name, execute(ran, folder))
    left = {file.relative_to(folder) for file in folder.rglob('*')} - before
    assert not left, f'{path.name} leaves files in its own folder: {sorted(map(str, left))}'


def written(folder: Path, *sources: str) -> Path:
    "A notebook of code cells."
    path = folder/'tried.ipynb'
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in sources]), path)
    return path


def test_a_failing_cell_is_named(tmp_path):
    (tmp_path/'nbs').mkdir()
    with pytest.raises(pytest.fail.Exception, match=r'(?s)tried\.ipynb, cell 2 .*ZeroDivisionError'):
        execute(written(tmp_path, 'x = 1', '#| slow\nraise SystemError', 'x/0'), tmp_path/'nbs')


def test_a_table_that_is_not_what_its_cell_gives_is_named(tmp_path):
    (tmp_path/'nbs').mkdir()
    path = written(tmp_path, 'from IPython.display import Markdown', 'Markdown("65.6")')
    execute(path, tmp_path/'nbs') # nothing is saved yet
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output('execute_result', {'text/markdown': '66.1'})]
    nbformat.write(notebook, path)
    with pytest.raises(AssertionError, match=rf"tried\.ipynb: what cells \['{notebook.cells[1].id}'\] show"): execute(path, tmp_path/'nbs')


@pytest.mark.parametrize('text', ['#| gpu\n1/0', '#| slow\n1/0', '#|net\n1/0', '#| eval: false\n1/0', '#| hide\n#| slow\n1/0'])
def test_flagged_cells_are_left_out(tmp_path, text):
    (tmp_path/'nbs').mkdir()
    assert left_out({'source': text}) == (not os.environ.get('VLGROUND_FLAGS') or 'eval' in text)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_flagged_cells_ask_before_they_run(path):
    "JupyterLab knows nothing of flags: whoever runs a lesson from top to bottom must not meet minutes of training, a download or a missing GPU."
    flags = set(SETTINGS['DEFAULT']['tst_flags'].split())
    for number, cell in enumerate(cells(path, 'code')):
        for flag in flags & directives(cell).keys():
            code = [line for line in source(cell).split('\n') if line and not line.startswith('#|')]
            assert code[0] == f"if asked_for('{flag}'):" and all(line.startswith('    ') for line in code[1:]), f'code cell {number}'


def test_other_directives_do_not_hide_a_cell():
    for text in ('#| export\n1/0', '#| hide\n1/0', '# slow\n1/0', '#| code-fold: true\n1/0', '#| eval: true\n1/0'): assert not left_out({'source': text})
