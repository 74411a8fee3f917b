"ChoiceView without a browser: its state, what follows from it, its figure, its page part and its widget."
import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from test_widgets import Page

from vlground.widgets_choices import ChoiceItem, ChoiceState, ChoiceView
from vlground.widgets import View

SURE, EVEN = [.1, .7, .1, .1], [.25]*4 # chooses 1; chooses 0, the first of equals
ITEM = ChoiceItem(
    image=Image.new('RGB', (120, 80), '#88aacc'), boxes=[[5, 5, 40, 70], [60, 20, 110, 75], [50, 5, 70, 25]], names=('person', 'dog', 'person'),
    question=('Why', 'is', (0,), 'running', '?'), answers=(((0,), 'is', 'late', '.'), ((0, 2), 'fear', (1,), '.'), ('It', 'rains', '.'), ((2,), "'s", 'gone', '.')),
    rationales=(('a',), ((1,), 'barks', '.'), ('c',), ('d',)), answer_label=1, rationale_label=0,
    answer_probabilities={'base': EVEN, 'ours': SURE}, rationale_probabilities={'base': EVEN, 'ours': SURE})


def made(**part) -> ChoiceItem: return replace(ITEM, **part)
def viewed(*parts: dict, **state) -> ChoiceView: return ChoiceView([made(**part) for part in parts or [{}]], ChoiceState(**state))
def data_of(view) -> dict:
    text = Page(view.to_html()).text[2]
    given = text[text.rindex('mountLinked('):]
    return json.JSONDecoder().raw_decode(given[given.index('{'):])[0]


# state

def test_the_state_is_read_set_and_watched():
    view, heard = viewed({}, {}), []
    assert isinstance(view, View) and view.value == ChoiceState(0, 'answers', False, None)
    view.watchers.append(heard.append)
    view.value = ChoiceState(1, 'rationales', True, 2)
    assert heard == [ChoiceState(1, 'rationales', True, 2)] and view.value is heard[0]


@pytest.mark.parametrize('wrong, said', [(dict(item=-1), 'item'), (dict(item=1.), 'got 1.0'), (dict(item=True), 'item'), (dict(item=None), 'item'), (dict(part='reasons'), "'answers' or 'rationales', got 'reasons'"),
                                         (dict(differ=1), 'differ: expected True or False'), (dict(tag=-1), 'tag'), (dict(tag='person1'), "got 'person1'"), (dict(tag=False), 'tag')])
def test_a_wrong_state_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said): ChoiceState(**wrong)


def test_a_refused_state_changes_nothing():
    view, heard = viewed({}, dict(answer_label=3)), []
    view.watchers.append(heard.append)
    for wrong, said in [(ChoiceState(2), 'there are 2 items'), (ChoiceState(tag=3), 'item 0 has 3 objects'), (ChoiceState(1, differ=True), r'item 1: the models do not differ about its answers; they differ in the items \[0\]'),
                        ({'item': 0}, 'expected a ChoiceState'), (None, 'expected a ChoiceState')]:
        with pytest.raises(ValueError, match=said): view.value = wrong
    assert view.value == ChoiceState() and heard == []


# what follows from it

def test_who_chooses_what_and_who_is_right():
    view = viewed()
    assert view.chosen == {'base': 0, 'ours': 1} and view.right == {'base': False, 'ours': True}
    view.value = ChoiceState(part='rationales')
    assert view.chosen == {'base': 0, 'ours': 1} and view.right == {'base': True, 'ours': False}


def test_without_labels_nobody_is_right_and_nobody_wrong():
    view = viewed(dict(answer_label=None, rationale_label=None))
    assert view.chosen == {'base': 0, 'ours': 1} and view.right == {'base': None, 'ours': None} and view.differing('answers') == []
    assert not re.search('[✓✗]', ''.join(text.get_text() for ax in view.fig().axes for text in ax.texts))
    view.value = ChoiceState(part='rationales')
    assert any(text.get_text() == 'The right answer is not known.' for ax in view.fig().axes for text in ax.texts)


def test_rationales_may_be_missing():
    view = viewed(dict(rationale_probabilities={}), {}, part='rationales')
    assert view.chosen == {} and view.right == {} and view.differing('rationales') == [1] and view.fig()
    assert data_of(view)['items'][0]['probabilities']['rationales'] == [None, None]


def test_one_model_never_differs():
    view = viewed(dict(answer_probabilities={'ours': SURE}, rationale_probabilities={}))
    assert view.models == ('ours',) and view.chosen == {'ours': 1} and view.differing('answers') == [] and view.fig()


