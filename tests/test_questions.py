"Reader and writer of VQA 2.0: round trips, files as the originals have them, the evaluation's rules, and files that lie."
import json
import os
import pickle
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings, strategies as st

from vlground.questions import (VQA_SPLITS, Question, answer_vocabulary, coco_name, normalise_answer, plain_words, read_answers, read_vqa,
                                soft_score, soft_targets, split_minval, vqa_accuracy, without_marks, write_answers, write_vqa)

TEXT = st.text(st.characters(codec='utf-8') | st.sampled_from('\\\t\n\r\0\ufeff\u2028\x85"\''), max_size=8)
quick = settings(max_examples=60, deadline=None)


# answers in one form

@pytest.mark.parametrize('text, expected', [
    ('Red', 'red'), (' a  DOG\n', 'dog'), ('An apple and the pear', 'apple and pear'), ('two', '2'), ('Ten', '10'), ('none', '0'), ('eleven', 'eleven'), ('One.', '1'),
    ('red.', 'red'), ('2.50', '2.50'), ('.5', '.5'), ('p.m.', 'pm'), ('u.s.a', 'usa'), ('3.', '3'),
    ('t-shirt', 't shirt'), ('red/white', 'red white'), ('yes, no', 'yes no'), ('yes,no', 'yes no'), ('black - white', 'black white'), ('what?!', 'what'), ('{a}', ''),
    ('100,978', '100978'), ('1,000-2,000', '10002000'), ('x-ray and re-do -', 'xray and redo'), ('x-\ty-z', 'x yz'), (' -x-y', 'x y'), ('x-y-\n', 'x y'), ("girl's", "girl's"), ('2:50 pm', '2:50 pm'),
    ('dont', "don't"), ("DON'T", "don't"), ('wouldnt', "wouldn't"), ("wouldnt've", "wouldn't've"), ("wouldn'tve", "wouldn't've"), ('wouldntve', 'wouldntve'),
    ('oclock', "o'clock"), ("5 oclock", "5 o'clock"), ('yall', "y'all"), ("yall'd've", "y'all'd've"), ('twas', "'twas"), ("somebody'd", 'somebodyd'), ('somebodys', "somebody's"),
    ('its', 'its'), ('ill', 'ill'), ('well', 'well'), ('wed', 'wed'), ('shell', 'shell'), ('im', 'im'), ('lets', 'lets'), ('', ''), ('the', ''), ('A B', 'b'),
    ('cafe\u0301!', 'cafe\u0301'), ('日本。', '日本。'),
])
def test_normalise_answer(text, expected): assert normalise_answer(text) == expected

def test_marks_and_words_are_two_steps():
    assert without_marks('The T-Shirt.') == 'The T Shirt' and plain_words('The T-Shirt.') == 't-shirt.'
    assert without_marks('a-b c- d') == 'ab c d' # the hyphen touches a space somewhere, so it goes everywhere
    assert without_marks('a\n') == 'a\n'

@quick
@given(TEXT)
def test_a_normal_answer_has_single_spaces_and_small_letters(text):
    normal = normalise_answer(text)
    assert normal == ' '.join(normal.split()) and normal == normal.lower()
    assert not set(normal) & set(';/[]"{}()=+\\_-><@`,?!') and not {'a', 'an', 'the', 'two'} & set(normal.split())
    assert normal == plain_words(without_marks(text.replace('\n', ' ').replace('\t', ' ').strip()))


# scores

def test_soft_score_is_the_mean_over_ten_subsets():
    for n in range(11):
        people = ['yes']*n + ['no']*(10 - n)
        by_subsets = [min(nine.count('yes')/3, 1) for nine in combinations(people, 9)]
        assert len(by_subsets) == 10 and soft_score(n) == pytest.approx(sum(by_subsets)/10, abs=1e-12)
    assert [soft_score(n) for n in range(6)] == [0, .3, .6, .9, 1, 1] # to the last bit
    assert [soft_score(n, 'thirds') for n in range(5)] == [0, 1/3, 2/3, 1, 1]
    for wrong in (lambda: soft_score(11), lambda: soft_score(-1), lambda: soft_score(3, 'third')): pytest.raises(ValueError, wrong)

