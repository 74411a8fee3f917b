"Lesson 00: pictures, seeds and files."
import json
import operator
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import begin, wait_until
from PIL import Image

from vlground import core

keys = st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**32 + 1]) | st.text(max_size=8), max_size=5)


def picture(w=40, h=30): return core.rng('picture', w, h).integers(256, size=(h, w, 3), dtype=np.uint8)


# pictures

def test_the_three_forms_agree():
    array = picture()
    for form in (Image.fromarray(array), array, torch.tensor(array).permute(2, 0, 1)): assert np.array_equal(core.as_array(form), array)
    assert core.as_array(Image.fromarray(array).convert('L')).shape == core.as_array(Image.fromarray(array).convert('P')).shape == (30, 40, 3)


@pytest.mark.parametrize('wrong', [np.zeros((1, 4, 4, 3), np.uint8), torch.zeros(3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8), np.zeros((4, 4), np.uint8),
                                   np.zeros((4, 4, 3)), 'scene.png', None])
def test_other_forms_are_refused(wrong):
    with pytest.raises(ValueError, match='not a picture'): core.as_array(wrong)


def test_pixel_axes():
    ax = core.show_image(picture(), 'title')
    assert ax.get_xlim() == (0, 40) and ax.get_ylim() == (30, 0)
    assert ax.get_title() == 'title' and 'pixels' in ax.get_xlabel() and 'pixels' in ax.get_ylabel()
    assert tuple(ax.images[0].get_extent()) == (0, 40, 30, 0)
    given_axes = plt.subplots()[1]
    assert core.show_image(picture(), ax=given_axes) is given_axes


# boxes

def frames(ax):
    ax.figure.draw_without_rendering()
    return [text.get_bbox_patch().get_window_extent() for text in ax.texts]


box = st.tuples(*[st.floats(-50, 250)]*4).map(lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])))
label = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)


@settings(max_examples=20)
@given(st.lists(st.tuples(box, label), min_size=1, max_size=3), st.sampled_from([(200, 200), (300, 120), (90, 200)]))
def test_labels_stay_inside_the_picture(boxes, size):
    ax = core.show_boxes(size, [b for b, _ in boxes], labels=[name for _, name in boxes])
    edge = ax.get_window_extent()
    for frame in frames(ax):
        assert frame.x0 >= edge.x0 - .5 and frame.x1 <= edge.x1 + .5
        assert frame.y0 >= edge.y0 - .5 and frame.y1 <= edge.y1 + .5
    plt.close(ax.figure)


def test_a_dollar_is_a_dollar():
    ax = core.show_boxes((100, 100), [(10, 10, 40, 40)], labels=['$5 or $_{'])
    core.show_matrix(np.eye(2), rows=['$_{', '$'], columns=['a', '$^$']).figure.canvas.draw()
    ax.figure.canvas.draw()
    assert ax.texts[0].get_text() == '$5 or $_{'


def test_labels_of_boxes_at_one_place_do_not_touch():
    ax = core.show_boxes((256, 256), [(100, 100, 180, 160)]*4, labels=['first', 'second', 'third', 'fourth'])
    named = frames(ax)
    assert not any(a.overlaps(b) for i, a in enumerate(named) for b in named[:i])


def test_line_styles():
    ax = core.show_boxes((100, 100), torch.tensor([[10, 10, 20, 30], [0, 0, 100, 100.]]), colours=[core.GREEN, None], styles=[None, '--'], widths=[4, 1])
    first, second = ax.patches
    assert (first.get_x(), first.get_y(), first.get_width(), first.get_height()) == (10, 10, 10, 20)
    assert plt.matplotlib.colors.to_hex(first.get_edgecolor()) == core.GREEN and plt.matplotlib.colors.to_hex(second.get_edgecolor()) == core.GREY
    assert first.get_linewidth() == 4 and first.get_linestyle() in ('-', 'solid') and second.get_linestyle() in ('--', 'dashed')


@pytest.mark.parametrize('boxes, word', [(torch.zeros(4), 'expected'), (torch.zeros(2, 5), 'expected'), ([[0, 0, float('nan'), 1]], 'box 0 is not finite'),
                                         ([[0, 0, 1, 1], [0, 0, float('inf'), 1]], 'box 1 is not finite')])
def test_bad_boxes_are_refused(boxes, word):
    with pytest.raises(ValueError, match=word): core.show_boxes((10, 10), boxes)


@pytest.mark.parametrize('name', ['labels', 'colours', 'styles', 'widths'])
def test_counts_must_agree(name):
    with pytest.raises(ValueError, match=f'1 {name} for 2 boxes'): core.show_boxes((10, 10), torch.zeros(2, 4), **{name: [2]})


