"ChoiceView in a real browser: on a page from a file, and in JupyterLab with its kernel."
import random
from dataclasses import replace

import pytest
from browser import browser, contrasts, lab, open_page, opened_in_lab, picture_without_scripts, run_cell, wait_until_run # noqa: F401
from notebooks import ROOT, outputs
from test_widgets_choices import EVEN, ITEM, SURE
from test_widgets_browser import EVIL

from vlground.widgets_choices import ChoiceState, ChoiceView

pytestmark = pytest.mark.browser
WRONG = [.1, .1, .1, .7]


@pytest.fixture
def view() -> ChoiceView:
    "Five items: the models differ about the answers of 0, 2 and 4 and about the rationales of 2."
    same = dict(base=SURE, ours=SURE)
    chances = [dict(base=EVEN, ours=SURE), same, dict(base=SURE, ours=WRONG), dict(base=WRONG, ours=EVEN), dict(base=EVEN, ours=SURE)]
    return ChoiceView([replace(ITEM, question=('Item', str(i), ':', *ITEM.question), answer_probabilities=each, rationale_probabilities=dict(base=EVEN, ours=SURE) if i == 2 else same, rationale_label=0) for i, each in enumerate(chances)])


def seen(root) -> dict:
    "What a page shows of the models: who chooses what, and whether it is right."
    found = root.locator('.options').evaluate('''list => [...list.children].flatMap((item, i) => [...item.querySelectorAll('.bar.chosen')].map(bar => {
        const sign = bar.lastChild.nodeType === 3 ? bar.lastChild.data : ''
        const right = bar.ariaLabel.endsWith('right') ? true : bar.ariaLabel.endsWith('wrong') ? false : null
        if ({'✓': true, '✗': false, '': null}[sign] !== right || bar.classList.contains('right') !== (right === true)) throw Error('what is seen and what is read out differ')
        return [bar.querySelector('.model').textContent, i, right] }))''')
    return {model: (chosen, right) for model, chosen, right in found}


def expected(view) -> dict: return {model: (view.chosen[model], view.right[model]) for model in view.chosen}
def lit(page) -> tuple[list[str], list[str]]:
    "The labels of lit boxes, and the lit tags of the texts."
    return page.locator('.label.lit:not([hidden])').all_inner_texts(), page.locator('.tag.lit').all_inner_texts()


def test_a_page_by_mouse(open_page, view): # noqa: F811
    page = open_page(view.to_html())
    assert page.locator('.vlground-view > img').is_hidden()
    assert page.locator('.question').inner_text() == 'Item 0: Why is [person1] running?' and seen(page) == expected(view)
    assert sorted(page.locator('.label:not([hidden])').all_inner_texts()) == ['[dog2]', '[person1]', '[person3]'] and lit(page) == ([], [])

    page.locator('.tag', has_text='dog2').hover() # a tag lights up its box
    assert lit(page) == (['[dog2]'], ['[dog2]']) and page.locator('.box.lit').count() == 1
    box = page.locator('.picture').bounding_box()
    page.mouse.move(box['x'] + box['width']*20/120, box['y'] + box['height']*40/80) # a box lights up its tags
    assert lit(page) == (['[person1]'], ['[person1]']*3)
    page.mouse.move(box['x'] + box['width']*65/120, box['y'] + box['height']*23/80) # two boxes overlap: the smaller one is meant
    assert lit(page)[0] == ['[person3]']
    page.mouse.click(box['x'] + box['width']*65/120, box['y'] + box['height']*23/80)
    page.mouse.move(2, 2)
    assert lit(page)[0] == ['[person3]'] # a click keeps it lit
    page.locator('.tag', has_text='person3').first.click()
    page.mouse.move(2, 2)
    page.locator('.tag:focus').evaluate('tag => tag.blur()')
    assert lit(page) == ([], [])

    page.get_by_role('radio', name='rationales').check()
    view.value = ChoiceState(part='rationales')
    assert page.locator('.given').inner_text() == 'Given: [person1] and [person3] fear [dog2].' and seen(page) == expected(view)
    assert page.locator('.options li').all_inner_texts()[0].startswith('a ✓ right') and page.locator('.options li.gold').count() == 1


