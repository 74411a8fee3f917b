import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLOURS = {'red': (214, 48, 49), 'blue': (41, 98, 214), 'green': (56, 158, 70), 'yellow': (250, 208, 42), 'orange': (244, 129, 32),
    'purple': (132, 66, 176), 'pink': (246, 140, 184), 'brown': (132, 82, 46), 'black': (44, 44, 50), 'white': (246, 246, 242), 'grey': (146, 150, 156)}
PATTERNS = ('plain', 'striped', 'spotted', 'checked')
SECOND = {'white': (104, 112, 128), 'grey': (66, 70, 78), 'yellow': (222, 122, 24), 'pink': (206, 62, 128)} 
CREAM = (252, 246, 232)

@dataclass(frozen=True)
class Kind:
    "What the drawer knows about a kind of thing."
    name: str
    group: str
    width: int
    height: int
    colours: tuple
    patterns: tuple
    poses: tuple
    place: str
    holdable: bool = False
    wearable: bool = False
    rideable: bool = False
    surface: bool = False

@dataclass(frozen=True)
class Part:
    role: str
    shapes: list
    options: frozenset

def smooth(points, closed=True, steps=8):
    p = np.asarray(points, float)
    q = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([2*p[:1] - p[1:2], p, 2*p[-1:] - p[-2:-1]])
    t = np.arange(steps)[:, None]/steps
    a, b, c, d = (q[i:len(q) - 3 + i, None] for i in range(4))
    curve = (b + t*(c - a)/2 + t**2*(a - 2.5*b + 2*c - d/2) + t**3*(1.5*(b - c) + (d - a)/2)).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])

def ellipse(cx, cy, rx, ry=None, angle=0):
    t, a = np.linspace(0, 2*np.pi, 40, endpoint=False), math.radians(angle)
    x, y = rx*np.cos(t), (rx if ry is None else ry)*np.sin(t)
    return [np.stack([cx + x*math.cos(a) - y*math.sin(a), cy + x*math.sin(a) + y*math.cos(a)], 1)]

def rect(x0, y0, x1, y1, r=0):
    if not r: return [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)]
    t = np.linspace(0, np.pi/2, 7)
    corners = [(x1 - r, y1 - r, 0), (x0 + r, y1 - r, 1), (x0 + r, y0 + r, 2), (x1 - r, y0 + r, 3)]
    return [np.concatenate([np.stack([cx + r*np.cos(t + k*np.pi/2), cy + r*np.sin(t + k*np.pi/2)], 1) for cx, cy, k in corners])]

def ribbon(points, start, end):
    radii = np.linspace(start, end, len(points))/2
    out = [ellipse(x, y, r)[0] for (x, y), r in zip(points, radii)]
    for p, q, r, s in zip(points, points[1:], radii, radii[1:]):
        n = np.array([p[1] - q[1], q[0] - p[0]])/max(math.dist(p, q), 1e-6)
        out.append(np.array([p + n*r, q + n*s, q - n*s, p - n*r]))
    return out

def pairs(v): return np.array(v, float).reshape(-1, 2)

SHAPES = {
    'ellipse': ellipse, 'rect': rect,
    'poly': lambda *v: [pairs(v)],
    'blob': lambda *v: [smooth(pairs(v))],
    'line': lambda w, *v: ribbon(pairs(v), w, w),
    'curve': lambda w, *v: ribbon(smooth(pairs(v), closed=False, steps=6), w, w),
    'limb': lambda w, e, *v: ribbon(smooth(pairs(v), closed=False, steps=6), w, e),
}
OPTIONS = {'flat', 'bare', 'inside', 'pair', 'flip'}

def read_things(text):
    materials, kinds, blocks, block = {}, {}, {}, None
    kind = None
    for line in text.splitlines():
        words = line.split('#')[0].split()
        if not words: continue
        head, *rest = words
        if head == 'material': materials[rest[0]] = np.array([float(v) for v in rest[1:4]] + [255*float(rest[4]) if len(rest) > 4 else 0])
        elif head == 'group': block = blocks.setdefault(rest[0], [])
        elif head == 'kind':
            name = ' '.join(rest[0].split('_'))
            kind = kinds[name] = dict(name=name, group=rest[1], place=rest[2], flags=set(rest[3:]), poses=[], colours=(), patterns=('plain',))
        elif head in ('colours', 'patterns'): kind[head] = tuple(rest)
        elif head == 'pose':
            kind['poses'].append(rest[0])
            block = blocks.setdefault((kind['name'], rest[0]), [])
        else: block.append(words)
    return materials, kinds, blocks

