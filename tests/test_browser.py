"A lesson in JupyterLab, in a real browser: opened, run from the Run menu, without an error, with its figures."
import time

import pytest
from browser import PATIENCE, browser, lab, open_notebook, photographed, run_menu, wait_until_run, without_outputs # noqa: F401
from notebooks import ROOT

pytestmark = pytest.mark.browser


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
    with photographed(page, tmp_path):
        open_notebook(page, url, name)
        assert page.locator('.jp-RenderedImage img').count() == 0
        run_menu(page)
        saved = wait_until_run(page, folder/name)
        outputs = [output for cell in saved for output in cell['outputs']]
        assert not [output['evalue'] for output in outputs if output['output_type'] == 'error']
        figures = sum('image/png' in output.get('data', {}) for output in outputs)
        assert figures >= 3
        assert widest_picture(page) > 400 # pixels
        assert page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]').count() == 0
        assert not errors