def test_a_page_by_keyboard(open_page, view): # noqa: F811
    page = open_page(view.to_html())
    reached = []
    for _ in range(8):
        page.keyboard.press('Tab')
        reached.append(page.evaluate('(() => { const now = document.activeElement.shadowRoot.activeElement; return now.name || now.textContent || now.ariaLabel })()'))
    assert reached == ['‹ previous', 'next ›', 'part', 'differ', *['[person1]']*4] # a box, and three tags
    assert lit(page) == (['[person1]'], ['[person1]']*3) # focus alone lights up
    page.keyboard.press('Enter')
    assert page.locator('.tag:focus').get_attribute('aria-pressed') == 'true'

    page.keyboard.press('ArrowRight')
    assert page.locator('.position').inner_text() == '2 of 5' and lit(page) == ([], [])
    assert page.locator('.step:focus').inner_text() == 'next ›' # the tag with the focus is gone
    for _ in range(9): page.keyboard.press('ArrowRight')
    assert page.locator('.position').inner_text() == '5 of 5'
    page.keyboard.press('Enter') # no sixth
    page.keyboard.press('ArrowLeft')
    assert page.locator('.position').inner_text() == '4 of 5' and page.locator('.question').inner_text().startswith('Item 3')

    page.get_by_role('radio', name='answers').focus()
    page.keyboard.press('ArrowRight') # among radio buttons an arrow chooses
    assert page.get_by_role('radio', name='rationales').is_checked() and page.locator('.position').inner_text() == '4 of 5'


def test_every_box_is_reached_by_keyboard(open_page): # noqa: F811
    "Also a box that no text mentions: it lights up and says its name."
    names = [f'{kind}{i}' for i, kind in enumerate(('person', 'dog')*6, start=1)]
    item = replace(ITEM, boxes=[[9*i, 9, 9*i + 8, 60] for i in range(12)], names=('person', 'dog')*6)
    page = open_page(ChoiceView([item, item]).to_html())
    focused, pictured = page.locator('.vlground-view :focus'), page.get_by_role('group', name='The picture with 12 boxes')
    assert sorted(page.locator('.label:not([hidden])').all_inner_texts()) == ['[dog2]', '[person1]', '[person3]'] and pictured.get_by_role('button').count() == 12
    for _ in range(5): page.keyboard.press('Tab')
    for name, mentioned in zip(names, [3, 1, 2] + [0]*9):
        assert pictured.get_by_role('button', name=f'[{name}]', exact=True).evaluate('box => box === box.getRootNode().activeElement') and lit(page) == ([f'[{name}]'], [f'[{name}]']*mentioned)
        assert page.locator('.box.lit').count() == 1
        page.keyboard.press('ArrowDown') # beyond the last one there is none
    for key, name in [('ArrowUp', 'person11'), ('Home', 'person1'), ('ArrowUp', 'person1'), ('End', 'dog12')]:
        page.keyboard.press(key)
        assert focused.get_attribute('aria-label') == f'[{name}]'
    page.evaluate('() => { window.taken = []; addEventListener("keydown", event => setTimeout(() => taken.push(event.defaultPrevented)), true) }')
    for key in ('ArrowDown', 'Control+End', 'Control+Enter', 'Alt+Home'): page.keyboard.press(key) # the page may not scroll at the last box; what is pressed with Ctrl or Alt is the browser's
    taken = page.evaluate('new Promise(done => setTimeout(() => done(taken), 50))')
    assert taken[0] and not any(taken[1:]) and len(taken) > 3
    assert focused.get_attribute('aria-label') == '[dog12]' and focused.get_attribute('aria-pressed') == 'false'
    page.keyboard.press('Enter')
    assert focused.get_attribute('aria-pressed') == 'true'
    page.keyboard.press('Tab') # the picture is one stop
    assert focused.inner_text() == '[person1]' and lit(page)[0] == ['[person1]']
    focused.evaluate('tag => tag.blur()')
    assert lit(page)[0] == ['[dog12]'] # what was chosen stays lit
    page.locator('.tag').first.focus()
    page.keyboard.press('Shift+Tab')
    assert focused.get_attribute('aria-label') == '[dog12]'
    page.keyboard.press('Space')
    assert focused.get_attribute('aria-pressed') == 'false' and not page.locator('[aria-pressed=true]').count()
    page.keyboard.press('ArrowRight')
    assert page.locator('.position').inner_text() == '2 of 2' and focused.inner_text() == 'next ›' # the box with the focus is gone


