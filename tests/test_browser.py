"A lesson in JupyterLab, in a real browser: opened, run from the Run menu, without an error, with its figures."
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
from pathlib import Path

import pytest
from notebooks import ROOT

pytestmark = pytest.mark.browser
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


def widest_picture(page) -> int:
    "Scroll down the notebook from its top until a figure is on the page; gives its width. JupyterLab keeps on the page only what is near."
    end = time.monotonic() + PATIENCE
    page.evaluate('document.querySelector(".jp-WindowedPanel-outer").scrollTop = 0')
    while time.monotonic() < end:
        page.wait_for_timeout(300)
        width = page.evaluate('Math.max(0, ...[...document.querySelectorAll(".jp-RenderedImage img")].map(image => image.naturalWidth))')
        if width: return width
        page.evaluate('document.querySelector(".jp-WindowedPanel-outer").scrollTop += 600')
    return 0


@pytest.mark.parametrize('name', ['00_core.ipynb'])
def test_a_lesson_runs_in_jupyterlab(browser, lab, name, tmp_path):
    url, folder = lab
    without_outputs(ROOT/'nbs'/name, folder/name)
    page = browser.new_page(viewport={'width': 1280, 'height': 1000})
    page.set_default_timeout(PATIENCE*1000)
    errors = []
    page.on('pageerror', lambda error: errors.append(str(error)))
    try:
        page.goto(f'{url}/lab/tree/{name}?token={TOKEN}')
        page.get_by_text(re.compile(r'\| Idle$')).wait_for() # in the status bar; the notebook's own sign says idle before there is a kernel
        assert page.locator('.jp-RenderedImage img').count() == 0
        page.get_by_role('menuitem', name='Run', exact=True).click()
        page.get_by_role('menuitem', name='Run All Cells', exact=True).click()
        saved = wait_until_run(page, folder/name)
        outputs = [output for cell in saved for output in cell['outputs']]
        assert not [output['evalue'] for output in outputs if output['output_type'] == 'error']
        figures = sum('image/png' in output.get('data', {}) for output in outputs)
        assert figures >= 3
        assert widest_picture(page) > 400 # pixels
        assert page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]').count() == 0
        assert not errors
    except BaseException:
        page.screenshot(path=tmp_path/'page.png')
        print(f'what the page looked like: {tmp_path/"page.png"}')
        raise
    finally: page.close()
