"A store of pictures with none to three regions each, one of which could not be read."
from pathlib import Path

import torch

from vlground.core import torch_rng
from vlground.regions import Regions
from vlground.store import Store, StoreWriter


def ragged_ids(count: int) -> list[str]: return [f'folder.1/{i}.jpg' for i in range(count)]


def ragged_store(folder: Path, count: int, shard_size: int) -> Store:
    "Every fourth picture has no region, and the eighth could not be read."
    ids = ragged_ids(count)
    writer = StoreWriter(folder, ids, 6, [f'class {i}' for i in range(9)], {'detector': 'test'}, shard_size=shard_size, top_k=4)
    for number, some in writer.missing(): writer.write(number, ['cut short' if id == ids[7] else _regions(ids.index(id)) for id in some])
    return Store(folder)


def _regions(i):
    generator = torch_rng('ragged', i)
    boxes = torch.rand(i % 4, 2, 2, generator=generator).sort(dim=1).values.flatten(1)*99
    boxes[:, 2:] += 1
    return Regions(boxes, torch.randn(i % 4, 6, generator=generator), torch.randn(i % 4, 9, generator=generator).softmax(1), (100, 100 + i))
