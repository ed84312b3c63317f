"""torchvision beside this torch: its C++ operators, its decoders and a model, held against what is known of them.

Prints one line of JSON.

usage: torchvision_ops.py PACKAGE LACKS     LACKS is a JSON list of what this build is said to lack: "PNG images"
"""

import io
import json
import sys
from importlib.metadata import version

import numpy
import torch
import torchvision
from PIL import Image
from torchvision import io as images

lacks = json.loads(sys.argv[2])
torch.manual_seed(0)

# Two boxes that overlap by half, one apart: the weaker of the two goes.
boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
assert kept.tolist() == [0, 2], kept

# A constant map stays constant under RoI align, and its gradient reaches the map.
feature = torch.full((1, 1, 8, 8), 3.0, requires_grad=True)
pooled = torchvision.ops.roi_align(feature, torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]]), output_size=2)
torch.testing.assert_close(pooled, torch.full((1, 1, 2, 2), 3.0))
pooled.sum().backward()
torch.testing.assert_close(feature.grad.sum(), torch.tensor(4.0))

# What Pillow writes, the decoders read: bit for bit where the format is lossless.
pixels = numpy.arange(3 * 16 * 16, dtype=numpy.uint8).reshape(16, 16, 3)
picture = Image.fromarray(pixels)
decoders = {"PNG": images.decode_png, "JPEG": images.decode_jpeg, "WebP": images.decode_webp, "GIF": images.decode_gif}
decoded = {}
for name, decode in decoders.items():
    written = io.BytesIO()
    options = {"lossless": True} if name == "WebP" else {}
    (picture.quantize(256) if name == "GIF" else picture).save(written, name, **options)
    data = torch.frombuffer(bytearray(written.getvalue()), dtype=torch.uint8)
    try:
        out = decode(data)
    except RuntimeError as e:
        assert f"{name} images" in lacks, f"{name} is not decoded, and the recipe does not say so: {e}"
        decoded[name] = False
        continue
    assert f"{name} images" not in lacks, f"the recipe says that {name} is lacking, and it is there"
    assert out.shape[-2:] == (16, 16), out.shape
    if name in ("PNG", "WebP"):
        assert (out.permute(1, 2, 0).numpy() == pixels).all(), f"{name} was decoded to other pixels"
    decoded[name] = True

model = torchvision.models.resnet18(weights=None).eval()
with torch.inference_mode():
    scores = model(torch.randn(2, 3, 64, 64))
assert scores.shape == (2, 1000) and bool(scores.isfinite().all())

print(json.dumps({"version": version("torchvision"), "torch": torch.__version__, "decoded": decoded, "resnet18": list(scores.shape)}))