labels = st.none() | st.integers(0, 3)
fours = st.lists(st.sampled_from([.1, .2, .5, .8]) | st.floats(.01, 1), min_size=4, max_size=4).map(lambda four: [each/sum(four) for each in four])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(labels, fours, fours), min_size=1, max_size=6), st.booleans())
def test_the_filter_lets_pass_where_one_is_right_and_the_other_wrong(drawn, rationales):
    part = 'rationales' if rationales else 'answers'
    view = viewed(*({f'{part[:-1]}_label': label, f'{part[:-1]}_probabilities': dict(base=a, ours=b)} for label, a, b in drawn), part=part)
    tensors = [(label, torch.tensor(a).argmax().item(), torch.tensor(b).argmax().item()) for label, a, b in drawn]
    expected = [i for i, (label, a, b) in enumerate(tensors) if label is not None and (a == label) != (b == label)]
    assert view.shown == list(range(len(drawn))) and view.differing(part) == expected
    for i, (label, a, b) in enumerate(tensors):
        view.value = ChoiceState(i, part)
        assert view.chosen == dict(base=a, ours=b)
        if i in expected:
            view.value = ChoiceState(i, part, differ=True)
            assert view.shown == expected


# input

@pytest.mark.parametrize('form', ['image', 'array', 'tensor', 'grey'])
def test_forms_of_a_picture_and_of_numbers(form):
    image = Image.new('RGB', (40, 30), '#204060')
    given = dict(image=image, array=np.asarray(image), tensor=torch.from_numpy(np.array(image)).permute(2, 0, 1), grey=image.convert('L'))[form]
    chances = dict(base=np.array(EVEN, np.float32), ours=torch.tensor(SURE, dtype=torch.float16, requires_grad=True))
    view = viewed(dict(image=given, boxes=torch.tensor(ITEM.boxes), answer_probabilities=chances, names=list(ITEM.names)))
    assert view.items[0].image.size == (40, 30) and view.chosen == {'base': 0, 'ours': 1}


NAN = float('nan')
@pytest.mark.parametrize('wrong, said', [
    (dict(image='dog.jpg'), 'image: .*not a picture'),
    (dict(boxes=[[1, 2, 3, 4], [1, 2, NAN, 4], [1, 2, 3, 4]]), r'boxes\[1\].*finite'),
    (dict(boxes=[1, 2, 3, 4]), r'boxes: expected shape \(n, 4\)'),
    (dict(names=('person', 'dog')), 'names: expected 3 words'),
    (dict(names='dog'), 'names: expected 3 words'),
    (dict(names=(1, 2, 3)), 'names: expected 3 words'),
    (dict(question='Why?'), "question: expected a tuple of words and references, got 'Why\\?'"),
    (dict(question=('Why', 0)), 'question: expected words and tuples of whole numbers, got 0'),
    (dict(question=('Why', ())), 'question: expected words and tuples'),
    (dict(question=('Why', (True,))), 'question: expected words and tuples'),
    (dict(question=('Why', (0, 3))), r'question refers to \(0, 3\), and there are 3 objects: expected numbers from 0 to 2'),
    (dict(answers=ITEM.answers[:3]), 'answers: expected four, got 3'),
    (dict(answers=None), 'answers: expected four, got None'),
    (dict(answers=(*ITEM.answers[:3], ((-1,),))), r'answers\[3\] refers to \(-1,\)'),
    (dict(rationales=(((9,),), *ITEM.rationales[1:])), r'rationales\[0\] refers to \(9,\)'),
    (dict(answer_label=4), 'answer_label: expected 0, 1, 2, 3 or None, got 4'),
    (dict(answer_label=-1), 'answer_label'), (dict(rationale_label=1.), 'rationale_label'), (dict(rationale_label=True), 'rationale_label'),
    (dict(answer_probabilities={'base': EVEN, 'ours': SURE[:3]}), "answer_probabilities of 'ours': expected 4 probabilities"),
    (dict(answer_probabilities={'base': EVEN, 'ours': [.5, .5, NAN, 0]}), 'finite numbers'),
    (dict(answer_probabilities={'base': EVEN, 'ours': [2., -1, 0, 0]}), r'numbers in \[0, 1\]'),
    (dict(answer_probabilities={'base': EVEN, 'ours': [.5, .5, .5, 0]}), 'sum to 1, got 0.5, 0.5, 0.5, 0, which sum to 1.500'),
    (dict(answer_probabilities={'base': EVEN, 'ours': 'even'}), "answer_probabilities of 'ours': expected numbers"),
    (dict(answer_probabilities=[EVEN, SURE]), 'answer_probabilities: expected a dict'),
    (dict(answer_probabilities={'base': EVEN}, rationale_probabilities={}), r"its models are \['base'\], those of item 0 are \['base', 'ours'\]"),
    (dict(rationale_probabilities={'base': EVEN}), "rationale_probabilities are of the models"),
])
def test_wrong_input_meets_one_clear_sentence_that_names_the_item(wrong, said):
    with pytest.raises(ValueError, match=said) as error: ChoiceView([made(), made(**wrong)])
    assert str(error.value).startswith('item 1') and '\n' not in str(error.value)


