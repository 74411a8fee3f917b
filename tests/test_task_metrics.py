"The tasks' measures against hand-made cases and against plain loops: VQA's accuracy, VCR's three shares, the right box of an expression."
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vlground.core import rng, torch_rng
from vlground.expressions import Expression
from vlground.finetuning import FinetuneConfig, start_of
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainingModel
from vlground.questions import Question, vqa_accuracy
from vlground.refer import ExpressionData, refer_accuracy
from vlground.regions import write_boxes
from vlground.store import Store, extract_regions
from vlground.vcr import ChoiceData, choice_accuracy
from vlground.vcrdata import VCRItem
from vlground.vqa import QuestionData, answer_accuracy


@pytest.fixture(scope='module')
def store(small_regions): return Store(small_regions, in_memory=True)


@pytest.fixture(scope='module')
def start(store):
    return start_of(PretrainingModel(PRESETS['mini'], load_tokenizer().get_vocab_size(), store.feature_width, len(store.classes)))


# VQA: worked out by hand

def ten(counts: dict[str, int]) -> list[str]:
    "What ten people answered."
    people = [answer for answer, count in counts.items() for _ in range(count)]
    assert len(people) == 10
    return people


COUNTED = [ # how many people agree: each of the ten is left out once, and three of the other nine are enough
    ('red', {'blue': 10}, 0), ('red', {'red': 1, 'blue': 9}, .3), ('red', {'red': 2, 'blue': 8}, .6), ('red', {'red': 3, 'blue': 7}, .9), ('red', {'red': 4, 'blue': 6}, 1),
    ('red', {'red': 5, 'blue': 5}, 1), ('red', {'red': 6, 'blue': 4}, 1), ('red', {'red': 7, 'blue': 3}, 1), ('red', {'red': 8, 'blue': 2}, 1), ('red', {'red': 9, 'blue': 1}, 1), ('red', {'red': 10}, 1),
    ('red', {'red': 3, 'blue': 3, 'green': 4}, .9), ('red', {'red': 2, 'blue': 2, 'green': 2, 'grey': 4}, .6), ('red', {'dark red': 9, 'red': 1}, .3)]