MATERIALS, _KINDS, BLOCKS = read_things((files('vlground')/'data'/'things.txt').read_text())

def build(block):
    parts, marks = [], {}
    for head, *rest in BLOCKS[block]:
        options = frozenset(w for w in rest if w in OPTIONS)
        rest = [w for w in rest if w not in OPTIONS]
        if head == 'use':
            name, dx, dy, scale, angle = (rest + ['1', '0'][len(rest) - 3:])[:5]
            scale, a = float(scale), math.radians(float(angle))
            turn = scale*np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
            if 'flip' in options: turn = np.diag([-1., 1.]) @ turn
            place = lambda p: np.asarray(p) @ turn + (float(dx), float(dy))
            more, seen = build(name)
            parts += [Part(p.role, [(add, place(s)) for add, s in p.shapes], p.options) for p in more]
            marks |= {k: tuple(place(v)) for k, v in seen.items()}
            continue
        if head == 'mark':
            marks[rest[0]] = (float(rest[1]), float(rest[2])); continue
        add = head[0] != '-'
        shape = SHAPES[head.lstrip('+-')]
        more = head[0] in '+-'
        role, values = (None, rest) if more else (rest[0], rest[1:])
        shapes = [(add, s) for s in shape(*map(float, values))]
        if 'pair' in options: shapes += [(add, s*(-1, 1)) for _, s in shapes]
        if more: parts[-1].shapes.extend(shapes)
        else: parts.append(Part(role, shapes, options))
    return parts, marks

@lru_cache(maxsize=None)
def drawing(kind, pose):
    parts, marks = build((kind, pose))
    points = np.concatenate([s for p in parts if 'inside' not in p.options for add, s in p.shapes if add])
    return parts, marks, tuple(float(v) for v in (*points.min(0), *points.max(0)))

def _size(kind, pose):
    x0, y0, x1, y1 = drawing(kind, pose)[2]
    return round(x1 - x0), round(y1 - y0)

KINDS = {}
for k in _KINDS.values():
    w, h = _size(k['name'], k['poses'][0])
    KINDS[k['name']] = Kind(k['name'], k['group'], w, h, k['colours'], k['patterns'], tuple(k['poses']), k['place'],
        **{f: f in k['flags'] for f in ('holdable', 'wearable', 'rideable', 'surface')})

def check(kind, pose):
    if kind not in KINDS: raise ValueError(f'no kind of thing is called {kind!r}; choose one of {", ".join(KINDS)}')
    pose = pose or KINDS[kind].poses[0]
    if pose == 'standing' and 'standing' not in KINDS[kind].poses: pose = KINDS[kind].poses[0]
    if pose not in KINDS[kind].poses: raise ValueError(f'a {kind} cannot be drawn {pose!r}; its poses are {", ".join(KINDS[kind].poses)}')
    return pose

def pose_size(kind, pose='standing'): return _size(kind, check(kind, pose))

def anchor(kind, name, pose='standing', flip=False):
    _, marks, (x0, y0, x1, y1) = drawing(kind, check(kind, pose))
    if name not in marks: raise ValueError(f'a {kind} has no {name!r}; it has {", ".join(marks) or "no named points"}')
    x, y = marks[name]
    fx = (x - x0)/(x1 - x0)
    return (1 - fx if flip else fx), (y1 - y)/(y1 - y0)

INK = np.array([38, 30, 44, 0.])
FINE = 2   # mask pixels per master pixel
def paint(kind, pose, look=0, flip=False):
    parts, _, (x0, y0, x1, y1) = drawing(kind, pose)
    scale = min(max(180/max(x1 - x0, y1 - y0), 1.8), 4.5)
    w, h = math.ceil((x1 - x0)*scale), math.ceil((y1 - y0)*scale)
    to_mask = lambda p: ((p - (x0, y1))*(1, -1) if not flip else ((x1, y1) - p))*((w/(x1 - x0)*FINE, h/(y1 - y0)*FINE)) - .5
    layers = np.zeros((h, w, 5), np.float32)
    base = None
    for part in parts:
        fine = Image.new('L', (w*FINE, h*FINE))
        pen = ImageDraw.Draw(fine)
        for add, s in part.shapes: pen.polygon([tuple(p) for p in to_mask(s)], fill=255*add)
        mask = fine.reduce(FINE)
        bounds = mask.getbbox()
        if bounds is None: continue
        paint_part(layers, mask, bounds, part, scale, look, base)
        if 'inside' not in part.options: base = np.asarray(mask, np.float32)/255
    return layers

