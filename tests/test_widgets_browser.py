"GroundingView in a real browser: on a page from a file, and in JupyterLab with its kernel."
import json
import random
import re

import nbformat
import pytest
import torch
from browser import PATIENCE, browser, contrasts, lab, open_notebook, open_page, opened_in_lab, photographed, picture_without_scripts, run_cell, wait_until_run, write_cells # noqa: F401
from notebooks import ROOT, outputs
from PIL import Image

from vlground.scenes import example_scene, render
from vlground.widgets import GroundingState, GroundingView

pytestmark = pytest.mark.browser
CAPTION = 'a red dog chasing a small cat near the old house'


@pytest.fixture
def view() -> GroundingView:
    "Picture A; the cat has a second, unsure box."
    return GroundingView(render(example_scene('A')), CAPTION, [(0, 9), (18, 29), (35, 48)],
                         [[24, 136, 104, 196], [128, 150, 168, 190], [140, 150, 180, 190], [152, 40, 248, 140]], [.92, .71, .25, .64], [0, 1, 1, 2],
                         [[24, 136, 104, 196], [132, 150, 172, 190], [152, 40, 248, 90], [8, 8, 56, 56]], gold=[[22, 134, 106, 198]], gold_which=[0])


def counts(root) -> dict[str, tuple[int, int]]:
    "The counts that a view shows."
    return {name: tuple(map(int, root.locator(f'[data-count={name}]').inner_text().split(' of '))) for name in ('boxes', 'phrases', 'regions', 'pairs')}


def matrix(root) -> list[list[bool]]:
    "The matrix that a view shows: which of its cells are marked, and are called aligned."
    return root.locator('tbody').evaluate('''body => [...body.rows].map(row => [...row.cells].slice(1).map(cell => {
        const aligned = cell.classList.contains('aligned')
        if (aligned !== !cell.ariaLabel.endsWith('not aligned')) throw Error('what is seen and what is read out differ')
        return aligned
    }))''')


def shown_iou(root) -> list[list[float]]:
    "The numbers in the matrix."
    return [[float(text) if text != '·' else 0. for text in row.get_by_role('gridcell').all_inner_texts()] for row in root.locator('tbody tr').all()]


def set_slider(root, name: str, value: float) -> None:
    "Move a slider as a hand would: it tells its listeners."
    root.get_by_role('slider', name=name).evaluate('(input, value) => { input.step = "any"; input.value = value; input.dispatchEvent(new Event("input")) }', value)


def test_a_page_by_keyboard(open_page, view): # noqa: F811
    page = open_page(view.to_html())
    assert page.locator('.vlground-view > img').is_hidden()
    assert counts(page) == view.counts and matrix(page) == view.matrix.tolist() and counts(page)['pairs'] == (2, 12)

    reached = []
    for _ in range(7): # everything is reached with Tab alone
        page.keyboard.press('Tab')
        reached.append(page.evaluate('''(() => { const now = document.activeElement.shadowRoot.activeElement
            return now.getAttribute('role') ?? (now.type === 'range' ? now.labels[0].textContent : now.value || now.textContent) })()'''))
    assert reached == ['a red dog', 'a small cat', 'the old house', 'IoU greater than', 'Score greater than', 'phrases', 'gridcell']

    page.get_by_role('slider', name='IoU').focus()
    page.keyboard.press('ArrowLeft')
    view.value = GroundingState(iou=.49)
    assert counts(page) == view.counts and matrix(page) == view.matrix.tolist() and counts(page)['pairs'] == (3, 12)
    assert page.locator('output').first.inner_text() == '0.49'
    page.get_by_role('slider', name='Score').focus()
    for _ in range(64): page.keyboard.press('ArrowRight')
    view.value = GroundingState(iou=.49, score=.64) # exactly the score of the house
    assert counts(page) == view.counts and counts(page)['boxes'] == (2, 4) and counts(page)['pairs'] == (2, 12)

    button = page.get_by_role('button', name='a small cat')
    button.focus()
    page.keyboard.press('Enter')
    assert button.get_attribute('aria-pressed') == 'true' and 'aligned with r2' in page.locator('.readout').inner_text()
    page.keyboard.press('Space')
    assert button.get_attribute('aria-pressed') == 'false'

    page.get_by_role('gridcell').first.focus()
    for key in ('ArrowDown', 'ArrowRight'): page.keyboard.press(key)
    assert page.locator('.readout').inner_text() == '“a small cat” and r2: IoU 0.818 is greater than 0.49.'
    for key in ('ArrowDown', 'ArrowDown', 'End'): page.keyboard.press(key) # there is no fourth row
    assert page.locator('.readout').inner_text() == '“the old house” and r4: IoU 0.000 is not greater than 0.49.'


