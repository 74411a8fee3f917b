"Every thing fills its box, is drawn the same twice, and has the colour, the pattern and the points that were asked for."
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlground.core import rng
from vlground.drawing import (BACKGROUNDS, COLOURS, KINDS, PATTERNS, SHAPES, THINGS, anchor, box_of, build, draw_background, draw_shadow, draw_thing, paint,
                              pose_size, read_things)

POSED = [(kind.name, pose) for kind in KINDS.values() for pose in kind.poses]
HOLDS_OWN = [name for name in KINDS if name not in ('pizza', 'rainbow')] # these two have next to none of their own colour
every_pose = pytest.mark.parametrize('kind, pose', POSED, ids=[f'{kind} {pose}' for kind, pose in POSED])
GROUPS = {'people', 'animals', 'vehicles', 'furniture', 'food', 'toys', 'plants', 'buildings', 'weather', 'objects'}


def cover(sprite: Image.Image) -> np.ndarray: return np.asarray(sprite)[..., 3]


def mean_colour(sprite: Image.Image) -> np.ndarray:
    pixels = np.asarray(sprite, float)
    return (pixels[..., :3]*pixels[..., 3:]).sum((0, 1))/pixels[..., 3].sum()


# kinds

def test_there_are_fifty_two_kinds_in_ten_groups():
    assert len(KINDS) == 52 and {kind.group for kind in KINDS.values()} == GROUPS
    for name, kind in KINDS.items():
        assert kind.name == name and kind.place in ('ground', 'sky', 'any')
        assert kind.colours and set(kind.colours) <= set(COLOURS) and len(set(kind.colours)) == len(kind.colours)
        assert 'plain' in kind.patterns and set(kind.patterns) <= set(PATTERNS)
        assert 15 <= kind.width <= 140 and 15 <= kind.height <= 140


def test_poses_by_group():
    for kind in KINDS.values():
        if kind.group == 'people': assert kind.poses == ('standing', 'sitting', 'running', 'waving')
        elif kind.name in ('bird', 'duck'): assert kind.poses == ('standing', 'flying')
        elif kind.group == 'animals': assert kind.poses == ('standing', 'sitting', 'running', 'sleeping')
        else: assert kind.poses == ('plain',)


def test_sizes_are_those_of_the_world():
    size = {name: max(kind.width, kind.height) for name, kind in KINDS.items()}
    assert size['ball'] < size['cat'] < size['dog'] < size['man'] < size['house']
    assert KINDS['boy'].height < .8*KINDS['man'].height and KINDS['girl'].height < .8*KINDS['woman'].height


def test_colours_are_apart():
    colours = np.array(list(COLOURS.values()), float)
    distance = np.linalg.norm(colours[:, None] - colours, axis=2) + 1000*np.eye(len(colours))
    assert len(COLOURS) == 11 and distance.min() > 70


# things

@every_pose
@pytest.mark.parametrize('flip', [False, True])
def test_the_drawing_touches_all_four_sides(kind, pose, flip):
    for size in (pose_size(kind, pose), (40, 40), (150, 90)):
        sprite = draw_thing(kind, KINDS[kind].colours[0], 'plain', pose, *size, flip=flip)
        assert sprite.size == size and sprite.mode == 'RGBA'
        alpha = cover(sprite)
        for side in (alpha[:2], alpha[-2:], alpha[:, :2], alpha[:, -2:]): assert side.max() >= 40


@every_pose
def test_nothing_is_cut_off(kind, pose):
    "With more room around it, the painted drawing reaches no farther than its box."
    parts, _ = build(THINGS['blocks'][f'{kind}/{pose}'], THINGS['blocks'])
    x0, y0, x1, y1 = box_of(parts)
    room = .25*max(x1 - x0, y1 - y0)
    alpha = paint([part for part in parts if 'soft' not in part.options], (x0 - room, y0 - room, x1 + room, y1 + room))[..., 6]
    h, w = alpha.shape
    dx, dy = round(room/(x1 - x0 + 2*room)*w) - 2, round(room/(y1 - y0 + 2*room)*h) - 2
    assert alpha[dy:-dy, dx:-dx].sum() >= .9999*alpha.sum() > 0