SPELT = [ # what the model says is settled: letters, marks, numbers, articles, apostrophes
    ('Red', {'red': 5, 'blue': 5}, 1), ('GREY', {'grey': 2, 'gray': 8}, .6), ('Dark RED', {'dark red': 1, 'red': 9}, .3), ('  red ', {'red': 3, 'blue': 7}, .9),
    ('red\nwhite', {'red white': 4, 'red': 6}, 1), ('red\t white', {'red white': 1, 'red': 9}, .3),
    # a mark that touches no space becomes one
    ('t-shirt', {'t shirt': 4, 'shirt': 6}, 1), ('red/white', {'red white': 2, 'red': 8}, .6), ('red,white', {'red white': 3, 'red': 7}, .9), ('"stop"', {'stop': 4, 'go': 6}, 1),
    ('(left)', {'left': 2, 'right': 8}, .6), ('x_y@z', {'x y z': 1, 'xyz': 9}, .3), ('what?!', {'what': 3, 'who': 7}, .9), ('-5', {'5': 4, '-': 6}, 1),
    # one that touches a space somewhere goes everywhere
    ('red, white', {'red white': 4, 'red': 6}, 1), ('x-ray - no', {'xray no': 2, 'x ray no': 8}, .6), ('black - white', {'black white': 3, 'black': 7}, .9), ('x-\ty-z', {'x yz': 2, 'x y z': 8}, .6),
    (' -x-y', {'x y': 3, 'xy': 7}, .9), ('x -ray-y', {'x rayy': 2, 'x ray y': 8}, .6), ('yes! no!yes', {'yes noyes': 1, 'yes no yes': 9}, .3),
    # a comma between digits takes all marks away
    ('1,000', {'1000': 4, '1 000': 6}, 1), ('1,000-2,000', {'10002000': 1, '1000 2000': 9}, .3), ('t-shirt 1,5', {'tshirt 15': 2, 't shirt 15': 8}, .6), ('1, 000', {'1 000': 3, '1000': 7}, .9),
    ('a1,b', {'a1 b': 4, 'a1b': 6}, 1),
    # a full stop stays before a digit
    ('red.', {'red': 3, 'blue': 7}, .9), ('2.5', {'2.5': 4, '25': 6}, 1), ('2.', {'2': 4, '3': 6}, 1), ('.5', {'.5': 2, '5': 8}, .6), ('5.am', {'5am': 3, '5 am': 7}, .9), ('p.m.', {'pm': 4, 'am': 6}, 1),
    ('3.14.', {'3.14': 2, '3': 8}, .6), ('v1.0', {'v1.0': 1, 'v10': 9}, .3), ('...', {'dots': 9, '0': 1}, 0),
    # colons and apostrophes stay
    ('5:30', {'5:30': 4, '530': 6}, 1), ("girl's", {"girl's": 3, 'girls': 7}, .9),
    # articles
    ('the dog', {'dog': 4, 'cat': 6}, 1), ('A dog and THE cat', {'dog and cat': 2, 'dog': 8}, .6), ('an apple', {'apple': 3, 'pear': 7}, .9), ('theatre', {'theatre': 4, 'atre': 6}, 1), ('the', {'that': 9, 'theatre': 1}, 0),
    # number words, to ten
    ('two', {'2': 4, '3': 6}, 1), ('Zero', {'0': 3, '1': 7}, .9), ('none', {'0': 2, 'no': 8}, .6), ('ten', {'10': 1, '100': 9}, .3), ('eleven', {'11': 9, 'eleven': 1}, .3), ('twenty one', {'twenty 1': 2, '21': 8}, .6),
    ('once', {'1': 9, 'once': 1}, .3), ('nobody', {'0': 9, 'nobody': 1}, .3),
    # apostrophes that lack
    ('dont', {"don't": 4, 'no': 6}, 1), ("don't", {"don't": 3, 'no': 7}, .9), ('theyre', {"they're": 2, 'they': 8}, .6), ("wouldnt've", {"wouldn't've": 1, 'no': 9}, .3), ('wouldntve', {"wouldn't've": 9, 'wouldntve': 1}, .3),
    ('oclock', {"o'clock": 4, 'clock': 6}, 1), ('its', {"it's": 9, 'its': 1}, .3), ('lets', {"let's": 9, 'lets': 1}, .3), ("somebody'd", {'somebodyd': 2, 'somebody': 8}, .6), ('twas', {"'twas": 3, 'was': 7}, .9),
    # the order: marks, small letters, numbers, articles, apostrophes
    ('One-Two', {'1 2': 4, '12': 6}, 1), ('the-dog', {'dog': 3, 'cat': 7}, .9), ('a@b.com', {'bcom': 2, 'b com': 8}, .6), ('DONT.', {"don't": 4, 'no': 6}, 1), ('the.dog', {'thedog': 2, 'dog': 8}, .6),
    ('o.n.e', {'1': 3, 'o n e': 7}, .9), ('the, two', {'2': 1, 'two or more': 9}, .3),
    # marks in what people say are settled too
    ('t-shirt', {'t-shirt': 3, 'shirt': 7}, .9), ('t shirt', {'t-shirt': 1, 'shirt': 9}, .3), ('tshirt', {'t-shirt': 4, 'shirt': 6}, 0), ('p.m.', {'pm': 4, 'p.m.': 6}, 1), ('1000', {'1,000': 2, '100': 8}, .6),
    ('red white', {'red, white': 2, 'red,white': 1, 'red/white': 1, 'red': 6}, 1),
    # all ten alike
    ('yes', {'yes': 10}, 1), ('no', {'yes': 10}, 0), ('2', {'2': 10}, 1), (' yes\n', {'yes': 10}, 1), ("don't", {"don't": 10}, 1), ('cat', {'the cat': 10}, 0), ('t shirt', {'t-shirt': 10}, 0), ('', {'yes': 10}, 0)]
LAST_VERSION = [
    # what people say is settled by all rules
    ('2', {'two': 4, '3': 6}, 1), ('two', {'two': 3, '2': 1, '3': 6}, 1), ('red', {'Red': 3, 'blue': 7}, .9), ('dog', {'the dog': 2, 'cat': 8}, .6), ("don't", {'dont': 4, 'no': 6}, 1), ('none', {'none': 1, 'no': 9}, .3),
    ('red', {'red ': 4, 'blue': 6}, 1), ('red white', {'red\nwhite': 2, 'blue': 8}, .6), ('black white', {'black - white': 3, 'black': 7}, .9), ('"stop"', {'"stop"': 4, 'go': 6}, 1), ('a', {'a': 1, 'b': 9}, .3),
    # nothing is settled where all ten are alike, not even capitals
    ('t-shirt', {'t-shirt': 10}, 1), ('Yes', {'yes': 10}, 0), ('yes.', {'yes': 10}, 0), ('two', {'2': 10}, 0), ('two', {'two': 10}, 1), ('the cat', {'the cat': 10}, 1), ('dont', {'dont': 10}, 1), ('1,000', {'1,000': 10}, 1),
    # spaces around an answer are no difference
    ('STOP', {'STOP': 9, 'STOP\n': 1}, 1), ('Red', {'red': 9, ' red': 1}, 0)]