def test_a_page_by_mouse(open_page, view): # noqa: F811
    page = open_page(view.to_html())
    visible = page.locator('.label:not([hidden])')
    assert sorted(visible.all_inner_texts()) == sorted(['a red dog 0.92', 'a small cat 0.71', 'a small cat 0.25', 'the old house 0.64', 'r1', 'r2', 'r3', 'r4'])
    page.get_by_role('button', name='a red dog').click()
    assert sorted(visible.all_inner_texts()) == ['a red dog 0.92', 'gold', 'r1']
    page.get_by_role('button', name='a small cat').click()
    assert sorted(visible.all_inner_texts()) == ['a small cat 0.25', 'a small cat 0.71', 'r2']
    set_slider(page, 'Score', .5)
    assert page.locator('.label.dropped').all_inner_texts() == ['a small cat 0.25'] # of a chosen phrase, what was dropped is shown too
    page.get_by_role('button', name='a small cat').click()
    assert 'a small cat 0.25' not in visible.all_inner_texts()
    page.get_by_role('gridcell', name='the old house, r3').hover()
    assert sorted(visible.all_inner_texts()) == ['r3', 'the old house 0.64']
    assert page.locator('.readout').inner_text() == '“the old house” and r3: IoU 0.500 is not greater than 0.5.'
    page.get_by_role('gridcell', name='the old house, r3').click()
    assert page.get_by_role('button', name='the old house').get_attribute('aria-pressed') == 'true'
    page.get_by_role('radio', name='words').check()
    view.value = GroundingState(score=.5, phrase=2, rows='words')
    assert matrix(page) == view.matrix.tolist() and counts(page) == view.counts


def random_view(seed: int, whole: bool) -> GroundingView:
    "Boxes near the regions, in whole pixels (where ties are frequent) or not."
    generator = torch.Generator().manual_seed(seed)
    corner = 150*torch.rand(9, 2, generator=generator)
    regions = torch.cat([corner, corner + 20 + 60*torch.rand(9, 2, generator=generator)], 1)
    boxes = regions[torch.randint(9, (14,), generator=generator)] + (4*torch.randn(14, 4, generator=generator)).clamp(-9, 9)
    scores = torch.rand(14, generator=generator)
    if whole: regions, boxes, scores = regions.round(), boxes.round(), (20*scores).round()/20
    return GroundingView(Image.new('RGB', (256, 200)), CAPTION, [(0, 9), (18, 29), (18, 48), (35, 48)], boxes, scores, torch.randint(4, (14,), generator=generator), regions)


@pytest.mark.parametrize('seed, whole', [(0, False), (1, True), (2, True)])
def test_browser_and_python_agree_at_random_thresholds(open_page, seed, whole): # noqa: F811
    view, draw = random_view(seed, whole), random.Random(seed)
    page = open_page(view.to_html())
    near = sorted(set(view.box_iou.flatten().tolist()) - {0, 1}) # float32 values themselves, where one bit decides
    for turn in range(60):
        iou = draw.choice(near) if turn % 3 == 0 else round(draw.random(), 2)*.99 if turn % 3 == 1 else draw.random()
        score = draw.choice(view.scores.tolist())*.999 if turn % 2 else draw.randrange(20)/20
        view.value = GroundingState(iou=iou, score=score, rows=draw.choice(['phrases', 'words']))
        page.get_by_role('radio', name=view.value.rows).check()
        set_slider(page, 'IoU', iou)
        set_slider(page, 'Score', score)
        assert matrix(page) == view.matrix.tolist() and counts(page) == view.counts, view.value
    assert torch.allclose(torch.tensor(shown_iou(page)), view.overlap, atol=.0051)


