"The log of a run: lines, averages, clock, restarts, what is shown meanwhile, and TensorBoard."
import json
import math
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from unittest.mock import patch

import nbformat
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from killing import ROOT, begin, kill, wait_until
from nbclient import NotebookClient

from vlground import logs
from vlground.logs import LivePlot, RunLog, loss_curves, plot_losses, read_log

TIMES = ('seconds', 'samples_per_s', 'data_wait')


def loss(step: int) -> torch.Tensor: return torch.tensor(1/(step + 1) + .1*math.sin(step))


def go_on(log: RunLog, until: int, every: int = 5) -> None:
    "A loop without a model: the loss is a function of the step."
    while log.step < until:
        parts = {'loss': loss(log.step), 'twice': 2*loss(log.step)}
        log.advance()
        log.add(parts)
        if log.step % every == 0: log.average(.1)


def run(folder: Path, steps: int = 40, until: int | None = None, every: int = 5, **keywords) -> RunLog:
    folder.mkdir(exist_ok=True)
    with RunLog(folder, steps, 4, **{'progress': 'none'} | keywords) as log: go_on(log, until or steps, every)
    return log


def figures(folder: Path) -> list[dict]: return [{key: value for key, value in line.items() if key not in TIMES} for line in read_log(folder)]


# lines

@given(st.lists(st.dictionaries(st.text(), st.floats(allow_nan=False) | st.text() | st.none()), max_size=6), st.data())
def test_what_comes_after_the_last_line_end_does_not_count(tmp_path_factory, found, data):
    folder = tmp_path_factory.mktemp('cut')
    lines = [values | {'step': step} for step, values in enumerate(found)]
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    cut = data.draw(st.integers(0, len(text)))
    (folder/'log.jsonl').write_text(text[:cut])
    assert read_log(folder) == lines[:text[:cut].count('\n')]


@pytest.mark.parametrize('line', ['{"step": ', '', '3', '[]', '{"seconds": 1}', '\0\0'])
def test_a_broken_line_is_named(tmp_path, line):
    (tmp_path/'log.jsonl').write_text('{"step": 1}\n' + line + '\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r'log\.jsonl, line 2: '): read_log(tmp_path)


def test_no_log(tmp_path):
    with pytest.raises(FileNotFoundError, match='not the folder of a run'): read_log(tmp_path)
    with pytest.raises(ValueError, match="bar, plot, file or none, got 'loud'"): RunLog(tmp_path, 1, 1, progress='loud')
    assert not list(tmp_path.iterdir())


def test_every_line_is_json_without_nan(tmp_path):
    with RunLog(tmp_path, 2, 1, progress='file') as log:
        log.advance()
        log.add({'loss': torch.tensor(1.), 'ratio': torch.tensor(math.nan), 'norm': torch.tensor(math.inf)})
        assert log.average(.1) == {'loss': 1., 'ratio': None, 'norm': None}
        assert log.write(evaluation={'recall': math.nan})['evaluation'] == {'recall': None}
    def refuse(name): raise AssertionError(name)
    for line in (tmp_path/'log.jsonl').read_text().splitlines(): json.loads(line, parse_constant=refuse)
    assert json.loads((tmp_path/'progress.json').read_text())['parts']['ratio'] is None
    assert loss_curves(read_log(tmp_path)) == {'loss': [(1, 1.)]}


# averages

@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8), min_size=1, max_size=4))
def test_averages_are_means_between_lines(tmp_path_factory, groups):
    folder = tmp_path_factory.mktemp('means')
    with patch.object(logs, 'find_spec', lambda name: None), RunLog(folder, sum(map(len, groups)), 1, progress='none') as log:
        for group in groups:
            for value in group:
                log.advance()
                log.add({'loss': torch.tensor(value, requires_grad=True), 'half': torch.tensor(value/2, dtype=torch.bfloat16)})
            assert log.added == len(group)
            log.average(.1)
            assert log.added == 0
    for line, group in zip(read_log(folder), groups, strict=True):
        mean = math.fsum(group)/len(group)
        assert math.isclose(line['parts']['loss'], mean, rel_tol=1e-4, abs_tol=1e-2)
        assert math.isclose(line['parts']['half'], mean/2, rel_tol=1e-2, abs_tol=3.)


def test_a_part_that_some_steps_lack_is_averaged_over_those_that_have_it(tmp_path):
    with RunLog(tmp_path, 3, 1, progress='none') as log:
        for parts in ({'loss': 1.}, {'loss': 2., 'mask': 8.}, {'loss': 6.}):
            log.advance()
            log.add({name: torch.tensor(value) for name, value in parts.items()})
        assert log.average(.1) == {'loss': 3., 'mask': 8.}


