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

import nbformat
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


@pytest.fixture
def open_page(browser, tmp_path):
    "Opens HTML parts as a page in a file; afterwards nothing may have gone wrong on it, and nothing been asked for outside."
    pages, wrong = [], []
    def opened(*parts: str, style: str = '', width: int = 724):
        file = tmp_path/f'page{len(pages)}.html'
        head = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        file.write_text(f'{head}<body style="margin: 12px; font-family: sans-serif; {style}">' + '<hr>'.join(parts), encoding='utf-8')
        page = browser.new_page(viewport={'width': width, 'height': 900}, device_scale_factor=1.5)
        page.set_default_timeout(20_000)
        page.on('pageerror', lambda error: wrong.append(f'error: {error}'))
        page.on('console', lambda message: wrong.append(f'console: {message.text}'))
        page.on('dialog', lambda dialog: wrong.append(f'dialog: {dialog.message}'))
        page.on('request', lambda request: None if request.url.startswith('data:') or request.url == file.as_uri() else wrong.append(f'request: {request.url[:80]}'))
        page.goto(file.as_uri())
        pages.append(page)
        return page
    yield opened
    for page in pages: page.close()
    assert not wrong


def picture_without_scripts(browser, view, folder: Path) -> str:
    "Open a view as a page where scripts are off: a picture must be seen in its place; gives what is said of it."
    file = folder/'page.html'
    file.write_text(view.to_html(), encoding='utf-8')
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(file.as_uri())
        image = page.locator('img')
        assert image.is_visible() and image.bounding_box()['width'] > 500
        return image.get_attribute('alt')
    finally: context.close()


def write_cells(path, cells) -> None:
    "A notebook that names its kernel: JupyterLab asks for one otherwise, and waits for the answer."
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}), path)


@contextmanager
def opened_in_lab(browser, lab, sources: dict[str, str], photos: Path, height: int) -> Iterator[tuple]:
    "A notebook of code cells by name, open in JupyterLab in a window of this height: its page, its file, and the list to which errors of the page are added."
    url, folder = lab
    path = folder/'tried.ipynb'
    write_cells(path, [nbformat.v4.new_code_cell(text, id=name) for name, text in sources.items()])
    page = browser.new_page(viewport={'width': 1280, 'height': height})
    page.set_default_timeout(PATIENCE*250)
    errors = []
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.on('console', lambda message: errors.append(message.text) if message.type == 'error' else None)
    with photographed(page, photos):
        open_notebook(page, url, path.name)
        del errors[:] # of JupyterLab itself, before there is a view
        yield page, path, errors


def run_cell(page, number: int) -> str:
    "Run one cell, and give what it prints."
    cell = page.locator('.jp-Notebook .jp-Cell').nth(number)
    cell.locator('.cm-content').click()
    before = cell.locator('.jp-InputPrompt').inner_text()
    page.keyboard.press('Control+Enter')
    page.wait_for_function('''([number, before]) => {
        const text = document.querySelectorAll(".jp-Notebook .jp-Cell")[number].querySelector(".jp-InputPrompt").innerText
        return text !== before && /\\d/.test(text) }''', arg=[number, before])
    return cell.locator('.jp-OutputArea').inner_text()


def contrasts(page, selector: str) -> dict[str, float]:
    "The least contrast of each kind of text in a view with what is behind it, as WCAG counts."
    return page.evaluate('''selector => {
        const context = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d', {willReadFrequently: true})
        const paint = colours => {
            context.clearRect(0, 0, 1, 1)
            for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1) }
            return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
        }
        const light = rgb => { const [r, g, b] = rgb.map(v => v/255).map(v => v <= .04045 ? v/12.92 : ((v + .055)/1.055)**2.4); return .2126*r + .7152*g + .0722*b }
        const root = document.querySelector('.vlground-view').shadowRoot, worst = {}
        for (const node of root.querySelectorAll(selector)) {
            const behind = []
            for (let up = node; up instanceof Element; up = up.parentElement) behind.unshift(getComputedStyle(up).backgroundColor)
            const [text, paper] = [light(paint([...behind, getComputedStyle(node).color])), light(paint(behind))]
            const ratio = (Math.max(text, paper) + .05)/(Math.min(text, paper) + .05), name = node.className || node.localName
            worst[name] = Math.min(worst[name] ?? 99, ratio)
        }
        return worst }''', selector)