EVIL = [
    '<b>bold</b> & "quoted" \'twice\' &amp;', 'a cat </script><img src=x onerror="alert(1)"> on a mat', '<!--<script>', 'a ${alert(2)} `${alert(3)}` \\u003cb>',
    '🐈‍⬛ 👩🏽‍🚀 sees a 🐕', 'כלב אדום רודף אחרי חתול', 'קשה <i>מאוד</i> mixed',
    'nul\0 inside\x07', 'broken \ud83d surrogate', 'e\u0301 combining', '"><svg onload=alert(4)>', 'line\u2028separator\u2029',
]


@pytest.mark.parametrize('caption', EVIL)
def test_every_caption_is_text(open_page, caption): # noqa: F811
    spans = [(word.start(), word.end()) for word in re.finditer(r'\S+', caption)]
    n = len(spans)
    view = GroundingView(Image.new('RGB', (60, 40)), caption, spans, [[1, 1, 30, 30]]*n, [.9]*n, range(n), [[1, 1, 30, 30]])
    page = open_page(view.to_html())
    expected = re.sub('[\ud800-\udfff]', '\ufffd', caption.replace('\0', '␀').replace('\x07', '␇'))
    assert page.locator('.caption').first.evaluate('node => node.textContent') == expected
    assert page.get_by_role('button').evaluate_all('nodes => nodes.map(node => node.textContent)') == [expected[start:end] for start, end in spans]
    assert page.locator('tbody th').evaluate_all('nodes => nodes.map(node => node.textContent)') == [expected[start:end] for start, end in spans]
    page.get_by_role('gridcell').last.hover()
    assert expected[slice(*spans[-1])] in page.locator('.readout').evaluate('node => node.textContent')
    strangers = page.evaluate('''[...document.body.querySelectorAll('*'), ...document.querySelector('.vlground-view').shadowRoot.querySelectorAll('*')].map(node => node.localName)''')
    assert strangers.count('b') == 4 and strangers.count('i') == 2*n # four counts, and a tick for each score and each IoU
    assert strangers.count('script') == 1 and strangers.count('img') == 1 and strangers.count('svg') == 5 # the picture and the four samples of the legend
    assert page.evaluate('document.querySelector(".vlground-view").children.length') == 2


def test_views_on_one_page_are_strangers(open_page, view): # noqa: F811
    other = random_view(3, True)
    page = open_page('<style>button, td, p, .box { display: none !important } * { color: red }</style>' + view.to_html(), other.to_html(), view.to_html())
    first, second, third = (page.locator('.vlground-view').nth(i) for i in range(3))
    first.get_by_role('slider', name='IoU').focus()
    page.keyboard.press('End')
    first.get_by_role('radio', name='words').check()
    first.get_by_role('button', name='a red dog').click() # the page's own style does not reach into the view
    assert counts(second) == other.counts and counts(third) == view.counts
    view.value = GroundingState(iou=.99, rows='words', phrase=0)
    assert counts(first) == view.counts and matrix(first) == view.matrix.tolist()
    assert third.get_by_role('radio', name='phrases').is_checked()


def test_the_view_in_the_committed_lesson_is_alive_and_of_this_version(open_page): # noqa: F811
    found = [''.join(output['data']['text/html']) for _, output in outputs(ROOT/'nbs'/'05_widgets.ipynb') if 'text/html' in output.get('data', {})]
    parts = [part for part in found if 'vlground-view' in part]
    program = (ROOT/'vlground'/'data'/'widgets.js').read_text(encoding='utf-8').split('export default')[0]
    assert parts and all(program in part for part in parts), 'run the lesson again: its view is of an older version'
    page = open_page(*parts)
    for root in page.locator('.vlground-view').all():
        before = counts(root)['pairs']
        root.get_by_role('slider', name='IoU').focus()
        page.keyboard.press('End')
        assert counts(root)['pairs'] < before


def test_without_scripts_a_picture_is_left(browser, tmp_path, view): # noqa: F811
    assert CAPTION in picture_without_scripts(browser, view, tmp_path)


@pytest.mark.parametrize('view', [dict(phrases=[], boxes=[], scores=[], which=[], regions=[[0, 0, 9, 9]]), dict(phrases=[(0, 1)], boxes=[], scores=[], which=[], regions=[[0, 0, 9, 9]])])
def test_a_page_with_little_on_it(open_page, view): # noqa: F811
    view = GroundingView(Image.new('L', (30, 20)), 'a b', **view)
    page = open_page(view.to_html())
    assert counts(page) == view.counts and matrix(page) == view.matrix.tolist()
    page.get_by_role('radio', name='words').check()
    view.value = GroundingState(rows='words')
    assert counts(page) == view.counts


