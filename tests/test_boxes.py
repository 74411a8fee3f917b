"Properties of IoU and of matching, against overlap counted in unit squares."
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torchvision.ops import box_iou as torchvision_iou

from vlground.boxes import box_iou, match_regions

sides = st.integers(1, 40)
whole_box = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], st.integers(0, 30), st.integers(0, 30), sides, sides)
whole_boxes = st.lists(whole_box, min_size=1, max_size=5).map(lambda boxes: torch.tensor(boxes))
coordinate = st.floats(-100, 400, width=32, allow_nan=False).map(lambda x: round(x, 2))
side = st.floats(.5, 300, width=32).map(lambda x: round(x, 2))
real_box = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], coordinate, coordinate, side, side)
real_boxes = st.lists(real_box, min_size=1, max_size=5).map(lambda boxes: torch.tensor(boxes))
any_number = st.one_of(st.floats(width=32), coordinate)
any_boxes = st.lists(st.lists(any_number, min_size=4, max_size=4), min_size=0, max_size=5).map(lambda boxes: torch.tensor(boxes).reshape(-1, 4))
thresholds = st.floats(0, .99)


def squares(box, plus_one=False):
    "The unit squares, or pixels, that a box of whole numbers encloses."
    x1, y1, x2, y2 = box
    return {(x, y) for x in range(x1, x2 + plus_one) for y in range(y1, y2 + plus_one)}


def counted(a, b, plus_one=False):
    "Exact IoU of all pairs, as fractions."
    return [[Fraction(len(squares(one, plus_one) & squares(other, plus_one)), len(squares(one, plus_one) | squares(other, plus_one)))
             for other in b.tolist()] for one in a.tolist()]


@given(whole_boxes, whole_boxes, st.booleans())
def test_iou_is_what_counting_gives(a, b, plus_one):
    expected = torch.tensor([[float(value) for value in row] for row in counted(a, b, plus_one)])
    assert torch.allclose(box_iou(a, b, plus_one), expected, atol=1e-6)


@given(real_boxes, real_boxes)
def test_iou_is_torchvisions(a, b):
    assert torch.allclose(box_iou(a, b), torchvision_iou(a, b), atol=1e-6)


@given(real_boxes, real_boxes, st.booleans())
def test_iou_is_symmetric(a, b, plus_one):
    assert torch.equal(box_iou(a, b, plus_one), box_iou(b, a, plus_one).T)


@given(any_boxes, any_boxes, st.booleans())
@example(torch.tensor([[0, 0, float('inf'), float('inf')]]), torch.tensor([[0, 0, float('inf'), float('inf')]]), False)
@example(torch.tensor([[0., 0, 3e38, 3e38]]), torch.tensor([[0., 0, 3e38, 3e38]]), False)
@example(torch.tensor([[9., 9, 5, 5]]), torch.tensor([[0., 0, 20, 20]]), False)
@example(torch.tensor([[3., 3, 3, 8]]), torch.tensor([[3., 3, 3, 8]]), False)
def test_iou_lies_between_0_and_1_whatever_the_boxes(a, b, plus_one):
    iou = box_iou(a, b, plus_one)
    assert iou.shape == (len(a), len(b))
    assert ((iou >= 0) & (iou <= 1)).all() # false for NaN, too


@given(real_boxes, st.booleans())
def test_a_box_equals_itself(boxes, plus_one):
    assert torch.allclose(box_iou(boxes, boxes, plus_one).diag(), torch.ones(len(boxes)))


@given(whole_boxes, whole_boxes, st.sampled_from([.25, .5, 2., 4., 64.]))
def test_iou_has_no_unit(a, b, scale):
    assert torch.equal(box_iou(a*scale, b*scale), box_iou(a, b)) # powers of two leave no rounding


@given(real_boxes, real_boxes, st.floats(.1, 10))
def test_iou_has_no_unit_up_to_rounding(a, b, scale):
    assert torch.allclose(box_iou(a*scale, b*scale), box_iou(a, b), atol=1e-3)


@given(whole_boxes, whole_boxes, st.integers(-500, 500), st.integers(-500, 500), st.booleans())
def test_iou_does_not_depend_on_the_place(a, b, right, down, plus_one):
    shift = torch.tensor([right, down, right, down])
    assert torch.equal(box_iou(a + shift, b + shift, plus_one), box_iou(a, b, plus_one))


@given(whole_boxes, whole_boxes)
def test_iou_does_not_care_which_axis_is_which(a, b):
    turned = [1, 0, 3, 2]
    assert torch.equal(box_iou(a[:, turned], b[:, turned]), box_iou(a, b))


no_boxes = [[50., 50, 50, 90], [50, 50, 90, 50], [50, 50, 50, 50], [90, 50, 60, 90], [50, 90, 90, 60], [90, 90, 50, 50], [float('nan')]*4,
            [float('nan'), 0, 99, 99], [0, float('nan'), 99, 99], [0, 0, float('nan'), 99], [0, 0, 99, float('nan')]]


@pytest.mark.fault(13)
@pytest.mark.parametrize('box', no_boxes, ids=str)
def test_a_box_that_encloses_nothing_overlaps_with_nothing(box):
    a, b = torch.tensor([box]), torch.tensor([box, [0., 0, 100, 100], [50, 50, 90, 90]])
    assert torch.equal(box_iou(a, b), torch.zeros(1, 3)) and torch.equal(box_iou(b, a), torch.zeros(3, 1))
    assert not match_regions(a, b, threshold=0).any() and not match_regions(b, a, threshold=0).any()
    assert box_iou(b, b)[1:, 1:].all() # the others are none the worse