def test_there_are_enough_cases(): assert len(COUNTED + SPELT) >= 50


@pytest.mark.parametrize('said, counts, expected', COUNTED + SPELT)
def test_accuracy_worked_out_by_hand(said, counts, expected): assert vqa_accuracy(said, ten(counts)) == expected


@pytest.mark.parametrize('said, counts, expected', LAST_VERSION)
def test_accuracy_where_people_need_settling_or_are_all_alike(said, counts, expected): assert vqa_accuracy(said, ten(counts)) == expected


# VQA: another implementation

NUMBERS = dict(none='0', zero='0', one='1', two='2', three='3', four='4', five='5', six='6', seven='7', eight='8', nine='9', ten='10')
APOSTROPHES = {'dont': "don't", 'theyre': "they're", "wouldnt've": "wouldn't've", 'oclock': "o'clock", 'twas': "'twas", "somebody'd": 'somebodyd'} # of the list those that the tests use


def settled(text: str) -> str:
    "One letter after the other, then one word after the other."
    pairs, digits = list(zip(text, text[1:])), False
    for i in range(1, len(text) - 1): digits = digits or (text[i] == ',' and text[i - 1].isdecimal() and text[i + 1].isdecimal())
    without = []
    for letter in text:
        if letter.isalnum() or letter in ".:' ": without.append(letter)
        elif not digits and (letter, ' ') not in pairs and (' ', letter) not in pairs: without.append(' ')
    kept = [letter for letter, after in zip(without, [*without[1:], '']) if letter != '.' or after.isdecimal()]
    words = []
    for word in ''.join(kept).lower().split(' '):
        word = NUMBERS.get(word, word)
        if word and word != 'a' and word != 'an' and word != 'the': words.append(APOSTROPHES.get(word, word))
    return ' '.join(words)


def official(answer: str, people: list[str]) -> float:
    "The mean over ten times nine people."
    answer, *people = [text.replace('\n', ' ').replace('\t', ' ').strip() for text in (answer, *people)]
    if any(other != people[0] for other in people): answer, *people = map(settled, (answer, *people))
    total = 0.
    for left_out in range(10):
        agreeing = 0
        for i, other in enumerate(people): agreeing += i != left_out and other == answer
        total += 1. if agreeing >= 3 else agreeing/3
    return total/10


PIECES = ['red', 'Red', 'two', '2', 'ten', 'none', 'a', 'An', 'the', 'dont', "don't", 'THEYRE', "wouldnt've", 'oclock', 'its', 't', '.', ',', '-', '!', '"', '1,000', '2.5', '.5', "'", ':', '\u0663', '']
nasty = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(['', ' ', '-', ', ', '.', '\n', '/'])), max_size=3).map(lambda pairs: ''.join(word + between for word, between in pairs))
plain = st.sampled_from(['red', '2', '10', 't-shirt', "don't", '1,000', '2.5', 'p.m.', 'dark red', 'red/white', 't', '0', '2-10', 'yes, no'])


@pytest.mark.parametrize('said, counts, expected', COUNTED + SPELT + LAST_VERSION)
def test_the_other_implementation_knows_the_cases(said, counts, expected): assert official(said, ten(counts)) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=400)
@given(nasty | plain, st.lists(plain, min_size=2, max_size=3, unique=True), st.lists(st.integers(0, 2), min_size=10, max_size=10))
def test_accuracy_of_any_answer_where_people_differ(answer, told, who):
    people = [told[i % len(told)] for i in who]
    assume(len(set(people)) > 1)
    assert vqa_accuracy(answer, people) == pytest.approx(official(answer, people), abs=1e-12)


@settings(max_examples=600)
@given(nasty, st.lists(nasty, min_size=1, max_size=3), st.lists(st.integers(0, 3), min_size=10, max_size=10))
def test_accuracy_of_any_answer_whatever_people_say(answer, told, who):
    people = [[answer, *told][i % (len(told) + 1)] for i in who]
    assert vqa_accuracy(answer, people) == pytest.approx(official(answer, people), abs=1e-12)


KINDS = [('is the', 'yes/no'), ('how many', 'number'), ('what color', 'other'), ('none of the above', 'other'), ('what', 'number')]


