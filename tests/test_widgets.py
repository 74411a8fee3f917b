"GroundingView without a browser: its state, what follows from it, its figure, its page part and its widget."
import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from vlground.alignment import alignment_matrix
from vlground.boxes import match_regions
from vlground.widgets import GroundingState, GroundingView, View

CAPTION = 'a red dog chasing a small cat near the old house'
DATA = dict(image=Image.new('RGB', (256, 256), '#88aacc'), caption=CAPTION, phrases=[(0, 9), (18, 29), (35, 48)],
            boxes=[[24, 136, 104, 196], [128, 150, 168, 190], [152, 40, 248, 140]], scores=[.92, .71, .64], which=[0, 1, 2],
            regions=[[24, 136, 104, 196], [132, 150, 172, 190], [152, 40, 248, 90], [8, 8, 56, 56]])


def made(**part) -> GroundingView: return GroundingView(**DATA | part)


# state

def test_the_state_is_read_set_and_watched():
    view, heard = made(), []
    assert isinstance(view, View) and view.value == GroundingState(.5, 0., None, 'phrases')
    view.watchers.append(heard.append)
    view.value = replace(view.value, iou=.3)
    view.value = replace(view.value, phrase=2, rows='words')
    assert heard == [GroundingState(iou=.3), GroundingState(iou=.3, phrase=2, rows='words')] and view.value is heard[-1]


@pytest.mark.parametrize('wrong, said', [(dict(iou=1), 'iou: expected a threshold'), (dict(iou=-.1), 'iou'), (dict(score=50), 'score'),
                                         (dict(score=float('nan')), 'score'), (dict(iou='0.5'), "got '0.5'"), (dict(phrase='dog'), "number of a phrase or None, got 'dog'"), (dict(phrase=True), 'phrase'), (dict(rows='regions'), "'phrases' or 'words'")])
def test_a_wrong_state_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said): GroundingState(**wrong)


def test_a_refused_state_changes_nothing():
    view, heard = made(), []
    view.watchers.append(heard.append)
    for wrong in (GroundingState(phrase=3), GroundingState(phrase=-1), {'iou': .3}, None):
        with pytest.raises(ValueError): view.value = wrong
    assert view.value == GroundingState() and heard == []


# what follows from it

boxes = st.lists(st.tuples(*[st.integers(0, 40)]*2, *[st.integers(0, 12)]*2).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])), max_size=7)
thresholds = st.sampled_from([0., .25, .5, .6, 1/3, 2/3, .99]) | st.floats(0, 1, exclude_max=True)


@settings(max_examples=150)
@given(boxes, boxes, st.data(), thresholds, thresholds)
def test_the_matrix_is_that_of_lessons_03_and_04(grounded, regions, data, iou, score):
    n = len(grounded)
    which = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    scores = data.draw(st.lists(st.sampled_from([0., .25, .5, .6, 1.]) | st.floats(0, 1), min_size=n, max_size=n))
    view = made(boxes=grounded, scores=scores, which=which, regions=regions, state=GroundingState(iou, score))
    matches = match_regions(torch.tensor(grounded).reshape(-1, 4), torch.tensor(regions).reshape(-1, 4), iou)
    matches &= (torch.tensor(scores).reshape(-1) > score)[:, None]
    by_hand = [[any(matches[box, region] and which[box] == phrase for box in range(n)) for region in range(len(regions))] for phrase in range(3)]
    assert view.matrix.shape == (3, len(regions)) and view.matrix.tolist() == by_hand
    assert view.counts['pairs'] == (sum(map(sum, by_hand)), 3*len(regions))
    assert view.counts['phrases'] == (sum(map(any, by_hand)), 3)
    assert view.counts['regions'] == (sum(map(any, zip(*by_hand))), len(regions))
    assert view.counts['boxes'] == (int((torch.tensor(scores).reshape(-1) > score).sum()), n)
    view.value = replace(view.value, rows='words')
    word_spans = torch.tensor([[0, 3], [4, 7], [8, 11]])[which].reshape(-1, 2) # a row for each box, as in lesson 04
    assert torch.equal(view.matrix, alignment_matrix(word_spans, matches, 11)[:, 1:])