def test_the_filter(open_page, view): # noqa: F811
    page = open_page(view.to_html())
    position, question, differ = page.locator('.position'), page.locator('.question'), page.get_by_role('checkbox')
    assert '(3 of 5)' in page.locator('.filter').inner_text()
    page.get_by_role('button', name='next').click()
    differ.check() # item 1 does not pass: the next one that does
    assert position.inner_text() == '2 of 3' and question.inner_text().startswith('Item 2')
    page.get_by_role('button', name='next').click()
    assert position.inner_text() == '3 of 3' and question.inner_text().startswith('Item 4')
    assert page.get_by_role('button', name='next').get_attribute('aria-disabled') == 'true'
    page.get_by_role('radio', name='rationales').check() # there, one item passes
    assert position.inner_text() == '1 of 1' and question.inner_text().startswith('Item 2')
    differ.uncheck()
    assert position.inner_text() == '3 of 5'


def test_a_filter_that_nothing_passes(open_page): # noqa: F811
    secret = replace(ITEM, rationale_label=None)
    view = ChoiceView([secret, replace(secret, rationale_probabilities={}), secret], ChoiceState(differ=True))
    page = open_page(view.to_html())
    page.get_by_role('radio', name='rationales').check()
    assert page.locator('.position').inner_text() == '1 of 3' and not page.get_by_role('checkbox').is_checked() and page.get_by_role('checkbox').is_disabled()
    assert not page.locator('.options').locator('.right, .wrong, .gold').count() and seen(page) == dict(base=(0, None), ours=(1, None))
    assert page.locator('.legend li').all_inner_texts() == ['chosen', 'not chosen', 'the right one is not known']
    page.get_by_role('radio', name='answers').check()
    assert page.locator('.legend li').all_inner_texts() == ['✓\nchosen, right', '✗\nchosen, wrong', 'not chosen', 'the right one']
    page.get_by_role('radio', name='rationales').check()
    page.get_by_role('button', name='next').click()
    assert page.locator('.options .bar.none').count() == 8 and page.locator('.readout').inner_text() == 'base says nothing; ours says nothing.'


@pytest.mark.parametrize('seed', [0, 1])
def test_browser_and_python_agree_on_random_items(open_page, seed): # noqa: F811
    draw = random.Random(seed)
    def four():
        values = [draw.choice([1, 2, 5, draw.random()]) for _ in range(4)] # equals are frequent
        return [value/sum(values) for value in values]
    def two(): return dict(base=four(), ours=four())
    labels = [0, 1, 2, 3, None]
    view = ChoiceView([replace(ITEM, answer_probabilities=two(), rationale_probabilities=draw.choice([two(), {}]), answer_label=draw.choice(labels), rationale_label=draw.choice(labels)) for _ in range(25)])
    page = open_page(view.to_html())
    for part in ('answers', 'rationales'):
        page.get_by_role('radio', name=part).check()
        assert f'({len(view.differing(part))} of 25)' in page.locator('.filter').inner_text()
        for item in range(25):
            view.value = ChoiceState(item, part)
            assert seen(page) == expected(view) and page.locator('.position').inner_text() == f'{item + 1} of 25'
            if item < 24: page.get_by_role('button', name='next').click()
        for _ in range(24): page.get_by_role('button', name='previous').click()