def test_no_boxes():
    for none in ([], torch.zeros(0, 4), np.zeros((0, 4))): assert not core.show_boxes((10, 20), none, labels=[]).patches


# matrices

def test_matrix_values():
    ax = core.show_matrix([[float('nan'), -1.], [0, 2]], ['a', 'b'], ['c', 'd'], title='t', xlabel='x', ylabel='y')
    assert [text.get_text() for text in ax.texts] == ['–', '-1.00', '0.00', '2.00']
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ['a', 'b']
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ('t', 'x', 'y')


def test_matrix_of_truth_values_is_green_where_true():
    ax = core.show_matrix(torch.eye(2, dtype=torch.bool))
    colours = ax.images[0].to_rgba(ax.images[0].get_array())
    assert plt.matplotlib.colors.to_hex(colours[0, 0]) == core.GREEN != plt.matplotlib.colors.to_hex(colours[0, 1])
    assert [text.get_text() for text in ax.texts] == ['1', '0', '0', '1']


def test_large_matrix_has_a_colour_bar():
    ax = core.show_matrix(core.rng(0).random((60, 60)), values=False)
    assert not ax.texts and len(ax.figure.axes) == 2


@pytest.mark.parametrize('matrix', [np.full((2, 2), np.nan), np.zeros((3, 1)), np.full((1, 1), -3), np.array([[np.inf, 1.]])])
def test_odd_matrices_are_drawn(matrix): core.show_matrix(matrix).figure.canvas.draw()


@pytest.mark.parametrize('wrong', [[1, 2], np.zeros((0, 3)), np.zeros((2, 2, 2))])
def test_not_a_matrix(wrong):
    with pytest.raises(ValueError, match='expected'): core.show_matrix(wrong)


def test_names_of_rows_and_columns_must_agree():
    with pytest.raises(ValueError, match='1 names for 2 rows'): core.show_matrix(np.eye(2), rows=['a'])
    with pytest.raises(ValueError, match='3 names for 2 columns'): core.show_matrix(np.eye(2), columns=['a', 'b', 'c'])


def test_grid():
    drawn = []
    axes = core.show_grid([picture(), drawn.append, picture(20, 20)], columns=2, titles=['a', 'b', 'c'], title='all')
    assert len(axes) == 3 and drawn == [axes[1]] and [ax.get_title() for ax in axes] == ['a', 'b', 'c']
    assert len(axes[0].figure.axes) == 3
    with pytest.raises(ValueError, match='empty'): core.show_grid([])


# randomness

def first(*names) -> int: return int(core.rng(*names).integers(2**63))


@given(keys, keys)
def test_a_stream_is_its_keys(a, b):
    assert first(*a) == first(*a)
    assert (first(*a) == first(*b)) == (a == b)


@pytest.mark.parametrize('a, b', [((5,), (5, 0)), ((2**32,), (0, 1)), ((0,), ()), ((0,), ('',)), (('ab',), ('a', 'b')), (('1',), (1,)), ((0, 1), (1, 0)),
                                  (('plumless',), ('buckeroo',))]) # the last pair has one and the same CRC-32
def test_like_keys_are_told_apart(a, b): assert first(*a) != first(*b)


def test_streams_are_the_same_on_every_machine():
    assert core.rng(0, 'scene', 7).integers(1000, size=4).tolist() == [162, 133, 223, 255]
    assert core.torch_rng(0, 'scene', 7).initial_seed() == 1234530322427863903


def test_streams_do_not_depend_on_the_process():
    code = 'from vlground.core import rng; print(rng(3, "x", 2**40).integers(2**63))'
    seen = {subprocess.run([sys.executable, '-c', code], env=os.environ | {'PYTHONHASHSEED': seed}, capture_output=True, text=True, check=True).stdout for seed in '12'}
    assert seen == {f'{first(3, "x", 2**40)}\n'}


def test_global_streams_are_left_alone():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    core.rng(1).random(3), torch.rand(3, generator=core.torch_rng(1))
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1] and torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize('wrong, kind', [(-1, ValueError), (2**64, ValueError), (1.5, TypeError), (None, TypeError)])
def test_bad_keys(wrong, kind):
    with pytest.raises(kind): core.rng(wrong)


def test_whole_numbers_of_numpy_and_torch_are_keys(): assert first(np.int64(3)) == first(torch.tensor(3)) == first(3)