def paint_part(layers, mask, bounds, part, scale, look, base):
    h, w = layers.shape[:2]
    reach = 6
    l, t, r, b = max(bounds[0] - reach, 0), max(bounds[1] - reach, 0), min(bounds[2] + reach, w), min(bounds[3] + reach, h)
    crop = Image.new('L', (bounds[2] - bounds[0] + 2*reach, bounds[3] - bounds[1] + 2*reach))
    crop.paste(mask.crop(bounds), (reach, reach))
    cut = np.s_[t - bounds[1] + reach:b - bounds[1] + reach, l - bounds[0] + reach:r - bounds[0] + reach]
    grey = lambda image: np.asarray(image, np.float32)[cut]/255
    cover = grey(crop)
    window = layers[t:b, l:r]
    if 'inside' in part.options and base is not None: cover = cover*base[t:b, l:r]
    material = MATERIALS.get(f'{part.role}.{look}')
    if material is None: material = MATERIALS[part.role]
    colour = np.empty((*cover.shape, 5), np.float32)
    colour[..., :4], colour[..., 4] = material/255, 1
    if 'flat' not in part.options:
        size = min(bounds[2] - bounds[0], bounds[3] - bounds[1])
        d = max(1, min(round(size*.10), 5))
        soft = np.asarray(crop.filter(ImageFilter.BoxBlur(d)).filter(ImageFilter.BoxBlur(d)), np.float32)/255
        near, far = np.roll(soft, (-d, -d), (0, 1)), np.roll(soft, (d, d), (0, 1))
        bevel = (near - far)[cut]
        y, x = np.mgrid[t:b, l:r]
        slope = .35*(x - bounds[0])/max(1, bounds[2] - bounds[0]) + .65*(y - bounds[1])/max(1, bounds[3] - bounds[1]) - .5
        shade = 1 - .34*np.clip(-bevel, 0, 1) - .20*np.clip(slope, -.3, 1)
        shine = np.clip(.30*np.clip(bevel, 0, 1) - .16*np.clip(slope, -1, 0), 0, 1)
        colour[..., :4] *= (shade*(1 - shine))[..., None]
        colour[..., :3] += shine[..., None]
        if 'bare' not in part.options:
            o = .95*scale
            inner = grey(crop.filter(ImageFilter.BoxBlur(float(o))))
            edge = np.clip((.86 - inner)/.24, 0, 1)[..., None]*.82
            ink = colour.copy()
            ink[..., :4] = material/255*.30 + INK/255*.55
            colour += edge*(ink - colour)
    window += cover[..., None]*(colour - window)

@lru_cache(maxsize=512)
def master(kind, pose, look, flip):
    layers = np.clip(paint(kind, pose, look, flip), 0, 1)*255 + .5
    layers = layers.astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(layers[..., [0, 1, 2, 4]])), Image.fromarray(np.ascontiguousarray(layers[..., 3]))

def pattern_mask(pattern, w, h, units_w, units_h, animal):
    y, x = np.mgrid[:h, :w].astype(np.float32) + .5
    ux, uy = x*units_w/w, y*units_h/h
    p = min(max(.2*min(units_w, units_h), 7), 13)
    k = w/units_w
    step = lambda v: np.clip(v*k + .5, 0, 1)   # v in units: signed distance to the edge
    tri = lambda v: np.abs((v/p) % 1 - .5)*p   # distance to the middle of the period
    if pattern == 'striped': return step(.21*p - tri(ux + .18*uy if animal else uy + .18*ux))
    if pattern == 'checked':
        a, b = p*.25 - tri(ux), p*.25 - tri(uy)
        a, b = 2*step(a*1.) - 1, 2*step(b*1.) - 1
        return .5 + .5*a*b
    row = np.floor(uy/(p*.86))
    sx = (ux/p + .5*(row % 2)) % 1 - .5
    sy = uy/(p*.86) % 1 - .5
    return step(.29*p - np.hypot(sx*p, sy*p*.86))