def test_thresholds_are_strict():
    view = made()
    assert view.matrix.int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]] # the house overlaps r3 by exactly one half
    view.value = GroundingState(iou=.49999)
    assert view.matrix[2, 2]
    view.value = GroundingState(iou=.1, score=.64) # the house's score, in float32
    assert not view.matrix[2].any() and view.counts['boxes'] == (2, 3)


def test_phrases_may_overlap_and_have_several_boxes_or_none():
    view = made(phrases=[(0, 29), (0, 9), (5, 9), (0, 9)], which=[1, 1, 3])
    assert view.counts['phrases'] == (1, 4) and view.matrix[1].tolist() == [True, True, False, False]
    view.value = GroundingState(rows='words')
    assert view.matrix[:3].any(1).all() and not view.matrix[3:].any()
    assert set(re.findall(r'"beside": \[([^]]*)\]', view.to_html())) == {'3, 0, 2'} # one of them stands in the caption, the others beside it


def test_a_caption_of_ten_thousand_words():
    caption = ' '.join(['dog'] * 10_000)
    spans = [(40*i, 40*i + 7) for i in range(1000)]
    view = GroundingView(DATA['image'], caption, spans, [[1, 1, 50, 50]]*1000, [.9]*1000, range(1000), [[1, 1, 50, 50]], state=GroundingState(rows='words'))
    assert view.matrix.shape == (10_000, 1) and view.counts['pairs'] == (2000, 10_000)


# input

@pytest.mark.parametrize('form', ['image', 'array', 'tensor', 'grey', 'transparent'])
def test_forms_of_a_picture(form):
    image = Image.new('RGB', (40, 30), '#204060')
    given = dict(image=image, array=np.asarray(image), tensor=torch.from_numpy(np.array(image)).permute(2, 0, 1), grey=image.convert('L'), transparent=image.convert('RGBA'))[form]
    assert made(image=given).image.size == (40, 30)


def test_forms_of_numbers():
    tensors = made(boxes=torch.tensor(DATA['boxes']).double(), scores=np.array(DATA['scores']), which=np.array([0, 1, 2], np.int32), regions=torch.tensor(DATA['regions'], dtype=torch.int16))
    assert torch.equal(tensors.overlap, made().overlap) and tensors.boxes.dtype == torch.float32
    assert made(boxes=torch.tensor(DATA['boxes'], dtype=torch.float32, requires_grad=True)).fig()