@pytest.mark.parametrize('text', EVIL)
def test_every_text_is_text(open_page, text): # noqa: F811
    shown = ''.join('\ufffd' if '\ud800' <= sign < '\ue000' else {'\0': '␀', '\x07': '␇'}.get(sign, sign) for sign in text)
    chances = {text: EVEN, f'{text}!': SURE}
    view = ChoiceView([replace(ITEM, question=(text,), answers=((text, (0,)),)*4, names=(text, 'dog', 'cat'), answer_probabilities=chances, rationale_probabilities={})])
    page = open_page(view.to_html())
    assert page.locator('.question').evaluate('node => node.textContent') == shown
    assert page.locator('.options .tag').evaluate_all('nodes => nodes.map(node => node.textContent)') == [f'[{shown}1]']*4
    assert page.locator('.options .model').evaluate_all('nodes => nodes.map(node => node.textContent)') == [shown, f'{shown}!']*4
    strangers = page.evaluate('''[...document.body.querySelectorAll('*'), ...document.querySelector('.vlground-view').shadowRoot.querySelectorAll('*')].map(node => node.localName)''')
    assert strangers.count('script') == 1 and strangers.count('img') == 1 and strangers.count('svg') == 1 and strangers.count('b') == 8 and not strangers.count('i')


@pytest.mark.parametrize('width', [280, 390, 724, 1280])
@pytest.mark.parametrize('style', ['background: #fff; color: #212529', 'background: #16191d; color: #e3e6e8'], ids=['light', 'dark'])
def test_it_fits_and_can_be_read(open_page, view, style, width): # noqa: F811
    page = open_page(view.to_html(), style=style, width=width)
    page.get_by_role('radio', name='rationales').check()
    page.locator('.given .tag').first.focus()
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    picture, side = page.locator('.picture').bounding_box(), page.locator('.side').bounding_box()
    assert (side['y'] > picture['y'] + picture['height']) == (width < 600) # below it on a phone, beside it otherwise
    outer = page.locator('.choices').bounding_box()
    assert all(box['x'] + box['width'] <= outer['x'] + outer['width'] for box in (part.bounding_box() for part in page.locator('.options li, .controls *:visible').all()))
    contrast = contrasts(page, '.question, .given, .tag, .text, .bar, .label:not([hidden]), label, output, .step, .readout, .legend li')
    assert len(contrast) >= 8 and min(contrast.values()) >= 4.5, contrast


@pytest.mark.parametrize('width', [280, 390, 1280])
def test_long_names_of_models_can_be_told_apart(open_page, width): # noqa: F811
    names = 'the baseline', 'with grounding'
    page = open_page(ChoiceView([replace(ITEM, answer_probabilities=dict(zip(names, (EVEN, SURE))), rationale_probabilities={})]).to_html(), width=width)
    assert page.locator('.model').evaluate_all('nodes => nodes.every(node => node.scrollWidth <= node.clientWidth)')


def test_without_scripts_a_picture_is_left(browser, tmp_path, view): # noqa: F811
    assert 'Why is [person1] running?' in picture_without_scripts(browser, view, tmp_path)


def test_the_view_in_the_committed_lesson_is_alive_and_of_this_version(open_page): # noqa: F811
    found = [''.join(output['data']['text/html']) for _, output in outputs(ROOT/'nbs'/'05_widgets_choices.ipynb') if 'text/html' in output.get('data', {})]
    program = (ROOT/'vlground'/'data'/'widgets.js').read_text(encoding='utf-8').split('export default')[0]
    assert found and all(program in part for part in found), 'run the lesson again: its view is of an older version'
    page = open_page(*found)
    page.get_by_role('button', name='next').click()
    assert page.locator('.position').inner_text().startswith('2 of ')


@pytest.mark.parametrize('dpi', [100, 200])
@pytest.mark.parametrize('letters', [34, 37, 40, 42, 44, 80])
def test_in_the_figure_each_text_keeps_to_its_place(letters, dpi):
    "Narrow letters, usual ones and wide ones; the frame of the right one holds its tick."
    texts = [((kind*letters)[:letters].strip(),) for kind in ('ill till ', 'the small brown cat walked up to a cake with ', 'women warm mammoths ', 'WWW ')]
    chances = {'the baseline of the paper': EVEN, 'the grounded model': SURE}
    for part, label in [('answers', 0), ('answers', 1), ('rationales', 2), ('rationales', 3)]:
        item = replace(ITEM, question=texts[2], answers=texts, rationales=texts, answer_label=label, rationale_label=label, answer_probabilities=chances, rationale_probabilities=chances)
        figure = ChoiceView([item], ChoiceState(part=part)).fig()
        figure.set_dpi(dpi)
        figure.draw_without_rendering()
        ax = figure.axes[1]
        place = {text: text.get_window_extent() for text in ax.texts}
        frame = next(patch for patch in ax.patches if patch.get_linestyle() == '--').get_window_extent()
        options = [text for text in place if text.get_text()[:4].strip() in ('a', 'b', 'c', 'd', '')]
        assert len(options) >= 4 and all(frame.x0 < place[text].x0 and place[text].x1 < frame.x1 - dpi/50 for text in options)
        assert sum(text.get_text().endswith(' ✓') and len(text.get_text().strip()) > 2 for text in options) == 1 # the tick stands behind a word
        first, second = sorted((box for text, box in place.items() if text.get_text()[:3] == 'the' and text.get_ha() == 'center'), key=lambda box: box.x0)
        assert frame.x1 < first.x0 and first.x1 < second.x0 and all(box.x1 <= figure.bbox.x1 for box in place.values())