def draw_thing(kind, colour, pattern='plain', pose=None, width=None, height=None, flip=False, look=0):
    pose = check(kind, pose)
    if colour not in COLOURS: raise ValueError(f'no colour is called {colour!r}; choose one of {", ".join(COLOURS)}')
    if pattern not in PATTERNS: raise ValueError(f'no pattern is called {pattern!r}; choose one of {", ".join(PATTERNS)}')
    w0, h0 = pose_size(kind, pose)
    w, h = width or w0, height or h0
    fixed, gain = master(kind, pose, look, bool(flip))
    rgba = np.asarray(fixed.convert('RGBA') and fixed.resize((w, h), Image.BICUBIC) if False else resize4(fixed, w, h), np.float32)
    g = np.asarray(gain.resize((w, h), Image.BICUBIC), np.float32)[..., None]/255
    main = np.array(COLOURS[colour], np.float32)
    if pattern != 'plain':
        m = pattern_mask(pattern, w, h, w0, h0, KINDS[kind].group == 'animals')[..., None]
        main = main + m*(np.array(SECOND.get(colour, CREAM), np.float32) - main)
    rgb = np.minimum(rgba[..., :3] + g*main, rgba[..., 3:])
    out = np.concatenate([rgb, rgba[..., 3:]], -1).astype(np.uint8)
    return Image.frombuffer('RGBa', (w, h), out.tobytes(), 'raw', 'RGBa', 0, 1).convert('RGBA')

def resize4(image, w, h):
    # RGBX resizes all four channels alike: the colours are premultiplied already
    return Image.frombuffer('RGBX', image.size, image.tobytes(), 'raw', 'RGBX', 0, 1).resize((w, h), Image.BICUBIC)

@dataclass(frozen=True)
class Background:
    "A setting in which things stand."
    name: str
    horizon: float
    words: tuple

BACKGROUNDS = {b.name: b for b in [
    Background('park', .56, ('in the park', 'in a park', 'on the grass')), Background('street', .60, ('on the street', 'in the street', 'in town')),
    Background('beach', .58, ('at the beach', 'on the beach', 'by the sea')), Background('room', .64, ('in the room', 'indoors', 'at home')),
    Background('farm', .55, ('on the farm', 'in a field', 'in the countryside')), Background('snow', .57, ('in the snow', 'on a winter day')),
    Background('desert', .58, ('in the desert', 'on the sand')), Background('night', .60, ('at night', 'under the stars'))]}
_TONES = {'park': ((142, 200, 240), (120, 188, 96)), 'street': ((170, 206, 232), (150, 150, 154)), 'beach': ((130, 204, 240), (236, 214, 160)), 'room': ((240, 224, 196), (178, 130, 88)),
    'farm': ((160, 208, 238), (176, 180, 92)), 'snow': ((196, 216, 232), (236, 242, 248)), 'desert': ((248, 214, 160), (226, 178, 112)), 'night': ((28, 36, 84), (44, 72, 72))}

def draw_background(name, variant_rng):
    if name not in BACKGROUNDS: raise ValueError(f'no background is called {name!r}; choose one of {", ".join(BACKGROUNDS)}')
    shift = variant_rng.uniform(-10, 10)
    sky, ground = (np.array(c) + shift for c in _TONES[name])
    y = np.arange(256)[:, None]/256
    rows = np.where(y < BACKGROUNDS[name].horizon, sky + 30*y, ground + 30*(.8 - y))
    return Image.fromarray(np.broadcast_to(rows[:, None], (256, 256, 3)).clip(0, 255).astype(np.uint8))

def draw_shadow(picture, box, strength=.35):
    x0, y0, x1, y1 = box
    w, h = max(4, round((x1 - x0)*1.1)), max(3, round((x1 - x0)*.16))
    y, x = np.mgrid[:h, :w].astype(np.float32)
    d = ((x + .5)/w*2 - 1)**2 + ((y + .5)/h*2 - 1)**2
    mask = Image.fromarray((np.clip(1 - d, 0, 1)**.8*255*strength).astype(np.uint8))
    picture.paste((20, 18, 40), (round((x0 + x1 - w)/2), round(y1 - h*.6)), mask)