@quick
@given(st.lists(st.sampled_from(['red', 'Red', 'red\n', 'the red', 'two', 'red.', 'blue-green']), min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=10, max_size=10),
       st.sampled_from(['red', 'Red', ' the\tred', '2', 'two', 'red.', 'blue green', 'blue-green', 'no']))
def test_accuracy_is_the_published_programs(typed, who, answer):
    "Written down step by step, as the program goes: both sides without outer blanks, and through all rules unless the ten people are alike."
    people = [typed[i % len(typed)] for i in who]
    said, theirs = (answer.replace('\n', ' ').replace('\t', ' ').strip(), [text.replace('\n', ' ').replace('\t', ' ').strip() for text in people])
    if any(text != theirs[0] for text in theirs): said, theirs = plain_words(without_marks(said)), [plain_words(without_marks(text)) for text in theirs]
    scores = [min(sum(theirs[j] == said for j in range(10) if j != i)/3, 1) for i in range(10)]
    assert vqa_accuracy(answer, people) == pytest.approx(sum(scores)/10, abs=1e-12)

def test_accuracy_of_unanimous_people():
    assert vqa_accuracy('T-shirt!', ['t-shirt']*9 + ['top']) == 1
    assert vqa_accuracy('t-shirt', ['t-shirt']*10) == 1 and vqa_accuracy('t shirt', ['t-shirt']*10) == 0 # compared to the letter
    assert vqa_accuracy('Yes', ['yes']*10) == 0 and vqa_accuracy('Yes', ['yes']*9 + ['yes.']) == 1
    assert vqa_accuracy('yes', ['yes', ' yes', 'yes\n', '\tyes', 'yes ']*2) == vqa_accuracy(' yes\n', ['yes']*10) == 1 # blanks make no difference
    with pytest.raises(ValueError, match='9 answers'): vqa_accuracy('yes', ['yes']*9)


# questions

SURE = st.sampled_from(['yes', 'maybe', 'no'])

@st.composite
def questions(draw, split, most=5):
    numbers = draw(st.lists(st.integers(0, 10**9), unique=True, max_size=most))
    found = []
    for number in numbers:
        image_id = draw(st.integers(0, 10**12 - 1))
        told = {}
        if split in ('train', 'val'):
            told = dict(answers=tuple(draw(st.lists(TEXT, min_size=10, max_size=10))), confidences=tuple(draw(st.lists(SURE, min_size=10, max_size=10))),
                        answer=draw(TEXT), kind=draw(TEXT), answer_type=draw(st.sampled_from(['yes/no', 'number', 'other'])))
        found.append(Question(number, image_id, coco_name(split, image_id), draw(TEXT), **told))
    return found

@quick
@given(st.data())
def test_vqa_round_trip(tmp_path_factory, data):
    split = data.draw(st.sampled_from(list(VQA_SPLITS)))
    folder, made = tmp_path_factory.mktemp('vqa'), data.draw(questions(split))
    write_vqa(made, folder, split)
    assert read_vqa(folder, split) == made

def question(number=1, image_id=42, split='val', answers=('yes',)*10, answer='yes', **changed):
    return replace(Question(number, image_id, coco_name(split, image_id), 'Is it?', tuple(answers), ('yes',)*10, answer, 'is it', 'yes/no'), **changed)

def real_files(folder, **changed):
    "Files as they are published: other heads, annotations in another order than the questions."
    asked = {'info': {'year': 2017, 'contributor': 'VQA Team'}, 'task_type': 'Open-Ended', 'data_type': 'mscoco', 'license': {'url': '', 'name': ''}, 'data_subtype': 'val2014',
             'questions': [{'image_id': 262148, 'question': 'Where is he looking?', 'question_id': 262148000},
                           {'image_id': 262148, 'question': 'What are the people in the background doing?', 'question_id': 262148001}]}
    def told(number, answer, kind): return {'question_type': kind, 'multiple_choice_answer': answer, 'image_id': 262148, 'answer_type': 'other', 'question_id': number,
                                            'answers': [{'answer': answer, 'answer_confidence': 'maybe' if i == 3 else 'yes', 'answer_id': i} for i in range(1, 11)]}
    notes = [told(262148001, 'watching', 'what are the'), told(262148000, 'down', 'none of the above')]
    for name, change in changed.items(): change(asked['questions'] if name == 'asked' else notes)
    (folder/'v2_OpenEnded_mscoco_val2014_questions.json').write_text(json.dumps(asked))
    (folder/'v2_mscoco_val2014_annotations.json').write_text(json.dumps({'info': {}, 'license': {}, 'data_type': 'mscoco', 'data_subtype': 'val2014', 'annotations': notes}))