@pytest.mark.parametrize('seed', range(5))
def test_accuracy_by_type_is_a_plain_loop(store, start, seed):
    random, answers = rng('answers by type', seed), ['red', '2', '10', "don't", 'dark red', '2.5', '0']
    questions = []
    for i in range(60):
        some = [answers[int(k)] for k in random.integers(7, size=3)]
        kind, answer_type = KINDS[int(random.integers(5))]
        people = (*(some[int(k)] for k in random.integers(3, size=8)), 'red', 'zebra')
        questions.append(Question(1000 - i, i, store.ids[int(random.integers(len(store)))], 'Is it red?', people, ('yes',)*10, people[0], kind, answer_type))
    data = QuestionData(questions, store, dict(zip(answers, range(7))), start)
    logits = torch.randint(4, (60, 7), generator=torch_rng('logits', seed)).float() # the first of the best counts
    sums, counts = {}, {}
    for question, row in zip(questions, logits.tolist()):
        best = 0
        for label in range(7):
            if row[label] > row[best]: best = label
        for name in {'all', question.kind, question.answer_type}:
            sums[name], counts[name] = sums.get(name, 0.) + official(answers[best], list(question.answers)), counts.get(name, 0) + 1
    found = answer_accuracy([answers[best] for best in logits.argmax(1)], data)
    assert found.keys() == sums.keys() and 0 < found['all']['accuracy'] < 1
    for name, total in sums.items(): assert found[name] == dict(accuracy=pytest.approx(total/counts[name]), n=counts[name])
    assert sum(found[name]['n'] for name in ('yes/no', 'number', 'other')) == 60


# VCR

def item(store, i: int, answer: int, rationale: int) -> VCRItem:
    words = tuple(('it', 'is', colour) for colour in ('red', 'blue', 'green', 'black'))
    return VCRItem(f'val-{i}', f'val-{i//2}', i, 'world', store.ids[i % len(store)], 'none.json', (), ('what', 'is', 'it', '?'), words, words[::-1], answer, rationale)


@pytest.mark.parametrize('tasks', [('answer', 'rationale'), ('rationale', 'answer'), ('answer',), ('rationale',)])
@pytest.mark.parametrize('seed', range(3))
def test_the_three_shares_join_by_id_whatever_the_order(store, start, tasks, seed):
    random = rng('shares', seed)
    labels = {i: tuple(map(int, random.integers(4, size=2))) for i in range(50)}
    items = [item(store, int(i), *labels[int(i)]) for i in random.permutation(50)]
    data = ChoiceData(items, store, start, FinetuneConfig(words=60), tasks)
    order = random.permutation(len(data)) # the items of both questions in orders of their own
    data.choices = [data.choices[int(i)] for i in order]
    logits = torch.randint(-3, 4, (len(data), 4), generator=torch_rng('choices', seed)).float()
    rights = {}
    for (task, choice), row in zip(data.choices, logits.tolist()):
        label = labels[int(choice.annot_id.removeprefix('val-'))][task == 'rationale']
        rights.setdefault(choice.annot_id, {})[task] = row.index(max(row)) == label
    expected = {task: sum(each[task] for each in rights.values())/50 for task in tasks}
    if len(tasks) == 2:
        expected['joint'] = sum(each['answer'] and each['rationale'] for each in rights.values())/50
        assert 0 < expected['joint'] < min(expected['answer'], expected['rationale'])
    assert choice_accuracy(logits, data) == pytest.approx(expected | dict(items=50))


def test_a_pair_is_right_only_if_both_are(store, start):
    data = ChoiceData([item(store, 0, 1, 2), item(store, 1, 3, 0), item(store, 2, 2, 2)], store, start, FinetuneConfig(words=60))
    said = {('val-0', 'answer'): 1, ('val-0', 'rationale'): 2, ('val-1', 'answer'): 3, ('val-1', 'rationale'): 1, ('val-2', 'answer'): 0, ('val-2', 'rationale'): 2}
    logits = torch.stack([torch.eye(4)[said[choice.annot_id, task]] for task, choice in data.choices])
    assert choice_accuracy(logits, data) == dict(answer=pytest.approx(2/3), rationale=pytest.approx(2/3), joint=pytest.approx(1/3), items=3)


def test_answers_and_rationales_of_other_items_are_refused(store, start):
    items = [item(store, i, 0, 0) for i in range(2)]
    data = ChoiceData(items, store, start, FinetuneConfig(words=60))
    data.choices = data.choices[:3]
    with pytest.raises(ValueError, match='the items whose answers were asked are not those whose rationales were'): choice_accuracy(torch.zeros(3, 4), data)


# referring expressions

def overlap(a: tuple, b: tuple) -> float:
    "IoU of two boxes of whole pixels, by numbers alone."
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = wide*high if wide > 0 and high > 0 else 0
    return shared/((a[2] - a[0])*(a[3] - a[1]) + (b[2] - b[0])*(b[3] - b[1]) - shared)


