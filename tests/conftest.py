"Settings for all tests: one thread, no screen, a home of their own."
import os
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

os.environ['MPLBACKEND'] = 'Agg'
os.environ.setdefault('OMP_NUM_THREADS', '1')

import torch  # noqa: E402  (after the number of threads is set)
from faults import FAULTS  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(1)
settings.register_profile('vlground', deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile('vlground')

ROOT = Path(__file__).resolve().parent.parent
SLOW_LESSON = 60 # seconds on two cores


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    "An empty VLGROUND_HOME for each test."
    folder = tmp_path_factory.mktemp('home')
    monkeypatch.setenv('VLGROUND_HOME', str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_figures_left():
    "Close the figures that a test opened."
    yield
    import matplotlib.pyplot as plt
    plt.close('all')


# a small world, its regions and its labels, made once and only read

@pytest.fixture(scope='session')
def small_world(tmp_path_factory) -> Path:
    "40 captioned pictures, 16 to measure on, 40 with referring expressions."
    from vlground.worldfiles import write_world
    return write_world(tmp_path_factory.mktemp('small')/'W', pairs=40, val=16, refer=40, seed=3, quiet=True)


@pytest.fixture(scope='session')
def small_regions(small_world) -> Path:
    "A store of eight regions for each picture of the small world."
    from vlground.store import extract_regions
    return extract_regions(small_world/'images', small_world.parent/'regions', keep=8, shard_size=40, quiet=True)


@pytest.fixture(scope='session')
def small_labels(small_world) -> Path:
    "What the world's teacher says of the 40 captions."
    from vlground.datasets import read_captions
    from vlground.scaleout import label_captions
    return label_captions(read_captions(small_world/'captions.tsv'), small_world.parent/'labels', shard_size=20, quiet=True)


@pytest.fixture(scope='session')
def runs(small_regions, small_labels, tmp_path_factory):
    "A pre-training of one step of each backbone, by name."
    from vlground.pretrain import PRESETS, pretrain
    folder = tmp_path_factory.mktemp('starts')
    for kind in ('vilbert', 'vlbert'): pretrain(small_regions, small_labels, folder/kind, replace(PRESETS['mini'], backbone=kind, steps=1, batch_size=4), progress='none')
    return folder


@pytest.fixture
def terminal(tmp_path, monkeypatch, capsys):
    "Runs a command line in an empty folder, in this process: exit code, standard output, standard error."
    def run(name, *words):
        script = tmp_path/f'{name}.py'
        script.write_text(f'from vlground.cli import {name}\nif __name__ == "__main__": {name}()\n')
        monkeypatch.setattr(sys, 'argv', [name, *map(str, words)])
        monkeypatch.setenv('COLUMNS', '200')
        (tmp_path/'here').mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path/'here')
        try:
            runpy.run_path(str(script), run_name='__main__')
            code = 0
        except SystemExit as end: code = end.code or 0
        return code, *capsys.readouterr()
    return run


def pytest_collection_modifyitems(items):
    "A test tells which faults it injects, also to the process that reports."
    for item in items: item.user_properties += [('fault', number) for mark in item.iter_markers('fault') for number in mark.args]


def tests_by_fault(stats) -> dict[int, dict[str, list[str]]]:
    "The outcomes of the tests of each fault, by the name of the test."
    found = {}
    for outcome in ('passed', 'failed', 'error', 'skipped'):
        for report in stats.get(outcome, []):
            for number in {value for name, value in getattr(report, 'user_properties', []) if name == 'fault'}:
                found.setdefault(number, {}).setdefault(report.nodeid.partition('[')[0].removeprefix('tests/'), []).append(outcome)
    return found


def print_faults(terminalreporter) -> None:
    "What was injected, what is promised, and which tests saw it kept."
    found = tests_by_fault(terminalreporter.stats)
    if not found: return
    terminalreporter.section('tests by fault')
    for number, promise in FAULTS.items():
        if number not in found: continue
        terminalreporter.write_line(f'{number:2}  {promise}')
        for name, outcomes in sorted(found[number].items()):
            terminalreporter.write_line(f'      {name}: {", ".join(f"{outcomes.count(each)} {each}" for each in dict.fromkeys(outcomes))}')


def pytest_terminal_summary(terminalreporter):
    "How long each notebook took (those above a minute are marked); how far our models are from the published code; what the tests of the faults saw."
    print_faults(terminalreporter)
    reports = [report for outcome in ('passed', 'failed') for report in terminalreporter.stats.get(outcome, [])]
    noted = {name: value for report in reports for name, value in getattr(report, 'user_properties', [])}
    times = {name: value for name, value in noted.items() if name.endswith('.ipynb')}
    if times: terminalreporter.section('seconds a notebook took')
    for name, seconds in sorted(times.items()): terminalreporter.write_line(f'{seconds:7.1f}  {name}{"  more than a minute" if seconds > SLOW_LESSON else ""}')
    differences = {name.removeprefix('difference: '): value for name, value in noted.items() if name.startswith('difference: ')}
    if differences: terminalreporter.section('largest difference from the published code')
    for name, value in differences.items(): terminalreporter.write_line(f'{name:54} {value}')
    ends = {name.removeprefix('sha256: '): value for name, value in noted.items() if name.startswith('sha256: ')}
    if ends: terminalreporter.section('sha256 of the weights at the end')
    for name, value in sorted(ends.items()): terminalreporter.write_line(f'{value}  {name}')
