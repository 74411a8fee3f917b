"Pictures found in folders and in tars, and opened: odd ones, broken ones, and shards that lie."
import io
import os
import pickle
import random
import struct
import tarfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from files import jpeg, write_tar
from hypothesis import given, settings, strategies as st
from PIL import Image

from vlground.albums import LONGEST, SUFFIXES, TarMember, files_by_folder, find_images, picture_bytes, read_picture

NAMES = ('a.jpg', 'b.PNG', 'deep/er/a.jpg', 'with space.webp', 'ünï#1.jpeg', '100%.gif')


# pictures and where they lie

@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')/'images'
    for name in NAMES:
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_bytes(b'')
    (folder/'notes.txt').write_bytes(b'')
    return folder

def test_find_images(images):
    assert list(find_images(images)) == sorted(NAMES)
    assert all(path == images/name for name, path in find_images(images).items())
    with pytest.raises(FileNotFoundError, match='nowhere'): find_images(images/'nowhere')

@pytest.mark.parametrize('form', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_pictures_in_tars(tmp_path, form):
    long = 'very/'*24 + 'long é.png' # more than the hundred bytes that a header has for a name
    files = {'./a.jpg': b'one', 'b.txt': b'no picture', long: b'twenty-two', '/c.JPG': b'', '../../d.jpg': b'out', '._a.jpg': b'a Mac', 'a.jpg': b'the later one'}
    write_tar(tmp_path/'x y'/'00000.tar', files if form != tarfile.USTAR_FORMAT else {name: data for name, data in files.items() if name != long}, form)
    (tmp_path/'whole.jpg').write_bytes(b'four')
    (tmp_path/'.whole.1a2b.part.jpg').write_bytes(b'half')
    (tmp_path/'.cache').mkdir()
    (tmp_path/'.cache'/'small.jpg').write_bytes(b'hidden')
    expected = {'x y/00000.tar/a.jpg': b'the later one', 'x y/00000.tar/c.JPG': b'', 'x y/00000.tar/d.jpg': b'out', 'whole.jpg': b'four'}
    if form != tarfile.USTAR_FORMAT: expected[f'x y/00000.tar/{long}'] = b'twenty-two'
    found = find_images(tmp_path)
    assert list(found) == sorted(expected)
    for id, data in expected.items():
        source = pickle.loads(pickle.dumps(found[id]))
        assert source == found[id] and source.name == id.split('/')[-1] and picture_bytes(source) == len(data)
        with source.open('rb') as file: assert file.read() == data
    assert not list(tmp_path.rglob('a.jpg')) # nothing was unpacked

def test_a_member_is_only_read(tmp_path):
    write_tar(tmp_path/'t.tar', {'a.jpg': b'x'})
    (member,) = find_images(tmp_path).values()
    assert isinstance(member, TarMember) and hash(member) and str(member) == f'{tmp_path}/t.tar/a.jpg'
    with pytest.raises(ValueError, match="t.tar/a.jpg: a file in a tar can only be read, as 'rb', not 'w'"): member.open('w')
    (tmp_path/'t.tar').unlink()
    assert read_picture(member) == 'FileNotFoundError: No such file or directory'

def test_links_and_holes_in_a_tar_are_no_pictures(tmp_path):
    with tarfile.open(tmp_path/'t.tar', 'w') as tar:
        for name, kind in (('link.jpg', tarfile.SYMTYPE), ('hard.jpg', tarfile.LNKTYPE), ('pipe.jpg', tarfile.FIFOTYPE), ('folder.jpg', tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, '/etc/passwd'
            tar.addfile(member)
    assert find_images(tmp_path) == {}

def test_a_hard_link_in_a_tar_is_a_second_name(tmp_path):
    write_tar(tmp_path/'t.tar', {'a.jpg': b'one'})
    with tarfile.open(tmp_path/'t.tar', 'a') as tar:
        member = tarfile.TarInfo('b.jpg')
        member.type, member.linkname = tarfile.LNKTYPE, 'a.jpg'
        tar.addfile(member)
    assert [(id, source.name, source.open().read()) for id, source in find_images(tmp_path).items()] == [('t.tar/a.jpg', 'a.jpg', b'one'), ('t.tar/b.jpg', 'b.jpg', b'one')]

def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    for name in ('data/one/a.jpg', 'data/two/b.jpg', 'elsewhere/c.jpg'):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/name).write_bytes(b'')
    for name, target in (('train', '../elsewhere'), ('one/other', '../two'), ('two/other', '../one'), ('self', '.')): (tmp_path/'data'/name).symlink_to(target)
    assert list(find_images(tmp_path/'data')) == ['one/a.jpg', 'one/other/b.jpg', 'train/c.jpg', 'two/b.jpg', 'two/other/a.jpg']

@pytest.mark.parametrize('keep', [0, 100, 512, 700, 1024, 1536, 2600])
def test_a_shard_that_was_cut_is_named(tmp_path, keep):
    write_tar(tmp_path/'00007.tar', {'a.jpg': b'x'*500, 'b.jpg': b'y'*1000}) # header 0-511, data to 1023, header to 1535, data to 2559, then the end
    data = (tmp_path/'00007.tar').read_bytes()
    assert len(find_images(tmp_path)) == 2
    (tmp_path/'00007.tar').write_bytes(data[:keep])
    with pytest.raises(ValueError, match=r'00007.tar: not an uncompressed tar, or cut short or damaged'): find_images(tmp_path)

def test_a_damaged_header_and_a_compressed_tar(tmp_path):
    write_tar(tmp_path/'t.tar', {'a.jpg': b'x'*500, 'b.jpg': b'y'*1000, 'c.jpg': b'z'})
    data = bytearray((tmp_path/'t.tar').read_bytes())
    data[1024] ^= 1
    (tmp_path/'t.tar').write_bytes(data)
    with pytest.raises(ValueError, match=r't.tar: .*at byte 1024'): find_images(tmp_path)
    with tarfile.open(tmp_path/'t.tar', 'w:gz') as tar: tar.add(__file__, 'a.jpg')
    with pytest.raises(ValueError, match='t.tar: not an uncompressed tar'): find_images(tmp_path)
    for name in ('t.tar.gz', 'T.TGZ', 't.tar.xz'):
        (tmp_path/'t.tar').rename(tmp_path/name)
        with pytest.raises(ValueError, match=f'{name}: a compressed tar cannot be read where it lies; unpack it or take it away'): find_images(tmp_path)
        (tmp_path/name).rename(tmp_path/'t.tar')

def test_an_end_with_something_behind_it_is_none(tmp_path):
    write_tar(tmp_path/'t.tar', {f'{i}.jpg': b'x'*1000 for i in range(3)})
    data = (tmp_path/'t.tar').read_bytes()
    for bad in (data[:1536] + bytes(512) + data[2048:], data*2, data[:4608] + bytes(2**21) + b'x'): # an emptied header, two tars in one file, a byte far behind the end
        (tmp_path/'t.tar').write_bytes(bad)
        with pytest.raises(ValueError, match=r't.tar: .*no header at byte [0-9]+, and no end'): find_images(tmp_path)
    for good in (data[:4608] + bytes(512), data + bytes(2**21 + 5)): # one block of zeros, or many
        (tmp_path/'t.tar').write_bytes(good)
        assert len(find_images(tmp_path)) == 3

@pytest.mark.skipif(os.geteuid() == 0, reason='the superuser may read everything')
def test_a_folder_that_may_not_be_read_is_no_empty_folder(tmp_path):
    (tmp_path/'secret').mkdir(mode=0)
    with pytest.raises(PermissionError, match='secret'): find_images(tmp_path)

TREES = st.lists(st.tuples(st.lists(st.sampled_from(['sea', 'x y', '.old', 'é']), max_size=2), st.sampled_from(['a', '.b', 'c d', 'x.tar']), st.sampled_from(['.jpg', '.JPG', '.png', '.txt', '.md', ''])), max_size=8).map(
    lambda rows: ['/'.join([*folders, name + suffix]) for folders, name, suffix in rows if name + suffix != 'x.tar'])

@settings(max_examples=60, deadline=None)
@given(TREES)
def test_a_tar_of_a_folder_holds_what_the_folder_holds(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp('tree')
    files = {name: name.encode() for name in names}
    for name, data in files.items():
        (folder/'open'/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/'open'/name).write_bytes(data)
    write_tar(folder/'packed.tar', files)
    expected = sorted(name for name in files if name.lower().endswith(('.jpg', '.png')) and '/.' not in '/' + name)
    found = find_images(folder)
    assert [id.removeprefix('open/') for id in found if id.startswith('open/')] == expected
    assert [id.removeprefix('packed.tar/') for id in found if id.startswith('packed.tar/')] == expected
    for id, source in found.items(): assert source.open('rb').read().decode() == id.split('/', 1)[1]

def test_files_by_folder_keeps_what_lies_together(tmp_path):
    write_tar(tmp_path/'1.tar', {'a.jpg': b'1', 'a.txt': b'2', 'b.json': b'3'})
    for name in ('z.txt', 'Z.JPG', 'sub/y.txt', 'sub/y.gif'):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_bytes(b'')
    groups = [list(files) for files in files_by_folder(tmp_path, ('.txt', '.jpg'))]
    assert groups == [['Z.JPG', 'z.txt'], ['1.tar/a.jpg', '1.tar/a.txt'], ['sub/y.txt']]
    assert list(find_images(tmp_path)) == sorted(id for files in files_by_folder(tmp_path, SUFFIXES) for id in files)
    with pytest.raises(FileNotFoundError, match='gone: no such folder of images'): list(files_by_folder(tmp_path/'gone', ('.jpg',)))

def test_relative_paths(images, monkeypatch):
    monkeypatch.chdir(images.parent)
    assert list(find_images('images')) == sorted(NAMES) and find_images('images')['deep/er/a.jpg'] == Path('images/deep/er/a.jpg')
    monkeypatch.chdir(images)
    assert list(find_images('.')) == sorted(NAMES)


# a picture, or why not

def png(width, height, depth=8, colour=2, rows=b'') -> bytes:
    "A PNG file by hand: Pillow cannot write all of them."
    def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')

@pytest.fixture(scope='module')
def scene():
    "A picture with no two corners alike."
    picture = Image.new('RGB', (64, 48), (200, 200, 200))
    for corner, colour in (((0, 0), 'red'), ((48, 0), 'lime'), ((0, 36), 'blue'), ((48, 36), 'black')): picture.paste(colour, (*corner, corner[0] + 16, corner[1] + 12))
    return picture

@pytest.fixture(params=['file', 'tar'])
def placed(request, tmp_path):
    "Puts bytes into a file, or into a tar, and gives the source."
    def place(data: bytes, name: str = 'a.jpg'):
        if request.param == 'file': (tmp_path/name).write_bytes(data)
        else: write_tar(tmp_path/'00000.tar', {'first.txt': b'x', name: data})
        (source,) = find_images(tmp_path).values()
        return source
    return place

def saved(picture, form, **settings) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **settings)
    return file.getvalue()

def read_without_warning(source):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        return read_picture(source)

def test_whole_pictures_are_read_to_the_bit(placed, scene):
    for form in ('PNG', 'BMP', 'TIFF', 'GIF', 'WEBP', 'JPEG'):
        data = saved(scene, form, **({'lossless': True} if form == 'WEBP' else {}))
        picture = read_without_warning(placed(data))
        assert picture.mode == 'RGB' and picture.size == (64, 48)
        assert picture.tobytes() == Image.open(io.BytesIO(data)).convert('RGB').tobytes()
        if form != 'JPEG': assert picture.tobytes() == scene.tobytes()

@pytest.mark.parametrize('mode', ['CMYK', 'L', '1', 'P', 'YCbCr', 'LA'])
def test_other_modes(placed, scene, mode):
    picture = read_without_warning(placed(saved(scene.convert(mode), 'JPEG' if mode in ('CMYK', 'YCbCr') else 'PNG')))
    assert picture.mode == 'RGB' and picture.size == (64, 48)
    close = scene if mode in ('CMYK', 'YCbCr', 'P') else scene.convert('L').convert('RGB') if mode != '1' else scene.convert('1').convert('RGB')
    assert np.abs(np.asarray(picture, float) - np.asarray(close, float)).mean() < 6

@pytest.mark.fault(8)
@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_are_upright(placed, scene, orientation):
    turn = {2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_90', 7: 'TRANSVERSE', 8: 'ROTATE_270'} # how the sensor lay
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = scene.transpose(getattr(Image.Transpose, turn[orientation])) if orientation in turn else scene
    assert read_without_warning(placed(saved(stored, 'PNG', exif=exif))).tobytes() == scene.tobytes()
    picture = read_without_warning(placed(saved(stored, 'JPEG', exif=exif, quality=95)))
    assert picture.size == (64, 48) and np.abs(np.asarray(picture, float) - np.asarray(scene, float)).mean() < 4

def test_sixteen_bits_are_scaled_not_clipped(placed):
    ramp = np.linspace(0, 65535, 64*4).astype(np.uint16).reshape(4, 64)
    expected = np.round(ramp/257).astype(np.uint8)
    for form in ('PNG', 'TIFF'):
        picture = np.asarray(read_without_warning(placed(saved(Image.fromarray(ramp), form))))
        assert (picture == expected[..., None]).all()
    colours = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in colours)
    picture = np.asarray(read_without_warning(placed(png(64, 4, 16, 2, rows))), float)
    assert np.abs(picture - colours/257).max() <= 1

def test_numbers_of_32_bits_go_from_least_to_greatest(placed):
    for values in (np.array([[.5, np.nan], [1.5, np.inf]], np.float32), np.array([[-5, 100_000], [0, 50_000]], np.int32)):
        picture = np.asarray(read_without_warning(placed(saved(Image.fromarray(values), 'TIFF'))))[..., 0]
        assert picture[0, 0] == 0 and picture.max() == 255
    assert np.asarray(read_without_warning(placed(saved(Image.fromarray(np.full((3, 3), np.nan, np.float32)), 'TIFF')))).max() == 0

def test_transparency_lies_on_white(placed):
    see_through = Image.new('RGBA', (4, 4), (255, 0, 0, 0))
    see_through.putpixel((1, 1), (0, 0, 255, 255))
    see_through.putpixel((2, 2), (0, 0, 0, 128))
    for data in (saved(see_through, 'PNG'), saved(see_through, 'WEBP', lossless=True, exact=True), saved(see_through, 'TIFF')):
        picture = read_without_warning(placed(data))
        assert picture.getpixel((0, 0)) == (255, 255, 255) and picture.getpixel((1, 1)) == (0, 0, 255) and abs(picture.getpixel((2, 2))[0] - 127) <= 1
    palette = see_through.quantize(8)
    for data in (saved(palette, 'PNG'), saved(see_through, 'GIF'), saved(Image.new('L', (4, 4), 7), 'PNG', transparency=7), saved(Image.new('RGB', (4, 4), (1, 2, 3)), 'PNG', transparency=(1, 2, 3))):
        assert read_without_warning(placed(data)).getpixel((0, 0)) == (255, 255, 255)

@pytest.mark.parametrize('form', ['GIF', 'PNG', 'WEBP', 'TIFF'])
def test_the_first_frame_of_what_moves(placed, form):
    frames = [Image.new('RGB', (16, 16), colour) for colour in ('red', 'lime', 'blue')]
    picture = read_without_warning(placed(saved(frames[0], form, save_all=True, append_images=frames[1:], **({'lossless': True} if form == 'WEBP' else {}))))
    assert picture.size == (16, 16) and picture.getpixel((8, 8)) == (255, 0, 0)

def test_a_phone_s_picture_of_two_halves(placed, scene):
    picture = read_without_warning(placed(saved(scene, 'MPO', save_all=True, append_images=[scene.rotate(180)])))
    assert picture.size == scene.size and np.abs(np.asarray(picture, float) - np.asarray(scene, float)).mean() < 8

@pytest.mark.fault(8)
def test_a_single_pixel_is_a_picture_and_a_line_is_none(placed):
    assert read_without_warning(placed(saved(Image.new('RGB', (1, 1), 'red'), 'PNG'))).getpixel((0, 0)) == (255, 0, 0)
    assert read_without_warning(placed(saved(Image.new('RGB', (LONGEST, 1)), 'PNG'))).size == (LONGEST, 1)
    for size in ((LONGEST + 1, 1), (2, 2*LONGEST + 1)):
        assert read_without_warning(placed(saved(Image.new('RGB', size), 'PNG'))) == f'{size[0]} x {size[1]} pixels: longer than 100 times its other side'

@pytest.mark.fault(8)
@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'GIF', 'WEBP', 'BMP', 'TIFF'])
def test_cut_pictures(placed, scene, form):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    data = saved(noise, form)
    for keep in (len(data)//2, 20, 3):
        why = read_without_warning(placed(data[:keep]))
        assert isinstance(why, str) and why

@pytest.mark.fault(8)
def test_what_is_no_picture(placed):
    assert read_without_warning(placed(b'')) == 'the file is empty'
    postscript = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n' # Pillow would start an interpreter for it
    for data in (b'<html>404</html>', bytes(5000), b'\xff\xd8', postscript, b'P5 2 2 255 abcd'):
        assert read_without_warning(placed(data)) == 'not a picture (none of JPEG, PNG, WEBP, BMP, GIF, TIFF), or its first bytes are damaged'

@pytest.mark.fault(8)
def test_gigantic_pictures_are_refused_before_they_are_decoded(placed):
    assert read_without_warning(placed(png(30_000, 30_000))) == 'more than 179 megapixels: make it smaller'
    assert len(png(30_000, 30_000)) < 100

def test_what_a_camera_of_a_hundred_megapixels_takes_is_read(placed):
    assert read_without_warning(placed(saved(Image.new('L', (10_000, 9_500)), 'PNG'))).size == (10_000, 9_500)

def test_a_dead_link_is_a_picture_that_cannot_be_used(tmp_path):
    (tmp_path/'dead.jpg').symlink_to(tmp_path/'gone')
    source = find_images(tmp_path)['dead.jpg']
    assert picture_bytes(source) == -1 and read_picture(source) == 'FileNotFoundError: No such file or directory'

def test_what_is_said_names_no_folder_and_no_address_in_memory(placed, tmp_path):
    data = jpeg('red', (200, 200))
    for broken in (b'', b'x'*10, data[:len(data)//2], png(30_000, 30_000), b'\x89PNG\r\n\x1a\n' + bytes(30)):
        first, second = (read_picture(placed(broken)) for _ in range(2))
        assert first == second and str(tmp_path) not in first and '0x' not in first

def test_damaged_bytes_never_raise_and_never_warn(tmp_path, scene):
    exif = Image.Exif()
    exif[0x112], exif[0x10f], exif[0x8769] = 6, 'maker', {0x9003: '2020:01:01 00:00:00', 0xa002: 64}
    whole = [saved(scene, 'JPEG', exif=exif), saved(scene.quantize(16), 'PNG', exif=exif), saved(scene, 'GIF'), saved(scene, 'WEBP', exif=exif), saved(scene, 'TIFF'), saved(scene, 'BMP')]
    dice, read = random.Random(0), 0
    for turn in range(600):
        data = bytearray(whole[turn % len(whole)])
        for _ in range(dice.randint(1, 6)): data[dice.randrange(min(len(data), dice.choice([60, 10**6])))] = dice.randrange(256)
        (tmp_path/'x.jpg').write_bytes(data)
        picture = read_without_warning(tmp_path/'x.jpg')
        if isinstance(picture, str): assert picture
        else:
            read += 1
            assert picture.mode == 'RGB'
    assert 100 < read < 600

def test_paths_may_be_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('ein Bild é.jpg').write_bytes(jpeg('red'))
    assert read_picture('ein Bild é.jpg').size == (8, 6) and picture_bytes('ein Bild é.jpg') == len(jpeg('red'))