def pointing_data(small_world, start, folder, boxes: dict[str, list], truths: list[tuple], most=36) -> ExpressionData:
    "Expressions with their true boxes, and a store of the given boxes."
    write_boxes({name: torch.tensor(some, dtype=torch.float32).reshape(-1, 4) for name, some in boxes.items()}, folder/'boxes.jsonl')
    store = Store(extract_regions(small_world/'images', folder/'regions', boxes=folder/'boxes.jsonl', quiet=True), in_memory=True)
    said = [Expression(i, i, name, 'the red dog', truth, 'dog', 'val', i, i) for i, (name, truth) in enumerate(truths)]
    return ExpressionData(said, store, start, FinetuneConfig(regions=most))


def any_box(random, size=256) -> tuple[float, ...]:
    x1, y1 = (int(random.integers(0, size - 40)) for _ in range(2))
    return float(x1), float(y1), float(x1 + random.integers(8, size - x1 + 1)), float(y1 + random.integers(8, size - y1 + 1))


@pytest.mark.parametrize('most', [3, 36])
def test_right_boxes_ceiling_and_chance_by_numbers_alone(small_world, small_regions, start, tmp_path, most):
    random, names = rng('pointing'), Store(small_regions).ids[:12]
    boxes = {name: [any_box(random) for _ in range(int(random.integers(1, 7)))] for name in names}
    truths = [(name, any_box(random)) for name in names for _ in range(8)]
    truths += [(name, tuple(value + shift for value, shift in zip(boxes[name][0], (0, 0, 0, -3)))) for name in names] # some that are found
    data = pointing_data(small_world, start, tmp_path, boxes, truths, most)
    right, possible, blind = 0, 0, 0.
    scores = [torch.randint(3, (1 + min(most, len(boxes[name])),), generator=torch_rng('scores', i)).float() for i, (name, _) in enumerate(truths)] # many ties
    for (name, truth), score in zip(truths, scores):
        fits = [overlap(box, truth) > .5 for box in [(0., 0., 256., 256.), *boxes[name][:most]]]
        best = 0
        for i, value in enumerate(score.tolist()):
            if value > score.tolist()[best]: best = i
        right, possible, blind = right + fits[best], possible + any(fits), blind + sum(fits)/len(fits)
    assert refer_accuracy(scores, data) == pytest.approx(right/len(truths)) and data.ceiling() == pytest.approx(possible/len(truths)) and data.chance() == pytest.approx(blind/len(truths))
    assert 0 < right < possible < len(truths)


def test_half_is_not_enough_and_the_whole_picture_is_an_answer(small_world, small_regions, start, tmp_path):
    name = Store(small_regions).ids[0]
    boxes = {name: [(0., 0., 64., 32.), (0., 0., 64., 33.), (128., 128., 192., 192.)]}
    truths = [(name, (0., 0., 64., 64.)), (name, (0., 0., 256., 129.)), (name, (0., 0., 256., 128.)), (name, (64., 0., 128., 64.))] # 1/2 and 33/64; 129/256 of all; exactly 1/2 of all; beside
    data = pointing_data(small_world, start, tmp_path, boxes, truths)
    def accuracy(*chosen): return refer_accuracy([torch.eye(4)[i] for i in chosen], data)
    assert accuracy(1, 0, 0, 0) == .25 and accuracy(2, 0, 0, 0) == .5 and accuracy(1, 1, 1, 1) == 0
    assert data.ceiling() == .5 and data.chance() == pytest.approx((1/4 + 1/4)/4)
    tied = [torch.tensor([0., 1, 1, 1]), torch.tensor([1., 1, 1, 1]), torch.zeros(4), torch.zeros(4)] # the first of the best: half a box, and the whole picture
    assert refer_accuracy(tied, data) == .25


def test_a_picture_without_regions_has_one_candidate(small_world, small_regions, start, tmp_path):
    first, second = Store(small_regions).ids[:2]
    data = pointing_data(small_world, start, tmp_path, {first: [], second: [(0., 0., 9., 9.)]}, [(first, (0., 0., 256., 200.)), (first, (0., 0., 9., 9.)), (second, (0., 0., 9., 9.))])
    assert refer_accuracy([torch.zeros(1), torch.zeros(1), torch.tensor([0., 1.])], data) == pytest.approx(2/3) == data.ceiling() and data.chance() == pytest.approx((1 + 0 + .5)/3)
    assert refer_accuracy([torch.zeros(1), torch.zeros(1), torch.tensor([1., 0.])], data) == pytest.approx(1/3)