@pytest.mark.parametrize('items, said', [([], 'items: expected a list of at least one'), (ITEM, 'items: expected a list'), ([ITEM, None], 'item 1: expected a ChoiceItem, got NoneType'),
                                         ([made(answer_probabilities={}, rationale_probabilities={})], 'item 0, answer_probabilities: expected those of one or two'),
                                         ([made(answer_probabilities=dict(a=EVEN, b=EVEN, c=EVEN), rationale_probabilities={})], 'one or two named models'),
                                         ([made(answer_probabilities={1: EVEN}, rationale_probabilities={})], 'named models')])
def test_wrong_items(items, said):
    with pytest.raises(ValueError, match=said): ChoiceView(items)


# figure

def test_the_figure_shows_the_state():
    view = viewed()
    def texts(): return [text.get_text() for ax in view.fig().axes for text in ax.texts]
    assert isinstance(view.fig(), Figure) and view.fig().axes[0].get_title() == 'Item 1 of 1'
    assert {'[person1]', '[dog2]', '[person3]', 'base', 'ours', 'Why is [person1] running?', '0.70 ✓', '0.25 ✗', 'b   [person1] and [person3] fear [dog2]. ✓'} <= set(texts())
    assert [text for text in texts() if re.fullmatch(r'0\.\d\d', text)] == ['0.10', '0.25', '0.25', '0.10', '0.25', '0.10'] # what is not chosen has no sign
    view.value = ChoiceState(part='rationales', tag=1)
    assert {'[dog2]', 'Given: [person1] and [person3] fear [dog2].', '0.25 ✓', '0.70 ✗', 'a   a ✓', 'b   [dog2] barks.'} <= set(texts())
    assert not {'[person1]', '[person3]'} & set(texts())


@pytest.mark.filterwarnings('ignore:Glyph')
def test_a_figure_of_nothing_and_of_much():
    assert viewed(dict(boxes=[], names=(), question=(), answers=((),)*4, rationales=((),)*4)).fig()
    long = tuple(f'word{i}' for i in range(150)) + ('x'*300, '$a_b$', 'nul\0')
    assert viewed(dict(boxes=[[1, 1, 9, 9]]*40, names=('person',)*40, question=long, answers=(long,)*4)).fig().savefig('/dev/null', format='png') is None


# page

@settings(max_examples=25, deadline=None)
@given(st.text() | st.text(alphabet='<>/!-scriptSCRIPT"\'&\\`${}\0\u2028\ud800🐈').map(lambda text: f'</script>{text}'))
def test_no_text_adds_anything_to_the_page(text):
    view = viewed(dict(question=(text, (0,)), answers=((text,),)*4, rationales=((text,),)*4, names=(text,)*3, answer_probabilities={text: EVEN, f'{text}2': SURE}, rationale_probabilities={}))
    page = Page(view.to_html())
    assert [tag for tag, _ in page.found] == ['div', 'img', 'script'] and set(page.found[1][1]) == {'alt', 'src', 'style'}
    view.to_html().encode() # it can be written to a file
    shown = data_of(view)['items'][0]['question']
    assert shown[-1][1] == 0 and all(a == b or not b.isprintable() for a, b in zip(''.join(part for part, _ in shown), f'{text} [{text}1]'))


def test_the_page_stands_alone_and_is_always_the_same():
    view = viewed({}, {})
    text = view.to_html()
    assert text == view.to_html()
    assert not re.search(r'(src|href)\s*=\s*["\']?(https?:|//)|@import|url\(|fetch\(|XMLHttp|import\(', text)
    alt = Page(text).found[1][1]['alt']
    assert 'Why is [person1] running?' in html.unescape(alt) and '2 items of base and ours' in alt


def test_a_picture_is_sent_once_and_made_smaller():
    noise = np.random.default_rng(0).integers(0, 255, (1500, 2500, 3), np.uint8)
    view = viewed(*[dict(image=noise)]*5, {})
    data = data_of(view)
    assert [item['picture'] for item in data['items']] == [0]*5 + [1] and len(data['pictures']) == 2
    assert data['items'][0]['size'] == [2500, 1500] and data['items'][0]['boxes'] == ITEM.boxes and len(data['pictures'][0]) < 500_000


# widget

def test_widget_and_view_follow_each_other():
    view, heard = viewed({}, {}), []
    view.watchers.append(heard.append)
    assert view.widget.value == dict(item=0, part='answers', differ=False, tag=None)
    view.widget.value = dict(item=1, part='rationales', differ=True, tag=2) # as the page sends it
    assert view.value == ChoiceState(1, 'rationales', True, 2)
    view.value = ChoiceState()
    assert view.widget.value == dict(item=0, part='answers', differ=False, tag=None) and len(heard) == 2
    json.dumps(view.widget.data)