def test_nothing_to_average(tmp_path):
    with RunLog(tmp_path, 3, 1, progress='none') as log:
        log.advance()
        with pytest.raises(ValueError, match='no step was added'): log.average(.1)


def test_steps_are_added_without_a_look(tmp_path):
    "On the meta device a look is an error."
    with RunLog(tmp_path, 3, 1, progress='none') as log:
        for _ in range(3): log.add({'loss': torch.zeros((), device='meta')})
        with pytest.raises((RuntimeError, NotImplementedError)): log.average(.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs an NVIDIA GPU')
def test_a_gpu_is_not_waited_for(tmp_path):
    value = torch.ones((), device='cuda')
    with RunLog(tmp_path, 3, 1, progress='none') as log:
        torch.cuda.set_sync_debug_mode('error')
        try:
            for _ in range(3): log.add({'loss': value, 'twice': 2*value})
        finally: torch.cuda.set_sync_debug_mode('default')
        assert log.average(.1) == {'loss': 1., 'twice': 2.}


# clock and speed

def test_speed_waiting_and_time_left(tmp_path, monkeypatch):
    now = [100.]
    monkeypatch.setattr(logs.time, 'perf_counter', lambda: now[0])
    with RunLog(tmp_path, 40, 8, step=10, seconds=50., progress='file') as log:
        for step in range(4): # a step takes 2 s, of which half a second is waiting; one is skipped
            with log.waiting(): now[0] += .5
            now[0] += 1.5
            log.advance()
            if step != 2: log.add({'loss': torch.tensor(1.)})
        log.average(.1)
    line, told = read_log(tmp_path)[-1], json.loads((tmp_path/'progress.json').read_text())
    assert (line['step'], line['seconds'], line['samples_per_s'], line['data_wait']) == (14, 58., 4., .25)
    assert told == {'step': 14, 'steps': 40, 'seconds_left': 52., 'parts': {'loss': 1.}}

def test_a_pause_is_no_step(tmp_path, monkeypatch):
    "Twenty seconds of an evaluation in the middle of two lines."
    now = [0.]
    monkeypatch.setattr(logs.time, 'perf_counter', lambda: now[0])
    with RunLog(tmp_path, 8, 8, step=2, seconds=10., progress='file', paused=3.) as log:
        for step in range(6):
            now[0] += 2
            log.advance()
            log.add({'loss': torch.tensor(1.)})
            if step == 3:
                with log.pause(): now[0] += 20
            if step % 3 == 2: log.average(.1)
        assert (log.seconds, log.paused) == (42., 23.)
    assert [(line['seconds'], line['samples_per_s']) for line in read_log(tmp_path)] == [(16., 4.), (42., 4.)]


def test_progress_file_is_written_once_a_second_and_at_the_end(tmp_path, monkeypatch):
    now, written = [0.], []
    monkeypatch.setattr(logs.time, 'perf_counter', lambda: now[0])
    monkeypatch.setattr(logs, 'save_json', lambda told, path: written.append(told['step']))
    with RunLog(tmp_path, 10, 1, progress='file') as log:
        for _ in range(10):
            now[0] += .3
            log.advance()
            log.add({'loss': torch.tensor(1.)})
            log.average(.1)
    assert written == [1, 5, 9, 10]


# restarts

@pytest.mark.fault(4)
@given(st.integers(1, 40), st.integers(1, 8))
def test_a_resumed_run_logs_the_same_figures(tmp_path_factory, stop, between):
    "A checkpoint falls on a line, as it does in the loop."
    folder = tmp_path_factory.mktemp('resumed')
    with patch.object(logs, 'find_spec', lambda name: None):
        run(folder/'whole')
        saved = stop//(5*between)*5*between
        killed = run(folder/'killed', until=stop)
        with open(folder/'killed'/'log.jsonl', 'a') as file: file.write('{"step": 4') # and a half line
        run(folder/'killed', step=saved, seconds=1000.)
    assert figures(folder/'killed') == figures(folder/'whole') and killed.step == stop
    assert all((line['seconds'] >= 1000) == (line['step'] > saved) for line in read_log(folder/'killed'))


def test_an_evaluation_at_the_checkpoint_is_kept(tmp_path):
    with RunLog(tmp_path, 20, 1, progress='none') as log:
        go_on(log, 10)
        log.write(evaluation={'recall': .5})
        go_on(log, 20)
    with RunLog(tmp_path, 20, 1, step=10, progress='none'): pass
    assert [line['step'] for line in read_log(tmp_path)] == [5, 10, 10] and 'evaluation' in read_log(tmp_path)[-1]


ENDLESS = '''
import sys
from pathlib import Path
import torch
from vlground.logs import RunLog
with RunLog(Path(sys.argv[1]), 10**9, 4, progress='none') as log:
    while True:
        log.advance()
        log.add({'loss': torch.tensor(float(log.step))})
        if log.step % 5 == 0: log.average(.1)
'''


def test_a_killed_process_leaves_every_line(tmp_path):
    (tmp_path/'endless.py').write_text(ENDLESS)
    folder = tmp_path/'run'
    folder.mkdir()
    process = begin(str(tmp_path/'endless.py'), folder)
    wait_until(process, lambda: (folder/'log.jsonl').exists() and (folder/'log.jsonl').read_text().count('\n') > 20)
    time.sleep(1.1) # TensorBoard's files are named by the second in which they were begun
    kill(process)
    lines = read_log(folder)
    assert [line['step'] for line in lines] == [*range(5, 5*len(lines) + 1, 5)] and len(lines) > 20
    assert all(line['parts']['loss'] == line['step'] - 2 for line in lines)
    with RunLog(folder, 60, 4, step=50, progress='none') as log:
        for _ in range(10): log.advance()
        log.add({'loss': torch.tensor(7.)})
        log.average(.1)
    steps = [*range(5, 51, 5), 60]
    assert [line['step'] for line in read_log(folder)] == steps
    # the file of the killed process, and the new one
    if logs.find_spec('tensorboard'): assert [step for step, _ in scalars(folder, 'parts/loss')] == steps


# what is shown

def test_silent(tmp_path, capsys):
    seen = []
    with RunLog(tmp_path, 5, 1, progress='file', silent=True) as log:
        log.advance()
        log.add({'loss': torch.tensor(1.)})
        assert log.average(.1, lambda values: seen.append(values.tolist()) or values + 1) == {'loss': 2.}
    assert seen == [[1.]] and not list(tmp_path.iterdir()) and capsys.readouterr() == ('', '')


@pytest.mark.parametrize('progress', ['bar', 'plot'])
def test_bar(tmp_path, capsys, progress):
    "Outside a notebook a plot has no place, and a bar is shown."
    run(tmp_path/'a run', progress=progress)
    said = capsys.readouterr()
    assert not said.out and all(word in said.err for word in ('a run', '40/40', 'loss=', 'samples/s=', 'waiting='))


@pytest.mark.parametrize('progress', ['none', 'file'])
def test_no_bar(tmp_path, capsys, progress):
    run(tmp_path/'run', progress=progress)
    assert capsys.readouterr() == ('', '') and (tmp_path/'run'/'progress.json').exists() == (progress == 'file')


def lines_of(*losses: float, part: str = 'loss') -> list[dict]: return [{'step': step, 'seconds': 1., 'parts': {part: value}} for step, value in enumerate(losses)]


def test_plot_losses():
    figure = plot_losses({'a': lines_of(3., 2.), 'b': lines_of(1., 1., part='mask')})
    assert [ax.get_title() for ax in figure.axes] == ['loss', 'mask']
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ['a', 'b']
    assert figure.axes[0].lines[0].get_ydata().tolist() == [3., 2.]
    assert len(plot_losses({'a': [{'step': 1, 'parts': dict.fromkeys('abcdef', 1.)}]}).axes) == 6
    assert not plot_losses({'a': []}).axes and not plot_losses({}).axes
    with pytest.raises(ValueError, match="no run has logged 'los'; there is loss"): plot_losses({'a': lines_of(1.)}, ['los'])
    styles = {(line.get_color(), line.get_linestyle()) for line in plot_losses({name: lines_of(1., 2.) for name in 'abcd'}).axes[0].lines}
    assert len(styles) == 4


@pytest.mark.parametrize('parts', [1, 2, 3, 4, 9])
def test_figures_are_six_to_eight_inches_wide(parts):
    assert 6 <= plot_losses({'a': [{'step': 1, 'parts': {str(part): 1. for part in range(parts)}}]}).get_figwidth() <= 8


def test_live_plot_draws_seldom(monkeypatch):
    now, drawn = [0.], []
    monkeypatch.setattr(logs.time, 'perf_counter', lambda: now[0])
    plot = LivePlot('run', every=2., steps=100)
    def draw():
        drawn.append(len(plot.lines))
        plot.next, plot.drawn = now[0] + plot.every, len(plot.lines)
    monkeypatch.setattr(plot, 'draw', draw)
    for line in lines_of(*[1.]*10):
        plot.add(line)
        now[0] += .7
    plot.add({'step': 10, 'skipped': 'the loss is nan'})
    plot.close()
    assert drawn == [1, 4, 7, 10]
    plot.add(lines_of(1.)[0])
    plot.close()
    plot.close()
    assert drawn == [1, 4, 7, 10, 12]


GROWING = '''
import time
from pathlib import Path
import torch
from vlground.logs import RunLog
Path('run').mkdir(exist_ok=True)
def go_on(until, **keywords):
    with RunLog(Path('run'), 40, 4, progress='plot', **keywords) as log:
        log.plot.every = 0
        while log.step < until:
            log.advance()
            log.add({part: torch.tensor(1/log.step) for part in ('loss', 'masked words', 'regions', 'alignment')})
            log.average(.1)
        if until < 40: # a line more that is not drawn before the error
            log.plot.next = float('inf')
            log.add({'loss': torch.tensor(1.)})
            log.average(.1)
            1/0
    return log
'''


def test_one_picture_stays_in_a_notebook(tmp_path):
    cells = [GROWING, 'go_on(30)', "log = go_on(40, step=20)\nassert log.plot.drawings > 2 and len(log.plot.lines) == 40 and 'step 40 of 40' in log.plot.fig().get_suptitle()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    NotebookClient(notebook, timeout=120, kernel_name='python3', allow_errors=True, resources={'metadata': {'path': str(tmp_path)}}).execute(
        env={'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path), 'IPYTHONDIR': str(tmp_path/'ipython'), 'OMP_NUM_THREADS': '1', 'JUPYTER_PREFER_ENV_PATH': '1'})
    kinds = [[output['output_type'] for output in cell.outputs] for cell in notebook.cells]
    assert kinds == [[], ['display_data', 'error'], ['display_data']], notebook.cells
    assert notebook.cells[1].outputs[-1]['ename'] == 'ZeroDivisionError'
    pictures = [cell.outputs[0]['data']['image/png'] for cell in notebook.cells[1:]]
    assert all(10_000 < len(picture)*3/4 < 150_000 for picture in pictures)


# TensorBoard

def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    return [(event.step, event.value) for event in EventAccumulator(str(folder/'tensorboard'), size_guidance={'scalars': 0}).Reload().Scalars(name)]


def test_tensorboard_tells_what_the_log_tells(tmp_path):
    pytest.importorskip('tensorboard')
    with RunLog(tmp_path, 40, 4, progress='none') as log:
        go_on(log, 20)
        log.write(evaluation={'recall': {'at 1': .25}, 'nothing': math.nan})
        go_on(log, 33)
        log.write(evaluation={'recall': {'at 1': .75}})
    run(tmp_path, step=20)
    lines = [line for line in read_log(tmp_path) if 'parts' in line]
    assert [line['step'] for line in lines] == [*range(5, 41, 5)]
    for name, of in (('parts/loss', lambda line: line['parts']['loss']), ('parts/twice', lambda line: line['parts']['twice']), ('learning_rate', lambda line: line['learning_rate'])):
        found = scalars(tmp_path, name)
        assert [step for step, _ in found] == [line['step'] for line in lines]
        assert [value for _, value in found] == pytest.approx([of(line) for line in lines], rel=1e-6)
    assert scalars(tmp_path, 'evaluation/recall/at 1') == [(20, .25)]
    with pytest.raises(KeyError): scalars(tmp_path, 'evaluation/nothing')


# a folder of this name is found as a package without origin
@pytest.mark.parametrize('found', [None, ModuleSpec('tensorboard', None)], ids=['not installed', 'a folder'])
def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch, found):
    monkeypatch.setattr(logs, 'find_spec', lambda name: found)
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None) # an import would be an error
    run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['log.jsonl'] and len(read_log(tmp_path)) == 8


@pytest.mark.parametrize('there', [True, False])
def test_tensorboard_is_imported_when_a_run_begins_and_not_before(tmp_path, there):
    if there: pytest.importorskip('tensorboard')
    code = f'''
import sys
from pathlib import Path
from vlground import logs
def imported(): return 'tensorboard' in sys.modules or 'torch.utils.tensorboard' in sys.modules
assert not imported()
if not {there}: logs.find_spec = lambda name: None
with logs.RunLog(Path(sys.argv[1]), 1, 1, silent=True): assert not imported()
with logs.RunLog(Path(sys.argv[1]), 1, 1, progress='none'): assert imported() == {there}
'''
    subprocess.run([sys.executable, '-c', code, str(tmp_path)], cwd=tmp_path, env={'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path)}, check=True)