@every_pose
def test_drawn_twice_the_bytes_are_the_same(kind, pose):
    words = kind, KINDS[kind].colours[-1], KINDS[kind].patterns[-1], pose, 50, 60
    first = draw_thing(*words)
    first.paste((0, 0, 0, 0), (0, 0, 50, 60)) # what the caller does to its copy changes nothing
    second = draw_thing(*words)
    from vlground.drawing import _drawing, _masters, _pattern
    for cached in (_drawing, _masters, _pattern): cached.cache_clear()
    assert second.tobytes() == draw_thing(*words).tobytes() != first.tobytes()


@pytest.mark.parametrize('kind', HOLDS_OWN)
def test_the_colour_is_seen(kind):
    grey = mean_colour(draw_thing(kind, 'grey'))
    for colour, (channel, sign) in {'red': (0, 1), 'green': (0, -1), 'blue': (2, 1), 'yellow': (2, -1)}.items():
        assert sign*(mean_colour(draw_thing(kind, colour)) - grey)[channel] > 2, colour
    dark, light = (mean_colour(draw_thing(kind, colour)).mean() for colour in ('black', 'white'))
    assert dark + 8 < light


@pytest.mark.parametrize('kind', ['man', 'woman', 'boy', 'girl', 'dog', 'car', 'ball', 'sofa', 'balloon'])
def test_a_sprite_is_nearest_to_its_own_colour(kind):
    "Among the pixels of one thing, the change from one colour to another is the change of the colour itself, times its share."
    one, other = (np.asarray(draw_thing(kind, colour), float)[..., :3] for colour in ('blue', 'orange'))
    change = (other - one).sum((0, 1))
    wanted = np.subtract(COLOURS['orange'], COLOURS['blue'])
    assert change@wanted/np.linalg.norm(change)/np.linalg.norm(wanted) > .99


@pytest.mark.parametrize('kind', [kind.name for kind in KINDS.values() if len(kind.patterns) > 1])
def test_patterns_differ(kind):
    about = KINDS[kind]
    for colour in about.colours:
        drawn = {pattern: np.asarray(draw_thing(kind, colour, pattern), float) for pattern in about.patterns}
        for one in drawn:
            for other in drawn:
                if one < other:
                    seen = drawn[one][..., 3] > 200
                    assert (np.abs(drawn[one] - drawn[other])[..., :3].max(2)[seen] > 30).mean() > .04, (colour, one, other)
                    assert np.array_equal(drawn[one][..., 3], drawn[other][..., 3])


def test_a_pattern_keeps_to_what_has_the_own_colour():
    plain, checked = (np.asarray(draw_thing('man', 'red', pattern), int) for pattern in ('plain', 'checked'))
    legs = slice(round(.62*len(plain)), None)
    assert np.array_equal(plain[legs], checked[legs]) and not np.array_equal(plain[:legs.start], checked[:legs.start])


def test_looks_change_people_only():
    assert len({draw_thing('woman', 'blue', look=look).tobytes() for look in range(4)}) == 4
    assert len({draw_thing('house', 'blue', look=look).tobytes() for look in range(4)}) == 1


def test_poses_and_flips_are_seen():
    for kind in ('man', 'dog'):
        drawn = {draw_thing(kind, 'brown', 'plain', pose, 60, 60, flip).tobytes() for pose in KINDS[kind].poses for flip in (False, True)}
        assert len(drawn) == 8
    right, left = (cover(draw_thing('dog', 'brown', flip=flip)).astype(int) for flip in (False, True))
    assert np.abs(right - left[:, ::-1]).mean() < 3 # the outline is mirrored ...
    one, other = (np.asarray(draw_thing('ball', 'red', 'plain', None, 60, 60, flip), int)[..., :3].sum(2) for flip in (False, True))
    for ball in (one, other): assert ball[12:24, 12:24].mean() > ball[38:50, 38:50].mean() + 20 # ... and the light is not


