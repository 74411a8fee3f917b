"Flickr30k Entities: round trips, files as the originals have them, files that lie, files that would do harm, and the truth for pseudo labels."
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings, strategies as st

from vlground.datasets import CaptionedImage, read_captions, write_captions
from vlground.flickr import (FlickrCaption, FlickrImage, FlickrObject, FlickrPhrase, flickr_gold, read_flickr, read_markup, write_flickr, write_gold,
                             write_markup)
from vlground.pseudolabels import measure_labels, read_gold, read_labels
from vlground.scaleout import label_captions
from vlground.store import Store


# markup

WORD = st.text(st.characters(codec='utf-8', exclude_characters='[]\n\r\ufeff '), min_size=1, max_size=6)

@st.composite
def flickr_caption(draw):
    "Words, some of them in phrases, with single spaces or more between them."
    text, phrases = draw(st.sampled_from(['', ' '])), []
    for words in draw(st.lists(st.lists(WORD, min_size=1, max_size=3), min_size=1, max_size=5)):
        piece = ' '.join(words)
        if draw(st.booleans()):
            kinds = tuple(draw(st.lists(st.sampled_from(['people', 'other', 'scene', 'bodyparts']), min_size=1, max_size=2)))
            phrases.append(FlickrPhrase(len(text), len(text) + len(piece), str(draw(st.integers(0, 10**6))), kinds))
        text += piece + draw(st.sampled_from([' ', '  ']))
    text = text if draw(st.booleans()) else text.rstrip(' ')
    assume(text.strip())
    return FlickrCaption(text, tuple(phrases), draw(st.booleans()))

@settings(max_examples=150)
@given(flickr_caption())
def test_markup_round_trip(caption):
    line = write_markup(caption)
    assert read_markup(line) == replace(caption, related=True)
    assert '\n' not in line

def by_tokens(line): # the rule that the data set's own scripts follow: split at spaces, '[' opens a phrase at a token's start, ']' closes it at a token's end
    words, phrases, opened = [], [], None
    for token in line.split(' '):
        if not token: continue
        if opened is None and token[0] == '[': opened = (token.split('/')[1][3:], token.split('/')[2:], len(words))
        else:
            words.append(token.removesuffix(']') if opened else token)
            if opened and token[-1] == ']':
                phrases.append((*opened, ' '.join(words[opened[2]:])))
                opened = None
    return words, phrases

@settings(max_examples=100)
@given(flickr_caption())
def test_a_reader_of_tokens_finds_the_same_phrases(caption):
    words, phrases = by_tokens(write_markup(caption))
    assert words == [word for word in caption.text.split(' ') if word]
    assert [(chain, tuple(kinds), text) for chain, kinds, _, text in phrases] == [(each.chain, each.kinds, caption.text[each.start:each.end]) for each in caption.phrases]

def test_lines_of_the_published_kind():
    caption = read_markup('[/EN#12/people A man] holds [/EN#13/bodyparts/people a woman \'s hand] at [/EN#0/notvisual it] ,  12 [/EN#12/people himself ].')
    assert caption.text == "A man holds a woman 's hand at it ,  12 himself."
    assert [(caption.text[each.start:each.end], each.chain, each.kinds) for each in caption.phrases] == \
        [('A man', '12', ('people',)), ("a woman 's hand", '13', ('bodyparts', 'people')), ('it', '0', ('notvisual',)), ('himself', '12', ('people',))]
    assert read_markup('It rains .') == FlickrCaption('It rains .')

@pytest.mark.parametrize('line', ['a [sign', 'a sign]', '[a sign]', '[/EN#/people a]', '[/EN#x/people a]', '[/EN#3 a]', '[/EN#3/people]', '[/EN#3/people  ]', '[/EN#3/people a [/EN#4/other b] c]', '[/EN#3/people a', '[/EN#3//people a]',
                                  '[/EN#٣/people a]'])
def test_markup_without_sense_is_named(line):
    with pytest.raises(ValueError, match='Sentences/1.txt, line 2: '): read_markup(line, 'Sentences/1.txt, line 2')

def caption_of(text, *spans, chain='1', kinds=('other',)): return FlickrCaption(text, tuple(FlickrPhrase(start, end, chain, kinds) for start, end in spans))