def test_set_seed():
    def drawn(): return random.random(), np.random.rand(), torch.rand(()).item()
    generator = core.set_seed(5)
    numbers = drawn()
    core.set_seed(5)
    assert drawn() == numbers and generator.initial_seed() == 5
    core.set_seed(6)
    assert drawn() != numbers
    for wrong in (-1, 2**32):
        with pytest.raises(ValueError, match=str(wrong)): core.set_seed(wrong)


# files

def names(folder): return sorted(path.name for path in folder.iterdir())


def test_moved_into_place(tmp_path):
    path = tmp_path/'a'/'b'/'new.json'
    with core.moved_into_place(path) as part:
        assert part.parent == path.parent and part.suffix == '.json' and not path.exists()
        part.write_text('1')
    assert path.read_text() == '1' and names(path.parent) == ['new.json']


@pytest.mark.parametrize('error', [OSError, ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    path = tmp_path/'file.txt'
    path.write_text('old')
    with pytest.raises(error), core.moved_into_place(path) as part:
        part.write_text('ne')
        raise error
    assert path.read_text() == 'old' and names(tmp_path) == ['file.txt']


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path/'file.txt'
    path.write_text('old')
    code = f'import os, signal\nfrom vlground.core import moved_into_place\nwith moved_into_place({str(path)!r}) as part:\n    part.write_text("ne")\n    os.kill(os.getpid(), signal.SIGKILL)'
    assert subprocess.run([sys.executable, '-c', code]).returncode != 0
    assert path.read_text() == 'old'
    with core.moved_into_place(path) as part: part.write_text('new')
    assert path.read_text() == 'new'


def test_two_writers_do_not_meet(tmp_path):
    with core.moved_into_place(tmp_path/'x') as one, core.moved_into_place(tmp_path/'x') as two:
        assert one != two
        one.write_text('1'), two.write_text('2')
    assert (tmp_path/'x').read_text() == '1' and names(tmp_path) == ['x'] # the outer block ends last


def test_moved_into_place_refuses(tmp_path):
    with pytest.raises(IsADirectoryError, match='folder'), core.moved_into_place(tmp_path): pass
    with pytest.raises(FileNotFoundError, match='nothing was written'), core.moved_into_place(tmp_path/'x'): pass
    assert names(tmp_path) == []


def test_permissions_are_those_of_a_plain_file(tmp_path):
    core.save_json(1, tmp_path/'a')
    (tmp_path/'b').write_text('1')
    assert stat.S_IMODE((tmp_path/'a').stat().st_mode) == stat.S_IMODE((tmp_path/'b').stat().st_mode)


json_values = st.recursive(st.none() | st.booleans() | st.integers(-2**53, 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=['Cs'])),
                           lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=['Cs'])), inner, max_size=3), max_leaves=8)


@given(json_values)
def test_json_comes_back(tmp_path, value):
    core.save_json(value, tmp_path/'x.json')
    assert core.load_json(tmp_path/'x.json') == value


@pytest.mark.parametrize('wrong', [float('nan'), float('inf'), {1, 2}, {'x': Path}, '\ud800'])
def test_what_json_cannot_hold(tmp_path, wrong):
    core.save_json('old', tmp_path/'x.json')
    with pytest.raises(ValueError, match=r'x\.json'): core.save_json(wrong, tmp_path/'x.json')
    assert core.load_json(tmp_path/'x.json') == 'old' and names(tmp_path) == ['x.json']


@pytest.mark.parametrize('content, word', [(b'{"a": 1,\n "b": ', r'broken\.json, line 2'), (b'', r'broken\.json, line 1'), (b'"\xff"', 'UTF-8')])
def test_broken_json_is_named(tmp_path, content, word):
    (tmp_path/'broken.json').write_bytes(content)
    with pytest.raises(ValueError, match=word): core.load_json(tmp_path/'broken.json')


def test_missing_json_is_named(tmp_path):
    for path in (tmp_path/'none.json', tmp_path):
        with pytest.raises(FileNotFoundError, match=path.name): core.load_json(path)


def test_json_is_readable_text(tmp_path):
    core.save_json({'größe': [1, 2]}, tmp_path/'x.json')
    text = (tmp_path/'x.json').read_text(encoding='utf-8')
    assert 'größe' in text and text.endswith('\n') and json.loads(text) == {'größe': [1, 2]}