def test_published_files(tmp_path):
    real_files(tmp_path)
    first, second = read_vqa(tmp_path, 'val')
    assert (first.id, first.text, first.answer, first.kind, first.answer_type) == (262148000, 'Where is he looking?', 'down', 'none of the above', 'other')
    assert first.answers == ('down',)*10 and first.confidences == ('yes', 'yes', 'maybe', *('yes',)*7) and second.answer == 'watching'
    assert first.file_name == 'COCO_val2014_000000262148.jpg'
    rows = json.loads((tmp_path/'v2_mscoco_val2014_annotations.json').read_text())['annotations']
    write_vqa([first, second], tmp_path, 'val')
    again = json.loads((tmp_path/'v2_mscoco_val2014_annotations.json').read_text())
    assert again['annotations'] == rows[::-1] and again['data_subtype'] == 'val2014'

def test_names_of_coco_pictures():
    assert coco_name('val', 42) == 'COCO_val2014_000000000042.jpg' and coco_name('train', 581929) == 'COCO_train2014_000000581929.jpg'
    assert coco_name('test-dev', 1) == coco_name('test', 1) == 'COCO_test2015_000000000001.jpg'
    with pytest.raises(ValueError, match='minival'): coco_name('minival', 1)

def test_pictures_are_found_below_their_folder(tmp_path):
    real_files(tmp_path)
    (tmp_path/'pictures'/'val2014').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='question_id 262148000.*COCO_val2014_000000262148.jpg'): read_vqa(tmp_path, 'val', tmp_path/'pictures')
    (tmp_path/'pictures'/'val2014'/'COCO_val2014_000000262148.jpg').write_bytes(b'')
    found = read_vqa(tmp_path, 'val', tmp_path/'pictures')
    assert found[0].file_name == 'val2014/COCO_val2014_000000262148.jpg'
    write_vqa(found, tmp_path/'again', 'val')
    assert read_vqa(tmp_path/'again', 'val', tmp_path/'pictures') == found

@pytest.mark.parametrize('message, changed', [
    ('questions.json, questions.1.: the question_id 262148000 occurs twice', dict(asked=lambda rows: rows[1].update(question_id=262148000))),
    ('questions.json, questions.0.: question_id must be a whole number', dict(asked=lambda rows: rows[0].update(question_id='262148000'))),
    ('question_id 262148001: image_id must be a whole number', dict(asked=lambda rows: rows[1].update(image_id=True))),
    ('question_id 262148001: no field question', dict(asked=lambda rows: rows[1].pop('question'))),
    ('questions.json, questions.1.: expected an object', dict(asked=lambda rows: rows.__setitem__(1, 'what?'))),
    ('annotations.json: 1 question_ids are in one file only, such as 262148001', dict(told=lambda rows: rows.pop(0))),
    ('annotations.json: 1 question_ids are in one file only, such as 7', dict(told=lambda rows: rows.append(rows[0] | {'question_id': 7}))),
    ('annotations.json, annotations.1.: the question_id 262148001 occurs twice', dict(told=lambda rows: rows.insert(1, rows[0]))),
    ('question_id 262148000: 9 answers', dict(told=lambda rows: rows[1]['answers'].pop())),
    ('question_id 262148000: answer must be text', dict(told=lambda rows: rows[1]['answers'][4].update(answer=3))),
    ('question_id 262148001: image_id is 262148 in the questions and 9', dict(told=lambda rows: rows[0].update(image_id=9))),
    ('question_id 262148001: no field multiple_choice_answer', dict(told=lambda rows: rows[0].pop('multiple_choice_answer'))),
])
def test_bad_vqa_files_are_named(tmp_path, message, changed):
    real_files(tmp_path, **changed)
    with pytest.raises(ValueError, match=message): read_vqa(tmp_path, 'val')

