"The stop button of JupyterLab: a long training is interrupted through the Kernel menu, says what it saved, goes on when it is run again, and ends with the bits of an undisturbed run."
import json
import time

import nbformat
import pytest
from browser import PATIENCE, browser, lab, open_notebook, photographed, run_menu # noqa: F401

from vlground.core import load_json
from vlground.logs import read_log

pytestmark = pytest.mark.browser

BEFORE = '''
import time
from pathlib import Path

import torch
from torch import nn

from vlground.core import torch_rng
from vlground.training import TrainConfig, train

def make_batch(step, part=0, parts=1):
    if Path('slow').exists(): time.sleep(.1)
    return torch.rand(8, 4, generator=torch_rng('stop', step))

def loss_fn(model, batch): return {'loss': (model(batch)[:, 0] - batch.sum(1)).square().mean()}

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(.1), nn.Linear(8, 1))
config = TrainConfig(steps=600, batch_size=8, learning_rate=1e-2, save_every=500, log_every=5, threads=1)
'''
LONG = "print(train(model, make_batch, loss_fn, config, 'long run', progress='plot', workers={workers})['sha256'])"


def outputs_of(path) -> list[dict]:
    "What the last code cell of a saved notebook shows."
    try: return [cell for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == 'code'][-1]['outputs']
    except json.JSONDecodeError: return [] # caught in the middle of saving


def wait_for(page, path, found):
    "Save again and again until the last cell shows what is looked for."
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        page.keyboard.press('Control+s')
        page.wait_for_timeout(700)
        outputs = outputs_of(path)
        if found(outputs): return outputs
    raise AssertionError(f'not shown in {PATIENCE} s; last: {json.dumps(outputs)[-2000:]}')


def printed(outputs) -> str: return ''.join(''.join(output['text']) for output in outputs if output.get('name') == 'stdout')


@pytest.mark.fault(6)
@pytest.mark.parametrize('workers', [0, 2])
def test_stop_button(browser, lab, tmp_path, workers):
    url, folder = lab
    whole, cells = {}, [nbformat.v4.new_code_cell(text) for text in (BEFORE, LONG.format(workers=workers))]
    path, run = folder/'stopped.ipynb', folder/'long run'
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}}), path)
    (folder/'slow').touch()
    page = browser.new_page(viewport={'width': 1280, 'height': 1000})
    page.set_default_timeout(PATIENCE*1000)
    with photographed(page, tmp_path):
        open_notebook(page, url, path.name)
        run_menu(page)
        end = time.monotonic() + PATIENCE
        while not ((run/'log.jsonl').exists() and len(read_log(run)) > 2):
            assert time.monotonic() < end, 'the training did not begin'
            time.sleep(.1)
        page.get_by_role('menuitem', name='Kernel', exact=True).click()
        page.get_by_role('menuitem', name='Interrupt Kernel').click()
        stopped = [output for output in wait_for(page, path, lambda outputs: any(output['output_type'] == 'error' for output in outputs)) if output['output_type'] == 'error'][0]
        step = read_log(run)[-1]['step']
        assert stopped['ename'] == 'KeyboardInterrupt' and 0 < step < 600
        assert stopped['evalue'] == f'long run: stopped by SIGINT after step {step} of 600, all of it saved; run again to go on'
        page.get_by_text(stopped['evalue']).first.wait_for() # to be read in the notebook itself
        assert not (run/'summary.json').exists() and (run/'checkpoints'/f'step-{step:06}.json').exists()
        (folder/'slow').unlink()
        run_menu(page)
        outputs = wait_for(page, path, lambda outputs: len(printed(outputs).strip()) == 64)
        assert [output for output in outputs if 'image/png' in output.get('data', {})], 'the plot stays'
    exec(BEFORE + f"whole = train(model, make_batch, loss_fn, config, {str(tmp_path/'whole')!r}, progress='none')", whole)
    assert printed(outputs).strip() == whole['whole']['sha256'] == load_json(run/'summary.json')['sha256']