@given(st.binary(max_size=300))
def test_sha256(tmp_path, content):
    import hashlib
    (tmp_path/'x').write_bytes(content)
    assert core.sha256(tmp_path/'x') == hashlib.sha256(content).hexdigest()


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv('VLGROUND_HOME', str(tmp_path/'elsewhere'))
    assert core.home() == tmp_path/'elsewhere' and not core.home().exists()
    monkeypatch.setenv('VLGROUND_HOME', '~/data')
    assert core.home() == Path.home()/'data'
    for unset in ('', None):
        monkeypatch.setenv('VLGROUND_HOME', unset) if unset is not None else monkeypatch.delenv('VLGROUND_HOME')
        assert core.home() == Path.home()/'.vlground'
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('VLGROUND_HOME', str(tmp_path/'file'))
    with pytest.raises(NotADirectoryError, match='file'): core.home()


def test_cells_that_ask_for_more_than_a_laptop(monkeypatch, capsys):
    monkeypatch.delenv('VLGROUND_FLAGS', raising=False)
    assert not core.asked_for('gpu') and capsys.readouterr().out == 'left out, because it takes a GPU: start JupyterLab with VLGROUND_FLAGS=gpu in the environment to run it\n'
    monkeypatch.setenv('VLGROUND_FLAGS', 'slow net')
    assert core.asked_for('slow') and core.asked_for('net') and not capsys.readouterr().out and not core.asked_for('gpu')


# several processes

def test_run_jobs():
    arguments = [(1, 2), (3, 4), (5, 6), (7, 8)]
    assert list(core.run_jobs(operator.add, arguments)) == [3, 7, 11, 15]
    assert sorted(core.run_jobs(operator.add, arguments, workers=3)) == [3, 7, 11, 15]
    assert list(core.run_jobs(operator.add, [], workers=3)) == []
    assert list(core.run_jobs(torch.get_num_threads, [(), ()], workers=2)) == [1, 1]


def test_jobs_are_handed_out_as_results_are_taken():
    class Watched(list):
        taken = 0
        def __iter__(self):
            for each in super().__iter__():
                self.taken += 1
                yield each
    arguments = Watched((i, 1) for i in range(100))
    results = core.run_jobs(operator.add, arguments, workers=2)
    for count in range(1, 4):
        next(results)
        assert arguments.taken <= 2*2 + count # neither a million arguments nor their results wait in memory
    assert len(list(results)) == 97


@pytest.mark.parametrize('workers', [1, 2])
def test_a_failing_job_is_heard_of(workers):
    with pytest.raises(ZeroDivisionError): list(core.run_jobs(operator.truediv, [(1, 1), (1, 0), (4, 2)], workers))


ORPHANS = '''
import sys
from vlground.core import run_jobs
import orphans
if __name__ == '__main__': list(run_jobs(orphans.stay, [(sys.argv[1], i) for i in range(2)], workers=2))
'''
STAY = '''
import os, time
from pathlib import Path
def stay(folder, i):
    Path(folder, f'{i}.part').write_text(str(os.getpid()))
    Path(folder, f'{i}.part').rename(Path(folder, f'{i}.pid'))
    time.sleep(600)
'''


def alive(pid: int) -> bool:
    "Is there such a process, and has it not ended yet?"
    # Z: ended, but nobody has asked for its exit code
    try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError: return False


@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='looks processes up in /proc, which is not here')
def test_workers_end_with_the_process_that_started_them(tmp_path):
    for name, code in (('main.py', ORPHANS), ('orphans.py', STAY)): (tmp_path/name).write_text(code)
    process = begin(str(tmp_path/'main.py'), str(tmp_path))
    wait_until(process, lambda: len(list(tmp_path.glob('*.pid'))) == 2)
    workers = [int(file.read_text()) for file in tmp_path.glob('*.pid')]
    assert all(map(alive, workers))
    os.kill(process.pid, signal.SIGKILL) # the parent alone
    process.wait()
    end = time.monotonic() + 60
    while any(map(alive, workers)) and time.monotonic() < end: time.sleep(.05)
    left = [pid for pid in workers if alive(pid)]
    for pid in left: os.kill(pid, signal.SIGKILL)
    process.stdout.close()
    assert not left


def test_a_drawing_is_shown_where_pyplot_has_drawn_nothing():
    "In a process of its own, with the formatter that a notebook's kernel asks."
    told = subprocess.run([sys.executable, '-c', 'from IPython.core.formatters import PNGFormatter\nfrom vlground.core import Drawing\n'
                           'figure = Drawing(figsize=(2, 1))\nfigure.subplots().plot([0, 1])\nprint(PNGFormatter()(figure)[:4])'], capture_output=True, text=True, env=os.environ | {'MPLBACKEND': 'agg'})
    assert told.stdout.strip() == r"b'\x89PNG'", told.stderr