def test_without_regions_nothing_is_called_wrong(open_page): # noqa: F811
    "Labels can be looked at before there are regions: no orange, no matrix, no IoU."
    page = open_page(GroundingView(Image.new('L', (30, 20)), 'a b', [(0, 1), (2, 3)], [[0, 0, 9, 9]], [.5], [0], []).to_html())
    assert page.get_by_role('slider').count() == 1 and not page.get_by_role('grid').count() and 'aligned' not in page.locator('.legend').inner_text()
    assert page.locator('[data-count]').evaluate_all('nodes => nodes.map(node => [node.dataset.count, node.innerText])') == [['boxes', '1 of 1']]
    drawn = page.locator('.phrase, .box .line, .label').evaluate_all('nodes => nodes.flatMap(node => [getComputedStyle(node).stroke, getComputedStyle(node).borderBottomColor])')
    assert 'rgb(0, 114, 178)' in drawn and 'rgb(213, 94, 0)' not in drawn
    page.get_by_role('button', name='a', exact=True).click()
    assert page.locator('.readout').inner_text() == '“a” has 1 box with a score greater than 0.'
    page.get_by_role('button', name='b', exact=True).click()
    assert page.locator('.readout').inner_text() == '“b” has no box with a score greater than 0.'


@pytest.mark.parametrize('width', [360, 724])
@pytest.mark.parametrize('style', ['background: #fff; color: #212529', 'background: #16191d; color: #e3e6e8'], ids=['light', 'dark'])
def test_it_fits_and_can_be_read(open_page, view, style, width): # noqa: F811
    page = open_page(view.to_html(), style=style, width=width)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    picture, sliders = page.locator('.picture').bounding_box(), page.locator('.sliders').bounding_box()
    assert (sliders['y'] > picture['y'] + picture['height']) == (width == 360) # below it on a phone, beside it otherwise
    assert page.locator('.label:not([hidden])').evaluate_all('''labels => labels.every(label => {
        const [inner, outer] = [label, label.parentElement].map(node => node.getBoundingClientRect())
        return inner.left >= outer.left - 1 && inner.right <= outer.right + 1 && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1 })''')
    contrast = contrasts(page, '.caption, .phrase, .label:not([hidden]), label, output, dt, dd, td, th, .readout, .legend li')
    assert len(contrast) >= 8 and min(contrast.values()) >= 4.5, contrast


CELLS = {
    'make': '''
from vlground.scenes import example_scene, render
from vlground.widgets import GroundingState, GroundingView
view = GroundingView(render(example_scene('A')), 'a red dog chasing a small cat near the old house', [(0, 9), (18, 29), (35, 48)],
    [[24, 136, 104, 196], [128, 150, 168, 190], [152, 40, 248, 140]], [.92, .71, .64], [0, 1, 2],
    [[24, 136, 104, 196], [132, 150, 172, 190], [152, 40, 248, 90], [8, 8, 56, 56]])
view''',
    'read': 'print(view.value, view.counts["pairs"])',
    'set': 'view.value = GroundingState(iou=.9, phrase=1)',
    'widget': 'view.widget',
}


