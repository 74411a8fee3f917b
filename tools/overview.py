"Draw the picture of the README, with the package itself: python tools/overview.py"
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import torch

from vlground.alignment import alignment_matrix
from vlground.boxes import match_regions
from vlground.core import GREEN, ORANGE, show_boxes, show_matrix
from vlground.phrases import load_tokenizer, noun_phrases, phrase_spans
from vlground.scenes import example_scene, render

CAPTION = 'a red dog chasing a small cat near the old house'
GROUNDED = torch.tensor([[24., 136, 104, 196], [128, 150, 168, 190], [152, 40, 248, 140]]) # the box of each phrase
REGIONS = torch.tensor([[24., 136, 104, 196], [132, 150, 172, 190], [152, 40, 248, 90], [8, 8, 56, 56]]) # what the detector found


def draw_overview() -> plt.Figure:
    "A captioned picture with its regions, and the alignment matrix made from both."
    phrases, encoding = noun_phrases(CAPTION), load_tokenizer('world').encode(CAPTION)
    spans, kept = phrase_spans(phrases, encoding)
    matches = match_regions(GROUNDED[kept], REGIONS)
    M = alignment_matrix(spans, matches, len(encoding.tokens))
    names = [f'r{i + 1}' for i in range(len(REGIONS))]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4.1), layout='constrained', width_ratios=(1, 1))
    colours = [GREEN if aligned else ORANGE for aligned in matches.any(0)]
    show_boxes(render(example_scene('A')), REGIONS, names, colours, ['-' if aligned else ':' for aligned in matches.any(0)], ax=left)
    left.set(title='What a detector finds', xticks=[], yticks=[], xlabel=f'“{CAPTION}”', ylabel='')
    show_matrix(M, encoding.tokens, ['picture', *names], title='What belongs together', xlabel='region', ylabel='word piece', ax=right)
    return figure


if __name__ == '__main__':
    path = Path(__file__).resolve().parent.parent/'nbs'/'images'/'overview.png'
    draw_overview().savefig(path, dpi=110, metadata={'Software': None}) # else the bytes depend on matplotlib's version
    print(f'{path.name}: {path.stat().st_size/1000:.0f} kB')
