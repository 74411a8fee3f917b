"The spatial encoding: what it says of any box, and what it never says."
from math import pi

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlground.spe import spatial_encoding

shares = st.floats(0, 1, width=32)
places = st.lists(st.tuples(*[shares]*4), min_size=1, max_size=5)
anything = st.lists(st.tuples(*[st.floats(width=32, allow_nan=True, allow_infinity=True)]*5), min_size=1, max_size=5)
both = pytest.mark.parametrize('coordinates', [2, 4])


def encode(boxes, width=32, mask=None, **options):
    "Codes of the boxes (r, 4) or locations (r, 5) of one picture, (r, width)."
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    locations = torch.cat([boxes, boxes.new_zeros(len(boxes), 5 - boxes.shape[1])], 1)[None]
    return spatial_encoding(locations, width, torch.ones(1, len(boxes), dtype=torch.bool) if mask is None else mask, **options)[0]


@pytest.mark.fault(13)
@both
@given(anything)
def test_any_number_gives_finite_waves_of_length_one(coordinates, locations):
    for temperature in (1e4, 20., 1.):
        code = encode(locations, coordinates=coordinates, temperature=temperature)
        assert code.shape == (len(locations), 32) and code.isfinite().all()
        assert torch.allclose(code.reshape(-1, 2).square().sum(1), torch.ones(16*len(locations)), atol=1e-5)


@both
@given(anything, st.data())
def test_padding_is_zero_whatever_stands_there(coordinates, locations, data):
    mask = torch.tensor([data.draw(st.lists(st.booleans(), min_size=len(locations), max_size=len(locations)))])
    code = encode(locations, mask=mask, coordinates=coordinates)
    assert torch.equal(code.any(1), mask[0]) # a real region is never zero: its waves have length one
    assert torch.allclose(code[mask[0]], encode(locations, coordinates=coordinates)[mask[0]], atol=1e-6)


@given(anything)
def test_two_coordinates_are_the_first_half_of_four(locations):
    assert torch.allclose(encode(locations, 64, coordinates=4)[:, :32], encode(locations, 32), atol=1e-6)
    assert torch.equal(encode(locations, 32, coordinates=2), encode(locations, 32))


@given(places)
def test_sizes_are_written_as_centres_are(boxes):
    boxes = torch.tensor(boxes)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    assert torch.allclose(encode(boxes, 64, coordinates=4)[:, 32:], encode(torch.cat([sides, sides], 1), 32), atol=1e-5)


@both
@given(places, st.floats(-1, 1, width=32), st.floats(-1, 1, width=32))
def test_a_shift_turns_each_wave_by_its_own_angle(coordinates, boxes, dx, dy):
    boxes = torch.tensor(boxes)
    code, shifted = (encode(each, coordinates=coordinates).reshape(len(boxes), coordinates, -1, 2) for each in (boxes, boxes + torch.tensor([dx, dy, dx, dy])))
    waves = code.shape[2]
    turn = 2*pi*torch.tensor([dy, dx, 0., 0.])[:coordinates, None]/1e4**(torch.arange(waves)/waves)
    sine, cosine = code.unbind(-1)
    expected = torch.stack([sine*turn.cos() + cosine*turn.sin(), cosine*turn.cos() - sine*turn.sin()], -1)
    # the shift rounds a size that is near 0
    assert torch.allclose(shifted, expected, atol=1e-4)


def test_boxes_with_one_centre_differ_only_in_four_coordinates():
    boxes = [[.2, .2, .6, .6], [.3, .1, .5, .7], [.4, .4, .4, .4]]
    two, four = encode(boxes), encode(boxes, coordinates=4)
    assert torch.allclose(two[0], two[1], atol=1e-5) and torch.allclose(two[0], two[2], atol=1e-5)
    assert all((four[i] - four[j]).abs().max() > .1 for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.fault(13)
def test_broken_sizes():
    nan, inf = float('nan'), float('inf')
    height = encode([[.5, .9, .6, .1], [.5, nan, .6, .5], [0., -inf, 1., inf], [0., inf, 1., inf]], 8, coordinates=4)[:, 4:6]
    none, whole = [0., 1.], encode([[0., 0., 1., 1.]], 8, coordinates=4)[0, 4:6].tolist()
    assert torch.allclose(height, torch.tensor([none, none, whole, none]), atol=1e-6)


@both
def test_half_precision_and_whole_numbers(coordinates):
    boxes = torch.tensor([[[0., 0., 1., 1., 1.], [-2., 0., 3., 1., 5.], [1., 0., 0., 1., 0.]]])
    mask, expected = torch.ones(1, 3, dtype=torch.bool), None
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        code = spatial_encoding(boxes.to(dtype), 16, mask, coordinates=coordinates)
        expected = code if expected is None else expected
        assert code.dtype == dtype and torch.allclose(code.double(), expected, atol=.1)


@pytest.mark.parametrize('options, words', [(dict(width=10), 'multiple of 4'), (dict(width=12, coordinates=4), 'multiple of 8'),
                                            (dict(coordinates=3), 'expected 2 .* or 4'), (dict(coordinates=0), 'expected 2 .* or 4'),
                                            (dict(width=0), 'width 0'), (dict(width=-4), 'width -4'),
                                            (dict(temperature=0), 'temperature'), (dict(temperature=-1.), 'temperature'), (dict(temperature=float('nan')), 'temperature')])
def test_errors_say_what_is_allowed(options, words):
    with pytest.raises(ValueError, match=words): encode([[0., 0., 1., 1.]], **options)


@both
@pytest.mark.parametrize('dtype, close', [(torch.float16, 3e-4), (torch.bfloat16, 2e-3)])
def test_half_precision_rounds_the_result_only(coordinates, dtype, close):
    # eighths and their means are exact in every type
    boxes = torch.tensor([[[a/8, b/8, (a + 2)/8, (b + 1)/8, 1/32] for a in range(7) for b in range(8)]])
    mask = torch.ones(boxes.shape[:2], dtype=torch.bool)
    code, exact = (spatial_encoding(each, 1024, mask, coordinates=coordinates) for each in (boxes.to(dtype), boxes.double()))
    assert code.dtype == dtype and (code.double() - exact).abs().max() < close
    assert torch.equal(spatial_encoding(boxes.round().long(), 16, mask), spatial_encoding(boxes.round(), 16, mask))