def test_missing_and_cut_vqa_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='v2_OpenEnded_mscoco_val2014_questions.json'): read_vqa(tmp_path, 'val')
    real_files(tmp_path)
    path = tmp_path/'v2_mscoco_val2014_annotations.json'
    path.write_text(path.read_text()[:200])
    with pytest.raises(ValueError, match='v2_mscoco_val2014_annotations.json, line 1: not valid JSON'): read_vqa(tmp_path, 'val')
    path.write_text('[]')
    with pytest.raises(ValueError, match='annotations.json: expected an object'): read_vqa(tmp_path, 'val')
    path.unlink()
    with pytest.raises(FileNotFoundError, match='annotations.json'): read_vqa(tmp_path, 'val')
    with pytest.raises(ValueError, match="no split 'dev'"): read_vqa(tmp_path, 'dev')

@pytest.mark.parametrize('wrong, message', [
    ([question(answers=('yes',)*9, confidences=('yes',)*9)], 'question 1: 9 answers'), ([question(confidences=('yes',)*9)], 'question 1: 9 answers'),
    ([question(file_name='42.jpg')], 'question 1'), ([question(), question()], 'same id'),
    ([question(split='train')], 'question 1'), ([question(id='1')], 'question_id must be a whole number'), ([question(answer=None)], 'must be text')])
def test_what_cannot_be_read_back_is_not_written(tmp_path, wrong, message):
    write_vqa([question(7)], tmp_path, 'val')
    before = [(path.name, path.read_bytes()) for path in sorted(tmp_path.iterdir())]
    with pytest.raises(ValueError, match=message): write_vqa(wrong, tmp_path, 'val')
    assert [(path.name, path.read_bytes()) for path in sorted(tmp_path.iterdir())] == before

def test_a_test_split_cannot_keep_answers(tmp_path):
    with pytest.raises(ValueError, match='question 1'): write_vqa([question(split='test')], tmp_path, 'test')
    assert not list(tmp_path.iterdir())


# vocabulary and targets

@quick
@given(st.lists(st.sampled_from(['yes', 'Yes', 'no', 'two', '2', 'a dog', 'dog', 't-shirt']), max_size=40), st.integers(1, 9), st.randoms())
def test_vocabulary(answers, least, shuffler):
    made = [question(i, answer=answer) for i, answer in enumerate(answers)]
    labels = answer_vocabulary(made, least)
    counted = Counter(normalise_answer(answer) for answer in answers)
    assert set(labels) == {answer for answer, n in counted.items() if n >= least}
    assert list(labels.values()) == list(range(len(labels)))
    order = [(-counted[answer], answer) for answer in labels]
    assert order == sorted(order)
    shuffler.shuffle(made)
    assert list(answer_vocabulary(made, least).items()) == list(labels.items())

def test_nine_is_enough_and_eight_is_not():
    made = [question(i, answer='yes') for i in range(9)] + [question(i, answer='no') for i in range(9, 17)]
    assert answer_vocabulary(made) == {'yes': 0}

def test_soft_targets():
    asked = question(answers=['red']*5 + ['Red!', 'dark red', 'the dark red', 'two', 'brown'])
    labels = {'red': 0, 'dark red': 1, '2': 2, 'green': 3}
    assert soft_targets(asked, labels) == {0: 1, 1: .6, 2: .3}
    assert soft_targets(asked, labels, 'thirds') == {0: 1, 1: 2/3, 2: 1/3}
    assert soft_targets(asked, {'blue': 0}) == {}

@quick
@given(st.lists(TEXT | st.sampled_from(['two', 'the red', 't-shirt', "dont", '2.']), min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=10, max_size=10))
def test_a_target_is_the_accuracy_of_its_answer_unless_all_people_are_alike(typed, who):
    people = tuple(typed[i % len(typed)] for i in who)
    answers = sorted({normalise_answer(text) for text in people})
    targets = soft_targets(question(answers=people), {answer: label for label, answer in enumerate(answers)})
    alike = len({text.replace('\n', ' ').replace('\t', ' ').strip() for text in people}) == 1
    wanted = {0: 1} if alike else {label: vqa_accuracy(answer, people) for label, answer in enumerate(answers)}
    assert targets == wanted and (not alike or vqa_accuracy(answers[0], people) == (answers[0] == people[0].replace('\n', ' ').replace('\t', ' ').strip()))