@pytest.mark.fault(13)
@pytest.mark.parametrize('box', [[5., 5, 4.5, 9], [5, 5, 9, 4.5], [9, 9, 2, 2], [float('nan'), 0, 9, 9]], ids=str)
def test_counting_pixels_does_not_mend_a_reversed_box(box):
    a, b = torch.tensor([box]), torch.tensor([[0., 0, 20, 20]])
    assert box_iou(a, b, plus_one=True) == 0 and box_iou(b, a, plus_one=True) == 0 and box_iou(a, a, plus_one=True) == 0


def test_counting_pixels_a_box_of_one_pixel_is_a_box():
    pixel = torch.tensor([[3, 3, 3, 3]])
    assert box_iou(pixel, pixel, plus_one=True) == 1
    assert box_iou(pixel, torch.tensor([[3, 3, 4, 3]]), plus_one=True) == .5


def test_the_running_example():
    grounded = torch.tensor([[24, 136, 104, 196], [128, 150, 168, 190], [152, 40, 248, 140]])
    regions = torch.tensor([[24, 136, 104, 196], [132, 150, 172, 190], [152, 40, 248, 90], [8, 8, 56, 56]])
    expected = torch.zeros(3, 4)
    expected[0, 0], expected[1, 1], expected[2, 2] = 1, 1440/1760, .5
    assert torch.equal(box_iou(grounded, regions), expected)
    assert match_regions(grounded, regions).nonzero().tolist() == [[0, 0], [1, 1]]
    assert match_regions(grounded, regions, plus_one=True).nonzero().tolist() == [[0, 0], [1, 1], [2, 2]]


dtypes = [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize('dtype', dtypes, ids=str)
@pytest.mark.parametrize('other', dtypes, ids=str)
def test_the_dtype_does_not_matter(dtype, other):
    a, b = torch.tensor([[0, 0, 255, 255], [8, 16, 72, 80]]), torch.tensor([[0, 0, 255, 128], [40, 16, 104, 80]])
    if torch.bfloat16 in (dtype, other): a, b = a//8*8, b//8*8 # it keeps eight bits only
    iou = box_iou(a.to(dtype), b.to(other))
    assert iou.dtype == (torch.float64 if torch.float64 in (dtype, other) else torch.float32)
    assert torch.allclose(iou.double(), box_iou(a.double(), b.double()), atol=1e-6)


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device'))])
def test_the_result_stays_on_the_device(device):
    boxes = torch.tensor([[0, 0, 8, 8]], device=device)
    assert box_iou(boxes, boxes).device == boxes.device and match_regions(boxes, boxes).device == boxes.device


@given(whole_boxes, whole_boxes, thresholds)
def test_a_match_is_strictly_greater(grounded, regions, threshold):
    exact = counted(grounded, regions)
    rounded = [abs(value - Fraction(threshold)) for row in exact for value in row]
    assume(all(gap == 0 or gap > 1e-6 for gap in rounded))
    assert match_regions(grounded, regions, threshold).tolist() == [[value > Fraction(threshold) for value in row] for row in exact]


@pytest.mark.parametrize('height, threshold', [(10, .5), (5, .25), (15, .75)])
def test_on_the_threshold_is_no_match(height, threshold):
    a, b = torch.tensor([[0, 0, 20, 20]]), torch.tensor([[0, 0, 20, height]])
    assert box_iou(a, b) == threshold
    assert not match_regions(a, b, threshold) and match_regions(a, b, threshold - .01)


@given(real_boxes, real_boxes, thresholds, thresholds, st.booleans())
def test_a_higher_threshold_only_takes_matches_away(grounded, regions, one, other, plus_one):
    low, high = sorted([one, other])
    few, many = match_regions(grounded, regions, high, plus_one), match_regions(grounded, regions, low, plus_one)
    assert few.dtype == torch.bool and few.shape == (len(grounded), len(regions))
    assert not (few & ~many).any()


def test_touching_boxes_do_not_match_at_threshold_0():
    assert not match_regions(torch.tensor([[0, 0, 8, 8]]), torch.tensor([[8, 0, 16, 8], [8, 8, 9, 9]]), threshold=0).any()


def test_no_boxes():
    none, some = torch.empty(0, 4), torch.tensor([[0, 0, 8, 8]])
    assert box_iou(none, some).shape == (0, 1) and box_iou(some, none).shape == (1, 0) and match_regions(none, none).shape == (0, 0)


@pytest.mark.parametrize('a, b, words', [
    (torch.zeros(4), torch.zeros(1, 4), ['a:', '(n, 4)', '(4,)', 'box[None]']),
    (torch.zeros(1, 4), torch.zeros(2, 5), ['b:', '(n, 4)', '(2, 5)']),
    (torch.zeros(1, 1, 4), torch.zeros(1, 4), ['a:', '(1, 1, 4)']),
    (torch.tensor([]), torch.zeros(1, 4), ['a:', '(0,)', 'torch.empty(0, 4)']),
    ([[0, 0, 8, 8]], torch.zeros(1, 4), ['a:', 'list']),
])
def test_a_wrong_shape_is_named(a, b, words):
    for function in (box_iou, match_regions):
        with pytest.raises(ValueError) as error: function(a, b)
        assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize('threshold', [-.1, 1, 50, float('nan')])
def test_a_wrong_threshold_is_named(threshold):
    boxes = torch.zeros(1, 4)
    with pytest.raises(ValueError, match=r'threshold: expected an IoU in \[0, 1\), got'): match_regions(boxes, boxes, threshold)


def test_the_boxes_given_are_left_alone():
    a = torch.tensor([[9., 9, 5, 5], [0, 0, 4, 4]])
    before = a.clone()
    box_iou(a, a, plus_one=True)
    assert torch.equal(a, before)