CELLS = {
    'make': '''
from vlground.widgets_choices import ChoiceItem, ChoiceState, ChoiceView
from PIL import Image
def item(label, four): return ChoiceItem(Image.new('RGB', (120, 80), '#88aacc'), [[5, 5, 40, 70], [60, 20, 110, 75]], ('person', 'dog'), ('Why', 'is', (0,), 'running', '?'),
    (((0,), 'is', 'late', '.'), ((0,), 'fears', (1,), '.'), ('It', 'rains', '.'), ('No', '.')), (((1,), 'barks', '.'), ('b',), ('c',), ('d',)), label, 0,
    dict(base=[.4, .2, .2, .2], ours=four), dict(base=[.4, .2, .2, .2], ours=[.4, .2, .2, .2]))
view = ChoiceView([item(1, [.1, .7, .1, .1]), item(0, [.7, .1, .1, .1]), item(2, [.1, .1, .7, .1])])
view''',
    'read': 'print(view.value, view.right)',
    'set': "view.value = ChoiceState(item=1, part='rationales', tag=1)",
}


def test_in_jupyterlab(browser, lab, tmp_path): # noqa: F811
    "Page and kernel follow each other; nothing of the widget is left in the notebook."
    with opened_in_lab(browser, lab, {name: CELLS[name] for name in ('make', 'read', 'set')}, tmp_path, 1200) as (page, path, errors):
        run_cell(page, 0)
        root = page.locator('.vlground-view')
        assert seen(root) == dict(base=(0, False), ours=(1, True))

        root.get_by_role('checkbox').check()
        root.get_by_role('button', name='next').click()
        assert root.locator('.position').inner_text() == '2 of 2'
        said = run_cell(page, 1)
        assert "ChoiceState(item=2, part='answers', differ=True, tag=None)" in said and "{'base': False, 'ours': True}" in said

        root.get_by_role('radio', name='rationales').check() # nobody differs there, so the filter opens
        root.locator('.question .tag').click()
        assert "ChoiceState(item=2, part='rationales', differ=False, tag=0)" in run_cell(page, 1)

        run_cell(page, 2)
        page.wait_for_function('document.querySelector(".vlground-view").shadowRoot.querySelector(".position").innerText === "2 of 3"')
        assert lit(root)[0] == ['[dog2]'] and root.get_by_role('radio', name='rationales').is_checked()

        root.locator('.box').first.focus()
        for key in ('End', 'ArrowUp', 'Enter', 'b'): page.keyboard.press(key) # in JupyterLab these go through cells, and b adds one
        assert 'tag=0)' in run_cell(page, 1) and page.locator('.jp-Notebook .jp-Cell').count() == 3

        root.get_by_role('button', name='next').focus()
        for key in ('ArrowRight', 'a', 'x'): page.keyboard.press(key) # in JupyterLab a adds a cell, and x cuts one
        assert page.locator('.jp-Notebook .jp-Cell').count() == 3 and 'item=2' in run_cell(page, 1)

        page.screenshot(path=tmp_path/'lab.png')
        print(f'what the page looked like: {tmp_path/"lab.png"}')
        assert not errors
        saved = wait_until_run(page, path)
        assert set(saved[0]['outputs'][0]['data']) == {'text/plain', 'text/html'}