NAN = float('nan')
@pytest.mark.parametrize('wrong, said', [
    (dict(image='dog.jpg'), 'not a picture'),
    (dict(caption=None), 'caption: expected a text, got NoneType'),
    (dict(phrases=[(0, 9), (18, 29), (35, 49)]), r'phrases\[2\] = \(35, 49\): expected 0 <= start < end <= 48'),
    (dict(phrases=[(0, 9), (29, 18), (35, 48)]), r'phrases\[1\]'),
    (dict(phrases=[(0, 9), (-3, -1), (35, 48)]), r'phrases\[1\]'),
    (dict(phrases=[(0, 9), (17, 18), (35, 48)]), 'white space'),
    (dict(phrases=[0, 9]), 'phrases: expected pairs'),
    (dict(phrases=[(0, 9, 'a red dog')]), 'phrases: expected pairs'),
    (dict(boxes=[24, 136, 104, 196]), r'boxes: expected shape \(n, 4\).*got \(4,\)'),
    (dict(boxes=[[1, 2, 3, 4, .9]]*3), r'got \(3, 5\)'),
    (dict(boxes=[[1, 2, 3, 4], [1, 2, 3]]), 'boxes: expected numbers'),
    (dict(boxes='all'), 'boxes: expected numbers'),
    (dict(boxes=[[1, 2, 3, 4], [1, 2, NAN, 4], [1, 2, 3, 4]]), r'boxes\[1\].*finite'),
    (dict(boxes=[[1, 2, 3, 4], [1, 2, 3, 4], [3, 2, 1, 4]]), r'boxes\[2\] = \[3.0, 2.0, 1.0, 4.0\].*x1 <= x2'),
    (dict(regions=[[0, 0, float('inf'), 4]]), r'regions\[0\]'),
    (dict(gold=[[0, 5, 4, 4]]), r'gold\[0\]'),
    (dict(scores=[.9, .7]), 'scores: expected 3 numbers'),
    (dict(scores=[.9, .7, 64]), r'scores\[2\] = 64.0: expected a number in \[0, 1\]'),
    (dict(scores=[.9, NAN, .6]), r'scores\[1\]'),
    (dict(which=[0, 1]), 'which: expected 3 whole numbers'),
    (dict(which=[0, 1, 3]), r'which\[2\] = 3: expected the number of one of 3 phrases'),
    (dict(which=[0, -1, 2]), r'which\[1\] = -1'),
    (dict(which=[0., 1., 2.]), 'whole numbers'),
    (dict(which=[True, False, True]), 'whole numbers'),
    (dict(gold=[[0, 0, 4, 4]], gold_which=[5]), r'gold_which\[0\] = 5'),
    (dict(state=GroundingState(phrase=3)), 'there are 3 phrases'),
])
def test_wrong_input_meets_one_clear_sentence(wrong, said):
    with pytest.raises(ValueError, match=said) as error: made(**wrong)
    assert '\n' not in str(error.value)


# figure

def test_the_figure_shows_the_state():
    view = made(gold=[[20, 130, 108, 200]], gold_which=[0])
    def texts(): return {text.get_text() for ax in view.fig().axes for text in ax.texts}
    assert isinstance(view.fig(), Figure)
    assert {'a red dog', 'a small cat', 'the old house', 'r1', 'r2', 'r3', 'r4', 'gold'} <= texts()
    view.value = GroundingState(phrase=1, score=.65)
    assert {'a small cat', 'r2'} <= texts() and not texts() & {'a red dog', 'the old house', 'r1', 'gold'}
    picture, matrix = view.fig().axes
    assert matrix.get_title() == 'IoU > 0.5, score > 0.65: 2 of 12 pairs'
    view.value = GroundingState(phrase=2, score=.65)
    assert 'the old house' not in texts() # its box is not kept


def test_a_figure_of_nothing_and_of_much():
    assert made(phrases=[], boxes=[], scores=[], which=[]).fig()
    assert [ax.get_title() for ax in made(regions=[]).fig().axes] == ['Boxes of phrases'] # no matrix
    many = torch.rand(36, 2)*200
    view = made(regions=torch.cat([many, many + 20], 1))
    for rows in ('phrases', 'words'):
        view.value = GroundingState(rows=rows)
        view.fig().savefig('/dev/null', format='png')


# page

class Page(HTMLParser):
    "The elements of a page, with their attributes and the text in them."
    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], []
        self.feed(text)
    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.text.append('')
    def handle_data(self, data):
        if self.text: self.text[-1] += data


@settings(max_examples=60)
@given(st.text() | st.text(alphabet='<>/!-scriptSCRIPT"\'&\\`${}\0\u2028\ud800🐈').map(lambda text: f'</script>{text}'))
def test_no_caption_adds_anything_to_the_page(caption):
    spans = [(word.start(), word.end()) for word in re.finditer(r'\S+', caption)]
    text = GroundingView(DATA['image'], caption, spans, [], [], [], [[1, 1, 9, 9]]).to_html()
    page = Page(text)
    assert [tag for tag, _ in page.found] == ['div', 'img', 'script']
    assert set(page.found[1][1]) == {'alt', 'src', 'style'}
    text.encode() # it can be written to a file
    given = page.text[2][page.text[2].rindex('mountLinked('):]
    data = json.JSONDecoder().raw_decode(given[given.index('{'):])[0]
    shown = ''.join(part for part, _ in data['segments'])
    assert len(shown) == len(caption) and all(a == b or not a.isprintable() for a, b in zip(caption, shown))