@quick
@given(st.lists(TEXT, unique=True, min_size=1, max_size=8), st.randoms())
def test_answer_files_round_trip(tmp_path_factory, answers, shuffler):
    folder, labels = tmp_path_factory.mktemp('answers'), {answer: label for label, answer in enumerate(answers)}
    shuffled = list(labels.items())
    shuffler.shuffle(shuffled)
    write_answers(dict(shuffled), folder/'trainval_ans2label.json')
    assert list(read_answers(folder/'trainval_ans2label.json').items()) == list(labels.items())
    for protocol in (0, 2, 4):
        (folder/'trainval_ans2label.pkl').write_bytes(pickle.dumps(dict(shuffled), protocol))
        assert list(read_answers(folder/'trainval_ans2label.pkl').items()) == list(labels.items())

def test_a_pickle_of_python_2(tmp_path):
    (tmp_path/'trainval_ans2label.pkl').write_bytes(b"(dp1\nS'yes'\np2\nI0\nsS'no'\np3\nI1\ns.")
    assert read_answers(tmp_path/'trainval_ans2label.pkl') == {'yes': 0, 'no': 1}

@pytest.mark.parametrize('content', [{}, [], ['yes', 'no'], {'yes': 0, 'no': 0}, {'yes': 1, 'no': 2}, {'yes': 0, 'no': 2}, {'yes': 0, 'no': '1'}, {'yes': False}, {'yes': 0.0}, 'yes'])
def test_bad_vocabularies_are_refused(tmp_path, content):
    for suffix, data in (('json', json.dumps(content).encode()), ('pkl', pickle.dumps(content))):
        (tmp_path/f'a.{suffix}').write_bytes(data)
        with pytest.raises(ValueError, match=f'a.{suffix}: '): read_answers(tmp_path/f'a.{suffix}')
    if isinstance(content, dict):
        with pytest.raises(ValueError, match='b.json'): write_answers(content, tmp_path/'b.json')
    assert not (tmp_path/'b.json').exists()

def test_a_vocabulary_is_written_as_json(tmp_path):
    with pytest.raises(ValueError, match='a.pkl: a vocabulary is written as .json'): write_answers({'yes': 0}, tmp_path/'a.pkl')
    for name in ('a.json', 'a.pkl'):
        with pytest.raises(FileNotFoundError, match=name): read_answers(tmp_path/name)

def test_a_pickle_bomb_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'boom'),)
    data = pickle.dumps({'yes': 0, 'no': Bomb()})
    (tmp_path/'trainval_ans2label.pkl').write_bytes(data)
    with pytest.raises(ValueError, match='trainval_ans2label.pkl'): read_answers(tmp_path/'trainval_ans2label.pkl')
    assert not (tmp_path/'boom').exists()
    pickle.loads(data) # it is armed
    assert (tmp_path/'boom').exists()


# minval

@quick
@given(st.lists(st.integers(0, 999), unique=True, max_size=20), st.lists(st.integers(0, 999), unique=True, min_size=1, max_size=20), st.data())
def test_minval(train, val, data):
    held_out = data.draw(st.integers(1, len(val)))
    trained, minval = split_minval([question(i, split='train') for i in train], [question(i) for i in val], held_out)
    assert [q.id for q in minval] == sorted(val)[len(val) - held_out:]
    assert [q.id for q in trained] == sorted(train) + sorted(val)[:len(val) - held_out]

def test_minval_is_3000_questions():
    val = [question(i) for i in range(3100)]
    trained, minval = split_minval([], val)
    assert len(minval) == 3000 and minval[0].id == 100
    for wrong in (0, -1, 3101):
        with pytest.raises(ValueError, match='3100 questions of val'): split_minval([], val, wrong)

def test_any_folder_will_do(tmp_path, monkeypatch):
    "With spaces and Unicode, relative, and not there yet."
    monkeypatch.chdir(tmp_path)
    write_vqa([question()], 'ünï cödé/VQA 2', 'val')
    write_answers({'yes': 0}, 'ünï cödé/answers/a.json')
    assert read_vqa(tmp_path/'ünï cödé'/'VQA 2', 'val') == [question()] and read_answers('ünï cödé/answers/a.json') == {'yes': 0}
