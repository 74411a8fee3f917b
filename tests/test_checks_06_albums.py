"The checks behind the exercises of lesson 06, pictures in folders and in tars."
import math
import os
from pathlib import Path

import numpy as np
from checking import assert_check

from vlground import checks_labels as checks


def image_ids(folder, ends=('.jpg', '.png'), lower=str.lower, hidden=lambda path: any(part.startswith('.') for part in path.parts), name=Path.as_posix, files=Path.is_file, deep='**/*', order=sorted):
    below = [path.relative_to(folder) for path in folder.glob(deep) if files(path) and lower(path.suffix) in ends]
    return order(name(path) for path in below if not hidden(path))


def test_check_image_ids():
    assert_check(checks.check_image_ids, image_ids, [
        (lambda folder: image_ids(folder, name=lambda path: path), 'and not as a Path'),
        (lambda folder: image_ids(folder, name=lambda path: (folder/path).as_posix()), 'its id is its name'),
        (lambda folder: image_ids(folder, ends=('.jpg', '.png', '.gif')), 'only .jpg and .png'),
        (lambda folder: sorted(name for name in os.listdir(folder) if name.lower().endswith(('jpg', 'png')) and name[0] != '.'), 'only .jpg and .png'),
        (lambda folder: image_ids(folder) or ['no picture'], 'an empty list'),
        (lambda folder: image_ids(folder, deep='*'), 'at any depth'),
        (lambda folder: image_ids(folder, name=lambda path: path.name), 'keep the folders'),
        (lambda folder: sorted({id.split('/')[-1]: id for id in image_ids(folder)}.values()), 'three ids'),
        (lambda folder: image_ids(folder, lower=str), 'in capitals'),
        (lambda folder: image_ids(folder, name=lambda path: path.as_posix().lower()), 'the id keeps them'),
        (lambda folder: [path.as_posix() for path in sorted(Path(id) for id in image_ids(folder))], 'sorted otherwise'),
        (lambda folder: image_ids(folder, hidden=lambda path: False), 'begins with a dot is hidden'),
        (lambda folder: image_ids(folder, hidden=lambda path: path.name[0] == '.'), 'in a hidden folder'),
        (lambda folder: image_ids(folder, hidden=lambda path: path.name[0] == '.' or path.parts[0][0] == '.'), 'wherever that folder is'),
        (lambda folder: image_ids(folder, hidden=lambda path: '/.' in (folder/path).as_posix()), 'below it only'),
        (lambda folder: image_ids(folder, files=Path.exists), 'album.jpg'),
    ])
    assert checks.check_image_ids(lambda folder: iter(image_ids(folder))) # any row of texts will do


def whole_files(sizes, arrived, header=512, blocks=lambda size: math.ceil(size/512), needed=lambda size: size):
    count = at = 0
    for size in sizes:
        if at + header + needed(size) > arrived: break
        count += 1
        at += header + 512*blocks(size)
    return count


def test_check_whole_files():
    assert_check(checks.check_whole_files, whole_files, [
        (lambda sizes, arrived: sizes[:whole_files(sizes, arrived)], 'return how many'),
        (lambda sizes, arrived: len(sizes), 'Nothing has arrived'),
        (lambda sizes, arrived: whole_files(sizes, arrived, header=0), 'that takes 512'),
        (lambda sizes, arrived: whole_files(sizes, arrived, needed=lambda size: 0), 'One byte is lacking'),
        (lambda sizes, arrived: whole_files(sizes, arrived, needed=lambda size: 512*math.ceil(size/512)), 'are not needed'),
        (lambda sizes, arrived: whole_files(sizes, arrived, needed=lambda size: size + 1), 'are not needed'),
        (lambda sizes, arrived: whole_files(sizes, arrived, blocks=lambda size: size/512), 'up to a whole block'),
        (lambda sizes, arrived: whole_files(sizes, arrived, blocks=lambda size: size//512), 'up to a whole block'),
        (lambda sizes, arrived: whole_files(sizes, arrived, blocks=lambda size: size//512 + (size > 0)), 'and not two'),
        (lambda sizes, arrived: whole_files(sizes, arrived, blocks=lambda size: max(1, math.ceil(size/512))), 'no block'),
        (lambda sizes, arrived: sum(512 + size <= arrived for size in sizes) if len(sizes) == 3 else whole_files(sizes, arrived), 'however small'),
        (lambda sizes, arrived: max(1, whole_files(sizes, arrived)) if not sizes else whole_files(sizes, arrived), 'without files'),
        (lambda sizes, arrived: min(3, whole_files(sizes, arrived)), 'Many files'),
    ])


def upright(pixels, note, exchanged=(5, 6, 7, 8), right=(2, 3, 6, 7), bottom=(3, 4, 7, 8), exchange=lambda pixels: pixels.swapaxes(0, 1)):
    if note in exchanged: pixels = exchange(pixels)
    if note in right: pixels = pixels[:, ::-1]
    if note in bottom: pixels = pixels[::-1]
    return pixels


def test_check_upright():
    assert_check(checks.check_upright, upright, [
        (lambda pixels, note: pixels[::-1], 'Note 1'),
        (lambda pixels, note: pixels, 'Note 2'),
        (lambda pixels, note: upright(pixels, note, right=(3, 4, 6, 7), bottom=(2, 3, 7, 8)), 'Note 2'),
        (lambda pixels, note: upright(pixels, note, bottom=(3, 7, 8)), 'Note 4'),
        (lambda pixels, note: upright(pixels, note, bottom=(4, 7, 8)), 'bottom *and* right'),
        (lambda pixels, note: upright(pixels, note, exchanged=()), 'rows and columns are exchanged'),
        (lambda pixels, note: upright(pixels, note, exchange=np.transpose), 'the colours stay last'),
        (lambda pixels, note: upright(pixels, note, right=(2, 3, 5, 6, 7)), 'and nothing else'),
        (lambda pixels, note: upright(pixels, {6: 8, 8: 6}.get(note, note)), 'the wrong way round'),
        (lambda pixels, note: upright(pixels, note, bottom=(3, 4, 7)), 'Note 8'),
        (lambda pixels, note: upright(pixels, note, right=(2, 3, 6)), 'right *and* bottom'),
        (lambda pixels, note: {n: upright(pixels, n) for n in range(1, 9)}[note], 'none of the eight'),
        (lambda pixels, note: upright(pixels, max(1, min(note, 8))), 'none of the eight'),
        (lambda pixels, note: pixels if pixels.shape[0] == pixels.shape[1] else upright(pixels, note), 'square'),
    ])
    assert checks.check_upright(lambda pixels, note: upright(pixels, note).tolist())
