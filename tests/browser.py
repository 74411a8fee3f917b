"A real browser and a real JupyterLab for tests: fixtures, and what is done with them."
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from notebooks import ROOT

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
TOKEN = 'for-this-test-only'
PATIENCE = 240 # seconds: two busy cores


@pytest.fixture(scope='module')
def browser():
    "Chromium, driven by playwright."
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found: pytest.skip(f'no browser: none of {", ".join(BROWSERS)} is on PATH')
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def answers(url: str) -> bool:
    "Does the server at `url` answer?"
    try: return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError: return False


@pytest.fixture
def lab(tmp_path):
    "JupyterLab over an empty folder, with settings of its own: gives its address and the folder."
    folder, settings, port = tmp_path/'lessons', tmp_path/'settings', free_port()
    folder.mkdir()
    env = {name: value for name, value in os.environ.items() if name != 'MPLBACKEND' and not name.startswith('JUPYTER')}
    env |= {f'JUPYTER_{name}_DIR': str(settings/name.lower()) for name in ('CONFIG', 'DATA', 'RUNTIME')}
    env |= {'JUPYTERLAB_SETTINGS_DIR': str(settings/'lab'), 'JUPYTERLAB_WORKSPACES_DIR': str(settings/'workspaces'), 'IPYTHONDIR': str(settings/'ipython')}
    env |= {'PATH': f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}', 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    labconfig = settings/'config'/'labconfig'
    labconfig.mkdir(parents=True)
    (labconfig/'page_config.json').write_text(json.dumps({'disabledExtensions': {'@jupyterlab/apputils-extension:announcements': True}})) # it asks about news
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0',
               f'--IdentityProvider.token={TOKEN}', f'--ServerApp.root_dir={folder}']
    with open(tmp_path/'server.log', 'w') as log: server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        while not answers(f'http://127.0.0.1:{port}/api/status?token={TOKEN}'):
            assert server.poll() is None and time.monotonic() < end, (tmp_path/'server.log').read_text()[-3000:]
            time.sleep(.3)
        yield f'http://127.0.0.1:{port}', folder
    finally:
        server.terminate()
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()


def without_outputs(source: Path, target: Path) -> None:
    "Copy a notebook without what it has printed and drawn."
    notebook = json.loads(source.read_text())
    for cell in notebook['cells']:
        if cell['cell_type'] == 'code': cell |= {'outputs': [], 'execution_count': None}
    target.write_text(json.dumps(notebook))


def wait_until_run(page, path: Path) -> list[dict]:
    "Save again and again until every code cell has been run; gives the code cells as saved."
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        page.keyboard.press('Control+s')
        page.wait_for_timeout(1000)
        try: saved = [cell for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == 'code']
        except json.JSONDecodeError: continue # caught in the middle of saving
        kinds = [output['output_type'] for cell in saved for output in cell['outputs']]
        if 'error' in kinds or all(cell['execution_count'] for cell in saved): return saved
    raise AssertionError(f'{path.name} was not run to its end in {PATIENCE} s; last: {[cell["execution_count"] for cell in saved]}')


def open_notebook(page, url: str, name: str) -> None:
    "Open a notebook in JupyterLab and wait until its kernel is ready."
    page.goto(f'{url}/lab/tree/{name}?token={TOKEN}')
    page.get_by_text(re.compile(r'\| Idle$')).wait_for() # in the status bar; the notebook's own sign says idle before there is a kernel


def run_menu(page, entry: str = 'Run All Cells') -> None:
    "Choose an entry of the Run menu."
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_role('menuitem', name=entry, exact=True).click()


@contextmanager
def photographed(page, folder: Path) -> Iterator[None]:
    "Close the page in the end; leave a picture of it if something fails."
    try: yield
    except BaseException:
        page.screenshot(path=folder/'page.png')
        print(f'what the page looked like: {folder/"page.png"}')
        raise
    finally: page.close()
