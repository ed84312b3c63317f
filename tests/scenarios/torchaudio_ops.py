"""torchaudio beside this torch: resampling, a mel spectrogram, its C++ filters and losses, held against what is known.

Prints one line of JSON.

usage: torchaudio_ops.py PACKAGE LACKS
"""

import json
import math
import os
import sys
import tempfile
from importlib.metadata import version

import torch
import torchaudio
from torchaudio import functional as F

torch.manual_seed(0)

# A second of a tone keeps its frequency when it is resampled.
rate, tone = 48000, 440.0
wave = torch.sin(2 * math.pi * tone * torch.arange(rate) / rate).unsqueeze(0)
low = F.resample(wave, rate, 16000)
assert low.shape == (1, 16000), low.shape
peak = torch.fft.rfft(low[0]).abs().argmax().item()
assert peak == 440, peak

mel = torchaudio.transforms.MelSpectrogram(sample_rate=16000, n_fft=1024, n_mels=80)(low)
assert mel.shape[:2] == (1, 80) and bool(mel.isfinite().all())
# The loudest band is the one that the tone lies in.
edges = F.melscale_fbanks(513, 0.0, 8000.0, 80, 16000)
assert mel[0].mean(1).argmax().item() == edges[round(440 / (8000 / 512))].argmax().item()

# What is written as a file is read again: by the package soundfile, where nothing else is there.
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "tone.wav")
    torchaudio.save(path, low, 16000, encoding="PCM_F", bits_per_sample=32)
    read, own_rate = torchaudio.load(path)
assert own_rate == 16000
torch.testing.assert_close(read, low)

# The filter that is compiled, against the recurrence written out.
a, b = torch.tensor([1.0, -0.5]), torch.tensor([0.25, 0.0])
x = torch.randn(1, 64)
filtered = F.lfilter(x, a, b, clamp=False)
expected, last = [], 0.0
for value in x[0].tolist():
    last = 0.25 * value + 0.5 * last
    expected.append(last)
torch.testing.assert_close(filtered[0], torch.tensor(expected), rtol=1e-4, atol=1e-5)

# The transducer loss is compiled too: one frame, one symbol, uniform scores.
logits = torch.zeros(1, 1, 2, 4, requires_grad=True)
loss = F.rnnt_loss(logits, torch.tensor([[1]], dtype=torch.int32), torch.tensor([1], dtype=torch.int32), torch.tensor([1], dtype=torch.int32), blank=0)
loss.backward()
torch.testing.assert_close(loss, torch.tensor(2 * math.log(4)))
assert logits.grad is not None and bool(logits.grad.isfinite().all())

print(json.dumps({"version": version("torchaudio"), "torch": torch.__version__, "mel": list(mel.shape)}))
