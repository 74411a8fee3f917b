"The checks behind the exercises of lesson 06, captions and pictures."
import hashlib
import random
import zlib
from urllib.parse import unquote, urlsplit

from checking import assert_check

from vlground import checks_labels as checks


def read_line(line, ends=('\n', '\r')):
    text = line.decode()
    for end in ends: text = text.removesuffix(end)
    caption, url = text.split('\t')
    return caption, url


def test_check_read_line():
    assert_check(checks.check_read_line, read_line, [
        (lambda line: line.split(b'\t'), 'text, not bytes'),
        (lambda line: read_line(line, ()), 'belongs to neither'),
        (lambda line: read_line(line, ('\n',)), 'on Windows'),
        (lambda line: tuple(line.decode('latin-1').removesuffix('\n').removesuffix('\r').split('\t')), 'é is two bytes'),
        (lambda line: tuple(part for part in read_line(line) if part), 'may be empty'),
        (lambda line: tuple(line.decode().strip().split('\t')), 'may be empty'),
        (lambda line: tuple(part.strip() for part in read_line(line)), 'Blanks'),
        (lambda line: read_line(line.decode().splitlines()[0].encode()), 'U+2028'),
        (lambda line: tuple((line.decode().removesuffix('\n').removesuffix('\r') + '\t').split('\t')[:2]), 'One column'),
        (lambda line: tuple(line.decode().removesuffix('\n').removesuffix('\r').split('\t', 1)) if b'\t' in line else 1/0, 'One column'),
        (lambda line: tuple(line.decode().removesuffix('\n').removesuffix('\r').rsplit('\t', 1)) if b'\t' in line else read_line(line), 'Three columns'),
        (lambda line: read_line(line)[::-1], 'in this order'),
    ])


def find_by_url(url, ids, path=lambda url: url.split('?')[0].split('://')[1], order=1, first=0):
    parts = path(url).split('/')
    return next((tail for i in range(first, len(parts))[::order] if (tail := '/'.join(parts[i:])) in ids), 'none')


def test_check_find_by_url():
    assert_check(checks.check_find_by_url, find_by_url, [
        (lambda url, ids: url, 'last part'),
        (lambda url, ids: url.split('?')[0].split('/')[-1], "answer is 'none'"),
        (lambda url, ids: find_by_url(url, ids, path=lambda url: url), 'does not count'),
        (lambda url, ids: name if (name := url.split('?')[0].split('/')[-1]) in ids else 'none', 'folders in it'),
        (lambda url, ids: find_by_url(url, ids, order=-1), 'longest one'),
        (lambda url, ids: next((id for id in sorted(ids, key=len, reverse=True) if id.split('/')[-1] == urlsplit(url).path.split('/')[-1]), 'none'), 'another folder'),
        (lambda url, ids: next((id for id in sorted(ids, key=len, reverse=True) if urlsplit(url).path.endswith(id)), 'none'), 'xpark.png'),
        (lambda url, ids: find_by_url(url, ids, first=2 if urlsplit(url).path.count('/') > 1 else 0), 'whole path'),
        (lambda url, ids: find_by_url(url, ids, path=lambda url: urlsplit(url).path), 'The host is the first part'),
    ])
    assert checks.check_find_by_url(lambda url, ids: find_by_url(url, ids, path=lambda url: unquote(url.split('?')[0])))


def place(text, name='sha256'): return int.from_bytes(hashlib.new(name, text.encode()).digest()[:8], 'big')/2**64


def counting():
    "An answer that counts how often it was asked."
    asked = iter(range(10**9))
    return lambda id, fraction: next(asked) % round(1/fraction) == 0


def test_check_in_part():
    for name in ('sha256', 'md5', 'blake2b'): assert checks.check_in_part(lambda id, fraction: place(id, name) < fraction)
    assert checks.check_in_part(lambda id, fraction: random.Random(id).random() < fraction) # seeded with a text, Python's generator hashes it with SHA-512
    assert checks.check_in_part(lambda id, fraction: zlib.crc32(id.encode()) < fraction*2**32)
    assert_check(checks.check_in_part, lambda id, fraction: place(id) < fraction, [
        (lambda id, fraction: random.random() < fraction, 'random, or counted'),
        (counting(), 'random, or counted'),
        (lambda id, fraction: hash(id) % 1000 < 1000*fraction, "Python's `hash`"),
        (lambda id, fraction: place(id) < fraction/2 or fraction == 1, 'About a quarter'),
        (lambda id, fraction: place(id) < fraction if fraction != 1/2 else place(id) < 1/4, 'About a half'),
        (lambda id, fraction: place(f'{id} {fraction}') < fraction, 'mixed into the hash'),
        (lambda id, fraction: fraction <= 1/4 and place(id) >= 1 - fraction/2 or place(id) < fraction/2 if fraction < 1/8 else place(id) >= 1 - fraction if fraction > 1/8 else place(id) < fraction, 'out instead of in'),
        (lambda id, fraction: int(id.split('.')[0]) % round(1/fraction) == 0, 'words'),
        (lambda id, fraction: int(''.join(c for c in id if c.isdigit()) or 0) % round(1/fraction) == 0, 'multiples of 16'),
        (lambda id, fraction: place(id[:16]) < fraction, 'first letters'),
        (lambda id, fraction: int(hashlib.md5(id.encode()).hexdigest(), 16) % round(1/fraction) == 0, 'three quarters'),
        (lambda id, fraction: int(hashlib.md5(id.encode()).hexdigest(), 16) % round(1/fraction) == 0 if fraction < 1/2 else place(id) < fraction, 'in 0.3 should be in 0.5'),
        (lambda id, fraction: place(id) < (.4 if fraction == .3 else fraction), 'about 0.3'),
        (lambda id, fraction: hashlib.sha256(id.encode()).digest()[0] < 256*fraction, 'too coarse'),
    ])