@given(st.sampled_from(POSED), st.sampled_from(list(COLOURS)), st.sampled_from(PATTERNS), st.integers(1, 90), st.integers(1, 90), st.booleans(), st.integers(0, 3))
def test_any_size_is_exact(posed, colour, pattern, width, height, flip, look):
    sprite = draw_thing(posed[0], colour, pattern, posed[1], width, height, flip, look)
    assert sprite.size == (width, height) and cover(sprite).max() > 0


@pytest.mark.parametrize('words, said', [
    (('unicorn', 'white'), 'unicorn'), (('cat', 'turquoise'), 'turquoise'), (('cat', 'black', 'tartan'), 'tartan'), (('cat', 'black', 'plain', 'flying'), 'sleeping'),
    (('cat', 'black', 'plain', None, 0, 20), 'at least 1'), (('cat', 'black', 'plain', None, 20, -1), 'at least 1'), (('man', 'black', 'plain', None, 20, 40, False, 4), '0, 1, 2, 3')])
def test_what_cannot_be_drawn_is_refused(words, said):
    with pytest.raises(ValueError, match=said): draw_thing(*words)


# points

@every_pose
def test_points_lie_in_the_box(kind, pose):
    about = KINDS[kind]
    names = {'hand', 'head', 'hips'} if about.group == 'people' else {point for flag, point in (('rideable', 'seat'), ('surface', 'top'), ('holdable', 'grip')) if getattr(about, flag)}
    for name in names if pose != 'sleeping' and (pose != 'sitting' or about.group == 'people') else ():
        fx, fy = anchor(kind, name, pose)
        assert 0 <= fx <= 1 and 0 <= fy <= 1
        assert anchor(kind, name, pose, flip=True) == (1 - fx, fy)


@pytest.mark.parametrize('kind', ['man', 'woman', 'boy', 'girl'])
def test_points_lie_on_the_body(kind):
    for pose in KINDS[kind].poses:
        head, hand, hips = (anchor(kind, name, pose) for name in ('head', 'hand', 'hips'))
        assert head[1] < .3 < hips[1] and head[1] < hand[1]
        alpha = cover(draw_thing(kind, 'red', 'plain', pose))
        for fx, fy in (head, hand, hips):
            row, column = min(int(fy*len(alpha)), len(alpha) - 1), min(int(fx*alpha.shape[1]), alpha.shape[1] - 1)
            assert alpha[max(row - 2, 0):row + 3, max(column - 2, 0):column + 3].max() > 200


def test_one_pose_may_be_called_standing():
    assert pose_size('car', 'standing') == pose_size('car') == pose_size('car', None) == (KINDS['car'].width, KINDS['car'].height)
    assert draw_thing('car', 'red', 'plain', 'standing').tobytes() == draw_thing('car', 'red').tobytes()


def test_unknown_points_and_poses_are_refused():
    with pytest.raises(ValueError, match='hand, head, hips|head, hand, hips|hips'): anchor('man', 'tail')
    with pytest.raises(ValueError, match='there is no kind'): anchor('unicorn', 'seat')
    with pytest.raises(ValueError, match='flying'): pose_size('man', 'flying')


# notation

def test_reading_leaves_out_comments_and_empty_lines():
    read = read_things('# nothing\n\nmaterial m 255 0 51 own .5 # half\nkind ice_cream food ground holdable # cold\ncolours pink\npose plain\nrect m 0 0 2 3\n')
    assert read['materials']['m'].tolist() == pytest.approx([1, 0, .2, .5, 0, 0])
    assert read['kinds'] == {'ice cream': dict(name='ice cream', group='food', place='ground', holdable=True, poses=('plain',), colours=('pink',))}
    assert read['blocks'] == {'ice cream/plain': [['rect', 'm', '0', '0', '2', '3']]}


