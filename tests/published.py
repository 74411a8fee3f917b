"Data sets in the layout in which they are published, written by hand: tiny, with every field, and with a place to break something."
import copy
import json
import struct

from PIL import Image, ImageDraw

from vlground.scenes import make_scene, render


def scene(index: int, path, size=(256, 256)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    render(make_scene(77, index)).resize(size).save(path, quality=90)


# RefCOCO+: refs(unc).p, instances.json and MAttNet's detections

def python_2(value) -> bytes:
    "A value as a pickle of protocol 2 by Python 2 holds it: texts are bytes, whole numbers of more than 32 bits are long."
    if isinstance(value, str):
        text = value.encode()
        return b'U' + bytes([len(text)]) + text
    if isinstance(value, int): return b'J' + struct.pack('<i', value) if abs(value) < 2**31 else b'\x8a\x08' + struct.pack('<q', value)
    if isinstance(value, list): return b'](' + b''.join(map(python_2, value)) + b'e'
    return b'}(' + b''.join(python_2(each) for pair in value.items() for each in pair) + b'u'


SENTENCES = ['red dog', 'the one on top of the table', 'Cat  in the MIDDLE', "man's hat", 'blue thing, to the right!', 'small boat', 'a car', 'white horse']


def refcoco_plus(folder, change=lambda refs, coco, found: None) -> None:
    "Twelve pictures: eight of train, two of val, one of testA and of testB; two objects and a reference each."
    images, annotations, refs, found, sent_id = [], [], [], [], 0
    for k in range(12):
        image_id, width, height = 581000 + 7*k, 256 - 16*(k % 2), 256 - 8*(k % 3)
        name = f'COCO_train2014_{image_id:012}.jpg'
        scene(k, folder/'train2014'/name, (width, height))
        images.append({'license': 1, 'file_name': name, 'coco_url': f'http://mscoco.org/images/{image_id}', 'height': height, 'width': width, 'date_captured': '2013-11-14 11:18:45',
                       'flickr_url': 'http://farm4.staticflickr.com/1.jpg', 'id': image_id})
        objects = [(900100000000 + k, [20.5 + k, 30.25, 90.75, 80.]), (1000 + k, [130., 100.13, 70.62, 99.9 + k])] # as crowds of COCO have it, and as other objects
        for number, (ann_id, (x, y, w, h)) in enumerate(objects):
            annotations.append({'segmentation': [[x, y, x + w, y, x + w, y + h]], 'area': w*h/2, 'iscrowd': 0, 'image_id': image_id, 'bbox': [x, y, w, h], 'category_id': (18, 62)[number], 'id': ann_id})
        said = [SENTENCES[(k + i) % 8] for i in range(1 + k % 3)]
        sentences = [{'tokens': text.lower().split(), 'raw': text, 'sent_id': sent_id + i, 'sent': text.lower()} for i, text in enumerate(said)]
        refs.append({'sent_ids': [each['sent_id'] for each in sentences], 'file_name': name.replace('.jpg', f'_{k}.jpg'), 'ann_id': objects[k % 2][0], 'ref_id': 49000 + k, 'image_id': image_id,
                     'split': 'train' if k < 8 else ('val', 'val', 'testA', 'testB')[k - 8], 'sentences': sentences, 'category_id': (18, 62)[k % 2]})
        sent_id += len(said)
        if k not in (3, 9): # pictures without detections, one of train and one of val
            boxes = [[x + 2, y + 1, w - 4, h - 3] for _, (x, y, w, h) in objects] + [[5., 180., 60., 50.]]
            found += [{'det_id': len(found) + i, 'box': box, 'image_id': image_id, 'category_id': 18, 'category_name': 'dog', 'score': .99 - .1*i} for i, box in enumerate(boxes)]
    coco = {'info': {'description': 'This is stable 1.0 version of the 2014 MS COCO dataset.', 'version': '1.0', 'year': 2014}, 'images': images, 'licenses': [{'id': 1, 'name': 'x', 'url': 'x'}],
            'annotations': annotations, 'categories': [{'supercategory': 'animal', 'id': 18, 'name': 'dog'}, {'supercategory': 'furniture', 'id': 62, 'name': 'chair'}]}
    change(refs, coco, found)
    (folder/'refer'/'refcoco+').mkdir(parents=True)
    (folder/'refer'/'refcoco+'/'refs(unc).p').write_bytes(b'\x80\x02' + python_2(refs) + b'.')
    (folder/'refer'/'refcoco+'/'instances.json').write_text(json.dumps(coco))
    (folder/'dets.json').write_text(json.dumps(found))


# VQA 2.0: questions, annotations, and questions of test

ASKED = [('What color is the dog?', 'what color is the', 'other', 'red'), ('How many dogs are there?', 'how many', 'number', '2'), ('Is this a cat?', 'is this a', 'yes/no', 'yes'),
         ('Is the boat blue?', 'is the', 'yes/no', 'no'), ("What is on the man's head?", 'what is on the', 'other', 'hat')]


def vqa_2(folder, change=lambda files: None) -> None:
    "Three questions to each picture: eight pictures of train, four of val, three of test."
    files = {}
    for subset, first, pictures in (('train2014', 9, 8), ('val2014', 42, 4), ('test2015', 1, 3)):
        questions, annotations = [], []
        for k in range(pictures):
            image_id = first + 1000*k
            scene(first + k, folder/'images'/f'COCO_{subset}_{image_id:012}.jpg', (240, 200))
            for i in range(3):
                text, kind, answer_type, answer = ASKED[(k + i) % 5]
                people = [answer]*7 + ['maybe', f'{answer}.', 'not sure']
                questions.append({'image_id': image_id, 'question': text, 'question_id': 1000*image_id + i})
                answers = [{'answer': each, 'answer_confidence': ('yes', 'maybe', 'no')[j % 3], 'answer_id': j + 1} for j, each in enumerate(people)]
                annotations.append({'question_type': kind, 'multiple_choice_answer': answer, 'answers': answers, 'image_id': image_id, 'answer_type': answer_type, 'question_id': 1000*image_id + i})
        head = {'info': {'description': 'This is v2.0 of the VQA dataset.', 'url': 'http://visualqa.org', 'version': '2.0', 'year': 2017, 'contributor': 'VQA Team', 'date_created': '2017-04-26 17:07:13'},
                'data_type': 'mscoco', 'data_subtype': subset, 'license': {'url': 'http://creativecommons.org/licenses/by/4.0/', 'name': 'Creative Commons Attribution 4.0 International License'}}
        files[f'v2_OpenEnded_mscoco_{subset}_questions.json'] = head | {'task_type': 'Open-Ended', 'questions': questions}
        if subset != 'test2015': files[f'v2_mscoco_{subset}_annotations.json'] = head | {'annotations': annotations[::-1]}
    test_dev = copy.deepcopy(files['v2_OpenEnded_mscoco_test2015_questions.json']) # lies in the same archive: a part of test
    files['v2_OpenEnded_mscoco_test-dev2015_questions.json'] = test_dev | {'data_subtype': 'test-dev2015', 'questions': test_dev['questions'][:2]}
    change(files)
    (folder/'vqa').mkdir(parents=True)
    for name, content in files.items(): (folder/'vqa'/name).write_text(json.dumps(content))


# VCR: train, val and test.jsonl, and a picture with a JSON file of boxes each

MOVIE, SHOT = 'lsmdc_1054_A_Film_and_Its_Sequel', '1054_A_Film_and_Its_Sequel_00.01.{:02}.736-00.01.50.168@0'


def vcr_1(folder, change=lambda rows, metadata: None) -> None:
    "Two items to each picture: four pictures of train, two of val, three of test."
    rows, metadata, k = {}, {}, 0
    for split, pictures in (('train', 4), ('val', 2), ('test', 3)):
        rows[split] = []
        for picture in range(pictures):
            name, k, (width, height) = f'{MOVIE}/{SHOT.format(k)}', k + 1, (320, 180 - 10*(picture % 2))
            boxes = [[12.5, 20.25, 130.75, 170.5 - 10*(picture % 2), .9987], [150., 30., 230., 160., .97], [240.5, 60., 320.31, 150., .81], [100., 5., 140., 40., .7]] # one a little outside, as they are
            names = ['person', 'person', 'chair', 'bottle']
            metadata[name] = {'boxes': boxes, 'segms': [[[[x1, y1], [x2, y1], [x2, y2]]] for x1, y1, x2, y2, _ in boxes], 'names': [*names], 'width': width, 'height': height}
            image = Image.new('RGB', (width, height), (90 + 12*k, 120, 160))
            for (x1, y1, x2, y2, _), colour in zip(boxes, ('brown', 'navy', 'olive', 'green')): ImageDraw.Draw(image).ellipse((x1, y1, x2, y2), colour)
            (folder/'vcr1images'/MOVIE).mkdir(parents=True, exist_ok=True)
            image.save(folder/'vcr1images'/f'{name}.jpg')
            for number in range(2):
                answers = [['Yes', ',', [0], 'is', '.'], ['No', ',', [0, 1], 'are', 'in', 'front', 'of', 'the', [2], '.'], ['She', 'likes', 'the', [3], '.'], ['No', '.']]
                row = {'movie': MOVIE.removeprefix('lsmdc_'), 'objects': names, 'interesting_scores': [-1, 0], 'answer_likelihood': 'possible', 'img_fn': f'{name}.jpg', 'metadata_fn': f'{name}.json',
                       'answer_orig': 'No, 1 is a visitor.', 'question_orig': 'Does 1 live in this house?', 'rationale_orig': '1 is holding a bottle.',
                       'question': ['Does', [number], 'live', 'in', 'this', 'house', '?'], 'answer_match_iter': [2, 3, 0, 1], 'answer_sources': [10104, 5332, 1, 16646], 'answer_choices': answers,
                       'answer_label': (k + number) % 4, 'rationale_choices': [[[1], 'holds', 'a', [3], '.'], ['There', 'is', 'snow', '.'], [[0], "'", 's', 'hat', 'is', 'red', '.'], [[2], '.']],
                       'rationale_sources': [26162, 12999, 6661, 1], 'rationale_match_iter': [1, 3, 2, 0], 'rationale_label': k % 4, 'img_id': f'{split}-{picture}', 'question_number': number,
                       'annot_id': f'{split}-{2*picture + number}', 'match_fold': f'{split}-0', 'match_index': 2*picture + number}
                secret = ('answer_label', 'rationale_label', 'answer_orig', 'rationale_orig', 'answer_sources', 'rationale_sources', 'answer_match_iter', 'rationale_match_iter')
                rows[split].append({key: value for key, value in row.items() if split != 'test' or key not in secret})
    change(rows, metadata)
    for name, content in metadata.items(): (folder/'vcr1images'/f'{name}.json').write_text(json.dumps(content))
    for split, some in rows.items(): (folder/f'{split}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in some))