@pytest.mark.parametrize('bad', [
    caption_of(''), caption_of('   '), caption_of('a [b] c'), caption_of('a\nb'), caption_of('a\rb'), caption_of('\ufeffa'), caption_of('a \ud800'), caption_of('a dog', (0, 0)), caption_of('a dog', (2, 6)), caption_of('a dog', (-3, 5)), caption_of('a dog', (3, 5)),
    caption_of('a dog', (0, 4)), caption_of('a dog, b', (0, 5)), caption_of('a dog runs', (0, 6)), caption_of('a dog runs', (1, 5)), caption_of('a dog runs', (0, 5), (2, 10)), caption_of('a dog runs', (6, 10), (0, 5)),
    caption_of('a', (0, 1), kinds=()), caption_of('a', (0, 1), kinds=('a b',)), caption_of('a', (0, 1), kinds=('a/b',)), caption_of('a', (0, 1), kinds=('',)), caption_of('a', (0, 1), chain='x'), caption_of('a', (0, 1), chain='')])
def test_what_markup_cannot_hold_is_refused(bad):
    with pytest.raises(ValueError, match='1.jpg, caption 3: '): write_markup(bad, '1.jpg, caption 3')


# all files

@st.composite
def flickr_images(draw):
    images = []
    for number in draw(st.lists(st.integers(1, 999), unique=True, max_size=4)):
        size = draw(st.integers(1, 500)), draw(st.integers(1, 500))
        def span(side):
            first = draw(st.integers(0, side - 1))
            return float(first), float(draw(st.integers(first + 1, side)))
        objects = []
        for _ in range(draw(st.integers(0, 3))):
            chains = tuple(map(str, draw(st.lists(st.integers(1, 99), min_size=1, max_size=3))))
            if draw(st.booleans()):
                (x1, x2), (y1, y2) = span(size[0]), span(size[1])
                objects.append(FlickrObject(chains, (x1, y1, x2, y2)))
            else: objects.append(FlickrObject(chains, None, draw(st.booleans()), draw(st.booleans())))
        name = f'{number}{draw(st.sampled_from([".jpg", ".png", "-ünï.jpg"]))}'
        images.append(FlickrImage(name, size, tuple(draw(st.lists(flickr_caption(), max_size=3))), tuple(objects), draw(st.sampled_from(['train', 'val', 'test']))))
    return images