@pytest.mark.parametrize('line', ['square main 0 0 5', 'ellipse main 0 0', 'ellipse main 0 0 x 3', 'use nobody 0 0', 'mark hand', 'mark hand here there', '+ellipse 0 0 3 3'])
def test_a_line_that_cannot_be_drawn_is_named(line):
    with pytest.raises(ValueError, match=f"'{line}'".replace('+', r'\+')): build([line.split()], {})


def test_cut_outs_and_joints():
    parts, _ = build([words.split() for words in ('rect main 0 0 20 20', '-rect 5 5 15 15', '+rect 9 9 11 11')], {})
    assert len(parts) == 1
    alpha = paint(parts, box_of(parts))[..., 6]
    assert alpha.mean() == pytest.approx(1 - .25 + .01, abs=.01)


def test_shapes_have_their_area():
    def area(points): # shoelace
        x, y = points.T
        return abs((x*np.roll(y, -1) - y*np.roll(x, -1)).sum())/2
    assert area(SHAPES['rect'](0, 0, 4, 3)[0]) == 12
    assert area(SHAPES['ellipse'](7, 7, 5, 2, 33)[0]) == pytest.approx(np.pi*10, rel=.01)
    assert area(SHAPES['rect'](0, 0, 10, 10, 2)[0]) == pytest.approx(100 - (4 - np.pi)*4, rel=.01)
    assert sum(area(polygon) for polygon in SHAPES['line'](2, 0, 0, 10, 0)) == pytest.approx(20 + 2*np.pi, rel=.03)


def test_every_block_can_be_built_and_every_material_is_known():
    for name, lines in THINGS['blocks'].items():
        if name.endswith('/background'): continue
        parts, _ = build(lines, THINGS['blocks'])
        assert {part.material for part in parts} <= set(THINGS['materials']), name


# places

@pytest.mark.parametrize('name', list(BACKGROUNDS))
def test_backgrounds(name):
    about, first = BACKGROUNDS[name], draw_background(name, rng('place', 1))
    assert len(BACKGROUNDS) >= 7 and first.size == (256, 256) and first.mode == 'RGB'
    assert .4 < about.horizon < .75 and len(about.words) >= 3 and all(about.words)
    assert first.tobytes() == draw_background(name, rng('place', 1)).tobytes() != draw_background(name, rng('place', 2)).tobytes()
    rows = np.asarray(first, float).mean((1, 2))
    assert np.abs(np.diff(rows)).max() > 1 # nowhere a single flat colour


def test_backgrounds_are_told_apart():
    means = [np.asarray(draw_background(name, rng('place', 1)).resize((4, 4), Image.Resampling.BOX), float) for name in BACKGROUNDS]
    for i, one in enumerate(means):
        for other in means[:i]: assert np.abs(one - other).mean() > 5


def test_an_unknown_background_is_refused():
    with pytest.raises(ValueError, match='the moon'): draw_background('the moon', rng(0))


def test_a_shadow_darkens_the_foot_alone():
    picture = Image.new('RGB', (100, 100), (200, 200, 200))
    assert draw_shadow(picture, (30, 20, 70, 80), .4) is None
    pixels = np.asarray(picture, int)[..., 0]
    assert 90 < pixels.min() < 150 and (pixels[:70] == 200).all() and (pixels[88:] == 200).all() and (pixels[:, :25] == 200).all()
    assert 70 < np.argwhere(pixels == pixels.min())[:, 0].mean() < 85
    draw_shadow(picture, (90, 20, 130, 80)) # half outside the picture
    with pytest.raises(ValueError, match='0 to 1'): draw_shadow(picture, (30, 20, 70, 80), 35)
