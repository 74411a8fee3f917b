"Settings for all tests: one thread, no screen, a home of their own."
import os
from pathlib import Path

import pytest

os.environ['MPLBACKEND'] = 'Agg'
os.environ.setdefault('OMP_NUM_THREADS', '1')

import torch  # noqa: E402  (after the number of threads is set)
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


def pytest_terminal_summary(terminalreporter):
    "How long each notebook took; those above a minute are marked."
    reports = [report for outcome in ('passed', 'failed') for report in terminalreporter.stats.get(outcome, [])]
    times = {name: value for report in reports for name, value in getattr(report, 'user_properties', []) if name.endswith('.ipynb')}
    if not times: return
    terminalreporter.section('seconds a notebook took')
    for name, seconds in sorted(times.items()): terminalreporter.write_line(f'{seconds:7.1f}  {name}{"  more than a minute" if seconds > SLOW_LESSON else ""}')