def test_in_jupyterlab(browser, lab, tmp_path): # noqa: F811
    "Page and kernel follow each other; nothing of the widget is left in the notebook."
    with opened_in_lab(browser, lab, {name: CELLS[name] for name in ('make', 'read', 'set')}, tmp_path, 1400) as (page, path, errors):
        cells = page.locator('.jp-Notebook .jp-Cell')
        run_cell(page, 0)
        root = page.locator('.vlground-view')
        assert counts(root)['pairs'] == (2, 12)

        slider = root.get_by_role('slider', name='IoU')
        slider.focus()
        page.keyboard.press('ArrowLeft')
        assert counts(root)['pairs'] == (3, 12)
        assert 'GroundingState(iou=0.49, score=0, phrase=None' in run_cell(page, 1) and '(3, 12)' in run_cell(page, 1)

        run_cell(page, 2)
        page.wait_for_function('document.querySelector(".vlground-view").shadowRoot.querySelector("[data-count=pairs]").innerText === "1 of 12"')
        assert root.get_by_role('button', name='a small cat').get_attribute('aria-pressed') == 'true' and slider.input_value() == '0.9'

        root.get_by_role('gridcell').first.focus()
        for key in ('ArrowDown', 'ArrowDown', 'Enter', 'a', 'x'): page.keyboard.press(key) # in JupyterLab arrows choose a cell, a adds one, x cuts one
        assert cells.count() == 3 and root.get_by_role('gridcell', name='the old house, r1').evaluate('cell => cell.matches(":focus")')
        assert 'phrase=2' in run_cell(page, 1)

        page.screenshot(path=tmp_path/'lab.png')
        print(f'what the page looked like: {tmp_path/"lab.png"}')
        assert not errors
        saved = wait_until_run(page, path)
        assert set(saved[0]['outputs'][0]['data']) == {'text/plain', 'text/html'}
        assert 'widgets' not in json.loads(path.read_text())['metadata']


def test_a_reload_a_second_display_and_a_stranger(browser, lab, tmp_path): # noqa: F811
    "After a reload of the page the view finds its kernel again; as a widget it is the same view; without trust it is a picture."
    url, folder = lab
    write_cells(folder/'tried.ipynb', [nbformat.v4.new_code_cell(CELLS[name], id=name) for name in ('make', 'read', 'widget', 'set')])
    html = GroundingView(Image.new('RGB', (60, 40)), 'a cat', [(0, 5)], [[1, 1, 30, 30]], [.9], [0], [[1, 1, 30, 30]]).to_html()
    foreign = nbformat.v4.new_code_cell('view', id='view', execution_count=1, outputs=[nbformat.v4.new_output('execute_result', {'text/plain': 'a view', 'text/html': html}, execution_count=1)])
    write_cells(folder/'foreign.ipynb', [foreign])
    page = browser.new_page(viewport={'width': 1280, 'height': 1400})
    page.set_default_timeout(PATIENCE*250)
    errors = []
    page.on('pageerror', lambda error: errors.append(str(error)))
    with photographed(page, tmp_path):
        open_notebook(page, url, 'tried.ipynb')
        for number in (0, 2): run_cell(page, number)
        root, widget = page.locator('.vlground-view'), page.locator('.jp-OutputArea-output .jupyter-widgets, .jp-OutputArea-output .lm-Widget:has(section)').last
        widget.get_by_role('button', name='the old house').click()
        assert root.get_by_role('button', name='the old house').get_attribute('aria-pressed') == 'true'
        assert 'phrase=2' in run_cell(page, 1)
        page.keyboard.press('Control+s')
        page.wait_for_timeout(1000)

        page.reload()
        page.get_by_text(re.compile(r'\| Idle$')).wait_for()
        page.wait_for_function('document.querySelector(".vlground-view")?.shadowRoot?.querySelector("button[aria-pressed=true]")') # the kernel's state, not that of the saved page
        root.get_by_role('slider', name='IoU').focus()
        page.keyboard.press('Home')
        assert 'iou=0,' in run_cell(page, 1)
        run_cell(page, 3)
        page.wait_for_function('document.querySelector(".vlground-view").shadowRoot.querySelector("input").value === "0.9"')
        page.screenshot(path=tmp_path/'both.png')
        print(f'what the page looked like: {tmp_path/"both.png"}')

        page.get_by_role('menuitem', name='Kernel', exact=True).click()
        page.locator('.lm-Menu-itemLabel:text-is("Restart Kernel…")').click()
        page.get_by_role('button', name='Confirm Kernel Restart').click()
        page.wait_for_timeout(3000)
        page.get_by_text(re.compile(r'\| Idle$')).wait_for()
        root.get_by_role('slider', name='IoU').focus()
        page.keyboard.press('Home')
        assert counts(root)['pairs'] == (3, 12) # the old output goes on without its kernel

        open_notebook(page, url, 'foreign.ipynb')
        image = page.locator('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-RenderedHTMLCommon img')
        image.wait_for()
        assert image.evaluate('image => image.naturalWidth') > 500 and image.evaluate('image => image.parentElement.shadowRoot') is None
        assert not errors