def test_the_page_stands_alone_and_is_always_the_same():
    view = made()
    text = view.to_html()
    assert text == view.to_html() and not re.search(r'\bid=|\d{4}-\d\d', text.split('<script>')[0])
    assert not re.search(r'(src|href)\s*=\s*["\']?(https?:|//)|@import|url\(|fetch\(|XMLHttp|import\(', text)
    assert set(re.findall(r'https?://[^\s\'"]+', text)) == {'http://www.w3.org/2000/svg'} # a name, not an address
    assert len(text) < 150_000


def test_a_large_picture_is_made_smaller_and_its_boxes_stay():
    noise = np.random.default_rng(0).integers(0, 255, (1500, 2500, 3), np.uint8)
    text = made(image=noise, boxes=[[0, 0, 2500, 1500]]*3).to_html()
    assert '"size": [2500, 1500]' in text and '[0.0, 0.0, 2500.0, 1500.0]' in text and len(text) < 1_500_000


def test_one_display_is_html_and_no_widget(monkeypatch):
    monkeypatch.delenv('JPY_SESSION_NAME', raising=False)
    view = made()
    assert view._repr_mimebundle_() == {'text/plain': repr(view), 'text/html': view.to_html()}


def test_in_jupyterlab_the_page_part_knows_the_name_of_its_model(monkeypatch):
    monkeypatch.setenv('JPY_SESSION_NAME', 'tried.ipynb')
    first, second = made(), made()
    shown = [view._repr_mimebundle_() for view in (first, first, second)]
    assert all(set(bundle) == {'text/plain', 'text/html'} for bundle in shown)
    assert shown[0] == shown[1] and first.widget.name in shown[0]['text/html'] and second.widget.name in shown[2]['text/html']
    assert first.widget.name != second.widget.name


# widget

def test_widget_and_view_follow_each_other():
    view, heard = made(), []
    view.watchers.append(heard.append)
    widget = view.widget
    assert widget is view.widget and widget.value == dict(iou=.5, score=0., phrase=None, rows='phrases')
    widget.value = dict(iou=.49, score=0, phrase=2, rows='words') # as the page sends it
    assert view.value == GroundingState(.49, 0, 2, 'words') and view.counts['phrases'] == (3, 3)
    view.value = GroundingState(iou=.9)
    assert widget.value == dict(iou=.9, score=0., phrase=None, rows='phrases')
    assert heard == [GroundingState(.49, 0, 2, 'words'), GroundingState(iou=.9)] # each change is told once
    assert '[[1.0, 0.0, 0.0, 0.0]' in json.dumps(widget.data) # plain numbers


def test_page_and_widget_run_the_same_program():
    view = made()
    program = view.widget._esm.split('export default')[0]
    assert len(program) > 5000 and program in view.to_html()
    assert json.dumps(view.widget._css).replace('<', r'\u003c') in view.to_html()
    assert view.widget._esm.count('export default') == 1


def test_importing_is_cheap():
    "anywidget is loaded only when a widget is made."
    code = 'import sys, vlground.widgets; print([name for name in ("anywidget", "ipywidgets", "IPython") if name in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


def test_the_alternative_text_says_what_is_shown():
    alt = Page(made(caption='a "red" <dog> & more', phrases=[(0, 7)], which=[0, 0, 0]).to_html()).found[1][1]['alt']
    assert html.unescape(alt) == alt and 'a "red" <dog> & more' in alt and '3 boxes' in alt and '4 regions' in alt