@settings(max_examples=40)
@given(flickr_images())
def test_flickr_round_trip(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp('flickr')
    write_flickr(images, folder)
    order = {'train': 0, 'val': 1, 'test': 2}
    assert read_flickr(folder) == sorted(images, key=lambda image: order[image.split])
    for split in order: assert read_flickr(folder, split) == [image for image in images if image.split == split]

XML = """<annotation>
	<filename>1000.jpg</filename>
	<size>
		<width>333</width>
		<height>500</height>
		<depth>3</depth>
	</size>
	<object>
		<name>1</name>
		<name>6</name>
		<bndbox>
			<xmin>1</xmin>
			<ymin>110</ymin>
			<xmax>333</xmax>
			<ymax>110</ymax>
		</bndbox>
	</object>
	<object>
		<name>1</name>
		<bndbox>
			<xmin>0</xmin>
			<ymin>215</ymin>
			<xmax>334</xmax>
			<ymax>337</ymax>
		</bndbox>
	</object>
	<object>
		<name>9</name>
		<scene>1</scene>
		<nobndbox>0</nobndbox>
	</object>
	<object>
		<name>10</name>
		<scene>0</scene>
		<nobndbox>1</nobndbox>
	</object>
</annotation>"""
LINES = b'[/EN#1/people Two cooks] with [/EN#2/bodyparts long hair] in [/EN#9/scene a kitchen] .\r\n[/EN#6/people A cook] enjoys [/EN#10/other time] .\n\n'

def published(folder, xml=XML, lines=LINES, split=b'1000\n', unrelated=b'# format: <imageID> <sentence number>\n1000 2\n'):
    for name in ('Sentences', 'Annotations'): (folder/name).mkdir(parents=True, exist_ok=True)
    (folder/'Annotations'/'1000.xml').write_bytes(xml.encode() if isinstance(xml, str) else xml)
    (folder/'Sentences'/'1000.txt').write_bytes(lines)
    (folder/'train.txt').write_bytes(split)
    (folder/'UNRELATED_CAPTIONS').write_bytes(unrelated)
    return folder

def test_the_layout_of_flickr(tmp_path):
    (image,) = read_flickr(published(tmp_path))
    # xmin 1 to xmax 333 is all of the width, ymin 110 to ymax 110 one row of pixels; up to a pixel outside is cut off
    assert image.objects == (FlickrObject(('1', '6'), (0., 109., 333., 110.)), FlickrObject(('1',), (0., 214., 333., 337.)), FlickrObject(('9',), None, True), FlickrObject(('10',), None, False, True))
    assert (image.image_id, image.size, image.split) == ('1000.jpg', (333, 500), 'train')
    assert [(caption.text, caption.related) for caption in image.captions] == [('Two cooks with long hair in a kitchen .', True), ('A cook enjoys time .', False)]
    assert image.boxes('1') == ((0., 109., 333., 110.), (0., 214., 333., 337.)) and image.boxes('6') == ((0., 109., 333., 110.),) and image.boxes('9') == image.boxes('77') == ()

def test_marks_that_windows_leaves(tmp_path):
    (image,) = read_flickr(published(tmp_path, lines=b'\xef\xbb\xbfone\r\ntwo\r\n', split=b'\xef\xbb\xbf1000\r\n'))
    assert [caption.text for caption in image.captions] == ['one', 'two']

def test_what_is_written_looks_like_the_original(tmp_path):
    (image,) = read_flickr(published(tmp_path/'a', XML.replace('>0<', '>1<').replace('>334<', '>333<').replace('<scene>1<', '<scene>0<')))
    write_flickr([image], tmp_path/'b')
    assert (tmp_path/'b'/'Annotations'/'1000.xml').read_text().strip() == (tmp_path/'a'/'Annotations'/'1000.xml').read_text()
    assert (tmp_path/'b'/'Sentences'/'1000.txt').read_bytes() == LINES.replace(b'\r\n', b'\n').replace(b'\n\n', b'\n')
    assert {name: (tmp_path/'b'/name).read_text() for name in ('train.txt', 'val.txt', 'test.txt', 'UNRELATED_CAPTIONS')} == \
        {'train.txt': '1000\n', 'val.txt': '', 'test.txt': '', 'UNRELATED_CAPTIONS': '# format: <imageID> <sentence number>\n1000 2\n'}

@pytest.mark.parametrize('old, new, told', [
    ('<xmax>333<', '<xmax>335<', 'object 1: its box .* not inside its picture of 333 x 500'), ('<xmin>1<', '<xmin>-1<', 'object 1: its box .* not inside'), ('<ymin>110<', '<ymin>111<', 'object 1: its box .* has no area'),
    ('<ymin>110<', '<ymin>110.5<', "object 1: ymin must be a whole number, got '110.5'"), ('<xmin>1</xmin>', '', "object 1: xmin must be a whole number, got ''"), ('<xmin>1<', '<xmin>nan<', 'object 1: xmin must be'),
    ('<width>333<', '<width>0<', '0 x 500 pixels is not the size of a picture'), ('<width>333<', '<width>wide<', "size/width must be a whole number, got 'wide'"), ('<name>1</name>\n\t\t<name>6</name>', '', 'object 1: expected the number of a chain in each name'),
    ('<name>6<', '<name>a man<', 'object 1: expected the number of a chain'), ('<scene>1</scene>', '', 'object 3: scene must be a whole number'), ('<nobndbox>1<', '<nobndbox>yes<', 'object 4: nobndbox must be'),
    ('1000.jpg', '1001.jpg', "its filename is '1001.jpg'"), ('</annotation>', '', 'not a plain XML file'), ('<annotation>', '<annotation>&x;', 'not a plain XML file'), ('<annotation>', '<?xml version="1.0" encoding="no-such"?><annotation>', 'not a plain XML file')])
def test_annotations_that_lie_are_named(tmp_path, old, new, told):
    with pytest.raises(ValueError, match=f'Annotations/1000.xml.*{told}'): read_flickr(published(tmp_path, XML.replace(old, new, 1)))

def test_other_files_that_lie_are_named(tmp_path):
    def refused(told, error=ValueError, **files):
        with pytest.raises(error, match=told): read_flickr(published(tmp_path, **files))
    refused('Sentences/1000.txt, line 2: a bracket', lines=b'fine\n[sic]\n')
    refused('Sentences/1000.txt: not UTF-8', lines=b'caf\xe9\n')
    refused('train.txt: picture 1000 was already listed in train.txt', split=b'1000\n1000\n')
    refused('UNRELATED_CAPTIONS, line 2: expected a picture and a number', unrelated=b'# x\n1000\n')
    refused('Annotations/2000.xml: no such file, but the picture is listed', FileNotFoundError, split=b'1000\n2000\n')
    published(tmp_path)
    (tmp_path/'Sentences'/'1000.txt').unlink()
    with pytest.raises(FileNotFoundError, match='Sentences/1000.txt'): read_flickr(tmp_path)
    with pytest.raises(FileNotFoundError, match='val.txt'): read_flickr(tmp_path, 'val')
    with pytest.raises(FileNotFoundError, match='none of the lists train.txt, val.txt, test.txt'): read_flickr(tmp_path/'nowhere')

@pytest.mark.fault(7)
@pytest.mark.parametrize('subset', ['<!ENTITY a0 "boom">' + ''.join(f'<!ENTITY a{i} "{f"&a{i - 1};"*10}">' for i in range(1, 9)), '<!ENTITY a8 SYSTEM "SECRET">', '<!ELEMENT annotation ANY>'])
def test_entity_bombs_do_not_go_off(tmp_path, subset):
    (tmp_path/'secret.txt').write_text('hidden')
    xml = f'<!DOCTYPE annotation [{subset}]>{XML}'.replace('SECRET', (tmp_path/'secret.txt').as_uri()).replace('1000.jpg', '&a8;')
    with pytest.raises(ValueError, match='1000.xml: not a plain XML file: it has a DOCTYPE') as caught: read_flickr(published(tmp_path, xml))
    assert 'hidden' not in str(caught.value)

def test_the_entity_bomb_would_have_gone_off():
    small = '<!DOCTYPE a [<!ENTITY a0 "boom"><!ENTITY a1 "&a0;&a0;"><!ENTITY a2 "&a1;&a1;">]><a>&a2;</a>'
    assert ElementTree.fromstring(small).text == 'boom'*4

IMAGE = FlickrImage('1.jpg', (100, 80), (FlickrCaption('a dog'),), (FlickrObject(('1',), (0., 0., 5., 5.)),), 'val')

@pytest.mark.parametrize('changes, told', [
    (dict(size=(0, 0)), '1.jpg: 0 x 0 pixels is not the size of a picture'), (dict(size=(24.5, 20)), '1.jpg: its size must be in whole pixels'),
    (dict(image_id='a/1.jpg'), 'no folders'), (dict(image_id='a 1.jpg'), 'without spaces'), (dict(image_id='.jpg'), 'names'), (dict(image_id='a\x00.jpg'), 'names'), (dict(split='testA'), "its split must be one of train, val, test, got 'testA'"),
    (dict(captions=(FlickrCaption('a [b]'),)), '1.jpg, caption 1: markup'), (dict(objects=(FlickrObject(()),)), '1.jpg, object 1: expected the number of a chain'), (dict(objects=(FlickrObject(('x',)),)), 'object 1: expected the number'),
    (dict(objects=(FlickrObject(('1',), (0., 0., 5., 5.), scene=True),)), 'object 1: it has a box, and says'), *[(dict(objects=(FlickrObject(('1',), box),)), 'object 1: its box') for box in
    [(0., 0., 5.5, 5.), (0., 0., 101., 5.), (-1., 0., 5., 5.), (5., 0., 5., 5.), (9., 0., 5., 5.), (0., 0., 5., float('nan')), (0., 0., 500., 5.), (0., 0., 5., float('inf'))]]])
def test_what_the_layout_cannot_hold_is_refused_and_nothing_is_written(tmp_path, changes, told):
    with pytest.raises(ValueError, match=told): write_flickr([replace(IMAGE, image_id='0.jpg'), replace(IMAGE, **changes)], tmp_path/'out')
    assert not (tmp_path/'out').exists()

def test_two_pictures_of_one_name(tmp_path):
    with pytest.raises(ValueError, match='1.png: there are two pictures of this name'): write_flickr([IMAGE, replace(IMAGE, image_id='1.png')], tmp_path/'out')


# the truth

@pytest.fixture
def pictures(tmp_path):
    (tmp_path/'pictures').mkdir()
    (tmp_path/'pictures'/'1000.jpg').write_bytes(b'')
    return tmp_path/'pictures'

def test_gold_of_flickr(tmp_path, pictures):
    data = read_flickr(published(tmp_path, unrelated=b''))
    items, rows = flickr_gold(data, pictures)
    assert items == [CaptionedImage('1000.jpg', pictures/'1000.jpg', 'Two cooks with long hair in a kitchen .', '1000.jpg'), CaptionedImage('1000.jpg#1', pictures/'1000.jpg', 'A cook enjoys time .', '1000.jpg')]
    write_gold(rows, tmp_path/'gold'/'captions.jsonl')
    first, second = (told.phrases for told in read_gold(tmp_path/'gold'/'captions.jsonl').values())
    assert [(phrase.kind, phrase.boxes) for phrase in first] == [('people', ((0., 109., 333., 110.), (0., 214., 333., 337.))), ('none', ()), ('scene', ((0., 0., 333., 500.),))]
    assert [(phrase.kind, phrase.boxes) for phrase in second] == [('people', ((0., 109., 333., 110.),)), ('none', ())]
    assert [[row['caption'][phrase['start']:phrase['end']] for phrase in row['phrases']] for row in rows] == [['Two cooks', 'long hair', 'a kitchen'], ['A cook', 'time']]

def test_chain_0_is_never_in_the_picture(tmp_path, pictures):
    data = read_flickr(published(tmp_path, XML.replace('<name>1<', '<name>0<').replace('<name>9<', '<name>0<'), b'[/EN#0/notvisual it] rains\n'))
    assert flickr_gold(data, pictures)[1][0]['phrases'] == [dict(start=0, end=2, kind='none', boxes=[])]

def test_ids_are_those_of_the_captions_file(tmp_path, pictures):
    items, rows = flickr_gold(read_flickr(published(tmp_path, lines=b'one\ntwo\nthree\nfour\nfive\n')), pictures)
    assert [row['id'] for row in rows] == ['1000.jpg', '1000.jpg#1', '1000.jpg#2', '1000.jpg#3'] and [row['caption'] for row in rows] == ['one', 'three', 'four', 'five'] # the second is unrelated
    write_captions(items, tmp_path/'captions.tsv')
    assert read_captions(tmp_path/'captions.tsv', pictures) == items

def test_pictures_that_are_not_there(tmp_path, pictures):
    data = read_flickr(published(tmp_path))
    with pytest.raises(FileNotFoundError, match='1 of 2 pictures are not below .*, the first is 7.jpg'): flickr_gold([replace(data[0], image_id='7.jpg'), *data], pictures)

def test_labels_are_measured_against_people(tmp_path, small_world, small_regions):
    "The world's captions in Flickr's layout give the same measure as the world's own gold file."
    gold, images = read_gold(small_world/'gold'/'captions.jsonl'), []
    for item in read_captions(small_world/'captions.tsv'):
        phrases, boxes = gold[item.id].phrases, {}
        words = item.caption + ' '
        if any(words[phrase.end] != ' ' for phrase in phrases) or len(images) == 12: continue
        for phrase in phrases: boxes.setdefault(phrase.boxes, str(len(boxes) + 1))
        told = tuple(FlickrPhrase(phrase.start, phrase.end, boxes[phrase.boxes], ('notvisual' if phrase.kind == 'none' else phrase.kind,)) for phrase in phrases)
        drawn = tuple(FlickrObject((chain,), box) for those, chain in boxes.items() for box in those)
        images.append(FlickrImage(item.image_id, (256, 256), (FlickrCaption(item.caption, told),), drawn, 'test'))
    write_flickr(images, tmp_path)
    items, rows = flickr_gold(read_flickr(tmp_path, 'test'), small_world/'images')
    write_gold(rows, tmp_path/'gold.jsonl')
    labels = read_labels(label_captions(items, tmp_path/'labels', quiet=True))
    measured = measure_labels(labels, Store(small_regions), read_gold(tmp_path/'gold.jsonl'))
    assert len(items) == 12 and measured['gold'] > 20 and measured['matched'] > 0
    assert measured == measure_labels(labels, Store(small_regions), gold)
